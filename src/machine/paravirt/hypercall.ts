/**
 * KVM's hypercalls: what each does, and its result. VMMCALL and the way to here are `isa/svm.ts`'s.
 * Source: Linux, Documentation/virt/kvm/x86/hypercalls.rst, KVM Hypercalls Documentation; error numbers:
 * include/uapi/linux/kvm_para.h.
 */
import { decideMessages, physicalID } from '../devices/devices.js';
import { DELIVERY } from '../devices/local-apic-state.js';
import { Activity, R } from '../layout/cpu-state.js';
import { PAGE_BYTES, uN } from '../units.js';
import { fillClockPairing } from './clock.js';
import { isGuestRam, updateStructure } from './guest-ram.js';
import { type KvmHost, paravirtOf, registerOf, tscOf, wake } from './host.js';
import type { Hypercall } from './interface.js';
import { paravirtVcpu } from './state.js';
import { CLOCK_PAIRING } from './structures.js';

export const KvmCall = {
  VAPIC_POLL_IRQ: 1n,
  KICK_CPU: 5n,
  CLOCK_PAIRING: 9n,
  SEND_IPI: 10n,
  SCHED_YIELD: 11n,
  MAP_GPA_RANGE: 12n,
} as const;

/** Results are negative for errors. */
export const KvmError = { EPERM: -1n, EFAULT: -14n, EINVAL: -22n, EOPNOTSUPP: -95n, ENOSYS: -1000n } as const;

/** @returns the result, signed. */
export function kvmHypercall(host: KvmHost, vcpu: number, call: Hypercall): bigint {
  const [a0, a1] = call.arguments;
  switch (call.number) {
    case KvmCall.VAPIC_POLL_IRQ: // interrupts are looked for at every boundary
      return 0n;
    case KvmCall.SCHED_YIELD:
      for (const target of vcpusOf(host, (id) => id === a0)) host.favour(target);
      return 0n;
    case KvmCall.KICK_CPU:
      for (const target of vcpusOf(host, (id) => id === uN(32, a1))) kick(host, target);
      return 0n;
    case KvmCall.CLOCK_PAIRING:
      return pairClocks(host, vcpu, a0, a1);
    case KvmCall.SEND_IPI:
      return sendIpis(host, call);
    case KvmCall.MAP_GPA_RANGE:
      return mapRange(call);
    default:
      return KvmError.ENOSYS;
  }
}

/** The vCPUs whose local APICs have such an id, and are on. */
function vcpusOf({ state }: KvmHost, isMeant: (apicId: bigint) => boolean): readonly number[] {
  return state.devices.localApics.filter((it) => it.enabled && isMeant(BigInt(physicalID(it)))).map(({ id }) => id);
}

/** The vCPU leaves HLT, or does not enter it the next time. */
function kick(host: KvmHost, vcpu: number): void {
  if (registerOf(host, vcpu, R.activity) === Activity.HALTED) wake(host, vcpu);
  else if (!paravirtVcpu(paravirtOf(host), vcpu).kicked) {
    host.stateEvent({ type: 'paravirt.kicked', vcpu, pending: true }, 0);
  }
  host.favour(vcpu);
}

const WALL_CLOCK_TYPE = 0n;

/** Wall-clock time and TSC of one moment. */
function pairClocks(host: KvmHost, vcpu: number, address: bigint, type: bigint): bigint {
  if (type !== WALL_CLOCK_TYPE) return KvmError.EOPNOTSUPP;
  if (!isGuestRam(host.memory, address, CLOCK_PAIRING.bytes)) return KvmError.EFAULT;
  const { unixSeconds } = paravirtOf(host);
  updateStructure(host.memory, CLOCK_PAIRING, address, (fields) =>
    fillClockPairing(fields, { unixSeconds, now: host.now, tsc: tscOf(host, vcpu) }),
  );
  return 0n;
}

/** Bits of the interrupt command that the hypercall refuses: logical destinations and shorthands. */
const ICR_REFUSED = 0xc_0800n;
const ICR_ASSERT = 1n << 14n;
const ICR_LEVEL = 1n << 15n;

/** @returns how many APICs took it. */
function sendIpis(host: KvmHost, { arguments: [low, high, lowest, icr], is64Bit }: Hypercall): bigint {
  if ((icr & ICR_REFUSED) !== 0n) return KvmError.EINVAL;
  const [first, second] = [uN(32, lowest), uN(32, lowest + (is64Bit ? 64n : 32n))];
  const isIn = (bitmap: bigint, start: bigint, id: bigint): boolean =>
    id >= start && ((bitmap >> (id - start)) & 1n) === 1n;
  const isFor = (id: bigint): boolean => isIn(low, first, id) || isIn(high, second, id);
  const targets = vcpusOf(host, isFor);
  const mode = Number((icr >> 8n) & 7n);
  const level = (icr & ICR_LEVEL) !== 0n;
  if (mode === DELIVERY.REMOTE_READ) {
    // KVM's own kick travels as one.
    for (const vcpu of targets) kick(host, vcpu);
    return BigInt(targets.length);
  }
  if (mode === DELIVERY.EXTINT || (mode === DELIVERY.INIT && level && (icr & ICR_ASSERT) === 0n)) return 0n;
  const { decision, accepted } = decideMessages(host.state.devices, targets, {
    vector: Number(icr & 0xffn),
    mode,
    level,
  });
  host.apply(decision);
  return BigInt(accepted);
}

const RANGE_ENCRYPTED = 1n << 4n;
const RANGE_RESERVED = ~0x1fn;
const FRAME_LIMIT = 1n << 52n;

/** A range shall be plain or encrypted memory. All memory is plain: asking for that changes nothing. */
function mapRange({ arguments: [address, pages, attributes] }: Hypercall): bigint {
  const end = address / BigInt(PAGE_BYTES) + pages;
  if (address % BigInt(PAGE_BYTES) !== 0n || pages === 0n || end > FRAME_LIMIT) return KvmError.EINVAL;
  if ((attributes & RANGE_RESERVED) !== 0n) return KvmError.EINVAL;
  return (attributes & RANGE_ENCRYPTED) === 0n ? 0n : KvmError.EOPNOTSUPP;
}

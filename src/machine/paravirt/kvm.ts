/**
 * KVM's interface at work: what the processor asks of it, what it does before a vCPU goes on, and what inputs of the host
 * mean. Clocks, steal time and the end of interrupts are told here; pages and hypercalls have files of their own.
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst, KVM-specific MSRs; for the end of interrupts also KVM's lapic.c,
 * apic_sync_pv_eoi_to_guest and apic_sync_pv_eoi_from_guest.
 */
import type { CpuidLeaf } from '../cpu/cpuid.js';
import { decideEndOfInterrupt } from '../devices/devices.js';
import { hasVector, highestVector, type LocalApicState } from '../devices/local-apic-state.js';
import { Activity, encodeDelta, R } from '../layout/cpu-state.js';
import { type SPA, sPA, TSC_HERTZ, u64 } from '../units.js';
import { AsyncPages } from './async-pages.js';
import { fillVcpuTime, fillWallClock, timeScale } from './clock.js';
import { kvmLeaf } from './cpuid.js';
import { isGuestRam, updateStructure } from './guest-ram.js';
import { type KvmHost, paravirtOf } from './host.js';
import type { HostInput } from './host-input.js';
import { kvmHypercall } from './hypercall.js';
import type { Hypercall, MissContext, MissOutcome, Paravirt } from './interface.js';
import { acceptsKvmMsr, ENABLED, KvmMsr } from './msr.js';
import { type ParavirtVcpu, paravirtVcpu, readKvmMsr } from './state.js';
import { nextVersion, STEAL_TIME, VCPU_TIME, WALL_CLOCK } from './structures.js';

/** The guest may end the interrupt in service by clearing this. */
const EOI_PENDING = 1n;

export class KvmInterface implements Paravirt {
  readonly pages: AsyncPages;
  private readonly scale = timeScale(TSC_HERTZ);

  constructor(private readonly host: KvmHost) {
    this.pages = new AsyncPages(host);
  }

  // What the processor asks for

  cpuidLeaf(leaf: number): CpuidLeaf {
    return kvmLeaf(leaf);
  }

  readMsr(vcpu: number, msr: number): bigint {
    return readKvmMsr(paravirtOf(this.host), this.vcpu(vcpu), msr);
  }

  writeMsr(vcpu: number, msr: number, value: bigint): boolean {
    if (!acceptsKvmMsr(msr, value, (address, length) => isGuestRam(this.host.memory, address, length))) return false;
    if (msr === KvmMsr.EOI_EN) this.settleEoi(vcpu);
    if (msr !== KvmMsr.ASYNC_PF_ACK) this.host.stateEvent({ type: 'paravirt.written', vcpu, msr, value }, 0);
    switch (msr) {
      case KvmMsr.WALL_CLOCK:
      case KvmMsr.WALL_CLOCK_NEW:
        this.tellWallClock(vcpu);
        break;
      case KvmMsr.SYSTEM_TIME:
      case KvmMsr.SYSTEM_TIME_NEW:
        this.tellTime(vcpu, this.host.readTsc());
        break;
      case KvmMsr.STEAL_TIME:
        this.tellStealTime(vcpu);
        break;
      case KvmMsr.ASYNC_PF_EN:
        this.pages.settle(vcpu);
        break;
      case KvmMsr.ASYNC_PF_ACK:
        if ((value & 1n) !== 0n) this.pages.settle(vcpu);
        break;
    }
    return true;
  }

  hypercall(call: Hypercall): bigint {
    return u64(kvmHypercall(this.host, call));
  }

  missPage(vcpu: number, page: SPA, context: MissContext): MissOutcome {
    return this.pages.miss(vcpu, page, context);
  }

  waitForPage(vcpu: number, page: SPA): void {
    this.pages.wait(vcpu, page);
  }

  // What the machine tells

  /** Before a vCPU goes on, whether it runs or waits. */
  attend(vcpu: number): void {
    const it = this.vcpu(vcpu);
    // Whether the interrupt that has come may be taken depends on whether the one in service is over.
    if (it.eoiOffered && highestVector(this.apic(vcpu).irr) >= 0) this.settleEoi(vcpu);
    if (it.kicked && this.host.state.vcpus[vcpu]?.registers[R.activity] === Activity.HALTED) {
      this.host.stateEvent({ type: 'paravirt.kicked', vcpu, pending: false }, 0);
      this.host.stateEvent({ type: 'cpu.woke', registers: encodeDelta([[R.activity, Activity.RUNNING]]) }, 0);
    }
  }

  /** The processor has acknowledged an interrupt of its local APIC. */
  interruptTaken(vcpu: number): void {
    const { eoi, eoiOffered } = this.vcpu(vcpu);
    if ((eoi & ENABLED) === 0n || eoiOffered || !mayOfferEoi(this.apic(vcpu))) return;
    this.host.memory.write(eoiAddress(eoi), 1, EOI_PENDING);
    this.host.stateEvent({ type: 'paravirt.eoi', vcpu, what: 'offered' }, 0);
  }

  /** What is in service is about to be looked at or changed: has the guest ended it? If not, it must do so at its APIC. */
  settleEoi(vcpu: number): void {
    const { eoi, eoiOffered } = this.vcpu(vcpu);
    if (!eoiOffered) return;
    const isTaken = (this.host.memory.read(eoiAddress(eoi), 1) & EOI_PENDING) === 0n;
    if (!isTaken) this.host.memory.write(eoiAddress(eoi), 1, 0n);
    this.host.stateEvent({ type: 'paravirt.eoi', vcpu, what: isTaken ? 'taken' : 'withdrawn' }, 0);
    if (isTaken) this.host.apply(decideEndOfInterrupt(this.host.state.devices, vcpu));
  }

  /** The vCPU's TSC is about to read as `tsc`. */
  tscMoved(vcpu: number, tsc: bigint): void {
    this.tellTime(vcpu, tsc);
  }

  /** INIT. */
  reset(vcpu: number): void {
    this.host.stateEvent({ type: 'paravirt.reset', vcpu }, 0);
  }

  /** After an input was applied. */
  hostActed(input: HostInput): void {
    switch (input.type) {
      case 'input.pages':
        this.pages.changed(input);
        return;
      case 'input.stolen':
        for (const vcpu of paravirtOf(this.host).vcpus.keys()) this.tellStealTime(vcpu);
        return;
      case 'input.paused':
        for (const vcpu of paravirtOf(this.host).vcpus.keys()) this.tellTime(vcpu, this.host.readTsc(), true);
        return;
    }
  }

  // Structures

  private tellWallClock(vcpu: number): void {
    const { memory } = this.host;
    const { wallClock: address, unixSeconds } = paravirtOf(this.host);
    if (address === 0n || !isGuestRam(memory, address, WALL_CLOCK.bytes)) return;
    updateStructure(memory, WALL_CLOCK, address, (fields) => fillWallClock(fields, unixSeconds));
    this.stateUpdate(vcpu, 'wall-clock', address);
  }

  private tellTime(vcpu: number, tsc: bigint, wasStopped = false): void {
    const { memory, now } = this.host;
    const { systemTime } = this.vcpu(vcpu);
    const address = systemTime & ~ENABLED;
    if ((systemTime & ENABLED) === 0n || !isGuestRam(memory, address, VCPU_TIME.bytes)) return;
    // Guests that use the old number are too old to know the flag.
    const isStable = !this.vcpu(0).oldClock;
    updateStructure(memory, VCPU_TIME, address, (fields) =>
      fillVcpuTime(fields, { tsc, now, scale: this.scale, isStable, wasStopped }),
    );
    this.stateUpdate(vcpu, 'clock', address);
  }

  /** Tells the time stolen since the last update; and that the vCPU runs. */
  private tellStealTime(vcpu: number): void {
    const { memory } = this.host;
    const { stealTime, stolen, reported } = this.vcpu(vcpu);
    const address = stealTime & ~ENABLED;
    if ((stealTime & ENABLED) === 0n || !isGuestRam(memory, address, STEAL_TIME.bytes)) return;
    updateStructure(memory, STEAL_TIME, address, (fields) => {
      fields.version = nextVersion(fields.version);
      fields.steal += BigInt(stolen - reported);
      fields.preempted = 0;
    });
    this.stateUpdate(vcpu, 'steal-time', address);
  }

  private stateUpdate(vcpu: number, structure: 'wall-clock' | 'clock' | 'steal-time', address: bigint): void {
    const layout = { 'wall-clock': WALL_CLOCK, clock: VCPU_TIME, 'steal-time': STEAL_TIME }[structure];
    const at = Number(address) + layout.fields.version.offset;
    const version = Number(this.host.memory.read(sPA(at), 4));
    this.host.stateEvent({ type: 'paravirt.updated', vcpu, structure, address, version }, 0);
  }

  private vcpu(vcpu: number): ParavirtVcpu {
    return paravirtVcpu(paravirtOf(this.host), vcpu);
  }
  private apic(vcpu: number): LocalApicState {
    return this.host.state.devices.localApics[vcpu] as LocalApicState;
  }
}

const eoiAddress = (eoi: bigint): SPA => sPA(Number(eoi & ~ENABLED));

/** Not while another interrupt waits, and not for one whose end I/O APICs must hear. */
function mayOfferEoi({ irr, isr, tmr }: LocalApicState): boolean {
  const served = highestVector(isr);
  return served >= 0 && highestVector(irr) < 0 && !hasVector(tmr, served);
}

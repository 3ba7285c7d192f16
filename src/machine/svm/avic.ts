/**
 * AVIC: the virtual APIC of the guest that runs, in xAPIC mode. The guest's accesses to its APIC page come here, past the
 * nested tables, which must allow them (`mmu/nested-walk.ts`); those that its page and the tables of its virtual machine
 * can answer cost no #VMEXIT.
 *
 * A write takes effect when its instruction is committed, as a device's does: first the page, then what AVIC does about
 * it. RAM stands in no event (docs/adr/0001); what becomes of registers does: `avic.written`, `avic.doorbell` and
 * `avic.acknowledged`.
 * Source: APM vol.2 §15.29 Advanced Virtual Interrupt Controller.
 */
import type { SlotReader } from '../cpu/mode.js';
import { Access, type Transaction } from '../cpu/transaction.js';
import type { MachineEvent } from '../events.js';
import { EMPTY_DELTA, encodeDelta, R, type RegisterDelta, type Slot, SvmMode } from '../layout/cpu-state.js';
import { IntControl, W } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { sPA } from '../units.js';
import { IpiFailure, type IpiTables, routeIpi } from './avic-ipi.js';
import {
  acknowledge,
  endOfInterrupt,
  evaluate,
  followTaskPriority,
  hasVector,
  highestVector,
  request,
  storeTaskPriority,
} from './avic-page.js';
import { behaviourAt, REGISTER_BYTES, REGISTER_STRIDE, registerAt, VirtualApic } from './avic-registers.js';
import { ExitCode } from './exit-code.js';
import { VmExit } from './vmexit-request.js';

/** What only a guest with AVIC has; zero otherwise. */
export const AVIC_SLOTS: readonly Slot[] = [R.avicApicBar, R.avicBackingPage, R.avicLogicalTable, R.avicPhysicalTable];

const PAGE = 0x000f_ffff_ffff_f000n;
const MAX_INDEX = 0xfffn;
const ENABLED = 1;
/** Of EXITINFO1: the access was a write. */
const WRITE = 1n << 32n;

/** A guest has a virtual APIC: it runs, or waits behind an SMI's handler. */
const isEnabled = (cpu: SlotReader): boolean => (cpu.get(R.intControl) & IntControl.AVIC_ENABLE) !== 0n;

/** A guest runs that has a virtual APIC. */
export const hasVirtualApic = (cpu: SlotReader): boolean =>
  isEnabled(cpu) && (cpu.get(R.svmMode) & SvmMode.GUEST) !== 0n;

const backingPage = (cpu: SlotReader): number => Number(cpu.get(R.avicBackingPage));

function tablesOf(cpu: SlotReader): IpiTables {
  const physical = cpu.get(R.avicPhysicalTable);
  return {
    ownPage: backingPage(cpu),
    logical: Number(cpu.get(R.avicLogicalTable)),
    physical: Number(physical & PAGE),
    highest: Number(physical & MAX_INDEX),
  };
}

/**
 * VMRUN past its checks, into a guest with AVIC: takes the pointers and evaluates the page. PPR stays what it is, for
 * neither TPR nor ISR change.
 * @param words @param at the VMCB: 32-bit words from index `at` on.
 */
export function startVirtualApic(tx: Transaction, words: Uint32Array, at: number): void {
  const halves = (word: number): readonly [low: number, high: number] => [
    words[at + 2 * word] as number,
    words[at + 2 * word + 1] as number,
  ];
  const page = (word: number): readonly [low: number, high: number] => {
    const [low, high] = halves(word);
    return [low & ~0xfff, high & 0xf_ffff];
  };
  const [bar, barHigh] = page(W.avicApicBar);
  tx.setHalves(R.avicApicBar, bar | ENABLED, barHigh);
  tx.setHalves(R.avicBackingPage, ...page(W.avicBackingPage));
  tx.setHalves(R.avicLogicalTable, ...page(W.avicLogicalTable));
  tx.setHalves(R.avicPhysicalTable, ...halves(W.avicPhysicalTable));
  tx.set(R.intControl, evaluate(tx.host.memory, backingPage(tx), tx.get(R.intControl)));
}

// --- accesses of the guest -------------------------------------------------------------------------------------------

const unaccelerated = (offset: number, write: boolean, vector = 0): VmExit =>
  new VmExit(ExitCode.AVIC_NOACCEL, BigInt(registerAt(offset)) | (write ? WRITE : 0n), BigInt(vector));

/**
 * The permissions filter, ahead of an access. Fetches count as reads.
 * @param offset of its first byte within the page. @param access bits of `Access`.
 * @throws VmExit when the access faults.
 */
export function admitVirtualApicAccess(offset: number, access: number): void {
  const write = (access & Access.WRITE) !== 0;
  if (behaviourAt(offset, write) === 'fault') throw unaccelerated(offset, write);
}

/** What a write to the page can reach. */
export interface VirtualApicSite {
  /** The registers as they are now. */
  readonly cpu: SlotReader;
  readonly memory: PhysicalMemory;
  /** Applies and states an event of this vCPU. */
  state(event: MachineEvent): void;
  /** Signals a processor. @param apicId its physical APIC ID. */
  ringDoorbell(apicId: number): void;
}

export const readVirtualApic = (cpu: SlotReader, memory: PhysicalMemory, offset: number, size: number): bigint =>
  memory.read(sPA(backingPage(cpu) + offset), size);

/**
 * A write that the filter has let pass. Bytes behind a register's four are plain memory.
 * @param size 1, 2, 4 or 8. @returns the exit that follows the instruction, if any.
 */
export function writeVirtualApic(
  site: VirtualApicSite,
  offset: number,
  size: number,
  value: bigint,
): VmExit | undefined {
  const { cpu, memory } = site;
  const page = backingPage(cpu);
  memory.write(sPA(page + offset), size, value);
  if (offset % REGISTER_STRIDE >= REGISTER_BYTES) return undefined;
  const behaviour = behaviourAt(offset, true);
  if (behaviour === 'trap') return unaccelerated(offset, true);
  if (behaviour !== 'accelerated') return undefined;
  const register = registerAt(offset);
  if (register === VirtualApic.ICR_LOW) return sendIpi(site, page);
  const intControl = cpu.get(R.intControl);
  if (register === VirtualApic.TPR) {
    stateWrite(site, register, page, followTaskPriority(memory, page, intControl));
    return undefined;
  }
  const vector = highestVector(memory, page, VirtualApic.ISR);
  if (vector >= 0 && hasVector(memory, page, VirtualApic.TMR, vector)) return unaccelerated(offset, true, vector);
  stateWrite(site, register, page, endOfInterrupt(memory, page, vector, intControl));
  return undefined;
}

/** @param intControl what it has become. */
function stateWrite(site: VirtualApicSite, offset: number, page: number, intControl: bigint): void {
  const value = site.memory.read32(page + offset);
  site.state({ type: 'avic.written', offset, value, registers: intControlDelta(site.cpu, intControl) });
}

function intControlDelta(cpu: SlotReader, intControl: bigint): RegisterDelta {
  return intControl === cpu.get(R.intControl) ? EMPTY_DELTA : encodeDelta([[R.intControl, intControl]]);
}

/** The low ICR was written. @returns the exit when that is not all. */
function sendIpi(site: VirtualApicSite, page: number): VmExit | undefined {
  const { cpu, memory } = site;
  const low = memory.read32(page + VirtualApic.ICR_LOW);
  const high = memory.read32(page + VirtualApic.ICR_HIGH);
  const incomplete = (id: number, index: number): VmExit =>
    new VmExit(ExitCode.AVIC_INCOMPLETE_IPI, (BigInt(high) << 32n) | BigInt(low), (BigInt(id) << 32n) | BigInt(index));
  const route = routeIpi(memory, tablesOf(cpu), low, high);
  if ('id' in route) return incomplete(route.id, route.index);
  const { vector, targets } = route;
  if (targets === 'self') {
    request(memory, page, vector);
    stateWrite(site, VirtualApic.ICR_LOW, page, evaluate(memory, page, cpu.get(R.intControl)));
    return undefined;
  }
  for (const target of targets) request(memory, target.page, vector);
  stateWrite(site, VirtualApic.ICR_LOW, page, cpu.get(R.intControl));
  for (const { host } of targets) if (host !== undefined) site.ringDoorbell(host);
  const waiting = targets.find(({ host }) => host === undefined);
  return waiting && incomplete(IpiFailure.NOT_RUNNING, waiting.index);
}

/** MOV to CR8: `tx` has the new V_TPR. */
export function writeVirtualTaskPriority(tx: Transaction): void {
  const write = (address: ReturnType<typeof sPA>, size: number, value: bigint): void =>
    tx.writePhysical(address, size, value);
  tx.set(R.intControl, storeTaskPriority(tx.host.memory, backingPage(tx), tx.get(R.intControl), write));
}

// --- interrupts ------------------------------------------------------------------------------------------------------

/**
 * A doorbell rings at a processor.
 * @returns what it changes there; undefined where there is no guest with a virtual APIC, for its next VMRUN will look.
 */
export function answerDoorbell(cpu: SlotReader, memory: PhysicalMemory): RegisterDelta | undefined {
  if (!isEnabled(cpu)) return undefined;
  return intControlDelta(cpu, evaluate(memory, backingPage(cpu), cpu.get(R.intControl)));
}

/** The guest takes the interrupt that is due. @returns its vector, undefined when it is gone. */
export function acknowledgeVirtualApic({ cpu, memory, state }: VirtualApicSite): number | undefined {
  const { vector, intControl } = acknowledge(memory, backingPage(cpu), cpu.get(R.intControl));
  state({ type: 'avic.acknowledged', vector: vector ?? null, registers: intControlDelta(cpu, intControl) });
  return vector;
}

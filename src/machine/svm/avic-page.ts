/**
 * The vAPIC backing page as AVIC works on it: which interrupt is due, acknowledge, end of interrupt, priorities.
 *
 * Which interrupt is due is evaluated at VMRUN, when a doorbell rings, and when TPR, ISR or the page's own IRR change by
 * the guest; in between it stands in the processor's copy of the VMCB's interrupt control, in the fields that AVIC takes
 * from the hypervisor: V_IRQ with V_INTR_PRIO and V_INTR_VECTOR. V_IGN_TPR is set beside, for the priority was compared
 * already. A bit of IRR that somebody sets without a doorbell waits for the next occasion.
 *
 * V_TPR decides the task priority, and VMRUN does not bring TPR of the page there: processors do so on writes of the guest
 * alone (Linux d02e48830e3f, "Sync TPR from LAPIC into VMCB::V_TPR even if AVIC is active").
 * Source: APM vol.2 §15.29.3.1 Virtual APIC Register Accesses, §15.29.8.2 Doorbell Mechanism, §15.29.8.3 Additional VMRUN
 * Handling; §16.6.4 Selecting and Handling Interrupts for PPR.
 */
import { IntControl } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { type SPA, sPA } from '../units.js';
import { REGISTER_BYTES, REGISTER_STRIDE, VirtualApic } from './avic-registers.js';

/** Where words of the page are written: to RAM at once, or through a transaction. */
export type PageWriter = (address: SPA, size: number, value: bigint) => void;

/** What AVIC takes from the hypervisor. */
const VIRTUAL_INTERRUPT = IntControl.V_IRQ | IntControl.V_INTR_PRIO | IntControl.V_IGN_TPR | IntControl.V_INTR_VECTOR;

const WORDS = 8;
const NONE = -1;

/** @param page sPA of a page in RAM. @param offset of ISR, TMR or IRR. @returns the highest vector whose bit is set, or -1. */
export function highestVector(memory: PhysicalMemory, page: number, offset: number): number {
  for (let word = WORDS - 1; word >= 0; word--) {
    const bits = memory.read32(page + offset + REGISTER_STRIDE * word);
    if (bits !== 0) return 32 * word + 31 - Math.clz32(bits);
  }
  return NONE;
}

const wordOf = (page: number, offset: number, vector: number): number =>
  page + offset + REGISTER_STRIDE * (vector >>> 5);
const bitOf = (vector: number): number => (1 << (vector & 31)) >>> 0;

export const hasVector = (memory: PhysicalMemory, page: number, offset: number, vector: number): boolean =>
  (memory.read32(wordOf(page, offset, vector)) & bitOf(vector)) !== 0;

function changeVector(memory: PhysicalMemory, page: number, offset: number, vector: number, set: boolean): void {
  const at = wordOf(page, offset, vector);
  const old = memory.read32(at);
  const bits = set ? old | bitOf(vector) : old & ~bitOf(vector);
  memory.write(sPA(at), REGISTER_BYTES, BigInt(bits >>> 0));
}

/** An interrupt arrives: its bit in IRR. */
export const request = (memory: PhysicalMemory, page: number, vector: number): void =>
  changeVector(memory, page, VirtualApic.IRR, vector, true);

/** Task priority with the subclass that only the page has. */
function taskPriority(memory: PhysicalMemory, page: number, intControl: bigint): number {
  return (Number(intControl & 0xfn) << 4) | (memory.read32(page + VirtualApic.TPR) & 0xf);
}

/** PPR: TPR, or the class in service when that is higher. */
const priorityOf = (tpr: number, served: number): number => (tpr >> 4 >= served >> 4 ? tpr : served & 0xf0);

/** @returns the interrupt control with the interrupt that is due, or with none. */
export function evaluate(memory: PhysicalMemory, page: number, intControl: bigint): bigint {
  const requested = highestVector(memory, page, VirtualApic.IRR);
  const priority = priorityOf(taskPriority(memory, page, intControl), highestVector(memory, page, VirtualApic.ISR));
  const others = intControl & ~VIRTUAL_INTERRUPT;
  if (requested >> 4 <= priority >> 4) return others;
  const due = (BigInt(requested) << 32n) | (BigInt(requested >> 4) << 16n);
  return others | IntControl.V_IRQ | IntControl.V_IGN_TPR | due;
}

/** Brings PPR up to date: TPR or the highest interrupt in service has changed. */
function updatePriority(memory: PhysicalMemory, page: number, tpr: number, write: PageWriter): void {
  const priority = priorityOf(tpr, highestVector(memory, page, VirtualApic.ISR));
  write(sPA(page + VirtualApic.PPR), REGISTER_BYTES, BigInt(priority));
}

const toRam =
  (memory: PhysicalMemory): PageWriter =>
  (address, size, value) =>
    memory.write(address, size, value);

/**
 * The guest takes the interrupt that is due: it goes from IRR to ISR.
 * @returns its vector, undefined when it was withdrawn meanwhile, and the interrupt control afterwards.
 */
export function acknowledge(
  memory: PhysicalMemory,
  page: number,
  intControl: bigint,
): { readonly vector: number | undefined; readonly intControl: bigint } {
  const now = evaluate(memory, page, intControl);
  if ((now & IntControl.V_IRQ) === 0n) return { vector: undefined, intControl: now };
  const vector = Number((now & IntControl.V_INTR_VECTOR) >> 32n);
  changeVector(memory, page, VirtualApic.IRR, vector, false);
  changeVector(memory, page, VirtualApic.ISR, vector, true);
  updatePriority(memory, page, taskPriority(memory, page, now), toRam(memory));
  return { vector, intControl: evaluate(memory, page, now) };
}

/** The guest ends its highest interrupt, which is edge-triggered. @param vector that one's; -1 when it has none. */
export function endOfInterrupt(memory: PhysicalMemory, page: number, vector: number, intControl: bigint): bigint {
  if (vector >= 0) {
    changeVector(memory, page, VirtualApic.ISR, vector, false);
    updatePriority(memory, page, taskPriority(memory, page, intControl), toRam(memory));
  }
  return evaluate(memory, page, intControl);
}

/** TPR of the page has been written to: V_TPR and PPR follow. */
export function followTaskPriority(memory: PhysicalMemory, page: number, intControl: bigint): bigint {
  const tpr = memory.read32(page + VirtualApic.TPR) & 0xff;
  updatePriority(memory, page, tpr, toRam(memory));
  return evaluate(memory, page, (intControl & ~IntControl.V_TPR) | BigInt(tpr >> 4));
}

/** CR8 has been written to, and V_TPR is its value: TPR of the page and PPR follow, the subclass is zero. */
export function storeTaskPriority(memory: PhysicalMemory, page: number, intControl: bigint, write: PageWriter): bigint {
  const tpr = Number(intControl & 0xfn) << 4;
  write(sPA(page + VirtualApic.TPR), REGISTER_BYTES, BigInt(tpr));
  updatePriority(memory, page, tpr, write);
  return evaluate(memory, page, intControl);
}

/**
 * Segment descriptors: how eight or sixteen bytes of a descriptor table become the packed form of the register file, and
 * the segments of the task state.
 * Source: APM vol.2 §4.7 Legacy Segment Descriptors, §4.8 Long-Mode Segment Descriptors, §12.2 Task-Management Resources.
 */
import { type GuestFault, generalProtection } from '../faults.js';
import { R, Segment, type Slot, segmentSlot } from '../layout/cpu-state.js';
import { isCanonical, u64, uN } from '../units.js';
import { isLongMode, type SlotReader } from './mode.js';
import { Access, type Transaction } from './transaction.js';

/** Attribute bits, as the VMCB packs them: descriptor bits 47:40 at 7:0, bits 55:52 at 11:8. */
export const Attribute = {
  ACCESSED: 0x001,
  /** Data: writable. Code: readable. */
  WRITABLE: 0x002,
  READABLE: 0x002,
  /** Data: expands down. Code: conforming. */
  EXPAND_DOWN: 0x004,
  CONFORMING: 0x004,
  CODE: 0x008,
  /** S: code or data, else a system segment or a gate. */
  USER: 0x010,
  PRESENT: 0x080,
  LONG: 0x200,
  BIG: 0x400,
  GRANULAR: 0x800,
} as const;

/** Types of system segments and gates (APM vol.2 table 4-5, table 4-6). In long mode only LDT, TSS and gates of 64 bits. */
export const SystemType = {
  TSS16: 0x1,
  LDT: 0x2,
  TSS16_BUSY: 0x3,
  CALL_GATE16: 0x4,
  TASK_GATE: 0x5,
  INTERRUPT_GATE16: 0x6,
  TRAP_GATE16: 0x7,
  TSS: 0x9,
  TSS_BUSY: 0xb,
  CALL_GATE: 0xc,
  INTERRUPT_GATE: 0xe,
  TRAP_GATE: 0xf,
} as const;

export interface Descriptor {
  readonly selector: number;
  /** The eight bytes. */
  readonly raw: bigint;
  /** Linear address of the eight bytes. */
  readonly address: bigint;
  readonly attributes: number;
  /** In bytes, G applied. */
  readonly limit: number;
  readonly base: bigint;
}

/** Makes the fault of a check: `generalProtection`, `segmentNotPresent` … */
export type FaultOf = (errorCode: number) => GuestFault;

export const dplOf = ({ attributes }: { readonly attributes: number }): number => (attributes >> 5) & 3;
export const typeOf = ({ attributes }: { readonly attributes: number }): number => attributes & 0xf;
export const isPresent = ({ attributes }: { readonly attributes: number }): boolean =>
  (attributes & Attribute.PRESENT) !== 0;
export const isSystem = ({ attributes }: { readonly attributes: number }): boolean =>
  (attributes & Attribute.USER) === 0;
export const isCode = ({ attributes }: { readonly attributes: number }): boolean =>
  (attributes & (Attribute.USER | Attribute.CODE)) === (Attribute.USER | Attribute.CODE);
export const isData = ({ attributes }: { readonly attributes: number }): boolean =>
  (attributes & (Attribute.USER | Attribute.CODE)) === Attribute.USER;
export const isConforming = (descriptor: { readonly attributes: number }): boolean =>
  isCode(descriptor) && (descriptor.attributes & Attribute.CONFORMING) !== 0;
export const isWritableData = (descriptor: { readonly attributes: number }): boolean =>
  isData(descriptor) && (descriptor.attributes & Attribute.WRITABLE) !== 0;

export const isNull = (selector: number): boolean => (selector & 0xfffc) === 0;
export const rplOf = (selector: number): number => selector & 3;
/** Error code that names a selector (APM vol.2 §8.4.1 Selector-Error Code). @param ext 1 while an event is delivered. */
export const selectorError = (selector: number, ext = 0): number => (selector & 0xfffc) | ext;

/** The packed word of a segment register. */
export const packSegment = (selector: number, attributes: number, limit: number): bigint =>
  BigInt(selector) | (BigInt(attributes) << 16n) | (BigInt(limit) << 32n);
export const selectorOf = (word: bigint): number => Number(word & 0xffffn);
export const attributesOf = (word: bigint): number => Number((word >> 16n) & 0xffffn);
export const limitOf = (word: bigint): number => Number(word >> 32n);

/** Fields of a descriptor, from its halves. */
export const attributesIn = (high: number): number => ((high >>> 8) & 0xff) | ((high >>> 12) & 0xf00);
export const baseIn = (low: number, high: number): number =>
  ((low >>> 16) | ((high & 0xff) << 16) | (high & 0xff00_0000)) >>> 0;

/** In bytes, G applied. */
export function limitIn(low: number, high: number): number {
  const units = (low & 0xffff) | (high & 0xf_0000);
  return (attributesIn(high) & Attribute.GRANULAR) !== 0 ? units * 4096 + 4095 : units;
}

function descriptorAt(tx: Transaction, selector: number, address: bigint): Descriptor {
  const raw = tx.readQuad(address, Access.IMPLICIT);
  const { lowRead: low, highRead: high } = tx;
  const base = BigInt(baseIn(low, high));
  return { selector, raw, address, attributes: attributesIn(high), limit: limitIn(low, high), base };
}

/**
 * Reads the descriptor that a selector names, from the GDT or the LDT.
 * @param fault what is raised, with the selector, when it lies outside its table or the LDT is null.
 * @param ext 1 while an event is delivered.
 */
export function readDescriptor(tx: Transaction, selector: number, fault: FaultOf, ext = 0): Descriptor {
  const address = descriptorAddress(tx, selector, 8);
  if (address === undefined) throw fault(selectorError(selector, ext));
  return descriptorAt(tx, selector, address);
}

/** As `readDescriptor`, undefined instead of a fault: for LAR, LSL, VERR and VERW. */
export function findDescriptor(tx: Transaction, selector: number): Descriptor | undefined {
  if (isNull(selector)) return undefined;
  const address = descriptorAddress(tx, selector, 8);
  return address === undefined ? undefined : descriptorAt(tx, selector, address);
}

/**
 * The upper eight bytes of a long-mode system descriptor or gate.
 * @throws what `fault` makes when they lie outside the table, or their type field is not 0 (APM vol.2 §4.8.3).
 */
export function readUpperHalf(tx: Transaction, selector: number, fault: FaultOf, ext = 0): bigint {
  const address = descriptorAddress(tx, selector, 16);
  if (address === undefined) throw fault(selectorError(selector, ext));
  const upper = tx.readLinear(u64(address + 8n), 8, Access.IMPLICIT);
  if (((upper >> 40n) & 0x1fn) !== 0n) throw fault(selectorError(selector, ext));
  return upper;
}

/** Linear address of a descriptor of `bytes` bytes; undefined when it is not wholly inside its table. */
function descriptorAddress(cpu: SlotReader, selector: number, bytes: number): bigint | undefined {
  const offset = selector & 0xfff8;
  const local = (selector & 4) !== 0;
  if (local && (attributesOf(cpu.get(R.ldtr)) & Attribute.PRESENT) === 0) return undefined;
  const limit = local ? limitOf(cpu.get(R.ldtr)) : Number(cpu.get(R.gdtrLimit));
  if (offset + bytes - 1 > limit) return undefined;
  const linear = cpu.get(local ? R.ldtrBase : R.gdtrBase) + BigInt(offset);
  if (!isLongMode(cpu)) return uN(32, linear);
  if (!isCanonical(u64(linear))) throw generalProtection(0);
  return u64(linear);
}

/** Sets the accessed bit of a code or data descriptor, in memory (APM vol.2 §4.7.2). @returns the attributes with it. */
function markAccessed(tx: Transaction, descriptor: Descriptor): number {
  if ((descriptor.attributes & Attribute.ACCESSED) === 0) writeType(tx, descriptor, Attribute.ACCESSED);
  return descriptor.attributes | Attribute.ACCESSED;
}

/** Sets the busy bit of an available TSS, in memory. @returns the attributes with it. */
export function markBusy(tx: Transaction, descriptor: Descriptor): number {
  writeType(tx, descriptor, 0x2);
  return descriptor.attributes | 0x2;
}

/** Clears the busy bit of a TSS, in memory. */
export function markAvailable(tx: Transaction, { raw, address }: Descriptor): void {
  tx.writeLinear(u64(address + 5n), 1, (raw >> 40n) & 0xffn & ~0x2n, Access.IMPLICIT);
}

function writeType(tx: Transaction, { raw, address }: Descriptor, bits: number): void {
  const byte = ((raw >> 40n) & 0xffn) | BigInt(bits);
  tx.writeLinear(u64(address + 5n), 1, byte, Access.IMPLICIT);
}

/** Writes a segment register, hidden part included. */
export function setSegment(tx: Transaction, number: number, word: bigint, base: bigint): void {
  tx.set(segmentSlot(number), word);
  tx.set((segmentSlot(number) + 1) as Slot, base);
}

/** Loads a code or data segment from a descriptor that passed its checks. */
export function loadDescriptor(tx: Transaction, number: number, selector: number, descriptor: Descriptor): void {
  const attributes = markAccessed(tx, descriptor);
  const slot = segmentSlot(number);
  tx.setHalves(slot, selector | (attributes << 16), descriptor.limit);
  tx.set((slot + 1) as Slot, descriptor.base);
}

/**
 * Makes a segment register null: no attributes. In long mode FS and GS keep their bases, which WRMSR may have set, as
 * processors do that lack CPUID Fn8000_0021_EAX[NullSelectClearsBase]; kvm-unit-tests rely on it after a return to CPL 3.
 */
export function setNull(tx: Transaction, number: number, selector: number): void {
  const keepsBase = (number === Segment.FS || number === Segment.GS) && isLongMode(tx);
  const base = keepsBase ? tx.get((segmentSlot(number) + 1) as Slot) : 0n;
  setSegment(tx, number, packSegment(selector, 0, 0), base);
}

/**
 * Reads a field of the current task-state segment.
 * @throws GuestFault #TS(TR) when the field lies past the limit.
 */
export function readTss(tx: Transaction, fault: FaultOf, offset: number, size: number, ext: number): bigint {
  const tr = tx.get(R.tr);
  if (offset + size - 1 > limitOf(tr)) throw fault(selectorError(selectorOf(tr), ext));
  const linear = tx.get(R.trBase) + BigInt(offset);
  return tx.readLinear(isLongMode(tx) ? u64(linear) : uN(32, linear), size, Access.IMPLICIT);
}

/** True when TR holds a 16-bit TSS. */
export const isTss16 = (cpu: SlotReader): boolean => (attributesOf(cpu.get(segmentSlot(Segment.TR))) & 0xd) === 0x1;

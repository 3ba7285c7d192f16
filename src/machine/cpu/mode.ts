/**
 * Operating modes, read off the registers: real, virtual-8086, protected; long mode with its 64-bit and compatibility
 * submodes; privilege level and I/O privilege.
 * Source: APM vol.2 §1.3 Operating Modes, §14.7 Initializing Long Mode.
 */
import { CR0, EFER, Flag, type LowReader, R, type Slot } from '../layout/cpu-state.js';
import { Access } from './transaction.js';

/** Whatever registers can be read from: a transaction, or a register file behind `readerOf`. */
export interface SlotReader {
  get(slot: Slot): bigint;
}

export const lowReader =
  (cpu: SlotReader): LowReader =>
  (slot) =>
    Number(BigInt.asUintN(32, cpu.get(slot)));

/** Attribute bits of a segment, at their place in the packed word (attributes stand at bits 31:16). */
const CODE_LONG = 1n << (16n + 9n);
const DEFAULT_BIG = 1n << (16n + 10n);

export const isProtected = (cpu: SlotReader): boolean => (cpu.get(R.cr0) & CR0.PE) !== 0n;
export const isVirtual8086 = (cpu: SlotReader): boolean => isProtected(cpu) && (cpu.get(R.rflags) & Flag.VM) !== 0n;
/** Real-address or virtual-8086 mode: segments are paragraphs and no descriptors exist. */
export const hasParagraphs = (cpu: SlotReader): boolean => !isProtected(cpu) || (cpu.get(R.rflags) & Flag.VM) !== 0n;
export const isLongMode = (cpu: SlotReader): boolean => (cpu.get(R.efer) & EFER.LMA) !== 0n;
export const is64Bit = (cpu: SlotReader): boolean => isLongMode(cpu) && (cpu.get(R.cs) & CODE_LONG) !== 0n;
/** Default operand and address size of the code segment. */
export function codeBits(cpu: SlotReader): 16 | 32 | 64 {
  if (is64Bit(cpu)) return 64;
  return (cpu.get(R.cs) & DEFAULT_BIG) !== 0n ? 32 : 16;
}
/** Size of the stack pointer (APM vol.2 §4.7.3 Stack Segment, §2.4.5 Stack Pointer). */
export function stackBits(cpu: SlotReader): 16 | 32 | 64 {
  if (is64Bit(cpu)) return 64;
  return (cpu.get(R.ss) & DEFAULT_BIG) !== 0n ? 32 : 16;
}

export const cplOf = (cpu: SlotReader): number => Number(cpu.get(R.cpl));
export const ioplOf = (cpu: SlotReader): number => Number((cpu.get(R.rflags) & Flag.IOPL) >> 12n);
/** Access bits of a data access made by software at privilege level `cpl`. */
export const accessAt = (cpl: number): number => (cpl === 3 ? Access.USER : 0);

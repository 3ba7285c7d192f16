/**
 * Bus locks: locked read-modify-write accesses that no single cache line can serve. The processor takes one when the
 * operand crosses a cache line, or lies in memory that is not write-back. An explicit access counts, of an instruction with
 * LOCK or of XCHG; accessed and dirty bits, which the processor sets by itself, do not, which the manual leaves open.
 *
 * A guest's bus locks use up the threshold of its VMCB; those of programs trap where DebugCtl.BLCKDB asks for it.
 * Source: APM vol.2 §7.3.3 Cacheable Locks and Bus Locks (table 7-1), §13.1.3.6 Bus Lock Trap, §15.14.5 Bus Lock
 * Threshold.
 */
import type { DecodedInstruction } from '../decode/decoded.js';

/** Bytes of a cache line (CPUID Fn8000_0005 ECX[7:0]). */
const LINE_BYTES = 64n;

/** An instruction that locks its memory operand. LOCK of MOV CR0 means CR8. */
export const locksMemory = ({ lock, mnemonic, operands }: DecodedInstruction): boolean =>
  (lock || mnemonic === 'XCHG') && operands.some(({ kind }) => kind === 'mem');

/** @param linear address of the first byte. */
export const crossesLine = (linear: bigint, bytes: number): boolean =>
  (linear % LINE_BYTES) + BigInt(bytes) > LINE_BYTES;

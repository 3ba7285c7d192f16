/**
 * Virtual interrupts: with CR4.VME programs in virtual-8086 mode, and with CR4.PVI protected-mode programs at CPL 3, keep
 * an interrupt flag of their own (VIF) where IOPL does not let them at IF; and INT n of virtual-8086 mode may stay there,
 * by the interrupt-redirection bitmap of the TSS. The IDT has no part in a redirected INT n: it ends like any instruction.
 * Source: APM vol.2 §8.10 Virtual Interrupts: §8.10.1 Virtual-8086 Mode Extensions, §8.10.2 Protected Mode Virtual
 * Interrupts; APM vol.3 CLI, STI, PUSHF, POPF, INT, IRET.
 */
import { generalProtection } from '../faults.js';
import { CR4, Flag, R, Segment } from '../layout/cpu-state.js';
import { uN } from '../units.js';
import { attributesOf, limitOf, SystemType } from './descriptors.js';
import { cplOf, ioplOf, isVirtual8086, type SlotReader } from './mode.js';
import { loadParagraph } from './segments.js';
import { Stack } from './stack.js';
import { Access, type Transaction } from './transaction.js';

const has = (cpu: SlotReader, bit: bigint): boolean => (cpu.get(R.cr4) & bit) !== 0n;

/** True when CLI and STI, which IOPL forbids, act on VIF. */
export function ownsVirtualInterrupts(cpu: SlotReader): boolean {
  if (isVirtual8086(cpu)) return has(cpu, CR4.VME);
  return cplOf(cpu) === 3 && has(cpu, CR4.PVI);
}

/** True when PUSHF, POPF and IRET with 16-bit operands show VIF in the place of IF: virtual-8086 mode below IOPL 3. */
export const virtualizesFlags = (cpu: SlotReader, width: number): boolean =>
  isVirtual8086(cpu) && ioplOf(cpu) < 3 && width === 16 && has(cpu, CR4.VME);

/** FLAGS as such a program sees them: IF is VIF, and IOPL is 3. */
export function shownFlags(rflags: bigint): bigint {
  const flag = (rflags & Flag.VIF) === 0n ? 0n : Flag.IF;
  return (rflags & ~Flag.IF) | flag | Flag.IOPL;
}

/** What of FLAGS such a program changes by popping them. */
const POPPED = Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.TF | Flag.DF | Flag.OF | Flag.NT;

/** RFLAGS after it popped FLAGS. @throws GuestFault #GP(0): a virtual interrupt would be due, or a single step asked for. */
export function poppedFlags(rflags: bigint, popped: bigint): bigint {
  const opens = (popped & Flag.IF) !== 0n;
  if ((opens && (rflags & Flag.VIP) !== 0n) || (popped & Flag.TF) !== 0n) throw generalProtection();
  return (rflags & ~(POPPED | Flag.VIF | Flag.RF)) | (popped & POPPED) | (opens ? Flag.VIF : 0n);
}

const IOPB_BASE = 0x66;
const REDIRECTION_BYTES = 32;

/**
 * INT n in virtual-8086 mode, when it stays there: FLAGS, CS and IP are pushed, and the vector of the program's own table
 * at linear address 0 is taken.
 * @returns false when INT n goes through the IDT.
 * @throws GuestFault #GP(0) when it may do neither.
 */
export function interruptInside(tx: Transaction, vector: number): boolean {
  const redirected = has(tx, CR4.VME) && !inBitmap(tx, vector);
  const privileged = ioplOf(tx) < 3;
  if (!redirected) {
    if (privileged) throw generalProtection();
    return false;
  }
  const rflags = tx.get(R.rflags);
  const stack = Stack.current(tx);
  stack.push(2, privileged ? shownFlags(rflags) : rflags);
  stack.push(2, tx.get(R.cs) & 0xffffn);
  stack.push(2, tx.get(R.rip));
  const entry = tx.readLinear(BigInt(4 * vector), 4, Access.USER);
  loadParagraph(tx, Segment.CS, Number(entry >> 16n));
  tx.set(R.rip, entry & 0xffffn);
  tx.set(R.rflags, rflags & ~(Flag.TF | Flag.RF | (privileged ? Flag.VIF : Flag.IF)));
  stack.commit();
  return true;
}

/** The vector's bit in the bitmap that ends where the I/O-permission bitmap begins. */
function inBitmap(tx: Transaction, vector: number): boolean {
  const tr = tx.get(R.tr);
  const type = attributesOf(tr) & 0xf;
  const limit = limitOf(tr);
  const read = (offset: number, size: number): bigint =>
    tx.readLinear(uN(32, tx.get(R.trBase) + BigInt(offset)), size, Access.IMPLICIT);
  if ((type !== SystemType.TSS && type !== SystemType.TSS_BUSY) || limit < IOPB_BASE + 1) throw generalProtection();
  const at = Number(read(IOPB_BASE, 2)) - REDIRECTION_BYTES + (vector >>> 3);
  if (at < 0 || at > limit) throw generalProtection();
  return ((read(at, 1) >> BigInt(vector & 7)) & 1n) !== 0n;
}

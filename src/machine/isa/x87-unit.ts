/**
 * The x87 unit as one instruction sees it: the register stack with its tags, the status word it will leave, and what
 * stands around every x87 and MMX instruction: #NM, pending exceptions, the pointers to the last instruction.
 *
 * Source: APM vol.1 §6.2 x87 Registers, §6.8 x87 Floating-Point Exceptions; APM vol.2 §8.2.7 #NM, §8.2.16 #MF.
 *
 * An unmasked exception is only noted: it sets ES, and the next waiting instruction raises #MF. IE, DE and ZE leave the
 * stack as it was; OE, UE and PE do not, unless the destination is memory. The tag word is kept as in the FXSAVE image:
 * one bit for each physical register, set when it is not empty. FIP and FDP are offsets of 48 bits, as long as canonical
 * addresses are, with the selector of the segment in bits 63:48.
 */
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import type { Transaction } from '../cpu/transaction.js';
import type { DecodedOperand, MemoryOperand } from '../decode/decoded.js';
import { invariant, UnsupportedError } from '../errors.js';
import { deviceNotAvailable, GuestFault, Vector } from '../faults.js';
import { F80, type Unpacked } from '../fp/format.js';
import { IE, OE, PRE_COMPUTATION, UE } from '../fp/rounding.js';
import { registerOperand } from '../fp/x87.js';
import { type X87Environment, x87Environment } from '../fp/x87-rounding.js';
import { CR0, fprSlot, R, Segment, type Slot, segmentSlot } from '../layout/cpu-state.js';
import { INTERCEPTS, interceptRequested } from '../svm/intercepts.js';
import { VmExit } from '../svm/vmexit-request.js';
import { uN } from '../units.js';
import type { Feature, Instruction } from './instruction.js';
import { operandAt, ownRip } from './system-operands.js';

/** Bits of the status word (APM vol.1 §6.2.2). */
export const Status = {
  EXCEPTIONS: 0x3fn,
  STACK_FAULT: 1n << 6n,
  /** Error summary and busy: an exception is unmasked. */
  SUMMARY: (1n << 7n) | (1n << 15n),
  C0: 1n << 8n,
  C1: 1n << 9n,
  C2: 1n << 10n,
  C3: 1n << 14n,
  TOP: 7n << 11n,
} as const;
const TOP_SHIFT = 11n;
export const CONDITION_CODES = Status.C0 | Status.C2 | Status.C3;

/** FCW bits 12:8 and 5:0 are kept; bit 6 reads as one. */
const CONTROL_BITS = 0x1f3fn;
const CONTROL_ONE = 0x40n;
export const controlWord = (value: bigint): bigint => (value & CONTROL_BITS) | CONTROL_ONE;

/** ES and B follow from exceptions and masks. */
export function withSummary(fsw: bigint, fcw: bigint): bigint {
  const pending = (fsw & ~fcw & Status.EXCEPTIONS) !== 0n;
  return pending ? fsw | Status.SUMMARY : fsw & ~Status.SUMMARY;
}

/** @throws GuestFault #NM when the unit is absent or belongs to another task. */
export function requireX87(tx: Transaction): void {
  if ((tx.get(R.cr0) & (CR0.EM | CR0.TS)) !== 0n) throw deviceNotAvailable();
}

/**
 * Waiting instructions report an unmasked exception of an earlier one. With CR0.NE clear they freeze under FERR#, unless
 * L1 intercepts that (APM vol.2 §15.14.2 Ferr_Freeze Intercept).
 * @throws GuestFault #MF. @throws VmExit
 */
export function requireNoX87Error(tx: Transaction): void {
  if ((tx.get(R.fsw) & Status.SUMMARY) === 0n) return;
  if ((tx.get(R.cr0) & CR0.NE) !== 0n) throw new GuestFault(Vector.MF);
  if (interceptRequested((slot) => tx.get(slot), 'FERR_FREEZE')) throw new VmExit(INTERCEPTS.FERR_FREEZE.exitCode);
  throw new UnsupportedError('an x87 exception with CR0.NE clear: FERR# and IRQ 13');
}

/** Physical number of ST(index). */
export const physicalRegister = (fsw: bigint, index: number): number =>
  (Number((fsw & Status.TOP) >> TOP_SHIFT) + index) & 7;

const POINTER_BITS = 48;

/** FIP and FDP as the register file has them. */
export const packPointer = (offset: bigint, selector: bigint): bigint =>
  uN(POINTER_BITS, offset) | (selector << BigInt(POINTER_BITS));
/** The offset of such a pointer, canonical. */
export const pointerOffset = (pointer: bigint): bigint => uN(64, BigInt.asIntN(POINTER_BITS, pointer));
export const pointerSelector = (pointer: bigint): bigint => pointer >> BigInt(POINTER_BITS);

const highHalf = (slot: Slot): Slot => (slot + 1) as Slot;

/** The 80 bits of a physical register. */
export function readPhysical(tx: Transaction, number: number): bigint {
  const slot = fprSlot(number);
  return tx.get(slot) | (tx.get(highHalf(slot)) << 64n);
}

export function writePhysical(tx: Transaction, number: number, bits: bigint): void {
  const slot = fprSlot(number);
  tx.set(slot, uN(64, bits));
  tx.set(highHalf(slot), bits >> 64n);
}

export class X87Unit {
  /** Flags that arithmetic raises gather here until `leave`. */
  readonly env: X87Environment;
  private readonly tx: Transaction;
  private stackFault = false;
  private c1 = false;

  constructor(readonly context: SystemContext) {
    this.tx = context.tx;
    this.env = x87Environment(Number(this.tx.get(R.fcw)));
  }

  // The stack

  isEmpty(index: number): boolean {
    return (this.tx.get(R.ftw) & this.tag(index)) === 0n;
  }
  bits(index: number): bigint {
    return readPhysical(this.tx, this.physical(index));
  }
  operand(index: number): Unpacked {
    return registerOperand(this.bits(index));
  }
  /** Writes ST(index), which is not empty then. */
  set(index: number, bits: bigint): void {
    writePhysical(this.tx, this.physical(index), bits);
    this.tx.set(R.ftw, this.tx.get(R.ftw) | this.tag(index));
  }
  free(index: number): void {
    this.tx.set(R.ftw, this.tx.get(R.ftw) & ~this.tag(index));
  }
  /** Moves TOP up by `steps`; tags stay. */
  rotate(steps: number): void {
    const fsw = this.tx.get(R.fsw);
    this.tx.set(R.fsw, (fsw & ~Status.TOP) | (BigInt(physicalRegister(fsw, steps)) << TOP_SHIFT));
  }
  pop(): void {
    this.free(0);
    this.rotate(1);
  }
  /** Makes `bits` the new ST(0), unless there is no room. */
  push(bits: bigint): void {
    const hasRoom = this.isEmpty(-1);
    if (!hasRoom && !this.overflows()) return;
    this.rotate(-1);
    this.set(0, hasRoom ? bits : F80.indefinite);
  }

  private physical(index: number): number {
    return physicalRegister(this.tx.get(R.fsw), index);
  }
  private tag(index: number): bigint {
    return 1n << BigInt(this.physical(index));
  }

  // Exceptions and condition codes

  /** A stack fault: an operand is missing. @returns whether it is masked, so that indefinite values go on. */
  underflows(): boolean {
    return this.faults(false);
  }
  /** A stack fault: there is no room. @returns whether it is masked. */
  overflows(): boolean {
    return this.faults(true);
  }
  private faults(overflow: boolean): boolean {
    this.env.flags |= IE;
    this.stackFault = true;
    this.c1 = overflow;
    return (this.env.masks & IE) !== 0;
  }

  /** An unmasked IE, DE or ZE: there is no result. */
  get isStopped(): boolean {
    return (this.env.flags & ~this.env.masks & PRE_COMPUTATION) !== 0;
  }
  /** The same for a result in memory, which OE and UE stop, too. */
  get isStoreStopped(): boolean {
    return (this.env.flags & ~this.env.masks & (PRE_COMPUTATION | OE | UE)) !== 0;
  }

  /** @param codes those of `among` that are set; the others of them are cleared. */
  setConditions(codes: bigint, among = CONDITION_CODES): void {
    this.tx.set(R.fsw, (this.tx.get(R.fsw) & ~among) | codes);
  }
  /** C1 stays as it was, unless there is a stack fault. */
  keepC1(): void {
    if (!this.stackFault) this.c1 = (this.tx.get(R.fsw) & Status.C1) !== 0n;
  }
  /** C1, which every instruction clears that neither sets nor keeps it. */
  setC1(value: boolean): void {
    this.c1 = value;
  }

  // Memory

  /** The operand in memory, or undefined when the operand is a register. */
  get memory(): MemoryOperand | undefined {
    return this.context.insn.operands.find((operand): operand is MemoryOperand => operand.kind === 'mem');
  }
  load(memory: MemoryOperand): bigint {
    return memory.width === 80
      ? this.read(memory, 0, 64) | (this.read(memory, 8, 16) << 64n)
      : this.context.ops.read(memory);
  }
  store(memory: MemoryOperand, value: bigint): void {
    if (memory.width !== 80) {
      this.context.ops.write(memory, value);
      return;
    }
    this.write(memory, 0, 64, uN(64, value));
    this.write(memory, 8, 16, value >> 64n);
  }
  /** `width` bits, `offset` bytes into an operand of several parts. */
  read(memory: MemoryOperand, offset: number, width: number): bigint {
    const { ops } = this.context;
    return ops.read(ops.displaced(memory, BigInt(offset), width));
  }
  write(memory: MemoryOperand, offset: number, width: number, value: bigint): void {
    const { ops } = this.context;
    ops.write(ops.displaced(memory, BigInt(offset), width), value);
  }

  // The end of the instruction

  /** Adds what was raised to the status word, and remembers the instruction. */
  leave(): void {
    const { tx, env } = this;
    const raised = BigInt(env.flags) | (this.stackFault ? Status.STACK_FAULT : 0n);
    const kept = tx.get(R.fsw) & ~Status.C1;
    const c1 = this.c1 || env.roundedUp ? Status.C1 : 0n;
    tx.set(R.fsw, withSummary(kept | raised | c1, tx.get(R.fcw)));
    this.notePointers();
  }

  private notePointers(): void {
    const { tx, context, memory } = this;
    const { insn, ops } = context;
    tx.set(R.fop, BigInt(((insn.opcode & 7) << 8) | insn.modrm));
    const selector = (segment: number): bigint => tx.get(segmentSlot(segment)) & 0xffffn;
    tx.set(R.fip, packPointer(ownRip(context), selector(Segment.CS)));
    if (memory !== undefined) tx.set(R.fdp, packPointer(ops.address(memory), selector(memory.segment)));
  }
}

/** Number of the register that operand `index` names. */
export function stackOperand(context: SystemContext, index: number): number {
  const operand: DecodedOperand = operandAt(context, index);
  invariant(operand.kind === 'st', `operand ${index} of ${context.insn.mnemonic} is no x87 register`);
  return operand.number;
}

/** A waiting x87 instruction that is no control instruction. */
export function x87Instruction(
  mnemonic: string,
  forms: readonly string[],
  execute: (unit: X87Unit, context: SystemContext) => void,
  feature?: Feature,
): Instruction {
  return systemInstruction({
    mnemonic,
    source: `APM vol.5, ${mnemonic}`,
    forms,
    ...(feature === undefined ? {} : { feature }),
    system(context) {
      requireX87(context.tx);
      requireNoX87Error(context.tx);
      const unit = new X87Unit(context);
      execute(unit, context);
      unit.leave();
      context.plain();
    },
  });
}

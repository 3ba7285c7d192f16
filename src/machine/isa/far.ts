/**
 * Far control transfers, software interrupts, IRET, and the fast system calls.
 * Source: APM vol.3, CALL (Far), JMP (Far), RET (Far), INT, INTO, INT 3, IRET, SYSCALL, SYSRET, SYSENTER, SYSEXIT;
 * APM vol.2 §6.1 Fast System Call and Return.
 */
import { packSegment, setSegment } from '../cpu/descriptors.js';
import { type GuestEvent, SoftwareEvent } from '../cpu/exceptions.js';
import { type FarTarget, farCall, farJump, farReturn } from '../cpu/far-transfers.js';
import { interruptReturn } from '../cpu/interrupt-return.js';
import { cplOf, is64Bit, isLongMode, isProtected, isVirtual8086 } from '../cpu/mode.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import type { Transaction } from '../cpu/transaction.js';
import { interruptInside } from '../cpu/virtual-8086.js';
import { generalProtection, invalidOpcode, Vector } from '../faults.js';
import { EFER, Flag, gprSlot, R, Segment, segmentSlot } from '../layout/cpu-state.js';
import { u64, uN } from '../units.js';
import { Gpr, type Instruction } from './instruction.js';
import { memoryAt, operandAt, readIn } from './system-operands.js';

/**
 * The far pointer of an instruction: offset first, then selector. AMD processors have no 64-bit offsets in far
 * pointers; an operand size of 64 bits counts as 32.
 */
export function farPointer(context: SystemContext, index: number): FarTarget {
  const operand = operandAt(context, index);
  const width = context.insn.width === 16 ? 16 : 32;
  if (operand.kind === 'far') return { selector: operand.selector, offset: operand.offset, width };
  const memory = memoryAt(context, index);
  const offset = readIn(context, memory, 0, width / 8);
  return { selector: Number(readIn(context, memory, width / 8, 2)), offset, width };
}

const JMP_FAR = systemInstruction({
  mnemonic: 'JMPF',
  source: 'APM vol.3, JMP (Far)',
  forms: ['EA: Ap [i64]', 'FF /5: Mp'],
  system: (context) => farJump(context, farPointer(context, 0)),
});

const CALL_FAR = systemInstruction({
  mnemonic: 'CALLF',
  source: 'APM vol.3, CALL (Far)',
  forms: ['9A: Ap [i64]', 'FF /3: Mp'],
  system: (context) => farCall(context, farPointer(context, 0)),
});

const RET_FAR = systemInstruction({
  mnemonic: 'RETF',
  source: 'APM vol.3, RET (Far)',
  forms: ['CB:', 'CA: Iw'],
  system(context) {
    const { tx, insn, ops } = context;
    const release = insn.operands.length === 0 ? 0 : Number(ops.read(operandAt(context, 0)));
    farReturn(tx, operandWidth(context), release);
  },
});

const operandWidth = ({ insn }: SystemContext): 16 | 32 | 64 => (insn.width === 8 ? 32 : insn.width);

/** Ends the instruction in an event; the saved RIP is that of the next instruction. */
function raise(tx: Transaction, type: GuestEvent['type'], vector: number): never {
  throw new SoftwareEvent({ type, vector, nextRip: tx.get(R.rip) });
}

const INT = systemInstruction({
  mnemonic: 'INT',
  source: 'APM vol.3, INT',
  forms: ['CD: Ib'],
  system(context) {
    const { tx, ops } = context;
    const vector = Number(ops.read(operandAt(context, 0)));
    context.intercept('INTn', { info1: BigInt(vector) });
    if (isVirtual8086(tx) && interruptInside(tx, vector)) return;
    raise(tx, 'software', vector);
  },
});

const INT3 = systemInstruction({
  mnemonic: 'INT3',
  source: 'APM vol.3, INT 3',
  forms: ['CC:'],
  system: ({ tx }) => raise(tx, 'exception', Vector.BP),
});

const INTO = systemInstruction({
  mnemonic: 'INTO',
  source: 'APM vol.3, INTO',
  forms: ['CE: [i64]'],
  system(context) {
    if ((context.tx.get(R.rflags) & Flag.OF) !== 0n) raise(context.tx, 'exception', Vector.OF);
    context.plain();
  },
});

const INT1 = systemInstruction({
  mnemonic: 'INT1',
  source: 'APM vol.3 appendix A.1, opcode F1h (ICEBP); APM vol.2 §15.9 Instruction Intercepts, ICEBP',
  forms: ['F1:'],
  interceptedFirst: 'ICEBP',
  system(context) {
    raise(context.tx, 'icebp', Vector.DB);
  },
});

const IRET = systemInstruction({
  mnemonic: 'IRET',
  source: 'APM vol.3, IRET',
  forms: ['CF:'],
  interceptedFirst: 'IRET',
  system(context) {
    interruptReturn(context, operandWidth(context));
  },
});

/** Flat segments that the fast system calls make without a descriptor; limit and G as after a load. */
const FLAT_LIMIT = 0xffff_ffff;
const CODE64 = 0xa9b;
const CODE32 = 0xc9b;
const DATA = 0xc93;
const DPL3 = 0x60;

function enterFlat(tx: Transaction, codeSelector: number, code: number, rip: bigint): void {
  setSegment(tx, Segment.CS, packSegment(codeSelector & 0xfffc, code, FLAT_LIMIT), 0n);
  setSegment(tx, Segment.SS, packSegment((codeSelector & 0xfffc) + 8, DATA, FLAT_LIMIT), 0n);
  tx.set(R.cpl, 0n);
  tx.set(R.rip, rip);
}

const SYSCALL = systemInstruction({
  mnemonic: 'SYSCALL',
  source: 'APM vol.3, SYSCALL',
  forms: ['0F 05:'],
  system({ tx }) {
    if ((tx.get(R.efer) & EFER.SCE) === 0n || !isProtected(tx)) throw invalidOpcode();
    const star = tx.get(R.star);
    const selector = Number((star >> 32n) & 0xfffcn);
    const rflags = tx.get(R.rflags);
    tx.set(gprSlot(Gpr.RCX), tx.get(R.rip));
    if (isLongMode(tx)) {
      tx.set(R.r11, rflags & ~Flag.RF);
      enterFlat(tx, selector, CODE64, tx.get(is64Bit(tx) ? R.lstar : R.cstar));
      tx.set(R.rflags, (rflags & ~(tx.get(R.sfmask) | Flag.RF | Flag.VM)) | Flag.ONE);
    } else {
      enterFlat(tx, selector, CODE32, uN(32, star));
      tx.set(R.rflags, rflags & ~(Flag.VM | Flag.IF | Flag.RF));
    }
  },
});

/** Bits of R11 that SYSRET takes over: all flags but RF and VM. */
const SYSRET_FLAGS = 0x3c_7fd7n;

/** SS takes a new selector only; base, limit and attributes stay. A RIP that is not canonical faults at CPL 3. */
const SYSRET = systemInstruction({
  mnemonic: 'SYSRET',
  source: 'APM vol.3, SYSRET',
  forms: ['0F 07:'],
  system({ tx, insn }) {
    if ((tx.get(R.efer) & EFER.SCE) === 0n) throw invalidOpcode();
    if (!isProtected(tx) || cplOf(tx) !== 0) throw generalProtection();
    const base = Number(tx.get(R.star) >> 48n);
    const to64Bit = is64Bit(tx) && insn.rexW;
    const rcx = tx.get(gprSlot(Gpr.RCX));
    const flags = is64Bit(tx) ? (tx.get(R.r11) & SYSRET_FLAGS) | Flag.ONE : tx.get(R.rflags) | Flag.IF;
    const selector = ((to64Bit ? base + 16 : base) | 3) & 0xffff;
    setSegment(tx, Segment.CS, packSegment(selector, (to64Bit ? CODE64 : CODE32) | DPL3, FLAT_LIMIT), 0n);
    const ss = segmentSlot(Segment.SS);
    tx.set(ss, (tx.get(ss) & ~0xffffn) | BigInt((base + 8) & 0xffff));
    tx.set(R.cpl, 3n);
    tx.set(R.rflags, flags & ~Flag.RF);
    tx.set(R.rip, to64Bit ? u64(rcx) : uN(32, rcx));
  },
});

const SYSENTER = systemInstruction({
  mnemonic: 'SYSENTER',
  source: 'APM vol.3, SYSENTER',
  forms: ['0F 34:'],
  system({ tx }) {
    const selector = Number(tx.get(R.sysenterCs) & 0xfffcn);
    if (isLongMode(tx)) throw invalidOpcode();
    if (!isProtected(tx) || selector === 0) throw generalProtection();
    enterFlat(tx, selector, CODE32, uN(32, tx.get(R.sysenterEip)));
    tx.set(gprSlot(Gpr.RSP), uN(32, tx.get(R.sysenterEsp)));
    tx.set(R.rflags, tx.get(R.rflags) & ~(Flag.VM | Flag.IF | Flag.RF));
  },
});

const SYSEXIT = systemInstruction({
  mnemonic: 'SYSEXIT',
  source: 'APM vol.3, SYSEXIT',
  forms: ['0F 35:'],
  system({ tx }) {
    const selector = Number(tx.get(R.sysenterCs) & 0xfffcn);
    if (isLongMode(tx)) throw invalidOpcode();
    if (!isProtected(tx) || cplOf(tx) !== 0 || selector === 0) throw generalProtection();
    const rip = uN(32, tx.get(gprSlot(Gpr.RDX)));
    setSegment(tx, Segment.CS, packSegment((selector + 16) | 3, CODE32 | DPL3, FLAT_LIMIT), 0n);
    setSegment(tx, Segment.SS, packSegment((selector + 24) | 3, DATA | DPL3, FLAT_LIMIT), 0n);
    tx.set(R.cpl, 3n);
    tx.set(gprSlot(Gpr.RSP), uN(32, tx.get(gprSlot(Gpr.RCX))));
    tx.set(R.rip, rip);
  },
});

export const FAR_INSTRUCTIONS: readonly Instruction[] = [
  ...[JMP_FAR, CALL_FAR, RET_FAR, INT, INT3, INTO, INT1, IRET],
  ...[SYSCALL, SYSRET, SYSENTER, SYSEXIT],
];

/**
 * State and control words of the x87 unit and of SSE; arithmetic is described elsewhere. The tag word is kept as in the
 * FXSAVE image: one bit for each physical register, set when it is not empty.
 * Source: APM vol.3 and vol.5, FXSAVE, FXRSTOR, LDMXCSR, STMXCSR, FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FNOP, FWAIT,
 * EMMS; APM vol.2 §11.4.4 Saving SSE, MMX, and x87 State, FXSAVE and FXRSTOR Instructions; §8.2.7 #NM, §8.2.16 #MF.
 */
import { checkSegment } from '../cpu/segments.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { Access, type Transaction } from '../cpu/transaction.js';
import { FCW_INIT, highHalf, vectorCount } from '../cpu/xstate.js';
import type { MemoryOperand } from '../decode/decoded.js';
import { UnsupportedError } from '../errors.js';
import { deviceNotAvailable, GuestFault, generalProtection, invalidOpcode, Vector } from '../faults.js';
import { CR0, CR4, fprSlot, R, type Slot, xmmSlot } from '../layout/cpu-state.js';
import { uN } from '../units.js';
import type { Instruction } from './instruction.js';
import { memoryAt, operandAt, readIn, writeIn } from './system-operands.js';

const EXCEPTION_MASKS = 0x3fn;
/** FSW: error summary and busy. */
const ERROR_SUMMARY = (1n << 7n) | (1n << 15n);
/** FSW bits that FNCLEX clears: exceptions, stack fault, ES, B. */
const EXCEPTION_FLAGS = 0x80ffn;
/** FCW bits 6 and 12:8 and 5:0 are kept; bit 6 reads as one. */
const CONTROL_BITS = 0x1f3fn;
const CONTROL_ONE = 0x40n;
/** Exception flags, DAZ, masks, rounding, FZ; the MXCSR_MASK of the FXSAVE image. */
const MXCSR_BITS = 0xffffn;

/** x87 instructions: #NM when the unit is absent or belongs to another task. */
function requireX87(tx: Transaction): void {
  if ((tx.get(R.cr0) & (CR0.EM | CR0.TS)) !== 0n) throw deviceNotAvailable();
}

/** Waiting instructions report an unmasked exception of an earlier one. */
function requireNoX87Error(tx: Transaction): void {
  if ((tx.get(R.fsw) & ERROR_SUMMARY) === 0n) return;
  if ((tx.get(R.cr0) & CR0.NE) !== 0n) throw new GuestFault(Vector.MF);
  throw new UnsupportedError('an x87 exception with CR0.NE clear: FERR# and IRQ 13');
}

function requireSse(tx: Transaction): void {
  const cr0 = tx.get(R.cr0);
  if ((cr0 & CR0.EM) !== 0n || (tx.get(R.cr4) & CR4.OSFXSR) === 0n) throw invalidOpcode();
  if ((cr0 & CR0.TS) !== 0n) throw deviceNotAvailable();
}

/** ES and B follow from exceptions and masks. */
function withSummary(fsw: bigint, fcw: bigint): bigint {
  const pending = (fsw & ~fcw & EXCEPTION_MASKS) !== 0n;
  return pending ? fsw | ERROR_SUMMARY : fsw & ~ERROR_SUMMARY;
}

const x87 = (mnemonic: string, forms: readonly string[], execute: (context: SystemContext) => void): Instruction =>
  systemInstruction({
    mnemonic,
    source: `APM vol.5, ${mnemonic}`,
    forms,
    system(context) {
      requireX87(context.tx);
      execute(context);
      context.plain();
    },
  });

const FNINIT = x87('FNINIT', ['DB E3:'], ({ tx }) => {
  tx.set(R.fcw, FCW_INIT);
  tx.set(R.fsw, 0n);
  tx.set(R.ftw, 0n);
  for (const slot of [R.fop, R.fip, R.fdp]) tx.set(slot, 0n);
});

const FNCLEX = x87('FNCLEX', ['DB E2:'], ({ tx }) => tx.set(R.fsw, tx.get(R.fsw) & ~EXCEPTION_FLAGS));

const FNSTCW = x87('FNSTCW', ['D9 /7: Mw'], (context) =>
  context.ops.write(operandAt(context, 0), context.tx.get(R.fcw)),
);

const FNSTSW = x87('FNSTSW', ['DD /7: Mw'], (context) =>
  context.ops.write(operandAt(context, 0), context.tx.get(R.fsw)),
);

const FNSTSW_AX = x87('FNSTSW', ['DF E0:'], ({ tx, ops }) => ops.writeGpr(0, 16, tx.get(R.fsw)));

const FLDCW = x87('FLDCW', ['D9 /5: Mw'], (context) => {
  const { tx, ops } = context;
  requireNoX87Error(tx);
  const fcw = (ops.read(operandAt(context, 0)) & CONTROL_BITS) | CONTROL_ONE;
  tx.set(R.fcw, fcw);
  tx.set(R.fsw, withSummary(tx.get(R.fsw), fcw));
});

const FNOP = x87('FNOP', ['D9 D0:'], ({ tx }) => requireNoX87Error(tx));

const FWAIT = systemInstruction({
  mnemonic: 'FWAIT',
  source: 'APM vol.5, FWAIT',
  forms: ['9B:'],
  system(context) {
    const { tx } = context;
    const both = CR0.MP | CR0.TS;
    if ((tx.get(R.cr0) & both) === both) throw deviceNotAvailable();
    requireNoX87Error(tx);
    context.plain();
  },
});

/** x87 status word: the register that is the top of the stack. */
const STATUS_TOP = 7n << 11n;

const EMMS = systemInstruction({
  mnemonic: 'EMMS',
  source: 'APM vol.5, EMMS',
  forms: ['0F 77:'],
  system(context) {
    const { tx } = context;
    if ((tx.get(R.cr0) & CR0.EM) !== 0n) throw invalidOpcode();
    requireX87(tx);
    requireNoX87Error(tx);
    tx.set(R.ftw, 0n);
    tx.set(R.fsw, tx.get(R.fsw) & ~STATUS_TOP); // as every MMX instruction does
    context.plain();
  },
});

/** @throws GuestFault #GP(0) when a reserved bit is set. */
export function loadMxcsr(context: SystemContext): void {
  const value = context.ops.read(operandAt(context, 0));
  if ((value & ~MXCSR_BITS) !== 0n) throw generalProtection();
  context.tx.set(R.mxcsr, value);
}

const LDMXCSR = systemInstruction({
  mnemonic: 'LDMXCSR',
  source: 'APM vol.4, LDMXCSR',
  forms: ['NP 0F AE /2: Md'],
  system(context) {
    requireSse(context.tx);
    loadMxcsr(context);
    context.plain();
  },
});

const STMXCSR = systemInstruction({
  mnemonic: 'STMXCSR',
  source: 'APM vol.4, STMXCSR',
  forms: ['NP 0F AE /3: Md'],
  system(context) {
    requireSse(context.tx);
    context.ops.write(operandAt(context, 0), context.tx.get(R.mxcsr));
    context.plain();
  },
});

/** Offsets in the 512-byte image (APM vol.2 figures 11-9 and 11-10). */
export const Image = {
  FCW: 0,
  FSW: 2,
  FTW: 4,
  FOP: 6,
  FIP: 8,
  FDP: 16,
  MXCSR: 24,
  MXCSR_MASK: 28,
  ST: 32,
  XMM: 160,
} as const;
const IMAGE_BYTES = 512;

/** @throws GuestFault #NM; #GP(0) when the image is not aligned to 16 bytes or not wholly inside its segment. */
function imageOperand(context: SystemContext, access: number): MemoryOperand {
  requireX87(context.tx);
  const memory = memoryAt(context, 0);
  const linear = checkSegment(context.tx, memory.segment, context.ops.address(memory), IMAGE_BYTES, access);
  if ((linear & 15n) !== 0n) throw generalProtection();
  return memory;
}

/** ST(i) stands in the physical register TOP + i. */
const stackSlot = (fsw: bigint, index: number): Slot => fprSlot((Number((fsw >> 11n) & 7n) + index) & 7);

/** Writes and reads bytes of an image in memory. */
export type Put = (offset: number, size: number, value: bigint) => void;
export type Take = (offset: number, size: number) => bigint;

/** The error pointers are always carried (CPUID Fn8000_0008_EBX[RstrFpErrPtrs]); as 64 bits with REX.W, else 32. */
export function saveX87({ tx, insn }: SystemContext, put: Put): void {
  const fsw = tx.get(R.fsw);
  const pointer = insn.rexW ? uN.bind(undefined, 64) : uN.bind(undefined, 32);
  put(Image.FCW, 2, tx.get(R.fcw));
  put(Image.FSW, 2, fsw);
  put(Image.FTW, 2, tx.get(R.ftw));
  put(Image.FOP, 2, tx.get(R.fop));
  put(Image.FIP, 8, pointer(tx.get(R.fip)));
  put(Image.FDP, 8, pointer(tx.get(R.fdp)));
  for (let index = 0; index < 8; index++) {
    const slot = stackSlot(fsw, index);
    put(Image.ST + 16 * index, 8, tx.get(slot));
    put(Image.ST + 16 * index + 8, 8, tx.get(highHalf(slot)));
  }
}

export function loadX87({ tx, insn }: SystemContext, take: Take): void {
  const fcw = (take(Image.FCW, 2) & CONTROL_BITS) | CONTROL_ONE;
  const fsw = withSummary(take(Image.FSW, 2), fcw);
  const pointerBytes = insn.rexW ? 8 : 4;
  tx.set(R.fcw, fcw);
  tx.set(R.fsw, fsw);
  tx.set(R.ftw, take(Image.FTW, 1));
  tx.set(R.fop, take(Image.FOP, 2) & 0x7ffn);
  tx.set(R.fip, take(Image.FIP, pointerBytes));
  tx.set(R.fdp, take(Image.FDP, pointerBytes));
  for (let index = 0; index < 8; index++) {
    const slot = stackSlot(fsw, index);
    tx.set(slot, take(Image.ST + 16 * index, 8));
    tx.set(highHalf(slot), take(Image.ST + 16 * index + 8, 2));
  }
}

export function saveMxcsr({ tx }: SystemContext, put: Put): void {
  put(Image.MXCSR, 4, tx.get(R.mxcsr));
  put(Image.MXCSR_MASK, 4, MXCSR_BITS);
}

/** @throws GuestFault #GP(0) when a reserved bit is set. */
export function takeMxcsr(take: Take): bigint {
  const mxcsr = take(Image.MXCSR, 4);
  if ((mxcsr & ~MXCSR_BITS) !== 0n) throw generalProtection();
  return mxcsr;
}

/** As many 128-bit registers as the mode has, in a row from `offset` on; `slotOf` gives the low slot of each. */
export function saveVectors(tx: Transaction, put: Put, offset: number, slotOf: (number: number) => Slot): void {
  for (let number = 0; number < vectorCount(tx); number++) {
    put(offset + 16 * number, 8, tx.get(slotOf(number)));
    put(offset + 16 * number + 8, 8, tx.get(highHalf(slotOf(number))));
  }
}

export function loadVectors(tx: Transaction, take: Take, offset: number, slotOf: (number: number) => Slot): void {
  for (let number = 0; number < vectorCount(tx); number++) {
    tx.set(slotOf(number), take(offset + 16 * number, 8));
    tx.set(highHalf(slotOf(number)), take(offset + 16 * number + 8, 8));
  }
}

const FXSAVE = systemInstruction({
  mnemonic: 'FXSAVE',
  source: 'APM vol.4, FXSAVE',
  forms: ['NP 0F AE /0: M'],
  system(context) {
    const memory = imageOperand(context, Access.WRITE);
    const put: Put = (offset, size, value) => writeIn(context, memory, offset, size, uN(8 * size, value));
    saveX87(context, put);
    saveMxcsr(context, put);
    saveVectors(context.tx, put, Image.XMM, xmmSlot);
    context.plain();
  },
});

const FXRSTOR = systemInstruction({
  mnemonic: 'FXRSTOR',
  source: 'APM vol.4, FXRSTOR',
  forms: ['NP 0F AE /1: M'],
  system(context) {
    const { tx } = context;
    const memory = imageOperand(context, Access.READ);
    const take: Take = (offset, size) => readIn(context, memory, offset, size);
    tx.set(R.mxcsr, takeMxcsr(take));
    loadX87(context, take);
    loadVectors(tx, take, Image.XMM, xmmSlot);
    context.plain();
  },
});

export const FPU_CONTROL_INSTRUCTIONS: readonly Instruction[] = [
  ...[FNINIT, FNCLEX, FNSTCW, FNSTSW, FNSTSW_AX, FLDCW, FNOP],
  ...[FWAIT, EMMS, LDMXCSR, STMXCSR, FXSAVE, FXRSTOR],
];

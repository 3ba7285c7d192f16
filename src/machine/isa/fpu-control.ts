/**
 * The control word of SSE, and the image that holds its state together with that of the x87 unit.
 * Source: APM vol.4, FXSAVE, FXRSTOR, LDMXCSR, STMXCSR; APM vol.2 §11.4.4 Saving SSE, MMX, and x87 State, FXSAVE and
 * FXRSTOR Instructions.
 */
import { checkSegment } from '../cpu/segments.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { Access, type Transaction } from '../cpu/transaction.js';
import { highHalf, vectorCount } from '../cpu/xstate.js';
import type { MemoryOperand } from '../decode/decoded.js';
import { deviceNotAvailable, generalProtection, invalidOpcode } from '../faults.js';
import { CR0, CR4, fprSlot, R, type Slot, xmmSlot } from '../layout/cpu-state.js';
import { uN } from '../units.js';
import type { Instruction } from './instruction.js';
import { memoryAt, operandAt, readIn, writeIn } from './system-operands.js';
import {
  controlWord,
  packPointer,
  physicalRegister,
  pointerOffset,
  pointerSelector,
  requireX87,
  Status,
  withSummary,
} from './x87-unit.js';

/** Exception flags, DAZ, masks, rounding, FZ; the MXCSR_MASK of the FXSAVE image. */
export const MXCSR_BITS = 0xffffn;

/** @throws GuestFault #UD, #NM. */
export function requireSse(tx: Transaction): void {
  const cr0 = tx.get(R.cr0);
  if ((cr0 & CR0.EM) !== 0n || (tx.get(R.cr4) & CR4.OSFXSR) === 0n) throw invalidOpcode();
  if ((cr0 & CR0.TS) !== 0n) throw deviceNotAvailable();
}

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

/** The error pointers as 64 bits with REX.W, else as 32 bits and a selector. */
function packedForImage(pointer: bigint, rexW: boolean): bigint {
  const offset = pointerOffset(pointer);
  return rexW ? offset : uN(32, offset) | (pointerSelector(pointer) << 32n);
}
const unpackedFromImage = (field: bigint, rexW: boolean): bigint =>
  rexW ? packPointer(field, 0n) : packPointer(uN(32, field), uN(16, field >> 32n));

/** Writes and reads bytes of an image in memory. */
export type Put = (offset: number, size: number, value: bigint) => void;
export type Take = (offset: number, size: number) => bigint;

/**
 * FOP and the error pointers are written always, but are zeros unless an unmasked exception is pending; they are always
 * loaded (CPUID Fn8000_0008_EBX[RstrFpErrPtrs]).
 */
export function saveX87({ tx, insn }: SystemContext, put: Put): void {
  const fsw = tx.get(R.fsw);
  const isPending = (fsw & Status.SUMMARY) !== 0n;
  const pointer = (slot: Slot): bigint => (isPending ? packedForImage(tx.get(slot), insn.rexW) : 0n);
  put(Image.FCW, 2, tx.get(R.fcw));
  put(Image.FSW, 2, fsw);
  put(Image.FTW, 2, tx.get(R.ftw));
  put(Image.FOP, 2, isPending ? tx.get(R.fop) : 0n);
  put(Image.FIP, 8, pointer(R.fip));
  put(Image.FDP, 8, pointer(R.fdp));
  for (let index = 0; index < 8; index++) {
    const slot = fprSlot(physicalRegister(fsw, index));
    put(Image.ST + 16 * index, 8, tx.get(slot));
    put(Image.ST + 16 * index + 8, 8, tx.get(highHalf(slot)));
  }
}

export function loadX87({ tx, insn }: SystemContext, take: Take): void {
  const fcw = controlWord(take(Image.FCW, 2));
  const fsw = withSummary(take(Image.FSW, 2), fcw);
  tx.set(R.fcw, fcw);
  tx.set(R.fsw, fsw);
  tx.set(R.ftw, take(Image.FTW, 1));
  tx.set(R.fop, take(Image.FOP, 2) & 0x7ffn);
  tx.set(R.fip, unpackedFromImage(take(Image.FIP, 8), insn.rexW));
  tx.set(R.fdp, unpackedFromImage(take(Image.FDP, 8), insn.rexW));
  for (let index = 0; index < 8; index++) {
    const slot = fprSlot(physicalRegister(fsw, index));
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

export const FPU_CONTROL_INSTRUCTIONS: readonly Instruction[] = [LDMXCSR, STMXCSR, FXSAVE, FXRSTOR];

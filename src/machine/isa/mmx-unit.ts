/**
 * MMX registers and what stands around every MMX instruction. The registers are the significands of the physical x87
 * registers: each instruction leaves all of them tagged as valid and the top of the stack at 0, and a register that is
 * written has all ones in sign and exponent.
 * Source: APM vol.1 §5.6.2 64-Bit Media Instructions (MMX registers), §5.10 Instruction Effects on Flags, §5.12 State-Saving,
 * APM vol.2 §11.4 Media and x87 Processor State; exceptions: APM vol.5, the instruction pages.
 */
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import type { Transaction } from '../cpu/transaction.js';
import { invalidOpcode } from '../faults.js';
import { CR0, fprSlot, R, type Slot } from '../layout/cpu-state.js';
import { uN } from '../units.js';
import type { Feature, Instruction } from './instruction.js';
import { operandAt } from './system-operands.js';
import { requireNoX87Error, requireX87, Status } from './x87-unit.js';

const ALL_VALID = 0xffn;
const SIGN_AND_EXPONENT = 0xffffn;

/** @throws GuestFault #UD, #NM, #MF; FerrFreeze. */
export function requireMmx(tx: Transaction): void {
  if ((tx.get(R.cr0) & CR0.EM) !== 0n) throw invalidOpcode();
  requireX87(tx);
  requireNoX87Error(tx);
}

/** From here on the registers are MMX registers. */
export function enterMmx(tx: Transaction): void {
  tx.set(R.ftw, ALL_VALID);
  tx.set(R.fsw, tx.get(R.fsw) & ~Status.TOP);
}

const readMmx = (tx: Transaction, number: number): bigint => tx.get(fprSlot(number));

function writeMmx(tx: Transaction, number: number, value: bigint): void {
  const slot = fprSlot(number);
  tx.set(slot, uN(64, value));
  tx.set((slot + 1) as Slot, SIGN_AND_EXPONENT);
}

/** Reads a register, a general-purpose register, memory or an immediate. */
export function readOperand(context: SystemContext, index: number): bigint {
  const operand = operandAt(context, index);
  if (operand.kind === 'mmx') return readMmx(context.tx, operand.number);
  return operand.kind === 'xmm' ? context.ops.readVectorAligned(operand) : context.ops.read(operand);
}

export function writeOperand(context: SystemContext, index: number, value: bigint): void {
  const operand = operandAt(context, index);
  if (operand.kind === 'mmx') writeMmx(context.tx, operand.number, value);
  else if (operand.kind === 'xmm') context.ops.writeVector(operand, value);
  else context.ops.write(operand, uN(operand.width, value));
}

export function mmxInstruction(
  mnemonic: string,
  forms: readonly string[],
  feature: Feature,
  execute: (context: SystemContext) => void,
): Instruction {
  return systemInstruction({
    mnemonic,
    source: `APM vol.5, ${mnemonic}`,
    forms,
    feature,
    system(context) {
      requireMmx(context.tx);
      execute(context);
      enterMmx(context.tx);
      context.plain();
    },
  });
}

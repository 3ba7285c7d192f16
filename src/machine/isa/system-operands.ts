/**
 * Operands of control-plane instructions: what `Ops` does not know of, segment and control registers by number, and
 * memory operands of several parts. Source: APM vol.2 §4.5 Segmentation Data Structures and Registers.
 */
import { checkAlignment } from '../cpu/alignment.js';
import { accessAt, cplOf, is64Bit } from '../cpu/mode.js';
import { checkSegment } from '../cpu/segments.js';
import type { SystemContext } from '../cpu/system-context.js';
import { Access } from '../cpu/transaction.js';
import type { DecodedOperand, GprOperand, MemoryOperand, NumberedOperand } from '../decode/decoded.js';
import { invariant } from '../errors.js';
import { generalProtection } from '../faults.js';
import { R } from '../layout/cpu-state.js';
import { u64, uN } from '../units.js';

export function operandAt({ insn }: SystemContext, index: number): DecodedOperand {
  const operand = insn.operands[index];
  invariant(operand !== undefined, `${insn.mnemonic} asks for an operand that its form lacks`);
  return operand;
}

export function gprAt(context: SystemContext, index: number): GprOperand {
  const operand = operandAt(context, index);
  invariant(operand.kind === 'gpr', `operand ${index} of ${context.insn.mnemonic} is no general-purpose register`);
  return operand;
}

export function memoryAt(context: SystemContext, index: number): MemoryOperand {
  const operand = operandAt(context, index);
  invariant(operand.kind === 'mem', `operand ${index} of ${context.insn.mnemonic} is not in memory`);
  return operand;
}

/** Number of a segment, control or debug register. */
export function numberAt(context: SystemContext, index: number): number {
  const operand = operandAt(context, index);
  invariant('number' in operand, `operand ${index} of ${context.insn.mnemonic} is no register`);
  return (operand as NumberedOperand).number;
}

/** Linear address of `size` bytes, `offset` bytes into a memory operand. */
function linearIn(
  context: SystemContext,
  operand: MemoryOperand,
  offset: number,
  size: number,
  access: number,
): bigint {
  const effective = uN(context.insn.addressWidth, context.ops.address(operand) + BigInt(offset));
  return checkSegment(context.tx, operand.segment, effective, size, access);
}

export function readIn(context: SystemContext, operand: MemoryOperand, offset: number, size: number): bigint {
  const { tx } = context;
  const linear = linearIn(context, operand, offset, size, Access.READ);
  checkAlignment(tx, linear, size, tx.get(R.cpl));
  return tx.readLinear(linear, size, accessAt(cplOf(tx)));
}

export function writeIn(
  context: SystemContext,
  operand: MemoryOperand,
  offset: number,
  size: number,
  value: bigint,
): void {
  const { tx } = context;
  tx.writeLinear(linearIn(context, operand, offset, size, Access.WRITE), size, value, accessAt(cplOf(tx)));
}

/** Address of this instruction. `tx` already has RIP behind it. */
export function ownRip({ tx, insn }: SystemContext): bigint {
  const rip = tx.get(R.rip) - BigInt(insn.length);
  return is64Bit(tx) ? u64(rip) : uN(32, rip);
}

/** @throws GuestFault #GP(0) unless CPL is 0. */
export function requireCpl0({ tx }: SystemContext): void {
  if (cplOf(tx) !== 0) throw generalProtection();
}

/**
 * The operands of an instruction by their number, for descriptions: `const [destination, source] = two(insn)`.
 *
 * Invariant: a form has as many operands as its description takes; a form that has not is a mistake in the description.
 */
import { invariant } from '../errors.js';
import type { Operand, Static } from './instruction.js';

export function one(insn: Pick<Static, 'operands'>): Operand {
  const [first] = insn.operands;
  invariant(first !== undefined, 'a description asks for an operand that its form lacks');
  return first;
}

export function two(insn: Pick<Static, 'operands'>): readonly [Operand, Operand] {
  const [first, second] = insn.operands;
  invariant(first !== undefined && second !== undefined, 'a description asks for two operands, its form has fewer');
  return [first, second];
}

export function three(insn: Pick<Static, 'operands'>): readonly [Operand, Operand, Operand] {
  const [first, second, third] = insn.operands;
  invariant(
    first !== undefined && second !== undefined && third !== undefined,
    'a description asks for three operands, its form has fewer',
  );
  return [first, second, third];
}

export function four(insn: Pick<Static, 'operands'>): readonly [Operand, Operand, Operand, Operand] {
  const fourth = insn.operands[3];
  invariant(fourth !== undefined, 'a description asks for four operands, its form has fewer');
  return [...three(insn), fourth];
}

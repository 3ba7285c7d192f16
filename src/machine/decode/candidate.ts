/** The forms of an opcode, and which of them an encoding is. */
import type { Width } from '../isa/instruction.js';
import type { CodeMode, DecodedOperand } from './decoded.js';
import { type Encoding, mandatoryPrefix } from './encoding.js';
import type { Form } from './tables.js';

/** A form, with what its declaration means for decoding worked out. */
export interface Candidate {
  readonly form: Form;
  readonly invalidIn64: boolean;
  readonly onlyIn64: boolean;
  readonly onlyProtected: boolean;
  /** REX.W or VEX.W that it demands. */
  readonly w: boolean | undefined;
  readonly withoutRexB: boolean;
  readonly takesVexRegister: boolean;
  readonly defaultsTo64: boolean;
  readonly always64: boolean;
  readonly mayLock: boolean;
  readonly repeats: boolean;
  readonly width: WidthRule;
}

export function candidateOf(form: Form): Candidate {
  const { attributes, operands } = form;
  return {
    form,
    invalidIn64: attributes.has('i64'),
    onlyIn64: attributes.has('o64'),
    onlyProtected: attributes.has('prot'),
    w: attributes.has('w1') ? true : attributes.has('w0') ? false : undefined,
    withoutRexB: attributes.has('b0'),
    takesVexRegister: operands.some(({ addressing }) => addressing === 'B' || addressing === 'H'),
    defaultsTo64: attributes.has('d64'),
    always64: attributes.has('f64'),
    mayLock: attributes.has('lock'),
    repeats: attributes.has('rep'),
    width: widthRuleOf(form),
  };
}

export function matches(candidate: Candidate, encoding: Encoding, mode: CodeMode): boolean {
  const { form } = candidate;
  const { modrm, rex } = encoding;
  if (form.digit !== undefined && form.digit !== ((modrm >> 3) & 7)) return false;
  if (form.fixedModRM !== undefined && form.fixedModRM !== modrm) return false;
  if (form.mod === 'memory' && modrm >= 0xc0) return false;
  if (form.mod === 'register' && form.hasModRM && modrm < 0xc0) return false;
  if (form.vexL !== undefined && form.vexL !== encoding.vexL) return false;
  if (encoding.hasVexRegister && !candidate.takesVexRegister) return false;
  if (mode.bits === 64 ? candidate.invalidIn64 : candidate.onlyIn64) return false;
  if (mode.real && candidate.onlyProtected) return false;
  if (candidate.w !== undefined && candidate.w !== ((rex & 8) !== 0)) return false;
  if (candidate.withoutRexB && (rex & 1) !== 0) return false;
  return form.prefix === 'any' || form.prefix === mandatoryPrefix(encoding);
}

export function operandSizeOf(mode: CodeMode, candidate: Candidate, rexW: boolean, prefix: boolean): 16 | 32 | 64 {
  if (mode.bits === 64) {
    if (candidate.always64 || rexW) return 64;
    if (prefix) return 16;
    return candidate.defaultsTo64 ? 64 : 32;
  }
  return (mode.bits === 32) !== prefix ? 32 : 16;
}

export function addressSizeOf(mode: CodeMode, prefix: boolean): 16 | 32 | 64 {
  if (mode.bits === 64) return prefix ? 32 : 64;
  return (mode.bits === 32) !== prefix ? 32 : 16;
}

/** The width that semantics go by: 8, the operand size, or that of an operand, given by its number. */
type WidthRule = 'byte' | 'operand-size' | number;

/** 8 when the form is a byte form, else the operand size, or that of its y operands. */
function widthRuleOf({ attributes, operands }: Form): WidthRule {
  if (attributes.has('b')) return 'byte';
  // The length of a branch displacement says nothing about the operand size.
  const sizes = operands.map(({ addressing, size }) =>
    addressing === 'rAX' ? 'v' : addressing === 'AL' ? 'b' : addressing === 'J' ? '' : size,
  );
  if (sizes.some((size) => size === 'v' || size === 'z')) return 'operand-size';
  const y = sizes.indexOf('y');
  if (y >= 0) return y;
  if (sizes.length > 0 && sizes.every((size) => size === 'b')) return 'byte';
  if (sizes[0] === 'b' && operands[0]?.addressing !== 'I' && operands[0]?.addressing !== 'J') return 'byte';
  return 'operand-size';
}

export function instructionWidth(
  rule: WidthRule,
  operandSize: 16 | 32 | 64,
  operands: readonly DecodedOperand[],
): Width {
  if (rule === 'byte') return 8;
  if (rule === 'operand-size') return operandSize;
  return operands[rule]?.width === 64 ? 64 : 32;
}

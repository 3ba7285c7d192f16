/**
 * Shifts and rotates.
 * Source: APM vol.3, RCL, RCR, ROL, ROR, SAL/SHL, SAR, SHR, SHLD, SHRD.
 *
 * The count is masked to 5 bits, to 6 with a 64-bit operand; a masked count of zero changes no flag, but the destination
 * is still written (a 32-bit register is zero-extended, a read-only page faults). Undefined flags follow the rule for a
 * count of one: OF tells that the last step changed the sign; AF is cleared by shifts, untouched by rotates.
 *
 * Values are zero-extended in 64 bits, so most of the work is done there, where no count is too large.
 */
import { shiftForms } from './forms.js';
import { type Instruction, instruction, type Operand, type Ops, type Static } from './instruction.js';
import { three, two } from './operands.js';

const SHL = instruction({
  mnemonic: 'SHL',
  source: 'APM vol.3, SAL/SHL',
  forms: [...shiftForms(4), ...shiftForms(6)],
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, countOperand] = two(insn);
    const a = ops.readForWrite(destination);
    const count = maskedCount(ops, insn, countOperand);
    const shifted = ops.shl(64, a, count);
    const result = ops.truncate(width, shifted);
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      const carry = width === 64 ? ops.bit(ops.shr(64, a, distance(ops, 64, count)), 0) : ops.bit(shifted, width);
      ops.flagsResult(width, result, carry, ops.differ(ops.bit(result, width - 1), carry));
    });
  },
});

const SHR = instruction({
  mnemonic: 'SHR',
  source: 'APM vol.3, SHR',
  forms: shiftForms(5),
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, countOperand] = two(insn);
    const a = ops.readForWrite(destination);
    const count = maskedCount(ops, insn, countOperand);
    const result = ops.shr(64, a, count);
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      const carry = ops.bit(ops.shr(64, a, oneLess(ops, count)), 0);
      ops.flagsResult(width, result, carry, topBitsDiffer(ops, width, result));
    });
  },
});

const SAR = instruction({
  mnemonic: 'SAR',
  source: 'APM vol.3, SAR',
  forms: shiftForms(7),
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, countOperand] = two(insn);
    const a = ops.signExtend(width, 64, ops.readForWrite(destination));
    const count = maskedCount(ops, insn, countOperand);
    const result = ops.truncate(width, ops.sar(64, a, count));
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      const carry = ops.bit(ops.sar(64, a, oneLess(ops, count)), 0);
      ops.flagsResult(width, result, carry, topBitsDiffer(ops, width, result));
    });
  },
});

const ROL = instruction({
  mnemonic: 'ROL',
  source: 'APM vol.3, ROL',
  forms: shiftForms(0),
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, countOperand] = two(insn);
    const a = ops.readForWrite(destination);
    const count = maskedCount(ops, insn, countOperand);
    const result = ops.rol(width, a, ops.and(count, ops.constant(BigInt(width - 1))));
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      ops.setFlag('cf', ops.bit(result, 0));
      ops.setFlag('of', ops.differ(ops.bit(result, width - 1), ops.bit(result, 0)));
    });
  },
});

const ROR = instruction({
  mnemonic: 'ROR',
  source: 'APM vol.3, ROR',
  forms: shiftForms(1),
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, countOperand] = two(insn);
    const a = ops.readForWrite(destination);
    const count = maskedCount(ops, insn, countOperand);
    const result = ops.ror(width, a, ops.and(count, ops.constant(BigInt(width - 1))));
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      ops.setFlag('cf', ops.bit(result, width - 1));
      ops.setFlag('of', topBitsDiffer(ops, width, result));
    });
  },
});

const RCL = instruction({
  mnemonic: 'RCL',
  source: 'APM vol.3, RCL',
  forms: shiftForms(2),
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, countOperand] = two(insn);
    const a = ops.readForWrite(destination);
    const count = countThroughCarry(ops, insn, countOperand);
    // The operand's upper part, the old carry below it, and what left the top: two shifts, as one may be by 64.
    const upper = ops.shl(64, a, count);
    const middle = ops.shl(64, ops.fromBool(ops.flag('cf')), oneLess(ops, count));
    const lower = ops.shr(64, ops.shr(64, a, ops.constant(1n)), distance(ops, width, count));
    const rotated = ops.truncate(width, ops.or(upper, ops.or(middle, lower)));
    const result = ops.select(ops.isZero(count), a, rotated);
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      const carry = ops.bit(ops.shr(64, a, distance(ops, width, count)), 0);
      ops.setFlag('cf', carry);
      ops.setFlag('of', ops.differ(ops.bit(result, width - 1), carry));
    });
  },
});

const RCR = instruction({
  mnemonic: 'RCR',
  source: 'APM vol.3, RCR',
  forms: shiftForms(3),
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, countOperand] = two(insn);
    const a = ops.readForWrite(destination);
    const count = countThroughCarry(ops, insn, countOperand);
    const lower = ops.shr(64, a, count);
    const middle = ops.shl(64, ops.fromBool(ops.flag('cf')), distance(ops, width, count));
    const upper = ops.shl(64, ops.shl(64, a, ops.constant(1n)), distance(ops, width, count));
    const rotated = ops.truncate(width, ops.or(upper, ops.or(middle, lower)));
    const result = ops.select(ops.isZero(count), a, rotated);
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      ops.setFlag('cf', ops.bit(ops.shr(64, a, oneLess(ops, count)), 0));
      ops.setFlag('of', topBitsDiffer(ops, width, result));
    });
  },
});

const SHLD = instruction({
  mnemonic: 'SHLD',
  source: 'APM vol.3, SHLD',
  forms: ['0F A4 /r: Ev, Gv, Ib', '0F A5 /r: Ev, Gv, CL'],
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, source, countOperand] = three(insn);
    const a = ops.readForWrite(destination);
    const b = ops.read(source);
    const count = maskedCount(ops, insn, countOperand);
    const result = ops.truncate(width, shiftLeftDouble(ops, width, a, b, count));
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      const carry = ops.bit(shiftLeftDouble(ops, width, a, b, oneLess(ops, count)), width - 1);
      ops.flagsResult(width, result, carry, signsDiffer(ops, width, a, result));
    });
  },
});

const SHRD = instruction({
  mnemonic: 'SHRD',
  source: 'APM vol.3, SHRD',
  forms: ['0F AC /r: Ev, Gv, Ib', '0F AD /r: Ev, Gv, CL'],
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, source, countOperand] = three(insn);
    const a = ops.readForWrite(destination);
    const b = ops.read(source);
    const count = maskedCount(ops, insn, countOperand);
    const result = ops.truncate(width, shiftRightDouble(ops, width, a, b, count));
    ops.write(destination, result);
    unlessZero(ops, count, () => {
      const carry = ops.bit(shiftRightDouble(ops, width, a, b, oneLess(ops, count)), 0);
      ops.flagsResult(width, result, carry, signsDiffer(ops, width, a, result));
    });
  },
});

function maskedCount<V, C, X>(ops: Ops<V, C, X>, { width }: Static, count: Operand): V {
  return ops.and(ops.read(count), ops.constant(width === 64 ? 63n : 31n));
}

/** Rotates through carry turn width + 1 bits: counts of 8- and 16-bit operands are taken modulo 9 and 17. */
function countThroughCarry<V, C, X>(ops: Ops<V, C, X>, insn: Static, operand: Operand): V {
  const count = maskedCount(ops, insn, operand);
  if (insn.width === 8) return reduce(ops, reduce(ops, count, 18n), 9n);
  if (insn.width === 16) return reduce(ops, count, 17n);
  return count;
}

function reduce<V, C, X>(ops: Ops<V, C, X>, count: V, modulus: bigint): V {
  const limit = ops.constant(modulus);
  return ops.select(ops.lessUnsigned(count, limit), count, ops.sub(64, count, limit));
}

/** `count` - 1, and some count that does no harm when there is nothing to shift. */
function oneLess<V, C, X>(ops: Ops<V, C, X>, count: V): V {
  return ops.and(ops.sub(64, count, ops.constant(1n)), ops.constant(63n));
}

/** `from` - `count`, and some count that does no harm for a `count` of zero. */
function distance<V, C, X>(ops: Ops<V, C, X>, from: number, count: V): V {
  return ops.and(ops.sub(64, ops.constant(BigInt(from)), count), ops.constant(63n));
}

function unlessZero<V, C, X>(ops: Ops<V, C, X>, count: V, then: () => void): void {
  ops.when(ops.negate(ops.isZero(count)), then);
}

function topBitsDiffer<V, C, X>(ops: Ops<V, C, X>, width: number, value: V): C {
  return ops.differ(ops.bit(value, width - 1), ops.bit(value, width - 2));
}

function signsDiffer<V, C, X>(ops: Ops<V, C, X>, width: number, a: V, b: V): C {
  return ops.bit(ops.xor(a, b), width - 1);
}

/**
 * The upper half of a:b shifted left by `count`, not cut to the width. Beyond 16 bits, a 16-bit operand continues with
 * `a` once more; the manual leaves that result undefined.
 */
function shiftLeftDouble<V, C, X>(ops: Ops<V, C, X>, width: number, a: V, b: V, count: V): V {
  if (width === 16) {
    return ops.shr(
      64,
      ops.shl(64, ops.or(ops.shl(64, pair16(ops, a, b), ops.constant(16n)), a), count),
      ops.constant(32n),
    );
  }
  const lower = ops.shr(64, ops.shr(64, b, ops.constant(1n)), distance(ops, width - 1, count));
  return ops.or(ops.shl(64, a, count), lower);
}

/** The lower half of b:a shifted right by `count`, not cut to the width. */
function shiftRightDouble<V, C, X>(ops: Ops<V, C, X>, width: number, a: V, b: V, count: V): V {
  if (width === 16) {
    return ops.shr(64, ops.or(ops.shl(64, pair16(ops, a, b), ops.constant(16n)), a), count);
  }
  const upper = ops.shl(64, ops.shl(64, b, ops.constant(1n)), distance(ops, width - 1, count));
  return ops.or(ops.shr(64, a, count), upper);
}

const pair16 = <V, C, X>(ops: Ops<V, C, X>, a: V, b: V): V => ops.or(ops.shl(64, a, ops.constant(16n)), b);

export const SHIFT_INSTRUCTIONS: readonly Instruction[] = [ROL, ROR, RCL, RCR, SHL, SHR, SAR, SHLD, SHRD];

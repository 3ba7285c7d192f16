/**
 * x87 arithmetic and comparison on double-extended operands, with the exceptions they raise.
 *
 * Source: APM vol.1 §6.3 Floating-Point Data Types (Number Encodings, Table 6-9 and its NaN rules), §6.8 x87
 * Floating-Point Exceptions; APM vol.5, the instruction pages.
 *
 * Operands are `Unpacked` with `bits` in the double-extended format, whatever format they came from: a denormal single
 * is `denormal` here, though it is a normal register value. Order of exceptions: unsupported and NaN operands (IE),
 * other invalid operations (IE) and zero-divide (ZE), denormal operands (DE), then OE, UE and PE with the result.
 *
 * Invariant: operations never throw. After an unmasked IE, DE or ZE the returned value is meaningless.
 */
import { addExact, divideExact, multiplyExact, squareRootExact } from './exact.js';
import {
  F80,
  type FloatFormat,
  infinity,
  isNaNKind,
  packFinite,
  quiet,
  type Unpacked,
  unpack,
  zero,
} from './format.js';
import { bitLength, DE, DOWN, IE, PE, ZE } from './rounding.js';
import type { Relation } from './sse.js';
import { FULL_PRECISION, roundTo, roundToRegister, type X87Environment } from './x87-rounding.js';

/** What an operation returns when an unmasked exception ends it before there is a result. */
export const NO_RESULT = 0n;

/** A register as an operand. */
export const registerOperand = (bits: bigint): Unpacked => unpack(F80, bits);

/** A single or double in memory as an operand: always exact, an SNaN stays one. */
export function widen(format: FloatFormat, bits: bigint): Unpacked {
  const x = unpack(format, bits);
  const growth = BigInt(F80.fractionBits - format.fractionBits);
  switch (x.kind) {
    case 'zero':
      return { ...x, bits: zero(F80, x.negative) };
    case 'normal':
    case 'denormal':
      return { ...x, bits: exactBits(x.negative, x.exponent, x.significand) };
    default:
      return { ...x, bits: infinity(F80, x.negative) | ((bits & format.fractionMask) << growth) };
  }
}

/** An integer as an operand: always exact up to 64 bits. */
export function integerOperand(value: bigint): Unpacked {
  const negative = value < 0n;
  const significand = negative ? -value : value;
  const kind = significand === 0n ? 'zero' : 'normal';
  return { bits: exactBits(negative, 0, significand), kind, negative, exponent: 0, significand };
}

/** The pattern of significand × 2^exponent, which must be a normal register value or zero. */
export function exactBits(negative: boolean, exponent: number, significand: bigint): bigint {
  if (significand === 0n) return zero(F80, negative);
  const length = bitLength(significand);
  return packFinite(F80, negative, exponent + length - 1, significand << BigInt(F80.precision - length));
}

// Exceptions before a result

export function invalid(env: X87Environment): bigint {
  env.flags |= IE;
  return F80.indefinite;
}

/** True for operands that end an operation with a NaN: NaNs and encodings that the unit does not support. */
export const isNotNumber = (x: Unpacked): boolean => x.kind === 'unsupported' || isNaNKind(x);

/**
 * The result when an operand is no number. Of two NaNs a quiet one wins against a signaling one, then the larger
 * significand, then the positive one.
 */
export function propagateNaN(x: Unpacked, y: Unpacked, env: X87Environment): bigint {
  if (x.kind === 'unsupported' || y.kind === 'unsupported') return invalid(env);
  if (x.kind === 'snan' || y.kind === 'snan') env.flags |= IE;
  return quiet(F80, (winner(x, y) ? x : y).bits);
}

function winner(x: Unpacked, y: Unpacked): boolean {
  if (!isNaNKind(x) || !isNaNKind(y)) return isNaNKind(x);
  if (x.kind !== y.kind) return x.kind === 'qnan';
  const [a, b] = [x.bits & F80.fractionMask, y.bits & F80.fractionMask];
  return a === b ? !x.negative : a > b;
}

/** Raises DE for denormal operands. @returns whether that ends the operation. */
export function stopsOnDenormal(env: X87Environment, ...operands: readonly Unpacked[]): boolean {
  if (operands.every(({ kind }) => kind !== 'denormal')) return false;
  env.flags |= DE;
  return (env.masks & DE) === 0;
}

/** Raises ZE. @returns infinity. */
export function zeroDivide(negative: boolean, env: X87Environment): bigint {
  env.flags |= ZE;
  return infinity(F80, negative);
}

// Arithmetic

export type X87Binary = (x: Unpacked, y: Unpacked, env: X87Environment) => bigint;

export const add: X87Binary = (x, y, env) => sum(x, y, y.negative, env);
export const subtract: X87Binary = (x, y, env) => sum(x, y, !y.negative, env);

function sum(x: Unpacked, y: Unpacked, yNegative: boolean, env: X87Environment): bigint {
  if (isNotNumber(x) || isNotNumber(y)) return propagateNaN(x, y, env);
  if (x.kind === 'infinity' && y.kind === 'infinity' && x.negative !== yNegative) return invalid(env);
  if (stopsOnDenormal(env, x, y)) return NO_RESULT;
  if (x.kind === 'infinity') return x.bits;
  if (y.kind === 'infinity') return infinity(F80, yNegative);
  const exact = addExact(leftAligned(x), { ...leftAligned(y), negative: yNegative });
  if (exact.significand !== 0n) return roundToRegister(exact, env.precision, env);
  // Zeros of one sign keep it; any other exact zero is +0, or −0 when rounding down.
  return zero(F80, x.negative === yNegative ? x.negative : env.rounding === DOWN);
}

export const multiply: X87Binary = (x, y, env) => {
  if (isNotNumber(x) || isNotNumber(y)) return propagateNaN(x, y, env);
  const infinite = x.kind === 'infinity' || y.kind === 'infinity';
  const zeroFactor = x.kind === 'zero' || y.kind === 'zero';
  if (infinite && zeroFactor) return invalid(env);
  if (stopsOnDenormal(env, x, y)) return NO_RESULT;
  const negative = x.negative !== y.negative;
  if (infinite) return infinity(F80, negative);
  if (zeroFactor) return zero(F80, negative);
  return roundToRegister(multiplyExact(x, y), env.precision, env);
};

export const divide: X87Binary = (x, y, env) => {
  if (isNotNumber(x) || isNotNumber(y)) return propagateNaN(x, y, env);
  if (x.kind === y.kind && (x.kind === 'infinity' || x.kind === 'zero')) return invalid(env);
  const negative = x.negative !== y.negative;
  if (y.kind === 'zero' && x.kind !== 'infinity') return zeroDivide(negative, env);
  if (stopsOnDenormal(env, x, y)) return NO_RESULT;
  if (x.kind === 'infinity') return infinity(F80, negative);
  if (x.kind === 'zero' || y.kind === 'infinity') return zero(F80, negative);
  return roundToRegister(divideExact(x, y, F80.precision), env.precision, env);
};

export function squareRoot(x: Unpacked, env: X87Environment): bigint {
  if (isNotNumber(x)) return propagateNaN(x, x, env);
  if (x.kind === 'zero') return x.bits;
  if (x.negative) return invalid(env);
  if (stopsOnDenormal(env, x)) return NO_RESULT;
  if (x.kind === 'infinity') return x.bits;
  return roundToRegister(squareRootExact(x, F80.precision), env.precision, env);
}

/** FRNDINT: an integral value by the rounding mode. */
export function roundToIntegral(x: Unpacked, env: X87Environment): bigint {
  if (isNotNumber(x)) return propagateNaN(x, x, env);
  if (stopsOnDenormal(env, x)) return NO_RESULT;
  // Values whose lowest bit is at or above the units are integral.
  if (x.kind === 'infinity' || x.kind === 'zero' || x.exponent >= 0) return x.bits;
  const { significand, inexact, up } = roundTo({ ...x, sticky: false }, -x.exponent, env.rounding);
  if (inexact) env.flags |= PE;
  env.roundedUp = up;
  return exactBits(x.negative, 0, significand);
}

// Comparison

/** @param signalsQNaN IE for any NaN (FCOM), or for an SNaN only (FUCOM). */
export function compare(x: Unpacked, y: Unpacked, signalsQNaN: boolean, env: X87Environment): Relation {
  if (isNotNumber(x) || isNotNumber(y)) {
    const isInvalid = [x, y].some(({ kind }) => kind === 'snan' || kind === 'unsupported' || signalsQNaN);
    if (isInvalid) env.flags |= IE;
    return 'unordered';
  }
  stopsOnDenormal(env, x, y);
  if (x.kind === 'zero' && y.kind === 'zero') return 'equal';
  if (x.kind === 'infinity' || y.kind === 'infinity') return order(infinitySign(x), infinitySign(y));
  const difference = addExact(leftAligned(x), { ...leftAligned(y), negative: !y.negative });
  if (difference.significand === 0n) return 'equal';
  return difference.negative ? 'less' : 'greater';
}

const infinitySign = (x: Unpacked): number => (x.kind !== 'infinity' ? 0 : x.negative ? -1 : 1);
const order = (a: number, b: number): Relation => (a === b ? 'equal' : a < b ? 'less' : 'greater');

// Scaling and remainders

/** No significand lies so far from the range of exponents that a scale beyond this makes a difference. */
const LARGEST_SCALE = 0x1_0000n;

/** FSCALE: x × 2^trunc(y). */
export function scale(x: Unpacked, y: Unpacked, env: X87Environment): bigint {
  if (isNotNumber(x) || isNotNumber(y)) return propagateNaN(x, y, env);
  if (y.kind === 'infinity' && x.kind === (y.negative ? 'infinity' : 'zero')) return invalid(env);
  if (stopsOnDenormal(env, x, y)) return NO_RESULT;
  if (x.kind === 'infinity' || x.kind === 'zero') return x.bits;
  if (y.kind === 'infinity') return y.negative ? zero(F80, x.negative) : infinity(F80, x.negative);
  const whole = y.exponent >= 16 ? LARGEST_SCALE : shiftRight(y.significand, -y.exponent);
  const steps = Number(whole < LARGEST_SCALE ? whole : LARGEST_SCALE);
  const exponent = x.exponent + (y.negative ? -steps : steps);
  return roundToRegister({ ...x, exponent, sticky: false }, FULL_PRECISION, env);
}

const shiftRight = (value: bigint, count: number): bigint =>
  count >= 0 ? value >> BigInt(count) : value << BigInt(-count);

/** FXTRACT: the exponent of the leading bit, and the value with that exponent taken off. */
export function extract(x: Unpacked, env: X87Environment): { readonly exponent: bigint; readonly significand: bigint } {
  if (isNotNumber(x)) {
    const nan = propagateNaN(x, x, env);
    return { exponent: nan, significand: nan };
  }
  if (x.kind === 'zero') return { exponent: zeroDivide(true, env), significand: x.bits };
  if (x.kind === 'infinity') return { exponent: infinity(F80, false), significand: x.bits };
  stopsOnDenormal(env, x);
  const length = bitLength(x.significand);
  return {
    exponent: integerOperand(BigInt(x.exponent + length - 1)).bits,
    significand: exactBits(x.negative, 1 - length, x.significand),
  };
}

export interface Remainder {
  readonly bits: bigint;
  /** The low three bits of the quotient's magnitude, unless the remainder is partial (C2) or there is none. */
  readonly quotient: number | 'partial' | 'none';
}

/** Exponents may differ by less than this for the remainder to be complete. */
const COMPLETE_DIFFERENCE = 64;

/**
 * FPREM and FPREM1: x − y × quotient, exact, with a quotient that is truncated or rounded to nearest. From a difference of
 * exponents of 64 on, the remainder is partial: the exponent is reduced by 32 to 63, so that their difference becomes a
 * multiple of 32 or less; how far is up to the implementation.
 */
export function remainder(x: Unpacked, y: Unpacked, nearest: boolean, env: X87Environment): Remainder {
  const none = (bits: bigint): Remainder => ({ bits, quotient: 'none' });
  if (isNotNumber(x) || isNotNumber(y)) return none(propagateNaN(x, y, env));
  if (x.kind === 'infinity' || y.kind === 'zero') return none(invalid(env));
  if (stopsOnDenormal(env, x, y)) return none(NO_RESULT);
  if (x.kind === 'zero') return { bits: x.bits, quotient: 0 };
  if (y.kind === 'infinity') {
    return { bits: roundToRegister({ ...x, sticky: false }, FULL_PRECISION, env), quotient: 0 };
  }

  const [a, b] = [leftAligned(x), leftAligned(y)];
  const difference = a.exponent - b.exponent;
  const isPartial = difference >= COMPLETE_DIFFERENCE;
  const reduction = isPartial ? 32 + (difference % 32) : difference;
  // Both in units of 2^unit; a far smaller dividend is its own remainder, whatever the units.
  const down = Math.max(0, -reduction);
  const dividend = a.significand << BigInt(Math.max(0, reduction));
  const divisor = down > 1 ? dividend << 2n : b.significand << BigInt(down);
  const unit = down > 1 ? a.exponent : a.exponent - Math.max(0, reduction);
  let quotient = dividend / divisor;
  let rest = dividend % divisor;
  if (nearest && !isPartial && (2n * rest > divisor || (2n * rest === divisor && (quotient & 1n) === 1n))) {
    quotient += 1n;
    rest -= divisor;
  }
  const low = isPartial ? 'partial' : Number(quotient & 7n);
  if (rest === 0n) return { bits: zero(F80, x.negative), quotient: low };
  const exact = {
    negative: x.negative !== rest < 0n,
    exponent: unit,
    significand: rest < 0n ? -rest : rest,
    sticky: false,
  };
  return { bits: roundToRegister(exact, FULL_PRECISION, env), quotient: low };
}

/** The same value with a significand of 64 bits, unless it is zero: operands from memory have fewer. */
function leftAligned(x: Unpacked): Pick<Unpacked, 'negative' | 'exponent' | 'significand'> {
  if (x.significand === 0n) return x;
  const missing = F80.precision - bitLength(x.significand);
  return { negative: x.negative, exponent: x.exponent - missing, significand: x.significand << BigInt(missing) };
}

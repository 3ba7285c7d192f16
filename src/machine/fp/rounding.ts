/**
 * Rounding of exact results to a format, with the post-computation exceptions that this raises.
 *
 * Source: APM vol.1 §4.2.2 MXCSR Register, §4.10.2 SIMD Floating-Point Exception Causes, §4.10.4 SIMD Floating-Point
 * Exception Masking. Tininess is detected after rounding: a result is tiny when it would be below the smallest
 * normal value even if rounded with an unbounded exponent.
 *
 * Invariants: everything is integer arithmetic, so results and flags depend on nothing but the operands. Flags are
 * only ever added. An unmasked exception is recorded like a masked one; the caller looks at `flags & ~masks`, raises
 * #XF and drops the result.
 */

import { type FloatFormat, infinity, packFinite, zero } from './format.js';

/** MXCSR.RC: to nearest even, toward −infinity, toward +infinity, toward zero. */
export type RoundingMode = 0 | 1 | 2 | 3;
export const NEAREST = 0;
export const DOWN = 1;
export const UP = 2;
export const TRUNCATE = 3;

/** Exception flags at their MXCSR positions; the masks have the same order from bit 0 here, from bit 7 in MXCSR. */
export const IE = 1 << 0;
export const DE = 1 << 1;
export const ZE = 1 << 2;
export const OE = 1 << 3;
export const UE = 1 << 4;
export const PE = 1 << 5;
export const PRE_COMPUTATION = IE | DE | ZE;
export const POST_COMPUTATION = OE | UE | PE;

/** The part of MXCSR that arithmetic reads, and the flags it adds to. */
export interface FloatEnvironment {
  readonly rounding: RoundingMode;
  /** Denormals are zeros. */
  readonly daz: boolean;
  /** Flush to zero. */
  readonly ftz: boolean;
  /** IM, DM, ZM, OM, UM, PM as bits 0–5; a set bit masks the exception. */
  readonly masks: number;
  /** IE, DE, ZE, OE, UE, PE as bits 0–5, accumulated. */
  flags: number;
}

/**
 * A finite result before rounding: significand × 2^exponent, plus something above zero and below one unit of the
 * significand's lowest bit when `sticky`. A sticky significand has at least two bits more than what it is rounded to.
 */
export interface Exact {
  readonly negative: boolean;
  readonly exponent: number;
  readonly significand: bigint;
  readonly sticky: boolean;
}

interface Rounded {
  readonly significand: bigint;
  readonly inexact: boolean;
}

const bitLengthView = new DataView(new ArrayBuffer(8));

/** Bits of a positive integer below 2^1023. */
export function bitLength(value: bigint): number {
  bitLengthView.setFloat64(0, Number(value));
  const length = (bitLengthView.getUint16(0) >> 4) - 1022;
  // The conversion rounds, possibly up to the next power of two.
  return value >> BigInt(length - 1) === 0n ? length - 1 : length;
}

/** Drops the lowest `count` bits of an exact magnitude (appends zeros when negative) and rounds to an integer. */
export function roundOff(exact: Exact, count: number, rounding: RoundingMode): Rounded {
  if (count <= 0) return { significand: exact.significand << BigInt(-count), inexact: exact.sticky };
  const kept = exact.significand >> BigInt(count);
  const dropped = BigInt.asUintN(count, exact.significand);
  if (dropped === 0n && !exact.sticky) return { significand: kept, inexact: false };
  const away = roundsAway(exact, kept, dropped, 1n << BigInt(count - 1), rounding);
  return { significand: away ? kept + 1n : kept, inexact: true };
}

function roundsAway(exact: Exact, kept: bigint, dropped: bigint, half: bigint, rounding: RoundingMode): boolean {
  switch (rounding) {
    case NEAREST:
      return dropped > half || (dropped === half && (exact.sticky || (kept & 1n) === 1n));
    case DOWN:
      return exact.negative;
    case UP:
      return !exact.negative;
    case TRUNCATE:
      return false;
  }
}

/**
 * Rounds an exact result that is not zero to `format` and adds OE, UE and PE to the environment.
 * @returns the masked response; without use if one of these exceptions is unmasked.
 */
export function roundPack(format: FloatFormat, exact: Exact, env: FloatEnvironment): bigint {
  const length = bitLength(exact.significand);
  const leading = exact.exponent + length - 1;
  const normal = roundOff(exact, length - format.precision, env.rounding);
  const carried = normal.significand === format.integerValue << 1n;
  const exponent = carried ? leading + 1 : leading;

  if (exponent > format.maxExponent) return overflow(format, exact.negative, normal.inexact, env);
  if (exponent < format.minExponent) return underflow(format, exact, normal.inexact, env);
  if (leading < format.minExponent) return roundSmall(format, exact, PE, env);
  if (normal.inexact) env.flags |= PE;
  return packFinite(format, exact.negative, exponent, carried ? format.integerValue : normal.significand);
}

/**
 * The response to a tiny result. UE unmasked is raised by tininess alone, and PE then tells whether the result with
 * unbounded exponent was inexact; masked, UE takes loss of accuracy as well, unless the result is flushed to zero.
 */
function underflow(format: FloatFormat, exact: Exact, inexactUnbounded: boolean, env: FloatEnvironment): bigint {
  if ((env.masks & UE) === 0) {
    env.flags |= inexactUnbounded ? UE | PE : UE;
    return 0n;
  }
  if (env.ftz) {
    env.flags |= UE | PE;
    return zero(format, exact.negative);
  }
  return roundSmall(format, exact, UE | PE, env);
}

/** Rounds at the lowest bit of denormal values. The carry into the smallest normal value needs no care. */
function roundSmall(format: FloatFormat, exact: Exact, flagsIfInexact: number, env: FloatEnvironment): bigint {
  const lowest = format.minExponent - format.fractionBits;
  const { significand, inexact } = roundOff(exact, lowest - exact.exponent, env.rounding);
  if (inexact) env.flags |= flagsIfInexact;
  return packFinite(format, exact.negative, format.minExponent, significand);
}

/** Infinity, or the largest finite value where the rounding mode keeps the result from going further out. */
function overflow(format: FloatFormat, negative: boolean, inexact: boolean, env: FloatEnvironment): bigint {
  env.flags |= OE;
  if (inexact || (env.masks & OE) !== 0) env.flags |= PE;
  const outward = env.rounding === NEAREST || env.rounding === (negative ? DOWN : UP);
  if (outward) return infinity(format, negative);
  return negative ? format.signMask | format.largest : format.largest;
}

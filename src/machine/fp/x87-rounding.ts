/**
 * Rounding of exact results as the x87 unit does it: to a precision that the control word chooses, always with the
 * exponent range of the destination, and with the response to unmasked overflow and underflow in a register, a result
 * whose exponent is wrapped.
 *
 * Source: APM vol.1 §6.2.3 x87 Control Word Register (FCW), §6.8.2 x87 Floating-Point Exception Causes, §6.8.4 x87
 * Floating-Point Exception Masking. Tininess is detected after rounding.
 *
 * Invariants: as in `rounding.ts`; besides, `roundedUp` is set when the magnitude was rounded up (condition code C1).
 */
import { F80, type FloatFormat, infinity, packFinite, zero } from './format.js';
import {
  bitLength,
  DOWN,
  type Exact,
  type FloatEnvironment,
  NEAREST,
  OE,
  PE,
  type RoundingMode,
  roundOff,
  UE,
  UP,
} from './rounding.js';

/** The control word as arithmetic reads it, and what it adds to the status word. */
export interface X87Environment extends FloatEnvironment {
  /** Significant bits that addition, multiplication, division and square root leave: 24, 53 or 64. */
  readonly precision: number;
  /** The last rounding went away from zero. */
  roundedUp: boolean;
}

/** FCW: rounding control in bits 11:10, precision control in bits 9:8, masks in bits 5:0. */
const ROUNDING_SHIFT = 10;
const PRECISION_SHIFT = 8;
const MASKS = 0x3f;
/** By FCW.PC; 1 is reserved and taken for the full precision. */
const PRECISIONS = [24, 64, 53, 64] as const;

export const FULL_PRECISION = F80.precision;
/**
 * What is added to the exponent of a tiny result, and taken from that of a huge one, when the exception is unmasked.
 * FSCALE can leave results that are out of range even then: they become zero or overflow as if masked.
 */
const EXPONENT_WRAP = 24576;

export function x87Environment(fcw: number): X87Environment {
  return {
    rounding: ((fcw >> ROUNDING_SHIFT) & 3) as RoundingMode,
    precision: PRECISIONS[((fcw >> PRECISION_SHIFT) & 3) as 0 | 1 | 2 | 3],
    masks: fcw & MASKS,
    flags: 0,
    daz: false,
    ftz: false,
    roundedUp: false,
  };
}

/** Rounds a result that is not zero to a register. @param precision significant bits. */
export function roundToRegister(exact: Exact, precision: number, env: X87Environment): bigint {
  return round(F80, exact, precision, env);
}

/** Rounds a value that is not zero to a format in memory. OE or UE unmasked come alone, and there is no result. */
export function roundToMemory(format: FloatFormat, exact: Exact, env: X87Environment): bigint {
  const own = { ...env, flags: 0, roundedUp: false };
  const bits = round(format, exact, format.precision, own);
  const stopping = own.flags & ~env.masks & (OE | UE);
  env.flags |= stopping === 0 ? own.flags : stopping;
  env.roundedUp = stopping === 0 && own.roundedUp;
  return bits;
}

function round(format: FloatFormat, exact: Exact, precision: number, env: X87Environment): bigint {
  const length = bitLength(exact.significand);
  const leading = exact.exponent + length - 1;
  const normal = roundTo(exact, length - precision, env.rounding);
  const carried = normal.significand >> BigInt(precision) !== 0n;
  const exponent = carried ? leading + 1 : leading;
  const significand = carried ? normal.significand >> 1n : normal.significand;
  const pack = (at: number): bigint => {
    env.roundedUp = normal.up;
    if (normal.inexact) env.flags |= PE;
    return packFinite(format, exact.negative, at, significand << BigInt(format.precision - precision));
  };

  if (exponent > format.maxExponent) {
    env.flags |= OE;
    if ((env.masks & OE) !== 0) return overflow(format, exact.negative, precision, env);
    const wrapped = exponent - EXPONENT_WRAP;
    return wrapped <= format.maxExponent ? pack(wrapped) : overflow(format, exact.negative, precision, env);
  }
  if (exponent < format.minExponent) {
    if ((env.masks & UE) !== 0) return roundSmall(format, exact, precision, UE | PE, env);
    env.flags |= UE;
    const wrapped = exponent + EXPONENT_WRAP;
    if (wrapped >= format.minExponent) return pack(wrapped);
    env.flags |= PE;
    return zero(format, exact.negative);
  }
  return leading < format.minExponent ? roundSmall(format, exact, precision, PE, env) : pack(exponent);
}

/** As `roundOff`, and whether the magnitude grew. */
export function roundTo(
  exact: Exact,
  count: number,
  rounding: RoundingMode,
): { readonly significand: bigint; readonly inexact: boolean; readonly up: boolean } {
  const { significand, inexact } = roundOff(exact, count, rounding);
  const up = inexact && count > 0 && significand > exact.significand >> BigInt(count);
  return { significand, inexact, up };
}

/** Rounds at the lowest bit that a denormal value has at this precision. */
function roundSmall(
  format: FloatFormat,
  exact: Exact,
  precision: number,
  flagsIfInexact: number,
  env: X87Environment,
): bigint {
  const lowest = format.minExponent - (precision - 1);
  const { significand, inexact, up } = roundTo(exact, lowest - exact.exponent, env.rounding);
  env.roundedUp = up;
  if (inexact) env.flags |= flagsIfInexact;
  const shifted = significand << BigInt(format.precision - precision);
  return packFinite(format, exact.negative, format.minExponent, shifted);
}

/** Infinity, or the largest value of the precision where the rounding mode keeps the result from going further out. */
function overflow(format: FloatFormat, negative: boolean, precision: number, env: X87Environment): bigint {
  env.flags |= PE;
  env.roundedUp = env.rounding === NEAREST || env.rounding === (negative ? DOWN : UP);
  if (env.roundedUp) return infinity(format, negative);
  const ones = ((1n << BigInt(precision)) - 1n) << BigInt(format.precision - precision);
  return packFinite(format, negative, format.maxExponent, ones);
}

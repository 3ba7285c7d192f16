/**
 * The transcendental functions of the x87 unit.
 *
 * Source: APM vol.1 §6.4.4 Transcendental Functions; APM vol.5, F2XM1, FCOS, FPATAN, FPTAN, FSIN, FSINCOS, FYL2X, FYL2XP1,
 * with their tables of special operands.
 *
 * The manual bounds the error and leaves the last bit to the implementation. Here results are the true value, computed to
 * far more bits than the register has, and rounded once by the rounding control; precision control has no effect.
 * Angles are reduced by π cut to 66 bits, as processors do: the sine of a large angle is that of the reduced one.
 *
 * Results of operands outside the range of F2XM1 and FYL2XP1 are undefined in the manual: F2XM1 gives the operand, FYL2XP1
 * takes the logarithm where there is one, else it gives the operand, too. Whatever is no special case raises PE. So an AMD
 * processor was seen to do, whose results are at most one unit of the last place away from these.
 *
 * Invariants: as in `x87.ts`. A result that is not exactly representable is never exact before rounding either.
 */
import { arctangent, binaryLogarithm, exponentialLessOne, sineAndCosine } from './fixed-functions.js';
import { F80, infinity, type Unpacked, zero } from './format.js';
import { bitLength, type Exact, PE, UE } from './rounding.js';
import {
  exactBits,
  invalid,
  isNotNumber,
  NO_RESULT,
  propagateNaN,
  stopsOnDenormal,
  type X87Binary,
  zeroDivide,
} from './x87.js';
import { FRACTION_BITS, LN2, PI } from './x87-constants.js';
import { FULL_PRECISION, roundToRegister, type X87Environment } from './x87-rounding.js';

/** Bits that are kept of a result before it is rounded. */
const KEPT_BITS = 256;
const ONE = exactBits(false, 0, 1n);

/** Exponent of the leading bit of a finite value that is not zero. */
const leadingExponent = (x: Unpacked): number => x.exponent + bitLength(x.significand) - 1;

/**
 * Bits of fixed point for a function whose series begins with x or 1 and goes on with x² or x³: a small operand needs
 * more, lest the second term is lost and a directed rounding goes wrong.
 */
const workingBits = (leading: number): number => FRACTION_BITS + 3 * Math.max(0, -leading);

const shift = (value: bigint, left: number): bigint => (left >= 0 ? value << BigInt(left) : value >> BigInt(-left));

/** A magnitude in units of 2^exponent, cut to what rounding needs. Processors call it inexact even where it is not. */
function rounded(
  negative: boolean,
  magnitude: bigint,
  exponent: number,
  isExact: boolean,
  env: X87Environment,
): bigint {
  const excess = Math.max(0, 4 * magnitude.toString(16).length - KEPT_BITS);
  const significand = magnitude >> BigInt(excess);
  const exact: Exact = { negative, exponent: exponent + excess, significand, sticky: !isExact };
  const isTiny = exact.exponent + bitLength(significand) - 1 < F80.minExponent;
  env.flags |= isExact && isTiny ? PE | UE : PE;
  return roundToRegister(exact, FULL_PRECISION, env);
}

const absolute = (value: bigint): bigint => (value < 0n ? -value : value);

// Trigonometry

/** Above this, FSIN and its kin leave the operand and set C2. */
const LARGEST_ANGLE_EXPONENT = 63;

export const isAngleTooLarge = (x: Unpacked): boolean =>
  (x.kind === 'normal' || x.kind === 'denormal') && leadingExponent(x) >= LARGEST_ANGLE_EXPONENT;

/** The π that processors reduce angles by, 66 bits of it. */
const REDUCTION_PI = 0xc90f_daa2_2168_c234_cn << BigInt(FRACTION_BITS - 66);

interface Angle {
  readonly sine: bigint;
  readonly cosine: bigint;
  readonly bits: number;
}

/** Sine and cosine of a finite value, in fixed point and signed. */
function angle(x: Unpacked): Angle {
  const leading = leadingExponent(x);
  const bits = workingBits(leading);
  const magnitude = shift(x.significand, bits + x.exponent);
  const quarterTurn = REDUCTION_PI / 2n; // in FRACTION_BITS, which are `bits` wherever it is used
  const quadrant = leading < 0 ? 0n : (magnitude + quarterTurn / 2n) / quarterTurn;
  const rest = magnitude - quadrant * quarterTurn;
  const reduced = sineAndCosine(absolute(rest), bits);
  const s = rest < 0n ? -reduced.sine : reduced.sine;
  const c = reduced.cosine;
  const [sine, cosine] = (
    [
      [s, c],
      [c, -s],
      [-s, -c],
      [-c, s],
    ] as const
  )[Number(quadrant & 3n)] as readonly [bigint, bigint];
  return { sine: x.negative ? -sine : sine, cosine, bits };
}

const fixed = (value: bigint, bits: number, env: X87Environment): bigint =>
  rounded(value < 0n, absolute(value), -bits, false, env);

/** A function of an angle that is small enough; `ofZero` is its value at zero. */
const trigonometric =
  (ofZero: (x: Unpacked) => bigint, compute: (of: Angle, env: X87Environment) => bigint) =>
  (x: Unpacked, env: X87Environment): bigint => {
    if (isNotNumber(x)) return propagateNaN(x, x, env);
    if (x.kind === 'infinity') return invalid(env);
    if (stopsOnDenormal(env, x)) return NO_RESULT;
    return x.kind === 'zero' ? ofZero(x) : compute(angle(x), env);
  };

export const sine = trigonometric(
  ({ bits }) => bits,
  (of, env) => fixed(of.sine, of.bits, env),
);
export const cosine = trigonometric(
  () => ONE,
  (of, env) => fixed(of.cosine, of.bits, env),
);
export const tangent = trigonometric(
  ({ bits }) => bits,
  (of, env) => fixed((of.sine << BigInt(of.bits)) / of.cosine, of.bits, env),
);

/** FPATAN: the angle of the point (x, y), from -π to π. */
export const arctangentOf: X87Binary = (y, x, env) => {
  if (isNotNumber(x) || isNotNumber(y)) return propagateNaN(x, y, env);
  if (stopsOnDenormal(env, x, y)) return NO_RESULT;
  const quarters = specialAngle(y, x);
  if (quarters === 0) return zero(F80, y.negative);
  if (quarters !== undefined) return rounded(y.negative, BigInt(quarters) * PI, -FRACTION_BITS - 2, false, env);

  const isSteep = leadingExponent(y) > leadingExponent(x);
  const [small, large] = isSteep ? [x, y] : [y, x];
  const bits = isSteep || x.negative ? FRACTION_BITS : workingBits(leadingExponent(y) - leadingExponent(x));
  const ratio = shift(small.significand, bits + small.exponent - large.exponent) / large.significand;
  const flat = inFirstOctants(ratio, bits);
  const acute = isSteep ? PI / 2n - flat : flat;
  return rounded(y.negative, x.negative ? PI - acute : acute, -bits, false, env);
};

/** Equal leading bits leave a ratio of up to 2. */
function inFirstOctants(ratio: bigint, bits: number): bigint {
  const one = 1n << BigInt(bits);
  return ratio <= one ? arctangent(ratio, bits) : PI / 2n - arctangent((one << BigInt(bits)) / ratio, bits);
}

/** The angle in quarters of π where an operand is zero or infinite. */
function specialAngle(y: Unpacked, x: Unpacked): number | undefined {
  if (y.kind === 'infinity') return x.kind !== 'infinity' ? 2 : x.negative ? 3 : 1;
  if (y.kind === 'zero' || x.kind === 'infinity') return x.negative ? 4 : 0;
  return x.kind === 'zero' ? 2 : undefined;
}

// Powers and logarithms

/** F2XM1: 2^x - 1. */
export function powerOfTwoLessOne(x: Unpacked, env: X87Environment): bigint {
  if (isNotNumber(x)) return propagateNaN(x, x, env);
  if (x.kind === 'infinity') return x.negative ? ONE | F80.signMask : x.bits;
  if (stopsOnDenormal(env, x)) return NO_RESULT;
  if (x.kind === 'zero') return x.bits;
  const leading = leadingExponent(x);
  if (leading >= 0) {
    env.flags |= PE;
    return x.bits === (ONE | F80.signMask) ? exactBits(true, -1, 1n) : x.bits;
  }
  const bits = workingBits(leading);
  const exponent = shift(x.significand * LN2, bits - FRACTION_BITS + x.exponent);
  return fixed(exponentialLessOne(x.negative ? -exponent : exponent, bits), bits, env);
}

/** A logarithm in fixed point; exact for powers of two. */
interface Logarithm {
  readonly value: bigint;
  readonly bits: number;
  readonly isExact: boolean;
}

/** Of significand × 2^exponent, not zero and of any length. */
function logarithm(significand: bigint, exponent: number): Logarithm {
  const length = significand.toString(2).length;
  const half = 1n << BigInt(length - 1);
  const whole = exponent + length - 1;
  if (significand === half) return { value: BigInt(whole), bits: 0, isExact: true };
  // From √½ to √2 around a power of two; 1.41 serves as well as √2.
  const isUpper = 100n * significand > 141n * half;
  const unit = isUpper ? 2n * half : half;
  const fraction = binaryLogarithm(significand - unit, significand + unit, FRACTION_BITS);
  const integer = BigInt(isUpper ? whole + 1 : whole) << BigInt(FRACTION_BITS);
  return { value: integer + fraction, bits: FRACTION_BITS, isExact: false };
}

/** y × a logarithm that is not zero. */
function times(y: Unpacked, { value, bits, isExact }: Logarithm, env: X87Environment): bigint {
  const negative = y.negative !== value < 0n;
  return rounded(negative, absolute(value) * y.significand, y.exponent - bits, isExact, env);
}

/** y × a logarithm of known sign (0 for a logarithm of zero), where y or the logarithm is zero or infinite. */
function specialProduct(y: Unpacked, sign: number, isInfinite: boolean, env: X87Environment): bigint | undefined {
  const negative = y.negative !== sign < 0;
  if (isInfinite) return y.kind === 'zero' ? invalid(env) : infinity(F80, negative);
  if (y.kind === 'infinity') return sign === 0 ? invalid(env) : infinity(F80, negative);
  return y.kind === 'zero' || sign === 0 ? zero(F80, negative) : undefined;
}

/** FYL2X: y × log₂ x. */
export const logarithmTimes: X87Binary = (y, x, env) => {
  if (isNotNumber(x) || isNotNumber(y)) return propagateNaN(x, y, env);
  if (x.negative && x.kind !== 'zero') return invalid(env);
  if (x.kind === 'zero' && y.kind !== 'zero' && y.kind !== 'infinity') {
    return zeroDivide(!y.negative, env);
  }
  if (stopsOnDenormal(env, x, y)) return NO_RESULT;
  const isInfinite = x.kind === 'infinity' || x.kind === 'zero';
  const sign = x.kind === 'infinity' ? 1 : x.bits === ONE ? 0 : x.kind !== 'zero' && leadingExponent(x) >= 0 ? 1 : -1;
  return specialProduct(y, sign, isInfinite, env) ?? times(y, logarithm(x.significand, x.exponent), env);
};

/** FYL2XP1: y × log₂(x + 1). */
export const logarithmOfSumTimes: X87Binary = (y, x, env) => {
  if (isNotNumber(x) || isNotNumber(y)) return propagateNaN(x, y, env);
  if (x.kind === 'infinity' && x.negative) return invalid(env);
  if (stopsOnDenormal(env, x, y)) return NO_RESULT;
  if (x.kind === 'zero') {
    return y.kind === 'infinity' ? invalid(env) : zero(F80, x.negative !== y.negative);
  }
  const special = specialProduct(y, x.negative ? -1 : 1, x.kind === 'infinity', env);
  if (special !== undefined) return special;
  if (!x.negative || leadingExponent(x) < 0) return times(y, logarithmOfSum(x), env);
  env.flags |= PE;
  return x.bits;
};

function logarithmOfSum(x: Unpacked): Logarithm {
  const signed = x.negative ? -x.significand : x.significand;
  const leading = leadingExponent(x);
  if (leading >= -2) {
    const unit = Math.min(0, x.exponent);
    return logarithm(shift(1n, -unit) + shift(signed, x.exponent - unit), unit);
  }
  const bits = workingBits(leading);
  // x / (2 + x), in units of the lowest bit of x.
  return { value: binaryLogarithm(signed, shift(2n, -x.exponent) + signed, bits), bits, isExact: false };
}

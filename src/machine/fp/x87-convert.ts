/**
 * Conversions between x87 registers and memory formats: single, double, integers, packed decimals.
 *
 * Source: APM vol.1 §6.3.2 Floating-Point Number Types, §6.3.1 Data Types (integer and packed BCD), §6.8.2 x87
 * Floating-Point Exception Causes; APM vol.5, FLD, FST, FIST, FISTTP, FBLD, FBSTP.
 *
 * Invariant: after an unmasked exception that the caller must heed (IE and, in memory, OE and UE) the value is meaningless.
 */
import { convertNaN, F80, type FloatFormat, infinity, isNaNKind, type Unpacked, zero } from './format.js';
import { IE, PE, type RoundingMode } from './rounding.js';
import { exactBits, invalid, propagateNaN, stopsOnDenormal, widen } from './x87.js';
import { roundTo, roundToMemory, type X87Environment } from './x87-rounding.js';

/** FLD of a single or double: an SNaN is invalid and becomes quiet, a denormal raises DE, masked or not. */
export function load(format: FloatFormat, bits: bigint, env: X87Environment): bigint {
  const x = widen(format, bits);
  if (isNaNKind(x)) return propagateNaN(x, x, env);
  stopsOnDenormal(env, x);
  return x.bits;
}

/** FST to a single or double. */
export function store(format: FloatFormat, x: Unpacked, env: X87Environment): bigint {
  switch (x.kind) {
    case 'unsupported':
      invalid(env);
      return format.indefinite;
    case 'snan':
    case 'qnan':
      if (x.kind === 'snan') env.flags |= IE;
      return convertNaN(F80, format, x);
    case 'infinity':
      return infinity(format, x.negative);
    case 'zero':
      return zero(format, x.negative);
    default:
      return roundToMemory(format, { ...x, sticky: false }, env);
  }
}

/** FIST: a two's complement pattern; the most negative integer when the value has none. */
export function toInteger(x: Unpacked, width: number, rounding: RoundingMode, env: X87Environment): bigint {
  const limit = 1n << BigInt(width - 1);
  const value = rounded(x, rounding, (whole) => whole >= -limit && whole < limit, env);
  return BigInt.asUintN(width, value ?? limit);
}

const DECIMAL_DIGITS = 18;
const DECIMAL_LIMIT = 10n ** BigInt(DECIMAL_DIGITS);
const DECIMAL_SIGN = 1n << 79n;
/** The packed-decimal indefinite value. */
const DECIMAL_INDEFINITE = 0xffffc000000000000000n;

/** FBSTP: 18 digits of four bits, lowest first, and the sign in bit 79. */
export function toDecimal(x: Unpacked, env: X87Environment): bigint {
  const value = rounded(x, env.rounding, (whole) => whole < DECIMAL_LIMIT && -whole < DECIMAL_LIMIT, env);
  if (value === undefined) return DECIMAL_INDEFINITE;
  let left = value < 0n ? -value : value;
  let digits = 0n;
  for (let place = 0n; place < DECIMAL_DIGITS; place++) {
    digits |= (left % 10n) << (4n * place);
    left /= 10n;
  }
  return x.negative ? digits | DECIMAL_SIGN : digits;
}

/** FBLD: always exact. Digits above nine count with their value. */
export function fromDecimal(pattern: bigint): bigint {
  let value = 0n;
  for (let place = DECIMAL_DIGITS - 1; place >= 0; place--) {
    value = value * 10n + ((pattern >> BigInt(4 * place)) & 15n);
  }
  return exactBits((pattern & DECIMAL_SIGN) !== 0n, 0, value);
}

/** The value as an integer, or undefined and IE when it is none that `fits`. */
function rounded(
  x: Unpacked,
  rounding: RoundingMode,
  fits: (value: bigint) => boolean,
  env: X87Environment,
): bigint | undefined {
  const isNumber = x.kind === 'zero' || x.kind === 'denormal' || x.kind === 'normal';
  // 2^64 and above fits nowhere, and need not be written out.
  if (isNumber && x.exponent <= 0) {
    const { significand, inexact, up } = roundTo({ ...x, sticky: false }, -x.exponent, rounding);
    const value = x.negative ? -significand : significand;
    if (fits(value)) {
      if (inexact) env.flags |= PE;
      env.roundedUp = up;
      return value;
    }
  }
  env.flags |= IE;
  return undefined;
}

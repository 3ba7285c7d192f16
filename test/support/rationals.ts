/**
 * Floating point by exact fractions: what a value is, and how it is rounded, with nothing shared with the sources but
 * the format's numbers. For tests of the arithmetic.
 */

export interface Rational {
  readonly numerator: bigint;
  /** Positive. */
  readonly denominator: bigint;
}

export const rational = (numerator: bigint, denominator = 1n): Rational =>
  denominator < 0n ? { numerator: -numerator, denominator: -denominator } : { numerator, denominator };

export const plus = (a: Rational, b: Rational): Rational =>
  rational(a.numerator * b.denominator + b.numerator * a.denominator, a.denominator * b.denominator);
export const minus = (a: Rational, b: Rational): Rational => plus(a, rational(-b.numerator, b.denominator));
export const times = (a: Rational, b: Rational): Rational =>
  rational(a.numerator * b.numerator, a.denominator * b.denominator);
export const over = (a: Rational, b: Rational): Rational =>
  rational(a.numerator * b.denominator, a.denominator * b.numerator);
export const compareRationals = (a: Rational, b: Rational): number => {
  const difference = a.numerator * b.denominator - b.numerator * a.denominator;
  return difference === 0n ? 0 : difference < 0n ? -1 : 1;
};
export const magnitude = (a: Rational): Rational => (a.numerator < 0n ? rational(-a.numerator, a.denominator) : a);

const power = (exponent: number): Rational =>
  exponent >= 0 ? rational(1n << BigInt(exponent)) : rational(1n, 1n << BigInt(-exponent));

/** Value of a finite double-extended pattern. */
export function valueOf80(bits: bigint): Rational {
  const field = Number((bits >> 64n) & 0x7fffn);
  const significand = bits & 0xffff_ffff_ffff_ffffn;
  const value = times(rational(significand), power(Math.max(field, 1) - 16383 - 63));
  return bits >> 79n === 1n ? rational(-value.numerator, value.denominator) : value;
}

/** 0 to nearest even, 1 down, 2 up, 3 towards zero. */
export type Direction = 0 | 1 | 2 | 3;

export interface RoundedValue {
  readonly bits: bigint;
  readonly inexact: boolean;
  /** The result has a larger magnitude than the value. */
  readonly up: boolean;
  readonly overflow: boolean;
  readonly tiny: boolean;
}

/** Rounds a value that is not zero to a double-extended pattern with `precision` significant bits, all masked. */
export function roundTo80(value: Rational, precision: number, direction: Direction): RoundedValue {
  const isNegative = value.numerator < 0n;
  const sign = isNegative ? 1n << 79n : 0n;
  const size = magnitude(value);
  const exponent = floorLog2(size);
  const unbounded = multiplesOf(size, exponent - precision + 1, isNegative, direction);
  const carried = unbounded.count === 1n << BigInt(precision);
  const top = carried ? exponent + 1 : exponent;
  if (top > 16383) {
    const outward = direction === 0 || direction === (isNegative ? 1 : 2);
    const largest = ((1n << BigInt(precision)) - 1n) << BigInt(64 - precision);
    const bits = outward ? 0x7fff_8000_0000_0000_0000n : (0x7ffen << 64n) | largest;
    return { bits: sign | bits, inexact: true, up: outward, overflow: true, tiny: false };
  }
  const tiny = top < -16382;
  const low = Math.max(exponent, -16382) - precision + 1;
  const { count, inexact, up } = multiplesOf(size, low, isNegative, direction);
  const significand = count << BigInt(64 - precision);
  const isCarried = significand >> 64n === 1n;
  const normal = isCarried ? significand >> 1n : significand;
  const field = normal >> 63n === 0n ? 0 : Math.max(exponent, -16382) + (isCarried ? 1 : 0) + 16383;
  return { bits: sign | (BigInt(field) << 64n) | normal, inexact, up, overflow: false, tiny };
}

/** How many times 2^exponent the value is, rounded. */
function multiplesOf(
  size: Rational,
  exponent: number,
  isNegative: boolean,
  direction: Direction,
): { readonly count: bigint; readonly inexact: boolean; readonly up: boolean } {
  const { numerator, denominator } = over(size, power(exponent));
  const count = numerator / denominator;
  const rest = numerator % denominator;
  const twice = 2n * rest;
  const nearest = twice > denominator || (twice === denominator && count % 2n === 1n);
  const away = direction === 0 ? nearest : direction === 1 ? isNegative : direction === 2 ? !isNegative : false;
  const up = rest !== 0n && away;
  return { count: up ? count + 1n : count, inexact: rest !== 0n, up };
}

function floorLog2({ numerator, denominator }: Rational): number {
  const guess = numerator.toString(2).length - denominator.toString(2).length;
  return compareRationals({ numerator, denominator }, power(guess)) < 0 ? guess - 1 : guess;
}

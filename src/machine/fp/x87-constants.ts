/**
 * π, ln 2 and what follows from them, as fixed-point numbers computed by series, and the constants that the x87 unit
 * loads. Source: APM vol.5, FLDPI, FLDL2E, FLDL2T, FLDLG2, FLDLN2: rounded by the rounding control.
 *
 * Invariant: each is below the true value by less than 2^-(FRACTION_BITS - 16).
 */
import { F80, zero } from './format.js';
import type { Exact, RoundingMode } from './rounding.js';
import { roundToRegister } from './x87-rounding.js';

/** Bits below the binary point. */
export const FRACTION_BITS = 512;
const ONE = 1n << BigInt(FRACTION_BITS);

/** The sum of ±(1/n)^(2k+1) / (2k+1): artanh(1/n) with equal signs, arctan(1/n) with alternating ones. */
function inverseSeries(n: bigint, alternating: boolean): bigint {
  let power = ONE / n;
  let sum = 0n;
  for (let odd = 1n; power !== 0n; odd += 2n) {
    const term = power / odd;
    sum += alternating && odd % 4n === 3n ? -term : term;
    power /= n * n;
  }
  return sum;
}

/** Machin's formula. */
export const PI = 4n * (4n * inverseSeries(5n, true) - inverseSeries(239n, true));
export const LN2 = 2n * inverseSeries(3n, false);
/** ln 10 = 3 ln 2 + ln 1.25. */
const LN10 = 3n * LN2 + 2n * inverseSeries(9n, false);

const quotient = (a: bigint, b: bigint): bigint => (a << BigInt(FRACTION_BITS)) / b;

const VALUES = {
  log2of10: quotient(LN10, LN2),
  log2ofE: quotient(ONE, LN2),
  pi: PI,
  log10of2: quotient(LN2, LN10),
  ln2: LN2,
} as const;

/** A register value. Loading a constant raises nothing, though it was rounded. */
export function constant(name: keyof typeof VALUES | 'one' | 'zero', rounding: RoundingMode): bigint {
  if (name === 'zero') return zero(F80, false);
  const exact: Exact =
    name === 'one'
      ? { negative: false, exponent: 0, significand: 1n, sticky: false }
      : { negative: false, exponent: -FRACTION_BITS, significand: VALUES[name], sticky: true };
  const env = { rounding, precision: 64, masks: 0x3f, flags: 0, daz: false, ftz: false, roundedUp: false };
  return roundToRegister(exact, F80.precision, env);
}

/**
 * Elementary functions in binary fixed point, by their series. All values are integers in units of 2^-bits; results are
 * off by a few dozen units at most, so callers choose `bits` far beyond what they round to.
 * Source: APM vol.1 §6.4.4 Transcendental Functions asks for results within one unit of the last place of 64 bits.
 */
import { FRACTION_BITS, LN2 } from './x87-constants.js';

/** Taylor's series. @param x from 0 to 1. */
export function sineAndCosine(x: bigint, bits: number): { readonly sine: bigint; readonly cosine: bigint } {
  const square = (x * x) >> BigInt(bits);
  const series = (first: bigint, from: bigint): bigint => {
    let term = first;
    let sum = first;
    for (let n = from; term !== 0n; n += 2n) {
      // Of one sign again after two steps.
      term = ((term * square) >> BigInt(bits)) / (n * (n + 1n));
      sum += n % 4n === from ? -term : term;
    }
    return sum;
  };
  return { sine: series(x, 2n), cosine: series(1n << BigInt(bits), 1n) };
}

/** Euler's series, which gains a bit with each term even at 1. @param x from 0 to 1. */
export function arctangent(x: bigint, bits: number): bigint {
  const one = 1n << BigInt(bits);
  const square = (x * x) >> BigInt(bits);
  const ratio = (square << BigInt(bits)) / (one + square);
  let term = (x << BigInt(bits)) / (one + square);
  let sum = 0n;
  for (let n = 1n; term !== 0n; n++) {
    sum += term;
    term = (((term * ratio) >> BigInt(bits)) * 2n * n) / (2n * n + 1n);
  }
  return sum;
}

/** e^x - 1 by Taylor's series. @param x from -1 to 1. */
export function exponentialLessOne(x: bigint, bits: number): bigint {
  let term = x;
  let sum = 0n;
  for (let n = 2n; term !== 0n; n++) {
    sum += term;
    term = (term * x) / n / (1n << BigInt(bits));
  }
  return sum;
}

/**
 * Binary logarithm of (1 + z) / (1 - z), that is 2 artanh(z) / ln 2, where z = numerator / denominator is at most 1/4 in
 * magnitude.
 */
export function binaryLogarithm(numerator: bigint, denominator: bigint, bits: number): bigint {
  const z = (numerator << BigInt(bits)) / denominator;
  const square = (z * z) >> BigInt(bits);
  let power = z;
  let sum = 0n;
  for (let odd = 1n; power !== 0n; odd += 2n) {
    sum += power / odd;
    power = (power * square) / (1n << BigInt(bits));
  }
  return ((2n * sum) << BigInt(FRACTION_BITS)) / LN2;
}

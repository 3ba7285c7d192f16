/**
 * Exact arithmetic on finite values, before any rounding: the part that all formats share.
 *
 * Source: IEEE 754-2008 §5.1 Overview: operations act as if they first produced a result of infinite precision.
 *
 * Invariants: results are the true value, or the true value cut to at least two bits more than `precision` with
 * `sticky` standing for the rest. A zero result has significand 0 and no meaningful sign: its sign is the caller's.
 */

import type { Exact } from './rounding.js';

/** What these operations need of an operand; any finite `Unpacked` is one. */
interface Finite {
  readonly negative: boolean;
  readonly exponent: number;
  readonly significand: bigint;
}

/** Bits of the widest significand, that of a product in double-extended precision, and the guard bits kept above a far smaller addend. */
const WIDEST_SIGNIFICAND = 128;
const GUARD_BITS = 4;

export function addExact(x: Finite, y: Finite): Exact {
  if (x.significand === 0n) return { ...y, sticky: false };
  if (y.significand === 0n) return { ...x, sticky: false };
  const [high, low] = x.exponent >= y.exponent ? [x, y] : [y, x];
  const gap = high.exponent - low.exponent;
  if (gap > WIDEST_SIGNIFICAND + GUARD_BITS) return addFar(high, high.negative === low.negative);

  const sum = (signed(high) << BigInt(gap)) + signed(low);
  const negative = sum < 0n;
  return { negative, exponent: low.exponent, significand: negative ? -sum : sum, sticky: false };
}

/**
 * Adds or subtracts something below the lowest guard bit. `high` has as many bits as what it is rounded to: only normal
 * values and products with one lie so far up, but for the addend of a product that is lost below all denormals.
 */
function addFar(high: Finite, sameSign: boolean): Exact {
  const guarded = high.significand << BigInt(GUARD_BITS);
  return {
    negative: high.negative,
    exponent: high.exponent - GUARD_BITS,
    significand: sameSign ? guarded : guarded - 1n,
    sticky: true,
  };
}

function signed(x: Finite): bigint {
  return x.negative ? -x.significand : x.significand;
}

export function multiplyExact(x: Finite, y: Finite): Exact {
  return {
    negative: x.negative !== y.negative,
    exponent: x.exponent + y.exponent,
    significand: x.significand * y.significand,
    sticky: false,
  };
}

/** Divides by a value that is not zero; significands are at most `precision` bits. */
export function divideExact(x: Finite, y: Finite, precision: number): Exact {
  const shift = 2 * precision + 2; // x ≥ 1 and y < 2^precision leave precision + 2 bits or more
  const dividend = x.significand << BigInt(shift);
  const quotient = dividend / y.significand;
  return {
    negative: x.negative !== y.negative,
    exponent: x.exponent - y.exponent - shift,
    significand: quotient,
    sticky: quotient * y.significand !== dividend,
  };
}

/** Square root of a positive value. */
export function squareRootExact(x: Finite, precision: number): Exact {
  const parity = x.exponent & 1;
  const shift = 2 * precision + 4 + parity; // an even exponent, and a root of precision + 2 bits or more
  const radicand = x.significand << BigInt(shift);
  const root = integerSquareRoot(radicand);
  return {
    negative: false,
    exponent: (x.exponent - shift) / 2,
    significand: root,
    sticky: root * root !== radicand,
  };
}

/** Floor of the square root of a positive integer below 2^1023, by Newton's iteration from above. */
export function integerSquareRoot(value: bigint): bigint {
  // The estimate only saves iterations: one step from anywhere above zero lands at or above the floor.
  const estimate = BigInt(Math.floor(Math.sqrt(Number(value))));
  let root = (estimate + value / estimate) >> 1n;
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/**
 * Shortcuts: addition, subtraction, multiplication and division through JavaScript numbers, for operands and rounding
 * where result and inexactness are provably those of `exact.ts` and `rounding.ts`.
 *
 * Source: ECMAScript prescribes IEEE double arithmetic, to nearest even. The error-free transformations are Knuth's
 * TwoSum and Dekker's product (Handbook of Floating-Point Arithmetic, 2nd ed., §4.3 and §4.4); single precision by way
 * of double needs 2p + 2 = 50 bits for double rounding to be harmless (Figueroa, When is double rounding innocuous?).
 *
 * Invariants: only for rounding to nearest, and only for normal operands so far from the ends of the exponent range
 * that result and error terms are normal (or an exact zero), so PE is the only flag there can be. Anything else,
 * zeros and NaNs included, gives `undefined`, and the caller computes it in the general way.
 */

import { type FloatEnvironment, NEAREST, PE } from './rounding.js';

type Shortcut = (a: bigint, b: bigint, env: FloatEnvironment) => bigint | undefined;

export interface Shortcuts {
  readonly add: Shortcut;
  readonly sub: Shortcut;
  readonly mul: Shortcut;
  readonly div: Shortcut;
}

/** Operands are within [1 / limit, limit]; 2^400 keeps the error of a double product normal. */
const DOUBLE_LIMIT = 2 ** 400;
const SINGLE_LIMIT = 2 ** 60;

export const doubleShortcuts: Shortcuts = shortcuts(DOUBLE_LIMIT, readDouble, writeDouble, {
  add: (x, y) => inexactSum(x, y, x + y),
  mul: (x, y) => inexactProduct(x, y, x * y),
  div: (x, y) => inexactQuotient(x, y, x / y),
});

// Single-precision operands have an exact double product, so the product alone tells whether a quotient was exact.
export const singleShortcuts: Shortcuts = shortcuts(SINGLE_LIMIT, readSingle, writeSingle, {
  add: (x, y) => Math.fround(x + y) !== x + y || inexactSum(x, y, x + y),
  mul: (x, y) => Math.fround(x * y) !== x * y,
  div: (x, y) => Math.fround(x / y) * y !== x,
});

type Inexact = (x: number, y: number) => boolean;

function shortcuts(
  limit: number,
  read: (bits: bigint) => number,
  write: (value: number) => bigint,
  inexact: { readonly add: Inexact; readonly mul: Inexact; readonly div: Inexact },
): Shortcuts {
  const usable = (x: number): boolean => {
    const magnitude = Math.abs(x);
    return magnitude >= 1 / limit && magnitude <= limit; // false for NaN
  };
  const shortcut =
    (compute: (x: number, y: number) => number, isInexact: Inexact): Shortcut =>
    (a, b, env) => {
      if (env.rounding !== NEAREST) return undefined;
      const x = read(a);
      const y = read(b);
      if (!usable(x) || !usable(y)) return undefined;
      if (isInexact(x, y)) env.flags |= PE;
      return write(compute(x, y));
    };
  return {
    add: shortcut((x, y) => x + y, inexact.add),
    sub: shortcut(
      (x, y) => x - y,
      (x, y) => inexact.add(x, -y),
    ),
    mul: shortcut((x, y) => x * y, inexact.mul),
    div: shortcut((x, y) => x / y, inexact.div),
  };
}

/** TwoSum: x + y = sum + error, and the error is a double. */
function inexactSum(x: number, y: number, sum: number): boolean {
  const fromY = sum - x;
  const fromX = sum - fromY;
  return x - fromX + (y - fromY) !== 0;
}

/** Dekker: x · y = product + error, from halves whose products are exact. */
function inexactProduct(x: number, y: number, product: number): boolean {
  const xHigh = upperHalf(x);
  const yHigh = upperHalf(y);
  const xLow = x - xHigh;
  const yLow = y - yHigh;
  return xHigh * yHigh - product + xHigh * yLow + xLow * yHigh + xLow * yLow !== 0;
}

/** A quotient is exact when it gives the dividend back, without error. */
function inexactQuotient(x: number, y: number, quotient: number): boolean {
  return quotient * y !== x || inexactProduct(quotient, y, x);
}

/** Veltkamp's splitting: the upper 26 bits. */
function upperHalf(x: number): number {
  const scaled = x * (2 ** 27 + 1);
  return scaled - (scaled - x);
}

const view = new DataView(new ArrayBuffer(8));

function readDouble(bits: bigint): number {
  view.setBigUint64(0, bits);
  return view.getFloat64(0);
}

function writeDouble(value: number): bigint {
  view.setFloat64(0, value);
  return view.getBigUint64(0);
}

function readSingle(bits: bigint): number {
  view.setUint32(0, Number(bits));
  return view.getFloat32(0);
}

/** Rounds to single precision as it stores. */
function writeSingle(value: number): bigint {
  view.setFloat32(0, value);
  return BigInt(view.getUint32(0));
}

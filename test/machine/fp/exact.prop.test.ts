/**
 * Exact kernels and rounding together against JavaScript's own double and single arithmetic (to nearest), and against
 * the definition of directed rounding in rational arithmetic.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addExact,
  divideExact,
  integerSquareRoot,
  multiplyExact,
  squareRootExact,
} from '../../../src/machine/fp/exact.js';
import { F32, F64, type FloatFormat, unpack } from '../../../src/machine/fp/format.js';
import {
  DOWN,
  type Exact,
  type FloatEnvironment,
  NEAREST,
  PE,
  roundPack,
  UP,
} from '../../../src/machine/fp/rounding.js';
import { finitePattern, fromNumber, toNumber } from '../../support/float-patterns.js';

const RUNS = { numRuns: 2000 };

type Operation = 'add' | 'mul' | 'div' | 'sqrt';

function compute(format: FloatFormat, operation: Operation, a: bigint, b: bigint): Exact {
  const x = unpack(format, a);
  const y = unpack(format, b);
  switch (operation) {
    case 'add':
      return addExact(x, y);
    case 'mul':
      return multiplyExact(x, y);
    case 'div':
      return divideExact(x, y, format.precision);
    case 'sqrt':
      return squareRootExact(x, format.precision);
  }
}

const NUMBERS: Record<Operation, (x: number, y: number) => number> = {
  add: (x, y) => x + y,
  mul: (x, y) => x * y,
  div: (x, y) => x / y,
  sqrt: (x) => Math.sqrt(x),
};

function environment(rounding: FloatEnvironment['rounding']): FloatEnvironment {
  return { rounding, daz: false, ftz: false, masks: 0x3f, flags: 0 };
}

/** Finite operands that are not zero, with a positive first one for square roots. */
function operands(format: FloatFormat, operation: Operation): fc.Arbitrary<[bigint, bigint]> {
  const nonZero = finitePattern(format).filter((bits) => (bits & ~format.signMask) !== 0n);
  const first = operation === 'sqrt' ? nonZero.map((bits) => bits & ~format.signMask) : nonZero;
  return fc.tuple(first, nonZero);
}

const CASES = ([F32, F64] as const).flatMap((format) =>
  (['add', 'mul', 'div', 'sqrt'] as const).map((operation) => ({
    name: `${operation} ${format.name}`,
    format,
    operation,
  })),
);

describe('exact arithmetic, rounded', () => {
  it.each(CASES)('to nearest equals the arithmetic of JavaScript: $name', ({ format, operation }) => {
    fc.assert(
      fc.property(operands(format, operation), ([a, b]) => {
        const exact = compute(format, operation, a, b);
        fc.pre(exact.significand !== 0n);
        const expected = fromNumber(format, NUMBERS[operation](toNumber(format, a), toNumber(format, b)));
        expect(roundPack(format, exact, environment(NEAREST))).toBe(expected);
      }),
      RUNS,
    );
  });

  it.each(CASES)('down and up enclose the true value as closely as possible: $name', ({ format, operation }) => {
    fc.assert(
      fc.property(operands(format, operation), ([a, b]) => {
        const exact = compute(format, operation, a, b);
        fc.pre(exact.significand !== 0n);
        const [down, up] = [environment(DOWN), environment(UP)];
        const below = roundPack(format, exact, down);
        const above = roundPack(format, exact, up);
        expect(down.flags & PE).toBe(up.flags & PE);
        const compare = comparer(format, operation, a, b);
        if ((down.flags & PE) === 0) {
          expect(above).toBe(below);
          expect(compare(below)).toBe(0);
        } else {
          expect(ordinal(format, above) - ordinal(format, below)).toBe(1n);
          if (unpack(format, below).kind !== 'infinity') expect(compare(below)).toBe(-1);
          if (unpack(format, above).kind !== 'infinity') expect(compare(above)).toBe(1);
        }
      }),
      RUNS,
    );
  });

  it('takes square roots of integers down to the floor', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: 2n ** 200n }), (value) => {
        const root = integerSquareRoot(value);
        expect(root * root <= value && (root + 1n) * (root + 1n) > value).toBe(true);
      }),
      RUNS,
    );
  });
});

/** Consecutive integers for consecutive values, −0 just below +0. */
function ordinal(format: FloatFormat, bits: bigint): bigint {
  return (bits & format.signMask) === 0n ? bits : format.signMask - bits - 1n;
}

/** Compares a finite result with the true value by cross-multiplication of integers scaled by a power of two. */
function comparer(format: FloatFormat, operation: Operation, a: bigint, b: bigint): (result: bigint) => number {
  const scale = format.bias + format.fractionBits;
  const scaled = (bits: bigint): bigint => {
    const { negative, exponent, significand } = unpack(format, bits);
    const magnitude = significand << BigInt(exponent + scale);
    return negative ? -magnitude : magnitude;
  };
  const unit = 1n << BigInt(scale);
  const x = scaled(a);
  const y = scaled(b);
  return (result) => {
    const r = scaled(result);
    switch (operation) {
      case 'add':
        return sign(r - (x + y));
      case 'mul':
        return sign(r * unit - x * y);
      case 'div':
        return y > 0n ? sign(r * y - x * unit) : sign(x * unit - r * y);
      case 'sqrt':
        return sign(r * r - x * unit);
    }
  };
}

function sign(value: bigint): number {
  if (value === 0n) return 0;
  return value < 0n ? -1 : 1;
}

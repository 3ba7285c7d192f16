/** SSE operations against JavaScript's arithmetic over all kinds of patterns, and against each other. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { F32, F64, type FloatFormat, isNaNKind, unpack } from '../../../src/machine/fp/format.js';
import { type FloatEnvironment, IE, NEAREST, type RoundingMode } from '../../../src/machine/fp/rounding.js';
import { double, doubleToSingle, type FloatArithmetic, single, singleToDouble } from '../../../src/machine/fp/sse.js';
import { anyPattern, fromNumber, toNumber } from '../../support/float-patterns.js';

const RUNS = { numRuns: 3000 };

function environment(rounding: RoundingMode = NEAREST): FloatEnvironment {
  return { rounding, daz: false, ftz: false, masks: 0x3f, flags: 0 };
}

function isNaNPattern(format: FloatFormat, bits: bigint): boolean {
  return isNaNKind(unpack(format, bits));
}

describe.each([single, double])('$format.name', (arithmetic: FloatArithmetic) => {
  const format = arithmetic.format;
  const pattern = anyPattern(format);

  it.each([
    ['add', (x: number, y: number) => x + y],
    ['sub', (x: number, y: number) => x - y],
    ['mul', (x: number, y: number) => x * y],
    ['div', (x: number, y: number) => x / y],
  ] as const)('%s to nearest equals the arithmetic of JavaScript, NaNs aside', (name, compute) => {
    fc.assert(
      fc.property(pattern, pattern, (a, b) => {
        const result = arithmetic[name](a, b, environment());
        const expected = compute(toNumber(format, a), toNumber(format, b));
        if (Number.isNaN(expected)) expect(isNaNPattern(format, result)).toBe(true);
        else expect(result).toBe(fromNumber(format, expected));
      }),
      RUNS,
    );
  });

  it('sqrt to nearest equals the square root of JavaScript, NaNs aside', () => {
    fc.assert(
      fc.property(pattern, (a) => {
        const result = arithmetic.sqrt(a, environment());
        const expected = Math.sqrt(toNumber(format, a));
        if (Number.isNaN(expected)) expect(isNaNPattern(format, result)).toBe(true);
        else expect(result).toBe(fromNumber(format, expected));
      }),
      RUNS,
    );
  });

  it('comparisons agree with those of JavaScript', () => {
    fc.assert(
      fc.property(pattern, fc.oneof(pattern, fc.constant(undefined)), (a, other) => {
        const b = other ?? a;
        const [x, y] = [toNumber(format, a), toNumber(format, b)];
        const relation = arithmetic.ucomi(a, b, environment());
        expect(relation === 'less').toBe(x < y);
        expect(relation === 'equal').toBe(x === y);
        expect(relation === 'greater').toBe(x > y);
        expect(arithmetic.comi(a, b, environment())).toBe(relation);
      }),
      RUNS,
    );
  });

  it('subtraction is addition of the negated operand, NaNs aside, in every rounding mode', () => {
    const numeric = pattern.filter((bits) => !isNaNPattern(format, bits));
    fc.assert(
      fc.property(numeric, numeric, fc.constantFrom<RoundingMode>(0, 1, 2, 3), (a, b, rounding) => {
        const [sub, add] = [environment(rounding), environment(rounding)];
        expect(arithmetic.sub(a, b, sub)).toBe(arithmetic.add(a, b ^ format.signMask, add));
        expect(sub.flags).toBe(add.flags);
      }),
      RUNS,
    );
  });

  it('every result is a pattern of the format, and IE comes with the first NaN or the indefinite value', () => {
    const names = fc.constantFrom('add' as const, 'sub' as const, 'mul' as const, 'div' as const);
    fc.assert(
      fc.property(names, pattern, pattern, fc.constantFrom<RoundingMode>(0, 1, 2, 3), (name, a, b, rounding) => {
        const env = environment(rounding);
        const result = arithmetic[name](a, b, env);
        expect(BigInt.asUintN(format.width, result)).toBe(result);
        const nan = [a, b].find((bits) => isNaNPattern(format, bits));
        if (nan !== undefined) expect(result).toBe(nan | format.quietMask);
        else if ((env.flags & IE) !== 0) expect(result).toBe(format.indefinite);
      }),
      RUNS,
    );
  });

  it('integers survive the way to floating point and back when they fit the precision', () => {
    const limit = 2n ** BigInt(format.precision);
    fc.assert(
      fc.property(fc.bigInt(-limit, limit), (value) => {
        const integer = BigInt.asUintN(64, value);
        const env = environment();
        expect(arithmetic.toInt(arithmetic.fromInt(integer, 64, env), 64, env)).toBe(integer);
        expect(env.flags).toBe(0);
      }),
      RUNS,
    );
  });
});

describe('conversions', () => {
  it('double to single equals Math.fround, NaNs aside', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          anyPattern(F64),
          anyPattern(F32).map((bits) => fromNumber(F64, toNumber(F32, bits))),
        ),
        (a) => {
          fc.pre(!isNaNPattern(F64, a));
          expect(doubleToSingle(a, environment())).toBe(fromNumber(F32, Math.fround(toNumber(F64, a))));
        },
      ),
      RUNS,
    );
  });

  it('single to double and back is the identity, SNaNs aside', () => {
    fc.assert(
      fc.property(anyPattern(F32), (a) => {
        fc.pre(unpack(F32, a).kind !== 'snan');
        expect(doubleToSingle(singleToDouble(a, environment()), environment())).toBe(a);
      }),
      RUNS,
    );
  });

  it('double from a 64-bit integer equals Number(), and truncation equals Math.trunc', () => {
    fc.assert(
      fc.property(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), (value) => {
        const bits = double.fromInt(BigInt.asUintN(64, value), 64, environment());
        expect(bits).toBe(fromNumber(F64, Number(value)));
      }),
      RUNS,
    );
    fc.assert(
      fc.property(anyPattern(F64), (a) => {
        const truncated = Math.trunc(toNumber(F64, a));
        fc.pre(truncated >= -(2 ** 63) && truncated < 2 ** 63);
        expect(BigInt.asIntN(64, double.toIntTruncated(a, 64, environment()))).toBe(BigInt(truncated));
      }),
      RUNS,
    );
  });
});

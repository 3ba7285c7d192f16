/** x87 arithmetic against exact fractions, in all rounding modes and precisions. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { F64, F80 } from '../../../src/machine/fp/format.js';
import { OE, PE, UE } from '../../../src/machine/fp/rounding.js';
import {
  add,
  compare,
  divide,
  extract,
  multiply,
  registerOperand,
  remainder,
  roundToIntegral,
  scale,
  squareRoot,
  subtract,
} from '../../../src/machine/fp/x87.js';
import { fromDecimal, load, store, toDecimal, toInteger } from '../../../src/machine/fp/x87-convert.js';
import { type X87Environment, x87Environment } from '../../../src/machine/fp/x87-rounding.js';
import { anyPattern, fromNumber, toNumber } from '../../support/float-patterns.js';
import {
  compareRationals,
  type Direction,
  magnitude,
  minus,
  over,
  plus,
  type Rational,
  rational,
  roundTo80,
  times,
  valueOf80,
} from '../../support/rationals.js';

const RUNS = { numRuns: 2000 };

const isFinitePattern = (bits: bigint): boolean => {
  const { kind } = registerOperand(bits);
  return kind === 'normal' || kind === 'denormal' || kind === 'zero';
};
const isNotZero = (bits: bigint): boolean => registerOperand(bits).kind !== 'zero';
const edges = anyPattern(F80);
/** Many values of like exponents, so that sums cancel and quotients are short. */
const finite = fc
  .oneof(
    edges,
    fc
      .tuple(fc.bigInt(-70n, 70n), fc.bigInt(0n, (1n << 63n) - 1n), fc.nat(63), fc.boolean())
      .map(([exponent, fraction, zeros, negative]) => {
        const significand = ((1n << 63n) | fraction) >> BigInt(zeros);
        return (
          (negative ? F80.signMask : 0n) | ((16383n + exponent) << 64n) | (1n << 63n) | (significand << BigInt(zeros))
        );
      }),
  )
  .filter(isFinitePattern);
const direction = fc.constantFrom<Direction>(0, 1, 2, 3);
const precision = fc.constantFrom(24, 53, 64);

/** The next positive normal pattern up or down: one step but for the integer bit. */
function neighbour(bits: bigint, by: bigint): bigint {
  const fraction = (1n << 63n) - 1n;
  const packed = (((bits >> 64n) << 63n) | (bits & fraction)) + by;
  return ((packed >> 63n) << 64n) | (1n << 63n) | (packed & fraction);
}

function environment(rounding: Direction, significantBits = 64): X87Environment {
  const precisionControl = { 24: 0, 53: 2, 64: 3 }[significantBits] as number;
  return x87Environment(0x3f | (rounding << 10) | (precisionControl << 8));
}

/** The result, its flags and C1 must be those of the exact value. */
function expectRounded(value: Rational, bits: bigint, env: X87Environment, significantBits: number): void {
  if (value.numerator === 0n) {
    expect(bits & ~F80.signMask).toBe(0n);
    expect(env.flags & (OE | UE | PE)).toBe(0);
    return;
  }
  const expected = roundTo80(value, significantBits, env.rounding);
  expect(bits).toBe(expected.bits);
  const flags =
    (expected.overflow ? OE : 0) | (expected.inexact ? PE : 0) | (expected.tiny && expected.inexact ? UE : 0);
  expect(env.flags & (OE | UE | PE)).toBe(flags);
  expect(env.roundedUp).toBe(expected.up);
}

describe('x87 arithmetic (APM vol.1 §6.4.3 Arithmetic)', () => {
  it.each([
    ['add', add, plus],
    ['subtract', subtract, minus],
    ['multiply', multiply, times],
  ] as const)('%s is the exact result, rounded', (_name, operation, exact) => {
    fc.assert(
      fc.property(finite, finite, direction, precision, (a, b, rounding, bits) => {
        const env = environment(rounding, bits);
        const result = operation(registerOperand(a), registerOperand(b), env);
        expectRounded(exact(valueOf80(a), valueOf80(b)), result, env, bits);
      }),
      RUNS,
    );
  });

  it('divide is the exact quotient, rounded', () => {
    fc.assert(
      fc.property(finite, finite.filter(isNotZero), direction, precision, (a, b, rounding, bits) => {
        const env = environment(rounding, bits);
        const result = divide(registerOperand(a), registerOperand(b), env);
        expectRounded(over(valueOf80(a), valueOf80(b)), result, env, bits);
      }),
      RUNS,
    );
  });

  it('squareRoot encloses the operand between the squares of neighbours', () => {
    fc.assert(
      fc.property(finite.filter(isNotZero), direction, (pattern, rounding) => {
        const a = pattern & ~F80.signMask;
        const env = environment(rounding);
        const root = squareRoot(registerOperand(a), env);
        const square = (bits: bigint): Rational => times(valueOf80(bits), valueOf80(bits));
        const order = compareRationals(square(root), valueOf80(a));
        expect((env.flags & PE) !== 0).toBe(order !== 0);
        expect(env.roundedUp).toBe(order > 0);
        const step = (by: bigint): bigint => neighbour(root, by);
        if (order > 0) expect(compareRationals(square(step(-1n)), valueOf80(a))).toBe(-1);
        if (order < 0) expect(compareRationals(square(step(1n)), valueOf80(a))).toBe(1);
        if (rounding === 0 && order !== 0) {
          const other = step(order > 0 ? -1n : 1n);
          const middle = times(plus(valueOf80(root), valueOf80(other)), rational(1n, 2n));
          expect(compareRationals(times(middle, middle), valueOf80(a))).toBe(order > 0 ? -1 : 1);
        }
      }),
      RUNS,
    );
  });

  it('compare orders as the exact values do', () => {
    fc.assert(
      fc.property(finite, fc.oneof(finite, fc.constant(undefined)), (a, other) => {
        const b = other ?? a;
        const relation = compare(registerOperand(a), registerOperand(b), true, environment(0));
        expect(relation).toBe(['less', 'equal', 'greater'][compareRationals(valueOf80(a), valueOf80(b)) + 1]);
      }),
      RUNS,
    );
  });

  it('roundToIntegral gives an integer less than one away', () => {
    fc.assert(
      fc.property(finite, direction, (a, rounding) => {
        const env = environment(rounding);
        const whole = valueOf80(roundToIntegral(registerOperand(a), env));
        expect(whole.numerator % whole.denominator).toBe(0n);
        const error = minus(whole, valueOf80(a));
        const distance = magnitude(error);
        const most = rounding === 0 ? rational(1n, 2n) : rational(1n);
        expect(compareRationals(distance, most)).toBeLessThanOrEqual(rounding === 0 ? 0 : -1);
        if (rounding === 1) expect(error.numerator <= 0n).toBe(true);
        if (rounding === 2) expect(error.numerator >= 0n).toBe(true);
        expect((env.flags & PE) !== 0).toBe(error.numerator !== 0n);
      }),
      RUNS,
    );
  });

  it('scale multiplies by a power of two; extract takes it off again (APM vol.5, FSCALE, FXTRACT)', () => {
    fc.assert(
      fc.property(
        finite.filter(isNotZero),
        fc.integer({ min: -40_000, max: 40_000 }),
        direction,
        (a, steps, rounding) => {
          const env = environment(rounding);
          const by = load(F64, fromNumber(F64, steps), environment(0));
          const power = steps < 0 ? rational(1n, 1n << BigInt(-steps)) : rational(1n << BigInt(steps));
          expectRounded(times(valueOf80(a), power), scale(registerOperand(a), registerOperand(by), env), env, 64);

          const { exponent, significand } = extract(registerOperand(a), environment(0));
          expect(compareRationals(magnitude(valueOf80(significand)), rational(1n))).toBeGreaterThanOrEqual(0);
          expect(compareRationals(magnitude(valueOf80(significand)), rational(2n))).toBe(-1);
          const again = scale(registerOperand(significand), registerOperand(exponent), environment(0));
          expect(compareRationals(valueOf80(again), valueOf80(a))).toBe(0);
        },
      ),
      RUNS,
    );
  });

  it.each([false, true])(
    'remainder leaves the dividend less a whole multiple, nearest %s (APM vol.5, FPREM, FPREM1)',
    (nearest) => {
      fc.assert(
        fc.property(finite, finite.filter(isNotZero), (a, b) => {
          const { bits, quotient } = remainder(registerOperand(a), registerOperand(b), nearest, environment(0));
          const rest = valueOf80(bits);
          const multiple = over(minus(valueOf80(a), rest), valueOf80(b));
          expect(multiple.numerator % multiple.denominator).toBe(0n);
          if (quotient === 'partial') {
            expect(compareRationals(magnitude(rest), magnitude(valueOf80(a)))).toBeLessThanOrEqual(0);
            return;
          }
          const whole = magnitude(multiple);
          expect(quotient).toBe(Number((whole.numerator / whole.denominator) & 7n));
          const limit = magnitude(nearest ? over(valueOf80(b), rational(2n)) : valueOf80(b));
          expect(compareRationals(magnitude(rest), limit)).toBeLessThanOrEqual(nearest ? 0 : -1);
          if (!nearest && rest.numerator !== 0n) expect(rest.numerator < 0n).toBe(valueOf80(a).numerator < 0n);
        }),
        RUNS,
      );
    },
  );
});

describe('x87 conversions (APM vol.1 §6.4.1 Data Transfer and Conversion)', () => {
  it('a double that is loaded and stored is the same double', () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true }), direction, (value, rounding) => {
        const env = environment(rounding);
        const loaded = load(F64, fromNumber(F64, value), env);
        expect(toNumber(F64, store(F64, registerOperand(loaded), env))).toBe(value);
        expect(env.flags & (PE | OE | UE)).toBe(0);
      }),
      RUNS,
    );
  });

  it('toInteger rounds as roundToIntegral does, or is the integer indefinite', () => {
    fc.assert(
      fc.property(finite, fc.constantFrom(16, 32, 64), direction, (a, width, rounding) => {
        const whole = valueOf80(roundToIntegral(registerOperand(a), environment(rounding)));
        const value = whole.numerator / whole.denominator;
        const fits = BigInt.asIntN(width, value) === value;
        const stored = toInteger(registerOperand(a), width, rounding, environment(rounding));
        expect(stored).toBe(fits ? BigInt.asUintN(width, value) : 1n << BigInt(width - 1));
      }),
      RUNS,
    );
  });

  it('eighteen digits survive FBLD and FBSTP', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 10n ** 18n - 1n), fc.boolean(), (value, negative) => {
        const digits = BigInt(`0x${value.toString()}`) | (negative ? F80.signMask : 0n);
        expect(toDecimal(registerOperand(fromDecimal(digits)), environment(0))).toBe(digits);
      }),
      RUNS,
    );
  });
});

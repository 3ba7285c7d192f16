/** One-element SSE operations: tables of the cases that the manual prescribes, flags included. */
import { describe, expect, it } from 'vitest';
import { F32, F64 } from '../../../src/machine/fp/format.js';
import {
  DE,
  DOWN,
  type FloatEnvironment,
  IE,
  NEAREST,
  OE,
  PE,
  TRUNCATE,
  UE,
  UP,
  ZE,
} from '../../../src/machine/fp/rounding.js';
import {
  type ComparePredicate,
  double,
  doubleToSingle,
  type FloatArithmetic,
  forElements,
  single,
  singleToDouble,
} from '../../../src/machine/fp/sse.js';
import { fromNumber } from '../../support/float-patterns.js';

const ALL_MASKED = 0x3f;
const ZERO = 0x0000_0000n;
const MINUS_ZERO = 0x8000_0000n;
const DENORMAL = 0x0000_0001n;
const INFINITY = 0x7f80_0000n;
const MINUS_INFINITY = 0xff80_0000n;
const LARGEST = 0x7f7f_ffffn;
const QNAN = 0x7fc0_0001n;
const OTHER_QNAN = 0xffc0_0002n;
const SNAN = 0x7f80_0003n;
const QUIETED_SNAN = 0x7fc0_0003n;
const INDEFINITE = 0xffc0_0000n;
const ONE = f32(1);

function f32(value: number): bigint {
  return fromNumber(F32, value);
}

function f64(value: number): bigint {
  return fromNumber(F64, value);
}

function environment(changes: Partial<FloatEnvironment> = {}): FloatEnvironment {
  return { rounding: NEAREST, daz: false, ftz: false, masks: ALL_MASKED, flags: 0, ...changes };
}

type BinaryName = 'add' | 'sub' | 'mul' | 'div' | 'min' | 'max';

function run(name: BinaryName, a: bigint, b: bigint, changes: Partial<FloatEnvironment> = {}): [bigint, number] {
  const env = environment(changes);
  return [single[name](a, b, env), env.flags];
}

describe('NaN operands (APM vol.1 Table 4-5, NaN Results)', () => {
  describe.each(['add', 'sub', 'mul', 'div'] as const)('of %s', (name) => {
    it.each([
      ['QNaN and number', QNAN, ONE, QNAN, 0],
      ['number and QNaN', ONE, QNAN, QNAN, 0],
      ['SNaN and number', SNAN, ONE, QUIETED_SNAN, IE],
      ['number and SNaN', ONE, SNAN, QUIETED_SNAN, IE],
      ['two QNaNs', OTHER_QNAN, QNAN, OTHER_QNAN, 0],
      ['QNaN and SNaN', QNAN, SNAN, QNAN, IE],
      ['SNaN and QNaN', SNAN, QNAN, QUIETED_SNAN, IE],
      ['QNaN and denormal: no DE', QNAN, DENORMAL, QNAN, 0],
      ['QNaN and zero: no ZE', QNAN, ZERO, QNAN, 0],
    ])('%s', (_, a, b, bits, flags) => {
      expect(run(name, a, b)).toEqual([bits, flags]);
    });
  });

  it('of sqrt', () => {
    const env = environment();
    expect(single.sqrt(OTHER_QNAN, env)).toBe(OTHER_QNAN);
    expect(env.flags).toBe(0);
    expect(single.sqrt(SNAN, env)).toBe(QUIETED_SNAN);
    expect(env.flags).toBe(IE);
  });
});

describe('arithmetic special cases (APM vol.1 §4.10.2 SIMD Floating-Point Exception Causes)', () => {
  it.each<[BinaryName, string, bigint, bigint, bigint, number]>([
    ['add', 'infinities of opposite sign', INFINITY, MINUS_INFINITY, INDEFINITE, IE],
    ['add', 'infinities of one sign', MINUS_INFINITY, MINUS_INFINITY, MINUS_INFINITY, 0],
    ['sub', 'infinities of one sign', INFINITY, INFINITY, INDEFINITE, IE],
    ['sub', 'number and infinity', ONE, INFINITY, MINUS_INFINITY, 0],
    ['add', 'infinity and denormal', INFINITY, DENORMAL, INFINITY, DE],
    ['add', 'zeros of opposite sign', MINUS_ZERO, ZERO, ZERO, 0],
    ['add', 'negative zeros', MINUS_ZERO, MINUS_ZERO, MINUS_ZERO, 0],
    ['sub', 'equal numbers', ONE, ONE, ZERO, 0],
    ['mul', 'infinity and zero', INFINITY, MINUS_ZERO, INDEFINITE, IE],
    ['mul', 'infinity and negative number', INFINITY, f32(-2), MINUS_INFINITY, 0],
    ['mul', 'zero and denormal', MINUS_ZERO, DENORMAL, MINUS_ZERO, DE],
    ['div', 'zeros', ZERO, MINUS_ZERO, INDEFINITE, IE],
    ['div', 'infinities', INFINITY, INFINITY, INDEFINITE, IE],
    ['div', 'number by zero', f32(-1), ZERO, MINUS_INFINITY, ZE],
    ['div', 'infinity by zero', INFINITY, MINUS_ZERO, MINUS_INFINITY, 0],
    ['div', 'denormal by zero: ZE alone', DENORMAL, ZERO, INFINITY, ZE],
    ['div', 'number by infinity', f32(-1), INFINITY, MINUS_ZERO, 0],
    ['mul', 'overflow', LARGEST, LARGEST, INFINITY, OE | PE],
    ['mul', 'underflow', 0x0080_0001n, f32(0.5), 0x0040_0000n, UE | PE],
    ['mul', 'exact denormal result: no UE', 0x0080_0000n, f32(0.5), 0x0040_0000n, 0],
    ['div', 'inexact', ONE, f32(3), 0x3eaa_aaabn, PE],
    ['add', 'a number and a far smaller one', ONE, f32(1e-30), ONE, PE],
  ])('%s: %s', (name, _, a, b, bits, flags) => {
    expect(run(name, a, b)).toEqual([bits, flags]);
  });

  it('gives −0 for an exact zero sum when rounding down', () => {
    expect(run('sub', ONE, ONE, { rounding: DOWN })).toEqual([MINUS_ZERO, 0]);
    expect(run('add', ZERO, ZERO, { rounding: DOWN })).toEqual([ZERO, 0]);
    expect(run('sub', ONE, ONE, { rounding: UP })).toEqual([ZERO, 0]);
  });

  it.each([
    ['−0', MINUS_ZERO, MINUS_ZERO, 0],
    ['a negative number', f32(-1), INDEFINITE, IE],
    ['a negative denormal: IE alone', 0x8000_0001n, INDEFINITE, IE],
    ['−infinity', MINUS_INFINITY, INDEFINITE, IE],
    ['+infinity', INFINITY, INFINITY, 0],
    ['a square', f32(6.25), f32(2.5), 0],
    ['two', f32(2), 0x3fb5_04f3n, PE],
    ['a denormal', 0x0000_0002n, f32(2 ** -74), DE],
  ])('sqrt of %s', (_, a, bits, flags) => {
    const env = environment();
    expect(single.sqrt(a, env)).toBe(bits);
    expect(env.flags).toBe(flags);
  });
});

describe('MXCSR control bits (APM vol.1 §4.2.2 MXCSR Register)', () => {
  it('DAZ takes denormal operands as zeros of their sign, without DE', () => {
    expect(run('add', DENORMAL, DENORMAL, { daz: true })).toEqual([ZERO, 0]);
    expect(run('mul', 0x8000_0001n, ONE, { daz: true })).toEqual([MINUS_ZERO, 0]);
    expect(run('div', ONE, DENORMAL, { daz: true })).toEqual([INFINITY, ZE]);
    expect(run('min', DENORMAL, 0x8000_0001n, { daz: true })).toEqual([MINUS_ZERO, 0]);
  });

  it('FZ flushes even an exact denormal result, with UE and PE', () => {
    expect(run('mul', 0x8080_0000n, f32(0.5), { ftz: true })).toEqual([MINUS_ZERO, UE | PE]);
    expect(run('add', DENORMAL, DENORMAL, { ftz: true })).toEqual([ZERO, DE | UE | PE]);
  });

  it.each([
    [NEAREST, 0x3eaa_aaabn],
    [DOWN, 0x3eaa_aaaan],
    [UP, 0x3eaa_aaabn],
    [TRUNCATE, 0x3eaa_aaaan],
  ] as const)('RC %i rounds 1/3', (rounding, bits) => {
    expect(run('div', ONE, f32(3), { rounding })).toEqual([bits, PE]);
  });
});

describe('exception priority (APM vol.1 §4.10.3 SIMD Floating-Point Exception Priority)', () => {
  it('an unmasked DE keeps the result and its flags from being computed', () => {
    const [, masked] = run('mul', 0x007f_ffffn, f32(0.3));
    const [, unmasked] = run('mul', 0x007f_ffffn, f32(0.3), { masks: ALL_MASKED & ~DE });
    expect(masked).toBe(DE | UE | PE);
    expect(unmasked).toBe(DE);
  });

  it('an unmasked UE is raised by a tiny result that is exact', () => {
    const [, flags] = run('mul', 0x0080_0000n, f32(0.5), { masks: ALL_MASKED & ~UE });
    expect(flags).toBe(UE);
  });

  it('flags accumulate', () => {
    expect(run('div', ONE, ZERO, { flags: PE | IE })[1]).toBe(PE | IE | ZE);
  });

  it('an unmasked pre-computation exception of one element silences the results of all', () => {
    const divide = (masks: number): number => {
      const env = environment({ masks, flags: UE });
      forElements(2, env, (index, own) => single.div(ONE, index === 0 ? f32(3) : ZERO, own));
      return env.flags;
    };
    expect(divide(ALL_MASKED)).toBe(UE | PE | ZE);
    expect(divide(ALL_MASKED & ~ZE)).toBe(UE | ZE);
    expect(divide(ALL_MASKED & ~PE)).toBe(UE | PE | ZE);
  });

  it('forElements returns one result for each element', () => {
    expect(forElements(2, environment(), (index, env) => double.fromInt(BigInt(index), 64, env))).toEqual([0n, f64(1)]);
  });
});

describe('MINxx and MAXxx (APM vol.4, MINPS, MAXPS)', () => {
  it.each<[BinaryName, string, bigint, bigint, bigint, number]>([
    ['min', 'smaller first', f32(-2), ONE, f32(-2), 0],
    ['min', 'smaller second', ONE, f32(-2), f32(-2), 0],
    ['max', 'both negative', f32(-3), f32(-2), f32(-2), 0],
    ['min', 'zeros: second', ZERO, MINUS_ZERO, MINUS_ZERO, 0],
    ['max', 'zeros: second', ZERO, MINUS_ZERO, MINUS_ZERO, 0],
    ['min', 'QNaN first: second', QNAN, ONE, ONE, IE],
    ['max', 'QNaN second: second', ONE, QNAN, QNAN, IE],
    ['max', 'SNaN second: second, not quieted', ONE, SNAN, SNAN, IE],
    ['min', 'NaN and denormal: no DE', QNAN, DENORMAL, DENORMAL, IE],
    ['min', 'denormal', DENORMAL, ONE, DENORMAL, DE],
  ])('%s: %s', (name, _, a, b, bits, flags) => {
    expect(run(name, a, b)).toEqual([bits, flags]);
  });
});

describe('comparisons (APM vol.4, CMPPS, COMISS, UCOMISS)', () => {
  const ONES = 0xffff_ffffn;
  //                      less   equal  greater unordered
  it.each<[ComparePredicate, boolean, boolean, boolean, boolean, boolean]>([
    [0, false, true, false, false, false],
    [1, true, false, false, false, true],
    [2, true, true, false, false, true],
    [3, false, false, false, true, false],
    [4, true, false, true, true, false],
    [5, false, true, true, true, true],
    [6, false, false, true, true, true],
    [7, true, true, true, false, false],
  ])('predicate %i', (predicate, less, equal, greater, unordered, signalsQNaN) => {
    const holds = (a: bigint, b: bigint): boolean => {
      const mask = single.compare(predicate, a, b, environment());
      expect([0n, ONES]).toContain(mask);
      return mask === ONES;
    };
    expect(holds(f32(-1), ONE)).toBe(less);
    expect(holds(ZERO, MINUS_ZERO)).toBe(equal);
    expect(holds(INFINITY, LARGEST)).toBe(greater);
    expect(holds(QNAN, ONE)).toBe(unordered);
    const quietly = environment();
    single.compare(predicate, ONE, QNAN, quietly);
    expect(quietly.flags).toBe(signalsQNaN ? IE : 0);
    const loudly = environment();
    single.compare(predicate, SNAN, DENORMAL, loudly);
    expect(loudly.flags).toBe(IE);
  });

  it.each([
    ['less', f64(-2), f64(-1)],
    ['equal', f64(0), f64(-0)],
    ['greater', f64(Number.MIN_VALUE), f64(0)],
    ['unordered', f64(Number.NaN), f64(0)],
  ])('COMISD and UCOMISD say %s', (relation, a, b) => {
    expect(double.comi(a, b, environment())).toBe(relation);
    expect(double.ucomi(a, b, environment())).toBe(relation);
  });

  it('only COMISS raises IE for a QNaN; both raise DE for a denormal', () => {
    const [comi, ucomi, denormal] = [environment(), environment(), environment()];
    single.comi(QNAN, ONE, comi);
    single.ucomi(QNAN, ONE, ucomi);
    single.ucomi(DENORMAL, ONE, denormal);
    expect([comi.flags, ucomi.flags, denormal.flags]).toEqual([IE, 0, DE]);
  });
});

describe('conversions to integers (APM vol.4, CVTSD2SI, CVTTSD2SI)', () => {
  const INDEFINITE_32 = 0x8000_0000n;
  const INDEFINITE_64 = 0x8000_0000_0000_0000n;
  it.each<[number, 0 | 1 | 2 | 3, bigint, number]>([
    [2.5, NEAREST, 2n, PE],
    [3.5, NEAREST, 4n, PE],
    [-2.5, DOWN, 0xffff_fffdn, PE],
    [-2.5, UP, 0xffff_fffen, PE],
    [-0.5, TRUNCATE, 0n, PE],
    [-7, NEAREST, 0xffff_fff9n, 0],
    [2147483647, NEAREST, 0x7fff_ffffn, 0],
    [2147483647.5, NEAREST, INDEFINITE_32, IE],
    [2147483647.5, DOWN, 0x7fff_ffffn, PE],
    [-2147483648, NEAREST, INDEFINITE_32, 0],
    [-2147483648.5, NEAREST, INDEFINITE_32, PE],
    [-2147483649, NEAREST, INDEFINITE_32, IE],
    [1e300, NEAREST, INDEFINITE_32, IE],
    [Number.NEGATIVE_INFINITY, NEAREST, INDEFINITE_32, IE],
    [Number.NaN, NEAREST, INDEFINITE_32, IE],
    [Number.MIN_VALUE, UP, 1n, PE], // no DE
  ])('%d with RC %i', (value, rounding, pattern, flags) => {
    const env = environment({ rounding });
    expect(double.toInt(f64(value), 32, env)).toBe(pattern);
    expect(env.flags).toBe(flags);
  });

  it.each([
    [-2.9, 64, 0xffff_ffff_ffff_fffen, PE],
    [2.9, 32, 2n, PE],
    [2 ** 63, 64, INDEFINITE_64, IE],
    [-(2 ** 63), 64, INDEFINITE_64, 0],
    [2 ** 62, 64, 0x4000_0000_0000_0000n, 0],
  ] as const)('%d truncated to %i bits whatever RC is', (value, width, pattern, flags) => {
    const env = environment({ rounding: UP });
    expect(double.toIntTruncated(f64(value), width, env)).toBe(pattern);
    expect(env.flags).toBe(flags);
  });

  it('DAZ makes a denormal convert exactly', () => {
    const env = environment({ daz: true, rounding: UP });
    expect(single.toInt(DENORMAL, 32, env)).toBe(0n);
    expect(env.flags).toBe(0);
  });
});

describe('conversions from integers (APM vol.4, CVTSI2SS, CVTSI2SD)', () => {
  it.each<[FloatArithmetic, bigint, 32 | 64, bigint, number]>([
    [single, 0n, 32, ZERO, 0],
    [single, 0xffff_ffffn, 32, f32(-1), 0],
    [single, 0x8000_0000n, 32, f32(-(2 ** 31)), 0],
    [single, 0x0100_0001n, 32, f32(2 ** 24), PE],
    [single, 0x0100_0003n, 32, f32(2 ** 24 + 4), PE],
    [double, 0x8000_0000_0000_0000n, 64, f64(-(2 ** 63)), 0],
    [double, 0x7fff_ffff_ffff_ffffn, 64, f64(2 ** 63), PE],
    [double, 0x0020_0000_0000_0000n, 64, f64(2 ** 53), 0],
  ])('$0.format.name of $1', (arithmetic, pattern, width, bits, flags) => {
    const env = environment();
    expect(arithmetic.fromInt(pattern, width, env)).toBe(bits);
    expect(env.flags).toBe(flags);
  });
});

describe('conversions between formats (APM vol.4, CVTSS2SD, CVTSD2SS)', () => {
  it.each([
    [ONE, f64(1), 0],
    [MINUS_ZERO, f64(-0), 0],
    [MINUS_INFINITY, f64(Number.NEGATIVE_INFINITY), 0],
    [DENORMAL, f64(2 ** -149), DE],
    [QNAN, 0x7ff8_0000_2000_0000n, 0],
    [SNAN, 0x7ff8_0000_6000_0000n, IE],
  ])('single %s to double', (a, bits, flags) => {
    const env = environment();
    expect(singleToDouble(a, env)).toBe(bits);
    expect(env.flags).toBe(flags);
  });

  it.each([
    [f64(1.5), f32(1.5), 0],
    [f64(0.1), f32(0.1), PE],
    [f64(-0), MINUS_ZERO, 0],
    [f64(1e300), INFINITY, OE | PE],
    [f64(-1e-300), MINUS_ZERO, UE | PE],
    [f64(2 ** -149), DENORMAL, 0],
    [f64(Number.MIN_VALUE), ZERO, DE | UE | PE],
    [0xfff0_0000_0000_0001n, 0xffc0_0000n, IE],
    [0x7ff8_0000_2000_0000n, QNAN, 0],
  ])('double %s to single', (a, bits, flags) => {
    const env = environment();
    expect(doubleToSingle(a, env)).toBe(bits);
    expect(env.flags).toBe(flags);
  });
});

describe('ROUNDxx (APM vol.4, ROUNDSD)', () => {
  it.each([
    [2.5, 0, 2, PE],
    [2.5, 8, 2, 0],
    [-2.5, 1, -3, PE],
    [2.1, 2, 3, PE],
    [-0.9, 3, -0, PE],
    [0.3, 4, 1, PE], // by MXCSR.RC, which is UP here
    [2 ** 52 + 1, 0, 2 ** 52 + 1, 0],
    [Number.POSITIVE_INFINITY, 0, Number.POSITIVE_INFINITY, 0],
    [Number.MIN_VALUE, 0, 0, PE], // no DE
  ])('%d with imm8 %i is %d', (value, imm8, expected, flags) => {
    const env = environment({ rounding: UP });
    expect(double.round(f64(value), imm8, env)).toBe(f64(expected));
    expect(env.flags).toBe(flags);
  });

  it('quiets an SNaN with IE', () => {
    const env = environment();
    expect(single.round(SNAN, 8, env)).toBe(QUIETED_SNAN);
    expect(env.flags).toBe(IE);
  });
});

/** Rounding of exact values to single precision in every mode, and the flags it raises. */
import { describe, expect, it } from 'vitest';
import { F32, F80 } from '../../../src/machine/fp/format.js';
import {
  bitLength,
  DOWN,
  type Exact,
  type FloatEnvironment,
  NEAREST,
  OE,
  PE,
  type RoundingMode,
  roundPack,
  TRUNCATE,
  UE,
  UP,
} from '../../../src/machine/fp/rounding.js';

const ALL_MASKED = 0x3f;

function environment(changes: Partial<FloatEnvironment> = {}): FloatEnvironment {
  return { rounding: NEAREST, daz: false, ftz: false, masks: ALL_MASKED, flags: 0, ...changes };
}

/** The magnitude significand × 2^exponent. */
function exact(significand: bigint, exponent: number, changes: Partial<Exact> = {}): Exact {
  return { negative: false, exponent, significand, sticky: false, ...changes };
}

describe('bitLength', () => {
  it.each([1n, 2n, 3n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 54n - 1n, 2n ** 54n, 2n ** 200n - 1n, 2n ** 200n])(
    'counts the bits of %s although the conversion to double rounds',
    (value) => {
      expect(bitLength(value)).toBe(value.toString(2).length);
    },
  );
});

describe('roundPack', () => {
  const ONE = 0x3f80_0000n;
  it.each<[string, bigint, boolean, [bigint, bigint, bigint, bigint]]>([
    // the three bits that single precision has no room for, and what lies below   nearest, down, up, truncate
    ['below half', 0b0001n, false, [ONE, ONE, ONE + 1n, ONE]],
    ['half, even', 0b0100n, false, [ONE, ONE, ONE + 1n, ONE]],
    ['half, odd', 0b1100n, false, [ONE + 2n, ONE + 1n, ONE + 2n, ONE + 1n]],
    ['half and a little', 0b0100n, true, [ONE + 1n, ONE, ONE + 1n, ONE]],
    ['nothing but a little', 0b0000n, true, [ONE, ONE, ONE + 1n, ONE]],
  ])('rounds by MXCSR.RC: %s (APM vol.1 §4.2.2 MXCSR Register)', (_, lowBits, sticky, expected) => {
    const results = ([NEAREST, DOWN, UP, TRUNCATE] as const).map((rounding) => {
      const env = environment({ rounding });
      const bits = roundPack(F32, exact((1n << 26n) | lowBits, -26, { sticky }), env);
      expect(env.flags).toBe(PE);
      return bits;
    });
    expect(results).toEqual(expected);
  });

  it('mirrors DOWN and UP for negative values', () => {
    const below = exact((1n << 26n) | 1n, -26, { negative: true });
    expect(roundPack(F32, below, environment({ rounding: DOWN }))).toBe(0xbf80_0001n);
    expect(roundPack(F32, below, environment({ rounding: UP }))).toBe(0xbf80_0000n);
  });

  it('raises nothing for an exact result and keeps flags that were set', () => {
    const env = environment({ flags: OE });
    expect(roundPack(F32, exact(3n, -1), env)).toBe(0x3fc0_0000n);
    expect(env.flags).toBe(OE);
  });

  it('carries into the next exponent', () => {
    expect(roundPack(F32, exact(0x1ff_ffffn, -25), environment())).toBe(0x3f80_0000n);
  });

  it.each<[RoundingMode, boolean, bigint]>([
    [NEAREST, false, 0x7f80_0000n],
    [NEAREST, true, 0xff80_0000n],
    [DOWN, false, 0x7f7f_ffffn],
    [DOWN, true, 0xff80_0000n],
    [UP, false, 0x7f80_0000n],
    [UP, true, 0xff7f_ffffn],
    [TRUNCATE, false, 0x7f7f_ffffn],
    [TRUNCATE, true, 0xff7f_ffffn],
  ])('overflows with OE and PE to infinity or the largest value (RC %i, negative %s)', (rounding, negative, bits) => {
    const env = environment({ rounding });
    expect(roundPack(F32, exact(1n, 128, { negative }), env)).toBe(bits);
    expect(env.flags).toBe(OE | PE);
  });

  it('raises PE with an unmasked OE only if the result is inexact with unbounded exponent', () => {
    const exactly = environment({ masks: ALL_MASKED & ~OE });
    roundPack(F32, exact(1n, 128), exactly);
    expect(exactly.flags).toBe(OE);
    const inexactly = environment({ masks: ALL_MASKED & ~OE });
    roundPack(F32, exact(0x1000_0001n, 110), inexactly);
    expect(inexactly.flags).toBe(OE | PE);
  });

  it('detects tininess after rounding (APM vol.1 §4.10.2 SIMD Floating-Point Exception Causes)', () => {
    const carries = environment(); // 25 ones below 2^-126 round to 2^-126 even with unbounded exponent
    expect(roundPack(F32, exact(0x1ff_ffffn, -151), carries)).toBe(0x0080_0000n);
    expect(carries.flags).toBe(PE);
    const tiny = environment(); // 24 ones do not, but as a denormal they round to the same value
    expect(roundPack(F32, exact(0xff_ffffn, -150), tiny)).toBe(0x0080_0000n);
    expect(tiny.flags).toBe(UE | PE);
  });

  it('raises a masked UE only for a result that is tiny and inexact', () => {
    const env = environment();
    expect(roundPack(F32, exact(3n, -149), env)).toBe(3n);
    expect(env.flags).toBe(0);
    expect(roundPack(F32, exact(1n, -150, { negative: true }), env)).toBe(0x8000_0000n);
    expect(env.flags).toBe(UE | PE);
  });

  it('raises an unmasked UE for any tiny result, with PE by the unbounded exponent', () => {
    const env = environment({ masks: ALL_MASKED & ~UE });
    roundPack(F32, exact(1n, -150), env); // inexact as a denormal, exact with unbounded exponent
    expect(env.flags).toBe(UE);
    roundPack(F32, exact(0x1ff_fffdn, -160), env);
    expect(env.flags).toBe(UE | PE);
  });

  it('flushes tiny results to a signed zero with UE and PE when FZ is set and UE masked', () => {
    const env = environment({ ftz: true });
    expect(roundPack(F32, exact(3n, -149, { negative: true }), env)).toBe(0x8000_0000n);
    expect(env.flags).toBe(UE | PE);
    const unmasked = environment({ ftz: true, masks: ALL_MASKED & ~UE });
    roundPack(F32, exact(3n, -149), unmasked);
    expect(unmasked.flags).toBe(UE);
  });

  it('rounds to double-extended precision with its integer bit', () => {
    expect(roundPack(F80, exact(2n ** 65n - 1n, -65), environment())).toBe(0x3fff_8000_0000_0000_0000n);
    expect(roundPack(F80, exact(1n, -16445), environment())).toBe(1n);
  });
});

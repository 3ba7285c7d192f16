/** RCPxx and RSQRTxx: prescribed special cases, and the manual's bound on the error everywhere else. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { reciprocalEstimate, reciprocalSqrtEstimate } from '../../../src/machine/fp/estimate.js';
import { F32 } from '../../../src/machine/fp/format.js';
import { fromNumber, toNumber } from '../../support/float-patterns.js';

const BOUND = 1.5 * 2 ** -12;
const normal = fc.bigInt(0x0080_0000n, 0x7f7f_ffffn);

describe('RCPSS', () => {
  it.each([
    ['+0', 0x0000_0000n, 0x7f80_0000n],
    ['−0', 0x8000_0000n, 0xff80_0000n],
    ['a denormal', 0x007f_ffffn, 0x7f80_0000n],
    ['a negative denormal', 0x8000_0001n, 0xff80_0000n],
    ['+infinity', 0x7f80_0000n, 0x0000_0000n],
    ['−infinity', 0xff80_0000n, 0x8000_0000n],
    ['a QNaN', 0x7fc1_2345n, 0x7fc1_2345n],
    ['an SNaN', 0xff81_2345n, 0xffc1_2345n],
    ['a value whose reciprocal is tiny', 0xff00_1000n, 0x8000_0000n],
    ['a power of two', fromNumber(F32, -8), fromNumber(F32, -0.125)],
  ])('of %s (APM vol.4, RCPSS)', (_, a, expected) => {
    expect(reciprocalEstimate(a)).toBe(expected);
  });

  it('keeps the relative error within 1.5 × 2⁻¹² where the reciprocal is normal (APM vol.4, RCPSS)', () => {
    fc.assert(
      fc.property(fc.bigInt(0x0080_0000n, 0x7e80_0000n), (a) => {
        expect(Math.abs(toNumber(F32, reciprocalEstimate(a)) * toNumber(F32, a) - 1)).toBeLessThanOrEqual(BOUND);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('RSQRTSS', () => {
  it.each([
    ['+0', 0x0000_0000n, 0x7f80_0000n],
    ['−0', 0x8000_0000n, 0xff80_0000n],
    ['a denormal', 0x0000_0001n, 0x7f80_0000n],
    ['a negative denormal', 0x807f_ffffn, 0xff80_0000n],
    ['+infinity', 0x7f80_0000n, 0x0000_0000n],
    ['−infinity', 0xff80_0000n, F32.indefinite],
    ['a negative value', fromNumber(F32, -4), F32.indefinite],
    ['a negative QNaN', 0xffc0_0001n, 0xffc0_0001n],
    ['an SNaN', 0x7f80_0001n, 0x7fc0_0001n],
    ['a power of four', fromNumber(F32, 16), fromNumber(F32, 0.25)],
  ])('of %s (APM vol.4, RSQRTSS)', (_, a, expected) => {
    expect(reciprocalSqrtEstimate(a)).toBe(expected);
  });

  it('keeps the relative error within 1.5 × 2⁻¹² (APM vol.4, RSQRTSS)', () => {
    fc.assert(
      fc.property(normal, (a) => {
        const estimate = toNumber(F32, reciprocalSqrtEstimate(a));
        expect(Math.abs(estimate * Math.sqrt(toNumber(F32, a)) - 1)).toBeLessThanOrEqual(BOUND);
      }),
      { numRuns: 2000 },
    );
  });
});

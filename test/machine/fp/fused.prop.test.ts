/** x·y + z against exact arithmetic on integers: the result is the representable value that the rounding mode asks for. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { F16, F32, F64, type FloatFormat, unpack } from '../../../src/machine/fp/format.js';
import { DE, type FloatEnvironment, IE, PE, type RoundingMode } from '../../../src/machine/fp/rounding.js';
import { double, halfToSingle, single, singleToHalf } from '../../../src/machine/fp/sse.js';

const environment = (rounding: RoundingMode): FloatEnvironment => ({
  rounding,
  daz: false,
  ftz: false,
  masks: 0x3f,
  flags: 0,
});

/** Everything in units of 2^-2200, below any product of denormals. */
const UNIT = 2200;
function scaled(format: FloatFormat, bits: bigint): bigint {
  const { negative, exponent, significand } = unpack(format, bits);
  const value = significand << BigInt(exponent + UNIT);
  return negative ? -value : value;
}

/** The next pattern up or down in value; both zeros are one. */
function neighbour(format: FloatFormat, bits: bigint, up: boolean): bigint {
  if ((bits & ~format.signMask) === 0n) return up ? 1n : format.signMask | 1n;
  return ((bits & format.signMask) === 0n) === up ? bits + 1n : bits - 1n;
}

const magnitude = (value: bigint): bigint => (value < 0n ? -value : value);

function isRightlyRounded(format: FloatFormat, exact: bigint, result: bigint, rounding: RoundingMode): boolean {
  const value = scaled(format, result);
  if (value === exact) return true;
  const other = scaled(format, neighbour(format, result, value < exact));
  // The exact value lies between the result and its neighbour on that side.
  if (value < exact !== other > exact) return false;
  switch (rounding) {
    case 0: {
      const [near, far] = [magnitude(value - exact), magnitude(other - exact)];
      return near < far || (near === far && (result & 1n) === 0n);
    }
    case 1:
      return value < exact;
    case 2:
      return value > exact;
    case 3:
      return magnitude(value) < magnitude(exact);
  }
}

/** Patterns whose exponents lie near each other often enough, and cancel. */
function pattern(format: FloatFormat): fc.Arbitrary<bigint> {
  const field = fc.oneof(
    fc.integer({ min: 0, max: format.maxExponentField - 1 }),
    fc.integer({ min: format.bias - 3, max: format.bias + 3 }),
    fc.constantFrom(0, 1, format.bias >> 1),
  );
  const fraction = fc.oneof(
    fc.bigInt({ min: 0n, max: format.fractionMask }),
    fc.constantFrom(0n, 1n, format.fractionMask, format.quietMask),
  );
  return fc
    .tuple(fc.boolean(), field, fraction)
    .map(
      ([negative, exponent, low]) =>
        (negative ? format.signMask : 0n) | (BigInt(exponent) << format.exponentShift) | low,
    );
}

describe.each([
  ['single', single, F32],
  ['double', double, F64],
] as const)('fused multiply-add in %s precision', (_, arithmetic, format) => {
  it('rounds the exact sum once', () => {
    const modes = fc.constantFrom<RoundingMode>(0, 1, 2, 3);
    fc.assert(
      fc.property(
        ...([pattern(format), pattern(format), pattern(format), modes, fc.boolean(), fc.boolean()] as const),
        (x, y, z, rounding, negatesProduct, subtracts) => {
          const env = environment(rounding);
          const result = arithmetic.fused([x, y, z], { negatesProduct, subtracts }, env);
          const { kind } = unpack(format, result);
          if (kind === 'infinity' || (result & ~format.signMask) === format.largest) return;
          const product = (scaled(format, x) * scaled(format, y)) >> BigInt(UNIT);
          const exact = (negatesProduct ? -product : product) + (subtracts ? -scaled(format, z) : scaled(format, z));
          expect(isRightlyRounded(format, exact, result, rounding)).toBe(true);
          expect((env.flags & PE) !== 0).toBe(scaled(format, result) !== exact);
        },
      ),
      { numRuns: 3000 },
    );
  });

  it('takes the first NaN, and raises nothing for an invalid product beside one', () => {
    const nan = (payload: bigint): bigint => format.infinity | format.quietMask | payload;
    const fused = (x: bigint, y: bigint, z: bigint): readonly [bigint, number] => {
      const env = environment(0);
      return [arithmetic.fused([x, y, z], { negatesProduct: true, subtracts: true }, env), env.flags];
    };
    expect(fused(nan(1n), nan(2n), nan(3n))).toEqual([nan(1n), 0]);
    expect(fused(0n, nan(2n), nan(3n))).toEqual([nan(2n), 0]);
    expect(fused(format.infinity, 0n, nan(3n))).toEqual([nan(3n), 0]);
    expect(fused(format.infinity, 0n, format.infinity | 5n)).toEqual([nan(5n), IE]);
    expect(fused(format.infinity, 0n, 1n)).toEqual([format.indefinite, IE]);
    expect(fused(format.infinity, 1n, format.infinity | format.signMask)).toEqual([format.indefinite, IE]);
    expect(fused(1n, format.infinity, format.infinity)).toEqual([format.infinity | format.signMask, DE]);
  });
});

describe('half precision', () => {
  it('goes to single and back, all 65536 of it', () => {
    const view = new DataView(new ArrayBuffer(4));
    const wrong: bigint[] = [];
    for (let bits = 0n; bits < 0x1_0000n; bits++) {
      const env = environment(0);
      const wide = halfToSingle(bits, env);
      const { kind, negative, exponent, significand } = unpack(F16, bits);
      const isNotANumber = kind === 'qnan' || kind === 'snan';
      const back = singleToHalf(wide, environment(0), 0);
      if (env.flags !== (kind === 'snan' ? IE : 0)) wrong.push(bits);
      if (back !== (isNotANumber ? bits | F16.quietMask : bits)) wrong.push(bits);
      if (isNotANumber || kind === 'infinity') continue;
      view.setFloat32(0, (negative ? -1 : 1) * Number(significand) * 2 ** exponent);
      if (BigInt(view.getUint32(0)) !== wide) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  it('is rounded from single by the immediate byte, and never flushed to zero', () => {
    const modes = fc.constantFrom<RoundingMode>(0, 1, 2, 3);
    fc.assert(
      fc.property(pattern(F32), modes, (bits, rounding) => {
        const env = { ...environment(0), ftz: true };
        const result = singleToHalf(bits, env, rounding);
        if (unpack(F16, result).kind === 'infinity' || (result & ~F16.signMask) === F16.largest) return;
        expect(isRightlyRounded(F16, scaled(F32, bits), result, rounding)).toBe(true);
      }),
      { numRuns: 3000 },
    );
  });
});

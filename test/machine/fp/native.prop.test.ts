/** Shortcuts against the general way: same result, same flags, or no answer. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addExact, divideExact, multiplyExact } from '../../../src/machine/fp/exact.js';
import { F32, F64, type FloatFormat, unpack } from '../../../src/machine/fp/format.js';
import { doubleShortcuts, type Shortcuts, singleShortcuts } from '../../../src/machine/fp/native.js';
import { DOWN, type Exact, type FloatEnvironment, NEAREST, PE, roundPack } from '../../../src/machine/fp/rounding.js';
import { anyPattern } from '../../support/float-patterns.js';

const OPERATIONS = ['add', 'sub', 'mul', 'div'] as const;
const CASES = (
  [
    [F32, singleShortcuts],
    [F64, doubleShortcuts],
  ] as const
).flatMap(([format, shortcuts]) =>
  OPERATIONS.map((operation) => ({ name: `${operation} ${format.name}`, format, shortcuts, operation })),
);

function environment(rounding: FloatEnvironment['rounding'] = NEAREST): FloatEnvironment {
  return { rounding, daz: false, ftz: false, masks: 0x3f, flags: 0 };
}

function general(format: FloatFormat, operation: keyof Shortcuts, a: bigint, b: bigint): Exact {
  const x = unpack(format, a);
  const y = unpack(format, b);
  switch (operation) {
    case 'add':
      return addExact(x, y);
    case 'sub':
      return addExact(x, { ...y, negative: !y.negative });
    case 'mul':
      return multiplyExact(x, y);
    case 'div':
      return divideExact(x, y, format.precision);
  }
}

describe('shortcuts', () => {
  it.each(CASES)('agree with exact arithmetic and rounding: $name', ({ format, shortcuts, operation }) => {
    let answered = 0;
    fc.assert(
      fc.property(anyPattern(format), anyPattern(format), (a, b) => {
        const env = environment();
        const result = shortcuts[operation](a, b, env);
        if (result === undefined) {
          expect(env.flags).toBe(0);
          return;
        }
        answered++;
        const expected = environment();
        const exact = general(format, operation, a, b);
        expect(result).toBe(exact.significand === 0n ? 0n : roundPack(format, exact, expected));
        expect(env.flags).toBe(expected.flags);
        expect(env.flags & ~PE).toBe(0);
      }),
      { numRuns: 5000 },
    );
    expect(answered).toBeGreaterThan(500);
  });

  it.each(CASES)('leave other rounding modes alone: $name', ({ format, shortcuts, operation }) => {
    const one = BigInt(format.bias) << format.exponentShift;
    expect(shortcuts[operation](one, one, environment(DOWN))).toBeUndefined();
    expect(shortcuts[operation](one, one, environment())).toBeDefined();
  });

  it.each(CASES)('leave zeros, denormals, infinities and NaNs alone: $name', ({ format, shortcuts, operation }) => {
    const one = BigInt(format.bias) << format.exponentShift;
    for (const special of [0n, format.signMask, 1n, format.infinity, format.indefinite, format.infinity | 1n]) {
      expect(shortcuts[operation](special, one, environment())).toBeUndefined();
      expect(shortcuts[operation](one, special, environment())).toBeUndefined();
    }
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ticksAt, timeOfTick } from '../../../src/machine/devices/ticks.js';

const HERTZ = fc.constantFrom(32_768, 1_193_182, 3_579_545);
const TIME = fc.integer({ min: -2_000_000_000, max: Number.MAX_SAFE_INTEGER });

describe('ticks of a crystal', () => {
  it('are floor(ns · Hz / 10^9), exactly', () => {
    fc.assert(
      fc.property(TIME, HERTZ, (time, hertz) => {
        const product = BigInt(time) * BigInt(hertz);
        const rest = ((product % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
        expect(ticksAt(time, hertz)).toBe(Number((product - rest) / 1_000_000_000n));
      }),
    );
  });

  it('come back from their own time, and not a nanosecond earlier', () => {
    fc.assert(
      fc.property(fc.integer({ min: -100_000, max: 2 ** 38 }), HERTZ, (tick, hertz) => {
        const time = timeOfTick(tick, hertz);
        expect(ticksAt(time, hertz)).toBe(tick);
        expect(ticksAt(time - 1, hertz)).toBe(tick - 1);
      }),
    );
  });
});

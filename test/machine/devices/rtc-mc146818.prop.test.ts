/** The real-time clock: flags and interrupts do not depend on how often anyone looks. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RTC, RTC_MC146818, rtcWithClock } from '../../../src/machine/devices/rtc-mc146818.js';
import { nanoseconds } from '../../../src/machine/units.js';
import { Bench } from './given.js';

const SECOND = 1_000_000_000;
const IRQF = 0x80;

const PROGRAM = fc.array(
  fc.record({
    register: fc.constantFrom(0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x0a, 0x0b),
    value: fc.oneof(fc.nat(0xff), fc.constantFrom(0x26, 0x2f, 0x21, 0x42, 0x72, 0x22, 0xc0, 0x82, 0x00, 0x59)),
    later: fc.oneof(fc.nat(2 * SECOND), fc.constantFrom(0, 1, SECOND, 500_000_000)),
  }),
  { maxLength: 12 },
);

function programmed(program: typeof PROGRAM extends fc.Arbitrary<infer Value> ? Value : never) {
  const it = new Bench(RTC_MC146818, rtcWithClock(RTC_MC146818.initial(), 1_709_301_598));
  let now = 0;
  for (const { register, value, later } of program) {
    now += later;
    it.write(RTC.INDEX, register, now);
    it.write(RTC.DATA, value, now);
  }
  it.write(RTC.INDEX, 0x0c, now);
  return { it, now };
}

/** An alarm 112 days ahead, with the slowest divider: more nanoseconds than a number holds exactly. */
const BEYOND_TIME = [
  { register: 0x0a, value: 0x00, later: 0 },
  { register: 0x04, value: 38, later: 0 },
  { register: 0x0b, value: 0x26, later: 0 },
];

/** Register C at a time, without clearing it. */
const peek = (it: Bench<ReturnType<typeof RTC_MC146818.initial>, never>, at: number): number =>
  RTC_MC146818.decideRead(it.state, RTC.DATA, 1, nanoseconds(at)).value;

describe('MC146818', () => {
  it('shows the same flags to one who asks once and, together, to one who asks often', () => {
    fc.assert(
      fc.property(PROGRAM, fc.array(fc.nat(SECOND), { minLength: 1, maxLength: 10 }), (program, waits) => {
        const often = programmed(program);
        const rarely = programmed(program);
        let now = often.now;
        let together = 0;
        for (const wait of waits) {
          now += wait;
          together |= often.it.read(RTC.DATA, now);
        }
        expect(together).toBe(rarely.it.read(RTC.DATA, now));
      }),
      { numRuns: 500 },
    );
  });

  it('interrupts at its deadline, and not a nanosecond before', () => {
    fc.assert(
      fc.property(PROGRAM, (program) => {
        const { it, now } = programmed(program);
        const deadline = RTC_MC146818.nextDeadline(it.state);
        if (it.line()) {
          expect(deadline).toBeUndefined();
          return;
        }
        if (deadline === undefined) {
          // Nothing comes by itself: no interrupt for a day and a second.
          expect(peek(it as never, now + 86_401 * SECOND) & IRQF).toBe(0);
          return;
        }
        if (deadline > now) expect(peek(it as never, deadline - 1) & IRQF).toBe(0);
        expect(peek(it as never, Math.max(deadline, now)) & IRQF).toBe(IRQF);
        it.deadline(Math.max(deadline, now));
        expect(it.line()).toBe(true);
      }),
      { numRuns: 500, examples: [[BEYOND_TIME]] },
    );
  });
});

import { describe, expect, it } from 'vitest';
import { configureMemory } from '../../../src/machine/devices/cmos-memory.js';
import { alarmInterrupts, RTC, RTC_MC146818, rtcWithClock } from '../../../src/machine/devices/rtc-mc146818.js';
import { Bench } from './given.js';

const SECOND = 1_000_000_000;
/** Friday, 2024-03-01T13:59:58Z. */
const FRIDAY = 1_709_301_598;

class RtcBench extends Bench<ReturnType<typeof RTC_MC146818.initial>, Parameters<typeof RTC_MC146818.reduce>[1]> {
  constructor(unixSeconds = FRIDAY) {
    super(RTC_MC146818, rtcWithClock(RTC_MC146818.initial(), unixSeconds));
  }
  get(index: number, at = 0): number {
    this.write(RTC.INDEX, index, at);
    return this.read(RTC.DATA, at);
  }
  set(index: number, value: number, at = 0): void {
    this.write(RTC.INDEX, index, at);
    this.write(RTC.DATA, value, at);
  }
  time(at = 0): number[] {
    return [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00].map((index) => this.get(index, at));
  }
  get next() {
    return this.device.nextDeadline(this.state);
  }
}

describe('RTC MC146818', () => {
  it('tells the date in BCD and 24 hours at power-on (MC146818A, Time, Calendar, and Alarm Locations)', () => {
    expect(new RtcBench().time()).toEqual([0x20, 0x24, 0x03, 0x01, 6, 0x13, 0x59, 0x58]);
  });

  it('goes on with virtual time, over the hour and over a leap day', () => {
    const it = new RtcBench();
    expect(it.time(2 * SECOND - 1).slice(-3)).toEqual([0x13, 0x59, 0x59]);
    expect(it.time(2 * SECOND).slice(-3)).toEqual([0x14, 0x00, 0x00]);
    const leap = new RtcBench(Date.UTC(2024, 1, 28, 23, 59, 59) / 1000);
    expect(leap.time(SECOND)).toEqual([0x20, 0x24, 0x02, 0x29, 5, 0x00, 0x00, 0x00]);
    const century = new RtcBench(Date.UTC(1999, 11, 31, 23, 59, 59) / 1000);
    expect(century.time(SECOND)).toEqual([0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
  });

  it('tells binary and 12 hours when register B says so (MC146818A, Register B, DM and 24/12)', () => {
    const it = new RtcBench();
    it.set(0x0b, 0x04);
    expect([it.get(0x04), it.get(0x02), it.get(0x00)]).toEqual([0x81, 59, 58]);
    it.set(0x0b, 0x00);
    expect(it.get(0x04)).toBe(0x81);
    expect(new RtcBench(0).get(0x04)).toBe(0x00);
  });

  it('has UIP up from 244 µs before an update of 1984 µs to its end (MC146818A, Update Cycle, table 6)', () => {
    const it = new RtcBench();
    expect([SECOND - 2_228_001, SECOND - 2_228_000, SECOND - 1, SECOND].map((at) => it.get(0x0a, at))).toEqual([
      0x26, 0xa6, 0xa6, 0x26,
    ]);
    expect(it.get(0x00, SECOND - 1)).toBe(0x58); // the registers change as the update ends
    it.set(0x0b, 0x82, SECOND - 1_000_000); // SET aborts it
    expect(it.get(0x0a, SECOND - 1)).toBe(0x26);
  });

  it('holds the clock with SET and goes on from what was written (MC146818A, Register B, SET)', () => {
    const it = new RtcBench();
    it.set(0x0b, 0x82, SECOND / 2);
    it.set(0x00, 0x30, 5 * SECOND);
    it.set(0x09, 0x99, 5 * SECOND);
    it.set(0x32, 0x19, 5 * SECOND);
    expect(it.time(9 * SECOND)).toEqual([0x19, 0x99, 0x03, 0x01, 6, 0x13, 0x59, 0x30]);
    it.set(0x0b, 0x02, 9 * SECOND + 1);
    expect(it.get(0x00, 10 * SECOND - 1)).toBe(0x30);
    expect(it.get(0x00, 10 * SECOND)).toBe(0x31);
    expect(it.get(0x06, 10 * SECOND)).toBe(6); // the day of week is software's to set
  });

  it('sets the running clock by a write to a time register, day of week included', () => {
    const it = new RtcBench();
    it.set(0x02, 0x10, SECOND / 2);
    it.set(0x06, 0x02, SECOND / 2);
    expect(it.time(SECOND)).toEqual([0x20, 0x24, 0x03, 0x01, 2, 0x13, 0x10, 0x59]);
  });

  it('updates half a second after the divider is released (MC146818A, Divider Control)', () => {
    const it = new RtcBench();
    it.set(0x0a, 0x76, 0.25 * SECOND);
    it.set(0x0a, 0x26, 3 * SECOND);
    expect(it.get(0x00, 3.5 * SECOND - 1)).toBe(0x58);
    expect(it.get(0x00, 3.5 * SECOND)).toBe(0x59);
  });

  it('interrupts periodically, once until C is read (MC146818A, Register A, table 5)', () => {
    const it = new RtcBench();
    it.set(0x0b, 0x42); // 1024 Hz
    expect(it.next).toBe(976_563);
    it.deadline(976_563);
    expect(it.line()).toBe(true);
    expect(it.next).toBeUndefined();
    expect(it.get(0x0c, 10_000_000)).toBe(0xc0);
    expect(it.line()).toBe(false);
    expect(it.get(0x0c, 10_000_000)).toBe(0);
    expect(it.next).toBe(10_742_188); // the 11th tick
    it.set(0x0a, 0x2f, 10_000_000); // 2 Hz
    expect(it.next).toBe(SECOND / 2);
    it.set(0x0a, 0x20, 10_000_000);
    expect(it.next).toBeUndefined();
  });

  it('interrupts when an update ended (MC146818A, Register B, UIE)', () => {
    const it = new RtcBench();
    it.set(0x0b, 0x12, 100);
    expect(it.next).toBe(SECOND);
    it.deadline(SECOND);
    expect(it.get(0x0c, SECOND)).toBe(0xd0); // PF is told too, though it does not interrupt
    expect(it.next).toBe(2 * SECOND);
  });

  it('interrupts at the alarm, don’t-care codes included (MC146818A, Alarm Bytes)', () => {
    const it = new RtcBench();
    it.set(0x01, 0x05);
    it.set(0x03, 0x00);
    it.set(0x05, 0x14);
    it.set(0x0b, 0x22);
    expect(it.next).toBe(7 * SECOND);
    it.set(0x05, 0xc0);
    it.set(0x03, 0xff);
    it.set(0x01, 0xff);
    expect(it.next).toBe(SECOND);
    it.set(0x05, 0x13);
    it.set(0x03, 0x59);
    it.set(0x01, 0x57);
    expect(it.next).toBe(86_399 * SECOND); // tomorrow
    it.set(0x01, 0x77); // no such second
    expect(it.next).toBeUndefined();
  });

  it('tells flags without their interrupts, and interrupts at once when enabled late (MC146818A, Register C)', () => {
    const it = new RtcBench();
    expect(it.get(0x0c, 2 * SECOND)).toBe(0x50);
    expect(it.get(0x0c, 2 * SECOND)).toBe(0x00);
    it.set(0x0b, 0x12, 3 * SECOND + 1);
    expect(it.line()).toBe(true);
  });

  it.each([
    ['4.194304 MHz', 0x00, 128],
    ['1.048576 MHz', 0x10, 32],
    ['32.768 kHz', 0x20, 1],
  ])('divides its crystal as for a time base of %s (MC146818A, Register A, tables 4 to 6)', (_, divider, slower) => {
    const it = new RtcBench();
    it.set(0x0a, 0x70);
    it.set(0x0a, divider, 0);
    expect(it.get(0x00, (slower * SECOND) / 2 - 1)).toBe(0x58);
    expect(it.get(0x00, (slower * SECOND) / 2)).toBe(0x59);
    expect(it.get(0x00, (slower * SECOND * 3) / 2)).toBe(0x00);
    it.set(0x0b, 0x42);
    /** Ticks of the crystal between periodic interrupts, by rate. */
    const periods = Array.from({ length: 15 }, (_zero, at) => {
      it.set(0x0a, divider | (at + 1));
      return ((it.next ?? 0) + (slower * SECOND) / 2) / (SECOND / 32_768);
    });
    const taps = Array.from({ length: 15 }, (_zero, at) => slower * 2 ** at);
    if (slower === 1) taps.splice(0, 2, 128, 256);
    // The chain began half a second before: the first interrupt is the first multiple of the period after that.
    const half = (slower * 32_768) / 2;
    expect(periods.map(Math.round)).toEqual(taps.map((tap) => (Math.floor(half / tap) + 1) * tap));
  });

  it.each([0x30, 0x40, 0x50, 0x60, 0x70])(
    'stands still with divider %i, and interrupts no more (table 4)',
    (divider) => {
      const it = new RtcBench();
      it.set(0x0b, 0x72);
      it.set(0x0a, divider | 0x06, SECOND / 4);
      expect(it.get(0x00, 90 * SECOND)).toBe(0x58);
      it.get(0x0c, 90 * SECOND);
      expect(it.next).toBeUndefined();
    },
  );

  it('goes on interrupting periodically while SET holds the clock, in step with its chain (Register B, SET)', () => {
    const it = new RtcBench();
    it.set(0x0a, 0x76, 0);
    it.set(0x0a, 0x2f, 123_456_789); // 2 Hz; the first update half a second later
    it.set(0x0b, 0x92, 200_000_000);
    it.set(0x0b, 0xc2, 200_000_000);
    expect(it.next).toBe(623_456_789);
    it.deadline(623_456_789);
    expect(it.get(0x0c, 623_456_789)).toBe(0xc0);
    expect(it.get(0x0b)).toBe(0xc2); // SET had cleared UIE
    expect(it.get(0x00, 5 * SECOND)).toBe(0x58);
  });

  it('remembers when the divider was released though SET still holds the clock', () => {
    const it = new RtcBench();
    it.set(0x0b, 0x82);
    it.set(0x0a, 0x76);
    it.set(0x0a, 0x26, 0.25 * SECOND);
    it.set(0x0b, 0x02, 0.5 * SECOND);
    expect(it.get(0x00, 0.75 * SECOND - 1)).toBe(0x58);
    expect(it.get(0x00, 0.75 * SECOND)).toBe(0x59);
  });

  it('alarms in 12 hours and in binary (MC146818A, Time, Calendar, and Alarm Locations, table 3)', () => {
    const it = new RtcBench(FRIDAY - (FRIDAY % 86_400)); // midnight
    for (const [b, hours, at] of [
      [0x20, 0x12, 86_400],
      [0x20, 0x92, 43_200],
      [0x20, 0x01, 3_600],
      [0x20, 0x91, 11 * 3_600 + 43_200],
      [0x22, 0x13, 13 * 3_600],
      [0x24, 0x8c, 43_200],
      [0x26, 23, 23 * 3_600],
    ] as const) {
      it.set(0x0b, b);
      it.set(0x01, 0);
      it.set(0x03, 0);
      it.set(0x05, hours);
      expect([b, hours, (it.next ?? 0) / SECOND]).toEqual([b, hours, at]);
    }
  });

  it('tells ACPI of the alarm apart from its other interrupts', () => {
    const it = new RtcBench();
    it.set(0x0b, 0x32);
    it.set(0x01, 0x59);
    it.set(0x03, 0xc0);
    it.set(0x05, 0xc0);
    it.deadline(SECOND);
    expect([it.line(), alarmInterrupts(it.state)]).toEqual([true, true]);
    it.get(0x0c, SECOND);
    it.deadline(2 * SECOND);
    expect([it.line(), alarmInterrupts(it.state)]).toEqual([true, false]);
  });

  it('masks the NMI with bit 7 of the index port (82371AB, port 70h)', () => {
    const it = new RtcBench();
    expect(it.write(RTC.INDEX, 0x8d)).toEqual([
      { type: 'rtc.selected', index: 0x0d },
      { type: 'rtc.nmi-masked', masked: true },
    ]);
    expect(it.read(RTC.DATA)).toBe(0x80);
    expect(it.write(RTC.INDEX, 0x0d)).toEqual([{ type: 'rtc.nmi-masked', masked: false }]);
  });

  it('takes DSE and SQWE back as written, and is the same clock (82371AB, Register B)', () => {
    const it = new RtcBench(Date.UTC(2024, 3, 28, 1, 59, 59) / 1000); // the last Sunday in April
    it.set(0x0b, 0x0b);
    expect(it.get(0x0b)).toBe(0x0b);
    expect(it.time(SECOND).slice(-3)).toEqual([0x02, 0x00, 0x00]);
  });

  it('keeps memory, and what a BIOS stored of the machine', () => {
    const it = new RtcBench();
    configureMemory(it.state, { ramBytes: 512 * 2 ** 20, vcpus: 4 });
    it.set(0x40, 0xab);
    expect(it.get(0x40)).toBe(0xab);
    expect(it.get(0x15) | (it.get(0x16) << 8)).toBe(640);
    expect(it.get(0x34) | (it.get(0x35) << 8)).toBe((512 - 16) * 16);
    expect(it.get(0x5f)).toBe(3);
    expect(it.get(0x0d)).toBe(0x80);
    configureMemory(it.state, { ramBytes: 5 * 2 ** 30, vcpus: 1 });
    expect(it.get(0x5b) | (it.get(0x5c) << 8) | (it.get(0x5d) << 16)).toBe(2 * 2 ** 14);
  });
});

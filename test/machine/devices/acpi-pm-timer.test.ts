import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ACPI, ACPI_PM, decideAlarm, PM_TIMER_HERTZ } from '../../../src/machine/devices/acpi-pm-timer.js';
import { timeOfTick } from '../../../src/machine/devices/ticks.js';
import { nanoseconds } from '../../../src/machine/units.js';
import { Bench, given, read, write } from './given.js';

/** The nanosecond at which the timer, of any width, comes to a tick. */
const tick = (count: number): number => timeOfTick(count, PM_TIMER_HERTZ);
const TMR = 0x0001;
const RTC = 0x0400;

const withBits = (timerBits: 24 | 32) => new Bench(ACPI_PM, { ...ACPI_PM.initial(), timerBits });

describe('ACPI power-management timer', () => {
  it('counts 3.579545 MHz and wraps at 24 or at 32 bits (ACPI 6.5 §4.8.3.3 Power Management Timer)', () => {
    const it = withBits(24);
    expect(it.read(ACPI.TIMER, 1_000_000_000, 4)).toBe(PM_TIMER_HERTZ);
    expect(it.read(ACPI.TIMER, tick(2 ** 24 + 5), 4)).toBe(5);
    const wide = withBits(32);
    expect(wide.read(ACPI.TIMER, tick(2 ** 24 + 5), 4)).toBe(2 ** 24 + 5);
    expect(wide.read(ACPI.TIMER + 3, tick(2 ** 24 + 5), 1)).toBe(1);
    expect(wide.read(ACPI.TIMER, tick(2 ** 32 + 7), 4)).toBe(7);
    given(ACPI_PM)
      .when(write(ACPI.TIMER, 0xffff_ffff, 0, 4))
      .then(); // read-only
  });

  it.each([
    [24, 2 ** 23],
    [32, 2 ** 31],
  ] as const)('sets TMR_STS whenever the highest of %i bits changes, and tells it without an event', (bits, half) => {
    const it = withBits(bits);
    const status = (at: number) => it.read(ACPI.STATUS, at, 2);
    const clear = (at: number) => it.write(ACPI.STATUS, TMR, at, 2);
    expect([status(tick(half) - 1), status(tick(half)), status(tick(3 * half))]).toEqual([0, TMR, TMR]);
    expect(it.device.nextDeadline(it.state)).toBeUndefined();
    expect(clear(tick(half))).toEqual([{ type: 'acpi.status-cleared', bits: TMR, at: tick(half) }]);
    expect(clear(tick(half) + 1)).toEqual([]);
    expect([status(tick(2 * half) - 1), status(tick(2 * half))]).toEqual([0, TMR]);
  });

  it('is a system control interrupt at each carry while TMR_EN is set (ACPI 6.5 §4.8.3.1.2 PM1 Enable Registers)', () => {
    const it = withBits(24);
    const half = 2 ** 23;
    it.write(ACPI.ENABLE, TMR, tick(100), 2);
    expect(it.device.nextDeadline(it.state)).toBe(tick(half));
    expect(it.line()).toBe(false);
    expect(it.deadline(tick(half))).toEqual([{ type: 'acpi.timer-carried', at: tick(half) }]);
    expect(it.line()).toBe(true);
    expect(it.device.nextDeadline(it.state)).toBeUndefined(); // it is set already
    it.write(ACPI.STATUS, TMR, tick(half) + 50, 2);
    expect(it.line()).toBe(false);
    expect(it.device.nextDeadline(it.state)).toBe(tick(2 * half));
  });

  it('interrupts at once when it is enabled after a carry', () => {
    const it = withBits(24);
    expect(it.write(ACPI.ENABLE, TMR, tick(2 ** 23), 2)).toEqual([
      { type: 'acpi.timer-carried', at: tick(2 ** 23) },
      { type: 'acpi.enabled', value: TMR },
    ]);
    expect(it.line()).toBe(true);
    it.write(ACPI.ENABLE, 0, tick(2 ** 23), 2);
    expect(it.line()).toBe(false);
  });

  it('clears and enables in one access of 32 bits', () => {
    const it = withBits(24);
    it.write(ACPI.STATUS, (TMR << 16) | TMR, tick(2 ** 23), 4);
    expect([it.line(), it.device.nextDeadline(it.state)]).toEqual([false, tick(2 ** 24)]);
  });

  it('has the same status for one who asks often, and the deadline where it first shows', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 26), fc.array(fc.nat(2 ** 24), { maxLength: 8 }), (start, waits) => {
        const it = withBits(24);
        it.write(ACPI.STATUS, TMR, tick(start), 2);
        it.write(ACPI.ENABLE, TMR, tick(start), 2);
        const deadline = it.device.nextDeadline(it.state) ?? 0;
        let now = tick(start);
        for (const wait of waits) {
          now += wait;
          expect(it.read(ACPI.STATUS, now, 2)).toBe(now >= deadline ? TMR : 0);
        }
        expect(it.device.decideDeadline(it.state, nanoseconds(deadline - 1))).toEqual([]);
        expect(it.deadline(deadline)).toHaveLength(1);
      }),
    );
  });
});

describe('ACPI fixed hardware', () => {
  it('tells of the clock’s alarm once, and interrupts while RTC_EN is set (ACPI 6.5 §4.8.3.1.1 PM1 Status Registers)', () => {
    const it = new Bench(ACPI_PM);
    it.apply(decideAlarm(it.state, true));
    expect(decideAlarm(it.state, true)).toEqual([]);
    expect([it.read(ACPI.STATUS, 0, 2), it.line()]).toEqual([RTC, false]);
    it.write(ACPI.ENABLE + 1, RTC >> 8);
    expect(it.line()).toBe(true);
    it.write(ACPI.STATUS + 1, RTC >> 8);
    expect([it.read(ACPI.STATUS, 0, 2), it.line()]).toEqual([0, false]);
    it.apply(decideAlarm(it.state, false));
    it.apply(decideAlarm(it.state, true));
    expect(it.line()).toBe(true);
  });

  it('ends with SLP_EN, in a word or its upper byte (ACPI 6.5 §4.8.3.2.1 PM1 Control Registers)', () => {
    given(ACPI_PM)
      .when(write(ACPI.CONTROL, 0x3400, 0, 2))
      .then({ type: 'acpi.controlled', value: 0x1401 }, { type: 'acpi.sleep-requested', sleepType: 5 });
    given(ACPI_PM)
      .when(write(ACPI.CONTROL + 1, 0x20))
      .then({ type: 'acpi.sleep-requested', sleepType: 0 });
    given(ACPI_PM)
      .when(read(ACPI.CONTROL, 0, 2))
      .thenValue(1);
  });

  it('keeps what can be written of its registers, a byte at a time or more (ACPI 6.5 §4.8.1)', () => {
    const it = new Bench(ACPI_PM);
    it.write(ACPI.ENABLE, 0xffff, 0, 2);
    it.write(ACPI.CONTROL, 0x0006, 0, 2);
    expect(it.read(ACPI.STATUS, 0, 4)).toBe(0x0721_0000);
    expect(it.read(ACPI.CONTROL, 0, 4)).toBe(0x0003); // GBL_RLS reads as zero, SCI_EN stays
    it.write(ACPI.ENABLE + 1, 0x04);
    expect(it.read(ACPI.ENABLE, 0, 2)).toBe(0x0421);
    it.write(ACPI.ENABLE, 0x01);
    expect(it.read(ACPI.ENABLE, 0, 2)).toBe(0x0401);
  });
});

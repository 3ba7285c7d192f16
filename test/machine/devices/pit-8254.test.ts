import { describe, expect, it } from 'vitest';
import { PIT, PIT_8254, PIT_HERTZ } from '../../../src/machine/devices/pit-8254.js';
import { timeOfTick } from '../../../src/machine/devices/ticks.js';
import { Bench, given, read, write } from './given.js';

/** The nanosecond at which a tick of the timer's clock falls. */
const tick = (count: number): number => timeOfTick(count, PIT_HERTZ);

const programmed = (channel: number, control: number, count: number, at = 0) => {
  const it = new Bench(PIT_8254);
  it.write(PIT.COMMAND, (channel << 6) | 0x30 | control, at);
  it.write(channel, count & 0xff, at);
  it.write(channel, count >> 8, at);
  return it;
};
const readCount = (it: Bench<unknown, unknown>, channel: number, at: number): number =>
  it.read(channel, at) | (it.read(channel, at) << 8);
const isHigh = (it: Bench<unknown, unknown>, channel: number, at: number): boolean => {
  it.write(PIT.COMMAND, 0xe0 | (2 << channel), at); // read-back, status
  return (it.read(channel, at) & 0x80) !== 0;
};

describe('PIT 8254', () => {
  it('states what a control word programs (8254, Control Word Format)', () => {
    given(PIT_8254)
      .when(write(PIT.COMMAND, 0x34))
      .then({ type: 'pit.programmed', channel: 0, mode: 2, access: 3, bcd: false });
    given(PIT_8254)
      .when(write(PIT.COMMAND, 0xbf))
      .then({ type: 'pit.programmed', channel: 2, mode: 3, access: 3, bcd: true });
  });

  it('mode 0: goes high N + 1 ticks after the count and stays (8254, Mode 0 Interrupt on Terminal Count)', () => {
    const it = programmed(0, 0x0, 100);
    expect(it.line()).toBe(false);
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(101));
    expect(readCount(it, 0, tick(41))).toBe(60);
    expect(it.deadline(tick(101))).toEqual([{ type: 'pit.output', channel: 0, at: 101 }]);
    expect(it.line()).toBe(true);
    expect(it.device.nextDeadline(it.state as never)).toBeUndefined();
    expect(readCount(it, 0, tick(102))).toBe(0xffff); // it counts on through zero
  });

  it('mode 0: stops, low, between the two bytes of a new count (8254, Mode 0)', () => {
    const it = programmed(0, 0x0, 100);
    it.deadline(tick(101));
    it.write(0, 50, tick(200));
    expect(it.line()).toBe(false);
    it.write(0, 0, tick(210));
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(261));
  });

  it('mode 2: a rising edge every N ticks, low for the last one (8254, Mode 2 Rate Generator)', () => {
    const it = programmed(0, 0x4, 1000);
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(1001));
    expect([isHigh(it, 0, tick(999)), isHigh(it, 0, tick(1000)), isHigh(it, 0, tick(1001))]).toEqual([
      true,
      false,
      true,
    ]);
    it.deadline(tick(1001));
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(2001));
    expect(readCount(it, 0, tick(1001))).toBe(1000);
    expect(readCount(it, 0, tick(1002))).toBe(999);
    expect(readCount(it, 0, tick(2000))).toBe(1);
  });

  it('mode 2: a new count takes over at the end of the period (8254, Mode 2)', () => {
    const it = programmed(0, 0x4, 1000);
    it.write(0, 0xf4, tick(500));
    it.write(0, 0x01, tick(500)); // 500
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(1001));
    it.deadline(tick(1001));
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(1501));
  });

  it('mode 3: high for the longer half, counting by two (8254, Mode 3 Square Wave Mode)', () => {
    const it = programmed(0, 0x6, 5);
    const levels = Array.from({ length: 10 }, (_, at) => isHigh(it, 0, tick(1 + at)));
    expect(levels).toEqual([true, true, true, false, false, true, true, true, false, false]);
    expect([1, 2, 3, 4, 5].map((at) => readCount(it, 0, tick(at)))).toEqual([4, 2, 0, 4, 2]);
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(6));
  });

  it('mode 3: a new count takes over at the end of the half cycle (8254, Mode 3)', () => {
    const it = programmed(0, 0x6, 100);
    it.write(0, 10, tick(10));
    it.write(0, 0, tick(10));
    // High until tick 51, then low for half of the new count.
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(56));
    it.deadline(tick(56));
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(66));
  });

  it('mode 4: strobes low for one tick after N (8254, Mode 4 Software Triggered Strobe)', () => {
    const it = programmed(0, 0x8, 10);
    expect([10, 11, 12].map((at) => isHigh(it, 0, tick(at)))).toEqual([true, false, true]);
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(12));
    it.deadline(tick(12));
    expect(it.device.nextDeadline(it.state as never)).toBeUndefined();
  });

  it('mode 1 and 5: the gate of channel 2 triggers (8254, Modes 1 and 5)', () => {
    for (const [control, levels] of [
      [0x2, [false, false, true]],
      [0xa, [true, false, true]],
    ] as const) {
      const it = programmed(2, control, 10);
      expect(isHigh(it, 2, tick(50))).toBe(true);
      it.write(PIT.PORT_61, 0x01, tick(100));
      expect([105, 111, 112].map((at) => isHigh(it, 2, tick(at)))).toEqual(
        control === 0x2 ? [false, true, true] : levels,
      );
    }
  });

  it('a low gate of channel 2 halts mode 0, and port 61h bit 5 tells its output (82371AB §4.2.5)', () => {
    const it = programmed(2, 0x0, 100);
    expect(it.read(PIT.PORT_61, tick(500)) & 0x20).toBe(0);
    it.write(PIT.PORT_61, 0x01, tick(1000));
    expect(readCount(it, 2, tick(1050))).toBe(50);
    expect(it.read(PIT.PORT_61, tick(1099)) & 0x21).toBe(0x01);
    expect(it.read(PIT.PORT_61, tick(1100)) & 0x21).toBe(0x21);
  });

  it('toggles the refresh bit of port 61h every 18 ticks (82371AB §4.2.5)', () => {
    const it = new Bench(PIT_8254);
    expect([0, 17, 18, 35, 36].map((at) => it.read(PIT.PORT_61, tick(at)) & 0x10)).toEqual([0, 0, 0x10, 0x10, 0]);
  });

  it('holds a latched count until both bytes are read (8254, Counter Latch Command)', () => {
    const it = programmed(0, 0x4, 1000);
    it.write(PIT.COMMAND, 0x00, tick(101));
    expect(it.write(PIT.COMMAND, 0x00, tick(200))).toEqual([]); // the first latch stays
    expect(readCount(it, 0, tick(500))).toBe(900);
    expect(readCount(it, 0, tick(501))).toBe(500);
  });

  it('reads back status before count (8254, Read-Back Command)', () => {
    const it = programmed(0, 0x4, 1000);
    it.write(PIT.COMMAND, 0xc2, tick(101));
    expect(it.read(0, tick(300))).toBe(0xb4);
    expect(readCount(it, 0, tick(300))).toBe(900);
    const fresh = new Bench(PIT_8254);
    fresh.write(PIT.COMMAND, 0x34);
    fresh.write(PIT.COMMAND, 0xe2);
    expect(fresh.read(0)).toBe(0xf4); // null count: nothing loaded yet
  });

  it('counts in BCD and takes 0 as 10000 (8254, Counter Programming)', () => {
    const it = programmed(0, 0x5, 0);
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(10_001));
    expect(readCount(it, 0, tick(2))).toBe(0x9999);
  });

  it('takes one byte alone with access LSB or MSB (8254, Control Word Format, RW)', () => {
    const it = new Bench(PIT_8254);
    it.write(PIT.COMMAND, 0x14);
    it.write(0, 100);
    expect(it.device.nextDeadline(it.state)).toBe(tick(101));
    expect(it.read(0, tick(11))).toBe(90);
    it.write(PIT.COMMAND, 0x24);
    it.write(0, 2);
    expect(it.device.nextDeadline(it.state)).toBe(tick(513));
    given(PIT_8254).when(read(PIT.COMMAND)).thenValue(0xff);
  });

  it('makes one event of edges that passed unheard', () => {
    const it = programmed(0, 0x4, 10);
    expect(it.deadline(tick(1234))).toHaveLength(1);
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(1241));
  });
});

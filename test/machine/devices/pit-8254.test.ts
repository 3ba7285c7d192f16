import { describe, expect, it } from 'vitest';
import { PIT, PIT_8254, PIT_HERTZ } from '../../../src/machine/devices/pit-8254.js';
import { countAt, outputAt, type PitChannelState, statusAt } from '../../../src/machine/devices/pit-channel.js';
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

  it('takes counts of a byte alone, or of two, and reads alike (8254, Control Word Format, RW)', () => {
    for (const [access, bytes, count] of [
      [1, [0x34], 0x34],
      [2, [0x12], 0x1200],
      [3, [0x34, 0x12], 0x1234],
    ] as const) {
      const it = new Bench(PIT_8254);
      it.write(PIT.COMMAND, (access << 4) | 0x04);
      for (const byte of bytes) it.write(0, byte);
      expect(it.state.channels[0]?.register).toBe(count);
      expect(bytes.map(() => it.read(0, tick(1)))).toEqual(bytes);
    }
  });

  it('keeps the order of writing apart from that of reading (8254, Read Operations)', () => {
    const it = programmed(0, 0x4, 0x1234);
    expect(it.read(0, tick(1))).toBe(0x34);
    it.write(0, 0x78, tick(1));
    expect(it.read(0, tick(1))).toBe(0x12);
    it.write(0, 0x56, tick(1));
    expect(it.state.channels[0]?.register).toBe(0x5678);
  });

  it('forgets latches and a half-written count with a new control word (8254, Counter Latch Command)', () => {
    const it = programmed(0, 0x4, 0x1234);
    it.write(PIT.COMMAND, 0xc2, tick(1)); // latches status and count
    it.write(0, 0x11, tick(1));
    it.write(PIT.COMMAND, 0x34, tick(1));
    expect(it.state.channels[0]).toMatchObject({ latchedCount: null, latchedStatus: null, lowByte: null });
  });

  it('latches several channels with one read-back command (8254, Read-Back Command)', () => {
    const it = programmed(0, 0x4, 100);
    it.write(PIT.COMMAND, 0x76, tick(0));
    it.write(1, 50, tick(0));
    it.write(1, 0, tick(0));
    expect(it.write(PIT.COMMAND, 0xd6, tick(11))).toHaveLength(2); // counts of channels 0 and 1
    expect(readCount(it, 0, tick(500))).toBe(90);
    expect(readCount(it, 1, tick(500))).toBe(30);
    it.write(PIT.COMMAND, 0xe6, tick(20));
    expect(it.write(PIT.COMMAND, 0xe2, tick(40))).toEqual([]); // the first status stays
    expect([it.read(0, tick(500)), it.read(1, tick(500))]).toEqual([0xb4, 0xb6]);
  });

  it('treats modes 6 and 7 as 2 and 3 (8254, Control Word Format, M2 don’t care)', () => {
    expect([0x0c, 0x0e].map((control) => programmed(0, control, 10).state.channels[0]?.mode)).toEqual([2, 3]);
  });

  it('makes one event of edges that passed unheard', () => {
    const it = programmed(0, 0x4, 10);
    expect(it.deadline(tick(1234))).toHaveLength(1);
    expect(it.device.nextDeadline(it.state as never)).toBe(tick(1241));
  });
});

/**
 * Waveforms as the figures of the mode definitions draw them. A count of one byte is written at tick 0, and the pulse of
 * tick 1 loads it. What stands at a tick is what holds after its pulse and after what is done there.
 */
interface Waveform {
  readonly what: string;
  readonly mode: number;
  readonly count: number;
  readonly bcd?: boolean;
  /** The gate from tick 0 on; high when absent. */
  readonly gate?: string;
  /** Counts written later, by tick. */
  readonly written?: Readonly<Record<number, number>>;
  /** OUT from tick 0 on. */
  readonly out: string;
  /** The counting element from tick 1 on, in hexadecimal. */
  readonly counts: string;
  /** Null count from tick 0 on; only at tick 0 when absent. */
  readonly unloaded?: string;
}

const WAVEFORMS: readonly Waveform[] = [
  { mode: 0, what: 'rises once', count: 4, out: '0000011', counts: '4 3 2 1 0 ffff' },
  { mode: 0, what: 'halts at a low gate', count: 3, gate: '1001111', out: '0000001', counts: '3 3 3 2 1 0' },
  { mode: 0, what: 'is loaded at a low gate', count: 2, gate: '0000111', out: '0000001', counts: '2 2 2 2 1 0' },
  { mode: 0, what: 'starts anew', count: 3, written: { 2: 2 }, out: '000001', counts: '3 2 2 1 0', unloaded: '101000' },
  {
    mode: 0,
    what: 'falls with a new count',
    count: 1,
    written: { 3: 2 },
    out: '0010001',
    counts: '1 0 ffff 2 1 0',
    unloaded: '1001000',
  },
  { mode: 0, what: 'counts in BCD', count: 0x10, bcd: true, out: '0000', counts: '10 9 8' },
  {
    mode: 1,
    what: 'waits for its trigger',
    count: 3,
    gate: '0011111',
    out: '1110001',
    counts: '0 0 3 2 1 0',
    unloaded: '1110000',
  },
  {
    mode: 1,
    what: 'goes on at a low gate',
    count: 3,
    gate: '01000000',
    out: '11000111',
    counts: '0 3 2 1 0 ffff fffe',
    unloaded: '11000000',
  },
  {
    mode: 1,
    what: 'is triggered again',
    count: 3,
    gate: '01011111',
    out: '11000001',
    counts: '0 3 2 3 2 1 0',
    unloaded: '11000000',
  },
  {
    mode: 1,
    what: 'takes a new count with the next trigger',
    count: 2,
    gate: '010011111',
    written: { 2: 4 },
    out: '110010000',
    counts: '0 2 1 0 4 3 2 1',
    unloaded: '111110000',
  },
  { mode: 2, what: 'is low for the last tick', count: 3, out: '11101101', counts: '3 2 1 3 2 1 3' },
  {
    mode: 2,
    what: 'is loaded again by the gate',
    count: 3,
    gate: '110001111',
    out: '111111110',
    counts: '3 2 2 2 2 3 2 1',
  },
  {
    mode: 2,
    what: 'rises with the falling gate',
    count: 3,
    gate: '11101111',
    out: '11111110',
    counts: '3 2 1 1 3 2 1',
  },
  {
    mode: 2,
    what: 'takes a new count at the end of the cycle',
    count: 4,
    written: { 2: 5 },
    out: '1111011110',
    counts: '4 3 2 1 5 4 3 2 1',
    unloaded: '1011100000',
  },
  { mode: 3, what: 'halves an even count', count: 4, out: '11100110', counts: '4 2 4 2 4 2 4' },
  { mode: 3, what: 'is high longer with an odd count', count: 5, out: '1111001110', counts: '4 2 0 4 2 4 2 0 4' },
  {
    mode: 3,
    what: 'rises with the falling gate',
    count: 4,
    gate: '111011111',
    out: '111111100',
    counts: '4 2 4 4 4 2 4 2',
  },
  {
    mode: 3,
    what: 'takes a new count at the end of the half cycle',
    count: 6,
    written: { 1: 4 },
    out: '111100110',
    counts: '6 4 2 4 2 4 2 4',
    unloaded: '111100000',
  },
  { mode: 4, what: 'strobes once', count: 3, out: '111101', counts: '3 2 1 0 ffff' },
  { mode: 4, what: 'halts at a low gate', count: 3, gate: '00011111', out: '11111101', counts: '3 3 3 2 1 0 ffff' },
  {
    mode: 4,
    what: 'is triggered by a new count',
    count: 3,
    written: { 2: 2 },
    out: '1111101',
    counts: '3 2 2 1 0 ffff',
    unloaded: '1010000',
  },
  { mode: 4, what: 'goes on through 9999 in BCD', count: 1, bcd: true, out: '1101', counts: '1 0 9999' },
  {
    mode: 5,
    what: 'strobes after its trigger',
    count: 3,
    gate: '0100000',
    out: '1111101',
    counts: '0 3 2 1 0 ffff',
    unloaded: '1100000',
  },
  {
    mode: 5,
    what: 'is triggered again',
    count: 3,
    gate: '010111111',
    out: '111111101',
    counts: '0 3 2 3 2 1 0 ffff',
    unloaded: '110000000',
  },
];

describe('8254 waveforms of channel 2 (8254, Mode Definitions)', () => {
  it.each(WAVEFORMS)('mode $mode: $what', ({ mode, count, bcd, gate, written = {}, out, counts, unloaded }) => {
    const it = new Bench(PIT_8254);
    const levels = gate ?? '1'.repeat(out.length);
    it.write(PIT.PORT_61, Number(levels[0]));
    it.write(PIT.COMMAND, 0x90 | (mode << 1) | (bcd === true ? 1 : 0));
    it.write(PIT.CHANNEL_2, count);
    const seen: [out: string, counts: string[], unloaded: string] = ['', [], ''];
    for (const [at, level] of [...levels].entries()) {
      const later = written[at];
      if (later !== undefined) it.write(PIT.CHANNEL_2, later, tick(at));
      it.write(PIT.PORT_61, Number(level), tick(at));
      const channel = it.state.channels[2] as PitChannelState;
      seen[0] += outputAt(channel, at) ? '1' : '0';
      if (at > 0) seen[1].push(countAt(channel, at).toString(16));
      seen[2] += (statusAt(channel, at) & 0x40) !== 0 ? '1' : '0';
    }
    expect(seen).toEqual([out, counts.split(' '), unloaded ?? '1'.padEnd(out.length, '0')]);
  });
});

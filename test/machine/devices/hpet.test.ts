import { describe, expect, it } from 'vitest';
import { decideWideWrite, HPET_TIMERS } from '../../../src/machine/devices/hpet.js';
import { HPET, HPET_BASE } from '../../../src/machine/devices/hpet-state.js';
import { LAPIC } from '../../../src/machine/devices/local-apic-state.js';
import { PIT_HERTZ } from '../../../src/machine/devices/pit-8254.js';
import { timeOfTick } from '../../../src/machine/devices/ticks.js';
import { nanoseconds } from '../../../src/machine/units.js';
import { Board } from './board.js';
import { Bench, given, read, write } from './given.js';

const TICK = 10;
const ENABLE = 0x1;
const LEGACY = 0x2;
const LEVEL = 0x0002;
const INTERRUPTS = 0x0004;
const PERIODIC = 0x0008;
const VAL_SET = 0x0040;
const BITS_32 = 0x0100;
const MESSAGES = 0x4000;
const input = (pin: number): number => pin << 9;
const configOf = (timer: number): number => HPET.TIMER_0 + timer * HPET.TIMER_BYTES;
const comparatorOf = (timer: number): number => configOf(timer) + HPET.TIMER_COMPARATOR;

class HpetBench extends Bench<ReturnType<typeof HPET_TIMERS.initial>, Parameters<typeof HPET_TIMERS.reduce>[1]> {
  constructor() {
    super(HPET_TIMERS);
  }
  get(register: number, at = 0): number {
    return this.read(register, at, 4);
  }
  set(register: number, value: number, at = 0) {
    return this.write(register, value, at, 4);
  }
  wide(register: number, value: bigint, at = 0) {
    const [low, high] = [Number(value & 0xffff_ffffn), Number(value >> 32n)];
    return this.apply(decideWideWrite(this.state, register, low, high, nanoseconds(at)));
  }
  getWide(register: number, at = 0): bigint {
    return (BigInt(this.get(register + 4, at)) << 32n) | BigInt(this.get(register, at));
  }
  get next() {
    return this.device.nextDeadline(this.state);
  }
  /** The times of the next matches that interrupt. */
  matches(count: number): (number | undefined)[] {
    return Array.from({ length: count }, () => {
      const { next } = this;
      if (next !== undefined) this.deadline(next);
      return next;
    });
  }
}

describe('HPET registers', () => {
  it('comes up halted at zero, with comparators of all ones and interrupts off (HPET §3.1 Initial State)', () => {
    const it = new HpetBench();
    expect([it.getWide(HPET.CAPABILITIES), it.get(HPET.CONFIG), it.getWide(HPET.COUNTER, 1000)]).toEqual([
      0x0098_9680_8086_a201n, // 10^7 fs a tick; Intel's, revision 1, three timers, 64 bits, legacy replacement
      0,
      0n,
    ]);
    expect([0, 1, 2].map((timer) => it.getWide(comparatorOf(timer)))).toEqual(Array(3).fill(2n ** 64n - 1n));
    expect([0, 1, 2].map((timer) => it.getWide(configOf(timer)))).toEqual([
      0x00f0_0000_0000_0030n,
      0x00f0_0000_0000_0030n,
      0x00f0_0800_0000_0030n,
    ]);
    expect(it.next).toBeUndefined();
  });

  it('ignores writes to read-only and reserved registers, and to timers that there are not (HPET §2.3.2)', () => {
    const it = new HpetBench();
    for (const register of [HPET.CAPABILITIES, 0x008, HPET.CONFIG + 4, 0x0f8, 0x118, 0x104, 0x160, 0x168, 0x3fc]) {
      expect([register, it.set(register, 0xffff_ffff)]).toEqual([register, []]);
    }
    expect([0x008, 0x0f8, 0x118, 0x160, 0x3f8].map((register) => it.getWide(register))).toEqual([0n, 0n, 0n, 0n, 0n]);
  });

  it('keeps what can be written of a timer’s configuration, and inputs that it can take (HPET §2.3.8)', () => {
    const it = new HpetBench();
    it.set(configOf(0), 0xffff_ffff & ~input(31));
    expect(it.get(configOf(0))).toBe(LEVEL | INTERRUPTS | PERIODIC | VAL_SET | BITS_32 | 0x30);
    it.set(configOf(2), input(11));
    expect(it.get(configOf(2))).toBe(input(11) | 0x30);
    it.set(configOf(2), input(12));
    expect(it.get(configOf(2))).toBe(input(11) | 0x30);
    it.set(configOf(1), VAL_SET); // means nothing without periodic mode
    expect(it.get(configOf(1))).toBe(0x30);
  });

  it('reads bytes of words, and loses writes that are not of words (HPET §2.3.2)', () => {
    given(HPET_TIMERS)
      .when(read(HPET.CAPABILITIES + 2, 0, 2))
      .thenValue(0x8086);
    given(HPET_TIMERS)
      .when(read(HPET.CAPABILITIES + 5, 0, 1))
      .thenValue(0x96);
    for (const size of [1, 2])
      given(HPET_TIMERS)
        .when(write(HPET.CONFIG, 1, 0, size))
        .then();
    given(HPET_TIMERS)
      .when(write(HPET.CONFIG, 1, 30, 4))
      .then({ type: 'hpet.written', register: HPET.CONFIG, low: 1, high: null, at: 30 });
    given(HPET_TIMERS)
      .when(write(HPET.CONFIG, 0, 30, 4))
      .then();
  });
});

describe('HPET main counter', () => {
  it('counts 100 MHz while enabled, from its own phase, and stands still while not (HPET §2.3.5, §2.3.7)', () => {
    const it = new HpetBench();
    it.set(HPET.CONFIG, ENABLE, 103);
    expect([103, 112, 113, 1103].map((at) => it.get(HPET.COUNTER, at))).toEqual([0, 0, 1, 100]);
    it.set(HPET.CONFIG, 0, 1108);
    expect(it.get(HPET.COUNTER, 9999)).toBe(100);
    it.set(HPET.CONFIG, ENABLE, 20_000);
    expect(it.get(HPET.COUNTER, 20_010)).toBe(101);
  });

  it('is written in words or as a whole, halted or running, and carries into its high word', () => {
    const it = new HpetBench();
    it.set(HPET.COUNTER, 0xffff_fffe);
    it.set(HPET.COUNTER + 4, 0x1234);
    it.set(HPET.CONFIG, ENABLE);
    expect(it.getWide(HPET.COUNTER, 2 * TICK)).toBe(0x1235_0000_0000n);
    it.wide(HPET.COUNTER, 2n ** 64n - 1n, 2 * TICK);
    expect(it.getWide(HPET.COUNTER, 3 * TICK)).toBe(0n);
  });
});

describe('HPET comparators', () => {
  it('match once in non-periodic mode, in 64 bits (HPET §2.3.9.2.1 Non-Periodic Mode)', () => {
    const it = new HpetBench();
    it.set(configOf(0), INTERRUPTS);
    it.wide(comparatorOf(0), 1000n);
    it.set(HPET.CONFIG, ENABLE);
    expect(it.matches(2)).toEqual([1000 * TICK, undefined]); // again only after 2^64 ticks
    expect(it.getWide(comparatorOf(0), 20_000)).toBe(1000n);
  });

  it('match again when 32 bits have wrapped, in 32-bit mode (HPET §2.3.9.2.1)', () => {
    const it = new HpetBench();
    it.set(configOf(0), INTERRUPTS | BITS_32);
    it.wide(comparatorOf(0), 0xffff_ffff_0000_0100n);
    expect(it.getWide(comparatorOf(0))).toBe(0x100n);
    it.set(HPET.CONFIG, ENABLE);
    expect(it.matches(3)).toEqual([0x100, 0x1_0000_0100, 0x2_0000_0100].map((ticks) => ticks * TICK));
  });

  it('are missed when written too late, and met when written as the counter stands there (HPET §2.3.9.2.1, warning)', () => {
    const it = new HpetBench();
    it.set(configOf(0), INTERRUPTS);
    it.set(HPET.CONFIG, ENABLE);
    it.wide(comparatorOf(0), 99n, 100 * TICK);
    expect(it.next).toBeUndefined();
    it.wide(comparatorOf(0), 200n, 200 * TICK);
    expect(it.next).toBe(200 * TICK);
  });

  it('go on by what was last written in periodic mode, through zero (HPET §2.3.9.1)', () => {
    const it = new HpetBench();
    it.set(configOf(0), INTERRUPTS | PERIODIC | VAL_SET | BITS_32);
    it.set(comparatorOf(0), 0xffff_0000);
    it.set(comparatorOf(0), 0x2_0000);
    it.set(HPET.COUNTER, 0xfffe_ffff);
    it.set(HPET.CONFIG, ENABLE);
    expect(it.matches(1)).toEqual([TICK]);
    expect(it.get(comparatorOf(0), TICK)).toBe(0x0001_0000);
    expect(it.matches(2)).toEqual([(1 + 0x2_0000) * TICK, (1 + 0x4_0000) * TICK]);
  });

  it.each([
    ['one write with VAL_SET sets comparator and period', [0x123n], [0x123, 0x246, 0x369]],
    ['the next write sets the period alone', [0x123n, 0x10n], [0x123, 0x133, 0x143]],
  ])('in periodic mode %s (HPET §2.3.9.1, §2.3.9.2.2)', (_, writes, matches) => {
    const it = new HpetBench();
    it.set(configOf(1), INTERRUPTS | PERIODIC | VAL_SET);
    for (const value of writes) it.wide(comparatorOf(1), value);
    expect(it.get(configOf(1)) & VAL_SET).toBe(0);
    it.set(HPET.CONFIG, ENABLE);
    expect(it.matches(3)).toEqual(matches.map((ticks) => ticks * TICK));
  });

  it('take a new period at the next match (HPET §2.4.3.2 Periodic Mode)', () => {
    const it = new HpetBench();
    it.set(configOf(0), INTERRUPTS | PERIODIC | VAL_SET);
    it.wide(comparatorOf(0), 100n);
    it.set(HPET.CONFIG, ENABLE);
    it.wide(comparatorOf(0), 30n, 50 * TICK);
    expect(it.getWide(comparatorOf(0), 50 * TICK)).toBe(100n);
    expect(it.matches(3)).toEqual([100, 130, 160].map((ticks) => ticks * TICK));
    expect(it.getWide(comparatorOf(0), 165 * TICK)).toBe(190n);
  });

  it('need VAL_SET again for each half that is written apart (HPET §2.3.8, it clears by itself)', () => {
    const it = new HpetBench();
    const half = (register: number, value: number, valSet: boolean) => {
      it.set(configOf(0), INTERRUPTS | PERIODIC | (valSet ? VAL_SET : 0));
      it.set(register, value);
    };
    half(comparatorOf(0), 0x10, true);
    half(comparatorOf(0) + 4, 0x1, true);
    expect(it.getWide(comparatorOf(0))).toBe(0x1_0000_0010n);
    half(comparatorOf(0) + 4, 0x2, false);
    expect(it.getWide(comparatorOf(0))).toBe(0x1_0000_0010n);
    expect(it.state.timers[0]?.period).toEqual({ low: 0x10, high: 0x2 });
  });

  it('tell their progress without an event for each match', () => {
    const it = new HpetBench();
    it.set(configOf(0), PERIODIC | VAL_SET); // its interrupt is off
    it.wide(comparatorOf(0), 7n);
    it.set(HPET.CONFIG, ENABLE);
    expect(it.next).toBeUndefined();
    expect(it.getWide(comparatorOf(0), 7_000_000 * TICK)).toBe(7_000_007n);
  });
});

describe('HPET interrupts', () => {
  it('keep a level until its status is cleared, and an edge not at all (HPET §2.3.6, §2.3.8)', () => {
    const it = new HpetBench();
    it.set(configOf(0), INTERRUPTS | PERIODIC | VAL_SET | LEVEL | input(20));
    it.wide(comparatorOf(0), 100n);
    it.set(HPET.CONFIG, ENABLE);
    expect(it.matches(2)).toEqual([100 * TICK, undefined]); // active already: nothing new happens
    expect([it.line(), it.get(HPET.STATUS, 150 * TICK)]).toEqual([true, 0x1]);
    it.set(HPET.STATUS, 0x6, 150 * TICK);
    expect(it.line()).toBe(true);
    it.set(HPET.STATUS, 0x1, 350 * TICK);
    expect([it.line(), it.next]).toEqual([false, 400 * TICK]);
    const edge = new HpetBench();
    edge.set(configOf(0), INTERRUPTS | input(20));
    edge.wide(comparatorOf(0), 100n);
    edge.set(HPET.CONFIG, ENABLE);
    edge.matches(1);
    expect([edge.line(), edge.get(HPET.STATUS, 101 * TICK)]).toEqual([false, 0]);
  });

  it('set status also while disabled, and interrupt when enabled then (HPET §2.3.8, Tn_INT_ENB_CNF, note)', () => {
    const it = new HpetBench();
    it.set(configOf(2), LEVEL | input(21));
    it.wide(comparatorOf(2), 100n);
    it.set(HPET.CONFIG, ENABLE);
    expect([it.get(HPET.STATUS, 99 * TICK), it.get(HPET.STATUS, 100 * TICK)]).toEqual([0, 0x4]);
    it.set(configOf(2), LEVEL | INTERRUPTS | input(21), 100 * TICK);
    expect(it.line()).toBe(true);
    it.set(HPET.CONFIG, 0, 100 * TICK); // the overall enable takes all interrupts away
    expect([it.line(), it.get(HPET.STATUS, 100 * TICK)]).toEqual([false, 0x4]);
  });
});

const HPET_PAGE = HPET_BASE;

describe('HPET wiring', () => {
  const started = (board: Board, timer: number, config: number, ticks: number, general = ENABLE) => {
    board.store(0, HPET_PAGE + configOf(timer), config);
    board.storeWide(HPET_PAGE + comparatorOf(timer), ticks, 0);
    board.store(0, HPET_PAGE + HPET.CONFIG, general);
  };

  it('brings an edge to the I/O APIC input of the timer’s choice (HPET §2.4.2.2 Standard Option)', () => {
    const it = new Board();
    it.redirect(20, 0x44);
    started(it, 0, INTERRUPTS | PERIODIC | VAL_SET | input(20), 100);
    it.jump();
    expect([it.now, it.acknowledge()]).toEqual([100 * TICK, 0x44]);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.pending()).toBeUndefined();
    it.jump();
    expect([it.now, it.acknowledge()]).toEqual([200 * TICK, 0x44]);
    expect(it.events.filter(({ type }) => type === 'hpet.fired')).toHaveLength(2);
  });

  it('brings timer 2 to IRQ 11 of the 8259 pair as well', () => {
    const it = new Board();
    it.initializePIC();
    started(it, 2, INTERRUPTS | input(11), 100);
    it.jump();
    expect(it.acknowledge()).toBe(0x2b);
  });

  it('shares a level until its status is cleared (HPET §2.4.6 Handling Interrupts)', () => {
    const it = new Board();
    it.redirect(21, 0x8045);
    started(it, 1, INTERRUPTS | LEVEL | input(21), 100);
    it.jump();
    expect(it.acknowledge()).toBe(0x45);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.acknowledge()).toBe(0x45);
    it.store(0, HPET_PAGE + HPET.STATUS, 0x2);
    it.lapic(0, LAPIC.EOI, 0);
    expect(it.pending()).toBeUndefined();
  });

  it('takes the place of the 8254 and the clock: IRQ 0 and 8, inputs 2 and 8 (HPET §2.4.2.1 LegacyReplacement)', () => {
    const it = new Board();
    it.initializePIC();
    it.startTimer();
    it.out(0x70, 0x0b);
    it.out(0x71, 0x42); // 1024 Hz
    it.acknowledge(); // mode 2 raised the output as it was programmed
    it.out(0x20, 0x20);
    started(it, 0, INTERRUPTS | PERIODIC | VAL_SET | input(20), 20_000, ENABLE | LEGACY);
    started(it, 1, INTERRUPTS | LEVEL, 30_000, ENABLE | LEGACY);
    while (it.now < 200_000) it.jump();
    expect([it.now, it.acknowledge()]).toEqual([200_000, 0x20]);
    expect(it.events.filter(({ type }) => type === 'pit.output')).toEqual([]);
    it.out(0x20, 0x20);
    while (it.now < 300_000) it.jump();
    expect([it.now, it.acknowledge()]).toEqual([300_000, 0x28]);
    it.out(0xa0, 0x20);
    it.out(0x20, 0x20);
    it.store(0, HPET_PAGE + HPET.STATUS, 0x2);
    it.redirect(2, 0x42);
    it.jump();
    while (it.pending() === undefined) it.jump();
    expect(it.now).toBe(400_000);
    // Back to the legacy timers.
    it.acknowledge();
    it.out(0x20, 0x20);
    it.store(0, HPET_PAGE + HPET.CONFIG, ENABLE);
    it.jump();
    expect(it.now).toBe(timeOfTick(Math.ceil(((it.now - 1) * PIT_HERTZ) / 1e9), PIT_HERTZ));
    expect(it.acknowledge()).toBe(0x20);
  });

  it('has no message option unless configured (HPET §2.3.8, Tn_FSB_INT_DEL_CAP)', () => {
    const it = new Board();
    it.store(0, HPET_PAGE + configOf(0), MESSAGES);
    expect(it.load(0, HPET_PAGE + configOf(0))).toBe(0x30);
  });

  it('sends messages to local APICs, past the legacy routes (HPET §2.4.2.3 FSB Option)', () => {
    const it = new Board(2, { hpetMessages: true });
    it.storeWide(HPET_PAGE + configOf(0) + HPET.TIMER_ROUTE, 0x0000_0077, 0xfee0_1000);
    started(it, 0, INTERRUPTS | MESSAGES | PERIODIC | VAL_SET, 100, ENABLE | LEGACY);
    expect(it.load(0, HPET_PAGE + configOf(0))).toBe(INTERRUPTS | MESSAGES | PERIODIC | 0x8030);
    it.jump();
    expect([it.pending(0), it.pending(1)]).toEqual([undefined, { kind: 'apic', vector: 0x77 }]);
    it.storeWide(HPET_PAGE + configOf(0) + HPET.TIMER_ROUTE, 0x0000_0400, 0xfee0_0000);
    it.jump();
    expect(it.signals).toEqual([{ vcpu: 0, kind: 'nmi', vector: 0 }]);
    it.storeWide(HPET_PAGE + configOf(0) + HPET.TIMER_ROUTE, 0x0000_0077, 0x0010_0000); // no interrupt space
    const before = it.events.length;
    it.jump();
    expect(it.events.slice(before)).toEqual([{ type: 'hpet.fired', timers: 1, at: 300 * TICK }]);
  });
});

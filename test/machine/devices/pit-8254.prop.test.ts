/** The 8254 as a function of time, held against a counter that is stepped pulse by pulse. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PIT, PIT_8254, PIT_HERTZ } from '../../../src/machine/devices/pit-8254.js';
import { countAt, outputAt, type PitChannelState, statusAt } from '../../../src/machine/devices/pit-channel.js';
import { timeOfTick } from '../../../src/machine/devices/ticks.js';
import { Bench } from './given.js';
import { ReferenceCounter } from './reference-8254.js';

const SPEAKER_CHANNEL = 2;
const NULL_COUNT = 0x40;

/** Small counts, where everything happens; 0 stands for the largest. */
const COUNT = fc.oneof(
  fc.integer({ min: 1, max: 12 }),
  fc.integer({ min: 1, max: 99 }),
  fc.constantFrom(0, 2, 3, 256, 9999),
);
const STEP = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait' as const), ticks: fc.nat(30) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('count' as const), count: COUNT, between: fc.nat(3) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('gate' as const), level: fc.boolean() }) },
);
type Step = typeof STEP extends fc.Arbitrary<infer Value> ? Value : never;

const toBCD = (count: number): number => Number.parseInt(String(count), 16);

/** A device and a reference side by side on one channel. */
class Pair {
  readonly device = new Bench(PIT_8254);
  readonly reference: ReferenceCounter;
  tick = 0;
  /** Rising edges of OUT that the clock brought about. */
  readonly edges: number[] = [];

  constructor(
    readonly channel: number,
    readonly mode: number,
    readonly bcd: boolean,
  ) {
    this.reference = new ReferenceCounter(mode, bcd, channel !== SPEAKER_CHANNEL);
    this.device.write(PIT.COMMAND, (channel << 6) | 0x30 | (mode << 1) | (bcd ? 1 : 0));
  }
  private get now(): number {
    return timeOfTick(this.tick, PIT_HERTZ);
  }
  get state(): PitChannelState {
    return this.device.state.channels[this.channel] as PitChannelState;
  }
  wait(ticks: number, look: () => void): void {
    for (let passed = 0; passed < ticks; passed += 1) {
      const before = this.reference.out;
      this.reference.clock();
      this.tick += 1;
      if (this.reference.out && !before) this.edges.push(this.tick);
      look();
    }
  }
  writeCount(count: number, between: number, look: () => void): void {
    const legal = this.mode === 2 || this.mode === 3 ? count + (count === 1 ? 1 : 0) : count;
    const value = this.bcd ? toBCD(legal) : legal;
    this.device.write(this.channel, value & 0xff, this.now);
    this.reference.writeFirstByte();
    look();
    this.wait(between, look);
    this.device.write(this.channel, value >> 8, this.now);
    this.reference.writeCount(legal);
    look();
  }
  setGate(level: boolean): void {
    this.device.write(PIT.PORT_61, level ? 1 : 0, this.now);
    this.reference.setGate(level);
  }
  take(step: Step, look: () => void): void {
    if (step.kind === 'wait') this.wait(step.ticks, look);
    else if (step.kind === 'count') this.writeCount(step.count, step.between, look);
    else this.setGate(step.level);
    look();
  }
}

describe.each([0, 1, 2, 3, 4, 5])('8254 mode %i', (mode) => {
  it('tells OUT, the counting element and null count at every tick as the stepped counter has them', () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(STEP, { maxLength: 25 }), (bcd, steps) => {
        const pair = new Pair(SPEAKER_CHANNEL, mode, bcd);
        const look = () => {
          const { tick, state, reference } = pair;
          const shown = reference.element ?? 0;
          const seen = [outputAt(state, tick), countAt(state, tick), (statusAt(state, tick) & NULL_COUNT) !== 0];
          expect([tick, ...seen]).toEqual([tick, reference.out, bcd ? toBCD(shown) : shown, reference.nullCount]);
        };
        for (const step of steps) pair.take(step, look);
      }),
      { numRuns: 400 },
    );
  });

  it('has each rising edge of channel 0 as its deadline, none late and none too many', () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(STEP, { maxLength: 25 }), (bcd, steps) => {
        const pair = new Pair(0, mode, bcd);
        const stated: number[] = [];
        const look = () => {
          const deadline = pair.device.device.nextDeadline(pair.device.state);
          if (deadline === undefined || deadline > timeOfTick(pair.tick, PIT_HERTZ)) return;
          expect(deadline).toBe(timeOfTick(pair.tick, PIT_HERTZ));
          pair.device.deadline(deadline);
          stated.push(pair.tick);
        };
        for (const step of steps) if (step.kind !== 'gate') pair.take(step, look);
        expect(stated).toEqual(pair.edges);
      }),
      { numRuns: 400 },
    );
  });
});

/** The HPET as a function of time, held against one whose counter is stepped tick by tick. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decideWideWrite, HPET_TIMERS } from '../../../src/machine/devices/hpet.js';
import { HPET } from '../../../src/machine/devices/hpet-state.js';
import { nanoseconds } from '../../../src/machine/units.js';
import { Bench } from './given.js';

const TICK = 10;
const LEVEL = 0x002;
const INTERRUPTS = 0x004;
const PERIODIC = 0x008;
const VAL_SET = 0x040;
const BITS_32 = 0x100;

/** One comparator and the counter, as §2.3.9 tells them. */
class Reference {
  counter = 0n;
  enabled = false;
  config = 0;
  comparator = 2n ** 64n - 1n;
  period = 0n;
  status = false;
  fired = 0;
  private written = false;

  private get mask(): bigint {
    return (this.config & BITS_32) !== 0 ? 2n ** 32n - 1n : 2n ** 64n - 1n;
  }
  private match(): void {
    const level = (this.config & LEVEL) !== 0;
    if ((this.config & INTERRUPTS) !== 0 && !(level && this.status)) this.fired += 1;
    if (level) this.status = true;
    if ((this.config & PERIODIC) !== 0) this.comparator = (this.comparator + this.period) & this.mask;
  }
  private get equal(): boolean {
    return ((this.counter ^ this.comparator) & this.mask) === 0n;
  }
  /** What was programmed is looked at once, as soon as the counter runs. */
  look(): void {
    if (!this.enabled) return;
    if (this.written && this.equal) this.match();
    this.written = false;
  }
  clock(): void {
    if (!this.enabled) return;
    this.counter = (this.counter + 1n) & (2n ** 64n - 1n);
    if (this.equal) this.match();
  }
  configure(config: number): void {
    this.config = (config & PERIODIC) === 0 ? config & ~VAL_SET : config;
    if ((config & LEVEL) === 0) this.status = false;
    this.comparator &= this.mask;
    this.period &= this.mask;
  }
  compare(value: bigint): void {
    this.period = value & this.mask;
    if ((this.config & PERIODIC) === 0 || (this.config & VAL_SET) !== 0) {
      this.comparator = value & this.mask;
      this.written = true;
    }
    this.config &= ~VAL_SET;
  }
  count(value: bigint): void {
    this.counter = value;
    this.written = true;
  }
}

/** Values near each other, and near the ends of both widths. */
const NEAR = fc.record({
  base: fc.constantFrom(0n, 2n ** 32n - 20n, 2n ** 32n, 2n ** 64n - 20n),
  offset: fc.bigInt(0n, 40n),
});
const STEP = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), ticks: fc.nat(40) }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('compare' as const), value: fc.oneof(fc.bigInt(0n, 30n), NEAR) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('count' as const), value: NEAR }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('enable' as const), on: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('configure' as const),
      bits: fc.subarray([LEVEL, INTERRUPTS, INTERRUPTS, PERIODIC, PERIODIC | VAL_SET, BITS_32]),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clear' as const) }) },
);

describe('HPET', () => {
  it('tells counter, comparator, status and interrupts as the stepped one has them', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 }), fc.array(STEP, { maxLength: 30 }), (timer, steps) => {
        const device = new Bench(HPET_TIMERS);
        const reference = new Reference();
        const base = HPET.TIMER_0 + timer * HPET.TIMER_BYTES;
        let now = 0;
        let fired = 0;
        const wide = (register: number, value: bigint) => {
          const [low, high] = [Number(value & 0xffff_ffffn), Number(value >> 32n)];
          device.apply(decideWideWrite(device.state, register, low, high, nanoseconds(now)));
        };
        const readWide = (register: number) =>
          (BigInt(device.read(register + 4, now, 4)) << 32n) | BigInt(device.read(register, now, 4));
        const look = () => {
          reference.look();
          const deadline = device.device.nextDeadline(device.state);
          if (deadline !== undefined && deadline <= now) {
            expect(deadline).toBe(now);
            expect(device.deadline(now)).toEqual([{ type: 'hpet.fired', timers: 1 << timer, at: now }]);
            fired += 1;
          }
          expect([
            readWide(HPET.COUNTER),
            readWide(base + HPET.TIMER_COMPARATOR),
            device.read(HPET.STATUS, now, 4) !== 0,
            fired,
          ]).toEqual([reference.counter, reference.comparator, reference.status, reference.fired]);
        };
        const value = (it: bigint | { readonly base: bigint; readonly offset: bigint }) =>
          typeof it === 'bigint' ? it : BigInt.asUintN(64, it.base + it.offset);
        for (const step of steps) {
          switch (step.kind) {
            case 'wait':
              for (let passed = 0; passed < step.ticks; passed += 1) {
                now += TICK;
                reference.clock();
                look();
              }
              break;
            case 'compare':
              wide(base + HPET.TIMER_COMPARATOR, value(step.value));
              reference.compare(value(step.value));
              break;
            case 'count':
              wide(HPET.COUNTER, value(step.value));
              reference.count(value(step.value));
              break;
            case 'enable':
              device.write(HPET.CONFIG, step.on ? 1 : 0, now, 4);
              reference.enabled = step.on;
              break;
            case 'configure': {
              const config = step.bits.reduce((all, bit) => all | bit, 0);
              device.write(base, config, now, 4);
              reference.configure(config);
              break;
            }
            default:
              device.write(HPET.STATUS, 0xffff_ffff, now, 4);
              reference.status = false;
          }
          look();
        }
      }),
      { numRuns: 500 },
    );
  });
});

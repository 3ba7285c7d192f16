/**
 * given(events).when(access).then(events): a device's history, one access, and what it states.
 */
import { expect } from 'vitest';
import type { Device } from '../../../src/machine/devices/device.js';
import { nanoseconds } from '../../../src/machine/units.js';

/** One access to a device. */
export interface Access {
  readonly kind: 'read' | 'write';
  readonly register: number;
  readonly value: number;
  readonly size: number;
  readonly at: number;
}

export const read = (register: number, at = 0, size = 1): Access => ({ kind: 'read', register, value: 0, size, at });
export const write = (register: number, value: number, at = 0, size = 1): Access => ({
  kind: 'write',
  register,
  value,
  size,
  at,
});

/** Drives one device: decides, applies, remembers. */
export class Bench<State, Event> {
  constructor(
    readonly device: Device<State, Event>,
    public state: State = device.initial(),
  ) {}

  apply(events: readonly Event[]): readonly Event[] {
    for (const event of events) this.device.reduce(this.state, event);
    return events;
  }

  read(register: number, at = 0, size = 1): number {
    const decision = this.device.decideRead(this.state, register, size, nanoseconds(at));
    this.apply(decision.events);
    return decision.value;
  }

  write(register: number, value: number, at = 0, size = 1): readonly Event[] {
    return this.apply(this.device.decideWrite(this.state, register, value, size, nanoseconds(at)));
  }

  deadline(at: number): readonly Event[] {
    return this.apply(this.device.decideDeadline(this.state, nanoseconds(at)));
  }

  line(at = 0): boolean {
    return this.device.interruptLine(this.state, nanoseconds(at));
  }

  /** What an access would state, without applying it. */
  decide(access: Access): { readonly value: number | undefined; readonly events: readonly Event[] } {
    const now = nanoseconds(access.at);
    if (access.kind === 'read') return this.device.decideRead(this.state, access.register, access.size, now);
    const events = this.device.decideWrite(this.state, access.register, access.value, access.size, now);
    return { value: undefined, events };
  }
}

export const given = <State, Event>(device: Device<State, Event>, events: readonly Event[] = []) => {
  const bench = new Bench(device);
  bench.apply(events);
  return {
    bench,
    when: (access: Access) => {
      const { value, events: stated } = bench.decide(access);
      return {
        then: (...expected: readonly Event[]) => expect(stated).toEqual(expected),
        thenValue: (expected: number, ...effects: readonly Event[]) => {
          expect(value).toBe(expected);
          expect(stated).toEqual(effects);
        },
      };
    },
  };
};

/**
 * The Device contract (devices/device.ts), held against every device with pseudo-random accesses.
 */
import fc from 'fast-check';
import { produce } from 'immer';
import { describe, expect, it } from 'vitest';
import { ACPI, ACPI_PM } from '../../../src/machine/devices/acpi-pm-timer.js';
import { DEBUG_EXIT } from '../../../src/machine/devices/debug-exit.js';
import type { Device } from '../../../src/machine/devices/device.js';
import { DEVICE_EVENT_FIELDS, initialDevices } from '../../../src/machine/devices/devices.js';
import { FIRMWARE_CONFIGURATION } from '../../../src/machine/devices/fw-cfg.js';
import { HPET_TIMERS } from '../../../src/machine/devices/hpet.js';
import { HPET, HPET_BYTES } from '../../../src/machine/devices/hpet-state.js';
import { decideLine as decidePin, IO_APIC, type IoApicState } from '../../../src/machine/devices/io-apic.js';
import { LOCAL_APIC } from '../../../src/machine/devices/local-apic.js';
import { decideAccept, decideAcknowledge } from '../../../src/machine/devices/local-apic-acceptance.js';
import type { LocalApicState } from '../../../src/machine/devices/local-apic-state.js';
import { decideTscDeadline } from '../../../src/machine/devices/local-apic-timer.js';
import { PC_TESTDEV, TESTDEV } from '../../../src/machine/devices/pc-testdev.js';
import { PCI_CONFIG } from '../../../src/machine/devices/pci-config.js';
import {
  decideAcknowledge as decideINTA,
  decideLine,
  decidePulse,
  PIC_8259,
  type PicState,
} from '../../../src/machine/devices/pic-8259.js';
import { PIT_8254 } from '../../../src/machine/devices/pit-8254.js';
import { PORT_92 } from '../../../src/machine/devices/port92.js';
import { POST_CODE } from '../../../src/machine/devices/post-code.js';
import { RESET_PORT } from '../../../src/machine/devices/reset-port.js';
import { RTC_MC146818 } from '../../../src/machine/devices/rtc-mc146818.js';
import { decideReceive, UART, type UartState } from '../../../src/machine/devices/uart-16550.js';
import { nanoseconds } from '../../../src/machine/units.js';

type Event = { readonly type: string };

interface Subject<State> {
  readonly device: Device<State, Event>;
  readonly registers: readonly number[];
  readonly sizes?: readonly number[];
  /** Decisions other than accesses: lines, messages, bytes that arrive. */
  readonly others?: (state: State, value: number) => readonly Event[];
}

const range = (count: number, step = 1): number[] => Array.from({ length: count }, (_, index) => index * step);
/** The device's own event type is forgotten here: the suite only passes events back to the device that stated them. */
const subject = <State, Own extends Event>(
  device: Device<State, Own>,
  registers: readonly number[],
  more: Omit<Subject<State>, 'device' | 'registers'> = {},
): Subject<unknown> => ({ device, registers, ...more }) as unknown as Subject<unknown>;

const SUBJECTS: Readonly<Record<string, Subject<unknown>>> = {
  uart: subject(UART, range(8), { others: (state: UartState, value) => decideReceive(state, [value & 0xff, 1, 2]) }),
  pic: subject(PIC_8259, range(6), {
    others: (state: PicState, value) => {
      if ((value & 0x30) === 0) return decideINTA(state).events;
      if ((value & 0x30) === 0x10) return decidePulse(state, value & 0xf);
      return decideLine(state, value & 0xf, (value & 0x80) !== 0);
    },
  }),
  pit: subject(PIT_8254, range(5)),
  rtc: subject(RTC_MC146818, range(2)),
  'local APIC': subject(LOCAL_APIC, [...range(0x40, 0x10), 0x320, 0x380, 0x3e0, 0x320, 0x380, 0xf0, 0xf0], {
    sizes: [4],
    others: (state: LocalApicState, value) => {
      if ((value & 0x300) === 0) return decideAcknowledge(state).events;
      if ((value & 0x300) === 0x100) return decideTscDeadline(state, BigInt(value), 0n, nanoseconds(0));
      return decideAccept(state, value & 0xff, (value & 0x400) !== 0);
    },
  }),
  'I/O APIC': subject(IO_APIC, [0, 0x10, 0x40, 0x12], {
    sizes: [4, 4, 2, 1],
    others: (state: IoApicState, value) => decidePin(state, value % 24, (value & 0x80) !== 0),
  }),
  acpi: subject(ACPI_PM, range(ACPI.PORTS), { sizes: [1, 2, 4] }),
  'port 92': subject(PORT_92, [0]),
  reset: subject(RESET_PORT, range(3)),
  'debug-exit': subject(DEBUG_EXIT, range(4), { sizes: [1, 2, 4] }),
  'fw-cfg': subject(FIRMWARE_CONFIGURATION, range(2), { sizes: [1, 2] }),
  pci: subject(PCI_CONFIG, range(8), { sizes: [1, 2, 4] }),
  testdev: subject(PC_TESTDEV, [0, 1, 2, 4, TESTDEV.LINES, TESTDEV.LINES + 23, TESTDEV.MEMORY, TESTDEV.MEMORY + 3], {
    sizes: [1, 2, 4],
  }),
  hpet: subject(
    HPET_TIMERS,
    [
      ...range(HPET_BYTES / 4, 4),
      ...range(60).flatMap(() => [HPET.CONFIG, HPET.STATUS, HPET.COUNTER, HPET.TIMER_0, HPET.TIMER_0 + 0x28]),
    ],
    { sizes: [4, 4, 2, 1] },
  ),
  'post code': subject(POST_CODE, [0]),
};

/** One step: what kind, which register, what value, how much later. */
const STEP = fc.record({
  kind: fc.constantFrom('read', 'write', 'write', 'other', 'deadline'),
  place: fc.nat(0xff),
  size: fc.nat(2),
  value: fc.oneof(fc.nat(0xff), fc.integer({ min: 0, max: 0xffff_ffff })),
  later: fc.oneof(fc.nat(2_000), fc.nat(3_000_000_000)),
});
type Step = typeof STEP extends fc.Arbitrary<infer Value> ? Value : never;

function decide(it: Subject<unknown>, state: unknown, step: Step, time: number): readonly Event[] {
  const now = nanoseconds(time);
  const register = it.registers[step.place % it.registers.length] ?? 0;
  const sizes = it.sizes ?? [1];
  const size = sizes[step.size % sizes.length] ?? 1;
  const value = size === 4 ? step.value : step.value % 256 ** size;
  switch (step.kind) {
    case 'read': {
      const read = it.device.decideRead(state, register, size, now);
      expect(Number.isInteger(read.value) && read.value >= 0 && read.value < 256 ** size).toBe(true);
      return read.events;
    }
    case 'write':
      return it.device.decideWrite(state, register, value, size, now);
    case 'other':
      return it.others?.(state, step.value) ?? [];
    default: {
      const deadline = it.device.nextDeadline(state);
      return deadline === undefined || deadline > time ? [] : it.device.decideDeadline(state, now);
    }
  }
}

const isPlain = (value: unknown): boolean =>
  value === null ||
  ['string', 'boolean'].includes(typeof value) ||
  (typeof value === 'number' && Number.isSafeInteger(value) && !Object.is(value, -0)) ||
  (Array.isArray(value) && value.every(isPlain)) ||
  (typeof value === 'object' &&
    Object.getPrototypeOf(value) === Object.prototype &&
    Object.values(value).every(isPlain));

describe.each(Object.entries(SUBJECTS))('%s keeps the Device contract', (_name, it_) => {
  const { device } = it_;

  it('starts fresh each time, as plain data', () => {
    expect(device.initial()).toEqual(device.initial());
    expect(device.initial()).not.toBe(device.initial());
    expect(isPlain(device.initial())).toBe(true);
  });

  it('decides without changing, reduces alike in place and under Immer, states plain and catalogued events', () => {
    const fields = DEVICE_EVENT_FIELDS as Readonly<Record<string, readonly string[]>>;
    fc.assert(
      fc.property(fc.array(STEP, { maxLength: 60 }), (steps) => {
        const state = device.initial();
        let folded = produce(device.initial(), () => {});
        let time = 0;
        for (const step of steps) {
          time += step.later;
          const before = structuredClone(state);
          const events = decide(it_, state, step, time);
          expect(state).toEqual(before);
          expect(decide(it_, folded, step, time)).toEqual(events);
          for (const event of events) {
            const { type, ...payload } = event;
            expect(Object.keys(payload).sort()).toEqual([...(fields[type] ?? ['uncatalogued'])].sort());
            expect(isPlain(event)).toBe(true);
            expect(JSON.parse(JSON.stringify(event))).toEqual(event);
            device.reduce(state, event);
            folded = produce(folded, (draft: unknown) => device.reduce(draft, event));
          }
          expect(folded).toEqual(state);
          expect(isPlain(state)).toBe(true);
          expect(typeof device.interruptLine(state, nanoseconds(time))).toBe('boolean');
        }
      }),
      { numRuns: 150 },
    );
  });

  it('moves its deadline forward, past the time at which it was handled', () => {
    fc.assert(
      fc.property(fc.array(STEP, { maxLength: 40 }), fc.nat(5_000_000), (steps, late) => {
        const state = device.initial();
        let time = 0;
        for (const step of steps) {
          time += step.later;
          for (const event of decide(it_, state, step, time)) device.reduce(state, event);
          const deadline = device.nextDeadline(state);
          if (deadline === undefined) continue;
          time = Math.max(time, deadline) + late;
          const events = device.decideDeadline(state, nanoseconds(time));
          expect(events.length).toBeGreaterThan(0);
          for (const event of events) device.reduce(state, event);
          const next = device.nextDeadline(state);
          if (next !== undefined) expect(next).toBeGreaterThan(time);
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('the device set', () => {
  it('is plain data, and fresh each time', () => {
    const config = { ramBytes: 2 ** 27, vcpus: 2 };
    expect(isPlain(initialDevices(config))).toBe(true);
    expect(initialDevices(config)).toEqual(initialDevices(config));
  });
});

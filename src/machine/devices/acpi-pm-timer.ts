/**
 * The fixed ACPI hardware: PM1 event block (600h), PM1 control block (604h) and the power-management timer (608h),
 * which counts 3.579545 MHz as a function of time, in 24 bits or, when configured so, 32.
 *
 * Two events can happen: the timer's highest bit changes (TMR_STS), and the clock's alarm interrupts (RTC_STS). Each is a
 * system control interrupt (SCI, IRQ 9, level-triggered) while its enable is set. The machine is in ACPI mode from the
 * start: SCI_EN is always set, and there is no SMI command port to leave it by. No state but S0 is modelled: a write of
 * SLP_EN ends the machine whatever its SLP_TYP, for nothing could wake it.
 *
 * Invariant: TMR_STS in `status` tells of changes up to `statusSince`; later ones follow from the timer itself.
 *
 * Source: ACPI Specification 6.5, §4.8.3.1 PM1 Event Grouping, §4.8.3.2 PM1 Control Grouping, §4.8.3.3 Power Management
 * Timer.
 */
import { unreachable } from '../errors.js';
import { type Nanoseconds, nanoseconds } from '../units.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';
import { floorDivide, modulo, ticksAt, timeOfTick } from './ticks.js';

export interface AcpiState {
  /** PM1_STS as noted. */
  status: number;
  /** A nanosecond; changes of the timer's highest bit after it are not noted in `status` yet. */
  statusSince: number;
  /** PM1_EN. */
  enable: number;
  /** PM1_CNT without its write-only bits. */
  control: number;
  timerBits: number;
  /** The alarm's interrupt as last seen. */
  alarm: boolean;
}

export type AcpiEvent =
  | { readonly type: 'acpi.enabled'; readonly value: number }
  | { readonly type: 'acpi.controlled'; readonly value: number }
  /** SLP_EN was written. */
  | { readonly type: 'acpi.sleep-requested'; readonly sleepType: number }
  /** The timer's highest bit had changed: an interrupt, or noted because it is about to be one. */
  | { readonly type: 'acpi.timer-carried'; readonly at: number }
  /** Software wrote ones to PM1_STS. */
  | { readonly type: 'acpi.status-cleared'; readonly bits: number; readonly at: number }
  /** The alarm's interrupt came or went. */
  | { readonly type: 'acpi.alarm'; readonly level: boolean };

export const ACPI_EVENT_FIELDS = {
  'acpi.enabled': ['value'],
  'acpi.controlled': ['value'],
  'acpi.sleep-requested': ['sleepType'],
  'acpi.timer-carried': ['at'],
  'acpi.status-cleared': ['bits', 'at'],
  'acpi.alarm': ['level'],
} as const satisfies FieldTable<AcpiEvent>;

export const ACPI_PORT = 0x600;
/** Ports from ACPI_PORT on. */
export const ACPI = { STATUS: 0, ENABLE: 2, CONTROL: 4, TIMER: 8, PORTS: 12 };

export const PM_TIMER_HERTZ = 3_579_545;
/** TMR_STS and TMR_EN. */
const TIMER = 0x0001;
/** RTC_STS and RTC_EN. */
const ALARM = 0x0400;
/** TMR, GBL, PWRBTN, SLPBTN and RTC; all but the first and the last are for events that never happen here. */
const ENABLE_WRITABLE = 0x0721;
const SCI_EN = 0x0001;
const SLP_TYP = 0x1c00;
const SLP_TYP_SHIFT = 10;
const SLP_EN = 0x2000;
/** BM_RLD and SLP_TYP; GBL_RLS and SLP_EN read as zero. */
const CONTROL_WRITABLE = 0x1c02;

/** The counter of the power-management timer. */
const pmTimer = (state: AcpiState, now: number): number => modulo(ticksAt(now, PM_TIMER_HERTZ), 2 ** state.timerBits);

/** How often the timer's highest bit has changed since power-on. */
const carriesAt = (state: AcpiState, time: number): number =>
  floorDivide(ticksAt(time, PM_TIMER_HERTZ), 2 ** (state.timerBits - 1));

/** PM1_STS as it reads. */
function statusAt(state: AcpiState, now: number): number {
  const carried = carriesAt(state, now) > carriesAt(state, state.statusSince);
  return state.status | (carried ? TIMER : 0);
}

/** Byte `at` of the block. */
function byteAt(state: AcpiState, at: number, now: number): number {
  if (at >= ACPI.TIMER) return at < ACPI.PORTS ? (pmTimer(state, now) >>> ((at - ACPI.TIMER) * 8)) & 0xff : 0xff;
  const words = [statusAt(state, now), state.enable, state.control, 0];
  return ((words[at >> 1] ?? 0) >> ((at & 1) * 8)) & 0xff;
}

/** The bits of the 16-bit register at `word` that a write reaches, and what it brings there. */
function reached(word: number, register: number, value: number, size: number): { mask: number; bits: number } {
  let mask = 0;
  let bits = 0;
  for (let at = 0; at < size; at += 1) {
    const byte = register + at - word;
    if (byte !== 0 && byte !== 1) continue;
    mask |= 0xff << (byte * 8);
    bits |= ((value >>> (at * 8)) & 0xff) << (byte * 8);
  }
  return { mask, bits };
}

function decideControl(state: AcpiState, value: number): readonly AcpiEvent[] {
  const control = (value & CONTROL_WRITABLE) | SCI_EN;
  const events: AcpiEvent[] = control === state.control ? [] : [{ type: 'acpi.controlled', value: control }];
  if ((value & SLP_EN) !== 0) {
    events.push({ type: 'acpi.sleep-requested', sleepType: (value & SLP_TYP) >> SLP_TYP_SHIFT });
  }
  return events;
}

/** The clock's alarm began or ceased to interrupt; the beginning sets RTC_STS. */
export const decideAlarm = (state: AcpiState, level: boolean): readonly AcpiEvent[] =>
  state.alarm === level ? NO_EVENTS : [{ type: 'acpi.alarm', level }];

export const ACPI_PM: Device<AcpiState, AcpiEvent> = {
  initial: () => ({ status: 0, statusSince: 0, enable: 0, control: SCI_EN, timerBits: 24, alarm: false }),

  reduce(state, event) {
    switch (event.type) {
      case 'acpi.enabled':
        state.enable = event.value;
        return;
      case 'acpi.controlled':
        state.control = event.value;
        return;
      case 'acpi.sleep-requested':
        return;
      case 'acpi.timer-carried':
        state.status |= TIMER;
        state.statusSince = event.at;
        return;
      case 'acpi.status-cleared':
        state.status = statusAt(state, event.at) & ~event.bits;
        state.statusSince = event.at;
        return;
      case 'acpi.alarm':
        if (event.level) state.status |= ALARM;
        state.alarm = event.level;
        return;
      default:
        unreachable(event);
    }
  },

  decideRead(state, register, size, now) {
    if (register === ACPI.TIMER && size === 4) return { value: pmTimer(state, now), events: NO_EVENTS };
    let value = 0;
    for (let at = size - 1; at >= 0; at -= 1) value = value * 256 + byteAt(state, register + at, now);
    return { value, events: NO_EVENTS };
  },

  /** Registers are words, and may be written a byte at a time (ACPI 6.5 §4.8.1). */
  decideWrite(state, register, value, size, now) {
    const events: AcpiEvent[] = [];
    const clears = reached(ACPI.STATUS, register, value, size).bits & statusAt(state, now);
    if (clears !== 0) events.push({ type: 'acpi.status-cleared', bits: clears, at: now });
    const enables = reached(ACPI.ENABLE, register, value, size);
    const enable = ((state.enable & ~enables.mask) | enables.bits) & ENABLE_WRITABLE;
    if (enable !== state.enable) {
      // Clearing notes what the timer has done; without it, an enable must find it noted.
      if (clears === 0 && statusAt(state, now) !== state.status) events.push({ type: 'acpi.timer-carried', at: now });
      events.push({ type: 'acpi.enabled', value: enable });
    }
    const controls = reached(ACPI.CONTROL, register, value, size);
    if (controls.mask !== 0) {
      events.push(...decideControl(state, (state.control & ~controls.mask) | controls.bits));
    }
    return events.length === 0 ? NO_EVENTS : events;
  },

  /** The timer's next carry, while it would interrupt. */
  nextDeadline(state) {
    if ((state.enable & TIMER) === 0 || (state.status & TIMER) !== 0) return undefined;
    const carry = (carriesAt(state, state.statusSince) + 1) * 2 ** (state.timerBits - 1);
    return nanoseconds(timeOfTick(carry, PM_TIMER_HERTZ));
  },

  decideDeadline(state, now: Nanoseconds) {
    return statusAt(state, now) === state.status ? NO_EVENTS : [{ type: 'acpi.timer-carried', at: now }];
  },

  /** SCI. */
  interruptLine: (state) => (state.status & state.enable) !== 0,
};

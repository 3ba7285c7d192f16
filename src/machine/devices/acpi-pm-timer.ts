/**
 * The fixed ACPI hardware: PM1 event block (600h), PM1 control block (604h) and the power-management timer (608h),
 * which counts 3.579545 MHz as a function of time, in 24 bits or, when configured so, 32.
 *
 * Left out: the timer's status bit and all events, hence no SCI. No state but S0 is modelled: a write of SLP_EN ends
 * the machine whatever its SLP_TYP, for nothing could wake it.
 *
 * Source: ACPI Specification 6.5, §4.8.3.1 PM1 Event Grouping, §4.8.3.2 PM1 Control Grouping, §4.8.3.3 Power Management
 * Timer.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';
import { modulo, ticksAt } from './ticks.js';

export interface AcpiState {
  /** PM1_EN. */
  enable: number;
  /** PM1_CNT without its write-only bit SLP_EN. */
  control: number;
  timerBits: number;
}

export type AcpiEvent =
  | { readonly type: 'acpi.enabled'; readonly value: number }
  | { readonly type: 'acpi.controlled'; readonly value: number }
  /** SLP_EN was written. */
  | { readonly type: 'acpi.sleep-requested'; readonly sleepType: number };

export const ACPI_EVENT_FIELDS = {
  'acpi.enabled': ['value'],
  'acpi.controlled': ['value'],
  'acpi.sleep-requested': ['sleepType'],
} as const satisfies FieldTable<AcpiEvent>;

export const ACPI_PORT = 0x600;
/** Ports from ACPI_PORT on. */
export const ACPI = { STATUS: 0, ENABLE: 2, CONTROL: 4, TIMER: 8, PORTS: 12 };

export const PM_TIMER_HERTZ = 3_579_545;
const SCI_EN = 0x0001;
const SLP_TYP = 0x1c00;
const SLP_TYP_SHIFT = 10;
const SLP_EN = 0x2000;

/** The counter of the power-management timer. */
const pmTimer = (state: AcpiState, now: number): number => modulo(ticksAt(now, PM_TIMER_HERTZ), 2 ** state.timerBits);

/** Byte `at` of the block. */
function byteAt(state: AcpiState, at: number, timer: number): number {
  if (at >= ACPI.TIMER) return at < ACPI.PORTS ? (timer >>> ((at - ACPI.TIMER) * 8)) & 0xff : 0xff;
  const word = (at & ~1) === ACPI.ENABLE ? state.enable : (at & ~1) === ACPI.CONTROL ? state.control : 0;
  return (word >> ((at & 1) * 8)) & 0xff;
}

export const ACPI_PM: Device<AcpiState, AcpiEvent> = {
  initial: () => ({ enable: 0, control: SCI_EN, timerBits: 24 }),

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
      default:
        unreachable(event);
    }
  },

  decideRead(state, register, size, now) {
    const timer = pmTimer(state, now);
    if (register === ACPI.TIMER && size === 4) return { value: timer, events: NO_EVENTS };
    let value = 0;
    for (let at = size - 1; at >= 0; at -= 1) value = value * 256 + byteAt(state, register + at, timer);
    return { value, events: NO_EVENTS };
  },

  decideWrite(state, register, value, size) {
    if (register === ACPI.STATUS && size === 4) {
      return state.enable === value >>> 16 ? NO_EVENTS : [{ type: 'acpi.enabled', value: value >>> 16 }];
    }
    if (register === ACPI.ENABLE) {
      const enable = value & 0xffff;
      return state.enable === enable ? NO_EVENTS : [{ type: 'acpi.enabled', value: enable }];
    }
    // SLP_EN lies in the upper byte, which may be written alone.
    if (register !== ACPI.CONTROL && register !== ACPI.CONTROL + 1) return NO_EVENTS;
    const word = register === ACPI.CONTROL ? value & 0xffff : (state.control & 0xff) | ((value & 0xff) << 8);
    const whole = register === ACPI.CONTROL && size === 1 ? (state.control & 0xff00) | (word & 0xff) : word;
    const control = (whole & ~SLP_EN) | SCI_EN;
    const events: AcpiEvent[] = [];
    if (control !== state.control) events.push({ type: 'acpi.controlled', value: control });
    if ((whole & SLP_EN) !== 0) {
      events.push({ type: 'acpi.sleep-requested', sleepType: (whole & SLP_TYP) >> SLP_TYP_SHIFT });
    }
    return events;
  },

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: () => false,
};

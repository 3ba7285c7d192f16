/**
 * What the HPET is: its state, its events, its registers and their bits.
 *
 * Source: IA-PC HPET (High Precision Event Timers) Specification 1.0a, §2.3 Register Definitions.
 */
import type { FieldTable } from './device.js';
import type { Halves } from './hpet-comparator.js';

export interface HpetTimerState {
  /** Bits 31:0 of the configuration register, without the read-only ones. */
  config: number;
  comparator: Halves;
  /** What was last written to the comparator register. */
  period: Halves;
  /** See `Comparator.written`. */
  written: boolean;
  /** The FSB interrupt route register: data and address of the message. */
  route: Halves;
}

export interface HpetState {
  /** ENABLE_CNF and LEG_RT_CNF. */
  config: number;
  /** The general interrupt status as of `since`. */
  status: number;
  counter: Halves;
  /** Nanosecond at which the counter came to `counter`, or was halted there. */
  since: number;
  timers: HpetTimerState[];
  /** Tn_FSB_INT_DEL_CAP. */
  messages: boolean;
}

export type HpetEvent =
  /** A register was written: 32 bits, or with `high` 64. */
  | {
      readonly type: 'hpet.written';
      readonly register: number;
      readonly low: number;
      readonly high: number | null;
      readonly at: number;
    }
  /** Timers whose interrupt is enabled matched, as a mask. */
  | { readonly type: 'hpet.fired'; readonly timers: number; readonly at: number };

export const HPET_EVENT_FIELDS = {
  'hpet.written': ['register', 'low', 'high', 'at'],
  'hpet.fired': ['timers', 'at'],
} as const satisfies FieldTable<HpetEvent>;

export const HPET_BASE = 0xfed0_0000;
export const HPET_BYTES = 0x400;

/** Offsets of the registers (§2.3.1); the timers' own are TIMER_BYTES apart from TIMER_0 on. */
export const HPET = {
  CAPABILITIES: 0x000,
  CONFIG: 0x010,
  STATUS: 0x020,
  COUNTER: 0x0f0,
  TIMER_0: 0x100,
  TIMER_BYTES: 0x20,
  TIMER_CONFIG: 0x00,
  TIMER_COMPARATOR: 0x08,
  TIMER_ROUTE: 0x10,
} as const;

export const TIMERS = 3;
/** A tick of the main counter: 10 ns, 10^7 fs. */
export const TICK = 10;
export const TICK_FEMTOSECONDS = 10_000_000;
/** Intel's, revision 1, three timers, 64 bits, legacy replacement. */
export const CAPABILITIES = 0x8086_a001 | ((TIMERS - 1) << 8);

export const CONFIG_ENABLE = 0x1;
export const CONFIG_LEGACY = 0x2;

export const TIMER_LEVEL = 0x0002;
export const TIMER_INTERRUPTS = 0x0004;
export const TIMER_PERIODIC = 0x0008;
export const TIMER_PERIODIC_CAPABLE = 0x0010;
export const TIMER_64_BITS = 0x0020;
export const TIMER_VAL_SET = 0x0040;
export const TIMER_32_BITS = 0x0100;
export const TIMER_INPUT = 0x3e00;
export const TIMER_INPUT_SHIFT = 9;
export const TIMER_MESSAGES = 0x4000;
export const TIMER_MESSAGES_CAPABLE = 0x8000;
export const TIMER_WRITABLE = 0x014e;
/** Tn_INT_ROUTE_CAP. */
export const INPUTS: readonly number[] = [0x00f0_0000, 0x00f0_0000, 0x00f0_0800];

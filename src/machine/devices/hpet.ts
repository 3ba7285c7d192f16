/**
 * The high-precision event timers at FED00000h: a main counter of 64 bits and 100 MHz, and three comparators, all of them
 * periodic and of 64 bits if asked.
 *
 * The counter is a function of time: it had `counter` at nanosecond `since`. Comparators and the status of level-
 * triggered timers are functions of the counter; every event brings them up to its own time first. Only a match that
 * interrupts is an event by itself (`hpet.fired`): the match of an edge-triggered timer, or of a level-triggered one
 * whose status is clear.
 *
 * In periodic mode a write to a comparator register sets the period; after a write of VAL_SET the next one sets the
 * comparator as well. Tn_FSB_INT_DEL_CAP, delivery as a message (`msi.ts`), is part of the configuration, and off.
 * Routes are those of Intel's ICH9: I/O APIC inputs 20 to 23, and 11 for timer 2.
 *
 * Source: IA-PC HPET (High Precision Event Timers) Specification 1.0a. Section numbers below are its.
 */
import { unreachable } from '../errors.js';
import { type Nanoseconds, nanoseconds } from '../units.js';
import type { Device } from './device.js';
import { NO_EVENTS } from './device.js';
import {
  allOnes,
  type Comparator,
  type Halves,
  halvesOf,
  matchedValue,
  ticksToMatch,
  wholeOf,
} from './hpet-comparator.js';
import {
  CAPABILITIES,
  CONFIG_ENABLE,
  CONFIG_LEGACY,
  HPET,
  type HpetEvent,
  type HpetState,
  type HpetTimerState,
  INPUTS,
  TICK,
  TICK_FEMTOSECONDS,
  TIMER_32_BITS,
  TIMER_64_BITS,
  TIMER_INPUT,
  TIMER_INPUT_SHIFT,
  TIMER_INTERRUPTS,
  TIMER_LEVEL,
  TIMER_MESSAGES,
  TIMER_MESSAGES_CAPABLE,
  TIMER_PERIODIC,
  TIMER_PERIODIC_CAPABLE,
  TIMER_VAL_SET,
  TIMER_WRITABLE,
  TIMERS,
} from './hpet-state.js';
import { floorDivide } from './ticks.js';

const timerAt = (state: HpetState, timer: number): HpetTimerState => state.timers[timer] as HpetTimerState;
const isRunning = (state: HpetState): boolean => (state.config & CONFIG_ENABLE) !== 0;
/** Both bits: timers 0 and 1 take the place of the 8254 and of the clock (§2.3.5). */
export const replacesLegacy = (state: HpetState): boolean => state.config === (CONFIG_ENABLE | CONFIG_LEGACY);

const comparatorOf = ({ config, comparator, period, written }: HpetTimerState): Comparator => ({
  value: wholeOf(comparator),
  period: wholeOf(period),
  periodic: (config & TIMER_PERIODIC) !== 0,
  bits: (config & TIMER_32_BITS) !== 0 ? 32 : 64,
  written,
});

// --- as time passes --------------------------------------------------------------------------------------------------

const ticksSince = (state: HpetState, now: number): number =>
  isRunning(state) ? floorDivide(now - state.since, TICK) : 0;

const counterAt = (state: HpetState, now: number): bigint =>
  BigInt.asUintN(64, wholeOf(state.counter) + BigInt(ticksSince(state, now)));

/** What a timer's comparator came to by `now` if it matched since `since`; undefined when it did not. */
function matchBy(state: HpetState, timer: HpetTimerState, now: number): bigint | undefined {
  if (!isRunning(state)) return undefined;
  return matchedValue(comparatorOf(timer), wholeOf(state.counter), BigInt(ticksSince(state, now)));
}

/** The general interrupt status (§2.3.6): level-triggered timers that have matched, enabled or not. */
function statusAt(state: HpetState, now: number): number {
  let { status } = state;
  for (const [index, timer] of state.timers.entries()) {
    if ((timer.config & TIMER_LEVEL) !== 0 && matchBy(state, timer, now) !== undefined) status |= 1 << index;
  }
  return status;
}

/** Brings the state up to a time: the counter, the comparators, the status. */
function advance(state: HpetState, now: number): void {
  const ticks = ticksSince(state, now);
  state.status = statusAt(state, now);
  for (const timer of state.timers) {
    const value = matchBy(state, timer, now);
    if (value !== undefined) timer.comparator = halvesOf(value);
    if (isRunning(state)) timer.written = false;
  }
  state.counter = halvesOf(counterAt(state, now));
  state.since = isRunning(state) ? state.since + ticks * TICK : now;
}

/** Whether a match of the timer would interrupt: it is enabled, and its line is not active already. */
const waits = (state: HpetState, index: number): boolean => {
  const { config } = timerAt(state, index);
  const active = (config & TIMER_LEVEL) !== 0 && (state.status & (1 << index)) !== 0;
  return isRunning(state) && (config & TIMER_INTERRUPTS) !== 0 && !active;
};

// --- interrupts ------------------------------------------------------------------------------------------------------

/** A write to memory that is an interrupt (`msi.ts`). */
export interface HpetMessage {
  readonly address: number;
  readonly data: number;
}

/** Where a timer's interrupt goes: an ISA line or I/O APIC input by number, or a message. */
export type HpetRoute = { readonly line: number } | HpetMessage;

const IRQ_8254 = 0;
const IRQ_CLOCK = 8;

/** Messages come before everything else, legacy replacement included (§2.4.2.3, notes). */
function routeOf(state: HpetState, index: number): HpetRoute {
  const { config, route } = timerAt(state, index);
  if ((config & TIMER_MESSAGES) !== 0) return { address: route.high, data: route.low };
  if (replacesLegacy(state) && index < 2) return { line: index === 0 ? IRQ_8254 : IRQ_CLOCK };
  return { line: (config & TIMER_INPUT) >> TIMER_INPUT_SHIFT };
}

/** Edges of a `hpet.fired` event, by where they go; level-triggered timers show in `hpetLines`. */
export const hpetEdges = (state: HpetState, timers: number): readonly HpetRoute[] =>
  state.timers.flatMap(({ config }, index) =>
    (timers & (1 << index)) !== 0 && (config & TIMER_LEVEL) === 0 ? [routeOf(state, index)] : [],
  );

/** The messages that timers would send. */
export const hpetMessages = (state: HpetState): readonly HpetMessage[] =>
  state.timers.flatMap((_, index) => {
    const route = routeOf(state, index);
    return 'line' in route ? [] : [route];
  });

/** Active lines of level-triggered timers, as a mask. */
export function hpetLines(state: HpetState): number {
  if (state.status === 0 || !isRunning(state)) return 0;
  let lines = 0;
  for (const [index, { config }] of state.timers.entries()) {
    if ((state.status & (1 << index)) === 0 || (config & TIMER_INTERRUPTS) === 0) continue;
    const route = routeOf(state, index);
    if ('line' in route) lines |= 1 << route.line;
  }
  return lines;
}

// --- registers -------------------------------------------------------------------------------------------------------

/** The low and high words of the register at an offset that is a multiple of 8. */
function readRegister(state: HpetState, register: number, now: number): Halves {
  switch (register) {
    case HPET.CAPABILITIES:
      return { low: CAPABILITIES >>> 0, high: TICK_FEMTOSECONDS };
    case HPET.CONFIG:
      return { low: state.config, high: 0 };
    case HPET.STATUS:
      return { low: statusAt(state, now), high: 0 };
    case HPET.COUNTER:
      return halvesOf(counterAt(state, now));
    default:
      return readTimer(state, register - HPET.TIMER_0, now);
  }
}

function readTimer(state: HpetState, offset: number, now: number): Halves {
  const index = floorDivide(offset, HPET.TIMER_BYTES);
  const timer = state.timers[index];
  if (offset < 0 || timer === undefined) return { low: 0, high: 0 };
  switch (offset % HPET.TIMER_BYTES) {
    case HPET.TIMER_CONFIG: {
      const capable = TIMER_PERIODIC_CAPABLE | TIMER_64_BITS | (state.messages ? TIMER_MESSAGES_CAPABLE : 0);
      return { low: timer.config | capable, high: INPUTS[index] ?? 0 };
    }
    case HPET.TIMER_COMPARATOR: {
      const value = matchBy(state, timer, now);
      return value === undefined ? timer.comparator : halvesOf(value);
    }
    case HPET.TIMER_ROUTE:
      return timer.route;
    default:
      return { low: 0, high: 0 };
  }
}

/** Bits 31:0 of a timer's configuration after a write. An input that the timer cannot take is not taken (§2.3.8). */
function timerConfig(state: HpetState, index: number, value: number): number {
  const { config } = timerAt(state, index);
  const input = (value & TIMER_INPUT) >> TIMER_INPUT_SHIFT;
  const takes = (((INPUTS[index] ?? 0) >>> input) & 1) !== 0;
  let next = (value & TIMER_WRITABLE) | ((takes ? value : config) & TIMER_INPUT);
  if (state.messages) next |= value & TIMER_MESSAGES;
  return (next & TIMER_PERIODIC) === 0 ? next & ~TIMER_VAL_SET : next;
}

/** Replaces the words of `old` that a write brings. */
const merged = (old: Halves, half: number, low: number, high: number | null): Halves => {
  if (high !== null) return { low, high };
  return half === 0 ? { low, high: old.high } : { low: old.low, high: low };
};

function writeTimer(state: HpetState, offset: number, low: number, high: number | null): void {
  const index = floorDivide(offset, HPET.TIMER_BYTES);
  const timer = timerAt(state, index);
  const half = offset & 4;
  switch (offset % HPET.TIMER_BYTES) {
    case HPET.TIMER_CONFIG:
      timer.config = timerConfig(state, index, low);
      if ((timer.config & TIMER_LEVEL) === 0) state.status &= ~(1 << index);
      break;
    case HPET.TIMER_COMPARATOR:
    case HPET.TIMER_COMPARATOR + 4:
      timer.period = merged(timer.period, half, low, high);
      if ((timer.config & TIMER_PERIODIC) === 0 || (timer.config & TIMER_VAL_SET) !== 0) {
        timer.comparator = merged(timer.comparator, half, low, high);
        timer.written = true;
      }
      timer.config &= ~TIMER_VAL_SET;
      break;
    case HPET.TIMER_ROUTE:
    case HPET.TIMER_ROUTE + 4:
      timer.route = merged(timer.route, half, low, high);
      break;
  }
  if ((timer.config & TIMER_32_BITS) !== 0) {
    timer.comparator.high = 0;
    timer.period.high = 0;
  }
}

function write(state: HpetState, register: number, low: number, high: number | null): void {
  switch (register) {
    case HPET.CONFIG:
      state.config = low & (CONFIG_ENABLE | CONFIG_LEGACY);
      return;
    case HPET.STATUS:
      state.status &= ~low;
      return;
    case HPET.COUNTER:
    case HPET.COUNTER + 4:
      state.counter = merged(state.counter, register & 4, low, high);
      for (const timer of state.timers) timer.written = true;
      return;
    default:
      writeTimer(state, register - HPET.TIMER_0, low, high);
  }
}

/** Whether a write does something: not to read-only and reserved registers, nor one that brings what is there. */
function changes(state: HpetState, register: number, low: number, now: number): boolean {
  if (register === HPET.CONFIG) return (low & (CONFIG_ENABLE | CONFIG_LEGACY)) !== state.config;
  if (register === HPET.STATUS) return (low & statusAt(state, now)) !== 0;
  if ((register & ~4) === HPET.COUNTER) return true;
  const offset = register - HPET.TIMER_0;
  const index = floorDivide(offset, HPET.TIMER_BYTES);
  if (offset < 0 || index >= TIMERS) return false;
  const place = offset % HPET.TIMER_BYTES;
  if (place === HPET.TIMER_CONFIG) return timerConfig(state, index, low) !== timerAt(state, index).config;
  return place >= HPET.TIMER_COMPARATOR && place <= HPET.TIMER_ROUTE + 4;
}

/** A 64-bit write to a register at a multiple of 8: one access, so that VAL_SET covers all of it. */
export const decideWideWrite = (
  state: HpetState,
  register: number,
  low: number,
  high: number,
  now: Nanoseconds,
): readonly HpetEvent[] =>
  changes(state, register, low, now) ? [{ type: 'hpet.written', register, low, high, at: now }] : NO_EVENTS;

export const HPET_TIMERS: Device<HpetState, HpetEvent> = {
  initial: () => ({
    config: 0,
    status: 0,
    counter: { low: 0, high: 0 },
    since: 0,
    timers: Array.from({ length: TIMERS }, () => ({
      config: 0,
      comparator: allOnes(),
      period: { low: 0, high: 0 },
      written: false,
      route: { low: 0, high: 0 },
    })),
    messages: false,
  }),

  reduce(state, event) {
    advance(state, event.at);
    switch (event.type) {
      case 'hpet.written':
        write(state, event.register, event.low, event.high);
        return;
      case 'hpet.fired':
        return;
      default:
        unreachable(event);
    }
  },

  /** Registers are 64 bits, read as one or as two words (§2.3.2); narrower reads take bytes of a word. */
  decideRead(state, register, size, now) {
    const whole = readRegister(state, register & ~7, now);
    const word = (register & 4) === 0 ? whole.low : whole.high;
    if (size === 4) return { value: word >>> 0, events: NO_EVENTS };
    return { value: (word >>> ((register & 3) * 8)) & (size === 1 ? 0xff : 0xffff), events: NO_EVENTS };
  },

  /** A write that is not of a whole word is lost (§2.3.2). */
  decideWrite(state, register, value, size, now) {
    if (size !== 4 || (register & 3) !== 0 || !changes(state, register, value, now)) return NO_EVENTS;
    return [{ type: 'hpet.written', register, low: value >>> 0, high: null, at: now }];
  },

  nextDeadline(state) {
    let next: bigint | undefined;
    for (const [index, timer] of state.timers.entries()) {
      if (!waits(state, index)) continue;
      const ticks = ticksToMatch(comparatorOf(timer), wholeOf(state.counter));
      if (next === undefined || ticks < next) next = ticks;
    }
    if (next === undefined) return undefined;
    const time = BigInt(state.since) + next * BigInt(TICK);
    return time <= BigInt(Number.MAX_SAFE_INTEGER) ? nanoseconds(Number(time)) : undefined;
  },

  decideDeadline(state, now) {
    let timers = 0;
    for (const [index, timer] of state.timers.entries()) {
      if (waits(state, index) && matchBy(state, timer, now) !== undefined) timers |= 1 << index;
    }
    return timers === 0 ? NO_EVENTS : [{ type: 'hpet.fired', timers, at: now }];
  },

  interruptLine: (state) => hpetLines(state) !== 0,
};

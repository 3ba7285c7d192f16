/**
 * The local APIC's timer: one-shot, periodic, and TSC-deadline.
 *
 * It is a function of time: `timerStart` is when the current count last was the initial count; its clock is 1 GHz before
 * the divider, one tick a nanosecond. While its LVT entry is masked a running timer has no deadline, for its end would
 * change nothing.
 *
 * Source: APM vol.2 §16.4.1 APIC Timer Interrupt; for the TSC deadline, Intel SDM vol.3 §11.5.4.1 TSC-Deadline Mode.
 */
import type { Nanoseconds } from '../units.js';
import { NO_EVENTS } from './device.js';
import {
  ENTRY_TIMER,
  isMasked,
  LAPIC,
  type LocalApicEvent,
  type LocalApicState,
  lvt,
  raiseLocal,
  TIMER_PERIODIC,
  TIMER_TSC_DEADLINE,
  written,
} from './local-apic-state.js';
import { floorDivide } from './ticks.js';

export const timerMode = (entry: number): number => (entry >> 17) & 3;

/** Divide configuration: bits 3, 1 and 0; 111b divides by 1 (APM vol.2 §16.4.1 APIC Timer…). */
function divisor(configuration: number): number {
  const code = ((configuration >> 1) & 4) | (configuration & 3);
  return code === 7 ? 1 : 2 << code;
}

const periodOf = (state: LocalApicState): number => state.timerInitial * divisor(state.timerDivide);

/** The current count register. */
export function timerCount(state: LocalApicState, now: number): number {
  if (state.timerStart === null) return 0;
  const ticks = floorDivide(now - state.timerStart, divisor(state.timerDivide));
  if (timerMode(lvt(state, ENTRY_TIMER)) === TIMER_PERIODIC) return state.timerInitial - (ticks % state.timerInitial);
  return Math.max(state.timerInitial - ticks, 0);
}

/** When the count that runs at `now` began; null when it has run out. */
function cycleStart(state: LocalApicState, now: number): number | null {
  if (state.timerStart === null) return null;
  const cycles = floorDivide(now - state.timerStart, periodOf(state));
  if (timerMode(lvt(state, ENTRY_TIMER)) === TIMER_PERIODIC) return state.timerStart + cycles * periodOf(state);
  return cycles > 0 ? null : state.timerStart;
}

function timerSet(state: LocalApicState, start: number | null, period: number, entry: number): LocalApicEvent {
  const deadline = start === null || isMasked(entry) ? null : start + period;
  return { type: 'lapic.timer-set', apic: state.id, start, deadline };
}

export function decideInitialCount(state: LocalApicState, value: number, now: number): readonly LocalApicEvent[] {
  const entry = lvt(state, ENTRY_TIMER);
  if (timerMode(entry) === TIMER_TSC_DEADLINE) return NO_EVENTS;
  const period = value * divisor(state.timerDivide);
  return [written(state, LAPIC.TIMER_INITIAL, value), timerSet(state, value === 0 ? null : now, period, entry)];
}

/** A new divider goes on from the current count. */
export function decideDivide(state: LocalApicState, value: number, now: number): readonly LocalApicEvent[] {
  const event = written(state, LAPIC.TIMER_DIVIDE, value);
  const count = timerCount(state, now);
  if (count === 0) return [event];
  const by = divisor(value);
  const start = now - (state.timerInitial - count) * by;
  return [event, timerSet(state, start, state.timerInitial * by, lvt(state, ENTRY_TIMER))];
}

/** A new timer entry goes on from the current count; to and from TSC-deadline mode the timer is disarmed. */
export function decideTimerEntry(state: LocalApicState, entry: number, now: number): readonly LocalApicEvent[] {
  const before = lvt(state, ENTRY_TIMER);
  const event = written(state, LAPIC.LVT_TIMER, entry);
  const wasDeadline = timerMode(before) === TIMER_TSC_DEADLINE;
  const isDeadline = timerMode(entry) === TIMER_TSC_DEADLINE;
  if (wasDeadline && isDeadline) return [event];
  if (wasDeadline) return [event, { type: 'lapic.tsc-deadline-set', apic: state.id, low: 0, high: 0, deadline: null }];
  if (state.timerStart === null) return [event];
  return [event, timerSet(state, isDeadline ? null : cycleStart(state, now), periodOf(state), entry)];
}

/** @param tscOffset TSC = virtual nanoseconds + offset, modulo 2^64. @returns when the TSC reaches `deadline`. */
function timeOfTSC(deadline: bigint, tscOffset: bigint, now: number): number | null {
  const ahead = BigInt.asIntN(64, deadline - (BigInt(now) + tscOffset));
  if (ahead <= 0n) return now;
  const time = BigInt(now) + ahead;
  return time <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(time) : null;
}

/** WRMSR to the TSC-deadline MSR: ignored outside TSC-deadline mode, zero disarms, a past deadline fires at once. */
export function decideTscDeadline(
  state: LocalApicState,
  deadline: bigint,
  tscOffset: bigint,
  now: Nanoseconds,
): readonly LocalApicEvent[] {
  if (timerMode(lvt(state, ENTRY_TIMER)) !== TIMER_TSC_DEADLINE) return NO_EVENTS;
  const low = Number(BigInt.asUintN(32, deadline));
  const high = Number(BigInt.asUintN(32, deadline >> 32n));
  const time = deadline === 0n ? null : timeOfTSC(deadline, tscOffset, now);
  return [{ type: 'lapic.tsc-deadline-set', apic: state.id, low, high, deadline: time }];
}

/** The TSC-deadline MSR: zero while disarmed. */
export const tscDeadline = (state: LocalApicState): bigint =>
  (BigInt(state.tscDeadlineHigh) << 32n) | BigInt(state.tscDeadlineLow);

/** Software moved the TSC: an armed deadline falls at another time. */
export function decideTscMoved(state: LocalApicState, tscOffset: bigint, now: Nanoseconds): readonly LocalApicEvent[] {
  const deadline = tscDeadline(state);
  return deadline === 0n ? NO_EVENTS : decideTscDeadline(state, deadline, tscOffset, now);
}

/** The timer ran out at or before `at`: periodic ones go on in step, all others stop. */
export function fire(state: LocalApicState, at: number): void {
  const mode = timerMode(lvt(state, ENTRY_TIMER));
  raiseLocal(state, ENTRY_TIMER);
  state.timerDeadline = null;
  if (mode === TIMER_TSC_DEADLINE) {
    state.tscDeadlineLow = 0;
    state.tscDeadlineHigh = 0;
    return;
  }
  state.timerStart = cycleStart(state, at);
  if (state.timerStart !== null) state.timerDeadline = state.timerStart + periodOf(state);
}

/** What a timer is that stands at `count` now, or waits for `deadline`, a TSC; zero when it does not. */
export function timerAt(
  state: LocalApicState,
  count: number,
  deadline: bigint,
  tscOffset: bigint,
  now: number,
): Pick<LocalApicState, 'timerStart' | 'timerDeadline' | 'tscDeadlineLow' | 'tscDeadlineHigh'> {
  const entry = lvt(state, ENTRY_TIMER);
  const stopped = { timerStart: null, timerDeadline: null, tscDeadlineLow: 0, tscDeadlineHigh: 0 };
  if (timerMode(entry) === TIMER_TSC_DEADLINE) {
    const [low, high] = [Number(BigInt.asUintN(32, deadline)), Number(deadline >> 32n)];
    const timerDeadline = deadline === 0n ? null : timeOfTSC(deadline, tscOffset, now);
    return { ...stopped, timerDeadline, tscDeadlineLow: low, tscDeadlineHigh: high };
  }
  if (count === 0) return stopped;
  const timerStart = now - (state.timerInitial - count) * divisor(state.timerDivide);
  return { ...stopped, timerStart, timerDeadline: isMasked(entry) ? null : timerStart + periodOf(state) };
}

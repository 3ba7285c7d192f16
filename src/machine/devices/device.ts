/**
 * The Device contract. A device is a state, a reducer, and decisions; it holds no reference to CPU, bus, host clock or
 * callback: time comes in as `now`, effects go out as events.
 *
 * Deciding and reducing stay apart: `decide…` looks at the state and says which events happen, `reduce` alone changes
 * state and never refuses. `reduce` is written in Immer's mutating style: live it runs on the machine's own state, for
 * history on a draft. Events hold numbers, strings, booleans and arrays of those; nothing else is on a tape.
 * Numbers are integers; times are virtual nanoseconds. No event per tick: counters are functions of `now`.
 */
import type { Nanoseconds } from '../units.js';

export interface ReadDecision<Event> {
  /** `size` bytes, zero-extended. */
  readonly value: number;
  /** Side effects of the read; empty for most registers. */
  readonly events: readonly Event[];
}

export interface Device<State, Event> {
  /** State after a cold start; a fresh object each time. */
  initial(): State;
  /** The only change: applies `event` to `state` in place. */
  reduce(state: State, event: Event): void;
  /** @param register offset within the device's ports or MMIO window. @param size access width in bytes: 1, 2 or 4. */
  decideRead(state: State, register: number, size: number, now: Nanoseconds): ReadDecision<Event>;
  decideWrite(state: State, register: number, value: number, size: number, now: Nanoseconds): readonly Event[];
  /** When the device next acts by itself (an output edge, an alarm), or undefined. Must be > the last one handled. */
  nextDeadline(state: State): Nanoseconds | undefined;
  /** What happens at the deadline; called with `now` >= nextDeadline(state). Applying the events moves the deadline. */
  decideDeadline(state: State, now: Nanoseconds): readonly Event[];
  /** Level of the device's interrupt output; derived, never stored. */
  interruptLine(state: State, now: Nanoseconds): boolean;
}

export const NO_EVENTS: readonly never[] = [];

type FieldNames<Event> = readonly Exclude<keyof Event, 'type'>[];
/** Field order of each event type of a union: the codec packs events by it. */
export type FieldTable<Event extends { readonly type: string }> = {
  readonly [Type in Event['type']]: FieldNames<Extract<Event, { readonly type: Type }>>;
};

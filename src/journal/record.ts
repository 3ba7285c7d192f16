/**
 * JournalRecord: an event with its envelope and its place on the tape. A position is a pair of bigints; outside the
 * program it is the string `icount:seq`, for a double or a JSON number would round it.
 *
 * Two uses of the pair, never mixed:
 * - the position of a *record* is the icount after its event and its own index, counted from 0;
 * - the position of a *boundary* is the icount there and the number of events before it. `START` and the end of a tape
 *   are boundaries.
 */
import type { StatedEvent } from '../machine/events.js';

export interface Position {
  /** Instructions that the machine retired since power-on. */
  readonly icount: bigint;
  readonly seq: bigint;
}

export interface JournalRecord extends StatedEvent {
  readonly position: Position;
}

/** The boundary before the first event. */
export const START: Position = { icount: 0n, seq: 0n };

/** The boundary right after a record, with which the next record begins. */
export const boundaryAfter = ({ position: { icount, seq } }: JournalRecord): Position => ({ icount, seq: seq + 1n });

/** `icount:seq`, both decimal. */
export const formatPosition = ({ icount, seq }: Position): string => `${icount}:${seq}`;

/** @returns the position that `text` names in the form `icount:seq`, or undefined. */
export function parsePosition(text: string): Position | undefined {
  const match = /^(\d{1,20}):(\d{1,20})$/.exec(text);
  return match === null ? undefined : { icount: BigInt(match[1] ?? ''), seq: BigInt(match[2] ?? '') };
}

/** Negative when `a` lies before `b`, zero when they are the same place. One of the two numbers never falls while the other rises. */
export const comparePositions = (a: Position, b: Position): number =>
  a.icount !== b.icount ? (a.icount < b.icount ? -1 : 1) : a.seq < b.seq ? -1 : a.seq > b.seq ? 1 : 0;

/** Inputs of a tape, and where they stood: what a machine that takes inputs is given. */
import type { JournalReader } from '../../src/journal/index.js';
import { type EventOf, InputError, isInput, type MachineEvent } from '../../src/machine/index.js';

/** How the session begins. @throws InputError for a tape that goes on from somewhere. */
export function bootOf(reader: JournalReader): EventOf<'input.boot'> {
  for (const { event } of reader.records(0n)) {
    if (event.type === 'input.boot') return event;
    if (!isInput(event)) break;
  }
  const problem = 'it begins with no boot, but goes on from somewhere';
  throw new InputError('the tape', problem, 'Give the tape of the session’s beginning.');
}

export interface InputThere {
  readonly event: MachineEvent;
  /** Instructions retired before it. */
  readonly icount: bigint;
  /** Something else had happened at the same place before. */
  readonly due: boolean;
}

/** Inputs after `from` up to `to`; at the very beginning those too that come before any instruction. */
export function* inputsBetween(reader: JournalReader, from: bigint, to: bigint): Generator<InputThere, void, void> {
  let due = false;
  let place = -1n;
  const start = from === 0n ? 0n : (reader.chunkAtIcount(from)?.start.seq ?? reader.end.seq);
  for (const { event, position, retired } of reader.records(start)) {
    if (position.icount > to) return;
    if (position.icount !== place || retired > 0) due = false;
    place = position.icount;
    if (!isInput(event)) {
      if (retired === 0) due = true;
      continue;
    }
    if (position.icount > from || (from === 0n && position.icount === 0n))
      yield { event, icount: position.icount, due };
  }
}

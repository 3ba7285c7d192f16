/** Puts a machine to where a checkpoint of its session was taken. */
import {
  type Checkpoint,
  type CheckpointEntry,
  comparePositions,
  type JournalReader,
  type Position,
} from '../journal/index.js';
import { type Machine, PAGE_BYTES, sPA } from '../machine/index.js';
import { giveImage } from './feed-input.js';
import { decodePoint } from './point-codec.js';

/** The last checkpoint of a tape at or before a position. */
export function checkpointBefore(reader: JournalReader, position: Position): CheckpointEntry | undefined {
  return reader.checkpoints().findLast((each) => comparePositions(each.position, position) <= 0);
}

/** Puts a fresh machine to where its tape begins, when the session began elsewhere. */
export function enterOrigin(machine: Machine, reader: JournalReader): void {
  const origin = reader.origin();
  if (origin !== undefined) enterCheckpoint(machine, reader, origin);
}

/** @param machine a fresh one, whose RAM is all zeros. */
export function enterCheckpoint(machine: Machine, reader: JournalReader, { pages, state }: Checkpoint): void {
  for (const [page, content] of pages.entries()) {
    if (content !== 0) machine.memory.copyIn(sPA(page * PAGE_BYTES), reader.page(content));
  }
  machine.restore(decodePoint(state));
  giveImage(machine, reader);
}

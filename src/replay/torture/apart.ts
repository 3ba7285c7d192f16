/**
 * A torture case in two parts: one process saves, as a whole snapshot file, and another that never ran the session restores
 * and runs on. So nothing that a process keeps besides the machine can help.
 */
import { comparePositions, formatPosition, type JournalReader, type Position, sameBytes } from '../../journal/index.js';
import { enterSnapshot } from '../snapshot/snapshot.js';
import { decodeSnapshot } from '../snapshot/snapshot-file.js';
import { STATE_PARTS, type StateDigests, stateDigests } from '../state-digest.js';
import { TapeFollower } from '../tape-follower.js';

export interface ApartCase {
  /** A snapshot file. */
  readonly snapshot: Uint8Array;
  /** Where to run to, and digests of the unbroken session there. */
  readonly end: Position;
  readonly digests: StateDigests;
}

/** @returns what is not as it was; undefined when all is. */
export function resumeApart(reader: JournalReader, { snapshot: bytes, end, digests }: ApartCase): string | undefined {
  const snapshot = decodeSnapshot(bytes, 'torture');
  const follower = new TapeFollower(reader);
  try {
    enterSnapshot(follower.machine, snapshot);
    follower.enter(snapshot.position, snapshot.point);
    while (comparePositions(follower.position, end) < 0) follower.run(end);
    const found = stateDigests(follower.machine);
    const different = STATE_PARTS.filter((part) => !sameBytes(found[part], digests[part]));
    return different.length === 0
      ? undefined
      : `the ${different.join(' and ')} state differs at ${formatPosition(end)}`;
  } catch (error) {
    if (error instanceof Error) return error.message;
    throw error;
  } finally {
    follower.close();
  }
}

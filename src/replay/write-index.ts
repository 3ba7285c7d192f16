/** Makes the index of writes: a tape is run once, and for each stretch of it the pages are noted that were written to. */
import { comparePositions, type JournalReader, type Position, type WriteStretch } from '../journal/index.js';
import { PastEnd, TapeFollower } from './tape-follower.js';

/** When a stretch ends: whichever comes first. It takes some milliseconds to run again. */
const STRETCH = { instructions: 2_000_000n, events: 2_000n };

/**
 * @param tick is told how far the work is; true gives it up.
 * @returns the stretches from the start to the end of the tape; undefined when it was given up.
 */
export function indexWrites(
  reader: JournalReader,
  tick: (at: Position) => boolean,
  { instructions, events } = STRETCH,
): readonly WriteStretch[] | undefined {
  const follower = new TapeFollower(reader);
  const { memory } = follower.machine;
  const stretches: WriteStretch[] = [];
  let epoch = memory.newEpoch();
  let start = follower.position;
  const close = (): void => {
    const end = follower.position;
    stretches.push({ start, end, pages: memory.pagesWrittenSince(epoch) });
    epoch = memory.newEpoch();
    start = end;
  };
  try {
    while (comparePositions(follower.position, reader.end) < 0) {
      const { icount, seq } = start;
      follower.run({ icount: icount + instructions, seq: seq + events });
      const at = follower.position;
      if (at.icount < icount + instructions && at.seq < seq + events) continue;
      close();
      if (tick(at)) return undefined;
    }
  } catch (error) {
    // The tape was cut amid a step.
    if (!(error instanceof PastEnd)) throw error;
  } finally {
    follower.close();
  }
  close();
  return stretches;
}

/** Whether an index reaches from where a tape begins to where it ends now. */
export function covers(
  stretches: readonly WriteStretch[],
  { start, end }: Pick<JournalReader, 'start' | 'end'>,
): boolean {
  let at = start;
  for (const stretch of stretches) {
    if (comparePositions(stretch.start, at) !== 0) return false;
    at = stretch.end;
  }
  return comparePositions(at, end) >= 0;
}

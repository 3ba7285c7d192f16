/**
 * Where a value of the machine's state took the value that it has. What compiled code changes is looked for by going back, in
 * stretches that grow, and through each of them step by step: a run of plain instructions may change a general register and
 * change it back. The rest is a timeline's search.
 */
import { comparePositions, type Position } from '../journal/index.js';
import { NO_STOP_POINTS } from '../machine/index.js';
import type { Timeline } from './timeline.js';
import type { WatchedValue } from './watched-value.js';
import type { WriteStep } from './who-wrote.js';
import type { Work } from './work.js';

const FIRST_STRETCH = 64n;
const GROWTH = 4n;
const LONGEST_STRETCH = 1_000_000n;

/**
 * Goes to before the last step that changed a value before this place; to somewhere before it when none did. What the timeline
 * had to stop at is forgotten.
 */
export function* goingBackToChange(timeline: Timeline, value: WatchedValue): Work<WriteStep | undefined> {
  if (value.grain === 'instruction') return yield* backThrough(timeline, value);
  timeline.stopAt(NO_STOP_POINTS, [value]);
  try {
    const stop = yield* timeline.runningBackward(undefined, true);
    if (stop.kind === 'end') return undefined;
    const after = timeline.position;
    yield* timeline.steppingBack();
    return { before: timeline.position, after };
  } finally {
    timeline.stopAt(NO_STOP_POINTS);
  }
}

function* backThrough(timeline: Timeline, value: WatchedValue): Work<WriteStep | undefined> {
  let to = timeline.position;
  for (let size = FIRST_STRETCH; comparePositions(to, timeline.start) > 0; size = longer(size)) {
    const isWhole = to.icount <= timeline.start.icount + size;
    yield* isWhole ? timeline.seeking(timeline.start) : timeline.seekingInstruction(to.icount - size);
    const reached = timeline.position;
    const found = yield* lastChange(timeline, value, to);
    if (found !== undefined) {
      yield* timeline.seeking(found.before);
      return found;
    }
    if (isWhole) return undefined;
    to = reached;
  }
  return undefined;
}

const longer = (size: bigint): bigint => (size * GROWTH < LONGEST_STRETCH ? size * GROWTH : LONGEST_STRETCH);

/** Steps to a place. @returns the last step that changed the value. */
function* lastChange(timeline: Timeline, value: WatchedValue, to: Position): Work<WriteStep | undefined> {
  let last: WriteStep | undefined;
  let known = value.read(timeline.machine);
  while (comparePositions(timeline.position, to) < 0) {
    const before = timeline.position;
    if (!timeline.step()) break;
    const now = value.read(timeline.machine);
    if (now !== known) last = { before, after: timeline.position };
    known = now;
    yield timeline.position;
  }
  return last;
}

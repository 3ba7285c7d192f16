/**
 * Does long work without going deaf: some milliseconds of it, then a turn of the host's event loop, in which sockets are read
 * and somebody may have had enough.
 */
import type { Position } from '../../src/journal/index.js';
import { Cancelled, type Work } from '../../src/replay/index.js';

const SLICE_MILLISECONDS = 15;

export interface Patience {
  /** Asked at every turn. */
  readonly givesUp: () => boolean;
  /** Called at every turn with the place that the work has come to. */
  readonly progress?: ((at: Position) => void) | undefined;
}

/** @throws Cancelled when the work was given up; it has gone back to where it began. */
export async function drive<Result>(work: Work<Result>, patience: Patience): Promise<Result> {
  let next = await slices(work, patience);
  if (next.done !== true) next = work.throw(new Cancelled('the search was given up'));
  while (next.done !== true) next = await slices(work, { givesUp: () => false });
  return next.value;
}

/** As `drive`, but when it is given up the work stays where it is. @returns undefined then. */
export async function driveInPlace<Result>(work: Work<Result>, patience: Patience): Promise<Result | undefined> {
  const next = await slices(work, patience);
  if (next.done === true) return next.value;
  work.return(undefined as never);
  return undefined;
}

/** @returns the end of the work, or where it was given up. */
async function slices<Result>(
  work: Work<Result>,
  { givesUp, progress }: Patience,
): Promise<IteratorResult<Position, Result>> {
  for (;;) {
    const until = performance.now() + SLICE_MILLISECONDS;
    let next = work.next();
    while (next.done !== true && performance.now() < until) next = work.next();
    if (next.done === true) return next;
    progress?.(next.value);
    await new Promise((resolve) => setImmediate(resolve));
    if (givesUp()) return next;
  }
}

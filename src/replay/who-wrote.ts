/**
 * "Who wrote this?": the last step before a place that wrote to RAM. The index of writes tells which stretches of the tape may
 * hold it; the last of them is run with the ranges watched, then the one before, until one has it. Registers: `last-change.ts`.
 */
import { comparePositions, type Position, type WriteStretch } from '../journal/index.js';
import { NO_STOP_POINTS, PAGE_BYTES, type WatchedRange } from '../machine/index.js';
import type { Timeline } from './timeline.js';
import { type Control, finish } from './work.js';

/** A step, by the places before and after it. */
export interface WriteStep {
  readonly before: Position;
  readonly after: Position;
}

/**
 * The timeline then stands before the step that wrote, or somewhere when nobody did.
 * @param index of the whole tape. @param limit a place; what happened from there on does not count.
 */
export function lastWriter(
  timeline: Timeline,
  index: readonly WriteStretch[],
  ranges: readonly WatchedRange[],
  limit: Position,
  control: Control = {},
): WriteStep | undefined {
  timeline.stopAt({ ...NO_STOP_POINTS, writes: ranges });
  try {
    for (let at = index.length - 1; at >= 0; at--) {
      const { start, end, pages } = index[at] as WriteStretch;
      if (comparePositions(start, limit) >= 0 || !ranges.some((range) => names(pages, range))) continue;
      const to = comparePositions(end, limit) < 0 ? end : limit;
      const found = finish(timeline.lastHit(start, to, true), control);
      if (found === undefined) continue;
      timeline.seek(found.position, control);
      timeline.stepBack(control);
      return { before: timeline.position, after: found.position };
    }
    return undefined;
  } finally {
    timeline.stopAt(NO_STOP_POINTS);
  }
}

/** Whether any page of a range is among `pages`, which are ascending. */
function names(pages: Uint32Array, { address, length }: WatchedRange): boolean {
  const first = Math.floor(address / PAGE_BYTES);
  const last = Math.floor((address + length - 1) / PAGE_BYTES);
  let low = 0;
  let high = pages.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((pages[middle] as number) < first) low = middle + 1;
    else high = middle;
  }
  return low < pages.length && (pages[low] as number) <= last;
}

/**
 * Where a register took the value that it has: by going back, in stretches that grow, and through each of them step by step.
 * What only events change is looked up on the tape; a run of plain instructions may change a general register and change it
 * back, so that for those nothing is left out.
 */
import { comparePositions, type JournalReader, type JournalRecord, type Position } from '../journal/index.js';
import { decodeDelta, R, type Slot } from '../machine/index.js';
import { previousEvent } from './event-search.js';
import { boundaryBefore } from './position-pattern.js';
import type { Timeline, Work } from './timeline.js';
import type { WriteStep } from './who-wrote.js';

/** A register of a vCPU, or some bits of one. */
export interface WatchedRegister {
  readonly vcpu: number;
  readonly slot: Slot;
  /** All bits when absent. */
  readonly mask?: bigint;
}

const FIRST_STRETCH = 64n;
const GROWTH = 4n;
const LONGEST_STRETCH = 1_000_000n;

/** Goes to before the last step that changed a register before this place; to somewhere before it when none did. */
export function* goingBackToChange(
  timeline: Timeline,
  reader: JournalReader,
  watched: WatchedRegister,
): Work<WriteStep | undefined> {
  const here = timeline.position;
  if (isPlain(watched.slot)) return yield* backThrough(timeline, watched, here, reader.start);
  // A run that is under way and its event, or the last event before.
  const pending = timeline.machine.hasPendingRun ? reader.records(here.seq).next().value : undefined;
  if (pending && changes(pending, watched)) {
    const step = yield* backThrough(timeline, watched, here, boundaryBefore(pending));
    if (step !== undefined) return step;
  }
  for (let { seq } = here; ; ) {
    const found = yield* previousEvent(reader, seq, (_, record) => changes(record, watched));
    if (found === undefined) return undefined;
    const end = { icount: found.position.icount, seq: found.position.seq + 1n };
    const step = yield* backThrough(timeline, watched, end, boundaryBefore(found));
    if (step !== undefined) return step;
    seq = found.position.seq;
  }
}

function changes({ event, vcpu }: JournalRecord, watched: WatchedRegister): boolean {
  if (vcpu !== watched.vcpu || !('registers' in event)) return false;
  for (const [slot] of decodeDelta(event.registers)) if (slot === watched.slot) return true;
  return false;
}

/** General registers, RIP, flags, segments, what the next boundary must know, x87 and vector registers. */
const isPlain = (slot: Slot): boolean =>
  slot <= R.gsBase || slot === R.boundary || (slot >= R.fcw && slot < R.monitorDigest);

/** Looks for the last change in a stretch, from its end. It may stand anywhere when there is none. */
function* backThrough(
  timeline: Timeline,
  watched: WatchedRegister,
  end: Position,
  start: Position,
): Work<WriteStep | undefined> {
  let to = end;
  for (let size = FIRST_STRETCH; comparePositions(to, start) > 0; size = longer(size)) {
    const icount = to.icount > size ? to.icount - size : 0n;
    const isWhole = icount <= start.icount;
    yield* isWhole ? timeline.seeking(start) : timeline.seekingInstruction(icount);
    const reached = timeline.position;
    const found = yield* lastChange(timeline, watched, to);
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

/** Steps to a place. @returns the last step that changed it. */
function* lastChange(
  timeline: Timeline,
  { vcpu, slot, mask }: WatchedRegister,
  to: Position,
): Work<WriteStep | undefined> {
  const value = (): bigint => {
    const whole = (timeline.machine.state.vcpus[vcpu]?.registers[slot] ?? 0n) as bigint;
    return mask === undefined ? whole : whole & mask;
  };
  let last: WriteStep | undefined;
  let known = value();
  while (comparePositions(timeline.position, to) < 0) {
    const before = timeline.position;
    if (!timeline.step()) break;
    const now = value();
    if (now !== known) last = { before, after: timeline.position };
    known = now;
    yield timeline.position;
  }
  return last;
}

/**
 * Where a register took the value that it has: by going back, in stretches that grow, and through each of them step by step.
 * What only events change is looked up on the tape; a run of plain instructions may change a general register and change it
 * back, so that for those nothing is left out.
 */
import { comparePositions, type JournalRecord, type Position, START } from '../../src/journal/index.js';
import { decodeDelta, R, type Slot } from '../../src/machine/index.js';
import { boundaryBefore, previousEvent, type Timeline, type Work } from '../../src/replay/index.js';
import type { Debuggee } from './debuggee.js';

/** A register of a vCPU, or some bits of one. */
export interface Watched {
  readonly vcpu: number;
  readonly slot: Slot;
  readonly mask: bigint;
}

const FIRST_STRETCH = 64n;
const GROWTH = 4n;
const LONGEST_STRETCH = 1_000_000n;

/** Goes to before the last step that changed a register. @returns false when none did; it stands at the start then. */
export async function backToChange(debuggee: Debuggee, watched: Watched): Promise<boolean> {
  const here = debuggee.position;
  if (isPlain(watched.slot)) return await backThrough(debuggee, watched, here, START);
  // A run that is under way and its event, or the last event before.
  const pending = debuggee.machine.hasPendingRun ? debuggee.reader.records(here.seq).next().value : undefined;
  if (pending && changes(pending, watched) && (await backThrough(debuggee, watched, here, boundaryBefore(pending)))) {
    return true;
  }
  for (let { seq } = here; ; ) {
    const found = await debuggee.work(previousEvent(debuggee.reader, seq, (_, record) => changes(record, watched)));
    if (found === undefined) return await debuggee.seek(START).then(() => false);
    const end = { icount: found.position.icount, seq: found.position.seq + 1n };
    if (await backThrough(debuggee, watched, end, boundaryBefore(found))) return true;
    seq = found.position.seq;
  }
}

function changes({ event, vcpu }: JournalRecord, watched: Watched): boolean {
  if (vcpu !== watched.vcpu || !('registers' in event)) return false;
  for (const [slot] of decodeDelta(event.registers)) if (slot === watched.slot) return true;
  return false;
}

/** General registers, RIP, flags, x87 and vector registers. */
const isPlain = (slot: Slot): boolean => slot <= R.rflags || (slot >= R.fcw && slot < R.monitorDigest);

/** Looks for the last change in a stretch, from its end. @returns false when there is none; it may stand anywhere then. */
async function backThrough(debuggee: Debuggee, watched: Watched, end: Position, start: Position): Promise<boolean> {
  let to = end;
  for (let size = FIRST_STRETCH; comparePositions(to, start) > 0; size = longer(size)) {
    const icount = to.icount > size ? to.icount - size : 0n;
    const from = icount > start.icount ? { icount, seq: 0n } : start;
    await (from === start ? debuggee.seek(from) : debuggee.work(debuggee.timeline.seekingInstruction(icount)));
    const reached = debuggee.position;
    const found = await debuggee.work(lastChange(debuggee.timeline, watched, to));
    if (found !== undefined) {
      await debuggee.seek(found);
      return true;
    }
    if (from === start) return false;
    to = reached;
  }
  return false;
}

const longer = (size: bigint): bigint => (size * GROWTH < LONGEST_STRETCH ? size * GROWTH : LONGEST_STRETCH);

/** Steps to a place. @returns where the last step began that changed it. */
function* lastChange(timeline: Timeline, { vcpu, slot, mask }: Watched, to: Position): Work<Position | undefined> {
  const value = (): bigint => ((timeline.machine.state.vcpus[vcpu]?.registers[slot] ?? 0n) as bigint) & mask;
  let last: Position | undefined;
  let known = value();
  while (comparePositions(timeline.position, to) < 0) {
    const before = timeline.position;
    if (!timeline.step()) break;
    const now = value();
    if (now !== known) last = before;
    known = now;
    yield timeline.position;
  }
  return last;
}

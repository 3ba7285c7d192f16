/**
 * "Who wrote this?": the last step before a place that wrote to a range of RAM, or that changed a register.
 *
 * For RAM the index of writes tells which stretches of the tape may hold it; the last of them is run with the range watched,
 * then the one before, until one has it. Registers stand in the events; only the run that changed one is run step by step.
 */
import {
  comparePositions,
  type JournalReader,
  type JournalRecord,
  type Position,
  type WriteStretch,
} from '../journal/index.js';
import {
  decodeDelta,
  PAGE_BYTES,
  R,
  REGISTER_NAMES,
  type RegisterDelta,
  type Slot,
  type WatchedRange,
} from '../machine/index.js';
import { type Control, finish, type Timeline } from './timeline.js';

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
  range: WatchedRange,
  limit: Position,
  control: Control = {},
): WriteStep | undefined {
  const first = Math.floor(range.address / PAGE_BYTES);
  const last = Math.floor((range.address + range.length - 1) / PAGE_BYTES);
  timeline.stopAt({ code: new Set(), writes: [range] });
  try {
    for (let at = index.length - 1; at >= 0; at--) {
      const { start, end, pages } = index[at] as WriteStretch;
      if (comparePositions(start, limit) >= 0 || !namesAny(pages, first, last)) continue;
      const to = comparePositions(end, limit) < 0 ? end : limit;
      const found = finish(timeline.lastHit(start, to, true), control);
      if (found === undefined) continue;
      timeline.seek(found.position, control);
      timeline.stepBack(control);
      return { before: timeline.position, after: found.position };
    }
    return undefined;
  } finally {
    timeline.stopAt({ code: new Set(), writes: [] });
  }
}

/** @param pages ascending. */
function namesAny(pages: Uint32Array, first: number, last: number): boolean {
  let low = 0;
  let high = pages.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((pages[middle] as number) < first) low = middle + 1;
    else high = middle;
  }
  return low < pages.length && (pages[low] as number) <= last;
}

/** As `lastWriter`, for a register of a vCPU. */
export function lastChange(
  timeline: Timeline,
  reader: JournalReader,
  { slot, vcpu }: { readonly slot: Slot; readonly vcpu: number },
  limit: Position,
  control: Control = {},
): WriteStep | undefined {
  for (const record of recordsBackwards(reader, limit.seq)) {
    if (!changes(record, slot, vcpu)) continue;
    const { icount, seq } = record.position;
    const before = { icount: icount - BigInt(record.retired), seq };
    const step = lastChangeWithin(timeline, slot, vcpu, before, limit, record.event.type === 'cpu.ran', control);
    if (step !== undefined) return step;
  }
  return undefined;
}

/** Steps from a place through one event. */
function lastChangeWithin(
  timeline: Timeline,
  slot: Slot,
  vcpu: number,
  from: Position,
  limit: Position,
  isRun: boolean,
  control: Control,
): WriteStep | undefined {
  const value = (): bigint => timeline.machine.state.vcpus[vcpu]?.registers[slot] as bigint;
  let found: WriteStep | undefined;
  timeline.seek(from, control);
  while (comparePositions(timeline.position, limit) < 0 && timeline.position.seq <= from.seq) {
    const before = timeline.position;
    const old = value();
    if (!timeline.step()) break;
    if (value() !== old || !isRun) found = { before, after: timeline.position };
    if (control.tick?.(timeline.position) === true) break;
  }
  if (found !== undefined) timeline.seek(found.before, control);
  return found;
}

/** Whether an event may have changed a slot. A run tells what it left changed, not what it changed and put back. */
function changes({ event, vcpu }: JournalRecord, slot: Slot, of: number): boolean {
  if (vcpu !== of || !('registers' in event)) return false;
  if (event.type === 'cpu.ran' && isPlain(slot)) return true;
  for (const [changed] of decodeDelta(event.registers as RegisterDelta)) if (changed === slot) return true;
  return false;
}

/** Slots that instructions change between two events. */
const isPlain = (slot: Slot): boolean =>
  slot <= R.gsBase || /^(xmm|ymm|fpr|mxcsr|f[cst]w|f[oid]p|boundary)/.test(REGISTER_NAMES[slot] ?? '');

/** The records before event number `seq`, the last first; the one at `seq` too, in which a place may lie. */
function* recordsBackwards(reader: JournalReader, seq: bigint): Generator<JournalRecord, void, void> {
  let next = seq < reader.end.seq ? seq : reader.end.seq - 1n;
  while (next >= 0n) {
    const chunk = reader.chunkAt(next);
    if (chunk === undefined) return;
    const records = [...reader.recordsOfChunk(chunk)].filter(({ position }) => position.seq <= next);
    yield* records.reverse();
    next = chunk.start.seq - 1n;
  }
}

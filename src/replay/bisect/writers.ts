/**
 * Who last wrote the bits that decided: a VMCB's control word, a byte of a permission map. A tape without an index of writes is
 * not run whole for that. VMRUN says which words of the VMCB software changed since the processor saw it last, checkpoints say
 * when a page's content was another; only what lies between is run.
 */
import {
  comparePositions,
  isRecordOf,
  type JournalReader,
  type Position,
  type WriteStretch,
} from '../../journal/index.js';
import { decodeVmcbDelta, type EventOf, type Level, PAGE_BYTES, type WatchedRange } from '../../machine/index.js';
import { boundaryBefore } from '../position-pattern.js';
import { runCost } from '../run-cost.js';
import { lastWriter } from '../who-wrote.js';
import { covers } from '../write-index.js';
import type { Side } from './side.js';
import { beforeAt } from './transition.js';

/** The step that wrote. */
export interface Writer {
  readonly kind: 'found';
  /** The place before it. */
  readonly place: Position;
  readonly vcpu: number;
  readonly level: Level;
  readonly rip: bigint;
  readonly instruction: string;
}

export type WriterAnswer =
  | Writer
  /** Nothing on the tape did: it is as the session began. */
  | { readonly kind: 'nobody' }
  /** It would take too long here, or the tape cannot be run. */
  | { readonly kind: 'not-searched'; readonly why: string };

/** Nanoseconds of running that an answer is worth. */
const WORTH = 2_500_000_000;

/** Bytes of a VMCB, as of a place. @param offset of the byte in it. */
export function writerOfVmcb(side: Side, vmcb: number, offset: number, place: Position): WriterAnswer {
  const range = { address: vmcb + offset, length: 1 };
  return search(side, range, place, vmcbStretches(side.reader, vmcb, offset >> 3, place));
}

/** A byte of RAM of which no event tells. */
export function writerOfByte(side: Side, address: number, place: Position): WriterAnswer {
  return search(
    side,
    { address, length: 1 },
    place,
    pageStretches(side.reader, Math.floor(address / PAGE_BYTES), place),
  );
}

type Stretch = Pick<WriteStretch, 'start' | 'end'>;

/** @param stretches that may hold the write, the last one first. */
function search(side: Side, range: WatchedRange, place: Position, stretches: Iterable<Stretch>): WriterAnswer {
  const page = Math.floor(range.address / PAGE_BYTES);
  const index = side.reader.writeIndex();
  const known = index !== undefined && covers(index, side.reader) ? index : undefined;
  let cost = 0;
  for (const { start, end } of stretches) {
    // The index says more exactly where that page was written to.
    const parts = known?.filter(
      (each) =>
        comparePositions(each.start, end) < 0 && comparePositions(start, each.end) < 0 && each.pages.includes(page),
    ) ?? [{ start, end, pages: Uint32Array.of(page) }];
    cost += parts.reduce((sum, part) => sum + runCost(part.start, part.end), 0);
    if (cost > WORTH) return { kind: 'not-searched', why: 'it was long ago' };
    const step = side.attempt((line) => lastWriter(line, parts, [range], place) ?? null);
    if (step === undefined) return { kind: 'not-searched', why: 'this vmtape does not do what the tape says' };
    if (step !== null) return described(side, step.before);
  }
  return { kind: 'nobody' };
}

function described(side: Side, place: Position): WriterAnswer {
  const before = beforeAt(side, place);
  if (before === undefined) return { kind: 'not-searched', why: 'this vmtape does not do what the tape says' };
  const { vcpu, level, instruction } = before;
  return { kind: 'found', place, vcpu, level, rip: instruction?.rip ?? 0n, instruction: instruction?.text ?? '' };
}

/** Between two VMRUNs of the VMCB of which the later found the word changed; the last ones first. */
function* vmcbStretches(
  reader: JournalReader,
  vmcb: number,
  word: number,
  place: Position,
): Generator<Stretch, void, void> {
  let changed: Position | undefined = place;
  for (const { event, boundary } of vmrunsBackwards(reader, place)) {
    if (event.vmcb !== vmcb) continue;
    if (changed !== undefined) yield { start: boundary, end: changed };
    changed = changes(event.words, word) ? boundary : undefined;
  }
  if (changed !== undefined) yield { start: reader.start, end: changed };
}

function changes(delta: Uint8Array, word: number): boolean {
  for (const [each] of decodeVmcbDelta(delta)) if (each === word) return true;
  return false;
}

interface PlacedVmrun {
  readonly event: EventOf<'svm.vmrun'>;
  readonly boundary: Position;
}

function* vmrunsBackwards(reader: JournalReader, place: Position): Generator<PlacedVmrun, void, void> {
  let before = place.seq;
  while (before > reader.start.seq) {
    const chunk = reader.chunkAt(before - 1n);
    if (chunk === undefined) return;
    const found: PlacedVmrun[] = [];
    const scan = reader.scanChunk(chunk);
    while (scan.next() && scan.seq < before) {
      if (scan.type !== 'svm.vmrun') continue;
      const { record } = scan;
      if (isRecordOf(record, 'svm.vmrun'))
        found.push({ event: record.event as EventOf<'svm.vmrun'>, boundary: boundaryBefore(record) });
    }
    yield* found.reverse();
    before = chunk.start.seq;
  }
}

/** Between checkpoints at which a page has not the same content; the last one first. */
function* pageStretches(reader: JournalReader, page: number, place: Position): Generator<Stretch, void, void> {
  const entries = reader.checkpoints().filter(({ position }) => comparePositions(position, place) < 0);
  let end = place;
  let later: number | undefined;
  for (let at = entries.length - 1; at >= 0; at--) {
    const { id, position } = entries[at] as (typeof entries)[number];
    const content = reader.checkpoint(id)?.pages[page];
    if (content === undefined) continue;
    if (later === undefined || later !== content) yield { start: position, end };
    later = content;
    end = position;
  }
  if (comparePositions(reader.start, end) < 0) yield { start: reader.start, end };
}

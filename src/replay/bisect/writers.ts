/**
 * Who last wrote the bits that decided: a VMCB's control word, a byte of a permission map. A tape without an index of writes is
 * not run whole for that. VMRUN says which words of the VMCB software changed since the processor saw it last, checkpoints say
 * when a page's content was another; only what lies between is run.
 */
import { comparePositions, type JournalReader, type Position, type WriteStretch } from '../../journal/index.js';
import { decodeVmcbDelta, type Level, type MachineEvent, PAGE_BYTES, type WatchedRange } from '../../machine/index.js';
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

const KNOWS_VMCB: ReadonlySet<string> = new Set(['svm.vmrun', 'svm.vmexit', 'svm.vmload', 'svm.vmsave']);

/** Between when the processor read or wrote the VMCB and the VMRUN that found the word changed; the last one first. */
function* vmcbStretches(
  reader: JournalReader,
  vmcb: number,
  word: number,
  place: Position,
): Generator<Stretch, void, void> {
  let changed: Position | undefined = place;
  for (const { event, boundary } of eventsBackwards(reader, place)) {
    if (!('vmcb' in event) || event.vmcb !== vmcb) continue;
    if (changed !== undefined) yield { start: boundary, end: changed };
    changed = event.type === 'svm.vmrun' && changes(event.words, word) ? boundary : undefined;
  }
  if (changed !== undefined) yield { start: reader.start, end: changed };
}

function changes(delta: Uint8Array, word: number): boolean {
  for (const [each] of decodeVmcbDelta(delta)) if (each === word) return true;
  return false;
}

/** Events that tell of a VMCB, from a place backwards. */
function* eventsBackwards(
  reader: JournalReader,
  place: Position,
): Generator<{ readonly event: MachineEvent; readonly boundary: Position }, void, void> {
  let before = place.seq;
  while (before > reader.start.seq) {
    const chunk = reader.chunkAt(before - 1n);
    if (chunk === undefined) return;
    const found: { readonly event: MachineEvent; readonly boundary: Position }[] = [];
    const scan = reader.scanChunk(chunk);
    while (scan.next() && scan.seq < before) {
      if (!KNOWS_VMCB.has(scan.type)) continue;
      const { record } = scan;
      found.push({ event: record.event, boundary: boundaryBefore(record) });
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

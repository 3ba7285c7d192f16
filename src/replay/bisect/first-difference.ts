/**
 * The first event in which two tapes differ: by their hash chains and digests, without running anything.
 *
 * With equal headers the chains say of every chunk whether all up to its end is the same, and halving finds the chunk. Chains
 * begin with the header's digest; where headers differ the digests of the chunks themselves are compared one after the other,
 * 32 bytes for some thousands of events. Tapes that begin at different places have other chunks, and are compared event by event.
 */
import {
  type ChunkScan,
  comparePositions,
  type JournalReader,
  type JournalRecord,
  type Position,
  sameBytes,
} from '../../journal/index.js';
import { InputError } from '../../machine/index.js';
import { sameData } from '../fold.js';
import type { Pair } from './pair.js';
import type { Tolerance } from './tolerance.js';

export interface TapeDifference {
  /** The boundary up to which all events are the same. */
  readonly boundary: Position;
  /** What each tape has next; undefined where it ends. */
  readonly records: Pair<JournalRecord | undefined>;
}

/** How much of the tapes was looked at: figures for people. */
export interface TapeComparison {
  /** The first place that both tapes have. */
  readonly start: Position;
  /** Undefined when no event differs, to the end of both. */
  readonly difference: TapeDifference | undefined;
  /** Digests that were compared, and events that were. */
  readonly links: number;
  readonly events: number;
}

/**
 * @param tolerance what is passed over.
 * @throws InputError when the tapes have no place in common; the journal's errors when one is damaged where it is read.
 */
export function firstDifference(tapes: Pair<JournalReader>, tolerance?: Tolerance): TapeComparison {
  const [first, second] = tapes;
  const start = comparePositions(first.start, second.start) >= 0 ? first.start : second.start;
  if (start.seq > first.end.seq || start.seq > second.end.seq) {
    const [late, early] = start.seq > first.end.seq ? ['first', 'second'] : ['second', 'first'];
    const problem = `the ${late} tape ends before the ${early} one begins`;
    throw new InputError('tapes', problem, 'Give two tapes of sessions that overlap.');
  }
  const alike = haveEqualEncodings(tapes);
  const aligned = alike && comparePositions(first.start, second.start) === 0;
  const { index, links } = aligned ? firstDifferentChunk(tapes) : { index: 0, links: 0 };
  const from = index === 0 ? start.seq : first.chunkLink(index - 1).end.seq;
  const { difference, events } = compareEvents(tapes, from, alike, tolerance);
  return { start, difference, links, events };
}

/** The same event has the same bytes on both tapes. */
function haveEqualEncodings([first, second]: Pair<JournalReader>): boolean {
  if (first.header.codecVersion !== second.header.codecVersion) return false;
  const [a, b] = [first, second].map(({ header }) => Object.entries(header.events));
  const shorter = Math.min(a?.length ?? 0, b?.length ?? 0);
  return sameData(a?.slice(0, shorter), b?.slice(0, shorter));
}

function firstDifferentChunk(tapes: Pair<JournalReader>): { readonly index: number; readonly links: number } {
  const [first, second] = tapes;
  const count = Math.min(first.chunkCount, second.chunkCount);
  let links = 0;
  const sameAt = (index: number, what: 'digest' | 'chain'): boolean => {
    links++;
    return sameBytes(first.chunkLink(index)[what], second.chunkLink(index)[what]);
  };
  if (first.historyDigest(first.start.seq) === second.historyDigest(second.start.seq)) {
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sameAt(middle, 'chain')) low = middle + 1;
      else high = middle;
    }
    return { index: low, links };
  }
  let index = 0;
  while (index < count && sameAt(index, 'digest')) index++;
  return { index, links };
}

function compareEvents(
  tapes: Pair<JournalReader>,
  seq: bigint,
  alike: boolean,
  tolerance: Tolerance | undefined,
): { readonly difference: TapeDifference | undefined; readonly events: number } {
  const [first, second] = [scansFrom(tapes[0], seq), scansFrom(tapes[1], seq)];
  let events = 0;
  for (;;) {
    const [a, b] = [first.next().value, second.next().value];
    if (a === undefined && b === undefined) return { difference: undefined, events };
    const follows = tolerance !== undefined && tolerance.passed.length > 0;
    const same = a !== undefined && b !== undefined && !follows && sameEvent(a, b, alike);
    if (a === undefined || b === undefined || !(same || tolerance?.passes(a.record, b.record) === true)) {
      const scan = (a ?? b) as ChunkScan;
      const boundary = { icount: scan.icount - BigInt(scan.retired), seq: scan.seq };
      return { difference: { boundary, records: [a?.record, b?.record] }, events };
    }
    events++;
  }
}

function sameEvent(a: ChunkScan, b: ChunkScan, alike: boolean): boolean {
  if (alike) return sameBytes(a.raw, b.raw);
  if (a.type !== b.type || a.retired !== b.retired || a.vcpu !== b.vcpu || a.level !== b.level) return false;
  return sameData(a.event, b.event);
}

/** The events of a tape from a number on, each in the same object. */
function* scansFrom(reader: JournalReader, seq: bigint): Generator<ChunkScan, undefined, void> {
  for (const chunk of reader.chunks(seq)) {
    const scan = reader.scanChunk(chunk);
    while (scan.next()) {
      if (scan.seq >= reader.end.seq) return;
      if (scan.seq >= seq) yield scan;
    }
  }
}

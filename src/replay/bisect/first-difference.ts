/**
 * The first event in which two tapes differ: by their hash chains and digests, without running anything.
 *
 * With equal headers the chains say of every chunk whether all up to its end is the same, and halving finds the chunk. Chains
 * begin with the header's digest; where headers differ the digests of the chunks themselves are compared one after the other,
 * 32 bytes for some thousands of events. Tapes that begin at different places have other chunks, and are compared event by event.
 */
import { comparePositions, type JournalReader, type Position, sameBytes } from '../../journal/index.js';
import { InputError } from '../../machine/index.js';
import { sameData } from '../fold.js';
import { EventWalk, type TapeDifference } from './event-walk.js';
import type { Pair } from './pair.js';
import type { Tolerance } from './tolerance.js';

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
  const walk = new EventWalk(tapes, from, alike, tolerance);
  return { start, difference: walk.run(), links, events: walk.events };
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

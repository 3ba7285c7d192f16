/**
 * Where a session is saved: boundaries around events of a kind, every so many instructions, or all that there are. With too
 * many of them a sample is taken, by a seed.
 *
 * A place may lie amid a run: before a #VMEXIT the instructions of L2 have retired, and nothing has said so yet.
 */
import { comparePositions, type JournalReader, type JournalRecord, type Position } from '../../journal/index.js';
import { InputError } from '../../machine/index.js';
import { SplitMix64 } from '../split-mix.js';

const KINDS: Readonly<Record<string, readonly string[]>> = {
  vmexit: ['svm.vmexit'],
  vmrun: ['svm.vmrun'],
  injection: ['svm.injected'],
  interrupt: ['cpu.interrupt', 'cpu.pended', 'avic.acknowledged'],
};

export type PlaceChoice =
  | { readonly kind: 'all' }
  | { readonly kind: 'every'; readonly instructions: number }
  | { readonly kind: 'events'; readonly types: ReadonlySet<string> };

/** @param text `all`, `every:N`, or kinds of events with commas between. @throws InputError */
export function parsePlaces(text: string): PlaceChoice {
  if (text === 'all') return { kind: 'all' };
  const every = /^every:(\d{1,15})$/.exec(text);
  if (every !== null && Number(every[1]) > 0) return { kind: 'every', instructions: Number(every[1]) };
  const types = text.split(',').flatMap((name) => KINDS[name.trim()] ?? refuse(text));
  return { kind: 'events', types: new Set(types) };
}

function refuse(text: string): never {
  const remedy = `Write all, every:N with instructions, or ${Object.keys(KINDS).join(', ')}.`;
  throw new InputError(`--at ${text}`, 'that names no boundaries', remedy);
}

export interface Stretch {
  readonly from: Position;
  readonly to: Position;
}

/** In order, each once. */
export function* placesIn(reader: JournalReader, choice: PlaceChoice, stretch: Stretch): Generator<Position> {
  let last: Position | undefined;
  for (const place of choice.kind === 'every'
    ? everySoMany(choice.instructions, stretch)
    : aroundEvents(reader, choice, stretch)) {
    if (last !== undefined && comparePositions(place, last) <= 0) continue;
    if (comparePositions(place, stretch.from) < 0 || comparePositions(place, stretch.to) > 0) continue;
    last = place;
    yield place;
  }
}

function* everySoMany(instructions: number, { from, to }: Stretch): Generator<Position> {
  const step = BigInt(instructions);
  for (let icount = (from.icount / step) * step; icount <= to.icount; icount += step) yield { icount, seq: 0n };
}

function* aroundEvents(
  reader: JournalReader,
  choice: Exclude<PlaceChoice, { readonly kind: 'every' }>,
  { from, to }: Stretch,
): Generator<Position> {
  let before: JournalRecord | undefined;
  for (const record of reader.records(from.seq)) {
    const { icount, seq } = record.position;
    if (seq >= to.seq) return;
    if (choice.kind === 'all') yield* aroundRun(record);
    else if (choice.types.has(record.event.type)) {
      // What ran before it is stated with it.
      const ran = before?.event.type === 'cpu.ran';
      yield { icount: icount - BigInt(record.retired), seq: ran ? seq - 1n : seq };
      yield { icount, seq: seq + 1n };
    }
    before = record;
  }
}

/** Amid a run, at its end before it is stated, and after the event, whatever it is. */
function* aroundRun({ event, retired, position: { icount, seq } }: JournalRecord): Generator<Position> {
  if (event.type === 'cpu.ran' && retired > 1) yield { icount: icount - BigInt(retired >> 1), seq };
  if (event.type === 'cpu.ran' && retired > 0) yield { icount, seq };
  yield { icount, seq: seq + 1n };
}

export interface Sample {
  readonly places: readonly Position[];
  /** How many there were to choose from. */
  readonly of: number;
}

/** Some of them, each with the same chance, in order. @param most how many. */
export function sampled(places: Iterable<Position>, most: number, seed: bigint): Sample {
  const random = new SplitMix64(seed);
  const kept: Position[] = [];
  let of = 0;
  for (const place of places) {
    of++;
    if (kept.length < most) kept.push(place);
    else {
      const at = random.below(of);
      if (at < most) kept[at] = place;
    }
  }
  return { places: kept.sort(comparePositions), of };
}

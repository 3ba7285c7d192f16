/**
 * Two tapes' events, pair by pair, to the first in which they differ. What is passed over may be on one tape alone; where it cuts a
 * run in two there, the pieces are held against what the other tape has as one.
 */
import {
  type ChunkScan,
  type JournalReader,
  type JournalRecord,
  type Position,
  sameBytes,
} from '../../journal/index.js';
import { sameData } from '../fold.js';
import type { Pair } from './pair.js';
import { Stretch, type Tolerance } from './tolerance.js';

export interface TapeDifference {
  /** The boundary up to which all events are the same, as each tape numbers its events. */
  readonly boundaries: Pair<Position>;
  /** What each tape has next; undefined where it ends. */
  readonly records: Pair<JournalRecord | undefined>;
}

const INDEXES = [0, 1] as const;

export class EventWalk {
  private readonly scans: Pair<Generator<ChunkScan, undefined, void>>;
  /** What comes next on each tape; undefined at its end. */
  private readonly heads: [ChunkScan | undefined, ChunkScan | undefined];
  /** Pairs that were found the same. */
  events = 0;

  /** @param alike the same event has the same bytes on both tapes. */
  constructor(
    private readonly tapes: Pair<JournalReader>,
    seq: bigint,
    private readonly alike: boolean,
    private readonly tolerance: Tolerance | undefined,
  ) {
    this.scans = [scansFrom(tapes[0], seq), scansFrom(tapes[1], seq)];
    this.heads = [this.scans[0].next().value, this.scans[1].next().value];
  }

  /** @returns the first difference; undefined when there is none, to the end of both. */
  run(): TapeDifference | undefined {
    for (;;) {
      const [a, b] = this.heads;
      if (a === undefined && b === undefined) return undefined;
      if (a !== undefined && b !== undefined && this.arePair(a, b)) {
        this.advance(0);
        this.advance(1);
        this.events++;
        continue;
      }
      const difference = this.here();
      if (this.tolerance === undefined) return difference;
      if (!this.skips(this.tolerance) && !this.matches(this.tolerance, difference)) return difference;
    }
  }

  private arePair(a: ChunkScan, b: ChunkScan): boolean {
    const { tolerance } = this;
    // Once something was passed over, registers are followed.
    if ((tolerance === undefined || tolerance.passed.length === 0) && sameEvent(a, b, this.alike)) return true;
    return tolerance?.passes(a.record, b.record) === true;
  }

  private here(): TapeDifference {
    const boundary = (index: 0 | 1): Position => {
      const head = this.heads[index];
      return head ? { icount: head.icount - BigInt(head.retired), seq: head.seq } : this.tapes[index].end;
    };
    return { boundaries: [boundary(0), boundary(1)], records: [this.heads[0]?.record, this.heads[1]?.record] };
  }

  private advance(index: 0 | 1): void {
    this.heads[index] = this.scans[index].next().value;
  }

  /** Leaves out an event between two instructions that is passed over: of two the earlier one. */
  private skips(tolerance: Tolerance): boolean {
    const over = INDEXES.flatMap((index) => {
      const record = this.heads[index]?.record;
      return record?.retired === 0 && tolerance.ignores(record) ? [{ index, record }] : [];
    });
    const [first, second] = over;
    if (first === undefined) return false;
    const earlier = second !== undefined && second.record.position.icount < first.record.position.icount;
    const { index, record } = earlier ? second : first;
    tolerance.passOver(index, record, new Stretch());
    this.advance(index);
    return true;
  }

  /** Whether what follows is one run on one tape, and on the other the same in pieces, with what is passed over between them. */
  private matches(tolerance: Tolerance, { records }: TapeDifference): boolean {
    const [first, second] = records;
    if (first === undefined || second === undefined) return false;
    const passed = tolerance.passed.length;
    const stretch = new Stretch(true);
    const done: [number, number] = [0, 0];
    const runMayFollow: [boolean, boolean] = [true, true];
    let last = first;
    do {
      const index = done[0] <= done[1] ? 0 : 1;
      const record = this.heads[index]?.record;
      if (record !== undefined && tolerance.ignores(record)) {
        tolerance.passOver(index, record, stretch);
        runMayFollow[index] = true;
      } else if (record !== undefined && runMayFollow[index] && isRunOf(record, first)) {
        tolerance.follow(index, record, stretch);
        runMayFollow[index] = false;
        if (index === 0) last = record;
      } else {
        // What lies behind the difference is none that was passed over.
        tolerance.passed.length = passed;
        return false;
      }
      done[index] += record.retired;
      this.advance(index);
      this.events++;
    } while (done[0] !== done[1]);
    return tolerance.passed.length > passed && tolerance.passesRegisters(first, stretch, last);
  }
}

const isRunOf = ({ event, vcpu, level }: JournalRecord, other: JournalRecord): boolean =>
  event.type === 'cpu.ran' && vcpu === other.vcpu && level === other.level;

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

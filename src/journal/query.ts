/**
 * Typed questions to a tape: records by kind, level and range. Only what passes is decoded; chunks outside the range are
 * not read at all.
 */
import type { Level, MachineEvent } from '../machine/events.js';
import type { Chunk } from './chunk.js';
import type { ChunkScan } from './chunk-scan.js';
import type { JournalRecord } from './record.js';
import type { JournalReader } from './store.js';

export interface RecordFilter {
  /** Event type with `*` and `?`: `svm.*`. */
  readonly kind?: string | undefined;
  /** Event types, one of which it must be. */
  readonly kinds?: readonly string[] | undefined;
  readonly level?: Level | undefined;
  /** First event number. */
  readonly fromSeq?: bigint | undefined;
  /** Event number to stop before. */
  readonly toSeq?: bigint | undefined;
  /** Least instruction count after the event. */
  readonly fromIcount?: bigint | undefined;
  /** Instruction count after the event to stay below. */
  readonly toIcount?: bigint | undefined;
}

/** The records that a filter lets through, in order. */
export function selectRecords(reader: JournalReader, filter: RecordFilter = {}): Generator<JournalRecord, void, void> {
  return new RecordSource(reader).select(filter);
}

/** Chunks that stay decompressed, for questions that come back to the same places. */
const HELD_CHUNKS = 8;

/** Answers many questions to one tape. */
export class RecordSource {
  private readonly types: readonly string[];
  /** Chunks of late, the oldest first. */
  private held: readonly Chunk[] = [];

  constructor(private readonly reader: JournalReader) {
    this.types = Object.keys(reader.header.events);
  }

  *select(filter: RecordFilter): Generator<JournalRecord, void, void> {
    for (const scan of this.scan(filter)) yield scan.record;
  }

  /** The same, not decoded. What is yielded goes on to the next event with the next step. */
  *scan(filter: RecordFilter): Generator<ChunkScan, void, void> {
    const { level, fromSeq = 0n, toSeq = this.reader.end.seq, fromIcount = 0n, toIcount } = filter;
    const wanted = this.wantedKinds(filter);
    if (!wanted.includes(true)) return;
    // A tape that grows may already have more than when it was opened.
    const endSeq = toSeq < this.reader.end.seq ? toSeq : this.reader.end.seq;
    for (const chunk of this.chunks(fromSeq, fromIcount)) {
      const { start, end } = chunk;
      if (start.seq >= endSeq || (toIcount !== undefined && start.icount >= toIcount)) return;
      const inside =
        start.seq >= fromSeq &&
        end.seq <= endSeq &&
        start.icount >= fromIcount &&
        (toIcount === undefined || end.icount < toIcount);
      const scan = this.reader.scanChunk(chunk);
      while (scan.next()) {
        if (wanted[scan.kind] !== true || (level !== undefined && scan.level !== level)) continue;
        if (!inside) {
          const { seq, icount } = scan;
          if (seq >= endSeq || (toIcount !== undefined && icount >= toIcount)) return;
          if (seq < fromSeq || icount < fromIcount) continue;
        }
        yield scan;
      }
    }
  }

  /** Whether each kind of the tape's event table is asked for. */
  private wantedKinds({ kind, kinds }: RecordFilter): readonly boolean[] {
    const matches = kind === undefined ? () => true : globMatcher(kind);
    return this.types.map((type) => matches(type) && (kinds === undefined || kinds.includes(type)));
  }

  /** Chunks from the one on that holds the later of the two places. */
  private *chunks(fromSeq: bigint, fromIcount: bigint): Generator<Chunk, void, void> {
    const { reader } = this;
    let seq = fromSeq;
    if (fromIcount > 0n) {
      const first = reader.chunkAtIcount(fromIcount);
      if (first === undefined) return;
      if (first.start.seq > seq) seq = first.start.seq;
    }
    const known = this.held.find(({ start, end }) => start.seq <= seq && seq < end.seq);
    if (known !== undefined) {
      yield known;
      seq = known.end.seq;
    }
    for (const chunk of reader.chunks(seq)) {
      this.hold(chunk);
      yield chunk;
    }
  }

  private hold(chunk: Chunk): void {
    this.held = [...this.held.filter(({ index }) => index !== chunk.index), chunk].slice(-HELD_CHUNKS);
  }
}

/** A test of whole texts against a pattern in which `*` is any run of characters and `?` any one. */
export function globMatcher(glob: string): (text: string) => boolean {
  const escaped = glob.replace(/[.+^${}()|[\]\\]/g, String.raw`\$&`);
  const pattern = new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`, 's');
  return (text) => pattern.test(text);
}

/** The fields of an event as JSON. Bytes are hexadecimal, and so are 64-bit values, for JSON's own would be rounded. */
export function payloadJson({ type: _, ...fields }: MachineEvent): string {
  return JSON.stringify(fields, (_key, value: unknown) => {
    if (typeof value === 'bigint') return `0x${value.toString(16)}`;
    return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value;
  });
}

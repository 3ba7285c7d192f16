/**
 * A chunk: some thousands of events that are stored, compressed and digested together.
 *
 * Invariant: where chunks end depends on the events alone, never on time, so that equal sessions have equal chunks and a
 * replay may compare whole chunks. A chunk ends with the event that makes it `CHUNK_EVENTS` long or brings it to
 * `CHUNK_BYTES`; only the last chunk of a tape may be shorter. It is stored while it grows: see docs/tape-format.md.
 */
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';
import { EVENT_FIELDS, type StatedEvent } from '../machine/events.js';
import { type Allocate, EventDecoder, EventEncoder, type EventTable, encodedEnds } from './codec.js';
import { digestOf, plain } from './digest.js';
import { type JournalRecord, type Position, START } from './record.js';
import { CODEC_VERSION } from './upcast.js';

export const CHUNK_EVENTS = 4096;
export const CHUNK_BYTES = 512 * 1024;

/** Where a chunk stands and what it holds; `start` is the boundary before its first event, `end` that after its last. */
export interface ChunkHeader {
  /** Chunks of a tape are numbered from 0. */
  readonly index: number;
  readonly start: Position;
  readonly end: Position;
  readonly codecVersion: number;
}

export interface Chunk extends ChunkHeader {
  /** The encoded events, one after the other. */
  readonly raw: Uint8Array;
  /** Places in the event table of the kinds that its events are of, of a part of it perhaps of more; where whoever unpacked it knows. */
  readonly kinds?: ReadonlySet<number> | undefined;
}

/** What a tape says of a chunk without the chunk being read. */
export interface ChunkLink extends ChunkHeader {
  /** `chunkDigest`: equal on tapes of equal sessions. */
  readonly digest: Uint8Array;
  /** `chainDigest` up to here: equal where headers and all events up to here are. */
  readonly chain: Uint8Array;
}

/** Says what a chunk holds, whichever tape it is on: equal sessions have equal digests. */
export const chunkDigest = ({ index, start, end, codecVersion, raw }: Chunk): Uint8Array =>
  digestOf('vmtape chunk', index, start.seq, end.seq, start.icount, end.icount, codecVersion, raw);

/** A link of the hash chain over what a table holds in order. The first link's `previous` is the header's digest. */
export const chainDigest = (previous: Uint8Array, digest: Uint8Array): Uint8Array =>
  digestOf('vmtape chain', previous, digest);

/** Packs events into chunks; a recorder and a replayer that state the same events get the same chunks. */
export class ChunkEncoder {
  private readonly encoder: EventEncoder;
  private events = 0;
  /** Instructions retired in this chunk are `retiredBefore + retired`: the second part stays exact as a number. */
  private retired = 0;
  private retiredBefore = 0n;

  /**
   * @param table event table of the tape. @param index number of the first chunk.
   * @param start boundary before its first event. @param allocate see `EventEncoder`.
   */
  constructor(
    table: EventTable = EVENT_FIELDS,
    private index = 0,
    private start: Position = START,
    allocate?: Allocate,
  ) {
    this.encoder = new EventEncoder(table, allocate);
  }

  /** Goes on after the last chunk of a tape, or within it when it is not full; without one at `start`. */
  static after(
    chunk: Chunk | undefined,
    table: EventTable,
    start: Position = START,
    allocate?: Allocate,
  ): ChunkEncoder {
    if (chunk === undefined) return new ChunkEncoder(table, 0, start, allocate);
    const encoder = new ChunkEncoder(table, chunk.index, chunk.start, allocate);
    encoder.encoder.restore(chunk.raw);
    encoder.events = Number(chunk.end.seq - chunk.start.seq);
    encoder.retiredBefore = chunk.end.icount - chunk.start.icount;
    if (encoder.full) encoder.next();
    return encoder;
  }

  /** Goes on within a chunk, after the events before a boundary in it. */
  static within(chunk: Chunk, boundary: Position, table: EventTable): ChunkEncoder {
    return ChunkEncoder.after(chunkUpTo(chunk, boundary), table);
  }

  /** Appends one event. @returns true when the chunk is full: then take `chunk` and call `next`. */
  append(stated: StatedEvent): boolean {
    this.encoder.encode(stated);
    const sum = this.retired + stated.retired;
    if (sum > Number.MAX_SAFE_INTEGER) {
      this.retiredBefore += BigInt(this.retired);
      this.retired = stated.retired;
    } else {
      this.retired = sum;
    }
    this.events++;
    return this.full;
  }

  private get full(): boolean {
    return this.events >= CHUNK_EVENTS || this.encoder.length >= CHUNK_BYTES;
  }

  get empty(): boolean {
    return this.events === 0;
  }

  /** Bytes encoded in the chunk so far. */
  get length(): number {
    return this.encoder.length;
  }

  /** The memory that holds the chunk now; see `EventEncoder`. */
  get buffer(): ArrayBufferLike {
    return this.encoder.buffer;
  }

  /** The boundary after the last event. */
  get end(): Position {
    return {
      icount: this.start.icount + this.retiredBefore + BigInt(this.retired),
      seq: this.start.seq + BigInt(this.events),
    };
  }

  /** The chunk so far. Its `raw` is a view that the next chunk overwrites. */
  get chunk(): Chunk {
    const { index, start, end } = this;
    return { index, start, end, codecVersion: CODEC_VERSION, raw: this.encoder.bytes };
  }

  /** Begins the chunk that follows. @param buffer memory to use for it; the same again by default. */
  next(buffer: ArrayBufferLike = this.buffer): void {
    this.start = this.end;
    this.index++;
    this.events = 0;
    this.retired = 0;
    this.retiredBefore = 0n;
    this.encoder.use(buffer);
  }
}

/** The events of a chunk before a boundary in it. */
export function chunkUpTo(chunk: Chunk, boundary: Position): Chunk {
  const events = Number(boundary.seq - chunk.start.seq);
  return { ...chunk, end: boundary, raw: chunk.raw.subarray(0, events === 0 ? 0 : endsOf(chunk)[events - 1]) };
}

const ends = new WeakMap<Chunk, readonly number[]>();

function endsOf(chunk: Chunk): readonly number[] {
  const known = ends.get(chunk) ?? encodedEnds(chunk.raw);
  ends.set(chunk, known);
  return known;
}

/** The records of a chunk. @throws EncodingError when its bytes are no events. */
export function* recordsOf(chunk: Chunk, table: EventTable): Generator<JournalRecord, void, void> {
  let { icount, seq } = chunk.start;
  for (const stated of new EventDecoder(table, chunk.codecVersion).decode(chunk.raw)) {
    const { retired, vcpu, level, event } = stated;
    icount += BigInt(retired);
    // Spelled out: spreading costs several times as much, and every reader waits for this.
    yield { position: { icount, seq }, retired, vcpu, level, event };
    seq++;
  }
}

/** The boundary after the events in `raw`. */
export function endOf(start: Position, raw: Uint8Array, table: EventTable): Position {
  const events = new EventDecoder(table, CODEC_VERSION).decode(raw);
  const icount = events.reduce((sum, { retired }) => sum + BigInt(retired), start.icount);
  return { icount, seq: start.seq + BigInt(events.length) };
}

/** Brotli. @param quality @param window bits of its size; these are best for events: see docs/adr/0011. */
export const compress = (raw: Uint8Array, quality = 2, window = 18): Uint8Array =>
  brotliCompressSync(raw, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: quality,
      [constants.BROTLI_PARAM_LGWIN]: window,
      [constants.BROTLI_PARAM_SIZE_HINT]: raw.length,
    },
  });

/** @throws when the bytes are damaged or hold more than `length` bytes. */
export const decompress = (compressed: Uint8Array, length: number): Uint8Array =>
  plain(brotliDecompressSync(compressed, { maxOutputLength: Math.max(length, 1) }));

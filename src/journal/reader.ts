/**
 * What every reader does alike, given its chunks by number: records, and the chunk that holds a place.
 */
import { type Checkpoint, type CheckpointEntry, ORIGIN_CHECKPOINT } from './checkpoint.js';
import {
  type Chunk,
  type ChunkHeader,
  type ChunkLink,
  chainDigest,
  chunkDigest,
  chunkUpTo,
  recordsOf,
} from './chunk.js';
import { ChunkScan } from './chunk-scan.js';
import type { EncodingError } from './codec.js';
import { toHex } from './digest.js';
import { boundaryAfter, comparePositions, type JournalRecord, type Position } from './record.js';
import type { JournalReader, StateDigest, TapeHeader, TapeState } from './store.js';
import type { WriteStretch } from './write-stretch.js';

export abstract class ChunkedReader implements JournalReader {
  abstract readonly header: TapeHeader;
  abstract readonly state: TapeState;
  abstract readonly start: Position;
  abstract readonly end: Position;
  abstract readonly chunkCount: number;

  abstract digests(kind?: string): Generator<StateDigest, void, void>;
  abstract blob(digest: string): Uint8Array | undefined;
  abstract blobDigests(): readonly string[];
  abstract checkpoints(): readonly CheckpointEntry[];
  abstract checkpoint(id: number): Checkpoint | undefined;
  abstract page(content: number): Uint8Array;
  abstract writeIndex(): readonly WriteStretch[] | undefined;
  abstract close(): void;

  abstract chunkByIndex(index: number): Chunk;
  abstract chunkLink(index: number): ChunkLink;
  protected abstract chunkHeader(index: number): ChunkHeader;
  /** The link of the hash chain before a chunk. */
  protected abstract chainBefore(index: number): Uint8Array;
  /** Reports that what the tape begins with is not there. */
  protected abstract refuseOrigin(what: string): never;
  /** Reports that the chunks' boundaries led to a chunk that does not hold the place looked for. */
  protected abstract refuseMisplaced(chunk: Chunk): never;
  /** Reports that a chunk's bytes are no events. */
  protected abstract refuseContent(chunk: Chunk, cause: EncodingError): never;

  recordsOfChunk(chunk: Chunk): Generator<JournalRecord, void, void> {
    return recordsOf(chunk, this.header.events);
  }

  scanChunk(chunk: Chunk): ChunkScan {
    return new ChunkScan(chunk, this.header.events, (cause) => this.refuseContent(chunk, cause));
  }

  origin(): Checkpoint | undefined {
    if (this.header.origin === undefined) return undefined;
    const checkpoint = this.checkpoint(ORIGIN_CHECKPOINT);
    if (checkpoint !== undefined && comparePositions(checkpoint.position, this.start) === 0) return checkpoint;
    this.refuseOrigin('the machine that the tape begins with is missing');
  }

  historyDigest(seq: bigint): string {
    const chunk = seq > this.start.seq ? this.chunkAt(seq - 1n) : undefined;
    if (chunk === undefined) return toHex(this.chainBefore(0));
    let boundary = chunk.start;
    for (const record of this.recordsOfChunk(chunk)) {
      boundary = boundaryAfter(record);
      if (boundary.seq === seq) break;
    }
    const digest = chunkDigest(chunkUpTo(chunk, boundary));
    return toHex(chainDigest(this.chainBefore(chunk.index), digest));
  }

  *records(fromSeq = 0n): Generator<JournalRecord, void, void> {
    for (const chunk of this.chunks(fromSeq)) {
      for (const record of this.recordsOfChunk(chunk)) {
        // A tape that grows may already have more than when it was opened.
        if (record.position.seq >= this.end.seq) return;
        if (record.position.seq >= fromSeq) yield record;
      }
    }
  }

  *chunks(fromSeq = 0n): Generator<Chunk, void, void> {
    const first = this.find((boundary) => boundary.seq > fromSeq);
    if (first === undefined) return;
    yield first;
    for (let index = first.index + 1; index < this.chunkCount; index++) yield this.chunkByIndex(index);
  }

  chunksAhead(): Generator<Chunk, void, void> {
    return this.chunks();
  }

  chunkAt(seq: bigint): Chunk | undefined {
    return seq < 0n ? undefined : this.find((boundary) => boundary.seq > seq);
  }

  chunkAtIcount(icount: bigint): Chunk | undefined {
    return this.find((boundary) => boundary.icount >= icount);
  }

  /** The first chunk whose end `reaches` a place, by halving. */
  private find(reaches: (boundary: Position) => boolean): Chunk | undefined {
    if (this.chunkCount === 0 || !reaches(this.end)) return undefined;
    let from = 0;
    let to = this.chunkCount - 1;
    while (from < to) {
      const middle = (from + to) >> 1;
      if (reaches(this.chunkHeader(middle).end)) to = middle;
      else from = middle + 1;
    }
    const chunk = this.chunkByIndex(from);
    // Halving trusts boundaries that it does not check; the chunk that it finds is checked, and must be the one.
    if (!reaches(chunk.end) || (chunk.index > 0 && reaches(chunk.start))) this.refuseMisplaced(chunk);
    return chunk;
  }
}

/**
 * The tape of a session that went the way of another one up to a boundary, and then its own: what both have in common is read
 * from the other's tape. For sessions that nobody keeps, and that are compared with the one they come from.
 */

import type { StatedEvent } from '../machine/events.js';
import type { Checkpoint, CheckpointEntry } from './checkpoint.js';
import { type Chunk, ChunkEncoder, type ChunkHeader, type ChunkLink, chainDigest, chunkDigest } from './chunk.js';
import type { EncodingError } from './codec.js';
import { contentDigest, fromHex } from './digest.js';
import { TapeDamagedError } from './errors.js';
import { ChunkedReader } from './reader.js';
import type { Position } from './record.js';
import type { JournalReader, StateDigest, TapeHeader } from './store.js';
import type { WriteStretch } from './write-stretch.js';

const NAME = 'fork';

/** Takes the events that follow the boundary. */
export class Fork {
  private readonly encoder: ChunkEncoder;
  private readonly chunks: Chunk[] = [];
  private readonly first: number;

  /** @param boundary of the other tape, before its end. */
  constructor(
    private readonly trunk: JournalReader,
    private readonly boundary: Position,
  ) {
    const chunk = trunk.chunkAt(boundary.seq);
    if (chunk === undefined) throw new RangeError('a session forks before the end of the one it comes from');
    this.encoder = ChunkEncoder.within(chunk, boundary, trunk.header.events);
    this.first = chunk.index;
  }

  append(stated: StatedEvent): void {
    if (!this.encoder.append(stated)) return;
    this.keep();
    this.encoder.next();
  }

  private keep(): void {
    const { chunk } = this.encoder;
    this.chunks.push({ ...chunk, raw: chunk.raw.slice() });
  }

  /** Call once. @param header of the fork. @param state makes of a checkpoint's state before the boundary what the fork has. */
  read(header: TapeHeader, state: (bytes: Uint8Array) => Uint8Array): JournalReader {
    if (!this.encoder.empty) this.keep();
    return new ForkedReader(this.trunk, header, this.boundary, this.first, this.chunks, state);
  }
}

class ForkedReader extends ChunkedReader {
  readonly state = 'cut';
  readonly start: Position;
  readonly end: Position;
  readonly chunkCount: number;

  constructor(
    private readonly trunk: JournalReader,
    readonly header: TapeHeader,
    private readonly boundary: Position,
    /** Number of the first chunk that is the fork's own. */
    private readonly first: number,
    private readonly own: readonly Chunk[],
    private readonly stateOf: (bytes: Uint8Array) => Uint8Array,
  ) {
    super();
    this.start = trunk.start;
    this.end = own.at(-1)?.end ?? boundary;
    this.chunkCount = first + own.length;
  }

  chunkByIndex(index: number): Chunk {
    if (index < this.first) return this.trunk.chunkByIndex(index);
    const chunk = this.own[index - this.first];
    if (chunk === undefined) throw new RangeError(`there is no chunk ${index}`);
    return chunk;
  }

  chunkLink(index: number): ChunkLink {
    const chain = this.chainBefore(index + 1);
    if (index < this.first) return { ...this.trunk.chunkLink(index), chain };
    const { raw: _, ...header } = this.chunkByIndex(index);
    return { ...header, digest: chunkDigest(this.chunkByIndex(index)), chain };
  }

  protected chunkHeader(index: number): ChunkHeader {
    return index < this.first ? this.trunk.chunkLink(index) : this.chunkByIndex(index);
  }

  protected chainBefore(index: number): Uint8Array {
    let chain: Uint8Array = fromHex(contentDigest(new TextEncoder().encode(JSON.stringify(this.header.configuration))));
    for (let each = 0; each < index; each++) {
      const digest = each < this.first ? this.trunk.chunkLink(each).digest : chunkDigest(this.chunkByIndex(each));
      chain = chainDigest(chain, digest);
    }
    return chain;
  }

  /** None: another machine has other ones, though it does the same. */
  *digests(): Generator<StateDigest, void, void> {}

  blob(digest: string): Uint8Array | undefined {
    return this.trunk.blob(digest);
  }

  blobDigests(): readonly string[] {
    return this.trunk.blobDigests();
  }

  checkpoints(): readonly CheckpointEntry[] {
    return this.trunk
      .checkpoints()
      .filter(({ position: { icount, seq } }) => seq <= this.boundary.seq && icount <= this.boundary.icount);
  }

  checkpoint(id: number): Checkpoint | undefined {
    const checkpoint = this.trunk.checkpoint(id);
    return checkpoint && { ...checkpoint, state: this.stateOf(checkpoint.state) };
  }

  page(content: number): Uint8Array {
    return this.trunk.page(content);
  }

  writeIndex(): readonly WriteStretch[] | undefined {
    return undefined;
  }

  close(): void {}

  protected refuseOrigin(what: string): never {
    throw new TapeDamagedError(NAME, what, {});
  }

  protected refuseMisplaced(chunk: Chunk): never {
    throw new TapeDamagedError(NAME, 'the chunks are not in order', { table: 'chunks', row: String(chunk.index) });
  }

  protected refuseContent(chunk: Chunk, cause: EncodingError): never {
    throw new TapeDamagedError(NAME, cause.message, { table: 'chunks', row: String(chunk.index) }, { cause });
  }
}

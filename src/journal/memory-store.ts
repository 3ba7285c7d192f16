/** A JournalStore in memory: for tests, and for sessions that nobody keeps. */
import { EVENT_FIELDS, type StatedEvent } from '../machine/events.js';
import type { Checkpoint, CheckpointEntry, CheckpointInput, CheckpointRow, PageGroupRow } from './checkpoint.js';
import { CheckpointBuilder } from './checkpoint-builder.js';
import { checkpointFromRow, contentsOfGroup, type TapeOfRows } from './checkpoint-rows.js';
import { type Chunk, ChunkEncoder, type ChunkHeader, type ChunkLink, chainDigest, chunkDigest } from './chunk.js';
import type { EncodingError } from './codec.js';
import { contentDigest, requireDigest } from './digest.js';
import { TapeDamagedError, TapeInputError } from './errors.js';
import { PageCache } from './page-cache.js';
import { ChunkedReader } from './reader.js';
import { comparePositions, type Position, START } from './record.js';
import type {
  JournalReader,
  JournalStore,
  JournalWriter,
  StateDigest,
  TapeDescription,
  TapeHeader,
  TapeState,
} from './store.js';
import { firstBoundary } from './store.js';
import { FORMAT_VERSION } from './tape-schema.js';
import { CODEC_VERSION } from './upcast.js';

const NAME = 'memory';
/** A tape in memory has no header row. */
const GENESIS = new Uint8Array(32);

/** What a tape in memory is. */
interface Tape {
  readonly header: TapeHeader;
  readonly chunks: Chunk[];
  readonly digests: StateDigest[];
  readonly blobs: Map<string, Uint8Array>;
  readonly pages: Map<number, PageGroupRow>;
  readonly checkpoints: CheckpointRow[];
  state: TapeState;
}

class MemoryWriter implements JournalWriter {
  private readonly encoder: ChunkEncoder;
  private checkpoints: CheckpointBuilder | undefined;
  private closed = false;

  constructor(private readonly tape: Tape) {
    tape.state = 'recording';
    this.encoder = ChunkEncoder.after(tape.chunks.at(-1), tape.header.events, firstBoundary(tape.header));
  }

  get end(): Position {
    return this.encoder.end;
  }

  get storedTo(): Position {
    return this.tape.chunks.at(-1)?.end ?? firstBoundary(this.tape.header);
  }

  get tapeBytes(): number {
    return this.tape.chunks.reduce((sum, { raw }) => sum + raw.length, 0);
  }

  get checkpointsInFlight(): number {
    return 0;
  }

  historyDigest(): string {
    this.flush();
    return new MemoryReader(this.tape).historyDigest(this.end.seq);
  }

  append(stated: StatedEvent): void {
    if (this.encoder.append(stated)) {
      this.flush();
      this.encoder.next();
    }
  }

  appendDigest(kind: string, value: Uint8Array, position = this.end): void {
    this.tape.digests.push({ position, kind, value: value.slice() });
  }

  putCheckpoint(checkpoint: CheckpointInput): void {
    const { pages, checkpoints, digests } = this.tape;
    this.checkpoints ??= new CheckpointBuilder(
      GENESIS,
      { groups: pages.values(), nextCheckpoint: BigInt(checkpoints.length + 1) },
      (row) => pages.set(Number(row.id), row),
    );
    const { row, ramDigest } = this.checkpoints.build(checkpoint);
    checkpoints.push(row);
    digests.push({ position: checkpoint.position, kind: 'ram', value: ramDigest });
  }

  putBlob(content: Uint8Array, digest = contentDigest(content)): string {
    requireDigest(content, digest);
    this.tape.blobs.set(digest, content.slice());
    return digest;
  }

  flush(): void {
    const { chunk, empty } = this.encoder;
    if (!empty) this.tape.chunks[chunk.index] = { ...chunk, raw: chunk.raw.slice() };
  }

  finish(): void {
    this.leave('complete');
  }

  close(): void {
    this.leave('cut');
  }

  private leave(state: TapeState): void {
    if (this.closed) return;
    this.closed = true;
    this.flush();
    this.tape.state = state;
  }
}

class MemoryReader extends ChunkedReader {
  readonly state: TapeState;
  readonly start: Position;
  readonly end: Position;
  readonly chunkCount: number;
  private readonly digestCount: number;

  constructor(private readonly tape: Tape) {
    super();
    this.state = tape.state;
    this.start = tape.header.origin?.position ?? START;
    this.end = tape.chunks.at(-1)?.end ?? firstBoundary(tape.header);
    this.chunkCount = tape.chunks.length;
    this.digestCount = tape.digests.filter(({ position }) => position.seq <= this.end.seq).length;
  }

  get header(): TapeHeader {
    return this.tape.header;
  }

  *digests(kind?: string): Generator<StateDigest, void, void> {
    for (const digest of this.tape.digests.slice(0, this.digestCount)) {
      if (kind === undefined || digest.kind === kind) yield digest;
    }
  }

  blob(digest: string): Uint8Array | undefined {
    return this.tape.blobs.get(digest);
  }

  blobDigests(): readonly string[] {
    return [...this.tape.blobs.keys()].sort();
  }

  checkpoints(): readonly CheckpointEntry[] {
    const entries = this.tape.checkpoints
      .filter(({ seq }) => seq <= this.end.seq)
      .map(({ id, seq, icount, state, map }) => ({
        id: Number(id),
        position: { icount, seq },
        bytes: state.length + map.length,
      }));
    return entries.sort((a, b) => comparePositions(a.position, b.position));
  }

  checkpoint(id: number): Checkpoint | undefined {
    const row = this.tape.checkpoints.find((each) => Number(each.id) === id);
    return row && checkpointFromRow(this.tapeOfRows, row);
  }

  page(content: number): Uint8Array {
    return this.pages.page(content);
  }

  /** There is no disk to keep one on. */
  writeIndex(): undefined {
    return undefined;
  }

  private readonly pages = new PageCache((group) => {
    const row = this.tape.pages.get(group);
    if (row === undefined) throw new TapeDamagedError(NAME, 'the pages are missing', { row: String(group) });
    return contentsOfGroup(this.tapeOfRows, row);
  });

  private get tapeOfRows(): TapeOfRows {
    return { file: NAME, genesis: GENESIS, readableTo: this.end };
  }

  close(): void {}

  protected chunkHeader(index: number): ChunkHeader {
    return this.chunkByIndex(index);
  }

  protected chainBefore(index: number): Uint8Array {
    const before = this.tape.chunks.slice(0, index);
    return before.reduce<Uint8Array>((chain, chunk) => chainDigest(chain, chunkDigest(chunk)), GENESIS);
  }

  chunkLink(index: number): ChunkLink {
    const { raw: _, ...header } = this.chunkByIndex(index);
    return { ...header, digest: chunkDigest(this.chunkByIndex(index)), chain: this.chainBefore(index + 1) };
  }

  protected refuseOrigin(what: string): never {
    throw new TapeDamagedError(NAME, what, {});
  }

  chunkByIndex(index: number): Chunk {
    const chunk = this.tape.chunks[index];
    if (chunk === undefined) throw new TapeInputError(`there is no chunk ${index}`, NAME);
    return chunk;
  }

  protected refuseMisplaced(chunk: Chunk): never {
    throw new TapeDamagedError(NAME, 'the chunks are not in order', { table: 'chunks', row: String(chunk.index) });
  }

  protected refuseContent(chunk: Chunk, cause: EncodingError): never {
    throw new TapeDamagedError(NAME, cause.message, { table: 'chunks', row: String(chunk.index) }, { cause });
  }
}

export function memoryStore(): JournalStore {
  let tape: Tape | undefined;
  const existing = (): Tape => {
    if (tape === undefined) throw new TapeInputError('there is no such tape', NAME);
    return tape;
  };
  return {
    create(description: TapeDescription): JournalWriter {
      if (tape !== undefined) throw new TapeInputError('exists already', NAME);
      const header = {
        ...structuredClone(description),
        formatVersion: FORMAT_VERSION,
        codecVersion: CODEC_VERSION,
        events: EVENT_FIELDS,
      };
      tape = {
        header,
        chunks: [],
        digests: [],
        blobs: new Map(),
        pages: new Map(),
        checkpoints: [],
        state: 'recording',
      };
      return new MemoryWriter(tape);
    },
    continue(): JournalWriter {
      if (existing().state === 'recording') throw new TapeInputError('is being written', NAME);
      return new MemoryWriter(existing());
    },
    read: (): JournalReader => new MemoryReader(existing()),
  };
}

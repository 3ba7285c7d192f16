/**
 * Reads a tape. What it gives out was checked: every row against its digest, every chunk and state digest against the
 * one before it. What it does not touch, it does not check; `verify.ts` touches everything.
 *
 * A tape that is being written is read up to where it was when it was opened. Open it again to see more.
 */
import Database from 'better-sqlite3';
import { type Checkpoint, type CheckpointEntry, ORIGIN_CHECKPOINT, type PageGroupRow } from './checkpoint.js';
import { checkpointFromRow, contentsOfGroup, type TapeOfRows } from './checkpoint-rows.js';
import { CheckpointTables } from './checkpoint-tables.js';
import { type Chunk, type ChunkHeader, type ChunkLink, chainDigest, chunkDigest, decompress } from './chunk.js';
import { chunkEvents } from './chunk-data.js';
import { EncodingError } from './codec.js';
import { contentDigest, plain, sameBytes } from './digest.js';
import { TapeDamagedError } from './errors.js';
import { PageCache } from './page-cache.js';
import { chunksAhead } from './read-ahead.js';
import { ChunkedReader } from './reader.js';
import { type JournalRecord, type Position, START } from './record.js';
import { reading, readingRow, requireFile } from './sqlite-errors.js';
import { firstBoundary, type StateDigest, type TapeHeader, type TapeState } from './store.js';
import {
  checkLink,
  chunkHeaderOf,
  chunkPlace,
  type Predecessor,
  readIdentity,
  type TapeIdentity,
} from './tape-identity.js';
import {
  type BlobRow,
  type ChunkRow,
  type DigestRow,
  mistypedColumn,
  type ProgressRow,
  stateDigestDigest,
} from './tape-schema.js';
import type { WriteStretch } from './write-stretch.js';
import { WriteTable } from './write-table.js';
import { isBeingWritten } from './writer-lock.js';

/** A writer may hold up a reader for this long while it turns the tape into a single file. */
const PATIENCE_MILLISECONDS = 2000;
/** Tapes of fewer chunks are read sooner than a thread starts. */
const WORTH_A_THREAD = 24;
const RECENT_CHUNKS = 16;
const LINK_COLUMNS = 'id, first_seq, end_seq, first_icount, end_icount, codec_version, length, digest, chain' as const;

export class SqliteReader extends ChunkedReader {
  readonly header: TapeHeader;
  readonly state: TapeState;
  readonly start: Position;
  readonly end: Position;
  readonly chunkCount: number;
  private readonly selectChunk: Database.Statement<[number], ChunkRow>;
  private readonly selectLink: Database.Statement<[number], Omit<ChunkRow, 'data'>>;
  private readonly selectDigest: Database.Statement<[bigint], DigestRow>;
  private readonly selectBlob: Database.Statement<[Buffer], BlobRow>;
  /** Chunks read last: whoever goes back and forth comes to the same ones again. */
  private readonly recent = new Map<number, Chunk>();
  private openedTables: CheckpointTables | undefined;
  private readonly pages = new PageCache((group) => this.pageGroup(group).contents);
  /** What stands before the chunk of this number: known after reading the chunk before. */
  private next: { readonly index: number; readonly before: Predecessor };

  private constructor(
    private readonly file: string,
    private readonly database: Database.Database,
    private readonly identity: TapeIdentity,
    beingWritten: boolean,
  ) {
    super();
    const { header, genesis, progress } = identity;
    this.header = header;
    this.state = progress.complete === 1n ? 'complete' : beingWritten ? 'recording' : 'cut';
    this.end = { icount: progress.icount, seq: progress.events };
    this.chunkCount = Number(progress.chunks);
    this.start = header.origin?.position ?? START;
    this.next = { index: 0, before: { end: firstBoundary(header), chain: genesis } };
    [this.selectChunk, this.selectLink, this.selectDigest, this.selectBlob] = reading(
      file,
      { table: 'sqlite_schema' },
      () =>
        [
          database.prepare<[number], ChunkRow>('SELECT * FROM chunks WHERE id = ?').safeIntegers(true),
          database
            .prepare<[number], Omit<ChunkRow, 'data'>>(`SELECT ${LINK_COLUMNS} FROM chunks WHERE id = ?`)
            .safeIntegers(true),
          database.prepare<[bigint], DigestRow>('SELECT * FROM digests WHERE id = ?').safeIntegers(true),
          database.prepare<[Buffer], BlobRow>('SELECT * FROM blobs WHERE digest = ?').safeIntegers(true),
        ] as const,
    );
  }

  static open(file: string): SqliteReader {
    requireFile(file);
    // Asked first: a writer that ends in between leaves a complete tape, which then says so itself.
    const beingWritten = reading(file, {}, () => isBeingWritten(file));
    const database = reading(file, {}, () => new Database(file, { readonly: true, timeout: PATIENCE_MILLISECONDS }));
    try {
      return new SqliteReader(file, database, readIdentity(file, database), beingWritten);
    } catch (error) {
      database.close();
      throw error;
    }
  }

  /** The connection, for statements that only read. */
  get connection(): Database.Database {
    return this.database;
  }

  /** How much there is, as the tape says. */
  get progress(): ProgressRow {
    return this.identity.progress;
  }

  *digests(kind?: string): Generator<StateDigest, void, void> {
    const { genesis, progress } = this.identity;
    let previous = genesis;
    for (let id = 1n; id <= progress.digests; id++) {
      const place = { table: 'digests', row: String(id), readableTo: this.end } as const;
      const row = readingRow(this.file, place, () => this.selectDigest.get(id));
      if (row === undefined) throw new TapeDamagedError(this.file, 'the row is missing', place);
      if (!sameBytes(chainDigest(previous, stateDigestDigest(row)), row.chain)) {
        throw new TapeDamagedError(this.file, 'the row does not match the hash chain', place);
      }
      previous = row.chain;
      if (id === progress.digests && !sameBytes(row.chain, progress.digest_chain)) {
        throw new TapeDamagedError(this.file, 'the hash chain does not end where the tape says', place);
      }
      if (kind === undefined || row.kind === kind) {
        yield { position: { icount: row.icount, seq: row.seq }, kind: row.kind, value: plain(row.value) };
      }
    }
  }

  blob(digest: string): Uint8Array | undefined {
    const place = { table: 'blobs', row: digest, readableTo: this.end } as const;
    const row = readingRow(this.file, place, () => this.selectBlob.get(Buffer.from(digest, 'hex')));
    if (row === undefined) return undefined;
    const content = this.inflate(row, place);
    if (contentDigest(content) !== digest) {
      throw new TapeDamagedError(this.file, 'the content does not match its digest', place);
    }
    return content;
  }

  blobDigests(): readonly string[] {
    const place = { table: 'blobs', readableTo: this.end };
    const rows = reading(this.file, place, () =>
      this.database.prepare<[], { readonly digest: unknown }>('SELECT digest FROM blobs ORDER BY digest').all(),
    );
    // A tape that grows may have more than when it was opened, never fewer.
    if (BigInt(rows.length) < this.identity.progress.blobs) {
      throw new TapeDamagedError(this.file, `${rows.length} of ${this.identity.progress.blobs} rows are there`, place);
    }
    return rows.map((row) => {
      if (mistypedColumn('blobs', row) !== undefined) throw new TapeDamagedError(this.file, 'a digest is none', place);
      return Buffer.from(row.digest as Uint8Array).toString('hex');
    });
  }

  checkpoints(): readonly CheckpointEntry[] {
    const place = { table: 'checkpoints', readableTo: this.end };
    return reading(this.file, place, () => this.checkpointTables?.entries(this.end.seq) ?? []);
  }

  checkpoint(id: number): Checkpoint | undefined {
    const place = { table: 'checkpoints', row: String(id), readableTo: this.end };
    const row = reading(this.file, place, () => this.checkpointTables?.checkpoint(id));
    return row && checkpointFromRow(this.tapeOfRows, row);
  }

  page(content: number): Uint8Array {
    return this.pages.page(content);
  }

  writeIndex(): readonly WriteStretch[] | undefined {
    const place = { table: 'writes', readableTo: this.end };
    return reading(this.file, place, () =>
      WriteTable.open(this.database)?.read(this.file, this.identity.genesis, this.end),
    );
  }

  /** Numbers of the groups of pages. */
  pageGroups(): readonly number[] {
    const place = { table: 'pages', readableTo: this.end };
    return reading(this.file, place, () => this.checkpointTables?.groupIds() ?? []);
  }

  pageGroup(id: number): { readonly row: PageGroupRow; readonly contents: Uint8Array } {
    const place = { table: 'pages', row: String(id), readableTo: this.end };
    const row = reading(this.file, place, () => this.checkpointTables?.group(id));
    if (row === undefined) throw new TapeDamagedError(this.file, 'the pages are missing', place);
    return { row, contents: contentsOfGroup(this.tapeOfRows, row) };
  }

  private get tapeOfRows(): TapeOfRows {
    return { file: this.file, genesis: this.identity.genesis, readableTo: this.end };
  }

  /** A tape may get its first checkpoint while it is read. */
  private get checkpointTables(): CheckpointTables | undefined {
    this.openedTables ??= CheckpointTables.open(this.database);
    return this.openedTables;
  }

  close(): void {
    this.database.close();
  }

  protected chunkHeader(index: number): ChunkHeader {
    return chunkHeaderOf(this.link(index));
  }

  chunkLink(index: number): ChunkLink {
    const row = this.link(index);
    return { ...chunkHeaderOf(row), digest: plain(row.digest), chain: plain(row.chain) };
  }

  chunkByIndex(index: number): Chunk {
    const held = this.recent.get(index);
    if (held !== undefined) return held;
    const chunk = this.readChunk(index);
    // The last one may yet grow.
    if (index < this.chunkCount - 1 || this.state === 'complete') {
      this.recent.set(index, chunk);
      if (this.recent.size > RECENT_CHUNKS) this.recent.delete(this.recent.keys().next().value as number);
    }
    return chunk;
  }

  private readChunk(index: number): Chunk {
    const before = this.before(index);
    const place = { table: 'chunks', row: String(index), readableTo: before.end } as const;
    const row = readingRow(this.file, place, () => this.selectChunk.get(index));
    if (row === undefined) throw new TapeDamagedError(this.file, 'the chunk is missing', place);
    checkLink(this.file, row, before);
    const known = new Set<number>();
    const raw = this.eventsOf(row, chunkPlace(row, before.end), known);
    const chunk: Chunk = { ...chunkHeaderOf(row), raw, kinds: known.size > 0 ? known : undefined };
    if (!sameBytes(chunkDigest(chunk), row.digest)) {
      throw new TapeDamagedError(this.file, 'the events do not match their digest', chunkPlace(row, before.end));
    }
    if (index === this.chunkCount - 1) this.checkLast(row, before.end);
    this.next = { index: index + 1, before: { end: chunk.end, chain: row.chain } };
    return chunk;
  }

  override chunksAhead(): Generator<Chunk, void, void> {
    if (this.chunkCount < WORTH_A_THREAD) return this.chunks();
    return chunksAhead(this.file, this.chunkCount, (index) => this.chunkByIndex(index));
  }

  override *recordsOfChunk(chunk: Chunk): Generator<JournalRecord, void, void> {
    try {
      yield* super.recordsOfChunk(chunk);
    } catch (cause) {
      if (!(cause instanceof EncodingError)) throw cause;
      this.refuseContent(chunk, cause);
    }
  }

  protected refuseContent(chunk: Chunk, cause: EncodingError): never {
    const place = { table: 'chunks', row: String(chunk.index), readableTo: chunk.start };
    throw new TapeDamagedError(this.file, cause.message, place, { cause });
  }

  protected chainBefore(index: number): Uint8Array {
    return this.before(index).chain;
  }

  protected refuseOrigin(what: string): never {
    throw new TapeDamagedError(this.file, what, { table: 'checkpoints', row: String(ORIGIN_CHECKPOINT) });
  }

  protected refuseMisplaced(): never {
    throw new TapeDamagedError(this.file, 'chunks are not where their boundaries say', { table: 'chunks' });
  }

  private link(index: number): Omit<ChunkRow, 'data'> {
    const place = { table: 'chunks', row: String(index) } as const;
    const row = readingRow(this.file, place, () => this.selectLink.get(index));
    if (row === undefined) throw new TapeDamagedError(this.file, 'the chunk is missing', place);
    return row;
  }

  private before(index: number): Predecessor {
    if (index === 0) return { end: firstBoundary(this.header), chain: this.identity.genesis };
    if (index === this.next.index) return this.next.before;
    const row = this.link(index - 1);
    return { end: chunkHeaderOf(row).end, chain: row.chain };
  }

  /** The last chunk must hold what the tape says that it has; more when the tape grew since it was opened. */
  private checkLast(row: ChunkRow, readableTo: Position): void {
    const { seq, icount } = this.end;
    if (row.end_seq > seq) return;
    const chain = this.identity.progress.chunk_chain;
    if (row.end_seq < seq || row.end_icount !== icount || !sameBytes(row.chain, chain)) {
      throw new TapeDamagedError(
        this.file,
        'the last chunk does not end as the tape says',
        chunkPlace(row, readableTo),
      );
    }
  }

  private eventsOf(row: ChunkRow, place: object, kinds: Set<number>): Uint8Array {
    return this.unpacked(row, place, (length) => chunkEvents(row.data, length, this.header, kinds));
  }

  private inflate(row: { readonly data: Uint8Array; readonly length: bigint }, place: object): Uint8Array {
    return this.unpacked(row, place, (length) => decompress(row.data, length));
  }

  private unpacked(row: { readonly length: bigint }, place: object, read: (length: number) => Uint8Array): Uint8Array {
    let content: Uint8Array | undefined;
    try {
      content = read(Number(row.length));
    } catch (cause) {
      throw new TapeDamagedError(this.file, 'the compressed data is damaged', place, { cause });
    }
    if (BigInt(content.length) === row.length) return content;
    throw new TapeDamagedError(this.file, `${content.length} bytes are there instead of ${row.length}`, place);
  }
}

/**
 * The writing side of a tape's file: rows in, one transaction per group. Whoever uses it holds the `WriterLock`.
 *
 * Invariants: what is committed is a whole tape that ends at `storedTo`. Only the last chunk ever changes, and only by
 * growing. A state digest is never committed before the events that it stands behind.
 */
import { rmSync } from 'node:fs';
import Database from 'better-sqlite3';
import { EVENT_FIELDS } from '../machine/events.js';
import type { CheckpointInput, CheckpointRow } from './checkpoint.js';
import { CheckpointBuilder } from './checkpoint-builder.js';
import { CheckpointTables } from './checkpoint-tables.js';
import { type Chunk, chainDigest, chunkDigest, compress } from './chunk.js';
import { chunkData } from './chunk-data.js';
import { requireDigest } from './digest.js';
import { JournalError } from './errors.js';
import { type Position, START } from './record.js';
import { requireNoFile, writeError } from './sqlite-errors.js';
import { firstBoundary, type StateDigest, type TapeDescription, type TapeHeader } from './store.js';
import { readIdentity } from './tape-identity.js';
import {
  APPLICATION_ID,
  createTable,
  describedConfiguration,
  FORMAT_VERSION,
  headerDigest,
  type ProgressRow,
  progressSeal,
  stateDigestDigest,
  TABLE_NAMES,
} from './tape-schema.js';
import { CODEC_VERSION } from './upcast.js';

/** A group is committed when it has so many bytes of events, or is so old: what a kill can lose. */
const GROUP_BYTES = 16 * 1024 * 1024;
const GROUP_MILLISECONDS = 500;
/** SQLite moves its log into the tape when the log has so many pages: 16 MiB. */
const LOG_PAGES = 4096;
/** A reader may hold up the writer for this long. */
const PATIENCE_MILLISECONDS = 2000;

export class TapeFile {
  readonly header: TapeHeader;
  private readonly genesis: Uint8Array;
  private readonly statements;
  private progress: Omit<ProgressRow, 'seal'>;
  /** The chain before the last chunk, on which a fuller version of it is put. */
  private chainBeforeLast: Uint8Array;
  private waitingDigests: StateDigest[] = [];
  private waitingCheckpoints: CheckpointRow[] = [];
  private checkpoints: { readonly tables: CheckpointTables; readonly builder: CheckpointBuilder } | undefined;
  private stored: Position;
  private inGroup = false;
  /** After a failed statement SQLite may have dropped the group: nothing more may be written. */
  private failure: unknown;
  private groupBytes = 0;
  private groupStarted = performance.now();

  private constructor(
    readonly file: string,
    private readonly database: Database.Database,
  ) {
    const { header, genesis, progress } = readIdentity(file, database);
    this.header = header;
    this.genesis = genesis;
    // Whoever opens a tape to write is about to append to it.
    this.progress = { ...progress, complete: 0n };
    this.stored = { icount: progress.icount, seq: progress.events };
    this.chainBeforeLast =
      progress.chunks < 2n
        ? genesis
        : (database
            .prepare('SELECT chain FROM chunks WHERE id = ?')
            .pluck()
            .get(progress.chunks - 2n) as Uint8Array);
    this.statements = {
      begin: database.prepare('BEGIN IMMEDIATE'),
      commit: database.prepare('COMMIT'),
      chunk: database.prepare('INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'),
      digest: database.prepare('INSERT INTO digests VALUES (?, ?, ?, ?, ?, ?)'),
      blob: database.prepare('INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)'),
      progress: database.prepare('INSERT OR REPLACE INTO progress VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)'),
    };
  }

  /**
   * Makes the file with its header, and waits for no disk: a session may stand still for this. Its first writer waits.
   * @throws TapeInputError when there is one already.
   */
  static create(file: string, description: TapeDescription): void {
    requireNoFile(file);
    try {
      const database = new Database(file, { timeout: PATIENCE_MILLISECONDS });
      try {
        writeHeader(database, description);
      } finally {
        database.close();
      }
    } catch (cause) {
      for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true });
      throw writeError(file, START, cause);
    }
  }

  static open(file: string): TapeFile {
    const database = new Database(file, { timeout: PATIENCE_MILLISECONDS, fileMustExist: true });
    try {
      database.pragma('journal_mode = WAL');
      database.pragma('synchronous = NORMAL');
      database.pragma(`wal_autocheckpoint = ${LOG_PAGES}`);
      const tape = new TapeFile(file, database);
      if (tape.progress.chunks === 0n) syncFile(database);
      return tape;
    } catch (cause) {
      database.close();
      throw cause instanceof JournalError ? cause : writeError(file, START, cause);
    }
  }

  /** The boundary up to which everything is committed. */
  get storedTo(): Position {
    return this.stored;
  }

  /** The link of the hash chain for the last chunk that was put. */
  get history(): Uint8Array {
    return this.progress.chunk_chain;
  }

  get bytes(): number {
    const [count, size] = ['page_count', 'page_size'].map((name) => this.database.pragma(name, { simple: true }));
    return (count as number) * (size as number);
  }

  /** The group is large or old enough to be committed. */
  get due(): boolean {
    return this.groupBytes >= GROUP_BYTES || performance.now() - this.groupStarted >= GROUP_MILLISECONDS;
  }

  /** Puts the next chunk, or a fuller version of the last one. */
  putChunk(chunk: Chunk): void {
    const { index, start, end, codecVersion, raw } = chunk;
    if (end.seq === this.progress.events) return;
    const previous = BigInt(index) < this.progress.chunks ? this.chainBeforeLast : this.progress.chunk_chain;
    const digest = chunkDigest(chunk);
    const chain = chainDigest(previous, digest);
    this.write((statements) =>
      statements.chunk.run(
        ...[index, start.seq, end.seq, start.icount, end.icount],
        ...[codecVersion, raw.length, digest, chain, chunkData(raw, this.header)],
      ),
    );
    this.chainBeforeLast = previous;
    this.progress = {
      ...this.progress,
      events: end.seq,
      icount: end.icount,
      chunks: BigInt(index) + 1n,
      chunk_chain: chain,
    };
    this.groupBytes += raw.length;
  }

  /** Keeps a digest until the events before it are there. */
  putDigest(digest: StateDigest): void {
    this.waitingDigests.push(digest);
  }

  /** Keeps pages at once, and the checkpoint with the digest of RAM once the events before it are there. */
  putCheckpoint(checkpoint: CheckpointInput): void {
    this.checkpoints ??= this.write(() => {
      const tables = CheckpointTables.ensure(this.database);
      const builder = new CheckpointBuilder(this.genesis, tables.known(), (row) => {
        this.groupBytes += row.data.length;
        this.write(() => tables.putPages(row));
      });
      return { tables, builder };
    });
    const { row, ramDigest } = this.checkpoints.builder.build(checkpoint);
    this.waitingCheckpoints.push(row);
    this.putDigest({ position: checkpoint.position, kind: 'ram', value: ramDigest });
  }

  putBlob(content: Uint8Array, digest: string): void {
    requireDigest(content, digest);
    const key = Buffer.from(digest, 'hex');
    const { changes } = this.write(({ blob }) => blob.run(key, content.length, compress(content)));
    this.progress = { ...this.progress, blobs: this.progress.blobs + BigInt(changes) };
    this.groupBytes += content.length;
  }

  /** Ends the group: after this, a kill loses nothing that was put. */
  commit(): void {
    this.putWaitingDigests();
    this.putWaitingCheckpoints();
    if (this.inGroup) {
      this.putProgress();
      this.write(({ commit }) => commit.run());
      this.inGroup = false;
      this.stored = { icount: this.progress.icount, seq: this.progress.events };
    }
    this.groupBytes = 0;
    this.groupStarted = performance.now();
  }

  /** Commits that the tape is complete. */
  finish(): void {
    this.progress = { ...this.progress, complete: 1n };
    this.write(() => undefined);
    this.commit();
  }

  /** @throws what an earlier write failed with. */
  requireWorking(): void {
    if (this.failure !== undefined) throw this.failure;
  }

  /** Closes the file, and leaves it a single one. What was not committed is gone. */
  close(): void {
    try {
      if (this.database.inTransaction) this.database.exec('ROLLBACK');
      this.database.pragma('wal_checkpoint(TRUNCATE)');
      this.database.pragma('journal_mode = DELETE');
    } catch (cause) {
      // While somebody reads, or after a failure, the log stays beside the tape, which is as good with it.
      const busy = cause instanceof Database.SqliteError && cause.code.startsWith('SQLITE_BUSY');
      if (!busy && this.failure === undefined) throw writeError(this.file, this.stored, cause);
    } finally {
      this.database.close();
    }
  }

  private putWaitingDigests(): void {
    const { events } = this.progress;
    for (const digest of this.waitingDigests.filter(({ position }) => position.seq <= events)) {
      const { position, kind, value } = digest;
      const row = { id: this.progress.digests + 1n, seq: position.seq, icount: position.icount, kind, value };
      const chain = chainDigest(this.progress.digest_chain, stateDigestDigest(row));
      this.write((statements) => statements.digest.run(row.id, row.seq, row.icount, kind, value, chain));
      this.progress = { ...this.progress, digests: row.id, digest_chain: chain };
    }
    this.waitingDigests = this.waitingDigests.filter(({ position }) => position.seq > events);
  }

  private putWaitingCheckpoints(): void {
    const { events } = this.progress;
    for (const row of this.waitingCheckpoints.filter(({ seq }) => seq <= events)) {
      this.write(() => this.checkpoints?.tables.putCheckpoint(row));
    }
    this.waitingCheckpoints = this.waitingCheckpoints.filter(({ seq }) => seq > events);
  }

  private putProgress(): void {
    const { complete, events, icount, chunks, chunk_chain, digests, digest_chain, blobs } = this.progress;
    const seal = progressSeal(this.genesis, this.progress);
    this.write((statements) =>
      statements.progress.run(complete, events, icount, chunks, chunk_chain, digests, digest_chain, blobs, seal),
    );
  }

  /** Runs a statement within the group, which begins with its first one. */
  private write<Result>(run: (statements: TapeFile['statements']) => Result): Result {
    if (this.failure !== undefined) throw this.failure;
    try {
      if (!this.inGroup) this.statements.begin.run();
      this.inGroup = true;
      return run(this.statements);
    } catch (cause) {
      this.failure = writeError(this.file, this.stored, cause);
      throw this.failure;
    }
  }
}

/** Moving a log into the file, whatever the log says, ends with the disk having all of the file. */
function syncFile(database: Database.Database): void {
  database.pragma(`user_version = ${database.pragma('user_version', { simple: true })}`);
  database.pragma('wal_checkpoint(PASSIVE)');
}

function writeHeader(database: Database.Database, description: TapeDescription): void {
  database.pragma('synchronous = OFF');
  database.pragma('journal_mode = WAL');
  const row = {
    format_version: BigInt(FORMAT_VERSION),
    codec_version: BigInt(CODEC_VERSION),
    vmtape_version: description.vmtapeVersion,
    machine_version: description.machineVersion,
    configuration: describedConfiguration(description),
    events: JSON.stringify(EVENT_FIELDS),
  };
  const genesis = headerDigest(row);
  const { icount, seq } = firstBoundary(description);
  const progress = {
    ...{ complete: 0n, events: seq, icount, chunks: 0n, chunk_chain: genesis },
    ...{ digests: 0n, digest_chain: genesis, blobs: 0n },
  };
  database.transaction(() => {
    database.pragma(`application_id = ${APPLICATION_ID}`);
    database.pragma(`user_version = ${FORMAT_VERSION}`);
    for (const table of TABLE_NAMES) database.exec(createTable(table));
    database.prepare('INSERT INTO tape VALUES (1, ?, ?, ?, ?, ?, ?, ?)').run(...Object.values(row), genesis);
    database
      .prepare('INSERT INTO progress VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)')
      .run(...Object.values(progress), progressSeal(genesis, progress));
  })();
}

/**
 * Adds checkpoints and an index of writes to a tape that nobody is recording, and takes some away. The events, the digests and the seal stay as they
 * are: a tape that was cut stays cut.
 */
import Database from 'better-sqlite3';
import { type CheckpointInput, GROUP_PAGES, ORIGIN_CHECKPOINT, ZERO_PAGE } from './checkpoint.js';
import { CheckpointBuilder } from './checkpoint-builder.js';
import { checkpointFromRow } from './checkpoint-rows.js';
import { CheckpointTables } from './checkpoint-tables.js';
import { JournalError } from './errors.js';
import type { Position } from './record.js';
import { requireFile, writeError } from './sqlite-errors.js';
import { readIdentity } from './tape-identity.js';
import { CHECKPOINT_TABLES } from './tape-schema.js';
import type { WriteStretch } from './write-stretch.js';
import { WriteTable } from './write-table.js';
import { WriterLock } from './writer-lock.js';

const PATIENCE_MILLISECONDS = 2000;

export class DerivedDataFile {
  private builder: CheckpointBuilder;
  private closed = false;

  private constructor(
    private readonly file: string,
    private readonly lock: WriterLock,
    private readonly database: Database.Database,
    private readonly genesis: Uint8Array,
    private readonly end: Position,
    private readonly origin: number | undefined,
    private readonly tables: CheckpointTables,
  ) {
    this.builder = this.newBuilder();
  }

  /** @throws TapeInputError while the tape is being written; TapeDamagedError, TapeWriteError. */
  static open(file: string): DerivedDataFile {
    requireFile(file);
    const lock = WriterLock.acquire(file);
    let database: Database.Database | undefined;
    try {
      database = new Database(file, { timeout: PATIENCE_MILLISECONDS, fileMustExist: true });
      const { header, genesis, progress } = readIdentity(file, database);
      const end = { icount: progress.icount, seq: progress.events };
      const origin = header.origin && ORIGIN_CHECKPOINT;
      return new DerivedDataFile(file, lock, database, genesis, end, origin, CheckpointTables.ensure(database));
    } catch (cause) {
      database?.close();
      lock.release();
      throw cause instanceof JournalError ? cause : writeError(file, { icount: 0n, seq: 0n }, cause);
    }
  }

  /** Keeps a checkpoint with its pages, all of it or nothing. */
  put(checkpoint: CheckpointInput): void {
    this.write(() => {
      this.tables.putCheckpoint(this.builder.build(checkpoint).row);
    });
  }

  /**
   * Drops checkpoints by their numbers, and the pages that no other has; then gives their room back to the disk. That at the
   * origin of the tape stays.
   */
  drop(ids: readonly number[]): void {
    this.write(() => {
      const drop = this.database.prepare('DELETE FROM checkpoints WHERE id = ?');
      for (const id of ids) if (id !== this.origin) drop.run(id);
      this.dropUnusedPages();
    });
    // The one there was knows contents that are gone.
    this.builder = this.newBuilder();
    try {
      this.database.exec('VACUUM');
    } catch (cause) {
      throw writeError(this.file, this.end, cause);
    }
  }

  /** Keeps an index of writes in the place of the one there was. */
  putWriteIndex(stretches: Iterable<WriteStretch>): void {
    this.write(() => {
      this.database.exec('DROP TABLE IF EXISTS writes');
      WriteTable.create(this.database).put(this.genesis, stretches);
    });
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    try {
      if (this.tables.entries(this.end.seq).length === 0) {
        for (const name of CHECKPOINT_TABLES) this.database.exec(`DROP TABLE ${name}`);
      }
    } finally {
      this.database.close();
      this.lock.release();
    }
  }

  private newBuilder(): CheckpointBuilder {
    return new CheckpointBuilder(this.genesis, this.tables.known(), (row) => this.tables.putPages(row));
  }

  private dropUnusedPages(): void {
    const used = new Set<number>();
    const tape = { file: this.file, genesis: this.genesis, readableTo: this.end };
    for (const { id } of this.tables.entries(this.end.seq)) {
      const row = this.tables.checkpoint(id);
      if (row === undefined) continue;
      for (const page of checkpointFromRow(tape, row).pages) {
        if (page !== ZERO_PAGE) used.add(Math.floor(page / GROUP_PAGES));
      }
    }
    const drop = this.database.prepare('DELETE FROM pages WHERE id = ?');
    for (const group of this.tables.groupIds()) if (!used.has(group)) drop.run(group);
  }

  private write(change: () => void): void {
    try {
      this.database.transaction(change)();
    } catch (cause) {
      throw cause instanceof JournalError ? cause : writeError(this.file, this.end, cause);
    }
  }
}

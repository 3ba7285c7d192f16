/**
 * The lock that says "this tape has a writer". It is SQLite's own lock on an empty database beside the tape,
 * `NAME-lock`: the operating system drops it when its process dies, however it dies, so no lock is ever stale. The tape
 * itself cannot carry it, for its readers and its commits need those locks.
 *
 * A writer that ends cleanly deletes the file. Whoever then holds a lock on the deleted file holds nothing: so the file
 * must be the same one (inode) before opening and after locking, else the lock is tried again.
 *
 * Neither this file nor a tape may be opened other than through SQLite: POSIX drops all locks that a process has on a file
 * when the process closes any descriptor of it.
 */
import { existsSync, realpathSync, rmSync, statSync } from 'node:fs';
import Database from 'better-sqlite3';
import { TapeInputError } from './errors.js';
import { START } from './record.js';
import { writeError } from './sqlite-errors.js';

const ATTEMPTS = 100;
/** A reader that asks whether there is a writer holds the file for a moment. */
const PATIENCE_MILLISECONDS = 250;

export class WriterLock {
  private constructor(
    private readonly path: string,
    private readonly database: Database.Database,
  ) {}

  /** @throws TapeInputError while another writer holds the lock. */
  static acquire(file: string): WriterLock {
    const path = lockPath(file);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const before = inode(path);
      const database = openLock(file, path);
      try {
        // Nothing is ever written: no journal beside the file.
        database.pragma('journal_mode = MEMORY');
        database.exec('BEGIN EXCLUSIVE');
      } catch (cause) {
        database.close();
        if (!isBusy(cause)) throw writeError(file, START, cause);
        throw new TapeInputError(
          'is being written by another process. Wait until it ends, or read the tape meanwhile: that is allowed',
          file,
          { cause },
        );
      }
      // The first attempt may only have made the file.
      if (before !== undefined && before === inode(path)) return new WriterLock(path, database);
      database.close();
    }
    throw new TapeInputError('other processes keep taking the tape. Try again', file);
  }

  release(): void {
    // Where an open file cannot be deleted, it stays, empty and unlocked.
    try {
      rmSync(this.path, { force: true });
    } finally {
      this.database.close();
    }
  }
}

function openLock(file: string, path: string): Database.Database {
  try {
    return new Database(path, { timeout: PATIENCE_MILLISECONDS });
  } catch (cause) {
    throw writeError(file, START, cause);
  }
}

/** True while a writer, in any process, holds the tape. */
export function isBeingWritten(file: string): boolean {
  const path = lockPath(file);
  if (!existsSync(path)) return false;
  let database: Database.Database | undefined;
  try {
    database = new Database(path, { readonly: true, timeout: 0 });
    database.prepare('SELECT 1 FROM sqlite_schema').all();
    return false;
  } catch (error) {
    if (isBusy(error)) return true;
    // A writer that ended in this moment took its lock file along.
    if (!existsSync(path)) return false;
    throw error;
  } finally {
    database?.close();
  }
}

/** One lock for all names of a tape. */
const lockPath = (file: string): string => `${existsSync(file) ? realpathSync(file) : file}-lock`;

const inode = (path: string): bigint | undefined => statSync(path, { bigint: true, throwIfNoEntry: false })?.ino;

const isBusy = (error: unknown): boolean =>
  error instanceof Database.SqliteError && error.code.startsWith('SQLITE_BUSY');

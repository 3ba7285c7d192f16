/**
 * SQLite's errors → the journal's. What SQLite calls corrupt is damage; a full disk or an I/O error is an operating
 * error; what vmtape cannot explain stays as it is.
 */
import { existsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import Database from 'better-sqlite3';
import { type DamagePlace, TapeDamagedError, TapeInputError, TapeReadError, TapeWriteError } from './errors.js';
import type { Position } from './record.js';
import { mistypedColumn, type TableName } from './tape-schema.js';

const codeOf = (error: unknown): string => (error instanceof Database.SqliteError ? error.code : '');

/** Runs a read; SQLite's complaints name the place. @param place what is being read, and what is good before it. */
export function reading<Result>(file: string, place: DamagePlace, read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    throw readError(file, place, error);
  }
}

/** Reads a row, with its columns checked for type. @returns undefined when there is none. */
export function readingRow<Row extends object>(
  file: string,
  place: DamagePlace & { readonly table: TableName },
  read: () => Row | undefined,
): Row | undefined {
  const row = reading(file, place, read);
  const mistyped = row && mistypedColumn(place.table, row);
  if (mistyped === undefined) return row;
  throw new TapeDamagedError(file, `column ${mistyped} does not hold what it is declared to hold`, place);
}

function readError(file: string, place: DamagePlace, cause: unknown): unknown {
  const code = codeOf(cause);
  if (code === '') return cause;
  const { message } = cause as Error;
  if (code.startsWith('SQLITE_BUSY')) {
    return new TapeReadError(`is locked by another program (${message}). Close it and try again`, file, { cause });
  }
  if (code.startsWith('SQLITE_IOERR') || code.startsWith('SQLITE_FULL') || code.startsWith('SQLITE_NOMEM')) {
    if (code !== 'SQLITE_IOERR_SHORT_READ' && code !== 'SQLITE_IOERR_CORRUPTFS') {
      return new TapeReadError(`cannot be read (${code}: ${message}). Check the disk`, file, { cause });
    }
  }
  if (code.startsWith('SQLITE_CANTOPEN') || code.startsWith('SQLITE_READONLY') || code.startsWith('SQLITE_PERM')) {
    return new TapeReadError(
      `cannot be opened (${code}: ${message}). Check its permissions, and those of its directory: ` +
        'a tape that was cut must be able to have its -wal and -shm files beside it',
      file,
      { cause },
    );
  }
  // Whatever else a statement of ours runs into, such as a column that is not there: the structure is not as written.
  return new TapeDamagedError(file, `SQLite says ${code}: ${message}`, place, { cause });
}

/** @param storedTo how far the tape is safe. */
export function writeError(file: string, storedTo: Position, cause: unknown): unknown {
  const code = codeOf(cause);
  const systemCode = (cause as NodeJS.ErrnoException).code ?? '';
  if (code.startsWith('SQLITE_FULL') || systemCode === 'ENOSPC') {
    return new TapeWriteError(file, 'the disk is full', storedTo, 'Make room, then continue or replay the tape', {
      cause,
    });
  }
  if (code.startsWith('SQLITE_CORRUPT') || code.startsWith('SQLITE_NOTADB')) {
    return new TapeDamagedError(file, `SQLite says ${code}: ${(cause as Error).message}`, {}, { cause });
  }
  if (systemCode === '') return cause;
  const what = `${systemCode}: ${(cause as Error).message}`;
  return new TapeWriteError(file, what, storedTo, 'Check the disk and the permissions of the directory', { cause });
}

/** @throws TapeInputError when there is nothing at `file` that could be a tape. */
export function requireFile(file: string): void {
  const stats = statSync(file, { throwIfNoEntry: false });
  if (stats === undefined) throw new TapeInputError('there is no such file. Check the name', file);
  if (!stats.isFile()) throw new TapeInputError('is no file, so it is no tape', file);
  if (stats.size === 0) throw new TapeInputError('is an empty file, so it is no tape', file);
}

/** @throws TapeInputError when no tape can be made at `file`. */
export function requireNoFile(file: string): void {
  if (!existsSync(dirname(file))) throw new TapeInputError('its directory does not exist. Make it first', file);
  if (existsSync(file)) throw new TapeInputError('exists already. Choose another name, or delete it first', file);
}

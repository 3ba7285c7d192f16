/**
 * The journal's errors: operating errors with their context, each with the exit status that the command line gives it.
 * The message says what is wrong and where, what is still good, and what to do; the fields say the same to programs.
 */
import { formatPosition, type Position } from './record.js';

export abstract class JournalError extends Error {
  /** Exit status of a command that ends with this error. */
  abstract readonly exitStatus: 2 | 3 | 4;
  constructor(
    message: string,
    /** The tape, as the caller named it. */
    readonly file: string,
    options?: ErrorOptions,
  ) {
    super(`${file}: ${message}`, options);
  }
}

/** The file is not what was asked for: no tape, a newer format, in use by another writer, missing. */
export class TapeInputError extends JournalError {
  override name = 'TapeInputError';
  override readonly exitStatus = 2;
}

export interface DamagePlace {
  /** Table in which the damage shows; absent when SQLite's own structure is damaged and no table can be named. */
  readonly table?: string;
  /** Row of the table: its key. */
  readonly row?: string;
  /** Events that the row holds, first and last. */
  readonly seqs?: { readonly first: bigint; readonly last: bigint };
  /** Boundary up to which the tape is still readable from its start; absent when nothing is. */
  readonly readableTo?: Position;
}

/** The tape is damaged: a digest, a count or SQLite's structure is not as it was written. */
export class TapeDamagedError extends JournalError {
  override name = 'TapeDamagedError';
  override readonly exitStatus = 3;
  constructor(
    file: string,
    readonly problem: string,
    readonly place: DamagePlace = {},
    options?: ErrorOptions,
  ) {
    super(`damaged: ${describePlace(place)}${problem}. ${describeReadable(place.readableTo)}`, file, options);
  }
}

/** The tape could not be written: disk full, I/O error, the writer thread died. */
export class TapeWriteError extends JournalError {
  override name = 'TapeWriteError';
  override readonly exitStatus = 4;
  constructor(
    file: string,
    readonly problem: string,
    /** Boundary up to which the tape is safely stored. */
    readonly storedTo: Position,
    readonly remedy: string,
    options?: ErrorOptions,
  ) {
    super(`cannot write: ${problem}. Stored safely up to ${formatPosition(storedTo)}. ${remedy}`.trim(), file, options);
  }
}

/** The tape could not be read for a reason outside of it: an I/O error, missing permission. */
export class TapeReadError extends JournalError {
  override name = 'TapeReadError';
  override readonly exitStatus = 4;
}

function describePlace({ table, row, seqs }: DamagePlace): string {
  const events = seqs === undefined ? '' : ` (events ${seqs.first} to ${seqs.last})`;
  return table === undefined ? '' : `table ${table}${row === undefined ? '' : `, row ${row}`}${events}: `;
}

const describeReadable = (readableTo: Position | undefined): string =>
  readableTo === undefined ? 'Nothing is readable.' : `Still readable up to ${formatPosition(readableTo)}.`;

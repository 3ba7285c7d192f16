/**
 * Opening a tape: is it one, is it of a version that we read, is its header whole, how much is there?
 */
import { existsSync, statSync } from 'node:fs';
import Database from 'better-sqlite3';
import { type ChunkHeader, chainDigest } from './chunk.js';
import { sameBytes } from './digest.js';
import { TapeDamagedError, TapeInputError } from './errors.js';
import type { Position } from './record.js';
import { reading, readingRow } from './sqlite-errors.js';
import type { TapeHeader } from './store.js';
import {
  APPLICATION_ID,
  CHECKPOINT_TABLES,
  type ChunkRow,
  createTable,
  FORMAT_VERSION,
  type HeaderRow,
  headerDigest,
  headerFromRow,
  type ProgressRow,
  progressSeal,
  TABLE_NAMES,
  type TableName,
  WRITE_TABLES,
} from './tape-schema.js';
import { CODEC_VERSION } from './upcast.js';

export interface TapeIdentity {
  readonly header: TapeHeader;
  /** Digest of the header row, where every chain begins. */
  readonly genesis: Uint8Array;
  readonly progress: ProgressRow;
}

/** Checks everything about a tape that can be checked without reading its chunks. */
export function readIdentity(file: string, database: Database.Database): TapeIdentity {
  requireTape(file, database);
  const place = { table: 'tape', row: '1' } as const;
  const row = readingRow(file, place, () => getRow<HeaderRow>(database, 'SELECT * FROM tape WHERE id = 1'));
  if (row === undefined) throw new TapeDamagedError(file, 'the header is missing', place);
  if (!sameBytes(headerDigest(row), row.digest)) {
    throw new TapeDamagedError(file, 'the header does not match its digest', place);
  }
  if (row.format_version !== BigInt(database.pragma('user_version', { simple: true }) as number)) {
    refuseVersion(file, database, database.pragma('user_version', { simple: true }) as number);
  }
  const header = headerFromRow(row);
  if (header.codecVersion > CODEC_VERSION) refuseNewer(file, 'event codec', header.codecVersion, CODEC_VERSION);
  return { header, genesis: row.digest, progress: readProgress(file, database, row.digest) };
}

function readProgress(file: string, database: Database.Database, genesis: Uint8Array): ProgressRow {
  const place = { table: 'progress', row: '1' } as const;
  const progress = readingRow(file, place, () => getRow<ProgressRow>(database, 'SELECT * FROM progress WHERE id = 1'));
  if (progress === undefined) throw new TapeDamagedError(file, 'the row is missing', place);
  if (!sameBytes(progressSeal(genesis, progress), progress.seal)) {
    throw new TapeDamagedError(file, 'the row does not match its seal', place);
  }
  return progress;
}

/** What stands before a chunk: the boundary where the chunk must begin, and the link that its own link follows. */
export interface Predecessor {
  readonly end: Position;
  readonly chain: Uint8Array;
}

/** Checks a row of `chunks`, all but its data, against what stands before it. */
export function checkLink(file: string, row: Omit<ChunkRow, 'data'>, before: Predecessor): void {
  const place = chunkPlace(row, before.end);
  if (row.first_seq !== before.end.seq || row.first_icount !== before.end.icount) {
    throw new TapeDamagedError(file, 'the chunk does not begin where the one before it ends', place);
  }
  if (!sameBytes(chainDigest(before.chain, row.digest), row.chain)) {
    throw new TapeDamagedError(file, 'the hash chain is broken between the chunk before it and this one', place);
  }
}

export const chunkPlace = (row: Omit<ChunkRow, 'data'>, readableTo: Position) => ({
  table: 'chunks',
  row: String(row.id),
  seqs: { first: row.first_seq, last: row.end_seq - 1n },
  readableTo,
});

export const chunkHeaderOf = (row: Omit<ChunkRow, 'data'>): ChunkHeader => ({
  index: Number(row.id),
  start: { icount: row.first_icount, seq: row.first_seq },
  end: { icount: row.end_icount, seq: row.end_seq },
  codecVersion: Number(row.codec_version),
});

/** @returns the first row, integers as bigints, or undefined. */
const getRow = <Row>(database: Database.Database, sql: string): Row | undefined =>
  database.prepare(sql).safeIntegers(true).get() as Row | undefined;

function requireTape(file: string, database: Database.Database): void {
  let applicationId: unknown;
  try {
    applicationId = database.pragma('application_id', { simple: true });
  } catch (cause) {
    if (cause instanceof Database.SqliteError && cause.code === 'SQLITE_NOTADB') {
      throw new TapeInputError('is no SQLite file, so it is no tape', file, { cause });
    }
    reading(file, {}, () => {
      throw cause;
    });
  }
  if (applicationId !== APPLICATION_ID) throw new TapeInputError('is an SQLite file, but no tape', file);
  const version = reading(file, {}, () => database.pragma('user_version', { simple: true }) as number);
  if (version < 1 || version > FORMAT_VERSION) refuseVersion(file, database, version);
  requireLength(file, database);
  requireTables(file, database);
}

/** SQLite takes what is missing of the last page for zeros. */
function requireLength(file: string, database: Database.Database): void {
  // With a log beside it, the file may be shorter.
  if (existsSync(`${file}-wal`)) return;
  const [pages, pageBytes] = reading(file, {}, () =>
    ['page_count', 'page_size'].map((name) => database.pragma(name, { simple: true }) as number),
  ) as [number, number];
  const { size } = statSync(file);
  if (size >= pages * pageBytes) return;
  throw new TapeDamagedError(file, `the file has ${size} bytes instead of ${pages * pageBytes}: it was cut off`);
}

/** Future formats keep `tape.format_version`, and so tell themselves apart from a damaged one. */
function refuseVersion(file: string, database: Database.Database, version: number): never {
  const row = readingRow(file, { table: 'tape' }, () =>
    getRow<Pick<HeaderRow, 'format_version'>>(database, 'SELECT format_version FROM tape'),
  );
  if (row?.format_version === BigInt(version) && version > FORMAT_VERSION) {
    refuseNewer(file, 'tape format', version, FORMAT_VERSION);
  }
  throw new TapeDamagedError(file, `user_version is ${version}, the header says ${row?.format_version}`);
}

function refuseNewer(file: string, what: string, version: number, known: number): never {
  throw new TapeInputError(
    `has ${what} version ${version}; this vmtape reads versions up to ${known}. Use a newer vmtape`,
    file,
  );
}

function requireTables(file: string, database: Database.Database): void {
  const rows = reading(file, { table: 'sqlite_schema' }, () =>
    database.prepare('SELECT name, sql FROM sqlite_schema').all(),
  ) as { readonly name: string; readonly sql: string }[];
  const found = new Map(rows.map(({ name, sql }) => [name, sql]));
  const derived = [CHECKPOINT_TABLES, WRITE_TABLES].flatMap((names: readonly TableName[]) =>
    names.some((name) => found.has(name)) ? names : [],
  );
  for (const name of [...TABLE_NAMES, ...derived]) {
    if (found.get(name) !== createTable(name)) {
      throw new TapeDamagedError(file, `the definition of table ${name} is not as written`, {
        table: 'sqlite_schema',
        row: name,
      });
    }
  }
}

/**
 * The tape as SQLite sees it: identity, tables, and the digests that tie their rows together. docs/tape-format.md says
 * the same to people who read tapes with other programs.
 */
import type { EventTable } from './codec.js';
import { type DigestField, digestOf } from './digest.js';
import type { Json, TapeDescription, TapeHeader, TapeOrigin } from './store.js';

/**
 * Version of the tables. A vmtape reads its own and older formats, continues a tape in its own, and begins tapes in the newest.
 * 2: the session may have begun elsewhere. 3: events are packed before they are compressed (chunk-data.ts).
 */
export const FORMAT_VERSION = 3;
/** `PRAGMA application_id`: "vmtp". */
export const APPLICATION_ID = 0x766d7470;
/** Columns of each table, as SQL declares them. */
const COLUMNS = {
  tape: {
    id: 'INTEGER PRIMARY KEY CHECK (id = 1)',
    format_version: 'INTEGER NOT NULL',
    codec_version: 'INTEGER NOT NULL',
    vmtape_version: 'TEXT NOT NULL',
    machine_version: 'TEXT NOT NULL',
    configuration: 'TEXT NOT NULL',
    events: 'TEXT NOT NULL',
    digest: 'BLOB NOT NULL',
  },
  progress: {
    id: 'INTEGER PRIMARY KEY CHECK (id = 1)',
    complete: 'INTEGER NOT NULL',
    events: 'INTEGER NOT NULL',
    icount: 'INTEGER NOT NULL',
    chunks: 'INTEGER NOT NULL',
    chunk_chain: 'BLOB NOT NULL',
    digests: 'INTEGER NOT NULL',
    digest_chain: 'BLOB NOT NULL',
    blobs: 'INTEGER NOT NULL',
    seal: 'BLOB NOT NULL',
  },
  chunks: {
    id: 'INTEGER PRIMARY KEY',
    first_seq: 'INTEGER NOT NULL',
    end_seq: 'INTEGER NOT NULL',
    first_icount: 'INTEGER NOT NULL',
    end_icount: 'INTEGER NOT NULL',
    codec_version: 'INTEGER NOT NULL',
    length: 'INTEGER NOT NULL',
    digest: 'BLOB NOT NULL',
    chain: 'BLOB NOT NULL',
    data: 'BLOB NOT NULL',
  },
  digests: {
    id: 'INTEGER PRIMARY KEY',
    seq: 'INTEGER NOT NULL',
    icount: 'INTEGER NOT NULL',
    kind: 'TEXT NOT NULL',
    value: 'BLOB NOT NULL',
    chain: 'BLOB NOT NULL',
  },
  blobs: {
    digest: 'BLOB PRIMARY KEY',
    length: 'INTEGER NOT NULL',
    data: 'BLOB NOT NULL',
  },
  pages: {
    id: 'INTEGER PRIMARY KEY',
    digests: 'BLOB NOT NULL',
    seal: 'BLOB NOT NULL',
    data: 'BLOB NOT NULL',
  },
  checkpoints: {
    id: 'INTEGER PRIMARY KEY',
    seq: 'INTEGER NOT NULL',
    icount: 'INTEGER NOT NULL',
    ram_pages: 'INTEGER NOT NULL',
    state_length: 'INTEGER NOT NULL',
    map_length: 'INTEGER NOT NULL',
    seal: 'BLOB NOT NULL',
    state: 'BLOB NOT NULL',
    map: 'BLOB NOT NULL',
  },
  writes: {
    id: 'INTEGER PRIMARY KEY',
    first_seq: 'INTEGER NOT NULL',
    first_icount: 'INTEGER NOT NULL',
    end_seq: 'INTEGER NOT NULL',
    end_icount: 'INTEGER NOT NULL',
    seal: 'BLOB NOT NULL',
    pages: 'BLOB NOT NULL',
  },
} as const;
export type TableName = keyof typeof COLUMNS;
/** Tables that every tape has. */
export const TABLE_NAMES = ['tape', 'progress', 'chunks', 'digests', 'blobs'] as const satisfies readonly TableName[];
/** Tables of derived data, made when they are first needed: the two of checkpoints only together. */
export const CHECKPOINT_TABLES = ['pages', 'checkpoints'] as const satisfies readonly TableName[];
export const WRITE_TABLES = ['writes'] as const satisfies readonly TableName[];

/** Tables that are not kept by row number. */
const TABLE_OPTIONS: Partial<Record<TableName, string>> = { blobs: 'STRICT, WITHOUT ROWID' };

/** The statement that makes a table. SQLite keeps its text: a tape whose text differs is damaged. */
export function createTable(name: TableName): string {
  const columns = Object.entries(COLUMNS[name]).map(([column, declaration]) => `  ${column} ${declaration}`);
  return `CREATE TABLE ${name} (\n${columns.join(',\n')}\n) ${TABLE_OPTIONS[name] ?? 'STRICT'}`;
}

const HOLDS = {
  INTEGER: (value: unknown) => typeof value === 'bigint',
  TEXT: (value: unknown) => typeof value === 'string',
  BLOB: (value: unknown) => value instanceof Uint8Array,
};

/**
 * The first column of a row (all or some columns, integers as bigints) that does not hold what it is declared to hold.
 * SQLite checks on writing only: a damaged row may hold anything.
 */
export function mistypedColumn(table: TableName, row: object): string | undefined {
  const declarations: Readonly<Record<string, string>> = COLUMNS[table];
  const mistyped = Object.entries(row).find(([column, value]) => {
    const [type] = (declarations[column] ?? '').split(' ');
    return !HOLDS[type as keyof typeof HOLDS](value);
  });
  return mistyped?.[0];
}

/** Rows as better-sqlite3 gives them, integers as bigints. */
export interface HeaderRow {
  readonly format_version: bigint;
  readonly codec_version: bigint;
  readonly vmtape_version: string;
  readonly machine_version: string;
  readonly configuration: string;
  readonly events: string;
  readonly digest: Uint8Array;
}

export interface ProgressRow {
  readonly complete: bigint;
  readonly events: bigint;
  readonly icount: bigint;
  readonly chunks: bigint;
  readonly chunk_chain: Uint8Array;
  readonly digests: bigint;
  readonly digest_chain: Uint8Array;
  readonly blobs: bigint;
  readonly seal: Uint8Array;
}

export interface ChunkRow {
  readonly id: bigint;
  readonly first_seq: bigint;
  readonly end_seq: bigint;
  readonly first_icount: bigint;
  readonly end_icount: bigint;
  readonly codec_version: bigint;
  readonly length: bigint;
  readonly digest: Uint8Array;
  readonly chain: Uint8Array;
  readonly data: Uint8Array;
}

export interface DigestRow {
  readonly id: bigint;
  readonly seq: bigint;
  readonly icount: bigint;
  readonly kind: string;
  readonly value: Uint8Array;
  readonly chain: Uint8Array;
}

export interface BlobRow {
  readonly digest: Uint8Array;
  readonly length: bigint;
  readonly data: Uint8Array;
}

/** Digest of the header row; every chain begins with it, so that nothing fits another tape. */
export const headerDigest = (row: Omit<HeaderRow, 'digest'>): Uint8Array =>
  digestOf(
    'vmtape header',
    row.format_version,
    row.codec_version,
    row.vmtape_version,
    row.machine_version,
    row.configuration,
    row.events,
  );

/** Digest of the progress row: it says how much there is, so that nothing can be missing from the end. */
export const progressSeal = (header: Uint8Array, row: Omit<ProgressRow, 'seal'>): Uint8Array =>
  digestOf(
    'vmtape progress',
    header,
    ...([row.complete, row.events, row.icount, row.chunks, row.chunk_chain] satisfies DigestField[]),
    ...([row.digests, row.digest_chain, row.blobs] satisfies DigestField[]),
  );

/** Digest of what a row of `digests` holds. */
export const stateDigestDigest = (row: Omit<DigestRow, 'chain'>): Uint8Array =>
  digestOf('vmtape digest', row.id, row.seq, row.icount, row.kind, row.value);

/** @throws SyntaxError when the row's JSON is none. */
export function headerFromRow(row: HeaderRow): TapeHeader {
  const { origin, ...configuration } = JSON.parse(row.configuration) as DescribedConfiguration;
  return {
    formatVersion: Number(row.format_version),
    codecVersion: Number(row.codec_version),
    vmtapeVersion: row.vmtape_version,
    machineVersion: row.machine_version,
    configuration,
    origin: origin && originFromJson(origin),
    events: JSON.parse(row.events) as EventTable,
  };
}

/** The configuration as its column has it, with where the tape goes on. */
export function describedConfiguration({ configuration, origin }: TapeDescription): string {
  if (origin === undefined) return JSON.stringify(configuration);
  const { position, unstated, parent = null } = origin;
  const described: DescribedOrigin = { icount: String(position.icount), seq: String(position.seq), unstated, parent };
  return JSON.stringify({ ...configuration, origin: described });
}

type DescribedConfiguration = { readonly [key: string]: Json } & { readonly origin?: DescribedOrigin };
type DescribedOrigin = {
  readonly icount: string;
  readonly seq: string;
  readonly unstated: number;
  readonly parent: string | null;
};

const originFromJson = ({ icount, seq, unstated, parent }: DescribedOrigin): TapeOrigin => ({
  position: { icount: BigInt(icount), seq: BigInt(seq) },
  unstated,
  parent: parent ?? undefined,
});

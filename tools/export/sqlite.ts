/**
 * A tape as plain tables of an SQLite file, for any other program: the views of `vmtape sql` by the same names, with
 * indexes, and `tape`, which says what was exported.
 */
import Database from 'better-sqlite3';
import { formatPosition, type JournalReader, payloadJson, RecordSource } from '../../src/journal/index.js';
import { eventText } from '../../src/replay/index.js';
import {
  type Column,
  LAZY_COLUMNS,
  PLACE_COLUMNS,
  PLAIN_VIEWS,
  type SqlValue,
  VIEWS,
  type View,
  whole,
} from '../sql/views.js';

/** Events between two reports of progress. */
const PROGRESS_EVENTS = 5000n;

export interface SqliteExport {
  /** The file to make; there is none yet. */
  readonly file: string;
  /** Views to export; all by default. */
  readonly views: readonly string[];
}

export const EXPORTED_VIEWS: readonly string[] = [...Object.keys(VIEWS), ...Object.keys(PLAIN_VIEWS)];

/** Yields the number of events done, now and then; what it makes is complete when it ends. */
export function* exportSqlite(
  tape: string,
  reader: JournalReader,
  { file, views }: SqliteExport,
): Generator<bigint, void, void> {
  const database = new Database(file);
  try {
    // Nobody reads it before it is done, and nothing is left of it if it never is.
    for (const pragma of ['journal_mode = OFF', 'synchronous = OFF', 'locking_mode = EXCLUSIVE'])
      database.pragma(pragma);
    database.exec('BEGIN');
    describe(database, tape, reader);
    const wanted = Object.entries(VIEWS).filter(([name]) => views.includes(name));
    yield* fillViews(database, reader, wanted);
    for (const [name, view] of Object.entries(PLAIN_VIEWS)) {
      if (!views.includes(name)) continue;
      createTable(database, name, view.columns, false);
      const insert = inserter(database, name, view.columns.length);
      for (const row of view.rows(reader)) insert(row);
    }
    for (const [name, { indexed }] of wanted) {
      for (const column of indexed) {
        database.exec(`CREATE INDEX ${name}_${column} ON ${name} ("${column}")`);
        yield reader.end.seq;
      }
    }
    database.exec('COMMIT');
  } finally {
    database.close();
  }
}

function describe(database: Database.Database, tape: string, reader: JournalReader): void {
  database.exec('CREATE TABLE tape (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT');
  const { header, state, end } = reader;
  const insert = inserter(database, 'tape', 2);
  const facts: Readonly<Record<string, string>> = {
    ...{ file: tape, state, end: formatPosition(end) },
    ...{ vmtapeVersion: header.vmtapeVersion, machineVersion: header.machineVersion },
    configuration: JSON.stringify(header.configuration),
  };
  for (const [name, value] of Object.entries(facts)) insert([name, value]);
}

/** One pass over the tape, for all tables. */
function* fillViews(
  database: Database.Database,
  reader: JournalReader,
  views: readonly (readonly [string, View])[],
): Generator<bigint, void, void> {
  const inserters = views.map(([name, view]) => {
    const columns = columnsOf(view);
    createTable(database, name, columns, !view.indexed.includes('seq'));
    return { view, insert: inserter(database, name, columns.length) };
  });
  const byKind = new Map(
    Object.keys(reader.header.events).map((kind) => [kind, inserters.filter(({ view }) => view.kinds.includes(kind))]),
  );
  let next = PROGRESS_EVENTS;
  for (const scan of new RecordSource(reader).scan({})) {
    const interested = byKind.get(scan.type) ?? [];
    if (interested.length === 0) continue;
    const { seq, icount, vcpu, level, retired } = scan;
    const place = [`${icount - BigInt(retired)}:${seq}`, seq, icount, whole(vcpu), whole(level)];
    for (const { view, insert } of interested) {
      const lazy = view.lazy.length === 0 ? [] : lazyValues(view, scan);
      for (const row of view.rows(scan, undefined)) insert([...place, ...row, ...lazy]);
    }
    if (seq >= next) {
      yield seq;
      next = seq + PROGRESS_EVENTS;
    }
  }
}

const columnsOf = ({ columns, lazy }: View): readonly Column[] => [
  ...PLACE_COLUMNS,
  ...columns,
  ...LAZY_COLUMNS.filter(({ name }) => lazy.includes(name)),
];

function lazyValues({ lazy }: View, { record }: Parameters<View['rows']>[0]): readonly SqlValue[] {
  return lazy.map((name) => (name === 'text' ? eventText(record) : payloadJson(record.event)));
}

/** @param unique whether an event gives one row at most. */
function createTable(database: Database.Database, name: string, columns: readonly Column[], unique: boolean): void {
  const declared = columns.map((column) => {
    const isKey = unique && column.name === 'seq';
    return `"${column.name}" ${column.type}${isKey ? ' PRIMARY KEY' : ''}`;
  });
  database.exec(`CREATE TABLE ${name} (${declared.join(', ')}) STRICT`);
}

function inserter(database: Database.Database, name: string, columns: number): (row: readonly SqlValue[]) => void {
  const statement = database.prepare<SqlValue[]>(`INSERT INTO ${name} VALUES (${Array(columns).fill('?').join(', ')})`);
  return (row) => statement.run(...row);
}

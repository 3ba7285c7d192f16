/**
 * A database without content whose views are a tape's: chunks are decoded as SQLite asks for rows.
 *
 * Each view stands twice. `exits_in` is the virtual table, with hidden parameters for what is to be read; `exits` is a view
 * on it behind a LIMIT, which SQLite does not look through: so it materialises the view and makes an index of its own where
 * a join needs one, instead of reading the tape again for every row, and leaves columns out that nobody asks for
 * (docs/adr/0028). Nothing here writes to the tape.
 */
import Database from 'better-sqlite3';
import {
  type ChunkScan,
  type JournalReader,
  type JournalRecord,
  payloadJson,
  RecordSource,
} from '../../src/journal/index.js';
import { exitName } from '../../src/machine/index.js';
import { eventText, resolvePosition } from '../../src/replay/index.js';
import { type Bounds, boundsOf, intersection } from './bounds.js';
import { LAZY_COLUMNS, type LazyColumn, PLAIN_VIEWS, type SqlValue, VIEWS, type View, whole } from './views.js';

/** Parameters of every `…_in` table, in the order in which a call gives them. */
const PARAMETERS = ['from_seq', 'to_seq', 'for_kind', 'for_level', 'from_icount', 'to_icount'] as const;

export interface Query {
  /** Names of the columns, in order. */
  readonly columns: readonly string[];
  /** Runs it. Rows are arrays, integers bigints; go to the end, or out by `break`. */
  readonly rows: Iterable<readonly (SqlValue | number | Uint8Array)[]>;
}

/** The query changes something, or gives no rows. */
export class NoQuery extends Error {
  override name = 'NoQuery';
}

export class TapeDatabase {
  private readonly database: Database.Database;
  private readonly source: RecordSource;
  /** What the query at hand is known to ask, and of which view. */
  private asked: ReturnType<typeof boundsOf>;
  /** Where a scan stands: most columns are asked for while it does. */
  private latest: ChunkScan | undefined;

  /** @param within nothing outside is read, by any query. */
  constructor(
    private readonly reader: JournalReader,
    private readonly within: Bounds = {},
  ) {
    this.source = new RecordSource(reader);
    this.database = new Database(':memory:');
    this.database.defaultSafeIntegers(true);
    this.defineFunctions();
    for (const [name, view] of Object.entries(VIEWS)) this.defineView(name, view);
    for (const [name, { columns, rows }] of Object.entries(PLAIN_VIEWS)) {
      this.database.table(name, {
        columns: columns.map((column) => column.name),
        *rows() {
          for (const row of rows(reader)) yield [...row];
        },
      });
    }
  }

  /** @throws NoQuery; SqliteError and RangeError of better-sqlite3; the journal's errors, also while rows are read. */
  query(sql: string): Query {
    this.asked = boundsOf(sql, (pattern) => this.seqOf(pattern));
    const statement = this.database.prepare<[], readonly (SqlValue | number | Uint8Array)[]>(sql);
    if (!statement.reader || !statement.readonly) throw new NoQuery('it gives no rows, and a tape is only read');
    const columns = statement.columns().map(({ name }) => name);
    return { columns, rows: { [Symbol.iterator]: () => statement.raw().iterate() } };
  }

  close(): void {
    this.database.close();
  }

  private defineView(name: string, view: View): void {
    const own = view.columns.map((column) => column.name);
    const rows = (values: readonly unknown[]) => this.rows(name, view, values);
    this.database.table(`${name}_in`, {
      columns: ['seq', 'icount', 'vcpu', 'level', 'ran', ...own],
      parameters: [...PARAMETERS],
      safeIntegers: true,
      *rows(...values: readonly unknown[]) {
        yield* rows(values);
      },
    });
    const lazy = view.lazy.map((column) => `event_${column}(seq) AS ${column}`);
    const columns = [
      "(icount - ran) || ':' || seq AS position",
      'seq',
      'icount',
      'vcpu',
      'level',
      ...quoted(own),
      ...lazy,
    ];
    this.database.exec(`CREATE TEMP VIEW ${name} AS SELECT ${columns.join(', ')} FROM ${name}_in LIMIT -1`);
  }

  private *rows(name: string, view: View, values: readonly unknown[]): Generator<SqlValue[], void, void> {
    const filter = intersection(intersection(parametersOf(values), this.within), this.boundsFor(name));
    const kinds = filter.kinds === undefined ? view.kinds : view.kinds.filter((kind) => filter.kinds?.includes(kind));
    const codes =
      filter.codes === undefined ? undefined : new Set(filter.codes.map((code) => BigInt.asUintN(64, code)));
    for (const scan of this.source.scan({ ...filter, kinds })) {
      this.latest = scan;
      const { seq, icount, vcpu, level, retired } = scan;
      for (const row of view.rows(scan, codes)) yield [seq, icount, whole(vcpu), whole(level), whole(retired), ...row];
    }
  }

  private boundsFor(name: string): Bounds {
    const { asked } = this;
    return asked !== undefined && (asked.view === name || asked.view === `${name}_in`) ? asked.bounds : {};
  }

  private defineFunctions(): void {
    const { database } = this;
    const lazy: Record<LazyColumn['name'], (record: JournalRecord) => string> = {
      text: eventText,
      payload: ({ event }) => payloadJson(event),
    };
    for (const { name } of LAZY_COLUMNS) {
      database.function(`event_${name}`, { deterministic: true, safeIntegers: true }, (seq: unknown) => {
        const record = typeof seq === 'bigint' ? this.recordAt(seq) : undefined;
        return record === undefined ? null : lazy[name](record);
      });
    }
    database.function('at', { deterministic: true }, (pattern: unknown) => this.seqOf(String(pattern)));
    database.function('hex64', { deterministic: true, safeIntegers: true }, (value: unknown) =>
      typeof value === 'bigint' ? `0x${BigInt.asUintN(64, value).toString(16)}` : null,
    );
    database.function('exit_name', { deterministic: true, safeIntegers: true }, (code: unknown) =>
      typeof code === 'bigint' ? exitName(BigInt.asUintN(64, code)) : null,
    );
  }

  private seqOf(pattern: string): bigint {
    return resolvePosition(this.reader, pattern).seq;
  }

  private recordAt(seq: bigint): JournalRecord | undefined {
    if (this.latest?.seq === seq) return this.latest.record;
    const { value } = this.source.select({ fromSeq: seq, toSeq: seq + 1n }).next();
    return value ?? undefined;
  }
}

/** Functions beside SQLite's own. */
export const FUNCTIONS: readonly (readonly [call: string, meaning: string])[] = [
  ["at('POS')", 'the event number of a position, in any form that commands take'],
  ['hex64(n)', 'a 64-bit value in hexadecimal, unsigned'],
  ['exit_name(n)', 'the name of an EXITCODE'],
  ['event_text(seq), event_payload(seq)', 'text and payload of an event, as in the view events'],
];

const quoted = (names: readonly string[]): readonly string[] => names.map((name) => `"${name}"`);

function parametersOf(values: readonly unknown[]): Bounds {
  const [fromSeq, toSeq, kind, level, fromIcount, toIcount] = values;
  const count = (value: unknown): bigint | undefined => (typeof value === 'bigint' ? value : undefined);
  return {
    ...{ fromSeq: count(fromSeq), toSeq: count(toSeq), fromIcount: count(fromIcount), toIcount: count(toIcount) },
    kind: typeof kind === 'string' ? kind : undefined,
    level: level === 1n ? 1 : level === 2n ? 2 : undefined,
  };
}

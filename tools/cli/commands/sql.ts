/** `vmtape sql TAPE [QUERY]`: SQL over a tape's views. */
import Database from 'better-sqlite3';
import type { Command } from 'commander';
import { type JournalReader, sqliteStore } from '../../../src/journal/index.js';
import { resolvePosition } from '../../../src/replay/index.js';
import type { Bounds } from '../../sql/bounds.js';
import { FUNCTIONS, NoQuery, type Query, TapeDatabase } from '../../sql/tape-database.js';
import { type Column, LAZY_COLUMNS, PLACE_COLUMNS, PLAIN_VIEWS, VIEWS } from '../../sql/views.js';
import { command, terminalOf } from '../command.js';
import { OperatingError, UsageError } from '../failure.js';
import { pad, table } from '../format.js';
import { csvLine, jsonLine, valueText } from '../rows.js';
import type { Colors, Terminal } from '../terminal.js';

interface SqlOptions {
  readonly csv?: boolean;
  readonly from?: string;
  readonly to?: string;
}

export function sqlCommand(program: Command): void {
  command(
    program,
    'sql',
    "SQL over the tape's views; lists them without a query",
    "vmtape sql guest.vmtape 'SELECT exit, count(*) AS n FROM exits GROUP BY exit ORDER BY n DESC'",
    `vmtape sql guest.vmtape "SELECT position, text FROM events WHERE seq >= at('vmexit:npf[0]') LIMIT 5" --json`,
    'vmtape sql guest.vmtape',
  )
    .argument('<tape>')
    .argument('[query]', 'one SELECT; rows are read from the tape as it asks for them')
    .option('--csv', 'comma-separated values, the names of the columns first')
    .option('--from <pos>', 'read nothing before')
    .option('--to <pos>', 'read nothing from there on')
    .action(async (tape: string, query: string | undefined, options: SqlOptions, self: Command) => {
      const terminal = terminalOf(self);
      if (options.csv === true && terminal.json) throw new UsageError('--csv and --json: give one of them.');
      const reader = sqliteStore(tape).read();
      try {
        if (query === undefined) await listViews(terminal);
        else await answer(reader, query, options, terminal);
      } finally {
        reader.close();
      }
    });
}

const boundsOf = (reader: JournalReader, { from, to }: SqlOptions): Bounds => ({
  fromSeq: from === undefined ? undefined : resolvePosition(reader, from).seq,
  toSeq: to === undefined ? undefined : resolvePosition(reader, to).seq,
});

async function answer(reader: JournalReader, sql: string, options: SqlOptions, terminal: Terminal): Promise<void> {
  const database = new TapeDatabase(reader, boundsOf(reader, options));
  try {
    const query = database.query(sql);
    if (terminal.json) await printJson(query, terminal);
    else if (options.csv === true) await printCsv(query, terminal);
    else await printTable(query, terminal);
    await terminal.flush();
  } catch (error) {
    throw explained(error);
  } finally {
    database.close();
  }
}

/** What is wrong with a query is wrong usage; what goes wrong beside it is not. */
function explained(error: unknown): unknown {
  if (error instanceof NoQuery || error instanceof RangeError) return new UsageError(`the query: ${error.message}.`);
  if (!(error instanceof Database.SqliteError)) return error;
  return HOST_ERRORS.test(error.code)
    ? new OperatingError(`the query: ${error.message}.`)
    : new UsageError(`the query: ${error.message}.`);
}

const HOST_ERRORS = /^SQLITE_(FULL|IOERR|NOMEM|CANTOPEN)/;

async function printJson({ columns, rows }: Query, terminal: Terminal): Promise<void> {
  for (const row of rows) await terminal.line(jsonLine(columns, row));
}

async function printCsv({ columns, rows }: Query, terminal: Terminal): Promise<void> {
  await terminal.line(csvLine(columns));
  for (const row of rows) await terminal.line(csvLine(row.map((value) => valueText(value, ''))));
}

/** So many rows say how wide the columns are; those after them are not waited for. */
const MEASURED_ROWS = 2000;

async function printTable({ columns, rows }: Query, terminal: Terminal): Promise<void> {
  const { bold, dim } = terminal.colors;
  const widths = columns.map((name) => name.length);
  const isNumber = columns.map(() => true);
  let waiting: (readonly string[])[] | undefined = [];
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => pad(cell, widths[column] ?? 0, isNumber[column] === true ? 'right' : 'left'))
      .join('  ')
      .trimEnd();
  const release = async (): Promise<void> => {
    await terminal.line(bold(line(columns)));
    await terminal.line(dim(line(widths.map((width) => '-'.repeat(width)))));
    for (const cells of waiting ?? []) await terminal.line(line(cells));
    waiting = undefined;
  };
  for (const row of rows) {
    const cells = row.map((value) => valueText(value, 'NULL'));
    if (waiting === undefined) {
      await terminal.line(line(cells));
      continue;
    }
    cells.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
      const value = row[column];
      if (typeof value === 'string' || value instanceof Uint8Array) isNumber[column] = false;
    });
    waiting.push(cells);
    if (waiting.length >= MEASURED_ROWS) await release();
  }
  if (waiting !== undefined) await release();
}

interface Listed {
  readonly name: string;
  readonly summary: string;
  readonly columns: readonly Column[];
  readonly example: string;
}

const listed = (): readonly Listed[] => [
  ...Object.entries(VIEWS).map(([name, { summary, example, columns, lazy }]) => ({
    ...{ name, summary, example },
    columns: [...PLACE_COLUMNS, ...columns, ...LAZY_COLUMNS.filter((column) => lazy.includes(column.name))],
  })),
  ...Object.entries(PLAIN_VIEWS).map(([name, { summary, example, columns }]) => ({ name, summary, example, columns })),
];

async function listViews(terminal: Terminal): Promise<void> {
  if (terminal.json) {
    for (const view of listed()) await terminal.line(JSON.stringify(view));
    await terminal.flush();
    return;
  }
  await terminal.print(viewsPage(terminal.colors));
}

function viewsPage({ bold, dim }: Colors): readonly string[] {
  const shared = new Set<Column>(PLACE_COLUMNS);
  return [
    'All views of events begin with these columns:',
    ...table(
      PLACE_COLUMNS.map(({ name, type, meaning }) => [name, type, meaning]),
      [],
      '  ',
    ),
    ...listed().flatMap(({ name, summary, columns, example }) => [
      '',
      `${bold(name)}: ${summary}`,
      ...table(
        columns.filter((column) => !shared.has(column)).map((column) => [column.name, column.type, column.meaning]),
        [],
        '  ',
      ),
      dim(`  ${example}`),
    ]),
    '',
    'Functions beside those of SQLite:',
    ...table(FUNCTIONS, [], '  '),
    '',
    'Each view of events is a table too, with what to read as parameters:',
    dim('  SELECT e.position, w.field FROM exits e, vmcb_writes_in(e.seq, e.seq + 1) w LIMIT 5'),
  ];
}

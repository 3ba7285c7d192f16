/**
 * The index of writes: for each stretch of a tape the pages of RAM that may have been written to in it. Whoever looks for the
 * last writer runs only stretches that name its page. Derived data: made by a replay when it is first asked for.
 */
import type Database from 'better-sqlite3';
import { decodeIntegers, encodeIntegers } from './checkpoint.js';
import { type DigestField, digestOf, sameBytes } from './digest.js';
import { TapeDamagedError } from './errors.js';
import type { Position } from './record.js';
import { createTable, mistypedColumn, WRITE_TABLES } from './tape-schema.js';
import type { WriteStretch } from './write-stretch.js';

interface WriteRow {
  readonly id: bigint;
  readonly first_seq: bigint;
  readonly first_icount: bigint;
  readonly end_seq: bigint;
  readonly end_icount: bigint;
  readonly seal: Uint8Array;
  /** Differences between neighbouring page numbers, as variable-length integers. */
  readonly pages: Uint8Array;
}

const sealOf = (genesis: Uint8Array, row: Omit<WriteRow, 'seal'>): Uint8Array =>
  digestOf(
    'vmtape writes',
    genesis,
    ...([row.id, row.first_seq, row.first_icount, row.end_seq, row.end_icount, row.pages] satisfies DigestField[]),
  );

export class WriteTable {
  private constructor(private readonly database: Database.Database) {}

  /** That of a tape; undefined when it has none. */
  static open(database: Database.Database): WriteTable | undefined {
    const found = database.prepare('SELECT count(*) FROM sqlite_schema WHERE name = ?').pluck().get(WRITE_TABLES[0]);
    return found === 1 ? new WriteTable(database) : undefined;
  }

  static create(database: Database.Database): WriteTable {
    database.exec(createTable('writes'));
    return new WriteTable(database);
  }

  put(genesis: Uint8Array, stretches: Iterable<WriteStretch>): void {
    const insert = this.database.prepare(
      'INSERT INTO writes VALUES (@id, @first_seq, @first_icount, @end_seq, @end_icount, @seal, @pages)',
    );
    let id = 0n;
    for (const { start, end, pages } of stretches) {
      const row = {
        ...{ id: ++id, first_seq: start.seq, first_icount: start.icount, end_seq: end.seq, end_icount: end.icount },
        pages: encodeIntegers([...pages].map((page, index) => page - (pages[index - 1] ?? 0))),
      };
      insert.run({ ...row, seal: sealOf(genesis, row) });
    }
  }

  /** All stretches in order. @throws TapeDamagedError when one is not as it was written. */
  read(file: string, genesis: Uint8Array, readableTo: Position): readonly WriteStretch[] {
    const rows = this.database.prepare<[], WriteRow>('SELECT * FROM writes ORDER BY id').safeIntegers(true).all();
    return rows.map((row) => {
      if (mistypedColumn('writes', row) !== undefined || !sameBytes(sealOf(genesis, row), row.seal)) {
        const place = { table: 'writes', row: String(row.id), readableTo };
        throw new TapeDamagedError(file, 'the index of writes does not match its seal', place);
      }
      let page = 0;
      return {
        start: { icount: row.first_icount, seq: row.first_seq },
        end: { icount: row.end_icount, seq: row.end_seq },
        pages: Uint32Array.from(decodeIntegers(row.pages), (step) => {
          page += step;
          return page;
        }),
      };
    });
  }
}

/** The tables of checkpoints in a tape's file. */
import type Database from 'better-sqlite3';
import type { CheckpointEntry, CheckpointRow, PageGroupRow } from './checkpoint.js';
import type { KnownPages } from './checkpoint-builder.js';
import { CHECKPOINT_TABLES, createTable } from './tape-schema.js';

export class CheckpointTables {
  private readonly statements;

  private constructor(private readonly database: Database.Database) {
    this.statements = {
      putPages: database.prepare('INSERT INTO pages VALUES (@id, @digests, @seal, @data)'),
      putCheckpoint: database.prepare(
        'INSERT INTO checkpoints VALUES (@id, @seq, @icount, @ram_pages, @state_length, @map_length, @seal, @state, @map)',
      ),
      pages: database.prepare<[number], PageGroupRow>('SELECT * FROM pages WHERE id = ?').safeIntegers(true),
      checkpoint: database
        .prepare<[number], CheckpointRow>('SELECT * FROM checkpoints WHERE id = ?')
        .safeIntegers(true),
    };
  }

  /** Those of a tape; undefined when it has none yet. */
  static open(database: Database.Database): CheckpointTables | undefined {
    const sql = `SELECT count(*) FROM sqlite_schema WHERE name IN (${CHECKPOINT_TABLES.map((name) => `'${name}'`).join()})`;
    const found = database.prepare(sql).pluck().get();
    return found === CHECKPOINT_TABLES.length ? new CheckpointTables(database) : undefined;
  }

  /** Makes them if need be. */
  static ensure(database: Database.Database): CheckpointTables {
    for (const name of CHECKPOINT_TABLES) {
      database.exec(createTable(name).replace('CREATE TABLE', 'CREATE TABLE IF NOT EXISTS'));
    }
    return new CheckpointTables(database);
  }

  putPages(row: PageGroupRow): void {
    this.statements.putPages.run(row);
  }

  putCheckpoint(row: CheckpointRow): void {
    this.statements.putCheckpoint.run(row);
  }

  /** For whoever adds to them. */
  known(): KnownPages {
    const { database } = this;
    return {
      groups: database
        .prepare<[], Pick<PageGroupRow, 'id' | 'digests'>>('SELECT id, digests FROM pages')
        .safeIntegers(true)
        .all(),
      nextCheckpoint: database
        .prepare('SELECT coalesce(max(id), 0) + 1 FROM checkpoints')
        .pluck()
        .safeIntegers(true)
        .get() as bigint,
    };
  }

  /** All checkpoints up to event number `endSeq`, by position. */
  entries(endSeq: bigint): readonly CheckpointEntry[] {
    const rows = this.database
      .prepare<[bigint], { id: bigint; seq: bigint; icount: bigint; bytes: bigint }>(
        'SELECT id, seq, icount, length(state) + length(map) AS bytes FROM checkpoints WHERE seq <= ? ORDER BY seq, icount, id',
      )
      .safeIntegers(true)
      .all(endSeq);
    return rows.map(({ id, seq, icount, bytes }) => ({
      id: Number(id),
      position: { icount, seq },
      bytes: Number(bytes),
    }));
  }

  groupIds(): readonly number[] {
    return this.database.prepare<[], number>('SELECT id FROM pages ORDER BY id').pluck().all();
  }

  group(id: number): PageGroupRow | undefined {
    return this.statements.pages.get(id);
  }

  checkpoint(id: number): CheckpointRow | undefined {
    return this.statements.checkpoint.get(id);
  }
}

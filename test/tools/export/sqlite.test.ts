import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { beforeAll, describe, expect, it } from 'vitest';
import { memoryStore, sqliteStore } from '../../../src/journal/index.js';
import { EXPORTED_VIEWS, exportSqlite } from '../../../tools/export/sqlite.js';
import { TapeDatabase } from '../../../tools/sql/tape-database.js';
import { VIEWS } from '../../../tools/sql/views.js';
import { variedTape } from '../sql/support.js';
import { FIXED, image, startVmtape, temporaryFolder, until, vmtape } from '../vmtape.js';

const folder = temporaryFolder();
const reader = variedTape();

function exported(name: string, views = EXPORTED_VIEWS, from = reader): Database.Database {
  const file = join(folder, name);
  for (const done of exportSqlite('x.vmtape', from, { file, views })) expect(done).toBeLessThanOrEqual(from.end.seq);
  return new Database(file, { readonly: true }).defaultSafeIntegers(true);
}

describe('tables of an exported tape', () => {
  const database = exported('all.db');
  const views = new TapeDatabase(reader);

  it.each(EXPORTED_VIEWS)('%s holds what the view holds, types too', (name) => {
    const rows = database.prepare(`SELECT * FROM ${name} ORDER BY rowid`).raw().all();
    expect(rows).toEqual([...views.query(`SELECT * FROM ${name}`).rows]);
  });

  it('have indexes that queries use, and are whole', () => {
    const plan = (sql: string): string =>
      database.prepare<[], { detail: string }>(`EXPLAIN QUERY PLAN ${sql}`).all().map(({ detail }) => detail).join(); // biome-ignore format: one line
    expect(plan('SELECT * FROM exits WHERE code = 1')).toMatch(/SEARCH exits USING INDEX exits_code/);
    expect(plan('SELECT * FROM events WHERE seq > 5')).toMatch(/SEARCH events USING INTEGER PRIMARY KEY/);
    expect(plan('SELECT * FROM vmcb_writes WHERE seq = 5')).toMatch(/SEARCH vmcb_writes USING INDEX/);
    expect(database.pragma('integrity_check', { simple: true })).toBe('ok');
  });

  it('say what they were made of', () => {
    const facts = Object.fromEntries(database.prepare<[], [string, string]>('SELECT * FROM tape').raw().all());
    expect(facts).toMatchObject({ file: 'x.vmtape', state: 'complete', end: `${reader.end.icount}:${reader.end.seq}` });
  });

  it('are those that were asked for', () => {
    const few = exported('few.db', ['exits', 'digests']);
    const tables = few.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").raw().all();
    expect(tables).toEqual([['digests'], ['exits'], ['tape']]);
  });

  it('may be empty', () => {
    const store = memoryStore();
    store.create({ vmtapeVersion: 'test', machineVersion: 'test', configuration: {} }).finish();
    const empty = exported('empty.db', EXPORTED_VIEWS, store.read());
    for (const name of Object.keys(VIEWS)) {
      expect(empty.prepare(`SELECT count(*) FROM ${name}`).raw().get()).toEqual([0n]);
    }
  });
});

describe('vmtape export', () => {
  const tape = join(folder, 'nested.vmtape');
  beforeAll(() => {
    const made = vmtape(['record', image('nested.elf'), '-o', tape, ...FIXED, '-q', '--append', 'rounds=60']);
    expect(made.status).toBe(0);
  });
  const files = (): readonly string[] => readdirSync(folder).filter((name) => name.includes('partial'));

  it('writes the file, says so, and never replaces one', () => {
    const target = join(folder, 'cli.db');
    const first = vmtape(['export', tape, '--sqlite', target]);
    expect(first).toMatchObject({ status: 0, stdout: '' });
    expect(first.stderr).toMatch(/events in .*cli\.db, [\d.]+ MiB/);
    const again = vmtape(['export', tape, '--sqlite', target]);
    expect(again.status).toBe(2);
    expect(again.stderr).toMatch(/cli\.db: there is such a file already/);
    expect(files()).toEqual([]);
    const { end } = sqliteStore(tape).read();
    const json = vmtape(['export', tape, '--sqlite', join(folder, 'json.db'), '--json', '--views', 'exits']);
    expect(JSON.parse(json.stdout)).toMatchObject({ tape, events: String(end.seq) });
  });

  it.each([
    ['no format', [], /Give one of --sqlite FILE, --perfetto FILE, /],
    ['two formats', ['--sqlite', 'a', '--perfetto', 'b'], /Give one of/],
    ['a view that is none', ['--sqlite', join(folder, 'no.db'), '--views', 'exits,exit'], /--views "exit" is none/],
    ['a folder that is not there', ['--sqlite', join(folder, 'no', 'no.db')], /no/],
    ['a folder that is not there', ['--perfetto', join(folder, 'no', 'no.json')], /no such file/],
  ])('refuses %s', (_name, args, message) => {
    const { status, stderr } = vmtape(['export', tape, ...args]);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(message);
    expect(existsSync(join(folder, 'no.db'))).toBe(false);
  });

  it('leaves nothing half-made when it is stopped', async () => {
    const target = join(folder, 'stopped.db');
    const { child, ended } = startVmtape(['export', tape, '--sqlite', target]);
    await until(() => files().length > 0);
    child.kill('SIGINT');
    const { status, stderr } = await ended;
    expect({ status, stderr }).toEqual({ status: 4, stderr: 'vmtape: stopped by SIGINT: nothing was written.\n' });
    expect(files()).toEqual([]);
    expect(existsSync(target)).toBe(false);
  });

  it('leaves nothing half-made of a damaged tape', () => {
    const damaged = join(folder, 'damaged.vmtape');
    const database = new Database(tape);
    database.exec(`VACUUM INTO '${damaged}'`);
    database.close();
    const broken = new Database(damaged);
    broken.exec('UPDATE chunks SET data = zeroblob(length(data)) WHERE id = (SELECT max(id) FROM chunks)');
    broken.close();
    for (const [flag, name] of [
      ['--sqlite', 'damaged.db'],
      ['--perfetto', 'damaged.json'],
    ] as const) {
      expect(vmtape(['export', damaged, flag, join(folder, name)])).toMatchObject({ status: 3, stdout: '' });
      expect(existsSync(join(folder, name))).toBe(false);
    }
    expect(files()).toEqual([]);
    writeFileSync(join(folder, 'done'), '');
  });
});

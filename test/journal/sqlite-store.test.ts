import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect, it } from 'vitest';
import { sqliteStore } from '../../src/journal/sqlite-store.js';
import { describeStore } from './contract.js';
import { DESCRIPTION, errorOf, expectSame, nestedEvents, statedEvents, temporaryDirectory } from './support.js';

const newTape = (): string => join(temporaryDirectory(), 'session.vmtape');

describeStore('the store in a file, written in the caller’s thread', () => sqliteStore(newTape(), { thread: false }));
describeStore('the store in a file, written by a thread', () => sqliteStore(newTape()));

describe('a tape', () => {
  for (const thread of [true, false]) {
    it(`is a single file after a clean end (${thread ? 'threaded' : 'in thread'})`, () => {
      const directory = temporaryDirectory();
      const writer = sqliteStore(join(directory, 'a.vmtape'), { thread }).create(DESCRIPTION);
      for (const stated of nestedEvents(100)) writer.append(stated);
      writer.flush();
      expect(readdirSync(directory).sort()).toEqual(['a.vmtape', 'a.vmtape-lock', 'a.vmtape-shm', 'a.vmtape-wal']);
      writer.finish();
      expect(readdirSync(directory)).toEqual(['a.vmtape']);
    });
  }

  it('has a header that plain SQLite reads', () => {
    const file = newTape();
    sqliteStore(file).create(DESCRIPTION).finish();
    const database = new Database(file, { readonly: true });
    expect(database.pragma('application_id', { simple: true })).toBe(0x766d7470);
    expect(database.pragma('user_version', { simple: true })).toBe(3);
    const row = database.prepare('SELECT * FROM tape').get() as { configuration: string };
    expect(row).toMatchObject({ format_version: 3, vmtape_version: '0.1.0', machine_version: '1' });
    expect(JSON.parse(row.configuration)).toEqual(DESCRIPTION.configuration);
    database.close();
  });

  it('stays readable when a reader has it open while the writer ends', () => {
    const directory = temporaryDirectory();
    const store = sqliteStore(join(directory, 'a.vmtape'), { thread: false });
    const events = [...nestedEvents(500)];
    const writer = store.create(DESCRIPTION);
    for (const stated of events) writer.append(stated);
    writer.flush();
    const reader = store.read();
    expect(reader.records().next().done).toBe(false);
    writer.finish();
    expectSame(statedEvents(reader), events);
    reader.close();
    const after = store.read();
    expect(after.state).toBe('complete');
    expectSame(statedEvents(after), events);
    after.close();
  });

  it('is refused when it is no tape, with the reason', () => {
    const directory = temporaryDirectory();
    const refusal = (file: string) => errorOf(() => sqliteStore(join(directory, file)).read());
    writeFileSync(join(directory, 'text'), 'hello '.repeat(1000));
    writeFileSync(join(directory, 'empty'), '');
    const other = new Database(join(directory, 'other'));
    other.exec('CREATE TABLE t (x)');
    other.close();
    expect(refusal('text')).toMatchObject({ exitStatus: 2, message: expect.stringContaining('no SQLite file') });
    expect(refusal('empty')).toMatchObject({ exitStatus: 2, message: expect.stringContaining('empty file') });
    expect(refusal('other')).toMatchObject({ exitStatus: 2, message: expect.stringContaining('no tape') });
    expect(refusal('missing')).toMatchObject({ exitStatus: 2, message: expect.stringContaining('no such file') });
    expect(refusal('.')).toMatchObject({ exitStatus: 2, message: expect.stringContaining('no file') });
    expect(errorOf(() => sqliteStore(join(directory, 'no', 'a.vmtape')).create(DESCRIPTION))).toMatchObject({
      exitStatus: 2,
      message: expect.stringContaining('directory'),
    });
  });

  it('of a newer format is refused with both versions and what to do', () => {
    const file = newTape();
    sqliteStore(file, { thread: false }).create(DESCRIPTION).finish();
    const database = new Database(file);
    database.pragma('user_version = 7');
    database.exec('UPDATE tape SET format_version = 7; ALTER TABLE chunks ADD COLUMN novelty TEXT');
    database.close();
    expect(errorOf(() => sqliteStore(file).read())).toMatchObject({
      exitStatus: 2,
      message: expect.stringMatching(/version 7.*up to 3.*Use a newer vmtape/),
    });
  });
});

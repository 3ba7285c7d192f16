import { copyFileSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import Database from 'better-sqlite3';
import { describe, expect, it } from 'vitest';
import { CHUNK_EVENTS } from '../../src/journal/chunk.js';
import { JournalError, TapeDamagedError } from '../../src/journal/errors.js';
import { sqliteStore } from '../../src/journal/sqlite-store.js';
import { verifyTape } from '../../src/journal/verify.js';
import { checkpointOf, contentOf, DESCRIPTION, delta, errorOf, nestedEvents, temporaryDirectory } from './support.js';

/** A tape with something in every table. */
function makeTape(events: number, salt = 0): string {
  const file = join(temporaryDirectory(), 'whole.vmtape');
  const writer = sqliteStore(file, { thread: false }).create(DESCRIPTION);
  writer.putBlob(new Uint8Array(3000).map((_, index) => (index * 7919) >> 3));
  writer.appendDigest('cpu', delta(3, 1));
  for (const stated of nestedEvents(events)) {
    // Another session: one vCPU further on, all else alike.
    writer.append(salt === 0 ? stated : { ...stated, vcpu: salt });
  }
  writer.appendDigest('cpu', delta(3, 2));
  writer.putCheckpoint(checkpointOf(writer.end, [1, 2, 2, 0, 3]));
  writer.finish();
  return file;
}

function read(file: string): unknown {
  const reader = sqliteStore(file).read();
  try {
    return contentOf(reader);
  } finally {
    reader.close();
  }
}

/** What happens to a damaged tape: 'reported', 'harmless', or else something that must never happen. */
function outcome(attempt: () => unknown, content: unknown): string {
  try {
    return isDeepStrictEqual(attempt(), content) ? 'harmless' : 'silently different';
  } catch (error) {
    return error instanceof JournalError ? 'reported' : `not a journal error: ${error}`;
  }
}

const verified = (file: string): unknown => {
  const { damage } = verifyTape(file);
  if (damage[0] !== undefined) throw damage[0];
  return read(file);
};

/** Changes a tape through SQLite, as somebody might who knows it. */
function tampered(events: number, sql: string): string {
  const file = makeTape(events);
  const database = new Database(file);
  database.exec(sql);
  database.close();
  return file;
}

describe('a damaged checkpoint', () => {
  it.each([
    [
      'state',
      "UPDATE checkpoints SET state = x'00'",
      'table checkpoints, row 1: the checkpoint does not match its seal',
    ],
    ['position', 'UPDATE checkpoints SET icount = icount + 1', 'does not match its seal'],
    ['pages', "UPDATE pages SET data = x'00'", 'table pages, row 1: the pages do not match their seal'],
    ['missing pages', 'DELETE FROM pages', 'page 16, which it refers to, is missing'],
    ['missing table', 'DROP TABLE pages', 'the definition of table pages is not as written'],
  ])('is found out: %s', (_what, sql, message) => {
    const file = tampered(10, sql);
    const error = errorOf(() => verified(file));
    expect(error).toBeInstanceOf(TapeDamagedError);
    expect((error as Error).message).toContain(message);
  });

  it('leaves the events readable', () => {
    const reader = sqliteStore(tampered(10, "UPDATE checkpoints SET state = x'00'")).read();
    expect([...reader.records()]).toHaveLength(10);
    expect(() => reader.checkpoint(1)).toThrow('Still readable up to');
    reader.close();
  });
});

describe('a damaged tape', () => {
  it('is found out, whichever byte is flipped, or reads as before', () => {
    const original = makeTape(400);
    const content = read(original);
    const bytes = readFileSync(original);
    const damaged = join(temporaryDirectory(), 'damaged.vmtape');
    const outcomes = new Map<string, number>();
    for (let at = 0; at < bytes.length; at += 61) {
      const copy = Buffer.from(bytes);
      copy[at] = (copy[at] as number) ^ (1 << (at % 8));
      writeFileSync(damaged, copy);
      for (const result of [outcome(() => read(damaged), content), outcome(() => verified(damaged), content)]) {
        if (result !== 'reported' && result !== 'harmless') expect.fail(`byte ${at}: ${result}`);
        outcomes.set(result, (outcomes.get(result) ?? 0) + 1);
      }
    }
    expect(outcomes.get('reported')).toBeGreaterThan(100);
  });

  it('is found out wherever it was cut off', () => {
    const original = makeTape(400);
    const { size } = statSync(original);
    for (let length = 0; length < size; length += 1021) {
      const cut = join(temporaryDirectory(), 'cut.vmtape');
      copyFileSync(original, cut);
      truncateSync(cut, length);
      expect(
        outcome(() => read(cut), undefined),
        `cut to ${length} bytes`,
      ).toBe('reported');
    }
  });

  it('says which chunk is damaged, which events it holds, and how far one can read', () => {
    const file = tampered(
      3 * CHUNK_EVENTS,
      "UPDATE chunks SET data = CAST(data || x'00' AS BLOB), length = length + 1 WHERE id = 1",
    );
    const { damage, readableTo } = verifyTape(file);
    expect(damage).toHaveLength(1);
    expect(damage[0]).toBeInstanceOf(TapeDamagedError);
    expect(damage[0]).toMatchObject({ exitStatus: 3, file });
    expect(damage[0]?.place).toEqual({
      table: 'chunks',
      row: '1',
      seqs: { first: BigInt(CHUNK_EVENTS), last: BigInt(2 * CHUNK_EVENTS - 1) },
      readableTo,
    });
    expect(damage[0]?.message).toMatch(
      /whole\.vmtape: damaged: table chunks, row 1 \(events 4096 to 8191\): .*Still readable up to \d+:4096\./,
    );
    const reader = sqliteStore(file).read();
    const records = reader.records();
    for (let seq = 0; seq < CHUNK_EVENTS; seq++) expect(records.next().done).toBe(false);
    expect(errorOf(() => records.next())).toBeInstanceOf(TapeDamagedError);
    expect(reader.records(BigInt(2 * CHUNK_EVENTS)).next().done, 'what comes after is readable').toBe(false);
    reader.close();
  });

  it.each([
    ['a changed configuration', "UPDATE tape SET configuration = '{}'", 'tape'],
    ['a missing header', 'DELETE FROM tape', 'tape'],
    ['a changed count', 'UPDATE progress SET events = events - 1', 'progress'],
    ['missing progress', 'DELETE FROM progress', 'progress'],
    ['a missing last chunk', 'DELETE FROM chunks WHERE id = 2', 'chunks'],
    ['a missing chunk', 'DELETE FROM chunks WHERE id = 1', 'chunks'],
    [
      'a chunk too many',
      'INSERT INTO chunks SELECT 3, 1, 2, 3, 4, 5, 6, digest, chain, data FROM chunks WHERE id = 0',
      'chunks',
    ],
    ['chunks in another order', 'UPDATE chunks SET id = 9 - id; UPDATE chunks SET id = id - 7', 'chunks'],
    ['a changed boundary', 'UPDATE chunks SET end_icount = end_icount + 1 WHERE id = 0', 'chunks'],
    ['a changed chain', 'UPDATE chunks SET chain = zeroblob(32) WHERE id = 2', 'chunks'],
    ['a changed state digest', "UPDATE digests SET value = x'00' WHERE id = 1", 'digests'],
    ['a moved state digest', 'UPDATE digests SET seq = 1 WHERE id = 2', 'digests'],
    ['a missing state digest', 'DELETE FROM digests WHERE id = 2', 'digests'],
    ['a changed blob', 'UPDATE blobs SET length = length + 1', 'blobs'],
    ['a missing blob', 'DELETE FROM blobs', 'blobs'],
    ['a blob too many', "INSERT INTO blobs SELECT x'00', length, data FROM blobs", 'blobs'],
    ['another definition', 'ALTER TABLE digests RENAME COLUMN kind TO sort', 'sqlite_schema'],
    ['a missing table', 'DROP TABLE blobs', 'sqlite_schema'],
  ])('is found out: %s', (_, sql, table) => {
    const file = tampered(2 * CHUNK_EVENTS + 10, sql);
    const error = errorOf(() => verified(file));
    expect(error).toBeInstanceOf(TapeDamagedError);
    expect((error as TapeDamagedError).place.table).toBe(table);
  });

  it('is found out when its header comes from another tape', () => {
    const [file, other] = [makeTape(10), makeTape(20)];
    const database = new Database(file);
    database.prepare('ATTACH ? AS other').run(other);
    database.exec("UPDATE other.tape SET vmtape_version = vmtape_version || '1'");
    database.exec('DELETE FROM tape; INSERT INTO tape SELECT * FROM other.tape');
    database.close();
    expect(errorOf(() => read(file))).toBeInstanceOf(TapeDamagedError);
  });

  it('is found out when a chunk comes from another session, whole and with its own digest', () => {
    const [file, other] = [makeTape(3 * CHUNK_EVENTS), makeTape(3 * CHUNK_EVENTS, 1)];
    const database = new Database(file);
    database.prepare('ATTACH ? AS other').run(other);
    const replaced = 'first_icount, end_icount, length, digest, data';
    database.exec(`UPDATE chunks SET (${replaced}) = (SELECT ${replaced} FROM other.chunks WHERE id = 1) WHERE id = 1`);
    database.close();
    const { damage } = verifyTape(file);
    expect(damage[0]?.message).toContain('hash chain is broken');
    expect(damage[0]?.place.row).toBe('1');
  });

  it('is found out when text has turned into bytes, which have the same digest', () => {
    const file = makeTape(10);
    const bytes = readFileSync(file);
    // Types of the header's columns in SQLite's record: text of 5 bytes (the version), text of 1 byte.
    const at = bytes.indexOf(Buffer.from([13 + 2 * 5, 13 + 2 * 1]));
    bytes[at] = 12 + 2 * 5;
    writeFileSync(file, bytes);
    expect(errorOf(() => read(file))).toMatchObject({
      exitStatus: 3,
      message: expect.stringContaining('column vmtape_version'),
    });
  });

  it('cannot be continued', () => {
    const file = tampered(50, 'UPDATE chunks SET digest = zeroblob(32)');
    expect(errorOf(() => sqliteStore(file).continue())).toBeInstanceOf(TapeDamagedError);
    expect(verifyTape(file).readableTo).toEqual({ icount: 0n, seq: 0n });
  });

  it('does not exist when nothing is wrong', () => {
    const file = makeTape(2 * CHUNK_EVENTS + 10);
    expect(verifyTape(file)).toMatchObject({ state: 'complete', chunks: 3, digests: 3, blobs: 1, damage: [] });
  });

  it('misses the image that its session boots', () => {
    const file = join(temporaryDirectory(), 'a.vmtape');
    const writer = sqliteStore(file, { thread: false }).create(DESCRIPTION);
    const imageDigest = 'ab'.repeat(32);
    writer.append({
      ...{ retired: 0, vcpu: 0, level: 1 },
      event: { type: 'input.boot', imageDigest, commandLine: '', registers: delta(1, 1) },
    });
    writer.finish();
    const { damage, readableTo } = verifyTape(file);
    expect(damage.map(({ place }) => place)).toEqual([{ table: 'blobs', row: imageDigest, readableTo }]);
  });
});

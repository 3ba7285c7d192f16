import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect, it } from 'vitest';
import { CHUNK_EVENTS, type Chunk } from '../../src/journal/chunk.js';
import { sqliteStore } from '../../src/journal/sqlite-store.js';
import { DESCRIPTION, errorOf, expectSame, nestedEvents, temporaryDirectory } from './support.js';

const CHUNKS = 40;

describe('chunks read ahead by a thread', () => {
  const longTape = (): string => {
    const file = join(temporaryDirectory(), 'long.vmtape');
    const writer = sqliteStore(file, { thread: false }).create(DESCRIPTION);
    for (const stated of nestedEvents(CHUNKS * CHUNK_EVENTS - 7)) writer.append(stated);
    writer.finish();
    return file;
  };

  const read = (file: string, which: 'chunks' | 'chunksAhead', take = CHUNKS): Chunk[] => {
    const reader = sqliteStore(file).read();
    try {
      const chunks: Chunk[] = [];
      for (const chunk of reader[which]()) if (chunks.push(chunk) === take) break;
      return chunks;
    } finally {
      reader.close();
    }
  };

  it('are the chunks', () => {
    const file = longTape();
    const ahead = read(file, 'chunksAhead');
    expect(ahead.map(({ index }) => index)).toEqual(Array.from({ length: CHUNKS }, (_, index) => index));
    expectSame(ahead, read(file, 'chunks'));
  });

  it('need not all be taken', () => {
    const file = longTape();
    expect(read(file, 'chunksAhead', 1)).toHaveLength(1);
    expectSame(read(file, 'chunksAhead', 20), read(file, 'chunks', 20));
  });

  it('that are damaged are told as if they had been read directly', () => {
    const file = longTape();
    const database = new Database(file);
    const row = database.prepare<[], { data: Buffer }>('SELECT data FROM chunks WHERE id = 30').get();
    const damaged = Buffer.from(row?.data ?? []);
    damaged[damaged.length >> 1] = (damaged[damaged.length >> 1] ?? 0) ^ 1;
    database.prepare('UPDATE chunks SET data = ? WHERE id = 30').run(damaged);
    database.close();
    const direct = errorOf(() => read(file, 'chunks')) as Error;
    expect(direct).toMatchObject({ name: 'TapeDamagedError', message: expect.stringContaining('30') });
    expect(errorOf(() => read(file, 'chunksAhead'))).toMatchObject({
      name: 'TapeDamagedError',
      message: direct.message,
    });
  });
});

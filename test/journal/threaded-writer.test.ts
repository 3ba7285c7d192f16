import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { constants, getPriority } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CHUNK_BYTES } from '../../src/journal/chunk.js';
import { sqliteStore } from '../../src/journal/sqlite-store.js';
import { RING_CHUNKS } from '../../src/journal/writer-protocol.js';
import type { StatedEvent } from '../../src/machine/events.js';
import { checkpointOf, DESCRIPTION, expectSame, nestedEvents, temporaryDirectory } from './support.js';

describe('the writer thread', () => {
  it('takes more than fits into its ring, without the caller’s event loop', () => {
    const store = sqliteStore(join(temporaryDirectory(), 'a.vmtape'));
    const writer = store.create(DESCRIPTION);
    const data = new Uint8Array(CHUNK_BYTES / 2).map((_, index) => (index * 2654435761) >>> 13);
    const serial: StatedEvent = { retired: 0, vcpu: 0, level: 1, event: { type: 'input.serial', data } };
    for (let count = 0; count < 6 * RING_CHUNKS; count++) writer.append(serial);
    expect(Number(writer.end.seq)).toBe(6 * RING_CHUNKS);
    writer.finish();
    const reader = store.read();
    expect(reader.chunkCount).toBe(3 * RING_CHUNKS);
    for (const record of reader.records()) expectSame(record.event, serial.event);
    reader.close();
  });

  it('tells how far the tape is stored and how large it is', () => {
    const writer = sqliteStore(join(temporaryDirectory(), 'a.vmtape')).create(DESCRIPTION);
    for (const stated of nestedEvents(1000)) writer.append(stated);
    writer.flush();
    expect(writer.storedTo).toEqual(writer.end);
    expect(writer.tapeBytes).toBeGreaterThan(1024);
    writer.finish();
  });

  it('leaves the caller its memory: a thread whose buffers were ever taken from it runs slower', () => {
    const writer = sqliteStore(join(temporaryDirectory(), 'a.vmtape')).create(DESCRIPTION);
    const checkpoint = checkpointOf(writer.end, [1, 2, 3]);
    const { changed, contents, state } = checkpoint;
    const lengths = [changed, contents, state].map(({ byteLength }) => byteLength);
    writer.putCheckpoint(checkpoint);
    writer.finish();
    expect([changed, contents, state].map(({ byteLength }) => byteLength)).toEqual(lengths);
  });

  it.runIf(process.platform === 'linux')('gives way to its caller’s, whose priority stays', () => {
    const before = threads();
    const priority = getPriority();
    const writer = sqliteStore(join(temporaryDirectory(), 'a.vmtape')).create(DESCRIPTION);
    writer.flush();
    const lowered = threads().filter(
      (thread) => !before.includes(thread) && getPriority(thread) === constants.priority.PRIORITY_BELOW_NORMAL,
    );
    expect(lowered).toHaveLength(1);
    expect(getPriority()).toBe(priority);
    writer.finish();
  });

  it.runIf(process.platform === 'linux')('has closed the file when its failure is told', async () => {
    const file = join(temporaryDirectory(), 'a.vmtape');
    const writer = sqliteStore(file).create(DESCRIPTION);
    writer.flush();
    expect(isOpen(file)).toBe(true);
    await using _reader = await amidstReading(file);
    expect(() => {
      for (;;) for (const stated of nestedEvents(1000)) writer.append(stated);
    }).toThrow(/no such table: chunks/);
    expect(isOpen(file)).toBe(false);
    expect(() => writer.close()).toThrow(/no such table: chunks/);
  });
});

/** Numbers of the process's threads. */
const threads = (): number[] => readdirSync('/proc/self/task').map(Number);

/** A process that has dropped the table of chunks and is amidst reading: with it, to close the file takes its time. */
async function amidstReading(file: string): Promise<AsyncDisposable> {
  const script = `
    const other = new (require('better-sqlite3'))(${JSON.stringify(file)});
    other.exec('DROP TABLE chunks');
    other.exec('BEGIN');
    other.prepare('SELECT count(*) FROM sqlite_schema').get();
    console.log('reading');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return {
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await once(child, 'close');
    },
  };
}

/** True while this process has a descriptor of a file. */
const isOpen = (file: string): boolean =>
  readdirSync('/proc/self/fd').some((descriptor) => {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`) === file;
    } catch {
      return false; // the descriptor of the folder that is read
    }
  });

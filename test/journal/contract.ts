/** What every JournalStore keeps to; each store's test runs this. */
import { describe, expect, it } from 'vitest';
import { CHUNK_EVENTS } from '../../src/journal/chunk.js';
import { contentDigest } from '../../src/journal/digest.js';
import { PageTree, pageDigest } from '../../src/journal/page-tree.js';
import { boundaryAfter, START } from '../../src/journal/record.js';
import type { JournalStore } from '../../src/journal/store.js';
import type { StatedEvent } from '../../src/machine/events.js';
import { EVENT_FIELDS } from '../../src/machine/events.js';
import {
  checkpointOf,
  contentOf,
  DESCRIPTION,
  delta,
  errorOf,
  expectSame,
  nestedEvents,
  pageOf,
  statedEvents,
} from './support.js';

const SEVERAL_CHUNKS = 2 * CHUNK_EVENTS + 100;

export function describeStore(name: string, makeStore: () => JournalStore): void {
  const recorded = (events: Iterable<StatedEvent>): JournalStore => {
    const store = makeStore();
    const writer = store.create(DESCRIPTION);
    for (const stated of events) writer.append(stated);
    writer.finish();
    return store;
  };

  describe(name, () => {
    it('gives back every event in order, with its position', () => {
      const events = [...nestedEvents(SEVERAL_CHUNKS)];
      const reader = recorded(events).read();
      expectSame(statedEvents(reader), events);
      let [icount, seq] = [0n, 0n];
      for (const record of reader.records()) {
        icount += BigInt(record.retired);
        if (record.position.icount !== icount || record.position.seq !== seq)
          expect(record.position).toEqual({ icount, seq });
        seq++;
      }
      expect(reader.end).toEqual({ icount, seq });
      expect(reader.chunkCount).toBe(3);
      reader.close();
    });

    it('gives back checkpoints with their pages, and the digest of RAM at each', () => {
      const store = makeStore();
      const writer = store.create(DESCRIPTION);
      const events = [...nestedEvents(8)];
      for (const stated of events.slice(0, 4)) writer.append(stated);
      writer.putCheckpoint(checkpointOf(writer.end, [5, 0, 6, 5]));
      const first = writer.end;
      for (const stated of events.slice(4)) writer.append(stated);
      // Only what changed since the first.
      const second = checkpointOf(writer.end, [7, 5], delta(2, 8));
      writer.putCheckpoint(second);
      writer.finish();
      const reader = store.read();
      expect(reader.checkpoints().map(({ position }) => position)).toEqual([first, reader.end]);
      const salts = reader.checkpoints().map(({ id }) => {
        const checkpoint = reader.checkpoint(id);
        expect(checkpoint?.pages).toHaveLength(300);
        return [...(checkpoint?.pages ?? [])].slice(0, 5).map((page) => (page === 0 ? 0 : reader.page(page)));
      });
      expect(salts[0]).toEqual([pageOf(5), 0, pageOf(6), pageOf(5), 0]);
      expect(salts[1]).toEqual([pageOf(7), pageOf(5), pageOf(6), pageOf(5), 0]);
      expect(reader.checkpoint(2)?.state).toEqual(delta(2, 8));
      expect(reader.checkpoint(99)).toBeUndefined();
      const tree = new PageTree(300);
      const digests = [
        [5, 0, 6, 5],
        [7, 5, 6, 5],
      ].map((pages) => {
        for (const [page, salt] of pages.entries()) tree.set(page, pageDigest(pageOf(salt)));
        return tree.root();
      });
      expect([...reader.digests('ram')].map(({ value }) => value)).toEqual(digests);
      reader.close();
    });

    it('keeps a content once, also when it is continued', () => {
      const store = makeStore();
      const writer = store.create(DESCRIPTION);
      writer.putCheckpoint(checkpointOf(writer.end, [1, 2, 3]));
      writer.close();
      const again = store.continue();
      again.putCheckpoint(checkpointOf(again.end, [3, 1, 4]));
      again.finish();
      const reader = store.read();
      const [first, second] = reader.checkpoints().map(({ id }) => reader.checkpoint(id)?.pages ?? []);
      expect([second?.[0], second?.[1]]).toEqual([first?.[2], first?.[0]]);
      expect(reader.page(second?.[2] as number)).toEqual(pageOf(4));
      reader.close();
    });

    it('tells its header: versions, configuration and event table', () => {
      const reader = recorded([]).read();
      expect(reader.header).toEqual({ ...DESCRIPTION, formatVersion: 3, codecVersion: 1, events: EVENT_FIELDS });
      reader.close();
    });

    it('is complete after finish, cut after close, and recording before', () => {
      const store = makeStore();
      const stateNow = () => {
        const reader = store.read();
        reader.close();
        return reader.state;
      };
      const writer = store.create(DESCRIPTION);
      expect(stateNow()).toBe('recording');
      writer.close();
      expect(stateNow()).toBe('cut');
      const again = store.continue();
      again.append([...nestedEvents(1)][0] as StatedEvent);
      again.finish();
      expect(stateNow()).toBe('complete');
      const more = store.continue();
      more.append([...nestedEvents(1)][0] as StatedEvent);
      more.close();
      expect(stateNow()).toBe('cut');
    });

    it('ends once: closing a writer that has ended does nothing', () => {
      const store = makeStore();
      const writer = store.create(DESCRIPTION);
      writer.finish();
      writer.close();
      writer.finish();
      const reader = store.read();
      expect(reader.state).toBe('complete');
      reader.close();
    });

    it('has no events and ends at the start when nothing was appended', () => {
      const reader = recorded([]).read();
      expect(reader.end).toEqual(START);
      expect([...reader.records()]).toEqual([]);
      expect(reader.chunkAt(0n)).toBeUndefined();
      reader.close();
    });

    it('lets readers see what was flushed while it is written', () => {
      const store = makeStore();
      const writer = store.create(DESCRIPTION);
      const events = [...nestedEvents(300)];
      for (const stated of events.slice(0, 100)) writer.append(stated);
      writer.flush();
      const early = store.read();
      expectSame(statedEvents(early), events.slice(0, 100));
      for (const stated of events.slice(100)) writer.append(stated);
      writer.flush();
      expect(writer.storedTo).toEqual(writer.end);
      expectSame(statedEvents(early), events.slice(0, 100), 'a reader stays where it was opened');
      early.close();
      const late = store.read();
      expectSame(statedEvents(late), events);
      late.close();
      writer.finish();
    });

    it('reads from any event and finds the chunk that holds a seq or an icount', () => {
      const reader = recorded(nestedEvents(SEVERAL_CHUNKS)).read();
      const records = [...reader.records()];
      for (const seq of [0, 1, CHUNK_EVENTS - 1, CHUNK_EVENTS, CHUNK_EVENTS + 1, SEVERAL_CHUNKS - 1]) {
        expect(reader.records(BigInt(seq)).next().value).toEqual(records[seq]);
        const chunk = reader.chunkAt(BigInt(seq));
        expect(chunk?.index).toBe(Math.floor(seq / CHUNK_EVENTS));
        const icount = records[seq]?.position.icount as bigint;
        const byCount = reader.chunkAtIcount(icount);
        expect(byCount && byCount.start.icount <= icount && icount <= byCount.end.icount).toBe(true);
      }
      expect([...reader.records(BigInt(SEVERAL_CHUNKS))]).toEqual([]);
      expect(reader.chunkAt(BigInt(SEVERAL_CHUNKS))).toBeUndefined();
      expect(reader.chunkAt(-1n)).toBeUndefined();
      expect(reader.chunkAtIcount(reader.end.icount + 1n)).toBeUndefined();
      reader.close();
    });

    it('has the same chunks however often it was flushed, closed and continued', () => {
      const events = [...nestedEvents(SEVERAL_CHUNKS)];
      const straight = recorded(events).read();
      const store = makeStore();
      let writer = store.create(DESCRIPTION);
      for (const [index, stated] of events.entries()) {
        writer.append(stated);
        if (index % 777 === 0) writer.flush();
        if (index % 3001 === 0 || index === CHUNK_EVENTS - 1) {
          writer.close();
          writer = store.continue();
          expect(writer.end.seq).toBe(BigInt(index + 1));
        }
      }
      writer.finish();
      const interrupted = store.read();
      expectSame([...interrupted.chunks()], [...straight.chunks()]);
      expectSame(contentOf(interrupted), contentOf(straight));
      interrupted.close();
      straight.close();
    });

    it('keeps an event larger than a chunk', () => {
      const serial = (length: number): StatedEvent => ({
        ...{ retired: 0, vcpu: 0, level: 1 },
        event: { type: 'input.serial', data: delta(Math.ceil(length / 9), length).slice(0, length) },
      });
      const mnemonic = (length: number): StatedEvent => ({
        ...{ retired: 1, vcpu: 0, level: 1 },
        event: { type: 'cpu.system', mnemonic: 'm'.repeat(length), registers: delta(1, 0) },
      });
      const few = [...nestedEvents(10)];
      // A long string makes the encoder ask for more than it then uses: the chunk moves, and goes on growing.
      const events = [...few, serial(2 << 20), ...few, serial(300_000), mnemonic(150_000), ...few, serial(65_536)];
      const reader = recorded(events).read();
      expectSame(statedEvents(reader), events);
      reader.close();
    });

    it('keeps state digests at the boundary where they were taken, in order', () => {
      const store = makeStore();
      const writer = store.create(DESCRIPTION);
      writer.appendDigest('cpu', delta(1, 1));
      for (const stated of nestedEvents(CHUNK_EVENTS + 10)) writer.append(stated);
      const { end } = writer;
      writer.appendDigest('cpu', delta(1, 2));
      writer.appendDigest('ram', delta(1, 3));
      writer.finish();
      const reader = store.read();
      expect([...reader.digests()]).toEqual([
        { position: START, kind: 'cpu', value: delta(1, 1) },
        { position: end, kind: 'cpu', value: delta(1, 2) },
        { position: end, kind: 'ram', value: delta(1, 3) },
      ]);
      expect([...reader.digests('ram')].map(({ kind }) => kind)).toEqual(['ram']);
      const last = [...reader.records(end.seq - 1n)].at(-1);
      expect(last && boundaryAfter(last)).toEqual(end);
      reader.close();
    });

    it('keeps blobs once, by their digest', () => {
      const store = makeStore();
      const writer = store.create(DESCRIPTION);
      const image = new Uint8Array(100_000).map((_, index) => index * index);
      const digest = writer.putBlob(image);
      expect(writer.putBlob(image)).toBe(digest);
      const empty = writer.putBlob(new Uint8Array(0));
      writer.finish();
      const reader = store.read();
      expectSame(reader.blob(digest), image);
      expect(reader.blob(empty)).toEqual(new Uint8Array(0));
      expect(reader.blob('00'.repeat(32))).toBeUndefined();
      expect(reader.blobDigests()).toEqual([digest, empty].sort());
      reader.close();
    });

    it('keeps no content under the digest of another', () => {
      const writer = makeStore().create(DESCRIPTION);
      expect(() => {
        writer.putBlob(new Uint8Array(100), contentDigest(new Uint8Array(101)));
        writer.flush();
      }).toThrow(/digest/);
      try {
        writer.close();
      } catch {
        // A writer that has failed on its thread says so again.
      }
    });

    it('appends nothing of an event that cannot be kept', () => {
      const store = makeStore();
      const writer = store.create(DESCRIPTION);
      const [good] = [...nestedEvents(1)] as [StatedEvent];
      const bad = { ...good, event: { ...good.event, registers: undefined } } as unknown as StatedEvent;
      writer.append(good);
      expect(errorOf(() => writer.append(bad))).toMatchObject({ name: 'EncodingError' });
      writer.append(good);
      writer.finish();
      const reader = store.read();
      expect(statedEvents(reader)).toEqual([good, good]);
      reader.close();
    });

    it('refuses to overwrite a tape, to read one that is not there, and a second writer', () => {
      const store = makeStore();
      const refused = { name: 'TapeInputError', exitStatus: 2 };
      expect(errorOf(() => store.read())).toMatchObject(refused);
      expect(errorOf(() => store.continue())).toMatchObject(refused);
      const writer = store.create(DESCRIPTION);
      expect(errorOf(() => store.create(DESCRIPTION))).toMatchObject(refused);
      expect(errorOf(() => store.continue())).toMatchObject(refused);
      writer.finish();
      expect(errorOf(() => store.create(DESCRIPTION))).toMatchObject(refused);
    });
  });
}

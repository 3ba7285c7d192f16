import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../src/journal/memory-store.js';
import { globMatcher, openViews, selectRecords, VIEW_COLUMNS, vmcbWrites } from '../../src/journal/query.js';
import type { JournalReader } from '../../src/journal/store.js';
import type { StatedEvent } from '../../src/machine/events.js';
import { DESCRIPTION, delta, nestedEvents } from './support.js';

const INJECTED: StatedEvent = {
  ...{ retired: 0, vcpu: 1, level: 2 },
  event: { type: 'svm.injected', kind: 3, vector: 14, errorCode: null, registers: delta(0, 0) },
};
const CLOCK: StatedEvent = { retired: 0, vcpu: 0, level: 1, event: { type: 'input.clock', unixSeconds: 86400 } };
const SEED: StatedEvent = { retired: 0, vcpu: 0, level: 1, event: { type: 'input.entropy', seed: 2n ** 64n - 1n } };

function tape(): JournalReader {
  const store = memoryStore();
  const writer = store.create(DESCRIPTION);
  for (const stated of [CLOCK, SEED, ...nestedEvents(400), INJECTED]) writer.append(stated);
  writer.finish();
  return store.read();
}

const types = (records: Iterable<{ event: { type: string } }>) => [
  ...new Set([...records].map(({ event }) => event.type)),
];

describe('selecting records', () => {
  it('goes by kind, level and range, alone and together', () => {
    const reader = tape();
    const count = (filter: Parameters<typeof selectRecords>[1]) => [...selectRecords(reader, filter)].length;
    expect(count({})).toBe(403);
    expect(types(selectRecords(reader, { kind: 'svm.*' }))).toEqual(['svm.vmexit', 'svm.vmrun', 'svm.injected']);
    expect(types(selectRecords(reader, { kind: 'svm.vm*', level: 1 }))).toEqual(['svm.vmrun']);
    expect(count({ kind: 'cpu.ran' })).toBe(200);
    expect(count({ level: 2 })).toBe(201);
    expect(count({ fromSeq: 400n })).toBe(3);
    expect(count({ fromSeq: 2n, toSeq: 6n })).toBe(4);
    expect(count({ fromSeq: 2n, toSeq: 6n, kind: 'svm.vmexit', level: 2 })).toBe(1);
  });

  it('takes * and ? in kinds and nothing else', () => {
    expect(globMatcher('svm.vm*')('svm.vmexit')).toBe(true);
    expect(globMatcher('svm?vmrun')('svm.vmrun')).toBe(true);
    expect(globMatcher('svm.vm')('svm.vmrun')).toBe(false);
    expect(globMatcher('svm.vmrun')('svmxvmrun')).toBe(false);
    expect(globMatcher('*ran')('cpu.ran')).toBe(true);
    expect(globMatcher('[a-z]*')('cpu.ran')).toBe(false);
  });

  it('reads the words of a VMCB delta', () => {
    const words = new Uint8Array(20);
    const view = new DataView(words.buffer);
    view.setUint16(0, 0xaf, true);
    view.setBigUint64(2, 2n ** 64n - 1n, true);
    view.setUint16(10, 0x1ff, true);
    view.setBigUint64(12, 5n, true);
    expect([...vmcbWrites(words)]).toEqual([
      { offset: 0x578, value: 2n ** 64n - 1n },
      { offset: 0xff8, value: 5n },
    ]);
  });
});

describe('the views of a tape', () => {
  const query = (sql: string): unknown[] => {
    const database = openViews(tape());
    const rows = database.prepare(sql).all();
    database.close();
    return rows;
  };

  it('are what VIEW_COLUMNS lists', () => {
    for (const [view, columns] of Object.entries(VIEW_COLUMNS)) {
      const [row] = query(`SELECT * FROM ${view}`);
      expect(Object.keys(row as object)).toEqual(columns);
    }
    expect(Object.keys(VIEW_COLUMNS)).toEqual(['events', 'exits', 'injections', 'inputs', 'vmcb_writes']);
  });

  it('can be counted, grouped and joined', () => {
    expect(query('SELECT count(*) AS events, sum(retired) > 0 AS ran FROM events')).toEqual([{ events: 403, ran: 1 }]);
    expect(query('SELECT code, count(*) AS exits FROM exits GROUP BY code ORDER BY code LIMIT 2')).toEqual([
      { code: 0x70, exits: 14 },
      { code: 0x71, exits: 15 },
    ]);
    expect(
      query('SELECT count(*) AS n FROM exits JOIN vmcb_writes w USING (seq) WHERE w."offset" = 0x70 AND value = code'),
    ).toEqual([{ n: 100 }]);
  });

  it('show events with their place and payload, 64-bit values exact', () => {
    expect(query("SELECT * FROM inputs WHERE kind = 'input.entropy'")).toEqual([
      { seq: 1, icount: 0, vcpu: 0, kind: 'input.entropy', payload: '{"seed":"0xffffffffffffffff"}' },
    ]);
    expect(query('SELECT vcpu, kind, vector, error_code FROM injections')).toEqual([
      { vcpu: 1, kind: 3, vector: 14, error_code: null },
    ]);
    expect(query('SELECT info2 FROM exits LIMIT 1')).toEqual([{ info2: -(2 ** 47) }]);
    const [event] = query('SELECT level, retired, payload FROM events WHERE seq = 2') as { payload: string }[];
    expect(JSON.parse(event?.payload ?? '')).toEqual({ registers: Buffer.from(delta(4, 0)).toString('hex') });
  });

  it('can be read in part', () => {
    expect(query('SELECT min(seq) AS first, max(seq) AS last FROM events(100, 200)')).toEqual([
      { first: 100, last: 199 },
    ]);
    expect(query('SELECT count(*) AS n FROM exits(0, 10)')).toEqual([{ n: 2 }]);
    expect(query('SELECT min(seq) AS first FROM events(400)')).toEqual([{ first: 400 }]);
  });
});

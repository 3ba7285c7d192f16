import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../src/journal/memory-store.js';
import { globMatcher, RecordSource, selectRecords } from '../../src/journal/query.js';
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

  it('goes by instruction count, alone and with event numbers', () => {
    const reader = tape();
    const all = [...reader.records()];
    const at = (filter: Parameters<typeof selectRecords>[1]) => [...selectRecords(reader, filter)];
    const middle = all[200]?.position.icount ?? 0n;
    expect(at({ fromIcount: middle })).toEqual(all.filter(({ position }) => position.icount >= middle));
    expect(at({ toIcount: middle })).toEqual(all.filter(({ position }) => position.icount < middle));
    expect(at({ fromIcount: middle, toIcount: middle + 1n, fromSeq: 200n })).toEqual(
      all.filter(({ position: { icount, seq } }) => icount === middle && seq >= 200n),
    );
    expect(at({ fromIcount: 2n ** 60n })).toEqual([]);
  });

  it('comes back to places it has read', () => {
    const source = new RecordSource(tape());
    const at = (seq: bigint) =>
      [...source.select({ fromSeq: seq, toSeq: seq + 2n })].map(({ position }) => position.seq);
    expect([at(7n), at(399n), at(7n), at(402n), at(403n)]).toEqual([[7n, 8n], [399n, 400n], [7n, 8n], [402n], []]);
  });
});

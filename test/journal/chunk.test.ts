import { describe, expect, it } from 'vitest';
import {
  CHUNK_BYTES,
  CHUNK_EVENTS,
  ChunkEncoder,
  chunkDigest,
  compress,
  decompress,
  endOf,
  recordsOf,
} from '../../src/journal/chunk.js';
import { START } from '../../src/journal/record.js';
import { EVENT_FIELDS, type StatedEvent } from '../../src/machine/events.js';
import { delta, expectSame, nestedEvents, toStated } from './support.js';

const ran = (retired: number): StatedEvent => ({
  ...{ retired, vcpu: 0, level: 1 },
  event: { type: 'cpu.ran', registers: delta(1, 0) },
});

describe('a chunk', () => {
  it('ends after a number of events or of bytes, whichever comes first', () => {
    const few = new ChunkEncoder();
    for (let count = 1; count < CHUNK_EVENTS; count++) expect(few.append(ran(1))).toBe(false);
    expect(few.append(ran(1))).toBe(true);
    const large = new ChunkEncoder();
    const serial: StatedEvent = {
      ...{ retired: 0, vcpu: 0, level: 1 },
      event: { type: 'input.serial', data: new Uint8Array(CHUNK_BYTES / 2) },
    };
    expect(large.append(serial)).toBe(false);
    expect(large.append(serial)).toBe(true);
  });

  it('knows its boundaries, exactly even beyond 2^53 instructions', () => {
    const encoder = new ChunkEncoder(EVENT_FIELDS, 5, { icount: 2n ** 60n + 1n, seq: 7n });
    for (const retired of [Number.MAX_SAFE_INTEGER, 1, Number.MAX_SAFE_INTEGER, 3]) encoder.append(ran(retired));
    const end = { icount: 2n ** 60n + 1n + 2n * (2n ** 53n - 1n) + 4n, seq: 11n };
    expect(encoder.end).toEqual(end);
    expect(endOf(encoder.chunk.start, encoder.chunk.raw, EVENT_FIELDS)).toEqual(end);
    expect([...recordsOf(encoder.chunk, EVENT_FIELDS)].at(-1)?.position).toEqual({ ...end, seq: 10n });
    encoder.next();
    expect(encoder.chunk).toMatchObject({ index: 6, start: end, end });
    expect(encoder.empty).toBe(true);
  });

  it('goes on where another encoder stopped', () => {
    const events = [...nestedEvents(50)];
    const [whole, first] = [new ChunkEncoder(), new ChunkEncoder()];
    for (const stated of events) whole.append(stated);
    for (const stated of events.slice(0, 20)) first.append(stated);
    const second = ChunkEncoder.after(first.chunk, EVENT_FIELDS);
    for (const stated of events.slice(20)) second.append(stated);
    expectSame(second.chunk, whole.chunk);
    expectSame([...recordsOf(second.chunk, EVENT_FIELDS)].map(toStated), events);
  });

  it('begins the next one after a full chunk', () => {
    const full = new ChunkEncoder();
    for (let count = 0; count < CHUNK_EVENTS; count++) full.append(ran(2));
    const after = ChunkEncoder.after(full.chunk, EVENT_FIELDS);
    expect(after.chunk).toMatchObject({ index: 1, start: full.end });
    expect(ChunkEncoder.after(undefined, EVENT_FIELDS).end).toEqual(START);
  });

  it('has a digest over all that it says and holds', () => {
    const encoder = new ChunkEncoder();
    for (const stated of nestedEvents(10)) encoder.append(stated);
    const { chunk } = encoder;
    const variants = [
      chunk,
      { ...chunk, index: 1 },
      { ...chunk, start: { ...START, seq: 1n } },
      { ...chunk, start: { ...START, icount: 1n } },
      { ...chunk, end: START },
      { ...chunk, codecVersion: 2 },
      { ...chunk, raw: chunk.raw.slice(1) },
    ];
    const digests = variants.map((variant) => Buffer.from(chunkDigest(variant)).toString('hex'));
    expect(new Set(digests).size).toBe(variants.length);
    expect(chunkDigest(chunk)).toEqual(chunkDigest({ ...chunk, raw: chunk.raw.slice() }));
  });

  it('takes at most 64 bytes of tape for a nested exit', () => {
    const encoder = new ChunkEncoder();
    for (const stated of nestedEvents(CHUNK_EVENTS)) encoder.append(stated);
    const { raw } = encoder.chunk;
    const compressed = compress(raw);
    expect(compressed.length / (CHUNK_EVENTS / 4)).toBeLessThan(64);
    expectSame(decompress(compressed, raw.length), raw.slice());
    expect(() => decompress(compressed, raw.length - 1)).toThrow();
  });
});

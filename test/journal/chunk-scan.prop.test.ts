import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ChunkEncoder } from '../../src/journal/chunk.js';
import { ChunkScan } from '../../src/journal/chunk-scan.js';
import { EncodingError } from '../../src/journal/codec.js';
import { EVENT_FIELDS, type EventType, type MachineEvent, type StatedEvent } from '../../src/machine/events.js';

const refuse = (cause: EncodingError): never => {
  throw cause;
};
const field = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger().map((value) => value + 0),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.string({ unit: 'grapheme', maxLength: 300 }),
    fc.uint8Array({ maxLength: 400 }),
    fc.array(tie('value'), { maxLength: 20 }),
  ),
})).value;
const anyEvent = fc
  .constantFrom(...(Object.keys(EVENT_FIELDS) as EventType[]))
  .chain((type) =>
    fc
      .record(Object.fromEntries(EVENT_FIELDS[type].map((name) => [name, field])))
      .map((fields) => ({ type, ...fields })),
  );
const stated: fc.Arbitrary<StatedEvent> = fc.record({
  retired: fc.oneof(fc.nat(300), fc.maxSafeInteger().map(Math.abs)),
  vcpu: fc.nat(300),
  level: fc.constantFrom<1 | 2>(1, 2),
  event: anyEvent as unknown as fc.Arbitrary<MachineEvent>,
});

const chunkOf = (events: readonly StatedEvent[]) => {
  const encoder = new ChunkEncoder();
  for (const each of events) encoder.append(each);
  const { chunk } = encoder;
  return { ...chunk, raw: chunk.raw.slice() };
};

describe('stepping over the events of a chunk', () => {
  it('finds each event with its envelope and place, and decodes it as it was', () => {
    fc.assert(
      fc.property(fc.array(stated, { maxLength: 30 }), (events) => {
        const scan = new ChunkScan(chunkOf(events), EVENT_FIELDS, refuse);
        let icount = 0n;
        for (const [index, expected] of events.entries()) {
          expect(scan.next()).toBe(true);
          icount += BigInt(expected.retired);
          const { type, retired, vcpu, level } = scan;
          expect({ type, retired, vcpu, level }).toEqual({ ...expected, event: undefined, type: expected.event.type });
          expect(scan.record).toEqual({ ...expected, position: { icount, seq: BigInt(index) } });
        }
        expect(scan.next()).toBe(false);
        expect(scan.next()).toBe(false);
      }),
    );
  });

  it('says of damaged bytes that they are no events, or passes over them, and always ends', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (raw) => {
        const start = { icount: 0n, seq: 0n };
        const scan = new ChunkScan({ index: 0, start, end: start, codecVersion: 1, raw }, EVENT_FIELDS, refuse);
        try {
          for (let steps = 0; scan.next(); steps++) expect(steps).toBeLessThan(raw.length);
        } catch (error) {
          expect(error).toBeInstanceOf(EncodingError);
        }
      }),
    );
  });
});

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chunkData, chunkEvents } from '../../src/journal/chunk-data.js';
import { EventEncoder, type FieldValue } from '../../src/journal/codec.js';
import { pack } from '../../src/journal/packing.js';
import { sqliteStore } from '../../src/journal/sqlite-store.js';
import { unpack } from '../../src/journal/unpacking.js';
import { verifyTape } from '../../src/journal/verify.js';
import { EVENT_FIELDS, type StatedEvent } from '../../src/machine/events.js';
import { unpackPlainly } from './plain-unpacker.js';
import { nestedEvents, temporaryDirectory } from './support.js';

const TABLE = Object.entries(EVENT_FIELDS);
const LISTS = new Map([
  ['registers', 1],
  ['changes', 1],
  ['words', 2],
  ['ignored', 2],
]);

/** Few ids and few values: what is predicted from what must come about. */
const number64 = fc.oneof(
  fc.constantFrom(0n, 1n, 0x1000n, 0x1008n, 0xffff_ffffn, 0x1_0000_0000n, 2n ** 63n, 2n ** 64n - 1n),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);
const list = (idBytes: number): fc.Arbitrary<Uint8Array> =>
  fc
    .uniqueArray(fc.tuple(fc.oneof(fc.nat(6), fc.constant(16), fc.nat(255)), number64), {
      selector: ([id]) => id,
      maxLength: 40,
    })
    .map((items) => {
      const bytes = new Uint8Array(items.length * (idBytes + 8));
      const view = new DataView(bytes.buffer);
      for (const [index, [id, value]] of items.sort(([a], [b]) => a - b).entries()) {
        const at = index * (idBytes + 8);
        if (idBytes === 1) view.setUint8(at, id);
        else view.setUint16(at, id, true);
        view.setBigUint64(at + idBytes, value, true);
      }
      return bytes;
    });
const field: fc.Arbitrary<FieldValue> = fc.oneof(
  fc.constantFrom<FieldValue>(null, true, false, 'external', 0, -1, 127, 128, -33, 2 ** 32, -(2 ** 40), 0x1000),
  fc.maxSafeInteger().map((number) => number + 0),
  number64,
  fc.string({ maxLength: 40 }),
  fc.uint8Array({ maxLength: 300 }),
  fc.array(fc.nat(), { maxLength: 15 }),
);
const event: fc.Arbitrary<StatedEvent> = fc.constantFrom(...TABLE.slice(0, 16)).chain(([type, fields]) =>
  fc.record({
    retired: fc.oneof(fc.nat(3), fc.maxSafeInteger().map(Math.abs)),
    vcpu: fc.nat(1),
    level: fc.constantFrom(1, 2),
    event: fc
      .record(
        Object.fromEntries(fields.map((name) => [name, LISTS.has(name) ? list(LISTS.get(name) as number) : field])),
        { noNullPrototype: true },
      )
      .map((values) => ({ type, ...values })),
  }),
) as fc.Arbitrary<StatedEvent>;

function encoded(events: Iterable<StatedEvent>): Uint8Array {
  const encoder = new EventEncoder();
  for (const stated of events) encoder.encode(stated);
  return encoder.bytes.slice();
}

const OLD_TAPE = fileURLToPath(new URL('../fixtures/exits-format-1.vmtape', import.meta.url));

const TYPES = Object.keys(EVENT_FIELDS);

describe('packing', () => {
  it('unpacks to the same bytes, by the journal and by the description of the format', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 12 }), fc.nat(3), (events, times) => {
        // What comes again is what is predicted.
        const raw = encoded(Array.from({ length: times + 1 }, () => events).flat());
        const packed = pack(raw, EVENT_FIELDS) as Uint8Array;
        expect(packed).toBeDefined();
        const kinds = new Set<number>();
        expect(Buffer.compare(unpack(packed, raw.length, EVENT_FIELDS, kinds), raw)).toBe(0);
        expect([...kinds].map((kind) => TYPES[kind])).toEqual([...new Set(events.map(({ event: { type } }) => type))]);
        expect(Buffer.compare(unpackPlainly(Buffer.from(packed), TABLE), raw)).toBe(0);
      }),
      { numRuns: 300 },
    );
  });

  it('leaves alone what is no event as an encoder writes it', () => {
    const raw = encoded(nestedEvents(8));
    const long = Uint8Array.of(...raw.subarray(0, 1), 0xcc, raw[1] as number, ...raw.subarray(2));
    for (const bytes of [long, raw.subarray(0, raw.length - 3), Uint8Array.of(0xc1), Uint8Array.of(0x93, 0xff, 0, 0)]) {
      expect(pack(bytes, EVENT_FIELDS)).toBeUndefined();
      const tape = { formatVersion: 3, events: EVENT_FIELDS };
      expect(Buffer.compare(chunkEvents(chunkData(bytes, tape), bytes.length, tape), bytes)).toBe(0);
    }
  });

  it('refuses packed bytes that were damaged, or unpacks them to others', () => {
    const raw = encoded(nestedEvents(40));
    const packed = pack(raw, EVENT_FIELDS) as Uint8Array;
    for (let at = 0; at < packed.length; at++) {
      const damaged = packed.slice();
      damaged[at] = (damaged[at] as number) ^ 0x15;
      try {
        unpack(damaged, raw.length, EVENT_FIELDS);
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError);
      }
    }
    expect(() => unpack(packed, raw.length - 1, EVENT_FIELDS)).toThrow(RangeError);
    expect(() => unpack(packed, raw.length + 1, EVENT_FIELDS)).toThrow(RangeError);
  });

  it('takes at most 8 bytes of tape for an exit that comes again with other values', () => {
    const exits = 1024;
    const session = function* (): Generator<StatedEvent> {
      for (let count = 0; count < exits; count++) yield* exitWith(BigInt(count));
    };
    const raw = encoded(session());
    const data = chunkData(raw, { formatVersion: 3, events: EVENT_FIELDS });
    expect(raw.length / exits).toBeGreaterThan(100);
    expect(data.length / exits).toBeLessThan(8);
  });
});

/** A loop in L2 with a counter, and its exit. */
function* exitWith(count: bigint): Generator<StatedEvent> {
  const registers = (...values: readonly (readonly [number, bigint])[]): Uint8Array => {
    const bytes = new Uint8Array(9 * values.length);
    const view = new DataView(bytes.buffer);
    for (const [index, [slot, value]] of values.entries()) {
      view.setUint8(9 * index, slot);
      view.setBigUint64(9 * index + 1, value, true);
    }
    return bytes;
  };
  const words = Uint8Array.of(0xaf, 0, 0x20, 0x10, 0, 0, 0, 0, 0, 0);
  const flags = (count * 0x9e37_79b9n) & 4n;
  yield {
    retired: 3,
    vcpu: 0,
    level: 2,
    event: { type: 'cpu.ran', registers: registers([8, count], [16, 0x1000n], [17, 2n | flags]) },
  };
  yield {
    ...{ retired: 0, vcpu: 0, level: 2 },
    event: {
      ...{ type: 'svm.vmexit', vmcb: 0x7000, code: 0x72n, info1: 0n, info2: 0n, intInfo: 0n, words },
      registers: registers([0, 0x7000n], [4, 0x9000n], [16, 0x2000n], [17, 6n]),
    },
  };
  yield { retired: 5, vcpu: 0, level: 1, event: { type: 'cpu.ran', registers: registers([6, count], [16, 0x2010n]) } };
  yield {
    ...{ retired: 1, vcpu: 0, level: 1 },
    event: {
      type: 'svm.vmrun',
      vmcb: 0x7000,
      asid: 1,
      words,
      registers: registers([0, 0n], [4, 0x6000n], [16, 0x1002n]),
    },
  };
}

describe('a tape of format 1', () => {
  const copy = (): string => {
    const file = join(temporaryDirectory(), 'old.vmtape');
    writeFileSync(file, readFileSync(OLD_TAPE));
    return file;
  };

  it('is read', () => {
    const file = copy();
    expect(verifyTape(file)).toMatchObject({ damage: [] });
    const reader = sqliteStore(file).read();
    expect(reader.header.formatVersion).toBe(1);
    expect([...reader.records()].length).toBe(152);
    reader.close();
  });

  it('is continued in its own format', () => {
    const file = copy();
    const before = sqliteStore(file).read();
    const old = [...before.records()].length;
    before.close();
    const writer = sqliteStore(file, { thread: false }).continue();
    for (const stated of nestedEvents(5000)) writer.append(stated);
    writer.finish();
    expect(verifyTape(file)).toMatchObject({ damage: [] });
    const after = sqliteStore(file).read();
    expect([...after.records()].length).toBe(old + 5000);
    after.close();
    const database = new Database(file, { readonly: true });
    expect(database.pragma('user_version', { simple: true })).toBe(1);
    database.close();
  });
});

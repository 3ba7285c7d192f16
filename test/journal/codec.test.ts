import { Packr, Unpackr } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { EncodingError, EventDecoder, EventEncoder, encodeEvent, type FieldValue } from '../../src/journal/codec.js';
import { EVENT_FIELDS, type StatedEvent } from '../../src/machine/events.js';
import { delta, errorOf, expectSame } from './support.js';

const TABLE = { 'test.value': ['value'], 'test.pair': ['first', 'second'] };
const valued = (value: unknown): StatedEvent =>
  ({ retired: 0, vcpu: 0, level: 1, event: { type: 'test.value', value } }) as unknown as StatedEvent;
const encode = (value: unknown): Uint8Array => encodeEvent(valued(value), TABLE);
const decode = (bytes: Uint8Array): unknown => {
  const [stated] = new EventDecoder(TABLE, 1).decode(bytes);
  return (stated?.event as { value?: unknown } | undefined)?.value;
};

const NUMBERS = [
  ...[0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER],
  ...[-1, -32, -33, -128, -129, -32768, -32769, -0x8000_0000, -0x8000_0001, Number.MIN_SAFE_INTEGER],
];
const STRINGS = [
  '',
  'a',
  'x'.repeat(31),
  'x'.repeat(32),
  'é',
  'é'.repeat(15),
  'é'.repeat(16),
  '日本',
  '😀'.repeat(200),
];

describe('the codec', () => {
  const values: FieldValue[] = [
    ...[null, true, false],
    ...NUMBERS,
    ...[0n, 1n, 255n, 2n ** 32n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n],
    ...STRINGS,
    'y'.repeat(70_000),
    ...[0, 1, 48, 49, 255, 256, 70_000].map((length) => new Uint8Array(length).fill(length)),
    [],
    [1, 2n, 'three', [null, [new Uint8Array(3)]]],
    Array.from({ length: 70_000 }, (_, index) => index),
  ];
  for (const [index, value] of values.entries()) {
    it(`gives back exactly what it was given: value ${index}, ${typeof value}`, () => {
      const back = decode(encode(value));
      expectSame(back, value);
      expect(typeof back).toBe(typeof value);
    });
  }

  it('writes the very bytes that msgpackr writes, bigints aside', () => {
    const packr = new Packr({ useRecords: false });
    for (const value of [...NUMBERS, ...STRINGS, null, true, [1, [2]]]) {
      expect(Buffer.from(encode(value)).toString('hex')).toBe(packr.pack([0, 0, 0, value]).toString('hex'));
    }
  });

  it('writes kind, retired, vCPU and level, then the fields in the order of the table', () => {
    const stated: StatedEvent = {
      ...{ retired: 1000, vcpu: 3, level: 2 },
      event: { type: 'svm.injected', registers: delta(1, 5), vector: 14, kind: 3, errorCode: null },
    };
    const kind = Object.keys(EVENT_FIELDS).indexOf('svm.injected');
    const tuple = new Unpackr({ useRecords: false }).unpack(encodeEvent(stated)) as unknown[];
    expect(tuple.slice(0, 6)).toEqual([kind, 1000, 7, 3, 14, null]);
    expect(new EventDecoder(EVENT_FIELDS, 1).decode(encodeEvent(stated))).toEqual([stated]);
  });

  it('gives the same bytes for an event whatever came before it', () => {
    const encoder = new EventEncoder(TABLE);
    encoder.encode(valued('something else'));
    encoder.encode(valued([1, 2, 3]));
    const before = encoder.length;
    encoder.encode(valued(42n));
    expect(encoder.bytes.slice(before)).toEqual(encode(42n));
  });

  it('keeps what it has when its memory grows', () => {
    const encoder = new EventEncoder(TABLE);
    const large = new Uint8Array(100_000).fill(7);
    for (let count = 0; count < 5; count++) encoder.encode(valued(large));
    const events = new EventDecoder(TABLE, 1).decode(encoder.bytes);
    expect(events).toHaveLength(5);
    for (const stated of events) expectSame(stated, valued(large));
  });

  it('needs no more memory than it has asked for, whatever field follows a long one', () => {
    // The memory ends right behind the first field: each further field must ask for its own room.
    for (let length = 65_500; length < 65_540; length++) {
      const stated = {
        ...{ retired: 0, vcpu: 0, level: 1 },
        event: { type: 'test.pair', first: new Uint8Array(length), second: 2n ** 64n - 1n },
      } as unknown as StatedEvent;
      expectSame(new EventDecoder(TABLE, 1).decode(encodeEvent(stated, TABLE)), [stated]);
    }
  });

  it.each([
    ['an undefined', undefined],
    ['an object', { a: 1 }],
    ['a fraction', 0.5],
    ['not a number', Number.NaN],
    ['a number that is no exact integer', 2 ** 53],
    ['a negative bigint', -1n],
    ['a bigint of 65 bits', 2n ** 64n],
    ['half a surrogate pair', '\ud800'],
  ])('refuses %s', (_, value) => {
    expect(() => encode(value)).toThrow(EncodingError);
  });

  it('refuses an event that the table does not have, or that retires a negative count', () => {
    expect(() => encodeEvent(valued(1))).toThrow(EncodingError);
    expect(() => encodeEvent({ ...valued(1), retired: -1 }, TABLE)).toThrow(EncodingError);
    expect(() => encodeEvent({ ...valued(1), retired: 1.5 }, TABLE)).toThrow(EncodingError);
  });

  it('refuses bytes that are no events', () => {
    const decoder = new EventDecoder(TABLE, 1);
    for (const bytes of [[0xc1], [0x94, 0, 0], [0x05], [0x93, 9, 0, 0], [0x93, 0, 0, 0]]) {
      expect(errorOf(() => decoder.decode(new Uint8Array(bytes)))).toBeInstanceOf(EncodingError);
    }
  });
});

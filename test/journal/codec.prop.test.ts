import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventDecoder, EventEncoder, type FieldValue } from '../../src/journal/codec.js';
import { EVENT_FIELDS, type StatedEvent } from '../../src/machine/events.js';

const value: fc.Arbitrary<FieldValue> = fc.letrec<{ value: FieldValue }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger().map((number) => number + 0),
    fc.integer(),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.string({ unit: 'binary' }),
    fc.string({ minLength: 20, maxLength: 300 }),
    fc.uint8Array({ maxLength: 300 }),
    fc.array(tie('value'), { maxLength: 20 }),
  ),
})).value;

const event: fc.Arbitrary<StatedEvent> = fc
  .constantFrom(...Object.entries(EVENT_FIELDS))
  .chain(([type, fields]) =>
    fc
      .record(Object.fromEntries(fields.map((field) => [field, value])), { noNullPrototype: true })
      .map((values) => ({ type, ...values })),
  )
  .chain((stated) =>
    fc.record(
      {
        retired: fc.oneof(fc.nat(), fc.maxSafeInteger().map(Math.abs)),
        vcpu: fc.nat({ max: 1000 }),
        level: fc.constantFrom(1, 2),
        event: fc.constant(stated),
      },
      { noNullPrototype: true },
    ),
  ) as fc.Arbitrary<StatedEvent>;

describe('the codec', () => {
  it('decodes what it encoded: any events, one after the other', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 20 }), (events) => {
        const encoder = new EventEncoder();
        for (const stated of events) encoder.encode(stated);
        expect(new EventDecoder(EVENT_FIELDS, 1).decode(encoder.bytes)).toStrictEqual(events);
      }),
      { numRuns: 300 },
    );
  });
});

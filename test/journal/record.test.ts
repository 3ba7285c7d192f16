import { describe, expect, it } from 'vitest';
import { boundaryAfter, comparePositions, formatPosition, parsePosition, START } from '../../src/journal/record.js';

describe('a position', () => {
  it('is written icount:seq, and read back exactly, beyond doubles too', () => {
    const position = { icount: 2n ** 63n + 1n, seq: 2n ** 53n + 1n };
    expect(formatPosition(position)).toBe('9223372036854775809:9007199254740993');
    expect(parsePosition(formatPosition(position))).toEqual(position);
    expect(parsePosition('0:0')).toEqual(START);
  });

  it.each([
    '',
    '1',
    ':',
    '1:',
    ':1',
    '1:2:3',
    '-1:0',
    '1.5:0',
    '0x1:0',
    ' 1:0',
    '1:0\n',
    '1e3:0',
    '123456789012345678901:0',
  ])('is not %j', (text) => {
    expect(parsePosition(text)).toBeUndefined();
  });

  it('sorts by its place among the events', () => {
    const positions = [3n, 1n, 2n].map((seq) => ({ icount: 5n, seq }));
    expect(positions.sort(comparePositions).map(({ seq }) => seq)).toEqual([1n, 2n, 3n]);
    expect(comparePositions(START, START)).toBe(0);
  });

  it('of a record is followed by the boundary after it', () => {
    const record = {
      ...{ retired: 4, vcpu: 0, level: 1 as const, position: { icount: 4n, seq: 0n } },
      event: { type: 'input.clock' as const, unixSeconds: 0 },
    };
    expect(boundaryAfter(record)).toEqual({ icount: 4n, seq: 1n });
  });
});

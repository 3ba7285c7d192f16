import { describe, expect, it } from 'vitest';
import {
  parseClock,
  parseCount,
  parseLevel,
  parseMemoryRange,
  parseSize,
  parseU64,
} from '../../tools/cli/arguments.js';
import { byteSize, grouped, pad, plural, table } from '../../tools/cli/format.js';
import { segmentText } from '../../tools/cli/machine-view.js';

describe('words of the command line', () => {
  it.each([
    ['0', 0],
    ['4096', 4096],
    ['0x1000', 4096],
    ['64K', 65536],
    ['256M', 268435456],
    ['3g', 3221225472],
  ])('size %s is %i bytes', (text, bytes) => {
    expect(parseSize(text, '--memory')).toBe(bytes);
  });

  it.each(['', 'K', '1T', '-1', '1.5M', '1 M', '0x', '9999999999999999'])('size %j is refused', (text) => {
    expect(() => parseSize(text, '--memory')).toThrow('--memory');
  });

  it.each([
    ['1_000_000', 1_000_000],
    ['7', 7],
  ])('count %s is %i', (text, count) => {
    expect(parseCount(text, '--limit', 1)).toBe(count);
  });

  it.each(['0', '-1', '1e3', '', '9007199254740992'])('count %j is refused when it must be 1 at least', (text) => {
    expect(() => parseCount(text, '--limit', 1)).toThrow('--limit');
  });

  it('64-bit numbers are decimal or hexadecimal', () => {
    expect(parseU64('18446744073709551615', '--seed')).toBe(2n ** 64n - 1n);
    expect(parseU64('0xFF', '--seed')).toBe(255n);
    expect(() => parseU64('18446744073709551616', '--seed')).toThrow('no 64-bit number');
  });

  it.each([
    ['1970-01-01', 0],
    ['2026-01-31T12:00:00Z', 1769860800],
    ['2026-01-31T12:00:00', 1769860800],
    ['2026-01-31T14:00+02:00', 1769860800],
  ])('time %s is %i s since 1970, whatever the zone of the host', (text, seconds) => {
    expect(parseClock(text)).toBe(seconds);
  });

  it.each(['now', '2026-13-01', '1969-12-31', '31.1.2026'])('time %j is refused', (text) => {
    expect(() => parseClock(text)).toThrow('--clock');
  });

  it('memory ranges are linear unless they say otherwise', () => {
    expect(parseMemoryRange('0xffff800000000000,1K')).toEqual({
      space: 'linear',
      address: 0xffff800000000000n,
      length: 1024,
    });
    expect(parseMemoryRange('phys:4096,16')).toEqual({ space: 'physical', address: 4096n, length: 16 });
    for (const text of ['1', '1,', '1,0', 'gpa:1,2', '1,2G']) expect(() => parseMemoryRange(text)).toThrow('--memory');
  });

  it('levels are L1 and L2', () => {
    expect([parseLevel('L1'), parseLevel('l2')]).toEqual([1, 2]);
    expect(() => parseLevel('L0')).toThrow('--level');
  });
});

describe('words for people', () => {
  it('group digits, count things, and name sizes', () => {
    expect([grouped(0), grouped(999), grouped(1234567n)]).toEqual(['0', '999', '1,234,567']);
    expect([plural(1, 'event'), plural(1000n, 'event')]).toEqual(['1 event', '1,000 events']);
    expect([byteSize(12), byteSize(1536), byteSize(3 * 2 ** 30)]).toEqual(['12 bytes', '1.5 KiB', '3.0 GiB']);
  });

  it('stand in columns, whatever their colours', () => {
    expect(pad('\u001b[31mred\u001b[39m', 5)).toBe('\u001b[31mred\u001b[39m  ');
    expect(
      table(
        [
          ['a', '10'],
          ['bcd', '9'],
        ],
        ['left', 'right'],
        '> ',
      ),
    ).toEqual(['> a    10', '> bcd   9']);
  });

  it.each([
    ['cs', 0xffff_ffff_0a9b_0008n, '0008 base 0 limit ffffffff 64-bit code ring 0'],
    ['cs', 0xffff_ffff_0c9b_0008n, '0008 base 0 limit ffffffff 32-bit code ring 0'],
    ['ds', 0xffff_ffff_0cf3_002bn, '002b base 0 limit ffffffff data read-write ring 3'],
    ['fs', 0n, '0000 base 0 limit 0 null'],
    ['tr', 0x0000_0067_008b_0040n, '0040 base 0 limit 67 busy TSS'],
  ])('decode segment %s = %x', (name, word, text) => {
    expect(segmentText(name, word, 0n)).toBe(text);
  });
});

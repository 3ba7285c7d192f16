/** What a soak finds wrong, and what not. */
import { describe, expect, it } from 'vitest';
import { findingsOf, type SoakSample, soakBench, soakLines } from '../../../tools/bench/soak.js';

const MEBIBYTE = 1024 * 1024;

/** A hundred samples, with what is another in some. */
const samples = (other: (index: number) => Partial<SoakSample>): readonly SoakSample[] =>
  Array.from({ length: 100 }, (_, index) => ({
    ...{ instructions: 1e9, seconds: 2, cpuSeconds: 1 + (index % 3) / 100, rssBytes: 200 * MEBIBYTE },
    ...{ heapBytes: 40 * MEBIBYTE, regions: 12, tableUsed: 340, codeCacheBytes: MEBIBYTE },
    ...other(index),
  }));

const broken = (other: (index: number) => Partial<SoakSample>): readonly string[] =>
  findingsOf(samples(other)).flatMap(({ what, broken: isBroken }) => (isBroken ? [what] : []));

describe('a soak', () => {
  it('finds nothing in a steady session, however slow it began and however busy its host became', () => {
    expect(broken(() => ({}))).toEqual([]);
    expect(broken((index) => (index < 15 ? { cpuSeconds: 20, rssBytes: MEBIBYTE, regions: 0 } : {}))).toEqual([]);
    expect(broken((index) => (index > 60 ? { seconds: 9 } : {}))).toEqual([]);
    expect(broken((index) => ({ regions: 3 + Math.round(4 * Math.log2(1 + index)) }))).toEqual([]);
  });

  it.each<readonly [string, (index: number) => Partial<SoakSample>]>([
    ['processor ns an instruction', (index) => ({ cpuSeconds: 1 + 0.0015 * index })],
    ['resident bytes', (index) => ({ rssBytes: (200 + index) * MEBIBYTE })],
    ['heap bytes', (index) => ({ heapBytes: (40 + index / 2) * MEBIBYTE })],
    ['regions', (index) => ({ regions: 12 + 2 * index })],
    ['places of the table', (index) => ({ tableUsed: 340 + 2 * index })],
  ])('finds growing %s', (what, other) => {
    expect(broken(other)).toEqual([what]);
    const lines = soakLines({
      guest: 'g',
      instructions: 1,
      exits: 0,
      tapeBytes: 0,
      findings: findingsOf(samples(other)),
    });
    expect(lines.filter((line) => line.endsWith('BROKEN'))).toEqual([expect.stringContaining(what)]);
  });

  it('refuses to judge by few samples, and guests that are none', async () => {
    expect(() => findingsOf(samples(() => ({})).slice(0, 5))).toThrow('5 samples are too few to compare');
    await expect(soakBench(['--guests', 'steam'])).rejects.toThrow('no guest of the benches');
    await expect(soakBench(['--minutes', '0'])).rejects.toThrow('--minutes');
  });
});

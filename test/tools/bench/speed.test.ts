/** The speed bench's tables and picture, of given figures: times themselves are no test's business. */
import { describe, expect, it } from 'vitest';
import { speedBench, speedTables } from '../../../tools/bench/speed.js';
import type { SpeedResult } from '../../../tools/bench/speed-columns.js';
import { speedPlot } from '../../../tools/bench/speed-plot.js';
import { SUBJECTS, scaledOptions } from '../../../tools/bench/subjects.js';

const column = (name: string, program: 'vmtape' | 'QEMU', seconds: number | undefined, problem?: string) => ({
  ...{ name, program, seconds, problem, rounds: seconds === undefined ? [] : [seconds, seconds + 1] },
});

const RESULTS: readonly SpeedResult[] = [
  {
    ...{ guest: 'compute scale=55', instructions: 2_500_000_000, exits: 0, tapeBytes: 5_000_000, peakRssBytes: 1 },
    columns: [column('record', 'vmtape', 2), column('QEMU record', 'QEMU', 10), column('run', 'vmtape', 1.9)],
    ratios: [
      { name: 'record / QEMU record', ratio: 0.2, goal: 0.4 },
      { name: 'record / run', ratio: 1.3, goal: 1.15 },
    ],
    bytesPerExit: undefined,
    bytesPerThousand: 2,
  },
  {
    ...{ guest: 'nested <&>', instructions: 40_000_000, exits: 200_000, tapeBytes: 1_600_000, peakRssBytes: 1 },
    columns: [
      column('record', 'vmtape', 4),
      column('QEMU record', 'QEMU', undefined, 'QEMU did not end'),
      column('run', 'vmtape', 3.9),
    ],
    ratios: [],
    bytesPerExit: 8,
    bytesPerThousand: 40,
  },
];

describe('the speed bench', () => {
  it('tells times, rates, ratios and what went wrong', () => {
    const lines = speedTables(RESULTS, 2);
    const text = lines.join('\n');
    expect(text).toMatch(/compute scale=55 +2,500,000,000 +0 +2\.00 s +10\.00 s +1\.90 s/);
    expect(text).toMatch(/nested <&> +40,000,000 +200,000 +4\.00 s +none +3\.90 s/);
    expect(text).toMatch(/compute scale=55 +1250 +250 +1316/);
    expect(text).toMatch(/compute scale=55 +0\.20 +1\.30 > 1\.15 +2\.00/);
    expect(lines.at(-1)).toBe('nested <&>, QEMU record: QEMU did not end');
  });

  it('draws a bar for each figure, longer for the faster', () => {
    const svg = speedPlot(RESULTS, 'a host');
    const widths = [...svg.matchAll(/width="([\d.]+)" height="10" fill/g)].map(([, width]) => Number(width));
    // Three in the legend, then those of the guests.
    expect(widths).toHaveLength(3 + 5);
    const [record, qemu, run] = widths.slice(3) as [number, number, number];
    expect(run).toBeGreaterThan(record);
    expect(record).toBeGreaterThan(qemu);
    expect(svg).toContain('nested &lt;&amp;&gt;');
  });

  it('runs guests for a part of their length', () => {
    const compute = SUBJECTS.find(({ name }) => name === 'compute') as (typeof SUBJECTS)[number];
    expect([1, 0.1, 0.0001].map((scale) => scaledOptions(compute.full, scale))).toEqual([
      'scale=55',
      'scale=6',
      'scale=1',
    ]);
  });

  it.each([
    [['--scale', '0'], '--scale "0" is no part'],
    [['--tiers', 'auto,steam'], '--tiers names "steam"'],
    [['--guests', 'steam'], 'no guest of the benches'],
    [['--pairs', '0'], '--pairs'],
  ])('refuses %j', async (args, said) => {
    await expect(speedBench(args)).rejects.toThrow(said);
  });
});

/** Which intervals are handed out: each stretch of the tape once, whoever is how fast. */
import { describe, expect, it } from 'vitest';
import type { Position } from '../../../src/journal/index.js';
import { IntervalPlan } from '../../../src/replay/index.js';

/** Places 120 million instructions apart: of 120 ms each, by the reckoning of docs/adr/0040. */
const places = (count: number): readonly Position[] =>
  Array.from({ length: count }, (_, index) => ({ icount: 120_000_000n * BigInt(index), seq: 0n }));

/** Plays jobs of different speeds. @returns how often each stretch between two places was replayed, and when each job was done. */
function play(count: number, speeds: readonly number[]): { times: number[]; ends: number[]; begun: number } {
  const plan = new IntervalPlan(places(count), speeds.length);
  const times = Array.from({ length: count - 1 }, () => 0);
  const jobs = speeds.map((speed) => ({ speed, time: 0, at: undefined as number | undefined, over: false }));
  let begun = 0;
  for (;;) {
    const [job] = jobs.filter(({ over }) => !over).sort((a, b) => a.time - b.time);
    if (job === undefined) return { times, ends: jobs.map(({ time }) => time), begun };
    const interval = plan.next(job.at);
    if (interval === undefined) {
      job.over = true;
      continue;
    }
    const { from, to } = interval;
    expect(to).toBeGreaterThan(from);
    if (from !== job.at) begun++;
    for (let place = from; place < to; place++) times[place] = (times[place] as number) + 1;
    job.time += (to - from) / job.speed;
    job.at = to;
  }
}

describe('a plan of intervals', () => {
  it.each([[2], [3], [40], [500]])('has each stretch between %i places replayed once', (count) => {
    for (const speeds of [[1], [1, 1], [1, 3], [5, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]]) {
      expect(play(count, speeds).times).toEqual(Array.from({ length: count - 1 }, () => 1));
    }
  });

  it('lets equal jobs enter one checkpoint each', () => {
    expect(play(201, [1, 1, 1, 1]).begun).toBe(4);
  });

  it('lets jobs of other speeds end at about the same time', () => {
    const { ends, begun } = play(201, [1, 4, 2]);
    expect(Math.max(...ends) - Math.min(...ends)).toBeLessThan(8);
    expect(Math.max(...ends)).toBeLessThan(1.1 * (200 / 7));
    expect(begun).toBeLessThan(20);
  });

  it('begins no more than there are places, and nothing behind a cut', () => {
    expect(new IntervalPlan(places(3), 8).begins).toBe(2);
    const plan = new IntervalPlan(places(201), 2);
    const first = plan.next();
    plan.cut(20);
    const reached = [first?.to ?? 0];
    for (let next = plan.next(first?.to); next !== undefined; next = plan.next(next.to)) reached.push(next.to);
    expect(Math.max(...reached)).toBe(20);
  });
});

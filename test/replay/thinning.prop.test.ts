import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { CheckpointEntry } from '../../src/journal/index.js';
import { runCost, thinned } from '../../src/replay/index.js';

const entries = fc.array(fc.integer({ min: 1, max: 1_000_000_000 }), { minLength: 1, maxLength: 200 }).map((steps) => {
  let icount = 0n;
  return steps.map((step, index): CheckpointEntry => {
    icount += BigInt(step);
    return { id: index + 1, position: { icount, seq: BigInt(index) }, bytes: 1 };
  });
});

it('keeps the first and the last, and what lies between within a part of its age', () => {
  fc.assert(
    fc.property(entries, (all) => {
      const end = (all.at(-1) as CheckpointEntry).position;
      const dropped = new Set(thinned(all, end));
      const kept = all.filter((entry) => !dropped.has(entry));
      expect(kept[0]).toBe(all[0]);
      expect(kept.at(-1)).toBe(all.at(-1));
      for (const [index, { position }] of kept.slice(0, -1).entries()) {
        const next = kept[index + 1] as CheckpointEntry;
        const neighbours = next.id === (kept[index] as CheckpointEntry).id + 1;
        expect(neighbours || runCost(position, next.position) <= runCost(position, end) / 8).toBe(true);
      }
    }),
  );
});

it('keeps few of a long tape, and nothing more to drop', () => {
  const all = Array.from({ length: 10_000 }, (_, index): CheckpointEntry => {
    return { id: index + 1, position: { icount: BigInt(index + 1) * 60_000_000n, seq: BigInt(index) }, bytes: 1 };
  });
  const end = (all.at(-1) as CheckpointEntry).position;
  const dropped = new Set(thinned(all, end));
  const kept = all.filter((entry) => !dropped.has(entry));
  expect(kept.length).toBeLessThan(100);
  expect(thinned(kept, end).length).toBeLessThan(kept.length / 4);
});

import { describe, expect, it } from 'vitest';
import { fewestInstructions, reduceItems } from '../../../tools/fuzz/shrink.js';

describe('shrinking', () => {
  it('leaves the items that are needed, in their order', () => {
    const items = Array.from({ length: 100 }, (_, index) => index);
    const needed = [3, 50, 51, 99];
    const kept = reduceItems(items, (some) => needed.every((item) => some.includes(item)));
    expect(kept).toEqual(needed);
  });

  it('leaves one of several that would do, and none where none is needed', () => {
    expect(reduceItems([1, 2, 3, 4, 5], (some) => some.length > 0)).toHaveLength(1);
    expect(reduceItems([1, 2, 3], () => true)).toEqual([]);
    expect(reduceItems([], () => true)).toEqual([]);
  });

  it('leaves all when nothing can go, after few tries', () => {
    let tries = 0;
    const items = Array.from({ length: 32 }, (_, index) => index);
    expect(
      reduceItems(items, () => {
        tries++;
        return false;
      }),
    ).toEqual(items);
    expect(tries).toBe(63);
  });

  it('finds the first count of instructions that differs', () => {
    for (const first of [1, 2, 700, 999, 1000]) expect(fewestInstructions(1000, (limit) => limit >= first)).toBe(first);
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AbsentRange, rangeOf, withoutPages, withPages } from '../../../src/machine/paravirt/absent-pages.js';

const PAGES = 40;
const step = fc.record({
  first: fc.nat(PAGES - 1),
  pages: fc.integer({ min: 1, max: 12 }),
  latency: fc.integer({ min: 1, max: 3 }),
  taken: fc.boolean(),
});

describe('ranges of absent pages', () => {
  it('are the set that single pages would make, in order and apart', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        let ranges: readonly AbsentRange[] = [];
        const expected = new Map<number, number>();
        for (const { taken, ...range } of steps) {
          ranges = taken ? withPages(ranges, range) : withoutPages(ranges, range.first, range.pages);
          for (let page = range.first; page < range.first + range.pages; page++) {
            if (taken) expected.set(page, range.latency);
            else expected.delete(page);
          }
        }
        for (let page = 0; page < PAGES + 12; page++) {
          expect(rangeOf(ranges, page)?.latency).toBe(expected.get(page));
        }
        let end = 0;
        for (const { first, pages } of ranges) {
          expect(first).toBeGreaterThanOrEqual(end);
          expect(pages).toBeGreaterThan(0);
          end = first + pages;
        }
      }),
    );
  });
});

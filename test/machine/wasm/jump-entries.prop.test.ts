/** Entries of the jump caches are forgotten with the code that they lead to, and no others. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { JUMP_CACHE_BASE, JUMP_CACHE_ENTRY_BYTES } from '../../../src/machine/layout/linear-memory.js';
import { JumpEntries, type JumpTarget, NOWHERE } from '../../../src/machine/wasm/jump-entries.js';

const addressOf = (entry: number): number => JUMP_CACHE_BASE + entry * JUMP_CACHE_ENTRY_BYTES;

type Step =
  | { readonly entry: number; readonly first: number; readonly second: number | undefined }
  | { readonly drop: number };

const target = fc.nat(5);
const steps = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({ entry: fc.nat(9), first: target, second: fc.option(target, { nil: undefined }) }),
    },
    { weight: 1, arbitrary: fc.record({ drop: target }) },
  ),
  { maxLength: 80 },
);

describe('entries of jump caches', () => {
  it('that lead to what is dropped are those that were put there last', () => {
    fc.assert(
      fc.property(steps, (list: readonly Step[]) => {
        const entries = new JumpEntries(1);
        const targets = Array.from({ length: 6 }, (): JumpTarget => ({ firstJump: NOWHERE }));
        /** By entry: what it leads to. */
        const leads = new Map<number, Set<number>>();
        for (const step of list) {
          if ('drop' in step) {
            const forgotten = new Set<number>();
            entries.drop(targets[step.drop] as JumpTarget, (entry) => forgotten.add(entry));
            const expected = [...leads].filter(([, to]) => to.delete(step.drop)).map(([entry]) => addressOf(entry));
            expect([...forgotten].sort()).toEqual(expected.sort());
          } else {
            const { entry, first, second } = step;
            entries.lead(
              addressOf(entry),
              targets[first] as JumpTarget,
              second === undefined ? second : targets[second],
            );
            leads.set(entry, new Set(second === undefined ? [first] : [first, second]));
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it('lead nowhere once all is gone', () => {
    const entries = new JumpEntries(1);
    const [old, fresh]: [JumpTarget, JumpTarget] = [{ firstJump: NOWHERE }, { firstJump: NOWHERE }];
    entries.lead(addressOf(3), old, undefined);
    entries.clear();
    entries.lead(addressOf(3), fresh, undefined);
    const forgotten: number[] = [];
    entries.drop(fresh, (entry) => forgotten.push(entry));
    expect(forgotten).toEqual([addressOf(3)]);
  });
});

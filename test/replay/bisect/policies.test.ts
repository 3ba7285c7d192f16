/**
 * Every deviation is found: the scenarios that show what each does, in `test/machine/policy`, are recorded on the manual's
 * machine and on one that deviates, and bisecting the two names the deviation.
 */
import { expect, it, vi } from 'vitest';
import { boundaryAfter, type JournalReader, type JournalRecord } from '../../../src/journal/index.js';
import { DEVIATIONS, type DeviationName } from '../../../src/machine/index.js';
import { sameData } from '../../../src/replay/fold.js';
import { type Bisection, bisect, Side } from '../../../src/replay/index.js';
import { tapesOf } from '../../support/scenario-tapes.js';

const OPTIONS = { leniency: { hostSaveArea: false }, searchesPolicies: false };

interface Bisected {
  readonly found: Bisection;
  readonly tapes: readonly [JournalReader, JournalReader];
}

/** The first run of the two scenarios that is another on the deviating machine. */
function bisected(
  scenario: (deviations: readonly DeviationName[]) => unknown,
  name: DeviationName,
): Bisected | undefined {
  const manual = tapesOf(() => scenario([]));
  const deviating = tapesOf(() => scenario([name]));
  for (const [index, tape] of manual.entries()) {
    const other = deviating[index];
    if (other === undefined) return undefined;
    const found = bisect([new Side('manual', tape), new Side('deviating', other)], OPTIONS);
    if (found.kind !== 'same') return { found, tapes: [tape, other] };
  }
  return undefined;
}

/** What is first another, looked for event by event: where, between which instruction counts, and in which level. */
function firstDifference([manual, deviating]: Bisected['tapes']) {
  const others = deviating.records();
  for (const record of manual.records()) {
    const other = others.next().value as JournalRecord;
    if (sameData(record, other)) continue;
    const start = boundaryAfter(record).icount - BigInt(record.retired);
    if (record.event.type !== 'cpu.ran' || other.event.type !== 'cpu.ran') return { record, from: start, to: start };
    // Of two runs an instruction of the shorter one, or the one behind it.
    return { record, from: start, to: start + BigInt(Math.min(record.retired, other.retired)) };
  }
  throw new Error('no event differs');
}

vi.mock('../../support/deviations.js', () => ({
  deviation: (name: DeviationName, scenario: (deviations: readonly DeviationName[]) => unknown): void => {
    it(`${name} is named`, () => {
      const { found, tapes } = bisected(scenario, name) ?? {};
      if (found?.kind !== 'differs' || tapes === undefined) throw new Error(`${found?.kind}`);
      const { causes, decisions, place, level, transitions } = found;
      const { record, from, to } = firstDifference(tapes);
      expect(place.icount >= from && place.icount <= to).toBe(true);
      expect(level).toBe(record.level);
      expect(transitions.sides[0].before?.instruction?.text).toMatch(/^(?:[a-z]|\(not mapped\)$)/);
      expect(causes[0]).toMatchObject({ kind: 'policy', name, effect: 'whole' });
      // Where the table differs, so does the row as each side has it.
      const { stages = {}, never = [] } = DEVIATIONS[name] as { stages?: object; never?: readonly string[] };
      const rows = [...Object.keys(stages), ...never];
      if (rows.length === 0) return;
      const decision = decisions.intercepts.find(({ row }) => rows.includes(row.name));
      const [manual, deviating] = decision?.sides ?? [];
      if (manual === undefined || deviating === undefined) throw new Error('no row is told');
      expect([manual.stage, manual.ignored]).not.toEqual([deviating.stage, deviating.ignored]);
      // A bit that is not looked at is not taken over by VMRUN; a check that stands elsewhere comes out otherwise.
      expect([manual.taken, manual.set]).not.toEqual([deviating.taken, deviating.set]);
    });
  },
}));

await import('../../machine/policy/order.test.js');
await import('../../machine/policy/instructions.test.js');
await import('../../machine/policy/entry.test.js');
await import('../../machine/policy/exit.test.js');
await import('../../machine/policy/guest.test.js');
await import('../../machine/policy/delivery.test.js');

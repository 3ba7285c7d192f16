/**
 * Differences that are known, and which side has the manual on it: what a report says of the first true difference. Each was found
 * in lockstep and looked up; docs/lockstep.md tells more of them.
 */
import type { TraceStep } from '../../src/replay/index.js';
import type { FieldDifference } from './compare.js';

interface Known {
  /** Of the other machine's name. */
  readonly machine: RegExp;
  /** Of the instruction's text, or the event's type. */
  readonly step: RegExp;
  readonly fields: ReadonlySet<string>;
  readonly why: string;
}

const KNOWN: readonly Known[] = [];

/** Why two machines differ after a step, where that is known; else what differs. */
export function explained(machine: string, step: TraceStep, fields: readonly FieldDifference[]): string {
  const what = step.kind === 'instruction' ? step.text : step.event.event.type;
  const names = fields.map(({ register }) => register);
  const known = KNOWN.find(
    (each) => each.machine.test(machine) && each.step.test(what) && names.every((name) => each.fields.has(name)),
  );
  return known?.why ?? `not known; after ${what} ${names.length === 0 ? 'RAM differs' : `${names.join(', ')} differ`}`;
}

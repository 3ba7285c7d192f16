/**
 * Which instructions of a run may be the ones that another machine does otherwise: of each register that differs after it, the
 * last that wrote it, as this machine executes the run.
 */
import { boundaryAfter, type Position } from '../../journal/index.js';
import type { Pair } from './pair.js';
import type { Side } from './side.js';
import type { ValueDifference } from './transition.js';

export interface Suspect {
  readonly register: string;
  /** The place before the instruction. */
  readonly place: Position;
  readonly rip: bigint;
  readonly instruction: string;
}

/** The evaluator executes some tens of thousands of instructions a second. */
const MOST_INSTRUCTIONS = 8_000;

/** @param places the boundary before the run. @param fields names of registers among what differs. */
export function suspectsIn(
  sides: Pair<Side>,
  places: Pair<Position>,
  fields: readonly ValueDifference[],
): readonly Suspect[] {
  // The tape that this vmtape can run says what the run should have been.
  for (const [index, side] of sides.entries()) {
    const place = places[index as 0 | 1];
    const [record] = side.reader.records(place.seq);
    if (record?.event.type !== 'cpu.ran') continue;
    const end = boundaryAfter(record);
    const left = record.retired - MOST_INSTRUCTIONS;
    const from = left > 0 ? { icount: place.icount + BigInt(left), seq: place.seq } : place;
    const found = lastWriters(side, from, end, new Set(fields.map(({ name }) => name)));
    if (found !== undefined) return found;
  }
  return [];
}

/** @returns undefined where this vmtape does something else than the tape says. */
function lastWriters(
  side: Side,
  from: Position,
  to: Position,
  registers: ReadonlySet<string>,
): readonly Suspect[] | undefined {
  const last = new Map<string, Suspect>();
  let steps = 0;
  for (const step of side.trace(from, to)) {
    if (step.kind === 'stops') return undefined;
    steps++;
    if (step.kind !== 'instruction') continue;
    for (const { register } of step.registers) {
      if (!registers.has(register)) continue;
      last.set(register, { register, place: step.position, rip: step.rip, instruction: step.text });
    }
  }
  return steps === 0 ? undefined : [...last.values()];
}

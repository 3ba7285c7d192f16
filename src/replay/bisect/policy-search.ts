/**
 * Which deviations turn one session into another: the machine of the first is given the second one's inputs, with one deviation
 * after the other toggled that makes it do what the second did where the two part, until there is no difference left. Small sets
 * come first, so the set that is found is the smallest of those that can be put together so.
 */
import type { Position } from '../../journal/index.js';
import { DEVIATION_NAMES, type DeviationName, type MachineConfig } from '../../machine/index.js';
import { sessionConfig } from '../session.js';
import type { Control } from '../work.js';
import { type Bisection, type BisectOptions, bisect } from './bisection.js';
import { withToggled } from './causes.js';
import { runOtherModel } from './other-model.js';
import type { Pair } from './pair.js';
import { Side } from './side.js';

/** A set of deviations that was tried. */
export interface TriedSet {
  /** Toggled on the first machine: there where it had none, and none where it had. */
  readonly toggled: readonly DeviationName[];
  /** Where the two still part; undefined when they do no more. */
  readonly parts: Position | undefined;
}

export interface PolicySearch {
  /** What turns the first session into the second; undefined when no set does that was tried. */
  readonly found: readonly DeviationName[] | undefined;
  readonly tried: readonly TriedSet[];
  /** How the two differ where the set that comes furthest leaves them; undefined when one was found. */
  readonly left: Bisection | undefined;
}

/** Sets that are tried; each is a whole replay, and a bisection. */
const MOST_SETS = 48;
/** Of deviations that come nearer, so many are gone on with. */
const MOST_NEARER = 2;
/** No policy that anyone knows has more; a search that goes on so long has lost its way. */
const MOST_DEVIATIONS = 40;

/** @throws InputError when no machine can be made of a tape; the journal's errors. */
export function searchPolicies(sides: Pair<Side>, options: BisectOptions, control: Control = {}): PolicySearch {
  const [first, second] = sides;
  const config: MachineConfig = sessionConfig(first.reader.header).machine;
  const tried: TriedSet[] = [];
  const seen = new Set<string>();
  const queue: (readonly DeviationName[])[] = [[]];
  let furthest: { readonly parts: Position; readonly left: Bisection } | undefined;
  while (queue.length > 0 && tried.length < MOST_SETS) {
    const toggled = queue.shift() as readonly DeviationName[];
    options.doing?.(toggled.length === 0 ? 'without any deviation toggled' : `trying ${toggled.join(', ')}`);
    const { tape } = runOtherModel(second.reader, withToggled(config, toggled), control);
    const bisection = tape && bisectModel(tape, second, options, control);
    if (bisection?.kind !== 'differs') {
      tried.push({ toggled, parts: undefined });
      return { found: toggled, tried, left: undefined };
    }
    const { place } = bisection;
    tried.push({ toggled, parts: place });
    if (furthest === undefined || place.seq > furthest.parts.seq) furthest = { parts: place, left: bisection };
    const causes = bisection.causes.filter(({ kind, effect }) => kind === 'policy' && effect !== 'untried');
    const whole = causes.filter(({ effect }) => effect === 'whole');
    // What is nearer, when several deviations meet in one step, is as good as what is the same.
    for (const { name } of whole.length > 0 ? whole : causes.slice(0, MOST_NEARER)) {
      if (toggled.length >= MOST_DEVIATIONS) continue;
      const next = DEVIATION_NAMES.filter((each) => each === name || toggled.includes(each));
      const key = next.join();
      if (next.length === toggled.length || seen.has(key)) continue;
      seen.add(key);
      queue.push(next);
    }
  }
  return { found: undefined, tried, left: furthest?.left };
}

function bisectModel(tape: Side['reader'], second: Side, options: BisectOptions, control: Control): Bisection {
  const model = new Side('the model', tape, control);
  try {
    return bisect([model, second], { ...options, searchesPolicies: true, doing: undefined, quick: true });
  } finally {
    model.close();
  }
}

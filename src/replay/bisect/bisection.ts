/**
 * Two sessions that should be the same: where they part, and all that is known about it there. The tapes alone say which event
 * differs; then both are run to the step that made the difference, which may lie amid a run, or, in RAM, long before.
 */
import { boundaryAfter, comparePositions, type JournalRecord, type Position } from '../../journal/index.js';
import type { TracedInstruction } from '../tracer.js';
import { type Cause, causesOf } from './causes.js';
import { type Decisions, decisionsAt } from './decision.js';
import { firstDifference, type TapeComparison, type TapeDifference } from './first-difference.js';
import { differentDigests, type Leniency, type Location, locate, machinesAgree, openPages } from './locate.js';
import type { Pair } from './pair.js';
import type { Side } from './side.js';
import { type Suspect, suspectsIn } from './suspects.js';
import { type PassedOver, Tolerance } from './tolerance.js';
import { type Transitions, transitionsAt } from './transition.js';
import { leaveUndefined } from './undefined-flags.js';

export interface BisectOptions {
  readonly leniency: Leniency;
  /** Types of events whose content is passed over; none by default. */
  readonly ignores?: ((type: string) => boolean) | undefined;
  /** Status flags that the architecture leaves undefined are passed over. */
  readonly undefinedFlags?: boolean | undefined;
  /** Tries deviations that neither tape names. */
  readonly searchesPolicies: boolean;
  /** Leaves out who wrote what. */
  readonly quick?: boolean | undefined;
  /** Hears what is done now. */
  readonly doing?: ((what: string) => void) | undefined;
}

/** How much was looked at: figures for people. */
export interface Effort {
  readonly start: Position;
  readonly links: number;
  readonly events: number;
  readonly passed: readonly PassedOver[];
}

export type Bisection =
  /** All events and digests are the same to the end of both. */
  | { readonly kind: 'same'; readonly end: Position; readonly effort: Effort }
  /** One tape ends, and the other goes on; all is the same up to there. */
  | { readonly kind: 'ends'; readonly which: 'first' | 'second'; readonly at: Position; readonly effort: Effort }
  | ({ readonly kind: 'differs' } & Divergence);

export interface Divergence {
  readonly effort: Effort;
  /** The last place that both agree on. */
  readonly place: Position;
  /** The first event that differs, where `place` lies before or amid it; undefined when only RAM or digests do. */
  readonly event: TapeDifference | undefined;
  /** Parts of the state whose digests differ, though no event does. */
  readonly digests: readonly string[];
  /** RAM differed before any event told. */
  readonly hidden: boolean;
  readonly vcpu: number;
  readonly level: 1 | 2;
  readonly transitions: Transitions;
  readonly decisions: Decisions;
  /** Of a run in which a tape of another machine differs: what last wrote the registers that differ. */
  readonly suspects: readonly Suspect[];
  readonly causes: readonly Cause[];
  /** What the two did alike before, oldest first. */
  readonly recent: readonly JournalRecord[];
  /** Why a side could not be run to the place. */
  readonly problems: Pair<string | undefined>;
}

const RECENT_EVENTS = 8n;
const NO_DECISIONS: Decisions = { intercepts: [], entry: undefined };

/** @throws InputError when the tapes have nothing in common; the journal's errors. */
export function bisect(sides: Pair<Side>, options: BisectOptions): Bisection {
  options.doing?.('comparing hash chains and events');
  const tolerance = new Tolerance({
    ignores: options.ignores ?? (() => false),
    leavesUndefined: options.undefinedFlags === true ? (...run) => leavesUndefined(sides, ...run) : undefined,
  });
  const comparison = firstDifference([sides[0].reader, sides[1].reader], tolerance);
  const { passed } = tolerance;
  const { start, links, events, difference } = comparison;
  const effort = { start, links, events, passed };
  const [first, second] = sides;
  const end = comparePositions(first.reader.end, second.reader.end) <= 0 ? first.reader.end : second.reader.end;
  // Behind what was passed over states differ.
  const comparable = passed[0]?.boundary ?? difference?.boundary ?? end;
  const digests = differentDigests(sides, comparable)?.parts ?? [];
  if (difference === undefined && digests.length === 0) return { kind: 'same', end, effort };
  if (difference !== undefined && digests.length === 0 && passed.length === 0) {
    const ends = endsEarly(sides, difference, options.leniency);
    if (ends !== undefined) return { kind: 'ends', ...ends, effort };
  }
  return { kind: 'differs', ...explain(sides, comparison, digests, effort, tolerance, options) };
}

/** Whether a tape ends, maybe amid a run, and the other goes on from there. */
function endsEarly(
  sides: Pair<Side>,
  { records: [a, b] }: TapeDifference,
  leniency: Leniency,
): { readonly which: 'first' | 'second'; readonly at: Position } | undefined {
  if (a === undefined) return { which: 'first', at: sides[0].reader.end };
  if (b === undefined) return { which: 'second', at: sides[1].reader.end };
  if (a.event.type !== 'cpu.ran' || b.event.type !== 'cpu.ran' || a.retired === b.retired) return undefined;
  const shorter = a.retired < b.retired ? 0 : 1;
  const { reader } = sides[shorter];
  const own = [a, b][shorter] as JournalRecord;
  if (own.position.seq + 1n !== reader.end.seq) return undefined;
  const at = reader.end;
  // The longer one is amid its run there.
  const lines = sides.map((side) => side.atInstruction(at.icount));
  const [first, second] = lines;
  if (first === undefined || second === undefined) return undefined;
  if (!machinesAgree(first.machine, second.machine, leniency)) return undefined;
  return { which: shorter === 0 ? 'first' : 'second', at };
}

function explain(
  sides: Pair<Side>,
  comparison: TapeComparison,
  digests: readonly string[],
  effort: Effort,
  tolerance: Tolerance,
  { leniency, searchesPolicies, quick, doing }: BisectOptions,
): Divergence {
  doing?.('running both to where they part');
  const location = locate(sides, comparison, leniency, tolerance);
  const { hidden } = location;
  const amidRun = differsAmidRun(location, comparison);
  const place = amidRun && comparison.difference ? comparison.difference.boundary : location.place;
  const machines = sides.flatMap((side) => side.at(place)?.machine ?? []);
  const transitions = transitionsAt(sides, place, openPages(machines, leniency), amidRun);
  const suspects = amidRun ? suspectsIn(sides, place, transitions.fields) : [];
  doing?.('looking for who wrote what decides');
  const decisions = quick === true ? NO_DECISIONS : decisionsAt(sides, transitions.sides, place);
  doing?.('trying causes');
  const causes = causesOf({ sides, place, transitions: transitions.sides, hidden }, searchesPolicies);
  const [before] = transitions.sides.map((side) => side.before).filter((each) => each !== undefined);
  const record = comparison.difference?.records.find((each) => each !== undefined);
  return {
    effort,
    place,
    event: comparison.difference,
    digests,
    hidden,
    vcpu: before?.vcpu ?? record?.vcpu ?? 0,
    level: before?.level ?? record?.level ?? 1,
    transitions,
    decisions,
    suspects,
    causes,
    recent: recentEvents(sides[0], place),
    problems: [sides[0].problem, sides[1].problem],
  };
}

/** A tape of another machine differs in a run, and this one cannot say amid it where. */
const differsAmidRun = ({ seen }: Location, { difference }: TapeComparison): boolean =>
  seen.some((each) => each?.kind === 'stops') &&
  difference?.records.some((record) => record?.event.type === 'cpu.ran') === true;

/** Whether the instructions of a run, on a side that can be run, leave flags undefined. */
function leavesUndefined(sides: Pair<Side>, run: JournalRecord, boundary: Position, flags: bigint): boolean {
  const left = run.retired - MOST_TRACED;
  const from = left > 0 ? { icount: boundary.icount + BigInt(left), seq: boundary.seq } : boundary;
  for (const side of sides) {
    const steps = [...side.trace(from, boundaryAfter(run))];
    if (steps.length === 0 || steps.some(({ kind }) => kind === 'stops')) continue;
    const instructions = steps.filter((step): step is TracedInstruction => step.kind === 'instruction');
    return leaveUndefined(instructions.reverse(), flags);
  }
  return false;
}

/** Of a run: what set a flag last is rarely far from its end. */
const MOST_TRACED = 2000;

function recentEvents({ reader }: Side, { seq }: Position): readonly JournalRecord[] {
  const from = seq - RECENT_EVENTS > reader.start.seq ? seq - RECENT_EVENTS : reader.start.seq;
  const found: JournalRecord[] = [];
  if (from >= seq) return found;
  for (const record of reader.records(from)) {
    if (record.position.seq >= seq) break;
    found.push(record);
  }
  return found;
}

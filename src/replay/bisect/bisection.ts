/**
 * Two sessions that should be the same: where they part, and all that is known about it there. The tapes alone say which event
 * differs; then both are run to the step that made the difference, which may lie amid a run, or, in RAM, long before.
 */
import { comparePositions, type JournalReader, type JournalRecord, type Position } from '../../journal/index.js';
import type { Slot } from '../../machine/index.js';
import type { TracedInstruction } from '../tracer.js';
import { type Cause, causesOf } from './causes.js';
import { type Decisions, decisionsAt } from './decision.js';
import type { TapeDifference } from './event-walk.js';
import { firstDifference, type TapeComparison } from './first-difference.js';
import { differentDigests, type Leniency, type Location, locate, machinesAgree, openPages } from './locate.js';
import { type Openness, opennessOf } from './open-differences.js';
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
  /** The same as the second tape numbers its events: it may have others that were passed over. */
  readonly placeOnSecond: Position;
  /** The first event that differs, where `place` lies before or amid it; undefined when only RAM or digests do. */
  readonly event: TapeDifference | undefined;
  /** What of it the architecture leaves open. */
  readonly open: Openness;
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
    leavesUndefined: options.undefinedFlags === true ? (run, flags) => leavesUndefined(sides, run, flags) : undefined,
    registerAt: (boundary, vcpu, slot) => registerAt(sides[0], boundary, vcpu, slot),
  });
  const comparison = firstDifference([sides[0].reader, sides[1].reader], tolerance);
  const { start, links, events, difference } = comparison;
  const [first, second] = sides;
  const end = comparePositions(first.reader.end, second.reader.end) <= 0 ? first.reader.end : second.reader.end;
  // Behind what was passed over states differ.
  const comparable = tolerance.passed[0]?.boundary ?? difference?.boundaries[0] ?? end;
  const { parts: digests, passed: inArea } = differentDigests(sides, start, comparable, options.leniency);
  const areas: readonly PassedOver[] = inArea === undefined ? [] : [{ boundary: inArea, what: 'host-save-area' }];
  const effort = { start, links, events, passed: [...areas, ...tolerance.passed] };
  if (difference === undefined && digests.length === 0) return { kind: 'same', end, effort };
  if (difference !== undefined && digests.length === 0) {
    const ends = endsEarly(sides, difference, options.leniency, tolerance);
    if (ends !== undefined) return { kind: 'ends', ...ends, effort };
  }
  return { kind: 'differs', ...explain(sides, comparison, digests, effort, tolerance, options) };
}

/** Whether a tape ends, maybe amid a run, and the other goes on from there. */
function endsEarly(
  sides: Pair<Side>,
  { records: [a, b], boundaries }: TapeDifference,
  leniency: Leniency,
  tolerance: Tolerance,
): { readonly which: 'first' | 'second'; readonly at: Position } | undefined {
  if (a === undefined) return { which: 'first', at: sides[0].reader.end };
  if (b === undefined) return { which: 'second', at: sides[1].reader.end };
  const [one, other] = [sides[0].reader.end, sides[1].reader.end];
  if (one.icount === other.icount) return undefined;
  const shorter = one.icount < other.icount ? 0 : 1;
  const { reader } = sides[shorter];
  // All that it has left is a run, which the other one does not end there.
  for (const [index, record] of [...firstRecords(reader, boundaries[shorter].seq)].entries()) {
    const isPassedOver = tolerance.ignores(record);
    if (index >= MOST_LEFT || (record.event.type !== 'cpu.ran' && !isPassedOver)) return undefined;
  }
  const at = reader.end;
  const [first, second] = sides.map((side) => side.atInstruction(at.icount));
  if (first === undefined || second === undefined) return undefined;
  // What was passed over is part of the state; registers and RAM are what comes of it.
  const hasPassed = tolerance.passed.length > 0;
  if (!machinesAgree(first.machine, second.machine, leniency, hasPassed)) return undefined;
  return { which: shorter === 0 ? 'first' : 'second', at };
}

function* firstRecords(reader: JournalReader, seq: bigint): Generator<JournalRecord, void, void> {
  let count = 0;
  for (const record of reader.records(seq)) {
    yield record;
    if (++count > MOST_LEFT) return;
  }
}

/** Records of a tape that ends amid a run of the other one. */
const MOST_LEFT = 16;

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
  const places = amidRun && comparison.difference ? comparison.difference.boundaries : location.places;
  const machines = sides.flatMap((side, index) => side.at(places[index as 0 | 1])?.machine ?? []);
  const transitions = transitionsAt(sides, places, openPages(machines, leniency), amidRun);
  const suspects = amidRun ? suspectsIn(sides, places, transitions.fields) : [];
  doing?.('looking for who wrote what decides');
  const decisions = quick === true ? NO_DECISIONS : decisionsAt(sides, transitions.sides, places);
  doing?.('trying causes');
  const { passed } = effort;
  const open = opennessOf({
    transitions,
    event: comparison.difference,
    machines,
    passed,
    runLeaves: amidRun ? (run, flags) => leavesUndefined(sides, run, flags) : undefined,
  });
  const causes = causesOf({ sides, places, transitions: transitions.sides, hidden, passed }, searchesPolicies);
  const [before] = transitions.sides.map((side) => side.before).filter((each) => each !== undefined);
  const record = comparison.difference?.records.find((each) => each !== undefined);
  return {
    effort,
    place: places[0],
    placeOnSecond: places[1],
    event: comparison.difference,
    open,
    digests,
    hidden,
    vcpu: before?.vcpu ?? record?.vcpu ?? 0,
    level: before?.level ?? record?.level ?? 1,
    transitions,
    decisions,
    suspects,
    causes,
    recent: recentEvents(sides[0], places[0]),
    problems: [sides[0].problem, sides[1].problem],
  };
}

/** A tape of another machine differs in a run, and this one cannot say amid it where. */
const differsAmidRun = ({ seen }: Location, { difference }: TapeComparison): boolean =>
  seen.some((each) => each?.kind === 'stops') &&
  difference?.records.some((record) => record?.event.type === 'cpu.ran') === true;

/** Whether a run, on a side that can be run, leaves flags undefined. What set a flag last is rarely far from its end. */
function leavesUndefined(sides: Pair<Side>, { position: { icount }, retired }: JournalRecord, flags: bigint): boolean {
  for (const side of sides) {
    // Sides may number their events otherwise; instructions they count alike.
    const from = side.atInstruction(icount - BigInt(Math.min(retired, MOST_TRACED)))?.position;
    if (from === undefined) continue;
    const steps = [...side.trace(from, { icount, seq: from.seq })];
    if (steps.length === 0 || steps.some(({ kind }) => kind === 'stops')) continue;
    const instructions = steps.filter((step): step is TracedInstruction => step.kind === 'instruction');
    return leaveUndefined(instructions.reverse(), flags);
  }
  return false;
}

const MOST_TRACED = 2000;

/** @returns undefined where the side cannot be run to. */
function registerAt(side: Side, boundary: Position, vcpu: number, slot: Slot): bigint | undefined {
  const line = side.at(boundary);
  if (line === undefined || comparePositions(line.position, boundary) !== 0) return undefined;
  return line.machine.state.vcpus[vcpu]?.registers[slot];
}

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

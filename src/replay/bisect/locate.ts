/**
 * From the event in which two tapes differ to the step that made the difference: both sessions are run side by side, instruction
 * by instruction, from the boundary before that event. RAM is in no event; what went wrong there may have done so long before any
 * event tells, and is looked for by halving between places where both machines are the same and where they are not.
 */
import {
  boundaryAfter,
  comparePositions,
  formatPosition,
  type JournalRecord,
  type Position,
  sameBytes,
} from '../../journal/index.js';
import { type Machine, PAGE_BYTES, R } from '../../machine/index.js';
import { sameData, stateDifferences } from '../fold.js';
import type { TraceStep } from '../tracer.js';
import type { TapeComparison } from './first-difference.js';
import type { Pair } from './pair.js';
import { differingPages } from './ram-difference.js';
import type { Seen, Side } from './side.js';
import type { Tolerance } from './tolerance.js';

export interface Location {
  /** The last place that both agree on, as each tape numbers its events. */
  readonly places: Pair<Position>;
  /** What comes next on each side; undefined where a side cannot be run, or ends. */
  readonly seen: Pair<Seen | undefined>;
  /** Instructions and events that were found the same, step by step, before. */
  readonly steps: number;
  /** RAM differed before any event told. */
  readonly hidden: boolean;
}

/** What is passed over when states are compared. */
export interface Leniency {
  /** The host save area: the page at VM_HSAVE_PA (APM vol.2 §15.30.4 VM_HSAVE_PA MSR). */
  readonly hostSaveArea: boolean;
}

/** Instructions before the end of the shorter of two runs from which on both are traced, when they are the same there. */
const LAST_STEPS = 64n;
/** Events after the one that differs which are traced, should the two do the same step by step. */
const MORE_EVENTS = 4n;

/** Where two sessions whose events differ came apart. */
export function locate(
  sides: Pair<Side>,
  { start, difference }: TapeComparison,
  leniency: Leniency,
  tolerance: Tolerance,
): Location {
  // What was passed over has made the machines differ.
  if (difference !== undefined && tolerance.passed.length > 0) {
    return traceApart(sides, difference.boundaries, tolerance);
  }
  if (difference === undefined) return locateHidden(sides, start, endOfBoth(sides), leniency);
  const from = nearStart(sides, difference.boundaries[0], difference.records, leniency);
  const location = traceApart(sides, [from, from]);
  const [place] = location.places;
  const agree = sameMachines(sides, place, leniency);
  if (agree !== false) return location;
  return locateHidden(sides, start, place, leniency);
}

const endOfBoth = ([first, second]: Pair<Side>): Position =>
  comparePositions(first.reader.end, second.reader.end) <= 0 ? first.reader.end : second.reader.end;

/**
 * A place shortly before the two part, at which they are the same: tracing whole runs takes long. In a run that ends differently
 * halving finds it; what was another in between and is the same again does not matter.
 */
function nearStart(
  sides: Pair<Side>,
  boundary: Position,
  [a, b]: Pair<JournalRecord | undefined>,
  leniency: Leniency,
): Position {
  if (a?.event.type !== 'cpu.ran' || b?.event.type !== 'cpu.ran') return boundary;
  let low = boundary;
  let high = boundary.icount + BigInt(Math.min(a.retired, b.retired));
  // Two runs of different length mostly are the same until the shorter one ends.
  for (let next = high - LAST_STEPS; high - low.icount > LAST_STEPS; next = (low.icount + high) >> 1n) {
    if (next <= low.icount) break;
    const [first, second] = [sides[0].atInstruction(next), sides[1].atInstruction(next)];
    if (first === undefined || second === undefined) break;
    const agree =
      comparePositions(first.position, second.position) === 0 && machinesAgree(first.machine, second.machine, leniency);
    if (agree) low = first.position;
    else high = next;
  }
  return low;
}

/** Runs both from a place on until they do different things. @param tolerance of what was different before, and may go on so. */
function traceApart(sides: Pair<Side>, from: Pair<Position>, tolerance?: Tolerance): Location {
  const trace = (index: 0 | 1): Generator<Seen, void, void> => {
    const side = sides[index];
    return withoutIgnored(side.trace(from[index], traceEnd(side, from[index].seq)), tolerance);
  };
  const [first, second] = [trace(0), trace(1)];
  let places = from;
  let steps = 0;
  try {
    for (;;) {
      const [a, b] = [first.next().value ?? undefined, second.next().value ?? undefined];
      places = placesOf(a, b, places);
      const same =
        a !== undefined && b !== undefined && a.kind !== 'stops' && b.kind !== 'stops' && sameStep(a, b, tolerance);
      if (!same) return { places, seen: [a, b], steps, hidden: false };
      steps++;
    }
  } finally {
    first.return();
    second.return();
  }
}

/** Steps without the events that one side alone may have. */
function* withoutIgnored(steps: Iterable<Seen>, tolerance: Tolerance | undefined): Generator<Seen, void, void> {
  for (const step of steps) {
    if (step.kind !== 'event' || tolerance?.ignores(step.event) !== true) yield step;
  }
}

/** Where the next steps begin. A side that shows none stands as far on as the other. @param before of the steps before. */
function placesOf(a: Seen | undefined, b: Seen | undefined, before: Pair<Position>): Pair<Position> {
  const ahead = before[1].seq - before[0].seq;
  const [first, second] = [a, b].map((seen) =>
    seen === undefined || seen.kind === 'stops' ? undefined : seen.position,
  );
  if (first === undefined && second === undefined) return before;
  return [first ?? moved(second as Position, -ahead), second ?? moved(first as Position, ahead)];
}

const moved = ({ icount, seq }: Position, by: bigint): Position => ({ icount, seq: seq + by });

function traceEnd({ reader }: Side, seq: bigint): Position {
  let end = reader.end;
  for (const record of reader.records(seq)) {
    end = boundaryAfter(record);
    if (record.position.seq >= seq + MORE_EVENTS) break;
  }
  return end;
}

function sameStep(a: TraceStep, b: TraceStep, tolerance: Tolerance | undefined): boolean {
  const isPassedOver = [a, b].some(({ event }) => event !== undefined && tolerance?.ignores(event) === true);
  const comparable = (step: TraceStep): object => comparableStep(step, tolerance, isPassedOver);
  return sameData(comparable(a), comparable(b));
}

function comparableStep(step: TraceStep, tolerance: Tolerance | undefined, isPassedOver: boolean): object {
  const { position: _, ...rest } = step;
  if (rest.kind !== 'instruction') return rest;
  // What comes of an event that is passed over does not count.
  if (isPassedOver) return { text: rest.text, rip: rest.rip, vcpu: rest.vcpu, level: rest.level };
  if (tolerance?.flagsDiffer !== true) return rest;
  return { ...rest, registers: rest.registers.filter(({ register }) => register !== 'rflags') };
}

// States

/** Pages that are not compared. */
export function openPages(machines: readonly Machine[], { hostSaveArea }: Leniency): ReadonlySet<number> {
  if (!hostSaveArea) return new Set();
  return new Set(
    machines.flatMap(({ state }) =>
      state.vcpus.map(({ registers }) => Number((registers[R.vmHsavePA] ?? 0n) / BigInt(PAGE_BYTES))),
    ),
  );
}

/** What two machines of different configurations never have in common: what CPUID says of the local APIC. */
const isConfiguration = (path: string): boolean => /^devices\.localApics\.\d+\.features\b/.test(path);

/**
 * Whether two machines are the same but for what is passed over, and for what their configurations make of it.
 * @param registersOnly of all but RAM, registers alone.
 */
export function machinesAgree(first: Machine, second: Machine, leniency: Leniency, registersOnly = false): boolean {
  const counts = (path: string): boolean => !isConfiguration(path) && (!registersOnly || path.startsWith('vcpu '));
  if (stateDifferences(first.state, second.state).some(({ path }) => counts(path))) return false;
  return differingPages(first.memory, second.memory, openPages([first, second], leniency)).next().done === true;
}

/** Whether both machines are the same at a place; undefined when one cannot be run to there. */
function sameMachines(sides: Pair<Side>, place: Position, leniency: Leniency): boolean | undefined {
  const [first, second] = [sides[0].at(place), sides[1].at(place)];
  if (first === undefined || second === undefined) return undefined;
  return machinesAgree(first.machine, second.machine, leniency);
}

// RAM that differs before any event does

/**
 * The first step after which RAM differs, between a place and one where it does. Halving finds a step after which it does and
 * before which it does not; a difference that was overwritten again before is none that matters.
 */
function locateHidden(sides: Pair<Side>, start: Position, end: Position, leniency: Leniency): Location {
  const digests = differentDigests(sides, start, end, leniency);
  let { low, position: high = end } = digests;
  if (comparePositions(low, start) === 0 && sameMachines(sides, start, leniency) === false) {
    return { places: [start, start], seen: [undefined, undefined], steps: 0, hidden: true };
  }
  while (high.seq - low.seq > 1n) {
    const middle = boundaryOf(sides[0], (low.seq + high.seq) >> 1n);
    const agree = sameMachines(sides, middle, leniency);
    if (agree === undefined) break;
    if (agree) low = middle;
    else high = middle;
  }
  return { ...traceApart(sides, [low, low]), hidden: true };
}

function boundaryOf({ reader }: Side, seq: bigint): Position {
  const record = reader.records(seq).next().value;
  return record ? { icount: record.position.icount - BigInt(record.retired), seq } : reader.end;
}

export interface DigestDifference {
  /** The last place before at which all digests that both tapes have are the same, but for what is passed over. */
  readonly low: Position;
  /** The first place at which one is not; undefined when there is none. */
  readonly position: Position | undefined;
  /** Parts of the state that differ there. */
  readonly parts: readonly string[];
  /** The first place at which RAM differs in what is passed over alone. */
  readonly passed: Position | undefined;
}

/** The first state digests that differ, up to a place to which the events of both tapes are the same. */
export function differentDigests(
  sides: Pair<Side>,
  start: Position,
  end: Position,
  leniency: Leniency,
): DigestDifference {
  let low = start;
  let passed: Position | undefined;
  const own = digestsByPlace(sides[0], end);
  for (const [key, { position, parts }] of digestsByPlace(sides[1], end)) {
    const others = own.get(key)?.parts;
    if (others === undefined || comparePositions(position, start) < 0) continue;
    const shared = [...parts].filter(([kind]) => others.has(kind));
    const different = shared
      .filter(([kind, value]) => !sameBytes(value, others.get(kind) as Uint8Array))
      .map(([kind]) => kind);
    if (different.length > 0 && !isLeftOpen(sides, position, different, leniency)) {
      return { low, position, parts: different, passed };
    }
    if (different.length > 0) passed ??= position;
    if (shared.length > 0 && comparePositions(position, low) > 0) low = position;
  }
  return { low, position: undefined, parts: [], passed };
}

/** Whether RAM differs at a place in what is passed over alone. */
const isLeftOpen = (sides: Pair<Side>, place: Position, parts: readonly string[], leniency: Leniency): boolean =>
  leniency.hostSaveArea && parts.every((part) => part === 'ram') && sameMachines(sides, place, leniency) === true;

interface DigestsThere {
  readonly position: Position;
  readonly parts: Map<string, Uint8Array>;
}

function digestsByPlace({ reader }: Side, end: Position): ReadonlyMap<string, DigestsThere> {
  const places = new Map<string, DigestsThere>();
  for (const { position, kind, value } of reader.digests()) {
    if (comparePositions(position, end) > 0) break;
    const key = formatPosition(position);
    const there = places.get(key) ?? { position, parts: new Map<string, Uint8Array>() };
    there.parts.set(kind, value);
    places.set(key, there);
  }
  return places;
}

/**
 * From the event in which two tapes differ to the step that made the difference: both sessions are run side by side, instruction
 * by instruction, from the boundary before that event. RAM is in no event; what went wrong there may have done so long before any
 * event tells, and is looked for by halving between places where both machines are the same and where they are not.
 */
import { boundaryAfter, comparePositions, type JournalRecord, type Position, sameBytes } from '../../journal/index.js';
import { type Machine, PAGE_BYTES, R } from '../../machine/index.js';
import { sameData, stateDifferences } from '../fold.js';
import type { TraceStep } from '../tracer.js';
import type { TapeComparison } from './first-difference.js';
import type { Pair } from './pair.js';
import { differingPages } from './ram-difference.js';
import type { Seen, Side } from './side.js';
import type { Tolerance } from './tolerance.js';

export interface Location {
  /** The last place that both agree on. */
  readonly place: Position;
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
    return traceApart(sides, difference.boundary, tolerance.flagsDiffer);
  }
  if (difference === undefined) return locateHidden(sides, start, endOfBoth(sides), leniency);
  const from = nearStart(sides, difference.boundary, difference.records, leniency);
  const location = traceApart(sides, from);
  const agree = sameMachines(sides, location.place, leniency);
  if (agree !== false) return location;
  return locateHidden(sides, start, location.place, leniency);
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

/** Runs both from a place on until they do different things. */
function traceApart(sides: Pair<Side>, from: Position, flagsDiffer = false): Location {
  const [first, second] = sides.map((side) => side.trace(from, traceEnd(side, from.seq))) as [
    Generator<Seen, void, void>,
    Generator<Seen, void, void>,
  ];
  let place = from;
  let steps = 0;
  try {
    for (;;) {
      const [a, b] = [first.next().value ?? undefined, second.next().value ?? undefined];
      const next = [a, b].find((seen): seen is TraceStep => seen !== undefined && seen.kind !== 'stops');
      if (next !== undefined) place = next.position;
      const same =
        a !== undefined && b !== undefined && a.kind !== 'stops' && b.kind !== 'stops' && sameStep(a, b, flagsDiffer);
      if (!same) return { place, seen: [a, b], steps, hidden: false };
      steps++;
    }
  } finally {
    first.return();
    second.return();
  }
}

function traceEnd({ reader }: Side, seq: bigint): Position {
  let end = reader.end;
  for (const record of reader.records(seq)) {
    end = boundaryAfter(record);
    if (record.position.seq >= seq + MORE_EVENTS) break;
  }
  return end;
}

/** @param flagsDiffer status flags were different before, and may go on so. */
function sameStep(a: TraceStep, b: TraceStep, flagsDiffer: boolean): boolean {
  return sameData(comparable(a, flagsDiffer), comparable(b, flagsDiffer));
}

function comparable(step: TraceStep, flagsDiffer: boolean): object {
  const { position: _, ...rest } = step;
  if (!flagsDiffer || rest.kind !== 'instruction') return rest;
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

/** Whether two machines are the same but for what is passed over, and for what their configurations make of it. */
export function machinesAgree(first: Machine, second: Machine, leniency: Leniency): boolean {
  if (stateDifferences(first.state, second.state).some(({ path }) => !isConfiguration(path))) return false;
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
  let { low, high } = digestBounds(sides, start, end);
  if (comparePositions(low, start) === 0 && sameMachines(sides, start, leniency) === false) {
    return { place: start, seen: [undefined, undefined], steps: 0, hidden: true };
  }
  while (high.seq - low.seq > 1n) {
    const middle = boundaryOf(sides[0], (low.seq + high.seq) >> 1n);
    const agree = sameMachines(sides, middle, leniency);
    if (agree === undefined) break;
    if (agree) low = middle;
    else high = middle;
  }
  return { ...traceApart(sides, low), hidden: true };
}

function boundaryOf({ reader }: Side, seq: bigint): Position {
  const record = reader.records(seq).next().value;
  return record ? { icount: record.position.icount - BigInt(record.retired), seq } : reader.end;
}

/** The last place before the first state digest that differs where all are the same, and the first place where one is not. */
function digestBounds(
  [first, second]: Pair<Side>,
  start: Position,
  end: Position,
): { readonly low: Position; readonly high: Position } {
  let low = start;
  const own = digestsByPlace(first, end);
  for (const [key, { position, parts }] of digestsByPlace(second, end)) {
    const others = own.get(key)?.parts;
    if (others === undefined || comparePositions(position, start) < 0) continue;
    const shared = [...parts].filter(([kind]) => others.has(kind));
    const same = shared.every(([kind, value]) => sameBytes(value, others.get(kind) as Uint8Array));
    if (!same) return { low, high: position };
    if (shared.length > 0 && comparePositions(position, low) > 0) low = position;
  }
  return { low, high: end };
}

interface DigestsThere {
  readonly position: Position;
  readonly parts: Map<string, Uint8Array>;
}

function digestsByPlace({ reader }: Side, end: Position): ReadonlyMap<string, DigestsThere> {
  const places = new Map<string, DigestsThere>();
  for (const { position, kind, value } of reader.digests()) {
    if (comparePositions(position, end) > 0) break;
    const key = `${position.icount}:${position.seq}`;
    const there = places.get(key) ?? { position, parts: new Map<string, Uint8Array>() };
    there.parts.set(kind, value);
    places.set(key, there);
  }
  return places;
}

/** Parts of the state whose digests differ at the first place where any does, though all events before are the same. */
export function differentDigests(
  sides: Pair<Side>,
  end: Position,
): { readonly position: Position; readonly parts: readonly string[] } | undefined {
  const own = digestsByPlace(sides[0], end);
  for (const [key, { position, parts }] of digestsByPlace(sides[1], end)) {
    const others = own.get(key)?.parts;
    if (others === undefined) continue;
    const different = [...parts].filter(([kind, value]) => {
      const other = others.get(kind);
      return other !== undefined && !sameBytes(value, other);
    });
    if (different.length > 0) return { position, parts: different.map(([kind]) => kind) };
  }
  return undefined;
}

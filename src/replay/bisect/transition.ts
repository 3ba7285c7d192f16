/** What each side does at the place where two sessions part: the step, before and after, and how the two differ. */
import { boundaryAfter, comparePositions, type Position } from '../../journal/index.js';
import type {
  CpuProfile,
  Level,
  Machine,
  MachineState,
  PhysicalMemory,
  Registers,
  StatedEvent,
} from '../../machine/index.js';
import { R } from '../../machine/index.js';
import { type CodePlace, type DisassembledInstruction, disassemble } from '../disassemble.js';
import { differencesOf } from '../divergence.js';
import { stateDifferences } from '../fold.js';
import type { Timeline } from '../timeline.js';
import type { Pair } from './pair.js';
import { type RamDifference, ramDifferences } from './ram-difference.js';
import type { Side } from './side.js';

/** A machine before its step. `memory` is live: it is as it was there only while the side stands there. */
export interface Before {
  readonly state: MachineState;
  readonly vcpu: number;
  readonly level: Level;
  readonly registers: Registers;
  readonly profile: CpuProfile;
  readonly memory: PhysicalMemory;
  readonly instruction: DisassembledInstruction | undefined;
}

export interface Transition {
  /** What the step states; nothing for an instruction that is part of a run. */
  readonly events: readonly StatedEvent[];
  /** Undefined where this vmtape cannot run the tape to there. */
  readonly before: Before | undefined;
  /** This vmtape does the step; else the events are the tape's. */
  readonly ran: boolean;
  /** What this vmtape states instead of what the tape says. */
  readonly instead: StatedEvent | undefined;
}

/** A value that is another on one side than on the other. */
export interface ValueDifference {
  readonly name: string;
  readonly before?: string | undefined;
  readonly first: string;
  readonly second: string;
}

export interface Transitions {
  readonly sides: Pair<Transition>;
  /** Of the first two events that differ, then of the states after the step. */
  readonly fields: readonly ValueDifference[];
  readonly memory: readonly RamDifference[];
}

const MOST_RANGES = 16;

/**
 * @param except pages that are not compared.
 * @param asTold what the tapes say is taken for it: a tape of another machine differs in a run, and not in one step.
 */
export function transitionsAt(
  sides: Pair<Side>,
  places: Pair<Position>,
  except: ReadonlySet<number>,
  asTold: boolean,
): Transitions {
  const taken = [take(sides[0], places[0], asTold), take(sides[1], places[1], asTold)] as const;
  const [first, second] = taken;
  const events = eventFields(first.transition, second.transition);
  const both = first.machine !== undefined && second.machine !== undefined;
  const states = both ? stateFields(first.machine, second.machine, first.transition.before) : [];
  const known = new Set(events.map(({ name }) => lastWord(name)));
  return {
    sides: [first.transition, second.transition],
    fields: [...events, ...states.filter(({ name }) => !known.has(lastWord(name)))],
    memory: both ? ramDifferences(first.machine.memory, second.machine.memory, except, MOST_RANGES) : [],
  };
}

const lastWord = (name: string): string => name.slice(name.lastIndexOf(' ') + 1);

interface Taken {
  readonly transition: Transition;
  /** It stands after the step; undefined where it could not be run so far. */
  readonly machine: Machine | undefined;
}

function take(side: Side, place: Position, asTold: boolean): Taken {
  const before = beforeAt(side, place);
  const events: StatedEvent[] = [];
  const step = (line: Timeline): Machine => {
    line.observe((stated) => events.push(stated));
    try {
      line.step();
    } finally {
      line.observe(() => {});
    }
    return line.machine;
  };
  const machine = before === undefined || asTold ? undefined : side.attempt(step);
  if (machine === undefined) return { transition: { ...fromTape(side, place), before, ran: false }, machine };
  // A run that the step ends was under way before it.
  return {
    transition: {
      events: events.filter(({ event }) => event.type !== 'cpu.ran'),
      before,
      ran: true,
      instead: undefined,
    },
    machine,
  };
}

export function beforeAt(side: Side, place: Position): Before | undefined {
  const machine = side.at(place)?.machine;
  if (machine === undefined) return undefined;
  const { state } = machine.capture();
  const { vcpu, level, profile, memory } = machine;
  const { registers } = state.vcpus[vcpu] as MachineState['vcpus'][number];
  const features = { physicalAddressBits: profile.physicalAddressBits, gigabytePages: profile.system.has('page1gb') };
  const code: CodePlace = { memory, registers, decoder: machine.engine.decoder, features };
  const [instruction] = disassemble(code, registers[R.rip] as bigint, 1);
  return { state, vcpu, level, registers, profile, memory, instruction };
}

/** What a tape has next; nothing where a run goes on. */
function fromTape({ reader, failed }: Side, place: Position): Omit<Transition, 'before' | 'ran'> {
  const events: StatedEvent[] = [];
  for (const record of reader.records(place.seq)) {
    if (comparePositions(record.position, place) < 0) continue;
    events.push(record);
    // One event, and what it states besides.
    if (events.length > 1 && boundaryAfter(record).icount > (events[0] as typeof record).position.icount) {
      events.pop();
      break;
    }
    if (events.length >= MOST_EVENTS) break;
  }
  return { events, instead: failed?.stated };
}

const MOST_EVENTS = 4;

/** Of the first two events that differ. */
function eventFields(first: Transition, second: Transition): readonly ValueDifference[] {
  const before = (first.before ?? second.before)?.registers ?? ([] as unknown as Registers);
  const count = Math.min(first.events.length, second.events.length);
  for (let index = 0; index < count; index++) {
    const [a, b] = [first.events[index] as StatedEvent, second.events[index] as StatedEvent];
    const differences = differencesOf(a, b, before as unknown as readonly bigint[]);
    if (differences.length === 0) continue;
    return differences.map(({ name, before: old, tape, replay }) => ({
      name,
      before: old,
      first: tape,
      second: replay,
    }));
  }
  return [];
}

function stateFields(first: Machine, second: Machine, before: Before | undefined): readonly ValueDifference[] {
  const old = before === undefined ? new Map<string, string>() : oldValues(first, before);
  return stateDifferences(first.state, second.state)
    .filter(({ path }) => !/^devices\.localApics\.\d+\.features\b/.test(path))
    .map(({ path, first: a, second: b }) => ({
      name: path,
      before: before && (old.get(path) ?? a),
      first: a,
      second: b,
    }));
}

/** What values were before the step, of those that the first side's step changed; the others are as they were. */
function oldValues(machine: Machine, { state }: Before): ReadonlyMap<string, string> {
  return new Map(stateDifferences(state, machine.state).map(({ path, first }) => [path, first]));
}

/**
 * Why two sessions may have parted: at most a few causes, the likeliest first. A cause that was tried, by a machine that does
 * the step at which they parted with nothing else changed, is certain; the others are what is known to be different.
 */
import { formatPosition, type JournalReader, type Position } from '../../journal/index.js';
import {
  DEVIATION_NAMES,
  DEVIATIONS,
  type DeviationName,
  isInput,
  type MachineConfig,
  witnessName,
} from '../../machine/index.js';
import { eventText } from '../event-text.js';
import { type SessionConfig, sessionConfig } from '../session.js';
import { Experiment, type Outcome, outcomeDistance } from './experiment.js';
import type { Pair } from './pair.js';
import type { Side } from './side.js';
import type { PassedOver } from './tolerance.js';
import type { Transition } from './transition.js';

export interface Cause {
  readonly kind: 'policy' | 'configuration' | 'input' | 'origin' | 'version' | 'memory' | 'machine' | 'stopped';
  /** The deviation, the key of the configuration, the kind of input. */
  readonly name: string;
  readonly text: string;
  /** Of its change alone on one side: it does all that the other did, or is nearer to that; or nobody knows. */
  readonly effect: 'whole' | 'part' | 'untried';
}

const MOST_CAUSES = 3;
/** Which a search goes on from. */
const MOST_SEARCHED = 8;

type Configs = Pair<SessionConfig | undefined>;

/** Keys by which two machines may do different things in one step, and be put to the same place. */
const EXCHANGEABLE: ReadonlySet<string> = new Set(['cpu']);

export interface Parting {
  readonly sides: Pair<Side>;
  readonly places: Pair<Position>;
  readonly transitions: Pair<Transition>;
  /** RAM was another before any event told. */
  readonly hidden: boolean;
  /** What differed before. */
  readonly passed: readonly PassedOver[];
}

/** @param search also tries deviations that neither tape names. */
export function causesOf(parting: Parting, search: boolean): readonly Cause[] {
  const { sides, transitions, hidden } = parting;
  const configs: Configs = [configOf(sides[0].reader), configOf(sides[1].reader)];
  const found: Cause[] = [...inputCauses(transitions), ...originCauses(parting)];
  if (found.length === 0) found.push(...triedCauses(parting, configs, search));
  // What was tried is certain; an input that differed before may be why, or not.
  if (!found.some(({ effect }) => effect === 'whole')) found.push(...passedInputs(parting.passed));
  found.push(...knownDifferences(sides, configs).filter(({ name }) => !found.some((cause) => cause.name === name)));
  if (found.length === 0 && hidden) found.push(memoryCause());
  return found.slice(0, search ? MOST_SEARCHED : MOST_CAUSES);
}

function configOf({ header }: JournalReader): SessionConfig | undefined {
  try {
    return sessionConfig(header);
  } catch {
    return undefined;
  }
}

// Inputs

function inputCauses([first, second]: Pair<Transition>): readonly Cause[] {
  const inputs = [first.events[0], second.events[0]].map((stated) =>
    stated !== undefined && isInput(stated.event) ? stated : undefined,
  );
  const [a, b] = inputs;
  const shown = a ?? b;
  if (shown === undefined) return [];
  const name = shown.event.type;
  const text =
    a !== undefined && b !== undefined
      ? `the inputs differ: ${eventText(a)} against ${eventText(b)}`
      : `only the ${a === undefined ? 'second' : 'first'} session has an input here: ${eventText(shown)}`;
  return [{ kind: 'input', name, text, effect: 'untried' }];
}

function originCauses({ sides, places: [{ seq }], hidden }: Parting): readonly Cause[] {
  const begins = sides.some(({ reader }) => reader.header.origin !== undefined && reader.start.seq === seq);
  if (!begins || !hidden) return [];
  return [{ kind: 'origin', name: 'origin', text: 'the sessions go on from states that differ', effect: 'untried' }];
}

/** Inputs that differed before the sessions parted, and were passed over: the last one of each kind. */
function passedInputs(passed: readonly PassedOver[]): readonly Cause[] {
  const last = new Map(passed.filter(({ what }) => what.startsWith('input.')).map((each) => [each.what, each]));
  return [...last.values()].reverse().map(({ what, boundary, only }) => {
    const how = only === undefined ? 'is another on each side' : `is in the ${only} session alone`;
    const text = `${what} at ${formatPosition(boundary)} ${how}, and was passed over`;
    return { kind: 'input', name: what, text, effect: 'untried' };
  });
}

const memoryCause = (): Cause => ({
  kind: 'memory',
  name: 'ram',
  text: 'RAM differs at the beginning, or was changed by what no event tells',
  effect: 'untried',
});

// By trying

interface Candidate {
  readonly cause: Cause;
  readonly config: MachineConfig;
}

function triedCauses({ sides, places, transitions }: Parting, configs: Configs, search: boolean): readonly Cause[] {
  const [a, b] = configs;
  if (!transitions[0].ran && !transitions[1].ran) return [];
  // From the side that can be run: its machine, and what the other one did.
  const from = transitions[0].ran ? 0 : 1;
  const config = configs[from]?.machine;
  const machine = sides[from].at(places[from])?.machine;
  if (config === undefined || machine === undefined) return [];
  const other = configs[1 - from]?.machine;
  const differs = a !== undefined && b !== undefined ? candidatesBetween(config, other as MachineConfig) : [];
  const candidates = search ? allDeviations(config) : differs;
  if (candidates.length === 0) return [];
  const experiment = new Experiment(machine, sides[from].reader);
  const own = experiment.step(config);
  const wanted = wantedOutcome(experiment, transitions[1 - from] as Transition, other);
  const inEvents = transitions[1 - from]?.ran !== true;
  const distance = (outcome: Outcome): number => outcomeDistance(outcome, wanted, inEvents);
  const ownDistance = distance(own);
  if (ownDistance === 0) return [];
  return candidates
    .map(({ cause, config: tried }) => ({ cause, left: distance(experiment.step(tried)) }))
    .filter(({ left }) => left < ownDistance)
    .sort((a, b) => a.left - b.left)
    .map(({ cause, left }) => ({ ...cause, effect: left === 0 ? 'whole' : 'part' }));
}

/** What the other machine does, at the very same place; of a tape that cannot be run, what it says. */
function wantedOutcome(experiment: Experiment, transition: Transition, other: MachineConfig | undefined): Outcome {
  if (transition.ran && other !== undefined) return experiment.step(other);
  const events = transition.events.filter(({ event }) => event.type !== 'cpu.ran');
  return {
    events: events.map(({ retired, vcpu, level, event }) => ({ retired, vcpu, level, event })),
    registers: [],
    failure: undefined,
  };
}

function candidatesBetween(config: MachineConfig, other: MachineConfig): readonly Candidate[] {
  const candidates = deviationCandidates(config, differentDeviations(config, other));
  for (const key of differentKeys(config, other)) {
    if (!EXCHANGEABLE.has(key)) continue;
    candidates.push({ cause: configurationCause(key, config, other), config: { ...config, [key]: other[key] } });
  }
  return candidates;
}

const allDeviations = (config: MachineConfig): readonly Candidate[] => deviationCandidates(config, DEVIATION_NAMES);

function deviationCandidates(config: MachineConfig, names: readonly DeviationName[]): Candidate[] {
  return names.map((name) => ({ cause: policyCause(name, config), config: withToggled(config, [name]) }));
}

/** The machine with each of these deviations where it had none, and without it where it had. */
export function withToggled(config: MachineConfig, names: readonly DeviationName[]): MachineConfig {
  const deviations = new Set<DeviationName>(config.deviations);
  for (const name of names) if (!deviations.delete(name)) deviations.add(name);
  return { ...config, deviations: DEVIATION_NAMES.filter((name) => deviations.has(name)) };
}

function policyCause(name: DeviationName, config: MachineConfig): Cause {
  const { differs, witnesses } = DEVIATIONS[name];
  const rows = [...new Set(witnesses.map((witness) => `${witness.row} ${witnessName(witness)}`))].join('; ');
  const who = config.deviations.includes(name) ? 'second' : 'first';
  const text = `deviation ${name}: ${differs} (${rows}); the ${who} machine does as the manual says: ${DEVIATIONS[name].manual}`;
  return { kind: 'policy', name, text, effect: 'untried' };
}

// By what is known

function knownDifferences([first, second]: Pair<Side>, [a, b]: Configs): readonly Cause[] {
  const found: Cause[] = [];
  if (a !== undefined && b !== undefined) {
    const [one, other] = [a.machine, b.machine];
    for (const key of differentKeys(one, other)) found.push(configurationCause(key, one, other));
    const deviations = differentDeviations(one, other);
    if (deviations.length > 0) {
      const text = `the policies differ in ${deviations.length} deviations: ${deviations.slice(0, 5).join(', ')}${deviations.length > 5 ? ' …' : ''}`;
      found.push({ kind: 'policy', name: 'policies', text, effect: 'untried' });
    }
    if (a.sliceInstructions !== b.sliceInstructions) {
      const text = `slices have ${a.sliceInstructions} instructions, and ${b.sliceInstructions}`;
      found.push({ kind: 'configuration', name: 'sliceInstructions', text, effect: 'untried' });
    }
  }
  for (const key of ['machineVersion', 'vmtapeVersion'] as const) {
    const [one, other] = [first.reader.header[key], second.reader.header[key]];
    if (one === other) continue;
    const what = key === 'machineVersion' ? 'machine model' : 'vmtape';
    found.push({ kind: 'version', name: key, text: `recorded by ${what} ${one}, and by ${other}`, effect: 'untried' });
  }
  for (const [which, side] of [
    ['first', first],
    ['second', second],
  ] as const) {
    if (side.problem === undefined) continue;
    const text = `this vmtape does not do what the ${which} tape says (${side.problem}): another machine recorded it`;
    found.push({ kind: 'machine', name: `${which} machine`, text, effect: 'untried' });
  }
  return found;
}

type Key = Exclude<keyof MachineConfig, 'deviations'>;

const differentKeys = (a: MachineConfig, b: MachineConfig): readonly Key[] =>
  (Object.keys(a) as (keyof MachineConfig)[]).filter((key): key is Key => key !== 'deviations' && a[key] !== b[key]);

const differentDeviations = (a: MachineConfig, b: MachineConfig): readonly DeviationName[] =>
  DEVIATION_NAMES.filter((name) => a.deviations.includes(name) !== b.deviations.includes(name));

const configurationCause = (key: Key, a: MachineConfig, b: MachineConfig): Cause => ({
  kind: 'configuration',
  name: key,
  text: `the machines differ in ${key}: ${a[key]}, and ${b[key]}`,
  effect: 'untried',
});

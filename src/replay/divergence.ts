/**
 * ReplayDivergence: the first place where a replay is not what the tape says, and all that is known there; and its
 * report, one page for a person.
 */
import { formatPosition, type JournalRecord, type Position } from '../journal/index.js';
import {
  decodeDelta,
  decodeVmcbDelta,
  EVENT_FIELDS,
  type Level,
  type Machine,
  type MachineEvent,
  R,
  REGISTER_NAMES,
  type Registers,
  type Slot,
  type StatedEvent,
  vmcbFieldsOfWord,
} from '../machine/index.js';
import { type CodePlace, disassemble, lineOf } from './disassemble.js';
import { eventText, hex, recordText, valueText } from './event-text.js';

export type DivergenceCause =
  /** The machine stated another event than the tape has. */
  | { readonly kind: 'event'; readonly actual: StatedEvent }
  /** The machine stopped, and the tape goes on. */
  | { readonly kind: 'machine-stops'; readonly why: string }
  /** All events are the same, but these parts of the state are not: what no event tells went wrong before. */
  | { readonly kind: 'digest'; readonly parts: readonly string[] };

/** A value that is another on the tape than in the replay. */
export interface Difference {
  readonly name: string;
  /** Before the event; absent for what has no before. */
  readonly before?: string;
  readonly tape: string;
  readonly replay: string;
}

interface Circumstances {
  /** The boundary before the event that differs. */
  readonly position: Position;
  readonly cause: DivergenceCause;
  /** What the tape has there; undefined at its end. */
  readonly expected: JournalRecord | undefined;
  /** Events right before, oldest first: the same on both sides. */
  readonly recent: readonly JournalRecord[];
  /** Registers before the event. */
  readonly before: readonly bigint[];
  readonly machine: Machine;
}

/** Instructions shown from each place. */
const SHOWN_INSTRUCTIONS = 3;

export class ReplayDivergence {
  readonly position: Position;
  readonly cause: DivergenceCause;
  readonly expected: JournalRecord | undefined;
  readonly actual: StatedEvent | undefined;
  readonly recent: readonly JournalRecord[];
  /** The level that ran. */
  readonly level: Level;
  /** Registers, VMCB words and fields of the event that differ. */
  readonly differences: readonly Difference[];
  /** The code around, a heading and lines for each place. */
  readonly code: readonly (readonly [heading: string, lines: readonly string[]])[];

  constructor({ position, cause, expected, recent, before, machine }: Circumstances) {
    this.position = position;
    this.cause = cause;
    this.expected = expected;
    this.actual = cause.kind === 'event' ? cause.actual : undefined;
    this.recent = recent;
    this.level = this.actual?.level ?? expected?.level ?? machine.level;
    this.differences =
      this.actual === undefined || expected === undefined ? [] : differencesOf(expected, this.actual, before);
    this.code = codeAround(machine, before, expected, this.actual);
  }

  /** One line: where, and what. */
  get summary(): string {
    const { cause } = this;
    const at = formatPosition(this.position);
    const where = `at ${at}, in L${this.level}`;
    if (cause.kind === 'event') return `The replay diverges from the tape ${where}.`;
    if (cause.kind === 'machine-stops') return `The replay stops ${where}, and the tape goes on: ${cause.why}.`;
    return `All events up to ${at} are the same, but not the state: ${cause.parts.join(', ')}.`;
  }

  /** One page. */
  report(): string {
    return [
      this.summary,
      '',
      `  tape:   ${this.expected === undefined ? 'ends here' : eventText(this.expected)}`,
      ...(this.cause.kind === 'digest' ? [] : [`  replay: ${this.replayText()}`]),
      ...section('What differs', differenceLines(this.differences)),
      ...this.code.flatMap(([heading, lines]) => section(heading, lines)),
      ...section('Events before', this.recent.map(recordText)),
    ].join('\n');
  }

  private replayText(): string {
    if (this.actual !== undefined) return eventText(this.actual);
    return this.cause.kind === 'machine-stops' ? this.cause.why : '';
  }
}

function section(heading: string, lines: readonly string[]): readonly string[] {
  return lines.length === 0 ? [] : ['', `${heading}:`, ...lines.map((line) => `  ${line}`)];
}

function differenceLines(differences: readonly Difference[]): readonly string[] {
  if (differences.length === 0) return [];
  const rows = [
    ['', 'before', 'tape', 'replay'],
    ...differences.map(({ name, before = '', tape, replay }) => [name, before, tape, replay]),
  ];
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

/** Where two events differ, by name. @param before registers before them. */
export function differencesOf(
  expected: StatedEvent,
  actual: StatedEvent,
  before: readonly bigint[],
): readonly Difference[] {
  return [
    ...envelopeDifferences(expected, actual),
    ...fieldDifferences(expected.event, actual.event),
    ...registerDifferences(expected.event, actual.event, before),
    ...vmcbDifferences(expected.event, actual.event),
  ];
}

function envelopeDifferences(expected: StatedEvent, actual: StatedEvent): readonly Difference[] {
  return (['retired', 'vcpu', 'level'] as const)
    .filter((name) => expected[name] !== actual[name])
    .map((name) => ({ name, tape: String(expected[name]), replay: String(actual[name]) }));
}

/** Fields of two events of the same type; what registers and VMCBs differ in is told by name. */
function fieldDifferences(expected: MachineEvent, actual: MachineEvent): readonly Difference[] {
  if (expected.type !== actual.type) return [{ name: 'event', tape: expected.type, replay: actual.type }];
  const tape = expected as unknown as Readonly<Record<string, unknown>>;
  const replay = actual as unknown as Readonly<Record<string, unknown>>;
  return EVENT_FIELDS[expected.type]
    .filter((name) => name !== 'registers' && name !== 'words')
    .map((name) => ({ name, tape: valueText(tape[name]), replay: valueText(replay[name]) }))
    .filter((difference) => difference.tape !== difference.replay);
}

const deltaOf = (event: MachineEvent): ReadonlyMap<Slot, bigint> =>
  new Map('registers' in event ? decodeDelta(event.registers) : []);

function registerDifferences(
  expected: MachineEvent,
  actual: MachineEvent,
  before: readonly bigint[],
): readonly Difference[] {
  const tape = deltaOf(expected);
  const replay = deltaOf(actual);
  const slots = [...new Set([...tape.keys(), ...replay.keys()])].sort((a, b) => a - b);
  return slots.flatMap((slot) => {
    const old = before[slot] ?? 0n;
    const onTape = tape.get(slot) ?? old;
    const inReplay = replay.get(slot) ?? old;
    if (onTape === inReplay) return [];
    return [
      { name: REGISTER_NAMES[slot] ?? `slot ${slot}`, before: hex(old), tape: hex(onTape), replay: hex(inReplay) },
    ];
  });
}

const wordsOf = (event: MachineEvent): ReadonlyMap<number, bigint> =>
  new Map('words' in event ? decodeVmcbDelta(event.words) : []);

function vmcbDifferences(expected: MachineEvent, actual: MachineEvent): readonly Difference[] {
  const tape = wordsOf(expected);
  const replay = wordsOf(actual);
  const words = [...new Set([...tape.keys(), ...replay.keys()])].sort((a, b) => a - b);
  const text = (value: bigint | undefined): string => (value === undefined ? 'unchanged' : hex(value));
  return words.flatMap((word) => {
    if (tape.get(word) === replay.get(word)) return [];
    const name = `VMCB ${vmcbFieldsOfWord(word).join('+') || `+${hex(word * 8)}`}`;
    return [{ name, tape: text(tape.get(word)), replay: text(replay.get(word)) }];
  });
}

/** The code where the event began, and where a run led to on either side. */
function codeAround(
  machine: Machine,
  before: readonly bigint[],
  expected: JournalRecord | undefined,
  actual: StatedEvent | undefined,
): ReplayDivergence['code'] {
  const { memory, profile, engine } = machine;
  const features = { physicalAddressBits: profile.physicalAddressBits, gigabytePages: profile.system.has('page1gb') };
  const place: CodePlace = { memory, registers: before as unknown as Registers, decoder: engine.decoder, features };
  const start = before[R.rip] ?? 0n;
  const places = new Map<bigint, string>([[start, 'Code before']]);
  for (const [stated, side] of [
    [expected, 'the tape'],
    [actual, 'the replay'],
  ] as const) {
    if (stated?.event.type !== 'cpu.ran') continue;
    const rip = deltaOf(stated.event).get(R.rip) ?? start;
    if (!places.has(rip)) places.set(rip, `Code where the run of ${side} ended`);
    else if (rip !== start) places.set(rip, 'Code where both runs ended');
  }
  return [...places].map(
    ([rip, heading]) => [heading, disassemble(place, rip, SHOWN_INSTRUCTIONS).map(lineOf)] as const,
  );
}

/**
 * Lines up a tape with a log of the same guest, by their sequences of exits, vCPU by vCPU, and finds the first pair that
 * differs. The log may begin later than the tape: where its first exits stand on the tape is looked for.
 *
 * Exits that L1 is given are compared: those of L2 in a log of nested virtualization, those of the guest itself in a log of a
 * hypervisor that stands where the tape's L1 does. What the host's time decides is passed over on both sides.
 */
import type { JournalReader, Position } from '../../src/journal/index.js';
import { ExitCode } from '../../src/machine/index.js';
import type { ExitFacts } from './log-event.js';
import type { LogReader } from './log-reader.js';
import { NestedExits, type NestedFact } from './nested-exits.js';
import { type TapeExit, tapeExits } from './tape-exits.js';

/** Whose exits of the log are meant: L2's that L1 was given, or those of the guest itself. */
export type Whose = 'nested' | 'own';
export type Field = 'rip' | 'info';

export interface LogExit {
  readonly line: number;
  readonly subject: string;
  readonly exit: ExitFacts;
}

export interface AlignOptions {
  readonly whose: Whose;
  /** EXITCODEs that are passed over. */
  readonly ignored: ReadonlySet<bigint>;
  /** What is compared besides the code. */
  readonly fields: ReadonlySet<Field>;
  /** Where the tape's exits begin; looked for without. */
  readonly from?: Position | undefined;
}

/** Two sequences up to their first difference, or the end of one. */
export interface Alignment {
  readonly vcpu: number;
  readonly subject: string;
  /** Exits that are the same. */
  readonly same: number;
  /** Exits of the tape ahead of the log's first one. */
  readonly ahead: number;
  readonly begins: Position | undefined;
  /** The last pairs that are the same, the latest last. */
  readonly before: readonly (readonly [TapeExit, LogExit])[];
  /** The first pair that differs; undefined when one of them came to its end. */
  readonly differs: readonly [TapeExit, LogExit] | undefined;
  readonly ended: 'tape' | 'log' | undefined;
}

const CONTEXT = 3;
/** Exits of the log that are looked for on the tape. */
const PROBE = 64;

/** Which exits the host's time decides. */
export const BY_TIME: ReadonlySet<bigint> = new Set([
  ExitCode.INTR,
  ExitCode.NMI,
  ExitCode.SMI,
  ExitCode.INIT,
  ExitCode.VINTR,
]);

/** EXITINFO1 of these says the same on every machine; elsewhere it may be an address, or need decode assists. */
const WITH_INFO: ReadonlySet<bigint> = new Set([ExitCode.IOIO, ExitCode.MSR]);

/** Exits of a log in order. */
function* logExits(log: LogReader, whose: Whose, tick: () => void = () => {}): Generator<LogExit, void, void> {
  const nested = new NestedExits();
  function* wanted(facts: Iterable<NestedFact>): Generator<LogExit, void, void> {
    for (const fact of facts) {
      const isWanted =
        whose === 'own' ? fact.kind === 'own-exit' : fact.kind === 'exit' && fact.outcome === 'reflected';
      if (isWanted && fact.kind !== 'given') {
        yield { line: fact.line, subject: fact.subject, exit: fact.exit };
      }
    }
  }
  for (const record of log.records(tick)) yield* wanted(nested.take(record));
  yield* wanted(nested.finish());
}

function isSame(tape: TapeExit, { exit }: LogExit, fields: ReadonlySet<Field>): boolean {
  if (exit.reason.code !== tape.code) return false;
  if (fields.has('rip') && tape.rip !== undefined && exit.rip !== undefined && exit.rip !== tape.rip) return false;
  return !(fields.has('info') && WITH_INFO.has(tape.code) && exit.info1 !== undefined && exit.info1 !== tape.info1);
}

/** What a first reading of a log comes to, by subject. */
export interface Probe {
  /** As the log calls it, where it does. */
  readonly vcpu: string | undefined;
  /** The first exits that are compared. */
  readonly exits: readonly LogExit[];
}

/** One vCPU of a tape against one subject of a log. */
class Lane {
  private readonly waiting: TapeExit[] = [];
  private readonly pairs: (readonly [TapeExit, LogExit])[] = [];
  same = 0;
  ahead = 0;
  begins: Position | undefined;
  differs: readonly [TapeExit, LogExit] | undefined;
  ended: Alignment['ended'];

  constructor(
    readonly vcpu: number,
    readonly subject: string,
    private readonly fields: ReadonlySet<Field>,
  ) {}

  get isOpen(): boolean {
    return this.differs === undefined && this.ended === undefined;
  }

  give(exit: TapeExit): void {
    this.waiting.push(exit);
  }

  /** @param pull brings more exits of the tape. @returns false when the tape has no more. */
  take(log: LogExit, pull: () => boolean): void {
    while (this.waiting.length === 0) {
      if (pull()) continue;
      this.ended = 'tape';
      return;
    }
    const tape = this.waiting.shift() as TapeExit;
    this.begins ??= tape.position;
    if (!isSame(tape, log, this.fields)) {
      this.differs = [tape, log];
      return;
    }
    this.same++;
    this.pairs.push([tape, log]);
    if (this.pairs.length > CONTEXT) this.pairs.shift();
  }

  get result(): Alignment {
    const { vcpu, subject, same, ahead, begins, differs, ended, pairs } = this;
    return { vcpu, subject, same, ahead, begins, before: pairs, differs, ended };
  }
}

/** @param probe the first exits of the same log, by subject (`probeOf`). */
export function align(
  reader: JournalReader,
  log: LogReader,
  probe: ReadonlyMap<string, Probe>,
  options: AlignOptions,
  tick: () => void = () => {},
): readonly Alignment[] {
  const lanes = lanesOf(probe, options.fields);
  const starts = options.from === undefined ? startsOf(reader, lanes, probe, options) : new Map<Lane, number>();
  const byVcpu = new Map(lanes.map((lane) => [lane.vcpu, lane]));
  const bySubject = new Map(lanes.map((lane) => [lane.subject, lane]));
  const tape = compared(tapeExits(reader, options.from), options.ignored);
  const pull = (): boolean => {
    const next = tape.next();
    if (next.done === true) return false;
    const lane = byVcpu.get(next.value.vcpu);
    if (lane?.isOpen !== true) return true;
    if (lane.ahead < (starts.get(lane) ?? 0)) lane.ahead++;
    else lane.give(next.value);
    return true;
  };
  for (const exit of logExits(log, options.whose, tick)) {
    const { code } = exit.exit.reason;
    const lane = bySubject.get(exit.subject);
    if (lane?.isOpen !== true || (code !== undefined && options.ignored.has(code))) continue;
    lane.take(exit, pull);
    if (lanes.every(({ isOpen }) => !isOpen)) break;
  }
  for (const lane of lanes) if (lane.isOpen) lane.ended = 'log';
  return lanes.map(({ result }) => result);
}

/** Reads a log to its end: its subjects, and how each begins. */
export function probeOf(log: LogReader, { whose, ignored }: AlignOptions): ReadonlyMap<string, Probe> {
  const found = new Map<string, LogExit[]>();
  for (const exit of logExits(log, whose)) {
    const { code } = exit.exit.reason;
    if (code !== undefined && ignored.has(code)) continue;
    const own = found.get(exit.subject) ?? [];
    if (own.length < PROBE) own.push(exit);
    found.set(exit.subject, own);
  }
  return new Map([...found].map(([subject, exits]) => [subject, { vcpu: log.vcpuOf(subject), exits }]));
}

/** Subjects that the log calls by a vCPU's number are that one; the others get vCPUs in the order in which they appear. */
function lanesOf(probe: ReadonlyMap<string, Probe>, fields: ReadonlySet<Field>): readonly Lane[] {
  const taken = new Map<number, string>();
  const nameless: string[] = [];
  for (const [subject, { vcpu }] of probe) {
    const number = Number(/^(?:d\d+v)?(\d+)$/.exec(vcpu ?? subject)?.[1]);
    const isNumbered = vcpu !== undefined || subject.startsWith('d');
    if (!isNumbered || Number.isNaN(number) || taken.has(number)) nameless.push(subject);
    else taken.set(number, subject);
  }
  for (const subject of nameless) {
    let number = 0;
    while (taken.has(number)) number++;
    taken.set(number, subject);
  }
  return [...taken].map(([vcpu, subject]) => new Lane(vcpu, subject, fields));
}

/** How many exits of the tape stand ahead of each lane's first one: where the most of its first exits are the same. */
function startsOf(
  reader: JournalReader,
  lanes: readonly Lane[],
  probe: ReadonlyMap<string, Probe>,
  { ignored, fields }: AlignOptions,
): ReadonlyMap<Lane, number> {
  const states = new Map(lanes.map((lane) => [lane.vcpu, new Search(probe.get(lane.subject)?.exits ?? [], fields)]));
  for (const exit of compared(tapeExits(reader), ignored)) {
    states.get(exit.vcpu)?.take(exit);
    if ([...states.values()].every(({ isDone }) => isDone)) break;
  }
  return new Map(lanes.map((lane) => [lane, states.get(lane.vcpu)?.best.start ?? 0]));
}

/** All places at which the first exits of a log may still begin. */
class Search {
  private candidates: { start: number; length: number }[] = [];
  private count = 0;
  best = { start: 0, length: 0 };

  constructor(
    private readonly probe: readonly LogExit[],
    private readonly fields: ReadonlySet<Field>,
  ) {}

  get isDone(): boolean {
    return this.best.length >= this.probe.length;
  }

  take(exit: TapeExit): void {
    if (this.isDone) return;
    this.candidates.push({ start: this.count++, length: 0 });
    const { probe, fields } = this;
    this.candidates = this.candidates.filter((candidate) => {
      const wanted = probe[candidate.length];
      if (wanted === undefined || !isSame(exit, wanted, fields)) return false;
      candidate.length++;
      if (candidate.length > this.best.length) this.best = candidate;
      return true;
    });
  }
}

function* compared(exits: Iterable<TapeExit>, ignored: ReadonlySet<bigint>): Generator<TapeExit, void, void> {
  for (const exit of exits) if (!ignored.has(exit.code)) yield exit;
}

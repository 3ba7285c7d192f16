/**
 * Runs a tape again: feeds its inputs where they stood, compares every event and every state digest, and stops at the
 * first difference.
 *
 * The machine is run from boundary to boundary as it was when it was recorded: to the end of each slice, and to where
 * inputs, digests and the end of the tape stand. All of these are on the tape, so equal machines come to them alike.
 */
import {
  boundaryAfter,
  type JournalReader,
  type JournalRecord,
  type Position,
  START,
  type StateDigest,
  sameBytes,
  type TapeState,
} from '../journal/index.js';
import {
  type EventSink,
  InputError,
  instructionCount,
  Machine,
  REGISTER_NAMES,
  type StatedEvent,
} from '../machine/index.js';
import { type DivergenceCause, ReplayDivergence } from './divergence.js';
import { checkpointBefore, enterCheckpoint } from './enter-checkpoint.js';
import { EventComparer } from './event-comparer.js';
import { feedInput } from './feed-input.js';
import { requireSameModel, type SessionConfig, sessionConfig, sliceEnd } from './session.js';
import { RamDigester, stateDigests } from './state-digest.js';
import { TapeCursor } from './tape-cursor.js';

export type ReplayOutcome =
  /** Every event and digest up to the end of the tape is the same. */
  | {
      readonly kind: 'identical';
      readonly end: Position;
      readonly tape: TapeState;
      /** State digests that were compared. */
      readonly digests: number;
      /** How the recorded session ended: by itself, by its host, or not at all (killed, or still being recorded). */
      readonly ending: 'ended' | 'stopped' | 'cut' | 'recording';
    }
  /** `to` is reached, and everything up to there is the same. */
  | { readonly kind: 'reached'; readonly at: Position }
  | { readonly kind: 'diverged'; readonly divergence: ReplayDivergence };

export interface ReplayerOptions {
  /** Start at the last checkpoint at or before this boundary instead of the start. */
  readonly from?: Position | undefined;
  /** Stop at this boundary instead of the end. The machine then stands there: see `Replayer.machine`. */
  readonly to?: Position | undefined;
  /** Sees every event that was found the same. */
  readonly observe?: EventSink | undefined;
}

/** Thrown out of the sink, through the machine, by which the run stops at once. */
class StopReplay extends Error {
  constructor(readonly outcome: ReplayOutcome) {
    super('the replay stops here');
  }
}

export class Replayer {
  /** The machine. It stands where the replay does, at a boundary; after a divergence, behind the event that differed. */
  readonly machine: Machine;
  /** Where the replay began. */
  readonly start: Position;
  private readonly session: SessionConfig;
  private readonly cursor: TapeCursor;
  private readonly comparer: EventComparer;
  private readonly end: Position;
  private readonly endIcount: number;
  private readonly endSeq: number;
  /** Registers before the event that comes next: what a divergence is told by. */
  private readonly before = new BigUint64Array(REGISTER_NAMES.length);
  private readonly ram: RamDigester;
  private digests = 0;
  /** The session ended by itself, on the tape. */
  private ended = false;
  private outcome: ReplayOutcome | undefined;

  /** @throws InputError when this vmtape cannot replay the tape; the journal's errors when it is damaged. */
  constructor(
    private readonly reader: JournalReader,
    private readonly options: ReplayerOptions = {},
  ) {
    requireSameModel(reader.header);
    this.session = sessionConfig(reader.header);
    const near = options.from && reader.checkpoint(checkpointBefore(reader, options.from)?.id ?? 0);
    const checkpoint = near ?? reader.origin();
    this.start = checkpoint?.position ?? START;
    this.cursor = new TapeCursor(reader, this.start.seq);
    this.comparer = new EventComparer(this.cursor, reader, this.start);
    this.end = options.to ?? reader.end;
    this.endIcount = exactNumber(this.end.icount);
    this.endSeq = exactNumber(this.end.seq);
    this.machine = new Machine(this.session.machine, (stated) => this.take(stated));
    if (checkpoint !== undefined) enterCheckpoint(this.machine, reader, checkpoint);
    this.ended = this.machine.state.ended !== null;
    this.ram = new RamDigester(this.machine.memory);
    this.keepRegisters();
  }

  /** The number of the next event: all before it, from the start of the replay on, were found the same. */
  get compared(): number {
    return this.comparer.compared;
  }

  /** Replays to the end, whatever it is. */
  run(): ReplayOutcome {
    for (;;) {
      const outcome = this.step();
      if (outcome !== undefined) return outcome;
    }
  }

  /** Replays to the next boundary. @returns the outcome once there is one. */
  step(): ReplayOutcome | undefined {
    if (this.outcome === undefined) {
      try {
        this.outcome = this.advance();
      } catch (error) {
        this.outcome = this.outcomeOf(error);
      }
      if (this.outcome !== undefined) this.cursor.close();
    }
    return this.outcome;
  }

  private advance(): ReplayOutcome | undefined {
    const { machine, cursor } = this;
    const difference = this.checkDigests();
    if (difference !== undefined) return difference;
    if (this.atEnd) return this.finished();
    const input = cursor.inputUpTo(BigInt(machine.retired));
    if (input !== undefined && input.position.seq === BigInt(this.compared)) {
      cursor.inputFed();
      feedInput(machine, this.reader, input);
      return undefined;
    }
    const stop = machine.advance(instructionCount(this.nextStop()));
    if (stop === 'idle') {
      const waits = cursor.inputUpTo(BigInt(machine.retired));
      if (waits?.position.seq === BigInt(this.compared) || this.atEnd) return undefined;
      if (this.nextRecord()?.event.type === 'machine.ended') machine.endIdle();
      else return this.diverged({ kind: 'machine-stops', why: 'every vCPU waits and nothing will wake one' });
    } else if (stop === 'ended' && !this.atEnd) {
      const { reason, status } = machine.state.ended ?? { reason: 'reset', status: 0 };
      return this.diverged({ kind: 'machine-stops', why: `the session has ended: ${reason}, status ${status}` });
    }
    return undefined;
  }

  private get atEnd(): boolean {
    return this.compared >= this.endSeq && this.machine.retired >= this.endIcount;
  }

  /**
   * How far to run: to the end of the slice, or to a place ahead where an input, a digest or the end stands. Where such a
   * place is reached but events before it are still to come, they retire nothing, and the machine runs on to meet them.
   */
  private nextStop(): number {
    const retired: number = this.machine.retired;
    const slice = sliceEnd(this.session, retired);
    const places = [
      this.cursor.inputUpTo(BigInt(slice))?.position.icount,
      this.cursor.nextDigest?.position.icount,
      this.end.icount,
    ];
    let stop = slice;
    for (const place of places) {
      if (place === undefined || place > BigInt(slice)) continue;
      const icount = Number(place);
      if (icount > retired && icount < stop) stop = icount;
    }
    return stop;
  }

  /** The sink: what the machine states. */
  private take(stated: StatedEvent): void {
    const { comparer, endSeq } = this;
    if (comparer.compared >= endSeq && this.endsAnywhere) throw new StopReplay(this.finished());
    if (!comparer.accept(stated)) throw new StopReplay(this.diverged({ kind: 'event', actual: stated }));
    if (stated.event.type === 'machine.ended') this.ended = true;
    this.options.observe?.(stated);
    this.keepRegisters();
    if (comparer.compared === endSeq && this.options.to !== undefined && this.atEnd) {
      throw new StopReplay(this.finished());
    }
  }

  /**
   * True when the end may lie amid what the machine does at one instruction: what follows is then on no tape. A tape
   * that its writer ended has nothing after its end.
   */
  private get endsAnywhere(): boolean {
    return this.options.to !== undefined || this.reader.state !== 'complete';
  }

  private keepRegisters(): void {
    this.before.set(this.machine.registers as unknown as ArrayLike<bigint>);
  }

  private checkDigests(): ReplayOutcome | undefined {
    const { nextDigest } = this.cursor;
    if (nextDigest === undefined) return undefined;
    const compared = BigInt(this.compared);
    if (nextDigest.position.seq > compared || nextDigest.position.icount > BigInt(this.machine.retired))
      return undefined;
    const taken = this.cursor.takeDigests();
    if (nextDigest.position.seq < compared) {
      return this.diverged({
        kind: 'machine-stops',
        why: 'the machine did not stop where the tape has a state digest',
      });
    }
    const parts = this.differingParts(taken);
    if (parts.length > 0) return this.diverged({ kind: 'digest', parts });
    this.digests += taken.length;
    return undefined;
  }

  private differingParts(expected: readonly StateDigest[]): readonly string[] {
    // At the end RAM is digested whole, for the sake of whoever wrote to it unseen.
    const ram = this.atEnd ? new RamDigester(this.machine.memory) : this.ram;
    const actual: Readonly<Record<string, Uint8Array>> = stateDigests(this.machine, ram);
    return expected.filter(({ kind, value }) => !sameBytes(actual[kind] ?? NO_DIGEST, value)).map(({ kind }) => kind);
  }

  private finished(): ReplayOutcome {
    const { to } = this.options;
    if (to !== undefined) return { kind: 'reached', at: to };
    const { state, end } = this.reader;
    const ending = this.ended ? 'ended' : state === 'complete' ? 'stopped' : state === 'cut' ? 'cut' : 'recording';
    return { kind: 'identical', end, tape: state, digests: this.digests, ending };
  }

  private outcomeOf(error: unknown): ReplayOutcome {
    if (error instanceof StopReplay) return error.outcome;
    const fromMachine = error instanceof Error && ['InvariantError', 'UnsupportedError'].includes(error.name);
    if (!fromMachine) throw error;
    // A machine that fails where the tape ends did so when it was recorded.
    if (this.compared >= this.endSeq) return this.finished();
    return this.diverged({ kind: 'machine-stops', why: `the machine fails: ${error.message}` });
  }

  private diverged(cause: DivergenceCause): ReplayOutcome {
    const { reader, machine, before, compared } = this;
    const expected = this.nextRecord();
    const recent = [...take(reader.records(BigInt(Math.max(0, compared - RECENT_EVENTS))), RECENT_EVENTS)].filter(
      ({ position }) => position.seq < BigInt(compared),
    );
    const last = recent.at(-1);
    const position = last === undefined ? reader.start : boundaryAfter(last);
    const divergence = new ReplayDivergence({ position, cause, expected, recent, before: [...before], machine });
    return { kind: 'diverged', divergence };
  }

  /** What the tape has next. */
  private nextRecord(): JournalRecord | undefined {
    const [record] = take(this.reader.records(BigInt(this.compared)), 1);
    return record;
  }
}

const RECENT_EVENTS = 8;
const NO_DIGEST = new Uint8Array(0);

function* take<Item>(items: Iterable<Item>, count: number): Generator<Item, void, void> {
  let left = count;
  if (left <= 0) return;
  for (const item of items) {
    yield item;
    if (--left <= 0) return;
  }
}

function exactNumber(icount: bigint): number {
  if (icount > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new InputError(
      'position',
      `instruction ${icount} is beyond what this machine counts`,
      'Choose an earlier one.',
    );
  }
  return Number(icount);
}

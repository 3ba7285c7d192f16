/**
 * Runs a tape again: feeds its inputs where they stood, compares every event and every state digest, and stops at the
 * first difference.
 *
 * The machine is run from boundary to boundary: to the end of each slice, as when it was recorded, and to where inputs, digests
 * and the end of the tape stand. All of these are on the tape, so equal machines come to them alike. Such a place may lie ahead of
 * what is due at its instruction, or amid that: a debugger writes wherever it has stopped. So the machine comes to a place before
 * what is due there, and from there goes step by step.
 */
import {
  boundaryAfter,
  type Checkpoint,
  comparePositions,
  type JournalReader,
  type JournalRecord,
  type Position,
  START,
  type StateDigest,
  sameBytes,
  type TapeState,
} from '../journal/index.js';
import {
  type AdvanceStop,
  type EventSink,
  InputError,
  instructionCount,
  Machine,
  REGISTER_NAMES,
  type StatedEvent,
} from '../machine/index.js';
import { type DivergenceCause, ReplayDivergence } from './divergence.js';
import { checkpointBefore, Entrance } from './enter-checkpoint.js';
import { EventComparer } from './event-comparer.js';
import { feedInput } from './feed-input.js';
import { requireSameModel, type SessionConfig, sessionConfig, sliceEnd } from './session.js';
import { RamDigester, type StateDigests, stateDigests } from './state-digest.js';
import { TapeCursor } from './tape-cursor.js';
import type { Work } from './work.js';

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
  private readonly entrance: Entrance;
  private cursor: TapeCursor;
  private comparer: EventComparer;
  private readonly end: Position;
  private readonly endIcount: number;
  private readonly endSeq: number;
  /** Registers before the event that comes next: what a divergence is told by. */
  private readonly before = new BigUint64Array(REGISTER_NAMES.length);
  private readonly ram: RamDigester;
  /** Where to come to before going on. */
  private place: Position | undefined;
  /** State digests that were compared. */
  digests = 0;
  /** Every event ends a step. */
  private stepping = false;
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
    this.entrance = new Entrance(this.machine, reader);
    if (checkpoint !== undefined) this.entrance.enter(checkpoint);
    this.ram = new RamDigester(this.machine.memory);
    this.arrived();
  }

  /** The number of the next event: all before it, from the start of the replay on, were found the same. */
  get compared(): number {
    return this.comparer.compared;
  }

  /** Where the replay stands. */
  get position(): Position {
    return { icount: BigInt(this.machine.retired), seq: BigInt(this.compared) };
  }

  /** Parts of the state here, RAM as of now. */
  get stateDigests(): StateDigests {
    return stateDigests(this.machine, this.ram);
  }

  /** Goes on from another checkpoint, with what is compiled. There must be no outcome yet. */
  enter(checkpoint: Checkpoint): void {
    this.cursor.close();
    this.entrance.enter(checkpoint);
    this.cursor = new TapeCursor(this.reader, checkpoint.position.seq);
    this.comparer = new EventComparer(this.cursor, this.reader, checkpoint.position);
    this.arrived();
  }

  private arrived(): void {
    this.ended = this.machine.state.ended !== null;
    // Amid a run a divergence is told by what was before it.
    this.before.set(this.machine.engine.shadow);
  }

  /**
   * Replays to a place where the recorder stopped, and compares the digests there; it can go on then.
   * @param place undefined for the end, whatever it is. @returns the outcome when that comes first.
   */
  *replayingTo(place: Position | undefined): Work<ReplayOutcome | undefined> {
    this.place = place;
    while (this.outcome === undefined && (place === undefined || comparePositions(this.position, place) < 0)) {
      this.step();
      yield this.position;
    }
    this.place = undefined;
    if (this.outcome !== undefined || place === undefined) return this.outcome;
    const why = 'the machine did not stop where the tape has a checkpoint';
    return comparePositions(this.position, place) > 0
      ? this.attempt(() => this.diverged({ kind: 'machine-stops', why }))
      : this.compareDigests();
  }

  /** Compares the digests that the tape has here. @returns the outcome when they differ. */
  compareDigests(): ReplayOutcome | undefined {
    return this.attempt(() => this.checkDigests());
  }

  /** Leaves the tape. */
  close(): void {
    this.cursor.close();
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
    return this.attempt(() => this.advance());
  }

  private attempt(work: () => ReplayOutcome | undefined): ReplayOutcome | undefined {
    if (this.outcome === undefined) {
      try {
        this.outcome = work();
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
    const place = this.nextPlace();
    if (place !== undefined && this.endsPendingRun(place)) {
      machine.flushRun();
      return undefined;
    }
    const input = cursor.inputUpTo(BigInt(machine.retired));
    if (input !== undefined && input.position.seq === BigInt(this.compared)) {
      cursor.inputFed();
      feedInput(machine, this.reader, input);
      return undefined;
    }
    const stop = this.runTowards(place);
    if (stop === 'idle') {
      machine.flushRun();
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

  /** The first place ahead, or here with events before it still to come, where an input, a digest or the end stands. */
  private nextPlace(): Position | undefined {
    const slice = BigInt(sliceEnd(this.session, this.machine.retired));
    const places = [this.cursor.inputUpTo(slice)?.position, this.cursor.nextDigest?.position, this.place, this.end];
    return places.reduce<Position | undefined>((first, place) => {
      if (place === undefined || place.icount > slice) return first;
      return first === undefined || comparePositions(place, first) < 0 ? place : first;
    }, undefined);
  }

  /** Whether the run under way is all that is missing before a place. */
  private endsPendingRun({ icount, seq }: Position): boolean {
    const { machine, compared } = this;
    return machine.hasPendingRun && icount === BigInt(machine.retired) && seq === BigInt(compared + 1);
  }

  private runTowards(place: Position | undefined): AdvanceStop {
    const { machine } = this;
    const retired = BigInt(machine.retired);
    // Past a place whose events have not come: the next event will tell.
    if (place === undefined || place.icount < retired) {
      return machine.advance(instructionCount(sliceEnd(this.session, machine.retired)));
    }
    if (place.icount > retired) return machine.runUpTo(instructionCount(Number(place.icount)));
    this.stepping = true;
    try {
      return machine.runUpTo(instructionCount(machine.retired + 1));
    } finally {
      this.stepping = false;
    }
  }

  /** The sink: what the machine states. */
  private take(stated: StatedEvent): void {
    const { comparer, endSeq } = this;
    if (comparer.compared >= endSeq && this.endsAnywhere) throw new StopReplay(this.finished());
    if (!comparer.accept(stated)) throw new StopReplay(this.diverged({ kind: 'event', actual: stated }));
    if (stated.event.type === 'machine.ended') this.ended = true;
    this.options.observe?.(stated);
    this.keepRegisters();
    if (this.stepping) this.machine.pause();
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

/**
 * Runs a machine along a tape, from any place on it: feeds its inputs where they stood and compares every event. Other than
 * the replayer it may stop and go on anywhere between two steps of the machine; where it stops shows in no event.
 */
import { formatPosition, type JournalReader, type Position } from '../journal/index.js';
import {
  type EventSink,
  type Hit,
  instructionCount,
  Machine,
  type MachinePoint,
  type StatedEvent,
} from '../machine/index.js';
import { enterOrigin } from './enter-checkpoint.js';
import { EventComparer } from './event-comparer.js';
import { feedInput, giveImage } from './feed-input.js';
import { requireSameModel, type SessionConfig, sessionConfig, sliceEnd } from './session.js';
import { TapeCursor } from './tape-cursor.js';

/** The machine does not do what the tape says. `vmtape replay` tells how they differ. */
export class FollowingError extends Error {
  override name = 'FollowingError';
  constructor(
    readonly position: Position,
    readonly what: string,
    /** What the machine states, and the tape does not have there. */
    readonly stated?: StatedEvent,
  ) {
    super(`at ${formatPosition(position)} ${what}. Replay the tape to see how they differ`);
  }
}

/** Thrown amid a step of which the tape has but the beginning: it was cut there. The follower must `enter` somewhere again. */
export class PastEnd extends Error {
  override name = 'PastEnd';
}

/** Where to stop: as soon as one of the two is reached. */
export interface Target {
  readonly icount: bigint;
  readonly seq: bigint;
}

export class TapeFollower {
  readonly machine: Machine;
  /** Sees every event that was found the same. */
  observe: EventSink | undefined;
  protected readonly session: SessionConfig;
  private cursor: TapeCursor;
  private comparer: EventComparer;
  /** Digest of the boot image that the machine was given last. */
  private imageGiven: string | undefined;
  /** Every event ends a step. */
  protected stepping = false;
  /** The number of events at which to stop. */
  protected pauseSeq = Number.POSITIVE_INFINITY;

  /** Stands at the start. @throws InputError when this vmtape cannot make the machine. */
  constructor(protected readonly reader: JournalReader) {
    requireSameModel(reader.header);
    this.session = sessionConfig(reader.header);
    this.cursor = new TapeCursor(reader, reader.start.seq);
    this.comparer = new EventComparer(this.cursor, reader, reader.start);
    this.machine = new Machine(this.session.machine, (stated) => this.take(stated));
    enterOrigin(this.machine, reader);
    this.imageGiven = this.machine.state.boot?.imageDigest;
  }

  get position(): Position {
    return { icount: BigInt(this.machine.retired), seq: BigInt(this.comparer.compared) };
  }

  /** Stands where `point` was taken. RAM must be as it was there. */
  enter(position: Position, point: MachinePoint): void {
    this.cursor.close();
    this.machine.restore(point);
    const image = this.machine.state.boot?.imageDigest;
    if (image !== this.imageGiven) giveImage(this.machine, this.reader);
    this.imageGiven = image;
    this.cursor = new TapeCursor(this.reader, position.seq);
    this.comparer = new EventComparer(this.cursor, this.reader, position);
  }

  close(): void {
    this.cursor.close();
  }

  /**
   * Runs until so many instructions have retired, before what is due there, or until the step that states so many events is
   * done; or to the end of a slice, or a stop point. Call again to go on.
   * @returns the stop points that it came to.
   */
  run({ icount, seq }: Target): readonly Hit[] {
    const retired: number = this.machine.retired;
    if (this.feedDueInput()) return this.machine.takeHits();
    const slice = sliceEnd(this.session, retired);
    const places = [icount, this.lastIcount, this.cursor.inputUpTo(BigInt(slice))?.position.icount];
    // Where the tape has more to say of this very instruction, it is said step by step.
    if (places.some((place) => place !== undefined && place <= BigInt(retired))) return this.step();
    // An instruction count alone is a place with no event before it.
    this.pauseSeq = seq > BigInt(this.comparer.compared) ? Number(seq) : Number.POSITIVE_INFINITY;
    return this.advance(places.reduce((stop, place) => Math.min(stop, Number(place ?? stop)), slice));
  }

  /** Does one step: an instruction, or what stands between two: an input, an exception, an interrupt, a deadline. */
  step(): readonly Hit[] {
    if (this.feedDueInput()) return this.machine.takeHits();
    if (this.isAtLastRun) {
      this.machine.flushRun();
      return this.machine.takeHits();
    }
    this.stepping = true;
    try {
      return this.advance(this.machine.retired + 1);
    } finally {
      this.stepping = false;
    }
  }

  /** Where the tape ends. */
  protected get lastIcount(): bigint {
    return this.reader.end.icount;
  }

  /** The run under way is all that the tape still has: its host stopped the session amid it, and it was stated for that. */
  private get isAtLastRun(): boolean {
    const { machine, comparer } = this;
    const { icount, seq } = this.reader.end;
    return BigInt(machine.retired) === icount && BigInt(comparer.compared) + 1n === seq && machine.hasPendingRun;
  }

  protected advance(target: number): readonly Hit[] {
    const { machine, session } = this;
    const before = machine.retired;
    const stop = machine.runUpTo(instructionCount(target));
    // Here the recorder came back, and a run ended.
    if (machine.retired > before && machine.retired % session.sliceInstructions === 0) machine.flushRun();
    if (stop === 'idle') this.idle();
    if (stop === 'ended' && this.position.seq < this.reader.end.seq)
      this.refuse('the machine has ended, and the tape goes on');
    return machine.takeHits();
  }

  /** Every vCPU waits: for an input, or for good. */
  protected idle(): void {
    this.machine.flushRun();
    if (this.feedDueInput()) return;
    if (BigInt(this.comparer.compared) >= this.reader.end.seq) return;
    const next = this.reader.records(BigInt(this.comparer.compared)).next().value;
    if (next?.event.type !== 'machine.ended') this.refuse('the machine waits, and the tape has no input for it');
    this.machine.endIdle();
  }

  /** @returns false when none stands here. */
  protected feedDueInput(): boolean {
    const { machine, comparer, cursor } = this;
    const input = cursor.inputUpTo(BigInt(machine.retired));
    if (input === undefined || input.position.seq > BigInt(comparer.compared) + 1n) return false;
    if (input.position.seq > BigInt(comparer.compared)) {
      if (!machine.hasPendingRun) return false;
      machine.flushRun();
    }
    cursor.inputFed();
    feedInput(machine, this.reader, input);
    return true;
  }

  protected take(stated: StatedEvent): void {
    const { comparer } = this;
    if (BigInt(comparer.compared) >= this.reader.end.seq) throw new PastEnd('the tape ends amid a step');
    if (!comparer.accept(stated)) {
      this.refuse(`the machine states ${stated.event.type}, and the tape something else`, stated);
    }
    this.observe?.(stated);
    if (this.stepping || comparer.compared >= this.pauseSeq) this.machine.pause();
  }

  private refuse(what: string, stated?: StatedEvent): never {
    throw new FollowingError(this.position, what, stated);
  }
}

/**
 * A live machine made of a moment of a tape, for whoever wants to know what would have been. It runs on from there, a debugger may
 * write to its registers and memory, and everything that happens to it is recorded on a tape of its own, which begins at that
 * moment: so that it can be gone through backwards, kept, and replayed. The tape that it comes from never changes.
 *
 * No host input comes: what the recorded session still received, it received from its host.
 */
import type { JournalReader, JournalStore, JournalWriter, Position } from '../../journal/index.js';
import { type DebuggerEdit, decideDebuggerWrite, InputError, type Machine } from '../../machine/index.js';
import { beginTape, putCheckpoint } from '../begin-tape.js';
import { type CheckpointInterval, CheckpointTaker } from '../checkpoint-taker.js';
import { imageOf } from '../feed-input.js';
import { describeSession, sessionConfig } from '../session.js';
import { DivertedFollower } from './diverted-follower.js';
import { DivertedTimeline } from './diverted-timeline.js';
import { GrowingTape } from './growing-tape.js';

/** A machine between two steps, and the tape that it stands on. */
export interface ForkPlace {
  readonly reader: JournalReader;
  readonly machine: Machine;
  readonly position: Position;
}

export interface DiversionOptions {
  readonly vmtapeVersion: string;
  /** When absent, the tape has but the one that it begins with. */
  readonly checkpointEvery?: CheckpointInterval | undefined;
}

export class Diversion {
  /** The tape so far. */
  readonly tape: GrowingTape;
  readonly timeline: DivertedTimeline;
  /** Where it was forked. */
  readonly origin: Position;
  private readonly follower: DivertedFollower;
  private readonly writer: JournalWriter;
  private readonly taker: CheckpointTaker;

  /**
   * @param store takes the diversion's tape.
   * @throws InputError where nothing has booted yet; TapeInputError, TapeWriteError. Then nothing has changed.
   */
  constructor(store: JournalStore, place: ForkPlace, { vmtapeVersion, checkpointEvery }: DiversionOptions) {
    const { reader, machine, position } = place;
    const { boot } = machine.state;
    if (boot === null) {
      throw new InputError('a diversion', 'nothing has booted here, and no input comes', 'Fork at a later place.');
    }
    const parent = reader.historyDigest(position.seq);
    const origin = { position, unstated: machine.capture().unstated, parent };
    const description = { ...describeSession(sessionConfig(reader.header), vmtapeVersion), origin };
    const image = imageOf(reader, boot);
    this.origin = position;
    this.writer = beginTape(store, description, image, (writer) =>
      putCheckpoint(writer, new CheckpointTaker(machine, undefined, position), position),
    );
    try {
      this.tape = new GrowingTape(store, this.writer);
      this.follower = new DivertedFollower(this.tape, this.writer);
      this.timeline = new DivertedTimeline(this.tape, this.follower, () => this.checkpointIfDue());
      const { memory } = this.timeline.machine;
      this.taker = new CheckpointTaker(this.timeline.machine, checkpointEvery, position, memory.newEpoch());
    } catch (error) {
      this.writer.close();
      throw error;
    }
  }

  private checkpointIfDue(): void {
    if (this.taker.isDue(this.writer.end.seq)) putCheckpoint(this.writer, this.taker);
  }

  /**
   * A debugger writes here, to one vCPU or to RAM: all edits or none.
   * @throws InputError for what cannot be written, and where there is a future already.
   */
  write(vcpu: number, edits: readonly DebuggerEdit[]): void {
    const { timeline } = this;
    if (!timeline.isLive) {
      throw new InputError(
        'a write',
        'this is the past of the diversion, which is recorded',
        'Go to its end (monitor goto end), or fork again here (monitor fork).',
      );
    }
    if (timeline.machine.state.ended !== null) {
      throw new InputError('a write', 'the session has ended here', 'Step back, and fork again there (monitor fork).');
    }
    for (const input of decideDebuggerWrite(timeline.machine, vcpu, edits)) timeline.deliver(input);
  }

  /** Ends the diversion: its tape is complete then, and closed. */
  finish(): void {
    const { timeline, follower, writer, taker } = this;
    try {
      timeline.seek(timeline.end);
      follower.settle();
      putCheckpoint(writer, taker);
      writer.finish();
    } finally {
      timeline.close();
      this.tape.close();
      // Nothing, when it is finished.
      writer.close();
    }
  }
}

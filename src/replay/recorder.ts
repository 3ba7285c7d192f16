/**
 * Runs a machine live and appends what it states to a tape.
 *
 * Everything is synchronous: the caller's loop calls `step`, and between two steps may look at signals, print progress
 * and feed the serial port. A tape that ends without `machine.ended` was stopped by its host.
 */
import type { JournalStore, JournalWriter, Position, TapeOrigin } from '../journal/index.js';
import { type EventSink, invariant, type Machine, type StatedEvent } from '../machine/index.js';
import { beginTape, takeCheckpoint } from './begin-tape.js';
import type { Perturbation } from './chaos.js';
import { type CheckpointInterval, CheckpointTaker } from './checkpoint-taker.js';
import {
  type HostOptions,
  LiveSession,
  type Sampler,
  type SessionOptions,
  type SessionStatus,
} from './live-session.js';
import type { Arrival } from './migration/destination.js';
import type { OriginRam } from './migration/origin-ram.js';
import { describeSession, type SessionConfig } from './session.js';
import type { Snapshot } from './snapshot/snapshot.js';

export interface TapeOptions {
  readonly vmtapeVersion: string;
  /** How often checkpoints are taken, each with digests of the state; when absent, only at the end. */
  readonly checkpointEvery?: CheckpointInterval | undefined;
  /** Hears when a checkpoint begins, and when it is handed to the writer, with the bytes of the pages in it: a bench. */
  readonly beforeCheckpoint?: (() => void) | undefined;
  readonly onCheckpoint?: ((pageBytes: number) => void) | undefined;
  /** Sees every event once it is appended: a console, a counter. */
  readonly observe?: EventSink | undefined;
}

export type RecorderOptions = SessionOptions & TapeOptions;

/** Of what is on this tape. */
export interface RecorderStats {
  readonly instructions: number;
  readonly events: bigint;
  /** #VMEXITs. */
  readonly exits: number;
  readonly tapeBytes: number;
  readonly checkpoints: number;
}

/** Begins a session, and tells its events to the sink. */
type Beginning = (sink: EventSink) => LiveSession;

export class Recorder {
  private readonly live: LiveSession;
  private readonly writer: JournalWriter;
  private readonly taker: CheckpointTaker;
  private exits = 0;
  /** Checkpoints that wait for the one before them; undefined when none has to. */
  private held: (() => void)[] | undefined;

  /**
   * Boots the machine and begins the tape.
   * @throws InputError for an image or configuration, before there is a tape; TapeInputError, TapeWriteError.
   */
  static boot(store: JournalStore, options: RecorderOptions): Recorder {
    return new Recorder(store, (sink) => LiveSession.boot(options, sink), options.image, undefined, options);
  }

  /**
   * Goes on from a snapshot, on a tape that begins there.
   * @throws InputError when the snapshot cannot be resumed, before there is a tape; TapeInputError, TapeWriteError.
   */
  static resume(store: JournalStore, snapshot: Snapshot, options: HostOptions & TapeOptions): Recorder {
    const { position, parent, point, image } = snapshot;
    const origin = { position, unstated: point.unstated, parent };
    return new Recorder(store, (sink) => LiveSession.resume(snapshot, options, sink), image?.bytes, origin, options);
  }

  /**
   * Goes on with a machine that has come from elsewhere, on a tape that begins there; as `resume`. While pages are still to
   * come the tape is without what it began with, until `originIsWhole`.
   */
  static adopt(
    store: JournalStore,
    arrival: Arrival,
    redirect: (sink: EventSink) => void,
    options: TapeOptions,
  ): Recorder {
    const { machine, session, snapshot, input, ram, isWhole } = arrival;
    const { position, parent, point, image } = snapshot;
    const begin: Beginning = (sink) => {
      redirect(sink);
      const live = LiveSession.adopt(machine, session, {});
      live.feed(input);
      return live;
    };
    const origin = { position, unstated: point.unstated, parent };
    return new Recorder(store, begin, image?.bytes, origin, options, { ram, isWhole });
  }

  private constructor(
    store: JournalStore,
    begin: Beginning,
    image: Uint8Array | undefined,
    private readonly origin: TapeOrigin | undefined,
    private readonly options: TapeOptions,
    came?: Pick<Arrival, 'ram' | 'isWhole'>,
  ) {
    const { vmtapeVersion, checkpointEvery, observe } = options;
    // The image may be refused: until it is not, there is no tape, and what the machine states waits.
    const waiting: StatedEvent[] = [];
    let append: EventSink = (stated) => waiting.push(stated);
    this.live = begin((stated) => append(stated));
    this.taker = new CheckpointTaker(this.live.machine, checkpointEvery, origin?.position);
    const description = { ...describeSession(this.live.session, vmtapeVersion), origin };
    const digest = this.live.machine.state.boot?.imageDigest;
    const blob = image === undefined || digest === undefined ? undefined : { bytes: image, digest };
    this.writer = beginTape(store, description, blob, (writer, position) => {
      if (came?.isWhole === false) this.held = [];
      this.checkpoint(writer, position, came?.ram);
      if (came === undefined) writer.flush();
    });
    append = (stated) => {
      this.writer.append(stated);
      if (stated.event.type === 'svm.vmexit') this.exits++;
      observe?.(stated);
    };
    try {
      for (const stated of waiting) append(stated);
    } catch (error) {
      this.abandon();
      throw error;
    }
  }

  get machine(): Machine {
    return this.live.machine;
  }

  /** The boundary after the last event. */
  get position(): Position {
    return this.writer.end;
  }

  get stats(): RecorderStats {
    return {
      instructions: this.machine.retired - Number(this.origin?.position.icount ?? 0n),
      events: this.writer.end.seq - (this.origin?.position.seq ?? 0n),
      exits: this.exits,
      tapeBytes: this.writer.tapeBytes,
      checkpoints: this.taker.taken,
    };
  }

  set sampler(sampler: Sampler | undefined) {
    this.live.sampler = sampler;
  }

  get sampler(): Sampler | undefined {
    return this.live.sampler;
  }

  /** Queues bytes for the serial port. */
  feedConsole(data: Uint8Array): void {
    this.live.feedConsole(data);
  }

  feed(data: Uint8Array): void {
    this.live.feed(data);
  }

  /** No more bytes will come: a machine that waits for one ends. */
  endInput(): void {
    this.live.endInput();
  }

  /** What chaos has done. */
  get perturbations(): readonly Perturbation[] {
    return this.live.perturbations;
  }

  get session(): SessionConfig {
    return this.live.session;
  }

  /** Bytes that wait for room in the receiver. */
  get queuedInput(): Uint8Array {
    return this.live.queuedInput;
  }

  /** `historyDigest` of the tape so far, all of which is stored then. */
  historyDigest(): string {
    return this.writer.historyDigest();
  }

  /** All pages that the session began with have come. */
  originIsWhole(): void {
    for (const put of this.held ?? []) put();
    this.held = undefined;
  }

  /** Checkpoints that wait for `originIsWhole`, each with the pages that were written to. */
  get checkpointsHeld(): number {
    return this.held?.length ?? 0;
  }

  /** Stores all that there is, unless a checkpoint would hold that up. @returns whether it did. */
  storesNow(): boolean {
    if (this.held !== undefined || this.writer.checkpointsInFlight > 0) return false;
    this.writer.flush();
    return true;
  }

  /**
   * Runs to the end of the slice, or to `limit` instructions in all.
   * @throws TapeWriteError; then call `abandon`.
   */
  step(limit?: number): SessionStatus {
    const status = this.live.step(limit);
    if (status === 'running' && this.taker.isDue(this.writer.end.seq)) this.checkpoint();
    return status;
  }

  /** Ends the tape cleanly, with a checkpoint: when the session is over, and when the host stops it. */
  finish(): void {
    invariant(this.held === undefined, 'the tape has what it began with');
    this.checkpoint();
    this.writer.finish();
  }

  /** Gives the tape up after an error: it stays readable up to what is stored, and says that it was cut. */
  abandon(): void {
    this.writer.close();
  }

  /** @param ram that of the place, for whoever has it already, or will have. */
  private checkpoint(writer = this.writer, position = writer.end, ram?: OriginRam): void {
    this.options.beforeCheckpoint?.();
    const putTaken = takeCheckpoint(this.taker, position, ram);
    const put = (): void => {
      const pageBytes = putTaken(writer);
      this.options.onCheckpoint?.(pageBytes);
    };
    if (this.held === undefined) put();
    else this.held.push(put);
  }
}

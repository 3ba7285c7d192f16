/**
 * A follower whose tape grows. Behind the frontier it is as any: it runs a machine along what is recorded. At the frontier the
 * machine goes on by itself, and what it states is appended.
 *
 * The frontier may stand amid a run, behind the last event of the tape: a run is stated when something ends it, and where a
 * debugger has stopped does not. Whoever comes back there finds the run under way as it was.
 */
import { comparePositions, type JournalWriter, type Position } from '../../journal/index.js';
import type { DebuggerInput, Hit, MachinePoint, StatedEvent } from '../../machine/index.js';
import { sliceEnd } from '../session.js';
import { TapeFollower, type Target } from '../tape-follower.js';
import type { GrowingTape } from './growing-tape.js';

/** Asked of an event that the machine has just stated. */
export type StatedTest = (stated: StatedEvent) => boolean;

/** How a stretch of going on ended, besides at the end of a slice. */
export interface Stretch {
  readonly hits: readonly Hit[];
  /** A step is done that stated an event which ends it. */
  readonly ended: boolean;
  /**
   * Such a step was taken back: it is on no tape, and `frontier` is the place before it. The machine stands where nobody knows,
   * and must `enter` a place.
   */
  readonly undone: boolean;
}

export class DivertedFollower extends TapeFollower {
  /** The frontier, while the machine is behind it. */
  private left: Position;
  private live = true;
  /** What was stated since the last stretch; it is appended when this one is done. */
  private readonly unkept: StatedEvent[] = [];
  private ends: StatedTest | undefined;
  private hasEnded = false;
  private still = false;

  constructor(
    tape: GrowingTape,
    private readonly writer: JournalWriter,
  ) {
    super(tape);
    this.left = tape.start;
  }

  /** Whether the machine stands where it goes on by itself. */
  get isLive(): boolean {
    return this.live;
  }

  /** Where nothing is recorded yet. */
  get frontier(): Position {
    return this.live ? this.position : this.left;
  }

  /** At the frontier: the machine waits for an input, and none comes; or the session has ended. */
  get isStill(): boolean {
    return this.still || this.machine.state.ended !== null;
  }

  override get position(): Position {
    if (!this.live) return super.position;
    return { icount: BigInt(this.machine.retired), seq: this.writer.end.seq + BigInt(this.unkept.length) };
  }

  override enter(position: Position, point: MachinePoint): void {
    this.left = this.frontier;
    this.live = false;
    super.enter(position, point);
    this.arrive();
  }

  // Behind the frontier

  override run(target: Target): readonly Hit[] {
    const hits = super.run(target);
    this.arrive();
    return hits;
  }

  override step(): readonly Hit[] {
    if (this.live) return this.goOneStep().hits;
    const hits = super.step();
    this.arrive();
    return hits;
  }

  private arrive(): void {
    if (!this.live && comparePositions(super.position, this.left) === 0) this.live = true;
  }

  protected override get lastIcount(): bigint {
    return this.frontier.icount;
  }

  // At the frontier

  /** One step: an instruction, or what stands between two. */
  goOneStep(after?: StatedTest): Stretch {
    this.stepping = true;
    this.ends = after;
    return this.stretch(this.machine.retired + 1);
  }

  /**
   * Runs to a stop point, or the end of the slice.
   * @param after ends the stretch with a step that states such an event.
   * @param before ends it ahead of such a step. Every step that states anything ends it then.
   */
  goOn(after: StatedTest | undefined, before?: StatedTest): Stretch {
    this.stepping = before !== undefined;
    this.ends = after;
    return this.stretch(sliceEnd(this.session, this.machine.retired), before);
  }

  private stretch(target: number, before?: StatedTest): Stretch {
    const start = this.position;
    this.hasEnded = false;
    this.still = false;
    try {
      const hits = this.advance(target);
      if (before !== undefined && this.unkept.some(before)) {
        this.undo(this.placeBefore(start));
        return { hits: [], ended: false, undone: true };
      }
      this.keep();
      return { hits, ended: this.hasEnded, undone: false };
    } catch (error) {
      // The machine has failed amid a step; whoever goes on from here will find that again.
      this.undo(start);
      throw error;
    } finally {
      this.stepping = false;
      this.ends = undefined;
    }
  }

  /** Ahead of the only step that has stated anything since `start`. A run that it ended was there before it. */
  private placeBefore({ seq }: Position): Position {
    const [first] = this.unkept;
    const ran = first?.event.type === 'cpu.ran' ? BigInt(first.retired) : 0n;
    return { icount: this.writer.end.icount + ran, seq };
  }

  private undo(frontier: Position): void {
    this.unkept.length = 0;
    this.left = frontier;
    this.live = false;
  }

  private keep(): void {
    for (const stated of this.unkept.splice(0)) this.writer.append(stated);
  }

  /** The machine takes an input here. */
  deliver(input: DebuggerInput): void {
    this.still = false;
    this.machine.deliver(input);
    this.keep();
  }

  /** States what has run. For when nobody goes on from here: it shows in the events. */
  settle(): void {
    this.machine.flushRun();
    this.keep();
  }

  protected override feedDueInput(): boolean {
    return !this.live && super.feedDueInput();
  }

  protected override take(stated: StatedEvent): void {
    if (!this.live) {
      super.take(stated);
      return;
    }
    this.unkept.push(stated);
    this.observe?.(stated);
    if (this.ends?.(stated) === true) this.hasEnded = true;
    if (this.stepping || this.hasEnded) this.machine.pause();
  }

  protected override idle(): void {
    if (!this.live) {
      super.idle();
      return;
    }
    this.machine.flushRun();
    this.still = true;
  }
}

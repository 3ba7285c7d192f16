/**
 * A timeline over a tape that grows at its end: backwards, and forwards to the frontier, it is as any; at the frontier the machine
 * runs on and is recorded.
 */
import { comparePositions, type Position } from '../../journal/index.js';
import { type DebuggerInput, InputError } from '../../machine/index.js';
import type { Found } from '../armed-follower.js';
import { Timeline } from '../timeline.js';
import type { Work } from '../work.js';
import type { DivertedFollower, StatedTest, Stretch } from './diverted-follower.js';
import type { GrowingTape } from './growing-tape.js';

/** Events at which going on stops. */
export interface EventStops {
  /** Right before them. */
  readonly before?: StatedTest | undefined;
  /** Once the step is done that states them. */
  readonly after?: StatedTest | undefined;
}

export type LiveStop =
  | ({ readonly kind: 'hit' } & Found)
  | { readonly kind: 'before' | 'after' }
  /** The session has ended, or every vCPU waits for an input. */
  | { readonly kind: 'still' };

export class DivertedTimeline extends Timeline {
  /** @param kept called where a stretch ended, between two events, so that a checkpoint may be taken. */
  constructor(
    tape: GrowingTape,
    private readonly diverted: DivertedFollower,
    private readonly kept: () => void,
  ) {
    super(tape, diverted);
  }

  /** Whether it stands at the frontier. */
  get isLive(): boolean {
    return this.diverted.isLive;
  }

  /** At the frontier: nothing happens any more, unless a debugger writes. */
  get isStill(): boolean {
    return this.diverted.isStill;
  }

  /** The frontier: where nothing is recorded yet. */
  override get end(): Position {
    return this.diverted.frontier;
  }

  /** One step forwards, recorded or not. @returns false when the machine does none. */
  override step(): boolean {
    if (!this.isLive) return super.step();
    this.search.disarm();
    const { position } = this;
    const { isStill } = this.live(() => this.diverted.goOneStep()) && this.diverted;
    this.keepOnTheWay();
    return !isStill || comparePositions(this.position, position) !== 0;
  }

  /**
   * Runs on from the frontier to the next stop.
   * @param setsOut what stands here has been stopped at already, be it a breakpoint or an event.
   */
  *goingOn({ before, after }: EventStops, setsOut: boolean): Work<LiveStop> {
    this.search.arm();
    if (setsOut) this.machine.setOut();
    let passes = setsOut && before !== undefined;
    for (;;) {
      yield this.position;
      this.search.arm();
      const { hits, ended, undone } = this.live(() =>
        passes ? this.diverted.goOneStep(after) : this.diverted.goOn(after, before),
      );
      passes = false;
      if (undone) {
        yield* this.toFrontier();
        return { kind: 'before' };
      }
      const found = this.search.found(hits);
      this.keepOnTheWay();
      if (!this.machine.hasPendingRun) this.kept();
      if (found !== undefined) return { kind: 'hit', ...found };
      if (ended) return { kind: 'after' };
      if (this.isStill) return { kind: 'still' };
    }
  }

  /** The machine takes an input, at the frontier. */
  deliver(input: DebuggerInput): void {
    this.search.disarm();
    this.diverted.deliver(input);
  }

  private *toFrontier(): Work<void> {
    this.search.disarm();
    yield* this.reentering(this.diverted.frontier);
  }

  /** @throws InputError when the machine cannot go on; the timeline then stands where it did. */
  private live(run: () => Stretch): Stretch {
    try {
      return run();
    } catch (error) {
      if (!(error instanceof Error) || !MACHINE_FAILURES.has(error.name)) throw error;
      const work = this.toFrontier();
      while (work.next().done !== true);
      throw new InputError('the diversion', `the machine cannot go on: ${error.message}`, 'See monitor unfork.');
    }
  }
}

/** What a machine throws when it is led to where no guest is. */
const MACHINE_FAILURES: ReadonlySet<string> = new Set(['InvariantError', 'UnsupportedError']);

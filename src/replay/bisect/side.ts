/**
 * One of two sessions that are held against each other: its tape, and a machine that goes along it as far as this vmtape does
 * what the tape says. A tape of another machine can be read, and compared event by event, but not run.
 */
import { comparePositions, formatPosition, type JournalReader, type Position } from '../../journal/index.js';
import { InputError } from '../../machine/index.js';
import { FollowingError } from '../tape-follower.js';
import { Timeline } from '../timeline.js';
import { Tracer, type TraceStep } from '../tracer.js';
import type { Control } from '../work.js';

/** What a trace comes to: a step, or that this vmtape does not do what the tape says. */
export type Seen = TraceStep | { readonly kind: 'stops'; readonly error: FollowingError };

export class Side {
  private line: Timeline | undefined;
  /** Why this vmtape cannot make the tape's machine. */
  private refusal: string | undefined;
  /** Where this vmtape does something else than the tape says. */
  private failure: FollowingError | undefined;

  /** @param name as the user calls the tape. */
  constructor(
    readonly name: string,
    readonly reader: JournalReader,
    private readonly control: Control = {},
  ) {}

  /** Why the tape could not be run as far as was asked; undefined when it could. */
  get problem(): string | undefined {
    const { refusal, failure } = this;
    return refusal ?? (failure && `at ${formatPosition(failure.position)} ${failure.what}`);
  }

  /** Where this vmtape does something else than the tape says, if it has come to there. */
  get failed(): FollowingError | undefined {
    return this.failure;
  }

  /** The timeline at a place, or the last place before it; undefined where this vmtape does not come to. */
  at(position: Position): Timeline | undefined {
    return this.attempt((line) => {
      line.seek(position, this.control);
      return line;
    }, position);
  }

  /** The timeline where so many instructions have retired. */
  atInstruction(icount: bigint): Timeline | undefined {
    return this.attempt((line) => {
      line.seekInstruction(icount, this.control);
      return line;
    });
  }

  /** Does something with the timeline, and tells when this vmtape does not do what the tape says. */
  attempt<Result>(work: (line: Timeline) => Result, to?: Position): Result | undefined {
    if (this.refusal !== undefined) return undefined;
    if (this.failure !== undefined && to !== undefined && comparePositions(to, this.failure.position) > 0)
      return undefined;
    try {
      this.line ??= new Timeline(this.reader);
      return work(this.line);
    } catch (error) {
      this.forget();
      if (error instanceof FollowingError) this.failure = error;
      else if (error instanceof InputError) this.refusal = error.message;
      else throw error;
      return undefined;
    }
  }

  /** Steps from a place to another, one at a time; undefined where this vmtape does not come to. */
  *trace(from: Position, to: Position): Generator<Seen, void, void> {
    const line = this.at(from);
    if (line === undefined) return;
    const steps: TraceStep[] = [];
    const tracer = new Tracer(this.reader, from, to, (step) => steps.push(step), line);
    let goesOn = true;
    try {
      tracer.seek(this.control);
      while (goesOn || steps.length > 0) {
        const step = steps.shift();
        if (step !== undefined) yield step;
        else goesOn = tracer.advance(1);
      }
    } catch (error) {
      if (!(error instanceof FollowingError)) throw error;
      this.failure = error;
      this.forget();
      yield* steps;
      yield { kind: 'stops', error };
    } finally {
      // Whoever stops listening leaves the machine amid the trace.
      if (this.line !== undefined) tracer.release();
    }
  }

  /** A machine that has done what its tape does not have is of no more use. */
  private forget(): void {
    this.line?.close();
    this.line = undefined;
  }

  close(): void {
    this.forget();
  }
}

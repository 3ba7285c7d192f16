/** What a process does of a parallel replay: intervals. Its machine stays where one ends, most likely for the next one. */
import { type JournalReader, type Position, sqliteStore } from '../../src/journal/index.js';
import {
  finish,
  IntervalReplayer,
  type IntervalStart,
  type Joint,
  type ReplayOutcome,
  type ReplaySums,
  type Work,
} from '../../src/replay/index.js';
import { tuneV8, useEngine } from '../cli/engine.js';
import { type Failure, failureOf } from '../cli/failure.js';

export interface IntervalTask {
  readonly tape: string;
  readonly engine: string;
  /** Where the whole replay ends; undefined for the end of the tape. */
  readonly end: Position | undefined;
  readonly from: IntervalStart;
  /** Undefined for where the whole replay ends. */
  readonly to: Position | undefined;
}

export type SameOutcome = Exclude<ReplayOutcome, { readonly kind: 'diverged' }>;

export type IntervalResult =
  | (ReplaySums & {
      readonly kind: 'same';
      /** As of `IntervalOutcome`. */
      readonly entered: Joint | undefined;
      readonly reached: Joint;
      readonly last: SameOutcome | undefined;
    })
  | (ReplaySums & {
      readonly kind: 'diverged';
      readonly entered: Joint | undefined;
      readonly position: Position;
      readonly report: string;
    })
  | { readonly kind: 'other-start'; readonly parts: readonly string[] }
  | { readonly kind: 'failed'; readonly failure: Failure };

/** Replays intervals by one machine. */
export class IntervalWorker {
  private readonly replayer: IntervalReplayer;

  constructor(reader: JournalReader, end: Position | undefined) {
    this.replayer = new IntervalReplayer(reader, end);
  }

  *working({ from, to }: IntervalTask): Work<IntervalResult> {
    try {
      const outcome = yield* this.replayer.replaying(from, to);
      if (outcome.kind !== 'diverged') return outcome;
      const { divergence, ...rest } = outcome;
      return { ...rest, position: divergence.position, report: divergence.report() };
    } catch (error) {
      return { kind: 'failed', failure: failureOf(error) };
    }
  }

  close(): void {
    this.replayer.close();
  }
}

let worker: IntervalWorker | undefined;

/** Called by the pool. All tasks of a process are of one replay. */
export function work(task: IntervalTask): IntervalResult {
  try {
    if (worker === undefined) {
      tuneV8();
      useEngine(task.engine);
      worker = new IntervalWorker(sqliteStore(task.tape).read(), task.end);
    }
  } catch (error) {
    return { kind: 'failed', failure: failureOf(error) };
  }
  return finish(worker.working(task));
}

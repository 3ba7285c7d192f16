/**
 * A replay by several processes: each replays intervals between checkpoints, and the whole is put together from what they
 * find. Whatever goes wrong, the report is of the first place where something does, as a replay by one process would have it.
 */
import { comparePositions, type JournalReader, type Position, TapeDamagedError } from '../../src/journal/index.js';
import {
  Cancelled,
  type Interval,
  IntervalPlan,
  type IntervalStart,
  type Joint,
  type ReplaySums,
  type Work,
} from '../../src/replay/index.js';
import { FailedElsewhere } from '../cli/failure.js';
import { ProcessPool, poolFailure } from '../cli/process-pool.js';
import { type IntervalResult, type IntervalTask, IntervalWorker, type SameOutcome } from './interval-worker.js';

export interface ParallelReplay {
  readonly tape: string;
  /** Of the same tape, in this process. */
  readonly reader: JournalReader;
  readonly from: IntervalStart;
  /** Undefined for the end of the tape. */
  readonly to: Position | undefined;
  readonly jobs: number;
  readonly engine: string;
}

export interface ParallelResult extends ReplaySums {
  readonly outcome: SameOutcome | { readonly kind: 'diverged'; readonly position: Position; readonly report: string };
  /** Digests of the state at the end, in hex by part; undefined when the replay diverged. */
  readonly reached: Joint | undefined;
}

/** Something that ends the replay. Of two the one that stands first counts, a start before what comes behind it. */
interface Problem {
  readonly place: number;
  readonly atStart: boolean;
  readonly what: Diverged | Error;
}

type Diverged = Extract<IntervalResult, { readonly kind: 'diverged' }>;

/** Where intervals of a replay may begin, and at last its end. */
export function placesOf({
  reader,
  from,
  to,
}: Pick<ParallelReplay, 'reader' | 'from' | 'to'>): readonly IntervalStart[] {
  const end = to ?? reader.end;
  const places = [from];
  for (const { id, position } of reader.checkpoints()) {
    const isBetween = comparePositions(position, (places.at(-1) as IntervalStart).position) > 0;
    if (isBetween && comparePositions(position, end) < 0) places.push({ position, checkpoint: id, isJoint: true });
  }
  return [...places, { position: end, checkpoint: undefined, isJoint: true }];
}

/**
 * Replays in this process and in `jobs - 1` others.
 * @param places of `placesOf`. @param tell hears after each interval how much was found the same.
 * @throws FailedElsewhere with the journal's errors when the tape is damaged; OperatingError when a process is ended.
 */
export async function replayInParallel(
  { tape, reader, to: end, jobs, engine }: ParallelReplay,
  places: readonly IntervalStart[],
  tell: (sums: ReplaySums) => void,
): Promise<ParallelResult> {
  const plan = new IntervalPlan(
    places.map(({ position }) => position),
    jobs,
  );
  // They start while this process begins.
  const others = plan.begins - 1;
  const pool =
    others === 0
      ? undefined
      : new ProcessPool<IntervalTask, IntervalResult>({ file: WORKER, processes: others, kept: true });
  const own = new IntervalWorker(reader, end);
  const whole = new Whole(tape, places, plan);
  const lane = async (first: Interval | undefined, run: (task: IntervalTask) => Promise<IntervalResult>) => {
    for (let interval = first; interval !== undefined; ) {
      const { from, to } = interval;
      const isLast = to === places.length - 1;
      const [begins, ends] = [places[from] as IntervalStart, isLast ? undefined : places[to]?.position];
      whole.add(interval, await run({ tape, engine, end, from: begins, to: ends }));
      tell(whole.sums);
      interval = plan.next(to);
    }
  };
  let over = false;
  const first = Array.from({ length: plan.begins }, () => plan.next());
  try {
    const lanes = first.slice(1).map(async (interval) => {
      await lane(interval, async (task) => await (pool as NonNullable<typeof pool>).run(task));
    });
    await Promise.all([...lanes, lane(first[0], async (task) => await awake(own.working(task), () => over))]);
    return whole.result();
  } catch (error) {
    over = true;
    throw poolFailure(error, 'replays a part of the tape', '--jobs');
  } finally {
    own.close();
    await pool?.destroy();
  }
}

const WORKER = new URL('./interval-worker.js', import.meta.url);
/** So long this process may leave others waiting. */
const ASLEEP_MILLISECONDS = 5;

/** Does work, and hears now and then what others have done. @throws Cancelled when it is no longer wanted. */
async function awake<Result>(work: Work<Result>, isOver: () => boolean): Promise<Result> {
  let heard = performance.now();
  for (;;) {
    const next = work.next();
    if (next.done === true) return next.value;
    if (performance.now() - heard < ASLEEP_MILLISECONDS) continue;
    await new Promise((resolve) => setImmediate(resolve));
    if (isOver()) throw new Cancelled('another process was ended');
    heard = performance.now();
  }
}

/** Puts together what intervals come to. */
class Whole {
  sums: ReplaySums = { instructions: 0, events: 0, digests: 0 };
  /** The machine at places, where an interval ended, and where one began from the checkpoint. */
  private readonly reached = new Map<number, Joint>();
  private readonly entered = new Map<number, Joint>();
  private problem: Problem | undefined;
  private last: SameOutcome | undefined;

  constructor(
    private readonly tape: string,
    private readonly places: readonly IntervalStart[],
    private readonly plan: IntervalPlan,
  ) {}

  add({ from, to }: Interval, result: IntervalResult): void {
    if (result.kind === 'failed') {
      this.note({ place: from, atStart: false, what: new FailedElsewhere(result.failure) });
    } else if (result.kind === 'other-start') {
      this.note({ place: from, atStart: true, what: this.otherStart(from, result.parts) });
    } else {
      this.sums = added(this.sums, result);
      if (result.entered !== undefined && from > 0) {
        this.entered.set(from, result.entered);
        this.join(from);
      }
      if (result.kind === 'diverged') this.note({ place: from, atStart: false, what: result });
      else {
        this.reached.set(to, result.reached);
        this.join(to);
        this.last = result.last ?? this.last;
      }
    }
  }

  /** What an interval began with must be what the one before it ended with. */
  private join(place: number): void {
    const [before, after] = [this.reached.get(place), this.entered.get(place)];
    if (before === undefined || after === undefined) return;
    const parts = Object.keys(before).filter((part) => before[part] !== after[part]);
    if (parts.length > 0) this.note({ place, atStart: true, what: this.otherStart(place, parts) });
  }

  private otherStart(place: number, parts: readonly string[]): TapeDamagedError {
    const { checkpoint, position } = this.places[place] as IntervalStart;
    const problem =
      `the checkpoint is not the machine that the tape leads to: ${parts.join(', ')}. ` +
      'Checkpoints are derived: replay without --jobs, or make them again with `vmtape checkpoint`';
    return new TapeDamagedError(this.tape, problem, {
      table: 'checkpoints',
      row: String(checkpoint),
      readableTo: position,
    });
  }

  private note(problem: Problem): void {
    const known = this.problem;
    const isFirst =
      known === undefined || problem.place < known.place || (problem.place === known.place && problem.atStart);
    if (isFirst) this.problem = problem;
    this.plan.cut(problem.place);
  }

  /** @throws what stands first, when it is no divergence. */
  result(): ParallelResult {
    const { sums, problem, last } = this;
    if (problem?.what instanceof Error) throw problem.what;
    if (problem !== undefined) return { ...this.diverged(problem.place, problem.what), reached: undefined };
    const unjoined = [...this.entered.keys()].some((place) => !this.reached.has(place));
    if (last === undefined || unjoined) throw new TypeError('a replay in parts has left one out');
    const outcome = last.kind === 'identical' ? { ...last, digests: sums.digests } : last;
    return { ...sums, outcome, reached: this.reached.get(this.places.length - 1) };
  }

  /** As much as a replay by one process would have seen. */
  private diverged(place: number, { position, report, ...own }: Diverged): Omit<ParallelResult, 'reached'> {
    const [start, from] = [this.places[0], this.places[place]] as [IntervalStart, IntervalStart];
    return {
      instructions: Number(from.position.icount - start.position.icount) + own.instructions,
      events: Number(from.position.seq - start.position.seq) + own.events,
      digests: own.digests,
      outcome: { kind: 'diverged', position, report },
    };
  }
}

const added = (a: ReplaySums, b: ReplaySums): ReplaySums => ({
  instructions: a.instructions + b.instructions,
  events: a.events + b.events,
  digests: a.digests + b.digests,
});

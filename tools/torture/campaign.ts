/** Torture over a pool of processes: batches of neighbouring places to whoever is free, and some cases across two processes. */
import { setMaxListeners } from 'node:events';
import { formatPosition, type Position } from '../../src/journal/index.js';
import type { TortureFailure } from '../../src/replay/index.js';
import { FailedElsewhere } from '../cli/failure.js';
import { ProcessPool, poolFailure } from '../cli/process-pool.js';
import type { BatchSums, TapeSettings, Task, TaskResult } from './worker.js';

export interface Campaign {
  readonly tape: TapeSettings;
  readonly places: readonly Position[];
  readonly workers: number;
  /** Whether the first failure ends it. */
  readonly stops: boolean;
  /** Cases that a process restores which never ran the session. */
  readonly apart: number;
}

export interface Sums {
  readonly places: number;
  readonly restores: number;
  readonly windows: number;
  /** Cases across two processes. */
  readonly apart: number;
  readonly failures: readonly TortureFailure[];
  readonly apartFailures: readonly ApartFailure[];
}

interface ApartFailure {
  readonly saved: Position;
  readonly problem: string;
}

const BATCHES_PER_WORKER = 16;
const LARGEST_BATCH = 512;
/** A batch's machines must first get to its place. */
const SMALLEST_BATCH = 16;

/** @param tell hears of every batch that is done. @throws FailedElsewhere when a process cannot read the tape, or run it; OperatingError when it is ended. */
export async function runCampaign(campaign: Campaign, tell: (sums: Sums) => void): Promise<Sums> {
  const { places, workers, stops, tape } = campaign;
  const pool = workerPool(workers, false);
  const strangers = workerPool(1, true);
  const stop = new AbortController();
  // Every task in the queue listens.
  setMaxListeners(0, stop.signal);
  let sums: Sums = { places: 0, restores: 0, windows: 0, apart: 0, failures: [], apartFailures: [] };
  const add = (more: Partial<Sums>): void => {
    sums = added(sums, more);
    tell(sums);
    if (stops && sums.failures.length + sums.apartFailures.length > 0) stop.abort();
  };
  try {
    const run = async (task: Task, by = pool): Promise<TaskResult> => await by.run(task, stop.signal);
    const tasks = [
      ...batches(places, workers).map(async (batch) => {
        add(expected(await run({ kind: 'batch', tape, places: batch, stops }), 'batch'));
      }),
      ...spread(places, campaign.apart).map(async (place) => {
        const { saved } = expected(await run({ kind: 'save', tape, place }), 'saved');
        const { problem } = expected(await run({ kind: 'resume', tape, saved }, strangers), 'resumed');
        add({ apart: 1, apartFailures: problem === undefined ? [] : [{ saved: place, problem }] });
      }),
    ];
    let failure: unknown;
    // The first one ends the others: a pool whose processes have ended would leave them waiting.
    const guarded = tasks.map((task) =>
      task.catch((error: unknown) => {
        if (!stop.signal.aborted) failure = error;
        stop.abort();
      }),
    );
    await Promise.all(guarded);
    if (failure !== undefined) throw poolFailure(failure, 'restores machines', '--workers');
    return sums;
  } finally {
    await Promise.all([pool.destroy(), strangers.destroy()]);
  }
}

const workerPool = (processes: number, isolated: boolean): ProcessPool<Task, TaskResult> =>
  new ProcessPool({ file: new URL('./worker.js', import.meta.url), processes, isolated });

function expected<Kind extends TaskResult['kind']>(
  result: TaskResult,
  kind: Kind,
): Extract<TaskResult, { kind: Kind }> {
  if (result.kind === 'failed') throw new FailedElsewhere(result.failure);
  if (result.kind !== kind) throw new TypeError(`a worker answered ${result.kind} for ${kind}`);
  return result as Extract<TaskResult, { kind: Kind }>;
}

function batches(places: readonly Position[], workers: number): readonly (readonly Position[])[] {
  const wanted = Math.ceil(places.length / (workers * BATCHES_PER_WORKER));
  const size = Math.max(SMALLEST_BATCH, Math.min(LARGEST_BATCH, wanted));
  return Array.from({ length: Math.ceil(places.length / size) }, (_, index) =>
    places.slice(index * size, (index + 1) * size),
  );
}

/** Some places, as far apart as can be. */
function spread(places: readonly Position[], count: number): readonly Position[] {
  const most = Math.min(count, places.length);
  return Array.from(
    { length: most },
    (_, index) => places[Math.floor(((2 * index + 1) * places.length) / (2 * most))] as Position,
  );
}

function added(sums: Sums, { failures = [], apartFailures = [], ...counts }: Partial<Sums & BatchSums>): Sums {
  const { places = 0, restores = 0, windows = 0, apart = 0 } = counts;
  return {
    places: sums.places + places,
    restores: sums.restores + restores,
    windows: sums.windows + windows,
    apart: sums.apart + apart,
    failures: [...sums.failures, ...failures].sort(bySavedPlace),
    apartFailures: [...sums.apartFailures, ...apartFailures],
  };
}

/** Which worker was first is chance. */
const bySavedPlace = (a: TortureFailure, b: TortureFailure): number =>
  Number(a.saved.seq - b.saved.seq) || Number(a.saved.icount - b.saved.icount) || a.shown.localeCompare(b.shown);

/** For programs: what the report file and `--json` have. */
export const failureJson = ({ saved, at, ...rest }: TortureFailure): object => ({
  saved: formatPosition(saved),
  at: formatPosition(at),
  ...rest,
});

/** Pools of processes that do parts of one command: docs/adr/0031. */
import { Tinypool } from 'tinypool';
import { OperatingError } from './failure.js';

interface PoolOptions {
  /** The compiled file whose `work` does a task. */
  readonly file: URL;
  readonly processes: number;
  /** A process for each task. */
  readonly isolated?: boolean;
  /** Processes stay when they have nothing to do. */
  readonly kept?: boolean;
}

export class ProcessPool<Task, Result> {
  private readonly pool: Tinypool;
  /** A process ended that had no task yet: whoever waits for one would wait for ever. */
  private readonly broken: Promise<never>;

  constructor({ file, processes, isolated = false, kept = false }: PoolOptions) {
    const pool = new Tinypool({
      runtime: 'child_process',
      filename: file.href,
      name: 'work',
      serialization: 'advanced',
      minThreads: kept ? processes : 0,
      maxThreads: processes,
      isolateWorkers: isolated,
      execArgv: [],
    });
    this.broken = new Promise((_, reject) => pool.on('error', reject));
    this.broken.catch(() => {});
    this.pool = pool;
  }

  /** @throws what `poolFailure` tells apart. */
  async run(task: Task, signal?: AbortSignal): Promise<Result> {
    const options = signal === undefined ? {} : { signal };
    return (await Promise.race([this.pool.run(task, options), this.broken])) as Result;
  }

  /** Ends the processes. */
  async destroy(): Promise<void> {
    await this.pool.destroy();
  }
}

/** What tells of a process that is gone: that it has ended, or that nothing can be sent to it any more. */
const isGone = (failure: unknown): boolean =>
  failure instanceof Error &&
  (failure.message === 'Worker exited unexpectedly' ||
    ['EPIPE', 'ECONNRESET', 'ERR_IPC_CHANNEL_CLOSED'].includes((failure as NodeJS.ErrnoException).code ?? ''));

/** A process that somebody, or a lack of memory, has ended is no bug of vmtape. @param does what it was there for. */
export const poolFailure = (failure: unknown, does: string, flag: string): unknown =>
  isGone(failure)
    ? new OperatingError(`a process that ${does} was ended from outside. Is there memory for ${flag}?`)
    : failure;

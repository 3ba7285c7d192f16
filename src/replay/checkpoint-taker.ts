/**
 * Takes checkpoints of a machine, and says when: so often that any place is soon reached, and so rarely that recording and
 * tape hardly notice. When depends on the session alone, like everything on a tape.
 */
import { type CheckpointInput, type Position, START } from '../journal/index.js';
import { FIRST_EPOCH, type Machine, PAGE_BYTES } from '../machine/index.js';
import { encodePoint } from './point-codec.js';
import { runCost } from './run-cost.js';

/**
 * - `adaptive`: by what it costs to run again, and to take the checkpoint;
 * - a number: each time so many instructions have retired, at the end of a slice.
 */
export type CheckpointInterval = 'adaptive' | number;

/**
 * Nanoseconds that should have run for each page that is kept: eight times what the writer's thread takes to digest, compress and
 * store it, so that pages take it an eighth of the time at most (docs/adr/0026, 0040).
 */
const KEEP_PAGE = 8 * 60_000;
/** What an interval should cost to run again, unless more pages are written to in it. */
const INTERVAL = 120_000_000;
/** What it may cost however many they are: a guest that fills a large memory is to be entered anywhere, too. */
const LONGEST_INTERVAL = 5 * INTERVAL;

export class CheckpointTaker {
  private last: Position;
  /** What must have run before it is worth looking at pages. */
  private worth = INTERVAL;
  /** Checkpoints taken. */
  taken = 0;

  constructor(
    readonly machine: Machine,
    private readonly interval: CheckpointInterval | undefined,
    start = START,
    /** Since when pages that were written to are none of the last checkpoint's. */
    private epoch = FIRST_EPOCH,
  ) {
    this.last = start;
  }

  /** @param events stated so far. */
  isDue(events: bigint): boolean {
    const { machine, interval, last } = this;
    if (interval === undefined) return false;
    if (interval !== 'adaptive')
      return Math.floor(machine.retired / interval) > Math.floor(Number(last.icount) / interval);
    const ran = runCost(last, { icount: BigInt(machine.retired), seq: events });
    if (ran < this.worth) return false;
    const pages = machine.memory.pagesWrittenSince(this.epoch).length;
    this.worth = Math.min(LONGEST_INTERVAL, Math.max(INTERVAL, pages * KEEP_PAGE));
    return ran >= this.worth;
  }

  /** The machine as it is, with the pages that were written to since the last time. It must stand between two steps. */
  take(position: Position): CheckpointInput {
    const { memory } = this.machine;
    const changed = memory.pagesWrittenSince(this.epoch);
    const contents = new Uint8Array(changed.length * PAGE_BYTES);
    for (let index = 0; index < changed.length; index++) {
      contents.set(memory.window((changed[index] as number) * PAGE_BYTES, PAGE_BYTES), index * PAGE_BYTES);
    }
    return { ...this.takeWithoutRam(position), changed, contents };
  }

  /** For whoever has RAM as it is there. */
  takeWithoutRam(position: Position): Omit<CheckpointInput, 'changed' | 'contents'> {
    const { machine } = this;
    const { memory } = machine;
    this.epoch = memory.newEpoch();
    this.last = position;
    this.worth = INTERVAL;
    this.taken++;
    return { position, state: encodePoint(machine.capture()), ramPages: memory.keptBytes / PAGE_BYTES };
  }
}

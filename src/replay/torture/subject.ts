/**
 * The machine that is restored, again and again: each time over whatever ran on it before. RAM is copied only where the two
 * machines may differ, by the pages that either wrote to since they were the same.
 */
import { comparePositions, type JournalReader, type Position } from '../../journal/index.js';
import { FIRST_EPOCH, type Machine, type MachinePoint, PAGE_BYTES, type PhysicalMemory } from '../../machine/index.js';
import { putPage } from '../ram-image.js';
import { FollowingError, TapeFollower } from '../tape-follower.js';
import type { RestoreFault } from './fault.js';

export class Subject {
  private follower: TapeFollower;
  /** When the two had the same RAM. */
  private ownEpoch = FIRST_EPOCH;
  private originalEpoch = FIRST_EPOCH;

  /** @param original where the session runs on unbroken. */
  constructor(
    private readonly reader: JournalReader,
    private readonly original: PhysicalMemory,
    private readonly fault: RestoreFault | undefined,
  ) {
    this.follower = new TapeFollower(reader);
  }

  get machine(): Machine {
    return this.follower.machine;
  }

  get position(): Position {
    return this.follower.position;
  }

  close(): void {
    this.follower.close();
  }

  /** Brings RAM to what the original has now. @returns the pages that were not known to be the same. */
  takeRam(): readonly number[] {
    const { memory } = this.machine;
    const written = this.original.pagesWrittenSince(this.originalEpoch);
    const changed = new Set([...written, ...memory.pagesWrittenSince(this.ownEpoch)]);
    const fresh = new Set(this.fault?.page === undefined ? [] : written);
    for (const page of changed) {
      const content = this.original.window(page * PAGE_BYTES, PAGE_BYTES);
      putPage(memory, page, fresh.has(page) ? (this.fault?.page?.(page, content) ?? content) : content);
    }
    this.originalEpoch = this.original.newEpoch();
    this.ownEpoch = memory.newEpoch();
    return [...changed];
  }

  /** Pages that it wrote to since it took RAM. */
  get writtenPages(): Uint32Array {
    return this.machine.memory.pagesWrittenSince(this.ownEpoch);
  }

  enter(position: Position, point: MachinePoint): void {
    this.follower.enter(position, point);
    this.fault?.restored?.(this.machine);
  }

  /**
   * Runs to a place, feeding and comparing what the tape has.
   * @returns what went wrong on the way, and where; undefined when it got there.
   */
  run(to: Position): { readonly what: string; readonly at: Position } | undefined {
    try {
      while (comparePositions(this.position, to) < 0) this.follower.run(to);
      return undefined;
    } catch (error) {
      // Whatever stops a machine that was restored wrongly is told as its failure.
      if (!(error instanceof Error)) throw error;
      const { position: at } = this;
      if (error instanceof FollowingError) return { what: error.what, at };
      this.replace();
      return { what: `the machine stopped: ${error.message}`, at };
    }
  }

  /** After an error of its own a machine is good for nothing. */
  private replace(): void {
    this.follower.close();
    this.follower = new TapeFollower(this.reader);
    this.ownEpoch = FIRST_EPOCH;
    this.originalEpoch = FIRST_EPOCH;
  }
}

/**
 * Where an observer wants the machine to stop: before instructions at certain addresses, and after writes to certain ranges
 * of RAM. None of this shows in a session; it only makes the engine leave what is looked for to the control plane.
 */
import type { PhysicalMemory } from './mmu/memory.js';
import { PAGE_BYTES } from './units.js';

export interface WatchedRange {
  /** System-physical address and length in bytes; it may cross pages. */
  readonly address: number;
  readonly length: number;
}

export interface StopPoints {
  /** Linear addresses of instructions. */
  readonly code: ReadonlySet<bigint>;
  readonly writes: readonly WatchedRange[];
}

/** What stopped the machine. */
export type Hit =
  | { readonly kind: 'code'; readonly address: bigint }
  | { readonly kind: 'write'; readonly range: WatchedRange };

export const NO_STOP_POINTS: StopPoints = { code: new Set(), writes: [] };

/** Holds stop points against what the machine does. */
export class StopWatch {
  hit: Hit | undefined;

  constructor(
    readonly points: StopPoints,
    private readonly memory: PhysicalMemory,
    private readonly stop: () => void,
  ) {
    const pages = new Set<number>();
    for (const { address, length } of points.writes) {
      for (let page = Math.floor(address / PAGE_BYTES); page * PAGE_BYTES < address + length; page++) pages.add(page);
    }
    memory.watchWrites(pages, (address, length) => this.written(address, length));
  }

  get watchesCode(): boolean {
    return this.points.code.size > 0;
  }

  /** Offsets in a page at which code is watched. */
  get offsets(): ReadonlySet<number> {
    return new Set([...this.points.code].map((address) => Number(address % BigInt(PAGE_BYTES))));
  }

  /** @param linear address of the instruction that comes next. @returns whether to stop before it. */
  stopsBefore(linear: bigint): boolean {
    if (!this.points.code.has(linear)) return false;
    this.hit = { kind: 'code', address: linear };
    return true;
  }

  /** No longer holds anything. */
  release(): void {
    this.memory.watchWrites(new Set(), () => {});
  }

  private written(address: number, length: number): void {
    const range = this.points.writes.find(
      (each) => address < each.address + each.length && each.address < address + length,
    );
    if (range === undefined) return;
    this.hit = { kind: 'write', range };
    this.stop();
  }
}

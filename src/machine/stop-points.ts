/**
 * Where an observer wants the machine to stop: before instructions at certain addresses, and after accesses to certain ranges
 * of RAM. None of this shows in a session; it only makes the engine leave what is looked for to the control plane.
 *
 * Writes count whoever makes them. Reads are those of data, through paging: by instructions, and by the delivery of events,
 * whose tables lie in memory. What the processor reads to find out what to do is no read here: instructions that it fetches,
 * page tables that it walks, VMCBs that VMRUN and VMLOAD load. How often it does that depends on what it has cached, which is
 * the engine's business and not the session's.
 */
import type { MemoryWatcher, PhysicalMemory } from './mmu/memory.js';
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
  readonly reads: readonly WatchedRange[];
}

/** What stopped the machine. A step may read and write what is watched, in several places. */
export type Hit =
  | { readonly kind: 'code'; readonly address: bigint }
  | { readonly kind: 'write' | 'read'; readonly range: WatchedRange };

export const NO_STOP_POINTS: StopPoints = { code: new Set(), writes: [], reads: [] };
export const NO_HITS: readonly Hit[] = [];

export const isNothing = ({ code, writes, reads }: StopPoints): boolean =>
  code.size + writes.length + reads.length === 0;

/** Holds stop points against what the machine does. */
export class StopWatch implements MemoryWatcher {
  readonly writtenPages: ReadonlySet<number>;
  readonly readPages: ReadonlySet<number>;
  private hits: readonly Hit[] = NO_HITS;

  constructor(
    readonly points: StopPoints,
    private readonly memory: PhysicalMemory,
    private readonly stop: () => void,
  ) {
    this.writtenPages = pagesOf(points.writes);
    this.readPages = pagesOf(points.reads);
    if (points.writes.length + points.reads.length > 0) memory.watch(this);
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
    this.hits = [{ kind: 'code', address: linear }];
    return true;
  }

  /** What was hit since the last call, each once. */
  takeHits(): readonly Hit[] {
    const { hits } = this;
    this.hits = NO_HITS;
    return hits;
  }

  /** No longer holds anything. */
  release(): void {
    if (this.memory.watcher === this) this.memory.watch(undefined);
  }

  // MemoryWatcher

  stored(address: number, length: number): void {
    this.accessed('write', this.writtenPages, this.points.writes, address, length);
  }

  loaded(address: number, length: number): void {
    this.accessed('read', this.readPages, this.points.reads, address, length);
  }

  sent(): void {}

  private accessed(
    kind: 'write' | 'read',
    pages: ReadonlySet<number>,
    ranges: readonly WatchedRange[],
    address: number,
    length: number,
  ): void {
    if (!touches(pages, address, length)) return;
    for (const range of ranges) {
      if (address >= range.address + range.length || range.address >= address + length) continue;
      if (!this.hits.some((hit) => hit.kind === kind && hit.range === range))
        this.hits = [...this.hits, { kind, range }];
      this.stop();
    }
  }
}

function pagesOf(ranges: readonly WatchedRange[]): ReadonlySet<number> {
  const pages = new Set<number>();
  for (const { address, length } of ranges) {
    for (let page = Math.floor(address / PAGE_BYTES); page * PAGE_BYTES < address + length; page++) pages.add(page);
  }
  return pages;
}

function touches(pages: ReadonlySet<number>, address: number, length: number): boolean {
  if (pages.size === 0) return false;
  const last = Math.floor((address + length - 1) / PAGE_BYTES);
  for (let page = Math.floor(address / PAGE_BYTES); page <= last; page++) if (pages.has(page)) return true;
  return false;
}

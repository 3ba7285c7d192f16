/**
 * Decoded blocks by physical page. A block is a run of micro-ops from one entry point to the end of its page, the first
 * unconditional branch, or 64 instructions; it goes on past conditional branches. A write to decoded bytes turns every
 * micro-op of the page into an end-of-block, so that even the block that is running sees the new code at its next
 * instruction; their room comes back when the arena is full and all blocks are dropped.
 *
 * An instruction that crosses into another page is a block of its own, held by both pages.
 */
import {
  JUMP_CACHE_BASE,
  JUMP_CACHE_BYTES,
  JUMP_CACHE_CONTEXT,
  UOP_ARENA_BYTES,
  UOP_BASE,
} from '../layout/linear-memory.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { pageOf, type SPA } from '../units.js';
import { Handler } from './handlers.js';
import { JumpEntries, type JumpTarget, NOWHERE } from './jump-entries.js';
import { MAX_BLOCK_INSTRUCTIONS, Uop } from './uop.js';

interface Page extends JumpTarget {
  /** Entry micro-ops by offset and mode. */
  readonly entries: Map<number, number>;
  /** First micro-op and end of each block, in pairs. */
  readonly ranges: number[];
  /** Blocks that others may enter: mode, offset and end within the page, and first micro-op of each. */
  readonly open: number[];
  /** Branches that go to an entry that is not decoded yet. */
  readonly awaited: Map<number, number[]>;
}

/** Of an entry that leads nowhere: spaces count from 1. */
const NO_CONTEXT = 0;

/** Words of each block that others may enter, and how long one is at least. */
const OPEN_WORDS = 4;
const LEAST_OPEN = 2 * Uop.BYTES;
const NO_BRANCHES: readonly number[] = [];

/** Every instruction may take two micro-ops, and one ends the block. */
const MAX_BLOCK_BYTES = (2 * MAX_BLOCK_INSTRUCTIONS + 1) * Uop.BYTES;

export class BlockCache {
  private readonly pages = new Map<number, Page>();
  /** Into which other page the instruction at a micro-op crosses. */
  private readonly crossings = new Map<number, SPA>();
  private readonly jumps: JumpEntries;
  private next = UOP_BASE;
  /** How often all blocks were dropped, because there was no room, or for stop points. */
  resets = 0;
  /** Called when everything was dropped. */
  onReset: () => void = () => {};
  /** Called when the blocks of a page were dropped. */
  onDrop: (page: SPA) => void = () => {};
  /** Called when there is a new block to be found. */
  onBlock: (page: SPA, offset: number, mode: number, uop: number) => void = () => {};

  /** @param jumpCaches how many are in use. */
  constructor(
    private readonly memory: PhysicalMemory,
    private readonly jumpCaches: number,
  ) {
    this.jumps = new JumpEntries(jumpCaches);
    memory.onCodeWrite = (address, length) => this.invalidate(address, length);
  }

  /** The entry micro-op at `offset` in the page, for a mode, or 0. */
  find(page: SPA, offset: number, mode: number): number {
    return this.pages.get(page)?.entries.get(entryKey(offset, mode)) ?? 0;
  }

  /**
   * The micro-op at `offset` amid a block of the page, or 0: blocks that begin there need not be decoded once more. A loop is: its
   * head is worth a block.
   */
  inside(page: SPA, offset: number, mode: number): number {
    const known = this.pages.get(page);
    if (known === undefined || this.isLoopHead(known, offset, mode)) return 0;
    const { open } = known;
    for (let index = 0; index < open.length; index += OPEN_WORDS) {
      if (open[index] !== mode || offset <= (open[index + 1] as number) || offset >= (open[index + 2] as number))
        continue;
      const uop = this.uopAt(open[index + 3] as number, offset);
      if (uop !== 0) return uop;
    }
    return 0;
  }

  /** Whether a branch from behind waits for the place. */
  private isLoopHead({ awaited }: Page, offset: number, mode: number): boolean {
    const waiting = awaited.get(entryKey(offset, mode)) ?? NO_BRANCHES;
    return waiting.some((branch) => this.memory.view.getUint16(branch + Uop.PAGE_OFFSET, true) >= offset);
  }

  /** @param first micro-op of a block that has bytes at `offset`: there may be none of its instructions. */
  private uopAt(first: number, offset: number): number {
    const { view } = this.memory;
    for (let uop = first; ; uop += Uop.BYTES) {
      const at = view.getUint16(uop + Uop.PAGE_OFFSET, true);
      if (at >= offset) return at === offset ? uop : 0;
    }
  }

  /** Room for a block; drops all blocks first when the arena is full. Only between runs of the engine. */
  reserve(): number {
    if (this.next + MAX_BLOCK_BYTES > UOP_BASE + UOP_ARENA_BYTES) this.reset();
    return this.next;
  }

  /** Bytes of decoded instructions and of regions' data. */
  get bytesUsed(): number {
    return this.next - UOP_BASE;
  }

  /** Room for other things as long as the blocks are kept, 32-byte aligned; 0 when the arena is too full for it. */
  allocate(bytes: number): number {
    const address = this.next;
    const end = address + Math.ceil(bytes / Uop.BYTES) * Uop.BYTES;
    if (end + MAX_BLOCK_BYTES > UOP_BASE + UOP_ARENA_BYTES) return 0;
    this.next = end;
    return address;
  }

  /** Notes that compiled code stands for `bytes` of the page. @returns true as `add` does. */
  cover(page: SPA, offset: number, bytes: number): boolean {
    this.pageAt(page);
    return this.memory.markCode(page + offset, bytes);
  }

  /**
   * Keeps the block that was written at `reserve()`.
   * @param mode for `find`; undefined when only the jump cache shall know the block.
   * @param secondPage the page into which the instruction crosses, for a crossing block.
   * @returns true when a page held no code before, so that writable translations of it must go.
   */
  add(page: SPA, offset: number, mode: number | undefined, end: number, bytes: number, secondPage?: SPA): boolean {
    const start = this.next;
    this.next = end;
    const first = this.pageAt(page);
    if (mode !== undefined) this.enter(first, entryKey(offset, mode), start);
    first.ranges.push(start, end);
    if (mode !== undefined && end - start > LEAST_OPEN) first.open.push(mode, offset, offset + bytes, start);
    if (mode !== undefined) this.onBlock(page, offset, mode, start);
    if (secondPage === undefined) return this.memory.markCode(page + offset, bytes);
    this.pageAt(secondPage).ranges.push(start, end);
    this.crossings.set(start, secondPage);
    const inFirst = 4096 - offset;
    const fresh = this.memory.markCode(page + offset, inFirst);
    return this.memory.markCode(secondPage, bytes - inFirst) || fresh;
  }

  /** A jump cache has, at this address, a block of the page. */
  entered(page: SPA, uop: number, entry: number): void {
    const second = this.crossings.get(uop);
    this.jumps.lead(entry, this.pageAt(page), second === undefined ? undefined : this.pageAt(second));
  }

  /** The branch micro-op `uop` goes to `offset` in the page, which is not decoded yet. */
  awaitLink(page: SPA, offset: number, mode: number, uop: number): void {
    const { awaited } = this.pageAt(page);
    const key = entryKey(offset, mode);
    const waiting = awaited.get(key);
    if (waiting === undefined) awaited.set(key, [uop]);
    else waiting.push(uop);
  }

  private enter(page: Page, key: number, uop: number): void {
    page.entries.set(key, uop);
    for (const branch of page.awaited.get(key) ?? []) this.memory.view.setInt32(branch + Uop.LINK, uop, true);
    page.awaited.delete(key);
  }

  /** Drops every block. */
  reset(): void {
    this.resets++;
    this.pages.clear();
    this.jumps.clear();
    this.crossings.clear();
    this.next = UOP_BASE;
    this.memory.clearAllCode();
    this.clearJumpCaches();
    this.onReset();
  }

  clearJumpCaches(): void {
    const { bytes } = this.memory;
    bytes.fill(0, JUMP_CACHE_BASE, JUMP_CACHE_BASE + this.jumpCaches * JUMP_CACHE_BYTES);
  }

  private invalidate(address: SPA, length: number): void {
    for (let page = pageOf(address); page < address + length; page = (page + 4096) as SPA) this.drop(page);
  }

  private leaveJumpCaches(page: Page): void {
    this.jumps.drop(page, (entry) => this.memory.view.setInt32(entry + JUMP_CACHE_CONTEXT, NO_CONTEXT, true));
  }

  private drop(page: SPA): void {
    const known = this.pages.get(page);
    if (known === undefined) return;
    const { view } = this.memory;
    for (let index = 0; index < known.ranges.length; index += 2) {
      const end = known.ranges[index + 1] as number;
      for (let uop = known.ranges[index] as number; uop < end; uop += Uop.BYTES) {
        view.setUint16(uop + Uop.HANDLER, Handler.END, true);
      }
    }
    this.leaveJumpCaches(known);
    this.pages.delete(page);
    this.memory.clearCodePage(page);
    this.onDrop(page);
  }

  private pageAt(page: SPA): Page {
    let known = this.pages.get(page);
    if (known === undefined) {
      known = { entries: new Map(), ranges: [], open: [], awaited: new Map(), firstJump: NOWHERE };
      this.pages.set(page, known);
    }
    return known;
  }
}

const entryKey = (offset: number, mode: number): number => offset * 4096 + mode;

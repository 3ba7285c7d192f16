/**
 * Which entries of the jump caches lead into code of a page: when that is gone, so are they. Each entry is on the lists of the one or two
 * pages that hold its block, in memory that does not grow.
 */
import { JUMP_CACHE_BASE, JUMP_CACHE_ENTRIES, JUMP_CACHE_ENTRY_BYTES } from '../layout/linear-memory.js';

/** What has a list. */
export interface JumpTarget {
  /** The first place on it; NOWHERE when it is empty. */
  firstJump: number;
}

export const NOWHERE = -1;

export class JumpEntries {
  /** An entry has two places, one for each page that its block may lie in. Places are linked both ways. */
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private readonly targets: (JumpTarget | undefined)[];

  /** @param caches how many jump caches are in use. */
  constructor(caches: number) {
    const places = 2 * caches * JUMP_CACHE_ENTRIES;
    this.next = new Int32Array(places);
    this.previous = new Int32Array(places);
    this.targets = new Array<JumpTarget | undefined>(places).fill(undefined);
  }

  /** The entry at an address of the memory leads into code of `first`, and into that of `second` if it has one; no more to what it led to. */
  lead(entry: number, first: JumpTarget, second: JumpTarget | undefined): void {
    const place = (2 * (entry - JUMP_CACHE_BASE)) / JUMP_CACHE_ENTRY_BYTES;
    this.put(place, first);
    if (second === undefined) this.take(place + 1);
    else this.put(place + 1, second);
  }

  /** The target is gone. @param forget gets the addresses of the entries that led to it. */
  drop(target: JumpTarget, forget: (entry: number) => void): void {
    for (let place = target.firstJump; place !== NOWHERE; place = this.next[place] as number) {
      this.targets[place] = undefined;
      forget(JUMP_CACHE_BASE + (place >> 1) * JUMP_CACHE_ENTRY_BYTES);
    }
    target.firstJump = NOWHERE;
  }

  /** All targets are gone. */
  clear(): void {
    this.targets.fill(undefined);
  }

  private put(place: number, target: JumpTarget): void {
    if (this.targets[place] === target) return;
    this.take(place);
    const { firstJump } = target;
    this.targets[place] = target;
    this.next[place] = firstJump;
    this.previous[place] = NOWHERE;
    if (firstJump !== NOWHERE) this.previous[firstJump] = place;
    target.firstJump = place;
  }

  /** From the list that it is on, if any. */
  private take(place: number): void {
    const target = this.targets[place];
    if (target === undefined) return;
    const next = this.next[place] as number;
    const previous = this.previous[place] as number;
    if (previous === NOWHERE) target.firstJump = next;
    else this.next[previous] = next;
    if (next !== NOWHERE) this.previous[next] = previous;
    this.targets[place] = undefined;
  }
}

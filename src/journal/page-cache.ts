/** Groups of pages that were read last: pages that were written together are read together. */
import { GROUP_PAGES, PAGE_BYTES } from './checkpoint.js';

/** 16 MiB. */
const HELD_GROUPS = 256;

export class PageCache {
  private readonly groups = new Map<number, Uint8Array>();

  /** @param read gives the contents of a group by its number. */
  constructor(private readonly read: (group: number) => Uint8Array) {}

  /** The content of a page by its number. */
  page(content: number): Uint8Array {
    const start = (content % GROUP_PAGES) * PAGE_BYTES;
    return this.group(Math.floor(content / GROUP_PAGES)).subarray(start, start + PAGE_BYTES);
  }

  private group(id: number): Uint8Array {
    const contents = this.groups.get(id) ?? this.read(id);
    // The map remembers the order of insertion: whoever is used moves to its end.
    this.groups.delete(id);
    this.groups.set(id, contents);
    if (this.groups.size > HELD_GROUPS) this.groups.delete(this.groups.keys().next().value as number);
    return contents;
  }
}

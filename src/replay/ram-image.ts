/**
 * RAM at one moment, immutable: for each page what it holds, by number where a tape keeps the content, else as bytes. Images
 * of neighbouring moments share all that did not change between them, and so tell quickly how they differ.
 */

import { PAGE_BYTES, type PhysicalMemory, sPA } from '../machine/index.js';

/** A number of a content on the tape, 0 for zeros; or the content. Equal references mean equal contents. */
export type PageRef = number | Uint8Array;

/** Pages in a stretch that images share as one. */
const STRETCH = 256;

export class RamImage {
  private constructor(
    readonly pages: number,
    private readonly stretches: readonly (readonly PageRef[])[],
  ) {}

  /** @param contents for each page the number of its content. @param neighbour shares with it what is equal. */
  static of(contents: Uint32Array, neighbour?: RamImage): RamImage {
    const stretches: (readonly PageRef[])[] = [];
    for (let page = 0; page < contents.length; page += STRETCH) {
      const stretch = contents.subarray(page, page + STRETCH);
      const its = neighbour?.stretches[stretches.length];
      const isEqual = its?.length === stretch.length && its.every((ref, index) => ref === stretch[index]);
      stretches.push(isEqual ? its : [...stretch]);
    }
    return new RamImage(contents.length, stretches);
  }

  static zeros(pages: number): RamImage {
    return RamImage.of(new Uint32Array(pages));
  }

  at(page: number): PageRef {
    return (this.stretches[Math.floor(page / STRETCH)] as readonly PageRef[])[page % STRETCH] as PageRef;
  }

  /** The image in which some pages are others. */
  with(changes: Iterable<readonly [page: number, ref: PageRef]>): RamImage {
    const stretches = [...this.stretches];
    const own = new Set<number>();
    for (const [page, ref] of changes) {
      const index = Math.floor(page / STRETCH);
      if (!own.has(index)) {
        stretches[index] = [...(stretches[index] as readonly PageRef[])];
        own.add(index);
      }
      (stretches[index] as PageRef[])[page % STRETCH] = ref;
    }
    return new RamImage(this.pages, stretches);
  }

  /** Pages that are not the same in both. */
  *differences(other: RamImage): Generator<number, void, void> {
    for (let index = 0; index < this.stretches.length; index++) {
      const mine = this.stretches[index] as readonly PageRef[];
      const its = other.stretches[index] as readonly PageRef[];
      if (mine === its) continue;
      for (let page = 0; page < mine.length; page++) if (mine[page] !== its[page]) yield index * STRETCH + page;
    }
  }
}

/** As finely as memory marks where decoded instructions stand. */
const LINE_BYTES = 64;

/** Writes a page, but only where it differs: code beside data stays decoded. */
export function putPage(memory: PhysicalMemory, page: number, content: Uint8Array): void {
  const address = page * PAGE_BYTES;
  const now = memory.window(address, PAGE_BYTES);
  for (let line = 0; line < PAGE_BYTES; line += LINE_BYTES) {
    let at = line;
    while (at < line + LINE_BYTES && now[at] === content[at]) at++;
    if (at < line + LINE_BYTES) memory.copyIn(sPA(address + line), content.subarray(line, line + LINE_BYTES));
  }
}

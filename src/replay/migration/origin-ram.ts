/**
 * RAM as it was at the place where a session came, gathered while it comes: the first checkpoint of its tape, which costs no
 * time then. Pages may still come when the session runs here already and writes to its RAM.
 */
import type { CheckpointInput } from '../../journal/index.js';
import { invariant, PAGE_BYTES } from '../../machine/index.js';

export class OriginRam {
  /** For each page where its content stands: 1 + the number among those that came, or 0 for a page of zeros. */
  private readonly places: Uint32Array;
  private readonly numbers: Uint32Array;
  /** Room for all of RAM, of which what is not written to costs nothing. */
  private contents: Uint8Array;
  private count = 0;

  constructor(pages: number) {
    this.places = new Uint32Array(pages);
    this.numbers = new Uint32Array(pages);
    // Shared, so that it goes to the writer's thread as it is.
    this.contents = new Uint8Array(new SharedArrayBuffer(pages * PAGE_BYTES));
  }

  /** @param content of a page, in the place of what came for it before. */
  put(page: number, content: Uint8Array): void {
    let place = this.places[page] as number;
    if (place === 0) {
      place = ++this.count;
      this.places[page] = place;
      this.numbers[place - 1] = page;
    }
    this.contents.set(content, (place - 1) * PAGE_BYTES);
  }

  /** The page is all zeros. */
  clear(page: number): void {
    const place = this.places[page] as number;
    if (place !== 0) this.contents.fill(0, (place - 1) * PAGE_BYTES, place * PAGE_BYTES);
  }

  /** For a checkpoint, whose writer gets the memory. */
  take(): Pick<CheckpointInput, 'changed' | 'contents'> {
    const { contents, count } = this;
    invariant(contents.length > 0, 'the origin is taken once');
    this.contents = new Uint8Array(0);
    return { changed: this.numbers.slice(0, count), contents: contents.subarray(0, count * PAGE_BYTES) };
  }
}

/** Pages that follow a session which was handed over already: each goes once, those that are waited for first. */
export class LaterPages {
  static readonly NONE = new LaterPages([]);

  /** Their numbers, ascending. */
  readonly pages: Uint32Array;
  /** For each whether it has gone. */
  private readonly gone: Uint8Array;
  private readonly places = new Map<number, number>();
  private left: number;
  /** Where the next ones are looked for: what is touched next mostly stands behind what was waited for last. */
  private at = 0;

  constructor(pages: Iterable<number>) {
    this.pages = Uint32Array.from(pages).sort();
    this.gone = new Uint8Array(this.pages.length);
    this.left = this.pages.length;
    for (const [place, page] of this.pages.entries()) this.places.set(page, place);
  }

  get done(): boolean {
    return this.left === 0;
  }

  get sent(): number {
    return this.pages.length - this.left;
  }

  has(page: number): boolean {
    return this.places.has(page);
  }

  /** At most so many that have not gone, and go now. @param from the first of them, unless it has gone: then there are none. */
  take(most: number, from?: number): readonly number[] {
    const { pages, gone } = this;
    if (from !== undefined) {
      this.at = this.places.get(from) as number;
      if (gone[this.at] === 1) return [];
    }
    const taken: number[] = [];
    while (taken.length < most && this.left > 0) {
      if (this.at === pages.length) this.at = 0;
      if (gone[this.at] === 0) {
        gone[this.at] = 1;
        this.left--;
        taken.push(pages[this.at] as number);
      }
      this.at++;
    }
    return taken;
  }
}

/** Where pages of code lie, as code of them was found last: so that going on in one needs no walk. */
import type { SPA } from '../units.js';

/** A page of code, and under which tables and privilege it was found. */
interface CodePage {
  space: number;
  user: number;
  page: SPA;
}

/** Pages that are remembered; then all are forgotten. */
const HELD_PAGES = 4096;
const MOST_LINEAR_PAGES = 65_536;

export class CodePages {
  /** By the RIP at which they begin. */
  private readonly pages = new Map<bigint, CodePage>();
  /** Numbers of all linear pages in which code was found. */
  private readonly linearPages = new Set<number>();

  /** @param onFull so many linear pages have code that they are forgotten, and with them who depends on which. */
  constructor(private readonly onFull: () => void) {}

  /** Where the page that begins at `rip` lies, when code of it was found in this space with this privilege. */
  at(rip: bigint, space: number, user: number): SPA | undefined {
    const known = this.pages.get(rip);
    return known?.space === space && known.user === user ? known.page : undefined;
  }

  note(rip: bigint, linear: bigint, found: Readonly<CodePage>): void {
    const { pages } = this;
    const known = pages.get(rip);
    if (known?.space === found.space && known.user === found.user && known.page === found.page) return;
    this.noteLinear(linear);
    if (known === undefined) {
      if (pages.size >= HELD_PAGES) pages.clear();
      pages.set(rip, { ...found });
    } else Object.assign(known, found);
  }

  /** Whoever changes what is translated there changes the code that is found, too. */
  noteLinear(linear: bigint): void {
    const page = Number(linear >> 12n);
    if (this.linearPages.has(page)) return;
    if (this.linearPages.size >= MOST_LINEAR_PAGES) {
      this.linearPages.clear();
      this.pages.clear();
      this.onFull();
    }
    this.linearPages.add(page);
  }

  /** @param page number of a linear page. */
  holds(page: number): boolean {
    return this.linearPages.has(page);
  }

  clear(): void {
    this.pages.clear();
  }
}

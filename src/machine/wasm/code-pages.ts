/** Where pages of code lie, as code of them was found last: so that going on in one needs no walk. */
import { type SPA, sPA } from '../units.js';

/** Pages that are remembered, each in its place. */
const HELD_PAGES = 4096;
const MOST_LINEAR_PAGES = 65_536;
const NOTHING = 0;
const USER = 1;

export class CodePages {
  /** Numbers of linear pages, under which tables and privilege they were found, and where they lie. */
  private readonly pages = new Float64Array(HELD_PAGES);
  private readonly owners = new Uint32Array(HELD_PAGES);
  private readonly places = new Float64Array(HELD_PAGES);
  /** Numbers of all linear pages in which code was found. */
  private readonly linearPages = new Set<number>();

  /** @param onFull so many linear pages have code that they are forgotten, and with them who depends on which. */
  constructor(private readonly onFull: () => void) {}

  /** Where a linear page lies, when code of it was found in this space (from 1 on) with this privilege. */
  at(page: number, space: number, user: boolean): SPA | undefined {
    const owner = ownerOf(space, user);
    const index = indexOf(page, owner);
    return this.owners[index] === owner && this.pages[index] === page ? sPA(this.places[index] as number) : undefined;
  }

  /** @param place of the page. */
  note(page: number, space: number, user: boolean, place: SPA): void {
    this.noteLinear(page);
    const owner = ownerOf(space, user);
    const index = indexOf(page, owner);
    this.owners[index] = owner;
    this.pages[index] = page;
    this.places[index] = place;
  }

  /** Whoever changes what is translated there changes the code that is found, too. @param page number of a linear page. */
  noteLinear(page: number): void {
    if (this.linearPages.has(page)) return;
    if (this.linearPages.size >= MOST_LINEAR_PAGES) {
      this.linearPages.clear();
      this.clear();
      this.onFull();
    }
    this.linearPages.add(page);
  }

  /** @param page number of a linear page. */
  holds(page: number): boolean {
    return this.linearPages.has(page);
  }

  clear(): void {
    this.owners.fill(NOTHING);
  }
}

const ownerOf = (space: number, user: boolean): number => 2 * space + (user ? USER : 0);

const GOLDEN_RATIO = 0x9e37_79b1;
const PLACE_BITS = 12;

/** Neighbours stand beside each other; spaces, and regions of one space, are turned against each other. */
const indexOf = (page: number, owner: number): number =>
  (page ^ scattered(page / HELD_PAGES) ^ scattered(owner)) & (HELD_PAGES - 1);

const scattered = (number: number): number => Math.imul(number, GOLDEN_RATIO) >>> (32 - PLACE_BITS);

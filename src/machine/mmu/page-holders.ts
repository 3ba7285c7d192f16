/**
 * Which banks of the TLB may hold a translation of a linear page, so that one page is forgotten without a look into all of them.
 * A place of the table is one page's; when another one has come there before, nothing is known any more of the pages that share it.
 */
import { TLB_BANKS } from '../layout/linear-memory.js';

const PLACES = 16 * 1024;
const WORDS = TLB_BANKS / 32;
const NO_PAGE = -1;

const ALL_BANKS: readonly number[] = Array.from({ length: TLB_BANKS }, (_, bank) => bank);

export class PageHolders {
  private readonly pages = new Float64Array(PLACES).fill(NO_PAGE);
  private readonly shared = new Uint8Array(PLACES);
  /** A bit for each bank, `WORDS` words for each place. */
  private readonly banks = new Int32Array(PLACES * WORDS);

  /** @param page number of a linear page. */
  add(page: number, bank: number): void {
    const place = placeOf(page);
    const word = place * WORDS;
    if (this.pages[place] !== page) {
      if (this.pages[place] !== NO_PAGE) this.shared[place] = 1;
      this.pages[place] = page;
      this.banks.fill(0, word, word + WORDS);
    }
    this.banks[word + (bank >>> 5)] = (this.banks[word + (bank >>> 5)] as number) | (1 << (bank & 31));
  }

  /** Calls `forget` for each bank that may hold the page; where it says that the bank does not any more, that is noted. */
  each(page: number, forget: (bank: number) => boolean): void {
    const place = placeOf(page);
    if (this.shared[place] === 1) {
      for (const bank of ALL_BANKS) forget(bank);
      return;
    }
    if (this.pages[place] !== page) return;
    for (let word = 0; word < WORDS; word++) {
      const held = this.banks[place * WORDS + word] as number;
      let kept = held;
      for (let left = held; left !== 0; left &= left - 1) {
        const bit = left & -left;
        if (forget(32 * word + 31 - Math.clz32(bit))) kept &= ~bit;
      }
      this.banks[place * WORDS + word] = kept;
    }
  }
}

/** Areas of an address space begin at round addresses. */
const placeOf = (page: number): number => (page ^ Math.imul(Math.floor(page / PLACES), 0x9e37_79b1)) & (PLACES - 1);

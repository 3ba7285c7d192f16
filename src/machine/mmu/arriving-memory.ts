/**
 * RAM of which some pages are still elsewhere: a session that was handed over runs on it, and whatever touches such a page
 * first waits for it. When a page comes shows in nothing: not in what was written to, nor in any translation or decoded code,
 * for none is made of a page that is not there.
 *
 * The doors to RAM are few. Compiled code has a page by its translation only, and a translation, like a decoded block, a table
 * entry and every access of the evaluator, begins with `isRam`; the rest goes through methods of `PhysicalMemory`. World
 * switches read a VMCB by its place: instructions that name one ask `isRam`, and whoever puts one into a register by other
 * means (RSM, a hand-over) says `touch`.
 */
import { invariant } from '../errors.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import { PAGE_BYTES, type SPA } from '../units.js';
import { PhysicalMemory } from './memory.js';

const PAGE_SHIFT = 12;

export class ArrivingMemory extends PhysicalMemory {
  /** One byte for each page: 1 for those that are elsewhere. */
  private readonly away = new Uint8Array(this.keptBytes / PAGE_BYTES);
  private count = 0;
  /** Brings a page: when it returns, `arrive` has been called for it. Set by whoever knows where it is. */
  fetch: (page: number) => void = () => {};

  /** Pages that are elsewhere. */
  get pagesAway(): number {
    return this.count;
  }

  isAway(page: number): boolean {
    return this.away[page] === 1;
  }

  /** The contents of these pages come later. They count as written to now. */
  leave(pages: Iterable<number>): void {
    for (const page of pages) {
      invariant(this.away[page] === 0, 'a page is left once');
      this.noteWritable(page * PAGE_BYTES);
      this.away[page] = 1;
      this.count++;
    }
  }

  /** @param content of a page that was left; it was there all the time, so nobody is told. */
  arrive(page: number, content: Uint8Array): void {
    invariant(this.away[page] === 1 && content.length === PAGE_BYTES, 'a page arrives once, whole');
    this.bytes.set(content, RAM_BASE + page * PAGE_BYTES);
    this.away[page] = 0;
    this.count--;
  }

  override touch(address: number, length: number): void {
    if (this.count === 0) return;
    const last = (address + length - 1) >>> PAGE_SHIFT;
    for (let page = address >>> PAGE_SHIFT; page <= last; page++) if (this.away[page] === 1) this.bring(page);
  }

  private bring(page: number): void {
    this.fetch(page);
    invariant(this.away[page] === 0, 'a page that was fetched is there');
  }

  // The doors

  override isRam(address: number, length: number): boolean {
    if (!super.isRam(address, length)) return false;
    this.touch(address, length);
    return true;
  }

  override read(address: SPA, size: number): bigint {
    this.touch(address, size);
    return super.read(address, size);
  }

  override write(address: SPA, size: number, value: bigint, linear?: bigint): void {
    this.touch(address, size);
    super.write(address, size, value, linear);
  }

  override read32(address: number): number {
    this.touch(address, 4);
    return super.read32(address);
  }

  override markEntry(address: number, value: number): void {
    this.touch(address, 4);
    super.markEntry(address, value);
  }

  override writeHalves(word: number, low: number, high: number): void {
    this.touch(4 * word - RAM_BASE, 8);
    super.writeHalves(word, low, high);
  }

  override copyIn(address: SPA, data: Uint8Array): void {
    this.touch(address, data.length);
    super.copyIn(address, data);
  }

  override clear(address: SPA, length: number): void {
    this.touch(address, length);
    super.clear(address, length);
  }

  override window(address: number, length: number): Uint8Array {
    this.touch(address, length);
    return super.window(address, length);
  }
}

/**
 * Guest RAM within the WebAssembly memory, and what lies at which system-physical address.
 *
 * RAM is one range from 0 with a hole at A0000h..BFFFFh (the legacy VGA window, which no device claims). Lines of 64
 * bytes that hold decoded instructions are marked, and so are pages that hold page tables which a translation was made from; a
 * write to either tells the engine before anything else runs.
 * Invariant: all writes to RAM that are not made by compiled code go through this class.
 */
import { invariant } from '../errors.js';
import { RAM_BASE, WASM_PAGE_BYTES } from '../layout/linear-memory.js';
import { PAGE_BYTES, type SPA } from '../units.js';

const HOLE_START = 0xa0000;
const HOLE_END = 0xc0000;
// Shifts do for addresses: RAM ends below 4 GiB.
const CODE_LINE_BYTES = 64;
const CODE_LINE_SHIFT = 6;
const PAGE_SHIFT = 12;
/** Writes to a page table without a walk between them, above which it is taken for none. */
const MOST_ENTRY_WRITES = 16;

/** Of the page that holds a linear address, given as two words. */
export const pageNumber = (low: number, high: number): number => (high >>> 0) * 0x10_0000 + (low >>> 12);

/**
 * A table of the last level.
 * @param address of an entry. @param bytes of each entry, 4 or 8. @param page number of the linear page that it translates.
 */
export const leafOf = (address: number, bytes: number, page: number): number =>
  2 * (page - (address % PAGE_BYTES) / bytes) + (bytes === 8 ? 0 : 1);

/** P of a page-table entry, in the low word of all formats. */
const PRESENT = 1;
const SEVERAL_SPACES = -1;
/** What `noteTable` is told of a table whose entries are not each the translation of one page. */
export const NO_LEAF = -1;
/** The epoch in which a machine is made. */
export const FIRST_EPOCH = 1;

/**
 * Told of what the evaluator, page walks and world switches do to RAM. Compiled code tells nothing: it gets no translation for
 * the pages named here, so that its accesses to them are the evaluator's.
 */
export interface MemoryWatcher {
  /** Numbers of the pages whose writes must not escape. */
  readonly writtenPages: ReadonlySet<number>;
  /** Numbers of the pages whose data reads must not escape. */
  readonly readPages: ReadonlySet<number>;
  /** Bytes of RAM have been written. @param linear where, when it was through paging. */
  stored(address: number, length: number, linear: bigint | undefined): void;
  /** An instruction or the delivery of an event has read bytes of RAM through paging, as data. */
  loaded(address: number, length: number): void;
  /** A value goes to whatever stands at an address that is not RAM. */
  sent(address: number, size: number, value: bigint, linear: bigint | undefined): void;
}

export class PhysicalMemory {
  readonly wasm: WebAssembly.Memory;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly quads: BigUint64Array;
  readonly view: DataView;
  /** One byte for each 64-byte line: 1 where decoded instructions stand. */
  private readonly codeLines: Uint8Array;
  /** One byte for each page: 1 where any line of it is marked. */
  private readonly codePages: Uint8Array;
  /**
   * For each page: 0, or by whose translations it is used as a page table: 1 + the number of an address space, or
   * SEVERAL_SPACES.
   */
  private readonly tablePages: Float64Array;
  /** For each page table of the last level the leaf that it is (`leafOf`); NO_LEAF for others, and those that are several. */
  private readonly tableLeaves: Float64Array;
  /** For each page table how often an entry of it was written to since the last walk through it. */
  private readonly tableWrites: Uint8Array;
  /** For each page the epoch in which it was last written to; 0 when it never was. */
  private readonly writtenIn: Uint32Array;
  private epoch = FIRST_EPOCH;
  /** The address space whose tables are walked. Set by the engine. */
  tableOwner = 0;
  /** How often something was written to tables that is more than the translation of one page. */
  tableChanges = 0;
  private watching: MemoryWatcher | undefined;
  /** Called when a page has become a page table: nothing may write to it unseen. Set by the engine. */
  onNewTable: (page: number) => void = () => {};
  /** Called after a write to a page table. Set by the engine. @param space undefined for several. */
  onTableWrite: (space: number | undefined) => void = () => {};
  /**
   * Called when an entry is written to that translates one linear page of a space. Set by the engine.
   * @returns false when it is not enough to forget that page's translation.
   */
  onEntryWrite: (space: number, page: number) => boolean = () => true;
  /** Called when an epoch begins: compiled code may write to no page before it has asked again. Set by the engine. */
  onNewEpoch: () => void = () => {};
  /** Called when other pages are watched from now on: compiled code must ask again for every page. Set by the engine. */
  onWatch: () => void = () => {};
  /** Called after a write that hit decoded instructions. Set by the engine. */
  onCodeWrite: (address: SPA, length: number) => void = () => {};

  /**
   * @param ramBytes multiple of 64 KiB, at most MAX_RAM_BYTES. @param keptBytes with what lies behind RAM, which no guest can
   * address: the medium of a disk.
   */
  constructor(
    readonly ramBytes: number,
    readonly keptBytes: number = ramBytes,
  ) {
    const isWhole = ramBytes % WASM_PAGE_BYTES === 0 && keptBytes % WASM_PAGE_BYTES === 0;
    invariant(isWhole && keptBytes >= ramBytes, 'RAM is made of whole WebAssembly pages');
    const pages = (RAM_BASE + keptBytes) / WASM_PAGE_BYTES;
    this.wasm = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.bytes = new Uint8Array(this.wasm.buffer);
    this.words = new Uint32Array(this.wasm.buffer);
    this.quads = new BigUint64Array(this.wasm.buffer);
    this.view = new DataView(this.wasm.buffer);
    this.codeLines = new Uint8Array(keptBytes / CODE_LINE_BYTES);
    this.codePages = new Uint8Array(keptBytes / PAGE_BYTES);
    this.tablePages = new Float64Array(keptBytes / PAGE_BYTES);
    this.tableLeaves = new Float64Array(keptBytes / PAGE_BYTES);
    this.tableWrites = new Uint8Array(keptBytes / PAGE_BYTES);
    this.writtenIn = new Uint32Array(keptBytes / PAGE_BYTES);
  }

  get watcher(): MemoryWatcher | undefined {
    return this.watching;
  }

  /** From now on. @param watcher the only one; nobody when undefined. */
  watch(watcher: MemoryWatcher | undefined): void {
    this.watching = watcher;
    this.onWatch();
  }

  // What was written to, and when

  /** Begins an epoch. @returns its number, by which `pagesWrittenSince` tells what was written to from now on. */
  newEpoch(): number {
    this.onNewEpoch();
    return ++this.epoch;
  }

  /** Numbers of the pages that may have been written to since an epoch began, ascending. Of the first epoch, all ever. */
  pagesWrittenSince(epoch: number): Uint32Array {
    const { writtenIn } = this;
    let count = 0;
    for (let page = 0; page < writtenIn.length; page++) if ((writtenIn[page] as number) >= epoch) count++;
    const pages = new Uint32Array(count);
    for (let page = 0, at = 0; at < count; page++) if ((writtenIn[page] as number) >= epoch) pages[at++] = page;
    return pages;
  }

  /** Compiled code may write to the page at `address` from now on. */
  noteWritable(address: number): void {
    this.writtenIn[address >>> PAGE_SHIFT] = this.epoch;
  }

  /** True when all of `length` bytes (at most a page) at `address` are RAM. */
  isRam(address: number, length: number): boolean {
    const end = address + length;
    return end <= this.ramBytes && (end <= HOLE_START || address >= HOLE_END);
  }

  /**
   * RAM at `address` is about to be accessed by its place among `words` or `quads`, which nothing else would notice. Only RAM
   * of which a part is elsewhere cares (`ArrivingMemory`).
   */
  touch(_address: number, _length: number): void {}

  /** Where RAM is, in ascending order: pairs of the first address and the one behind the last. */
  ramRanges(): readonly (readonly [start: number, end: number])[] {
    const below = Math.min(this.ramBytes, HOLE_START);
    return this.ramBytes <= HOLE_END
      ? [[0, below]]
      : [
          [0, below],
          [HOLE_END, this.ramBytes],
        ];
  }

  /** @param size 1, 2, 4 or 8; the range must be RAM. */
  read(address: SPA, size: number): bigint {
    const at = RAM_BASE + address;
    switch (size) {
      case 1:
        return BigInt(this.view.getUint8(at));
      case 2:
        return BigInt(this.view.getUint16(at, true));
      case 4:
        return BigInt(this.view.getUint32(at, true));
      default:
        return this.view.getBigUint64(at, true);
    }
  }

  /** @param linear the address that paging made this of, for whoever watches. */
  write(address: SPA, size: number, value: bigint, linear?: bigint): void {
    const at = RAM_BASE + address;
    const keepsTables = this.isUnusedEntry(address, size);
    switch (size) {
      case 1:
        this.view.setUint8(at, Number(value & 0xffn));
        break;
      case 2:
        this.view.setUint16(at, Number(value & 0xffffn), true);
        break;
      case 4:
        this.view.setUint32(at, Number(value & 0xffff_ffffn), true);
        break;
      default:
        this.view.setBigUint64(at, value, true);
    }
    this.noteWrite(address, size, linear, keepsTables);
  }

  /** True when a write there changes no translation: an entry of a table that is not present, in any format. */
  private isUnusedEntry(address: number, size: number): boolean {
    if (this.tablePages[address >>> PAGE_SHIFT] === 0 || (address & 7) + size > 8) return false;
    const word = (RAM_BASE + (address & ~7)) >>> 2;
    return (((this.words[word] as number) | (this.words[word + 1] as number)) & PRESENT) === 0;
  }

  /** An aligned 32-bit word, as a number: for page walks. */
  read32(address: number): number {
    return this.words[(RAM_BASE + address) >>> 2] as number;
  }

  /** Sets the accessed and dirty bits of a table entry: no translation changes by that. */
  markEntry(address: number, value: number): void {
    this.words[(RAM_BASE + address) >>> 2] = value;
    this.noteWritable(address);
    this.noteCodeWrite(address, 4);
    this.watching?.stored(address, 4, undefined);
  }

  /** Notes that translations of `tableOwner` depend on the page at `address`. @param leaf of `leafOf`. */
  noteTable(address: number, leaf = NO_LEAF): void {
    const page = address >>> PAGE_SHIFT;
    const owner = this.tableOwner + 1;
    const known = this.tablePages[page] as number;
    this.tableWrites[page] = 0;
    if (known === 0) {
      this.tablePages[page] = owner;
      this.tableLeaves[page] = leaf;
      this.onNewTable(page * PAGE_BYTES);
      return;
    }
    if (known !== owner) this.tablePages[page] = SEVERAL_SPACES;
    if (this.tableLeaves[page] !== leaf) this.tableLeaves[page] = NO_LEAF;
  }

  /** Writes an aligned quadword of RAM in halves. @param word place of the low one among `words`. */
  writeHalves(word: number, low: number, high: number): void {
    const address = (4 * word - RAM_BASE) as SPA;
    const keepsTables = this.isUnusedEntry(address, 8);
    this.words[word] = low;
    this.words[word + 1] = high;
    this.noteWrite(address, 8, undefined, keepsTables);
  }

  copyIn(address: SPA, data: Uint8Array): void {
    this.bytes.set(data, RAM_BASE + address);
    this.noteWrite(address, data.length);
  }

  /** Writes zeros. */
  clear(address: SPA, length: number): void {
    this.bytes.fill(0, RAM_BASE + address, RAM_BASE + address + length);
    this.noteWrite(address, length);
  }

  /** A window onto `length` bytes of RAM; not a copy. */
  window(address: number, length: number): Uint8Array {
    return this.bytes.subarray(RAM_BASE + address, RAM_BASE + address + length);
  }

  /** Marks `length` bytes at `address` as decoded. @returns true when the page held no decoded instructions before. */
  markCode(address: number, length: number): boolean {
    const first = address >>> CODE_LINE_SHIFT;
    const last = (address + length - 1) >>> CODE_LINE_SHIFT;
    for (let line = first; line <= last; line++) this.codeLines[line] = 1;
    const page = address >>> PAGE_SHIFT;
    const fresh = this.codePages[page] === 0;
    this.codePages[page] = 1;
    return fresh;
  }

  /** Forgets the marks of the page at `address`. */
  clearCodePage(address: number): void {
    const page = address >>> PAGE_SHIFT;
    this.codePages[page] = 0;
    const lines = PAGE_BYTES / CODE_LINE_BYTES;
    this.codeLines.fill(0, page * lines, (page + 1) * lines);
  }

  clearAllCode(): void {
    this.codePages.fill(0);
    this.codeLines.fill(0);
  }

  /** True when compiled code must not write to the page at `address` unseen: it holds decoded instructions or page tables, or is watched. */
  mayNotWrite(address: number): boolean {
    const page = address >>> PAGE_SHIFT;
    if (this.codePages[page] === 1 || this.tablePages[page] !== 0) return true;
    // An instruction that reads and then writes back does both by its translation for writing.
    return this.watching !== undefined && (this.watching.writtenPages.has(page) || this.watching.readPages.has(page));
  }

  /** True when compiled code must not read from the page at `address` unseen. */
  mayNotRead(address: number): boolean {
    return this.watching?.readPages.has(address >>> PAGE_SHIFT) === true;
  }

  /**
   * Compiled code is about to store `length` bytes, all in one page, where it may not write unseen. What the evaluator would do
   * after such a store is done here, before it, when it is no more than to forget the translation of one page.
   * @returns false when it is more: then nothing has been done, and the evaluator must execute the instruction.
   */
  admitStore(address: number, length: number): boolean {
    if (this.watching !== undefined || this.hitsCode(address, length)) return false;
    const page = address >>> PAGE_SHIFT;
    const owner = this.tablePages[page] as number;
    if (owner !== 0) {
      if ((this.tableWrites[page] as number) >= MOST_ENTRY_WRITES) return false;
      if (!this.isUnusedEntry(address, length)) {
        const entry = this.pageOfEntry(address, length);
        if (entry === undefined || !this.onEntryWrite(owner - 1, entry)) return false;
      }
      this.tableWrites[page] = (this.tableWrites[page] as number) + 1;
    }
    this.noteWritable(address);
    return true;
  }

  private noteWrite(address: SPA, length: number, linear?: bigint, keepsTables = false): void {
    this.noteCodeWrite(address, length);
    const last = (address + length - 1) >>> PAGE_SHIFT;
    for (let page = address >>> PAGE_SHIFT; page <= last; page++) {
      this.writtenIn[page] = this.epoch;
      const owner = this.tablePages[page] as number;
      if (owner !== 0 && !this.staysTable(page, address, length, keepsTables)) {
        this.tablePages[page] = 0;
        this.tableChanges++;
        this.onTableWrite(owner === SEVERAL_SPACES ? undefined : owner - 1);
      }
    }
    this.watching?.stored(address, length, linear);
  }

  /**
   * Sees to a write to one entry of a table, when that is what it is.
   * @param isUnused the entry translates nothing so far.
   */
  private staysTable(page: number, address: number, length: number, isUnused: boolean): boolean {
    const writes = (this.tableWrites[page] as number) + 1;
    this.tableWrites[page] = writes;
    // It is being filled, or has become something else.
    if (writes > MOST_ENTRY_WRITES) return false;
    if (isUnused) return true;
    const owner = this.tablePages[page] as number;
    const entry = this.pageOfEntry(address, length);
    if (entry === undefined) return false;
    if (!this.onEntryWrite(owner - 1, entry)) this.onTableWrite(owner - 1);
    return true;
  }

  /** The linear page that an entry translates; undefined when more entries than one are meant, or it may be several. */
  private pageOfEntry(address: number, length: number): number | undefined {
    const table = address >>> PAGE_SHIFT;
    const leaf = this.tableLeaves[table] as number;
    if (leaf === NO_LEAF || this.tablePages[table] === SEVERAL_SPACES) return undefined;
    const bytes = leaf % 2 === 0 ? 8 : 4;
    const within = address % PAGE_BYTES;
    return (within % bytes) + length > bytes ? undefined : Math.floor(leaf / 2) + Math.floor(within / bytes);
  }

  private noteCodeWrite(address: number, length: number): void {
    if (this.hitsCode(address, length)) this.onCodeWrite(address as SPA, length);
  }

  private hitsCode(address: number, length: number): boolean {
    const first = address >>> CODE_LINE_SHIFT;
    const last = (address + length - 1) >>> CODE_LINE_SHIFT;
    for (let line = first; line <= last; line++) if (this.codeLines[line] === 1) return true;
    return false;
  }
}

/**
 * The TLB, in two levels. Compiled code looks into the first: banks of direct-mapped entries, one bank for each address space
 * (a vCPU's ASID), privilege and set of tables, so that a world switch, a change of CPL or another CR3 selects another bank and
 * flushes nothing. What another page has taken the place of is found again in the second, which all banks share, without a
 * page walk: a walk through nested tables takes twenty times as long.
 * Source: APM vol.2 §5.5 Translation-Lookaside Buffer, §15.16 TLB Control.
 */
import { invariant } from '../errors.js';
import {
  Cell,
  HELD_PAIRS,
  TLB_ARRAY_BYTES,
  TLB_BANK_BYTES,
  TLB_BANKS,
  TLB_BASE,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_WRITE_OFFSET,
} from '../layout/linear-memory.js';
import { PAGE_BYTES } from '../units.js';
import { type PhysicalMemory, pageNumber } from './memory.js';
import { PageHolders } from './page-holders.js';

/** The low word of a tag that matches no page address. */
const EMPTY = 0xffff_ffff;

const HELD_WORD = Cell.HELD >> 2;

const NO_GENERATION = -1;
/** Of a bank whose memory nobody has written to: it is cleared when it is selected first. */
const UNUSED = 0;

/** Entries of the second level: what a working set of 64 MiB needs. */
const SECOND_ENTRIES = 16 * 1024;
/** A word of the second level: the entry serves writes too, for dirty bits are set. */
const FOR_WRITES = 1;

interface Bank {
  readonly index: number;
  readonly address: number;
  /** Marks entries of the second level that this bank made since its last flush; UNUSED before its first selection. */
  generation: number;
  space: number;
  privilege: number;
  rules: string;
  /** Number of the last selection, for reuse of the one longest unused. */
  used: number;
  /** Which entries were inserted since the last flush, as indices of their words in the memory; first `inserted` of them. */
  readonly entries: Uint32Array;
  /** How many the list has, some perhaps twice; where it is too short any entry may be filled. */
  inserted: number;
  /** Whether the second level alone has some. */
  noted: boolean;
}

/** Few entries are told one by one: a flush after each write to a page table would take long otherwise. */
const LISTED = 256;

export class TlbBanks {
  private readonly banks: Bank[] = [];
  private readonly holders = new PageHolders();
  private clock = 0;
  private lastGeneration = 0;
  /** The second level: page numbers and generations as tags, then where the page lies in the memory. */
  private readonly pages = new Float64Array(SECOND_ENTRIES);
  private readonly generations = new Float64Array(SECOND_ENTRIES);
  private readonly targets = new Float64Array(SECOND_ENTRIES);

  constructor(private readonly memory: PhysicalMemory) {
    this.dropHeld();
    for (let index = 0; index < TLB_BANKS; index++) {
      const address = TLB_BASE + index * TLB_BANK_BYTES;
      this.banks.push({
        ...{ index, address, generation: UNUSED, space: -1, privilege: 0, rules: '', used: 0 },
        ...{ entries: new Uint32Array(LISTED), inserted: LISTED + 1, noted: false },
      });
    }
  }

  /**
   * @param privilege distinguishes what translations may be used.
   * @param rules what they depend on besides RAM: where the tables are, and how they are read.
   * @returns the memory address of the bank.
   */
  select(space: number, privilege: number, rules: string): number {
    this.clock++;
    let oldest: Bank | undefined;
    for (const bank of this.banks) {
      if (bank.space === space && bank.privilege === privilege && bank.rules === rules) {
        bank.used = this.clock;
        return this.selected(bank);
      }
      if (oldest === undefined || bank.used < oldest.used) oldest = bank;
    }
    invariant(oldest !== undefined, 'there are TLB banks');
    this.clear(oldest);
    oldest.space = space;
    oldest.privilege = privilege;
    oldest.rules = rules;
    oldest.used = this.clock;
    return this.selected(oldest);
  }

  private selected(bank: Bank): number {
    if (this.bank !== bank) this.dropHeld();
    this.bank = bank;
    return bank.address;
  }
  private bank: Bank | undefined;

  /**
   * Compiled code keeps copies of entries of the bank that is selected: they go when any translation does, or another bank is
   * selected. One that another entry takes the place of is as good as it was.
   */
  private dropHeld(): void {
    const { words } = this.memory;
    for (let pair = 0; pair < HELD_PAIRS; pair++) words[HELD_WORD + (pair * TLB_ENTRY_BYTES) / 4] = EMPTY;
  }

  /**
   * Where the page of the linear address `high:low` lies in the memory, when it was inserted before and nothing has dropped
   * it since; 0 when a page walk must tell. It may have become code or a page table meanwhile: who asks for a write must
   * see to that as after a walk.
   */
  recall(bankAddress: number, low: number, high: number, write: boolean): number {
    const { generation } = this.bankAt(bankAddress);
    const at = secondIndex(low, high, generation);
    if (this.generations[at] !== generation || this.pages[at] !== pageNumber(low, high)) return 0;
    const target = this.targets[at] as number;
    if (!write) return target - (target % PAGE_BYTES);
    return target % PAGE_BYTES === FOR_WRITES ? target - FOR_WRITES : 0;
  }

  /** Enters the page of the linear address `high:low`, which lies at `target` in the memory. */
  insert(bankAddress: number, low: number, high: number, target: number, write: boolean): void {
    const bank = this.bankAt(bankAddress);
    this.remember(bank, low, high, target, write);
    const entry = entryOf(bankAddress, low, write);
    const { words } = this.memory;
    // What is not empty is listed already.
    if (words[entry] === EMPTY && bank.inserted <= LISTED) this.list(bank, entry);
    const page = low & ~0xfff;
    words[entry] = page;
    words[entry + 1] = high;
    words[entry + 2] = target - page;
  }

  /** Lends the page that lies at `target` for one write: who has missed finds where it lies, and nobody else does. */
  lend(bankAddress: number, low: number, target: number): void {
    const entry = entryOf(bankAddress, low, true);
    const { words } = this.memory;
    words[entry] = EMPTY;
    words[entry + 2] = target - (low & ~0xfff);
  }

  private list(bank: Bank, entry: number): void {
    const { words } = this.memory;
    if (bank.inserted === LISTED) {
      // Some were dropped one by one, and perhaps filled again.
      const filled = new Set(bank.entries.filter((listed) => words[listed] !== EMPTY));
      bank.entries.set([...filled]);
      bank.inserted = filled.size <= LISTED / 2 ? filled.size : LISTED;
    }
    if (bank.inserted < LISTED) bank.entries[bank.inserted] = entry;
    bank.inserted++;
  }

  /** The same for whoever makes no use of the first level. The whole page is RAM. */
  note(bankAddress: number, low: number, high: number, target: number, write: boolean): void {
    const bank = this.bankAt(bankAddress);
    bank.noted = true;
    this.remember(bank, low, high, target, write);
  }

  private remember({ index, generation }: Bank, low: number, high: number, target: number, write: boolean): void {
    const at = secondIndex(low, high, generation);
    const page = pageNumber(low, high);
    this.holders.add(page, index);
    const known = this.generations[at] === generation && this.pages[at] === page;
    if (known && !write) return;
    this.generations[at] = generation;
    this.pages[at] = page;
    this.targets[at] = target + (write ? FOR_WRITES : 0);
  }

  private bankAt(address: number): Bank {
    return this.banks[(address - TLB_BASE) / TLB_BANK_BYTES] as Bank;
  }

  /** Drops an address space, or everything. */
  flush(space: number | undefined): void {
    for (const bank of this.banks) {
      if (bank.generation !== UNUSED && (space === undefined || bank.space === space)) this.clear(bank);
    }
  }

  /** Drops one linear page of an address space. */
  forgetPage(space: number, page: number): void {
    this.dropHeld();
    const { words } = this.memory;
    const low = ((page % 0x10_0000) << 12) >>> 0;
    const high = Math.floor(page / 0x10_0000);
    this.holders.each(page, (index) => {
      const { address, generation, space: owner } = this.banks[index] as Bank;
      if (owner !== space) return false;
      const read = entryOf(address, low, false);
      const write = entryOf(address, low, true);
      if (words[read] === low && words[read + 1] === high) words[read] = EMPTY;
      if (words[write] === low && words[write + 1] === high) words[write] = EMPTY;
      const at = secondIndex(low, high, generation);
      if (this.pages[at] === page) this.generations[at] = NO_GENERATION;
      return true;
    });
  }

  /** Drops translations for writing to the page at `target` in the memory: it has become code, or a page table. */
  forgetWrites(target: number): void {
    this.dropHeld();
    const { words } = this.memory;
    for (const bank of this.banks) {
      this.eachWrite(bank, (entry) => {
        // Page and addend make the target; an empty entry's tag is no page.
        if (((words[entry] as number) + (words[entry + 2] as number)) >>> 0 === target) words[entry] = EMPTY;
      });
    }
  }

  /** Drops all translations for writing. */
  forgetAllWrites(): void {
    this.dropHeld();
    const { words } = this.memory;
    for (const bank of this.banks) {
      this.eachWrite(bank, (entry) => {
        words[entry] = EMPTY;
      });
    }
  }

  private eachWrite({ address, generation, entries, inserted }: Bank, action: (entry: number) => void): void {
    if (generation === UNUSED) return;
    const start = (address + TLB_WRITE_OFFSET) >>> 2;
    if (inserted <= LISTED) {
      for (let index = 0; index < inserted; index++) {
        const entry = entries[index] as number;
        if (entry >= start) action(entry);
      }
      return;
    }
    const end = start + TLB_ARRAY_BYTES / 4;
    for (let entry = start; entry < end; entry += TLB_ENTRY_BYTES / 4) action(entry);
  }

  /** Tags of all ones match no page address. */
  private clear(bank: Bank): void {
    this.dropHeld();
    const { entries, inserted } = bank;
    if (inserted === 0 && !bank.noted) return;
    const { words, bytes } = this.memory;
    if (inserted > LISTED) bytes.fill(0xff, bank.address, bank.address + TLB_BANK_BYTES);
    else for (let index = 0; index < inserted; index++) words[entries[index] as number] = EMPTY;
    bank.inserted = 0;
    bank.noted = false;
    bank.generation = ++this.lastGeneration;
  }
}

/** Place of the first level's entry for a linear address, among the memory's words. */
const entryOf = (bankAddress: number, low: number, write: boolean): number =>
  (bankAddress + (write ? TLB_WRITE_OFFSET : 0) + ((low >>> 12) & (TLB_ENTRIES - 1)) * TLB_ENTRY_BYTES) >>> 2;

const secondIndex = (low: number, high: number, generation: number): number =>
  ((low >>> 12) ^ Math.imul(high, 0x9e37_79b1) ^ Math.imul(generation, 0x3c6e_f372)) & (SECOND_ENTRIES - 1);

/** Which translations to drop after the instruction committed. */
export type TlbFlush =
  | { readonly scope: 'all' }
  /** All of one address space, global entries too. */
  | { readonly scope: 'asid'; readonly asid: number }
  /** The same on every processor. */
  | { readonly scope: 'everywhere'; readonly asid: number }
  /** One address space, but for global entries: what a write to CR3 drops. */
  | { readonly scope: 'non-global'; readonly asid: number }
  /** One page of an address space. */
  | { readonly scope: 'page'; readonly asid: number; readonly linear: bigint };

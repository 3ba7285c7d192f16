/**
 * One walk through page tables, of a guest or nested: reads entries, checks that they are present and clear where they
 * must be, gathers the permissions, and afterwards sets accessed and dirty bits.
 *
 * It stands behind every TLB miss, so it neither allocates nor makes a bigint: linear addresses come as two 32-bit
 * words, entries are read as such, physical addresses are plain numbers (below 2^52).
 *
 * Where a table lies outside RAM its entries read as all ones, as nothing answers on the bus; in the long and PAE
 * formats that is a present entry with reserved bits set. Accessed and dirty bits are set only after the whole access
 * was allowed; the manual lets them be set for any entry that the walk used (APM vol.2 §5.4.2 Accessed and Dirty Bits).
 * Source: APM vol.2 §5.2 Legacy-Mode Page Translation, §5.3 Long-Mode Page Translation, §5.4 Page-Translation-Table
 * Entry Fields.
 */
import { leafOf, NO_LEAF, type PhysicalMemory } from './memory.js';
import { Allows, IN_DIRECTORY, NOT_HELD, PagingStructureCache } from './paging-structure-cache.js';

/** Which tables translate. */
export const PagingMode = { NONE: 0, LEGACY: 1, PAE: 2, LONG: 3 } as const;
export type PagingMode = (typeof PagingMode)[keyof typeof PagingMode];

/** Bits of a page-fault error code (APM vol.2 §8.4.2 Page-Fault Error Code). */
export const PageFaultCode = { PRESENT: 1, WRITE: 2, USER: 4, RESERVED: 8, FETCH: 16 } as const;

/** What the walk must know of the control registers behind the tables. */
export interface TableRules {
  readonly mode: PagingMode;
  /** Physical address of the root table. */
  readonly root: number;
  /** PAE: the frames of the four page directories as the processor holds them, -1 for those not present. */
  readonly pdptes: readonly number[] | undefined;
  /** 4 MiB pages in 32-bit tables (CR4.PSE). */
  readonly pageSizeExtensions: boolean;
  /** 1 GiB pages (CPUID Fn8000_0001 EDX[26]); without them bit 7 of a PDPE must be clear. */
  readonly gigabytePages: boolean;
  /** Bits of the high word that must be clear in every 64-bit entry. */
  readonly reservedHigh: number;
  /** Bits of a 32-bit entry for a 4 MiB page that must be clear. */
  readonly reservedLegacyLarge: number;
  /** The error code tells instruction fetches apart: EFER.NXE, or CR4.SMEP. */
  readonly reportsFetch: boolean;
}

/** Says where a table entry lies in system-physical memory. */
export interface EntryResolver {
  /** @returns the sPA, or a negative number when the walk must stop. */
  resolve(address: number): number;
}

const ACCESSED = 0x20;
const DIRTY = 0x40;
const LARGE = 0x80;
const GLOBAL = 0x100;
const NO_EXECUTE_HIGH = 0x8000_0000;
/** Bits 8:7 of a PML4E. */
const PML4E_RESERVED = 0x180;
/** Bits 8:5 and 2:1 of a PDPE in legacy PAE tables; all permission bits are left to the lower levels. */
const LEGACY_PDPE_RESERVED = 0x1e6;
/** Above bit 51, where a legacy PAE PDPE holds nothing at all. */
const LEGACY_PDPE_RESERVED_HIGH = 0xfff0_0000;
const MAX_LEVELS = 4;
const FRAME_HIGH = 0x000f_ffff;
const TWO_32 = 0x1_0000_0000;
const NO_POINTER = -1;

export const KIB_4 = 0x1000;
const MIB_2 = 0x20_0000;
const MIB_4 = 0x40_0000;
const GIB_1 = 0x4000_0000;

/** Why a walk stopped. */
export const Stop = {
  NONE: 0,
  /** An entry is not present or malformed; `code` tells which. */
  ENTRY: 1,
  /** The resolver did not give an entry's place. */
  RESOLVER: 2,
} as const;

/** Bits of `reservedHigh` for physical addresses of `width` bits (32..52). */
export function reservedHighWord(mode: PagingMode, width: number, noExecute: boolean): number {
  const aboveWidth = FRAME_HIGH & ~(2 ** (width - 32) - 1);
  const ignoredInLongMode = mode === PagingMode.PAE ? 0x7ff0_0000 : 0;
  return (aboveWidth | ignoredInLongMode | (noExecute ? 0 : NO_EXECUTE_HIGH)) >>> 0;
}

/** Bits of `reservedLegacyLarge`: bits 20:13 are physical-address bits 39:32 as far as there are any; bit 21 is clear. */
export function reservedLegacyLargeBits(width: number): number {
  const addressBits = width >= 40 ? 0xff : 2 ** (width - 32) - 1;
  return 0x20_0000 | ((0xff & ~addressBits) << 13);
}

export class TableWalk {
  /** Physical address of the 4 KiB frame that holds the linear address, and the size of the page it is part of. */
  frame = 0;
  pageBytes = KIB_4;
  writable = false;
  user = false;
  executable = false;
  global = false;
  dirty = false;
  stop: number = Stop.NONE;
  /** PRESENT and RESERVED bits of the error code after a stop. */
  code = 0;

  private low = 0;
  private high = 0;
  private address = 0;
  private readonly usedAddresses = new Float64Array(MAX_LEVELS);
  private readonly usedWords = new Int32Array(MAX_LEVELS);
  private used = 0;
  private entryBytes = 8;
  /** Where the page-directory pointer lies that a legacy PAE walk read: it has no accessed bit. */
  private pointer = NO_POINTER;
  private readonly cache: PagingStructureCache;
  /** Of the walk through all four levels that may be kept, once it has left its marks; undefined of another. */
  private kept: TableRules | undefined;
  private region = 0;
  /** What the levels above the last one that was looked at allow. */
  private above = 0;

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly resolver: EntryResolver | undefined,
  ) {
    this.cache = new PagingStructureCache(memory);
  }

  /**
   * @param rules of a mode with tables. @param low @param high words of a canonical linear address.
   * @param resolved entries lie at guest-physical addresses: ask the resolver for their places.
   * @returns true when a page was found; its permissions are left to the caller.
   */
  walk(rules: TableRules, low: number, high: number, resolved: boolean): boolean {
    this.stop = Stop.NONE;
    this.used = 0;
    this.pointer = NO_POINTER;
    this.kept = undefined;
    this.writable = true;
    this.user = true;
    this.executable = true;
    this.entryBytes = rules.mode === PagingMode.LEGACY ? 4 : 8;
    switch (rules.mode) {
      case PagingMode.LONG:
        return this.walkLong(rules, low, high, resolved);
      case PagingMode.PAE:
        return this.walkPae(rules, low, resolved);
      default:
        return this.walkLegacy(rules, low, resolved);
    }
  }

  /**
   * Sets the accessed bits of the entries that the walk used and, for a write, the dirty bit of the page's entry; and notes
   * that a translation depends on them.
   * @param page number of the linear page that was walked for, when the tables translate linear addresses.
   */
  markUsed(write: boolean, page?: number): void {
    const last = this.used - 1;
    if (this.pointer !== NO_POINTER) this.memory.noteTable(this.pointer, NO_LEAF);
    for (let level = 0; level <= last; level++) {
      const word = this.usedWords[level] as number;
      const marked = word | (level === last && write ? ACCESSED | DIRTY : ACCESSED);
      const address = this.usedAddresses[level] as number;
      if (marked !== word) this.memory.markEntry(address, marked >>> 0);
      const isLeaf = page !== undefined && level === last && this.pageBytes === KIB_4;
      this.memory.noteTable(address, isLeaf ? leafOf(address, this.entryBytes, page) : NO_LEAF);
    }
    if (write) this.dirty = true;
    if (this.kept === undefined || this.pageBytes > MIB_2) return;
    const leaf = this.usedAddresses[last] as number;
    const notes = this.pageBytes === KIB_4 ? this.above : this.above | IN_DIRECTORY;
    this.cache.keep(this.kept, this.region, leaf - (leaf % KIB_4), notes);
  }

  /** 4 KiB, 2 MiB or 1 GiB pages through four levels of 64-bit entries (APM vol.2 §5.3 Long-Mode Page Translation). */
  private walkLong(rules: TableRules, low: number, high: number, resolved: boolean): boolean {
    if (!resolved) {
      this.region = ((high & 0xffff) << 11) | (low >>> 21);
      const held = this.cache.find(rules, this.region);
      if (held !== NOT_HELD) return this.walkHeld(rules, held, low);
      this.kept = rules;
    }
    if (!this.readWide(rules.root + ((high >>> 7) & 0x1ff) * 8, resolved)) return false;
    if (!this.useWide(rules, PML4E_RESERVED)) return false;
    if (!this.readWide(this.nextTable() + (((high & 0x7f) << 2) | (low >>> 30)) * 8, resolved)) return false;
    if ((this.low & LARGE) !== 0) {
      if (!rules.gigabytePages) return this.stopAtReserved();
      return this.useWide(rules, 0x3fff_e000) && this.found(GIB_1, 0xc000_0000, low & 0x3fff_f000);
    }
    if (!this.useWide(rules, 0)) return false;
    this.noteAbove();
    return this.walkDirectory(rules, this.nextTable(), low, resolved);
  }

  /** Four page-directory pointers, then two levels of 64-bit entries (APM vol.2 §5.2.4 PAE Paging). */
  private walkPae(rules: TableRules, low: number, resolved: boolean): boolean {
    const pointer = low >>> 30;
    if (rules.pdptes !== undefined) {
      const directory = rules.pdptes[pointer] as number;
      return directory < 0 ? this.stopAtAbsent() : this.walkDirectory(rules, directory, low, resolved);
    }
    if (!this.readWide(rules.root + pointer * 8, resolved)) return false;
    const malformed =
      (this.low & LEGACY_PDPE_RESERVED) | (this.high & (rules.reservedHigh | LEGACY_PDPE_RESERVED_HIGH));
    if (malformed !== 0) return this.stopAtReserved();
    this.pointer = this.address;
    return this.walkDirectory(rules, this.nextTable(), low, resolved);
  }

  /** The last two levels of the long and PAE formats: 2 MiB and 4 KiB pages. */
  private walkDirectory(rules: TableRules, directory: number, low: number, resolved: boolean): boolean {
    if (!this.readWide(directory + ((low >>> 21) & 0x1ff) * 8, resolved)) return false;
    if ((this.low & LARGE) !== 0) {
      return this.useWide(rules, 0x001f_e000) && this.found(MIB_2, 0xffe0_0000, low & 0x001f_f000);
    }
    if (!this.useWide(rules, 0)) return false;
    this.noteAbove();
    return this.walkTable(rules, this.nextTable(), low, resolved);
  }

  private noteAbove(): void {
    this.above =
      (this.writable ? Allows.WRITE : 0) | (this.user ? Allows.USER : 0) | (this.executable ? Allows.EXECUTE : 0);
  }

  /** The last level, of the table that the cache holds. */
  private walkHeld(rules: TableRules, held: number, low: number): boolean {
    const notes = this.cache.notesAt(held);
    const table = this.cache.tableAt(held);
    this.writable = (notes & Allows.WRITE) !== 0;
    this.user = (notes & Allows.USER) !== 0;
    this.executable = (notes & Allows.EXECUTE) !== 0;
    const inDirectory = (notes & IN_DIRECTORY) !== 0;
    return inDirectory ? this.walkDirectory(rules, table, low, false) : this.walkTable(rules, table, low, false);
  }

  private walkTable(rules: TableRules, table: number, low: number, resolved: boolean): boolean {
    if (!this.readWide(table + ((low >>> 12) & 0x1ff) * 8, resolved)) return false;
    return this.useWide(rules, 0) && this.found(KIB_4, 0xffff_f000, 0);
  }

  /** Two levels of 32-bit entries: 4 KiB and, with PSE, 4 MiB pages (APM vol.2 §5.2.3 Non-PAE Paging). */
  private walkLegacy(rules: TableRules, low: number, resolved: boolean): boolean {
    if (!this.readNarrow(rules.root + (low >>> 22) * 4, resolved)) return false;
    if (rules.pageSizeExtensions && (this.low & LARGE) !== 0) {
      if ((this.low & rules.reservedLegacyLarge) !== 0) return this.stopAtReserved();
      this.use();
      this.high = (this.low >>> 13) & 0xff;
      return this.found(MIB_4, 0xffc0_0000, low & 0x003f_f000);
    }
    this.use();
    if (!this.readNarrow(this.nextTable() + ((low >>> 12) & 0x3ff) * 4, resolved)) return false;
    this.use();
    return this.found(KIB_4, 0xffff_f000, 0);
  }

  /** The PAT entry that the page's entry names: PAT, PCD and PWT (APM vol.2 §5.4.1 Page-Translation-Table Fields). */
  get patIndex(): number {
    const pat = (this.low >>> (this.pageBytes === KIB_4 ? 7 : 12)) & 1;
    return (pat << 2) | ((this.low >>> 3) & 3);
  }

  private readWide(address: number, resolved: boolean): boolean {
    if (!this.locate(address, resolved)) return false;
    if (this.memory.isRam(this.address, 8)) {
      this.low = this.memory.read32(this.address) | 0;
      this.high = this.memory.read32(this.address + 4) | 0;
    } else {
      this.low = -1;
      this.high = -1;
    }
    return (this.low & 1) !== 0 || this.stopAtAbsent();
  }

  private readNarrow(address: number, resolved: boolean): boolean {
    if (!this.locate(address, resolved)) return false;
    this.low = this.memory.isRam(this.address, 4) ? this.memory.read32(this.address) | 0 : -1;
    this.high = 0;
    return (this.low & 1) !== 0 || this.stopAtAbsent();
  }

  private locate(address: number, resolved: boolean): boolean {
    this.address = resolved && this.resolver !== undefined ? this.resolver.resolve(address) : address;
    if (this.address >= 0) return true;
    this.stop = Stop.RESOLVER;
    return false;
  }

  private useWide(rules: TableRules, reservedLow: number): boolean {
    if (((this.high & rules.reservedHigh) | (this.low & reservedLow)) !== 0) return this.stopAtReserved();
    if (this.high < 0) this.executable = false; // bit 63, NX
    this.use();
    return true;
  }

  private use(): void {
    if ((this.low & 2) === 0) this.writable = false;
    if ((this.low & 4) === 0) this.user = false;
    this.usedAddresses[this.used] = this.address;
    this.usedWords[this.used] = this.low;
    this.used++;
  }

  private nextTable(): number {
    return (this.high & FRAME_HIGH) * TWO_32 + ((this.low & 0xffff_f000) >>> 0);
  }

  private found(pageBytes: number, frameMask: number, within: number): boolean {
    this.frame = (this.high & FRAME_HIGH) * TWO_32 + ((this.low & frameMask) >>> 0) + within;
    this.pageBytes = pageBytes;
    this.global = (this.low & GLOBAL) !== 0;
    this.dirty = (this.low & DIRTY) !== 0;
    return true;
  }

  private stopAtAbsent(): false {
    this.stop = Stop.ENTRY;
    this.code = 0;
    return false;
  }

  private stopAtReserved(): false {
    this.stop = Stop.ENTRY;
    this.code = PageFaultCode.PRESENT | PageFaultCode.RESERVED;
    return false;
  }
}

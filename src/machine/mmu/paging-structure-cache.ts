/**
 * Which tables walks of late have come to last, of 4 KiB pages or of 2 MiB pages, and what the levels above allow: a walk that finds its table
 * here reads one entry instead of three or four. It holds what the translations of a space depend on, and so it goes when one of their tables is written
 * to (docs/adr/0021): unlike a processor's it is never stale.
 * Source: APM vol.2 §5.5 Translation-Lookaside Buffer; §5.3.3 4-Kbyte Page Translation.
 */
import type { PhysicalMemory } from './memory.js';

/** Bits of what the levels above allow. */
export const Allows = { WRITE: 1, USER: 2, EXECUTE: 4 } as const;
/** The region is one page: its entry stands in a page directory. */
export const IN_DIRECTORY = 8;

const ENTRIES = 64;
export const NOT_HELD = -1;

export class PagingStructureCache {
  private readonly rules: (object | undefined)[] = new Array<object | undefined>(ENTRIES).fill(undefined);
  private readonly spaces = new Float64Array(ENTRIES);
  private readonly regions = new Int32Array(ENTRIES);
  private readonly tables = new Float64Array(ENTRIES);
  private readonly notes = new Uint8Array(ENTRIES);
  private tableChanges = 0;

  constructor(private readonly memory: PhysicalMemory) {}

  /**
   * @param rules by which the tables are read; the same object each time. @param region of 2 MiB: bits 47:21 of the address.
   * @returns a place to ask below, or NOT_HELD.
   */
  find(rules: object, region: number): number {
    const { memory } = this;
    if (this.tableChanges !== memory.tableChanges) {
      this.tableChanges = memory.tableChanges;
      this.rules.fill(undefined);
      return NOT_HELD;
    }
    const place = placeOf(region);
    return this.rules[place] === rules && this.regions[place] === region && this.spaces[place] === memory.tableOwner
      ? place
      : NOT_HELD;
  }

  /** Physical address of the table. */
  tableAt(place: number): number {
    return this.tables[place] as number;
  }

  /** Bits of `Allows`, and IN_DIRECTORY. */
  notesAt(place: number): number {
    return this.notes[place] as number;
  }

  /** Keeps what a walk has come to, all of whose entries are marked as accessed, and noted as tables. */
  keep(rules: object, region: number, table: number, notes: number): void {
    const place = placeOf(region);
    this.rules[place] = rules;
    this.regions[place] = region;
    this.spaces[place] = this.memory.tableOwner;
    this.tables[place] = table;
    this.notes[place] = notes;
  }
}

const placeOf = (region: number): number => (region ^ (region >>> 9)) & (ENTRIES - 1);

/**
 * What the processor finds in memory as the supervisor without a page walk: on pages that were accessed of late, by their place in the
 * memory. For lanes and plain cases, which decline where that does not suffice.
 */
import { Attribute, attributesIn, baseIn, limitIn } from '../cpu/descriptors.js';
import { CPU_BASE, R, type Slot } from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import type { PhysicalMemory } from '../mmu/memory.js';

/** Place of a register among the 32-bit words of the memory. */
export const wordOf = (slot: Slot): number => (CPU_BASE >> 2) + 2 * slot;

/** @returns the address in the memory of the page of a linear address; 0 when a page walk must tell. */
type FindPage = (low: number, high: number, write: boolean) => number;

export const PAGE_MASK = 0xfff;
const DESCRIPTOR_BYTES = 8;
const [GDTR_BASE, GDTR_LIMIT] = [R.gdtrBase, R.gdtrLimit].map(wordOf) as [number, number];

const DPL = 0x60;
const KINDS = Attribute.USER | Attribute.CODE | Attribute.EXPAND_DOWN | Attribute.PRESENT | DPL | Attribute.ACCESSED;
/** Attributes of what may stand in CS and SS at CPL 0. */
export const CODE = Attribute.USER | Attribute.CODE | Attribute.PRESENT | Attribute.ACCESSED;
export const DATA = Attribute.USER | Attribute.PRESENT | Attribute.ACCESSED;

export class KnownMemory {
  private readonly words: Uint32Array;

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly findPage: FindPage,
  ) {
    this.words = memory.words;
  }

  /**
   * Place of `bytes` at a linear address among the words of the memory; 0 where that is not known. They lie in one page, and begin at
   * a multiple of four. @param write whether they are to be written to.
   */
  placeOf(low: number, high: number, bytes: number, write = false): number {
    const page = this.findPage(low, high, write);
    if (page === 0) return 0;
    const at = page + (low & PAGE_MASK);
    this.memory.touch(at - RAM_BASE, bytes);
    return at >>> 2;
  }

  /**
   * Whether loading a selector would leave a segment register as it is: its descriptor in the GDT says what stands there, and
   * is marked as accessed. @param segment place of CS or SS. @param kind of descriptor.
   */
  isLoaded(segment: number, selector: number, kind: typeof CODE | typeof DATA): boolean {
    const { words } = this;
    const offset = selector & 0xffff;
    // RPL 0, in the GDT.
    if (offset % DESCRIPTOR_BYTES !== 0) return false;
    const [word, limit] = [words[segment] as number, words[segment + 1] as number];
    const [base, baseHigh] = [words[segment + 2] as number, words[segment + 3] as number];
    if (offset === 0) return kind === DATA && (word | limit | base | baseHigh) === 0;
    const descriptor = this.descriptor(offset);
    if (descriptor === 0) return false;
    const low = words[descriptor] as number;
    const high = words[descriptor + 1] as number;
    const attributes = attributesIn(high);
    if ((attributes & KINDS) !== kind || !suits(kind, attributes)) return false;
    return (
      word === (offset | (attributes << 16)) >>> 0 &&
      limit === limitIn(low, high) &&
      base === baseIn(low, high) &&
      baseHigh === 0
    );
  }

  /** Place of a descriptor of the GDT among the words of the memory, 0 when it cannot be read without more ado. */
  private descriptor(offset: number): number {
    const { words } = this;
    if (offset + DESCRIPTOR_BYTES - 1 > (words[GDTR_LIMIT] as number)) return 0;
    const [base, high] = [words[GDTR_BASE] as number, words[GDTR_BASE + 1] as number];
    // Descriptors that lie across pages, or where the sum has a carry, are rare.
    if (base % DESCRIPTOR_BYTES !== 0 || base + offset > 0xffff_ffff) return 0;
    return this.placeOf(base + offset, high, DESCRIPTOR_BYTES);
  }
}

/** Code for 64-bit mode; a stack that can be written to. */
const suits = (kind: number, attributes: number): boolean =>
  kind === CODE
    ? (attributes & (Attribute.LONG | Attribute.BIG)) === Attribute.LONG
    : (attributes & Attribute.WRITABLE) !== 0;

/**
 * What is loaded where: the pieces of an image, checked against RAM, against each other and against what the PC keeps
 * for itself below 1 MiB; and room for what the boot loader adds.
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import { PAGE_BYTES, type SPA, sPA } from '../units.js';
import { hexadecimal, refuseImage } from './image-reader.js';

/** A piece of RAM that the image fills. */
export interface Segment {
  /** For messages: where in the image it is described. */
  readonly name: string;
  readonly address: number;
  readonly data: Uint8Array;
  /** Bytes in memory; those after `data` are zero. */
  readonly memoryBytes: number;
}

export interface LoadPlan {
  readonly segments: readonly Segment[];
  /** Physical address. */
  readonly entry: number;
}

interface Reserved {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

export const CONVENTIONAL_END = 0x9_fc00;
export const HIGH_MEMORY = 0x10_0000;
/** What no image may be loaded over. */
const RESERVED: readonly Reserved[] = [
  { name: 'the BIOS data area', start: 0x400, end: 0x500 },
  { name: 'the extended BIOS data area', start: CONVENTIONAL_END, end: 0xa_0000 },
  { name: 'the hole for video memory and ROMs', start: 0xa_0000, end: HIGH_MEMORY },
];

const RELINK = 'Link the image to other addresses.';
const MORE_RAM = 'Give the machine more --memory, or link the image lower.';

/** @throws InputError */
export function checkPlan({ segments, entry }: LoadPlan, ramBytes: number): void {
  const sorted = [...segments].sort((a, b) => a.address - b.address);
  for (const [index, segment] of sorted.entries()) {
    checkPlace(segment, ramBytes);
    const next = sorted[index + 1];
    if (next !== undefined && endOf(segment) > next.address) {
      refuseImage(next.name, `${placeOf(next)} overlaps ${placeOf(segment)} of ${segment.name}`, RELINK);
    }
  }
  if (!segments.some((segment) => entry >= segment.address && entry < endOf(segment))) {
    refuseImage('entry point', `${hexadecimal(entry)} lies in no loaded segment`, RELINK);
  }
}

function checkPlace(segment: Segment, ramBytes: number): void {
  const { name, address } = segment;
  const end = endOf(segment);
  const reserved = RESERVED.find((area) => address < area.end && end > area.start);
  if (reserved !== undefined) {
    const area = `${hexadecimal(reserved.start)}..${hexadecimal(reserved.end - 1)}`;
    refuseImage(name, `${placeOf(segment)} covers ${reserved.name} at ${area}`, RELINK);
  }
  if (end > ramBytes) {
    refuseImage(name, `${placeOf(segment)} does not fit into RAM, which ends at ${hexadecimal(ramBytes)}`, MORE_RAM);
  }
}

const endOf = ({ address, memoryBytes }: Segment): number => address + memoryBytes;
const placeOf = (segment: Segment): string =>
  `the segment at ${hexadecimal(segment.address)}..${hexadecimal(endOf(segment) - 1)}`;

/** Copies the segments into RAM, whatever it holds: an image may be loaded again. */
export function loadSegments(memory: PhysicalMemory, segments: readonly Segment[]): void {
  for (const { address, data, memoryBytes } of segments) {
    memory.copyIn(sPA(address), data);
    if (memoryBytes > data.length) memory.clear(sPA(address + data.length), memoryBytes - data.length);
  }
}

/** The first page boundary at or above `address`. */
const nextPage = (address: number): number => Math.ceil(address / PAGE_BYTES) * PAGE_BYTES;

const pageBefore = (address: number): number => Math.floor(address / PAGE_BYTES) * PAGE_BYTES;

/** Finds room beside what is loaded. */
export class FreeMemory {
  private readonly taken: { readonly start: number; readonly end: number }[];

  constructor(
    segments: readonly Segment[],
    private readonly ramBytes: number,
  ) {
    this.taken = segments.map((segment) => ({ start: segment.address, end: endOf(segment) }));
  }

  /**
   * Takes `length` bytes at the first free page boundary at or above `from`, below `to`.
   * @returns undefined when there is no room.
   */
  take(length: number, from: number, to: number = this.ramBytes): SPA | undefined {
    let start = nextPage(from);
    for (;;) {
      const end = start + length;
      if (end > to) return undefined;
      const blocker = this.taken.find((range) => start < range.end && end > range.start);
      if (blocker === undefined) {
        this.taken.push({ start, end });
        return sPA(start);
      }
      start = nextPage(blocker.end);
    }
  }

  /**
   * Takes `length` bytes at the last free page boundary so that they end at or below `to`, above 1 MiB.
   * @returns undefined when there is no room.
   */
  takeHigh(length: number, to: number): SPA | undefined {
    let limit = Math.min(to, this.ramBytes);
    for (;;) {
      const start = pageBefore(limit - length);
      if (start < HIGH_MEMORY) return undefined;
      const end = start + length;
      const blocker = this.taken.find((range) => start < range.end && end > range.start);
      if (blocker === undefined) {
        this.taken.push({ start, end });
        return sPA(start);
      }
      limit = blocker.start;
    }
  }
}

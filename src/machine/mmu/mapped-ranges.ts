/**
 * All that page tables map, for whoever wants a whole address space (core files): ranges of linear addresses with the RAM
 * behind them, in ascending order. No accessed or dirty bit is set, and nobody's permissions count: an observer may read all.
 *
 * The entries are found by going down the tables; what a found page is, its reserved bits included, the machine's own walk
 * says. Under nested paging the nested tables are gone through once, and each guest page is cut by what they map.
 * Source: APM vol.2 §5.2 Legacy-Mode Page Translation, §5.3 Long-Mode Page Translation, §15.25.5 Nested Table Walk.
 */
import type { Registers } from '../layout/cpu-state.js';
import { PAGE_BYTES } from '../units.js';
import type { PhysicalMemory } from './memory.js';
import type { PagingFeatures } from './page-walk.js';
import { observerContext } from './peek.js';
import { type EntryResolver, PagingMode, type TableRules, TableWalk } from './table-walk.js';

/** Linear addresses one after another, with RAM one after another behind them, all with the same permissions. */
export interface MappedRange {
  /** The first linear address, canonical. */
  readonly linear: bigint;
  readonly bytes: number;
  /** Where it lies in the machine's RAM. */
  readonly sPA: number;
  /** Where it lies as the level itself has it: the gPA of an L2, otherwise the sPA. */
  readonly physical: number;
  readonly writable: boolean;
  readonly executable: boolean;
}

/** A range before it is known what is RAM; `from` has as many bits as the tables translate. */
interface Extent extends Omit<MappedRange, 'linear' | 'sPA'> {
  readonly from: number;
}

const PRESENT = 1;
const LARGE = 0x80;
const TWO_32 = 0x1_0000_0000;
/** Where an entry of each format points, and how many bytes it stands for, from the lowest level up. */
const WIDE_BYTES = [PAGE_BYTES, 0x20_0000, 0x4000_0000, 0x80_0000_0000] as const;
const NARROW_BYTES = [PAGE_BYTES, 0x40_0000] as const;

/** @param registers of the vCPU whose address space is meant. */
export function* mappedRanges(
  memory: PhysicalMemory,
  registers: Registers,
  features: PagingFeatures,
): Generator<MappedRange> {
  const context = observerContext(registers, features);
  const { nested } = context;
  const under = nested && [...merged(new Tables(memory, nested, undefined).extents())];
  const own = context.mode === PagingMode.NONE ? [UNPAGED] : new Tables(memory, context, under).extents();
  const hidden = nested?.virtualApicPage ?? -1;
  yield* inRam(memory, through(merged(own), under && [...without(under, hidden)]), context.mode);
}

/** CR0.PG = 0: linear addresses are (guest-)physical ones of 32 bits. */
const UNPAGED: Extent = { from: 0, bytes: 0x1_0000_0000, physical: 0, writable: true, executable: true };

/** What AVIC takes for the guest's local APIC is no memory, wherever the nested tables lead. @param page negative for none. */
function* without(extents: Iterable<Extent>, page: number): Generator<Extent> {
  for (const extent of extents) {
    const { from, bytes, physical } = extent;
    if (page < from || page >= from + bytes) {
      yield extent;
      continue;
    }
    const before = page - from;
    const after = before + PAGE_BYTES;
    if (before > 0) yield { ...extent, bytes: before };
    if (after < bytes) yield { ...extent, from: from + after, bytes: bytes - after, physical: physical + after };
  }
}

/** Goes down the tables of one dimension. */
class Tables {
  private readonly walk: TableWalk;

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly rules: TableRules,
    /** What the nested tables map, when these are the tables of a guest under them. */
    private readonly under: readonly Extent[] | undefined,
  ) {
    this.walk = new TableWalk(memory, this.resolver());
  }

  *extents(): Generator<Extent> {
    const { mode, root, pdptes } = this.rules;
    if (mode === PagingMode.LONG) yield* this.table(root, 3, 0, 512);
    else if (mode === PagingMode.LEGACY) yield* this.table(root, 1, 0, 1024);
    else if (pdptes === undefined) yield* this.table(root, 2, 0, 4);
    else {
      for (const [index, directory] of pdptes.entries()) {
        if (directory >= 0) yield* this.table(directory, 1, index * WIDE_BYTES[2], 512);
      }
    }
  }

  /** @param from the first address that the table translates. @param entries how many it has. */
  private *table(address: number, level: number, from: number, entries: number): Generator<Extent> {
    const narrow = this.rules.mode === PagingMode.LEGACY;
    const width = narrow ? 4 : 8;
    const place = this.resolver()?.resolve(address) ?? address;
    if (place < 0 || !this.memory.isRam(place, entries * width)) return;
    const span = (narrow ? NARROW_BYTES[level] : WIDE_BYTES[level]) as number;
    for (let index = 0; index < entries; index++) {
      const low = this.memory.read32(place + index * width);
      if ((low & PRESENT) === 0) continue;
      const first = from + index * span;
      if (level === 0 || ((low & LARGE) !== 0 && this.mayBeLarge(level))) {
        yield* this.page(first, span);
      } else {
        const high = narrow ? 0 : this.memory.read32(place + index * width + 4);
        yield* this.table(
          (high & 0x000f_ffff) * TWO_32 + ((low & 0xffff_f000) >>> 0),
          level - 1,
          first,
          narrow ? 1024 : 512,
        );
      }
    }
  }

  /** Bit 7 of an entry that points to a table is reserved or ignored; the walk tells, at the page below it. */
  private mayBeLarge(level: number): boolean {
    const { mode, pageSizeExtensions, gigabytePages } = this.rules;
    if (mode === PagingMode.LEGACY) return pageSizeExtensions;
    return level === 1 || (level === 2 && mode === PagingMode.LONG && gigabytePages);
  }

  private *page(from: number, bytes: number): Generator<Extent> {
    const { walk } = this;
    const high = Math.floor(from / TWO_32);
    if (!walk.walk(this.rules, (from % TWO_32) | 0, high, this.under !== undefined)) return;
    const { frame, writable, executable } = walk;
    yield { from, bytes, physical: frame, writable, executable };
  }

  private resolver(): EntryResolver | undefined {
    const { under } = this;
    return under === undefined ? undefined : { resolve: (gPA) => placeOf(under, gPA) };
  }
}

/** The extent that an address is in, or the first one behind it: its index. */
function firstBehind(extents: readonly Extent[], address: number): number {
  let [low, high] = [0, extents.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const { from, bytes } = extents[middle] as Extent;
    if (from + bytes <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}

function placeOf(extents: readonly Extent[], address: number): number {
  const extent = extents[firstBehind(extents, address)];
  return extent === undefined || extent.from > address ? -1 : extent.physical + (address - extent.from);
}

/** An extent with the RAM's addresses, cut where the nested tables do. */
type Placed = Extent & { readonly sPA: number };

function* through(extents: Iterable<Extent>, under: readonly Extent[] | undefined): Generator<Placed> {
  for (const extent of extents) {
    if (under === undefined) {
      yield { ...extent, sPA: extent.physical };
      continue;
    }
    const end = extent.physical + extent.bytes;
    for (let index = firstBehind(under, extent.physical); index < under.length; index++) {
      const nested = under[index] as Extent;
      if (nested.from >= end) break;
      const first = Math.max(nested.from, extent.physical);
      const last = Math.min(nested.from + nested.bytes, end);
      yield {
        from: extent.from + (first - extent.physical),
        bytes: last - first,
        physical: first,
        sPA: nested.physical + (first - nested.from),
        writable: extent.writable && nested.writable,
        executable: extent.executable && nested.executable,
      };
    }
  }
}

/** Joins what goes on without a gap, on both sides. */
function* merged(extents: Iterable<Extent>): Generator<Extent> {
  let last: Extent | undefined;
  for (const extent of extents) {
    const goesOn =
      last !== undefined &&
      last.from + last.bytes === extent.from &&
      last.physical + last.bytes === extent.physical &&
      last.writable === extent.writable &&
      last.executable === extent.executable;
    if (goesOn && last !== undefined) {
      last = { ...last, bytes: last.bytes + extent.bytes };
      continue;
    }
    if (last !== undefined) yield last;
    last = extent;
  }
  if (last !== undefined) yield last;
}

/** Only what is RAM; the rest is devices, or nothing. */
function* inRam(memory: PhysicalMemory, extents: Iterable<Placed>, mode: PagingMode): Generator<MappedRange> {
  const pieces = memory.ramRanges();
  for (const { from, bytes, sPA, physical, writable, executable } of extents) {
    for (const [start, end] of pieces) {
      const first = Math.max(start, sPA);
      const last = Math.min(end, sPA + bytes);
      if (first >= last) continue;
      const linear = BigInt(from + (first - sPA));
      yield {
        linear: mode === PagingMode.LONG ? BigInt.asUintN(64, BigInt.asIntN(48, linear)) : linear,
        bytes: last - first,
        sPA: first,
        physical: physical + (first - sPA),
        writable,
        executable,
      };
    }
  }
}

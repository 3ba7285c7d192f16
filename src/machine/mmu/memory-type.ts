/**
 * Whether memory is write-back: the only type that a processor without caches must know, for what it does to other types.
 * The page tables choose an entry of the PAT, the MTRRs tell the type of the physical address, and every one of them, and
 * of nested tables, must say write-back; CR0.CD overrules them.
 * Source: APM vol.2 §7.6.2 Cache Control Mechanisms, §7.7 Memory-Type Range Registers, §7.8.5 Combined Effect of MTRRs and
 * PAT (table 7-11), §15.25.8 Combining Memory Types, MTRRs.
 */
import { MemoryType, mtrrType } from '../cpu/mtrr.js';
import { CR0, R, type Slot } from '../layout/cpu-state.js';
import type { PageWalker, PagingContext } from './page-walk.js';
import { PagingMode } from './table-walk.js';

const patType = (pat: bigint, index: number): bigint => (pat >> BigInt(8 * index)) & 7n;

/**
 * @param get reads a register slot. @param walker whose last walk translated the address, under `context`.
 * @param address the sPA that it found.
 */
export function isWriteBack(
  get: (slot: Slot) => bigint,
  walker: PageWalker,
  context: PagingContext,
  address: number,
): boolean {
  if ((get(R.cr0) & CR0.CD) !== 0n) return false;
  const nested = context.nested !== undefined;
  const paged = context.mode !== PagingMode.NONE;
  if (paged && patType(get(nested ? R.guestPat : R.pat), walker.patIndex) !== MemoryType.WB) return false;
  if (nested && patType(get(R.pat), walker.nestedPatIndex) !== MemoryType.WB) return false;
  return mtrrType(get, address) === MemoryType.WB;
}

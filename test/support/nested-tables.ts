/** Nested tables of a test's own, apart from those that L1 runs on. */
import type { NestedMachine } from './nested-machine.js';

const [PML4, PDPT, PD] = [0xf0_0000, 0xf0_1000, 0xf0_2000];
const RAM_PAGES = 8;
/** Present, writable, for users, accessed and dirty; a page of 2 MiB. */
const TABLE = 0x67n;
const HUGE = 0xe7n;

/** Nested paging in pages of 2 MiB onto themselves. @returns what changes the entry of one of them, 0 for none. */
export function nestedTables(live: NestedMachine): (page: number, entry: bigint) => void {
  live.nestedPaging().vmcb.nCR3 = BigInt(PML4);
  live.write(PML4, BigInt(PDPT) | TABLE).write(PDPT, BigInt(PD) | TABLE);
  const change = (page: number, entry: bigint): void => {
    live.write(PD + 8 * page, entry);
  };
  for (let page = 0; page < RAM_PAGES; page++) change(page, (BigInt(page) << 21n) | HUGE);
  return change;
}

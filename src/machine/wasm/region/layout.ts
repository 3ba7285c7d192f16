/** What a compiled region has in memory, beside the decoded instructions, at an address that is a constant of its code. */

const RIPS = 16;
const RIP_BYTES = 8;
const TWIN_BYTES = 4;
const NODE_BYTES = 2;
const HASHED_BYTES = 256;
const LEAVING_BYTES = 16;

export class RegionLayout {
  /** @param base 16-byte aligned. @param entries places where the region may be entered; they have the numbers 1 to `entries`. */
  constructor(
    readonly base: number,
    private readonly entries: number,
  ) {}

  /** The translation context in which its pages were last found where they were when it was made (i32). */
  get context(): number {
    return this.base;
  }
  /** RIP of an entry (i64). */
  ripOf(entry: number): number {
    return this.base + RIPS + RIP_BYTES * entry;
  }
  /** The micro-op that does the first instruction of an entry without the region (i32). */
  twinOf(entry: number): number {
    return this.ripOf(this.entries + 1) + TWIN_BYTES * entry;
  }
  /** Its number in the graph of the region (u16). */
  nodeOf(entry: number): number {
    return this.twinOf(this.entries + 1) + NODE_BYTES * entry;
  }
  /** Entries by `hashOf` their RIP (u8 each); 0 for none. */
  get hashed(): number {
    return this.nodeOf(this.entries + 1);
  }
  /** Of an instruction that the evaluator must do: its RIP (i64), and how many of its block retired before it (i32). */
  leaving(index: number): number {
    return ((this.hashed + HASHED_BYTES + 15) & ~15) + LEAVING_BYTES * index;
  }
}

/** Of entry 0, which there is not: no RIP is that. */
export const NO_RIP = 1n << 62n;

export const hashOf = (rip: bigint): number => Number((rip ^ (rip >> 8n)) & BigInt(HASHED_BYTES - 1));

/**
 * Finds the code of a region: from a place where much time is spent along all branches, calls and returns from calls, as far
 * as the code is known to run. Nothing is fetched here that was not fetched before: a fetch could be seen in page tables.
 */
import type { DecodedInstruction, MemoryOperand, RelativeOperand } from '../../decode/decoded.js';
import { isCanonical } from '../../units.js';
import { MAX_BLOCK_INSTRUCTIONS } from '../uop.js';

/** What a region is made of: `compiled` code of its own; `evaluated` ends in an assist, `interpreted` leaves the region. */
export type Treatment = 'compiled' | 'evaluated' | 'interpreted';

export interface CodeSource {
  /** The instruction at RIP; undefined where it cannot be had without a fetch, or shall not be compiled. */
  decode(rip: bigint): DecodedInstruction | undefined;
  treatment(insn: DecodedInstruction): Treatment;
}

export interface RegionInstruction {
  readonly rip: bigint;
  readonly insn: DecodedInstruction;
}

/** How a block ends. RIPs that begin no block of the region leave it. */
export type BlockEnd =
  /** A jump or call, or simply the next instruction. */
  | { readonly kind: 'goto'; readonly to: bigint }
  | { readonly kind: 'branch'; readonly taken: bigint; readonly next: bigint }
  /** To where the last instruction says: returns, calls and jumps by register or memory. */
  | { readonly kind: 'indirect' }
  /** The instruction at `rip` is the evaluator's. */
  | { readonly kind: 'assist'; readonly rip: bigint };

export interface RegionBlock {
  readonly rip: bigint;
  readonly instructions: readonly RegionInstruction[];
  readonly end: BlockEnd;
}

export interface RegionCode {
  readonly blocks: readonly RegionBlock[];
  /** Where the region may be entered from outside: its start, functions, and the places that they return to. */
  readonly entries: readonly bigint[];
  readonly instructions: number;
}

/** What an optimizing compiler still takes well: its time grows faster than the function. */
const MOST_INSTRUCTIONS = 800;
const MOST_ENTRIES = 250;
/** Blocks end here, so that the budget can be looked at often enough. */
const LONGEST_BLOCK = MAX_BLOCK_INSTRUCTIONS / 2;

const relativeOf = ({ operands: [first] }: DecodedInstruction): RelativeOperand | undefined =>
  first?.kind === 'rel' ? first : undefined;

const isTransfer = ({ mnemonic }: DecodedInstruction): boolean => /^(JMP|CALL|RET)$/.test(mnemonic);

/** Whether a block ends with this instruction. */
const endsBlock = (insn: DecodedInstruction): boolean => isTransfer(insn) || relativeOf(insn) !== undefined;

export const memoryOperand = ({ operands }: DecodedInstruction): MemoryOperand | undefined =>
  operands.find((operand): operand is MemoryOperand => operand.kind === 'mem');

/** RIP of the instruction behind. */
export const nextRip = ({ rip, insn }: RegionInstruction): bigint =>
  BigInt.asUintN(insn.long ? 64 : 32, rip + BigInt(insn.length));

/** Where a relative branch goes. */
export function targetOf(at: RegionInstruction): bigint | undefined {
  const relative = relativeOf(at.insn);
  if (relative === undefined) return undefined;
  return BigInt.asUintN(at.insn.long ? 64 : 32, nextRip(at) + relative.displacement);
}

/** @returns undefined when there is nothing to compile at `start`. */
export function discover(start: bigint, source: CodeSource): RegionCode | undefined {
  const search = new Search(source);
  search.enter(start);
  search.run();
  const blocks = search.blocks();
  if (blocks[0]?.rip !== start || blocks[0].instructions.length === 0) return undefined;
  const begun = new Set(blocks.filter(({ instructions }) => instructions.length > 0).map(({ rip }) => rip));
  const entries = [...search.entries].filter((rip) => begun.has(rip)).slice(0, MOST_ENTRIES);
  return { blocks, entries, instructions: search.instructions };
}

class Search {
  readonly entries = new Set<bigint>();
  private readonly leaders = new Set<bigint>();
  private readonly waiting: bigint[] = [];
  private readonly known = new Map<bigint, DecodedInstruction>();

  constructor(private readonly source: CodeSource) {}

  get instructions(): number {
    return this.known.size;
  }

  enter(rip: bigint): void {
    this.entries.add(rip);
    this.lead(rip);
  }

  private lead(rip: bigint): void {
    if (this.leaders.has(rip)) return;
    this.leaders.add(rip);
    this.waiting.push(rip);
  }

  run(): void {
    for (let leader = this.waiting.shift(); leader !== undefined; leader = this.waiting.shift()) {
      let rip: bigint | undefined = leader;
      for (let length = 0; rip !== undefined && !this.known.has(rip); length++) {
        if (length === LONGEST_BLOCK) {
          this.lead(rip);
          break;
        }
        rip = this.walk(rip);
      }
    }
  }

  /** @returns where to go on in the same block. */
  private walk(rip: bigint): bigint | undefined {
    if (this.known.size >= MOST_INSTRUCTIONS) return undefined;
    const insn = this.source.decode(rip);
    if (insn === undefined) return undefined;
    const at = { rip, insn };
    const treatment = this.treatment(at);
    if (treatment !== 'interpreted') this.known.set(rip, insn);
    if (treatment !== 'compiled') {
      // Whoever does it, the region goes on behind it.
      if (insn.system === undefined || insn.rep !== 'none') this.enter(nextRip(at));
      return undefined;
    }
    if (!endsBlock(insn)) return nextRip(at);
    const target = targetOf(at);
    const isCall = insn.mnemonic === 'CALL';
    // A jump back is a loop: runs that stop amid it go on at its head.
    if (target !== undefined && (isCall || target <= rip)) this.enter(target);
    else if (target !== undefined) this.lead(target);
    if (isCall) this.enter(nextRip(at));
    else if (!isTransfer(insn)) this.lead(nextRip(at));
    return undefined;
  }

  /** Where a branch leads out of the canonical addresses it may fault: the evaluator sees to it. */
  private treatment(at: RegionInstruction): Treatment {
    const target = at.insn.long ? targetOf(at) : undefined;
    return target === undefined || isCanonical(target) ? this.source.treatment(at.insn) : 'evaluated';
  }

  /** In the order in which they were found: the start is first. */
  blocks(): readonly RegionBlock[] {
    return [...this.leaders].filter((rip) => this.known.has(rip)).map((rip) => this.blockAt(rip));
  }

  private blockAt(start: bigint): RegionBlock {
    const instructions: RegionInstruction[] = [];
    for (let rip = start; ; ) {
      const insn = this.known.get(rip);
      if (insn === undefined || (instructions.length > 0 && this.leaders.has(rip)))
        return { rip: start, instructions, end: { kind: 'goto', to: rip } };
      const at = { rip, insn };
      if (this.treatment(at) === 'evaluated') return { rip: start, instructions, end: { kind: 'assist', rip } };
      instructions.push(at);
      if (endsBlock(insn)) return { rip: start, instructions, end: endOf(at) };
      rip = nextRip(at);
    }
  }
}

function endOf(at: RegionInstruction): BlockEnd {
  const target = targetOf(at);
  if (target === undefined) return { kind: 'indirect' };
  // Both ways of a branch to what is behind it are one.
  return isTransfer(at.insn) || target === nextRip(at)
    ? { kind: 'goto', to: target }
    : { kind: 'branch', taken: target, next: nextRip(at) };
}

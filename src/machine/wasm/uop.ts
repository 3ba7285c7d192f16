/**
 * The micro-op: what the interpreter tier executes. An instruction becomes one, or two when its address needs more than
 * base + index * scale + displacement (then the first computes the linear address into `Cell.ADDRESS`).
 */
import type { Operand } from '../isa/instruction.js';

/** Layout of a micro-op in memory, offsets in bytes. */
export const Uop = {
  BYTES: 32,
  /** Number of the handler (u16): br_table index, or table index of a handler of its own. */
  HANDLER: 0,
  /** Instructions of the block that retired before this one (u8). */
  POSITION: 2,
  /** Instruction length (u8). */
  LENGTH: 3,
  /** Offset of the instruction within its linear page (u16). */
  PAGE_OFFSET: 4,
  /** Number of the entry, where a region is entered here (u8). */
  ENTRY: 6,
  /** log2 of the index factor (u8). */
  SCALE: 7,
  /** Addresses of register operands, in order of the operands (u16 each). */
  REGISTER0: 8,
  REGISTER1: 10,
  REGISTER2: 20,
  /** Addresses of the base and index registers, `Cell.ZERO` for none (u16 each). */
  BASE: 12,
  INDEX: 14,
  /** Displacement (i32). */
  DISPLACEMENT: 16,
  /** Micro-op of the branch target when it lies in the same page, else 0 (i32). Shares its place with REGISTER2. */
  LINK: 20,
  /** Immediate, or displacement of a relative branch (i64). */
  IMMEDIATE: 24,
} as const;

const REGISTER_KINDS: ReadonlySet<Operand['kind']> = new Set(['gpr', 'xmm', 'segment', 'control']);

/** Whether a micro-op has the address of the operand's register. */
export const isRegister = ({ kind }: Operand): boolean => REGISTER_KINDS.has(kind);

/** Most instructions in one block; the engine starts a block only with as many left in the budget. */
export const MAX_BLOCK_INSTRUCTIONS = 64;

/** Why the engine stopped; the value of `Cell.EXIT_REASON`. */
export const ExitReason = {
  /** The instruction at `Cell.EXIT_UOP` was not executed: it faults, or is not for compiled code. */
  ASSIST: 1,
  /** RIP has no decoded block in the jump cache. */
  LOOKUP: 2,
  /** The budget is too small for another block. */
  BUDGET: 3,
  /** The same, in a region. */
  SPENT: 4,
  /** A region leaves the instruction at RIP, which was not executed, to the evaluator. */
  EVALUATE: 5,
  /** The region at `Cell.EXIT_UOP` asks whether its pages are where they were. */
  CONTEXT: 6,
} as const;

/**
 * The map of the one WebAssembly memory: engine cells, register file, jump cache, TLB banks, decoded instructions and
 * guest RAM, each at a fixed address, so that compiled code has them as constants. Pages of it that nobody touched cost
 * nothing. docs/adr/0003-memory-layout.md tells why.
 */
import { invariant } from '../errors.js';
import { CPU_BASE, SLOT_COUNT, segmentSlot, slotAddress } from './cpu-state.js';

/** Cells that the engine and the control plane share; addresses in bytes. All below 64 KiB: operands are u16 addresses. */
export const Cell = {
  /**
   * Instructions that may still retire, beyond those of the longest block: below 0 the engine stops at a taken branch
   * (i32). The dispatch function holds it in a local while it runs.
   */
  SLACK: 0x100,
  /** RIP minus the offset within its linear page, for the block that runs (i64). */
  RIP_PAGE: 0x108,
  /** Lazy flags (isa/flags.ts): last result, sign-extended, and carries (i64 each). */
  FLAG_RESULT: 0x110,
  FLAG_CARRIES: 0x118,
  /** Address of the TLB bank in use (i32). */
  TLB_BANK: 0x120,
  /** Key of the translation context and mode in the jump cache (i32); 0 matches nothing. */
  JUMP_CONTEXT: 0x124,
  /** Address of the jump cache in use (i32). */
  JUMP_CACHE: 0x150,
  /** What turns a RIP's place in the jump cache, so that spaces do not drive each other's entries out (i32). */
  JUMP_SALT: 0x154,
  /** Why the engine stopped (`ExitReason`, i32), the micro-op at which it did (i32), what it asks for. */
  EXIT_REASON: 0x128,
  EXIT_UOP: 0x12c,
  EXIT_ADDRESS: 0x130,
  EXIT_ACCESS: 0x138,
  EXIT_BYTES: 0x13c,
  /** Legacy stacks: mask of the stack pointer, 0xffff or 0xffffffff (i64). */
  STACK_MASK: 0x140,
  /** What RIP is cut to at the end of a block: 32 bits in legacy code (i64). */
  RIP_MASK: 0x148,
  /** Always zero: the base or index of an operand that has none. */
  ZERO: 0x158,
  /** Linear address computed by an address micro-op for the instruction that follows it (i64). */
  ADDRESS: 0x160,
  /** Legacy code: the highest offset that a jump may reach (i64). */
  CODE_LIMIT: 0x178,
  /** Legacy segments ES..GS: the highest offset that needs no closer look, or -1 (i64 each). */
  SEGMENT_LIMITS: 0x180,
  /** Translations that regions keep, apart from the TLB: HELD_PAIRS entries as its banks have them. */
  HELD: 0x200,
} as const;

export const HELD_PAIRS = 16;

export const segmentLimitCell = (segment: number): number => Cell.SEGMENT_LIMITS + 8 * segment;
/** Address of a segment's base in the register file. */
export const segmentBaseAddress = (segment: number): number => slotAddress(segmentSlot(segment)) + 8;

/** Register values at the last event; what differs from them is the next run's delta. */
export const SHADOW_BASE = 0x2000;
/** Where the engine writes a register delta. */
export const DELTA_BASE = 0x3000;

/** One for each vCPU: those that run the same code would drive each other's entries out. Above their number they share. */
export const JUMP_CACHE_BASE = 0x1_0000;
export const JUMP_CACHES = 16;
export const JUMP_CACHE_ENTRIES = 16_384;
/** { rip: i64, context: i32, uop: i32 } */
export const JUMP_CACHE_ENTRY_BYTES = 16;
/** Offset of the context within an entry. */
export const JUMP_CACHE_CONTEXT = 8;
export const JUMP_CACHE_BYTES = JUMP_CACHE_ENTRIES * JUMP_CACHE_ENTRY_BYTES;

export const TLB_BASE = 0x42_0000;
/** Two privileges of as many vCPUs as there are jump caches, and as many guests. */
export const TLB_BANKS = 64;
export const TLB_ENTRIES = 4096;
/** { linear page (i64), addend: memory address minus linear address (i32), padding } */
export const TLB_ENTRY_BYTES = 16;
export const TLB_ARRAY_BYTES = TLB_ENTRIES * TLB_ENTRY_BYTES;
/** Offset of the array for writes within a bank; reads come first. */
export const TLB_WRITE_OFFSET = TLB_ENTRIES * TLB_ENTRY_BYTES;
export const TLB_BANK_BYTES = 2 * TLB_ARRAY_BYTES;

export const UOP_BASE = 0xd0_0000;
export const UOP_ARENA_BYTES = 0x480_0000;
/** Guest RAM: sPA 0 stands here. */
export const RAM_BASE = 0x580_0000;

export const WASM_PAGE_BYTES = 0x1_0000;
/** The largest RAM that fits into a 32-bit WebAssembly memory below the local APIC's window. */
export const MAX_RAM_BYTES = 0xe000_0000;

invariant(Cell.HELD + HELD_PAIRS * TLB_ENTRY_BYTES <= CPU_BASE, 'held translations run into the register file');
invariant(CPU_BASE + 8 * SLOT_COUNT <= SHADOW_BASE, 'the register file runs into its shadow');
invariant(SHADOW_BASE + 8 * SLOT_COUNT <= DELTA_BASE, 'the register shadow runs into the delta buffer');
invariant(JUMP_CACHE_BASE + JUMP_CACHES * JUMP_CACHE_BYTES <= TLB_BASE, 'the jump caches run into the TLB banks');
invariant(TLB_BASE + TLB_BANKS * TLB_BANK_BYTES <= UOP_BASE, 'the TLB banks run into the decoded instructions');
invariant(UOP_BASE + UOP_ARENA_BYTES <= RAM_BASE, 'the decoded instructions run into guest RAM');

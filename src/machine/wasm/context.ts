/**
 * What the engine derives from the registers: how code is decoded, what translations depend on, who may enter a block. World
 * switches and system calls go back and forth between a few such contexts, and so those of late are held.
 */
import { DEBUG_CTL } from '../cpu/debug.js';
import { isAvxEnabled } from '../cpu/xstate.js';
import {
  CPU_BASE,
  CR0,
  CR4,
  EFER,
  Flag,
  R,
  type RegisterFile,
  SLOT_COUNT,
  type Slot,
  SvmMode,
} from '../layout/cpu-state.js';
import { type PagingContext, type PagingFeatures, pagingContext } from '../mmu/page-walk.js';
import { INTERCEPTS } from '../svm/intercepts.js';

/** Bits of the mode key: what decoding and handlers depend on. */
export const Mode = {
  BITS16: 0,
  BITS32: 1,
  BITS64: 2,
  REAL: 4,
  STACK32: 8,
  /** One instruction in each block, for exact stops. */
  SINGLE: 16,
  /** SSE instructions fault or are not enabled. */
  NO_SSE: 32,
  /** A guest runs: instructions that an intercept may stop go to the control plane. */
  GUEST: 64,
  /** AVX instructions fault. */
  NO_AVX: 128,
  /** Bus locks are looked for: locked accesses go to the control plane. */
  BUS_LOCKS: 256,
  /** 64-bit code at CPL 0: instructions that ask for no more are compiled, in a guest those that no intercept may stop. */
  KERNEL: 512,
  /** 32-bit code whose segments are all that 32 bits address, FS and GS aside: offsets are linear addresses. */
  FLAT: 1024,
  /** Not part of a block's key, but of who may enter it. */
  USER: 2048,
} as const;
/** Of what a block's key consists. */
export const DECODE_MASK = Mode.USER - 1;
export const MODE_BITS = 12;

/** What tells banks of the TLB apart, besides tables. */
export const Privilege = {
  /** CPL 3. */
  USER: 1,
  /** RFLAGS.AC lets the supervisor at pages that SMAP keeps from it. */
  USER_PAGES: 2,
  /** Accesses must be aligned. */
  ALIGNED: 4,
} as const;

const CODE_LONG = 1n << 25n; // attribute bit 9 (L) of a segment word
const CODE_BIG = 1n << 26n; // attribute bit 10 (D/B)

/** What the engine derives from the registers in `CONTEXT_SLOTS` and `CONTEXT_BITS`. */
export interface Context {
  /** The registers, as 32-bit words. */
  readonly key: Int32Array;
  /** What counts of those in `CONTEXT_BITS`. */
  readonly bits: number;
  readonly paging: PagingContext;
  /** All that translations depend on besides RAM, as a key. */
  readonly translation: string;
  readonly mode: number;
  readonly asid: number;
  readonly privilege: number;
  readonly fillsAllowed: boolean;
  /** Pages under data breakpoints. */
  readonly watched: string;
  /** Code segment of a legacy mode, '' in 64-bit mode. */
  readonly legacyCode: string;
  /** `translation` and `legacyCode`: by what the place of code follows from RIP. */
  readonly codeSpace: string;
  /** `Contexts.rareChanges` when its rare registers were last seen to be those of the processor. */
  rareAt: number;
}

export interface ContextFeatures extends PagingFeatures {
  /** In a guest whatever changes IF may set latches (`svm/interrupt-rules.ts`). */
  readonly latchesInterruptMasks: boolean;
}

const HELD_CONTEXTS = 16;
/** What changes with a world switch or a system call; first what tells most contexts apart. */
const COMMON_SLOTS: readonly Slot[] = [
  ...[R.cr3, R.cpl, R.guestAsid, R.cs, R.csBase, R.ss, R.cr0, R.cr4, R.efer, R.dr7, R.nestedControl, R.nestedCr3],
];
/** What seldom does: compared only when some of it has changed. */
const RARE_SLOTS: readonly Slot[] = [
  ...[R.dr0, R.dr1, R.dr2, R.dr3, R.pdpte0, R.pdpte1, R.pdpte2, R.pdpte3],
  ...[R.hostCr0, R.hostCr3, R.hostCr4, R.hostEfer, R.xcr0, R.avicApicBar],
];
const CONTEXT_SLOTS: readonly Slot[] = [...COMMON_SLOTS, ...RARE_SLOTS];
const COMMON_WORDS = 2 * COMMON_SLOTS.length;
/** What translation depends on; of RFLAGS it is AC. */
export const PAGING_SLOTS: readonly Slot[] = [
  ...[R.cr3, R.cr0, R.cr4, R.efer, R.svmMode, R.pdpte0, R.pdpte1, R.pdpte2, R.pdpte3, R.rflags],
];
const CONTEXT_WORDS = Int32Array.from(
  CONTEXT_SLOTS.flatMap((slot) => [(CPU_BASE >> 2) + 2 * slot, (CPU_BASE >> 2) + 2 * slot + 1]),
);
const BUS_LOCK_INTERCEPT = 1 << INTERCEPTS.BUSLOCK_THRESHOLD.bit;
const BUS_LOCK_TRAP = Number(DEBUG_CTL.BLCKDB);
const PUSHF_INTERCEPT = 1 << INTERCEPTS.PUSHF.bit;
const GUEST_MODE = Number(SvmMode.GUEST);
/** Registers of which only some bits count, all of them of the low word: no two share a bit. */
const CONTEXT_BITS: readonly (readonly [Slot, number])[] = [
  [R.rflags, Number(Flag.AC | Flag.VM)],
  [R.svmMode, GUEST_MODE],
  [R.intercept3, PUSHF_INTERCEPT],
  [R.intercept5, BUS_LOCK_INTERCEPT],
  [R.debugCtl, BUS_LOCK_TRAP],
];
const BIT_WORDS = Int32Array.from(CONTEXT_BITS, ([slot]) => (CPU_BASE >> 2) + 2 * slot);
const BIT_MASKS = Int32Array.from(CONTEXT_BITS, ([, bits]) => bits);
/** What counts of the low word of each slot, and of its high one. */
const COUNTS = new Int32Array(2 * SLOT_COUNT);
for (const slot of CONTEXT_SLOTS) COUNTS.fill(-1, 2 * slot, 2 * slot + 2);
for (const [slot, bits] of CONTEXT_BITS) COUNTS[2 * slot] = bits;

const IS_RARE = new Uint8Array(SLOT_COUNT);
for (const slot of RARE_SLOTS) IS_RARE[slot] = 1;

/** Whether `Contexts.rareChanged` must hear of a change of the register. */
export const isRare = (slot: Slot): boolean => IS_RARE[slot] === 1;

/** Whether what the engine derives depends on what has changed of a register. @param low @param high the bits that differ. */
export const changesContext = (slot: Slot, low: number, high: number): boolean =>
  ((low & (COUNTS[2 * slot] as number)) | (high & (COUNTS[2 * slot + 1] as number))) !== 0;

export class Contexts {
  private readonly contexts: Context[] = [];
  private oldestContext = 0;
  /** How often some of the rare registers may have changed. */
  private rareChanges = 0;

  constructor(
    private readonly words: Int32Array,
    private readonly registers: RegisterFile,
    private readonly features: ContextFeatures,
  ) {}

  get current(): Context {
    const bits = this.contextBits;
    const side = (bits & GUEST_MODE) === 0 ? 0 : 1;
    const last = this.lastOf[side];
    if (last !== undefined && this.matches(last, bits)) return last;
    const context = this.contexts.find((held) => this.matches(held, bits)) ?? this.newContext(bits);
    this.lastOf[side] = context;
    return context;
  }
  /** The last context of the host, and that of a guest: a world switch mostly leads back. */
  private readonly lastOf: (Context | undefined)[] = [undefined, undefined];

  /** Registers that seldom change may have changed. */
  rareChanged(): void {
    this.rareChanges++;
  }

  private matches(context: Context, now: number): boolean {
    if (context.bits !== now || !this.agrees(context.key, 0, COMMON_WORDS)) return false;
    if (context.rareAt === this.rareChanges) return true;
    if (!this.agrees(context.key, COMMON_WORDS, CONTEXT_WORDS.length)) return false;
    context.rareAt = this.rareChanges;
    return true;
  }

  private agrees(key: Int32Array, from: number, to: number): boolean {
    const { words } = this;
    for (let index = from; index < to; index++) {
      if (words[CONTEXT_WORDS[index] as number] !== key[index]) return false;
    }
    return true;
  }

  /** The registers of which only some bits count, in one word. */
  private get contextBits(): number {
    let bits = 0;
    for (let index = 0; index < BIT_WORDS.length; index++) {
      bits |= (this.words[BIT_WORDS[index] as number] as number) & (BIT_MASKS[index] as number);
    }
    return bits;
  }

  /** Whether a guest's kernel may execute PUSHF and CLI unseen: there is no intercept of CLI. */
  private leavesKernel(bits: number): boolean {
    return (bits & PUSHF_INTERCEPT) === 0 && !this.features.latchesInterruptMasks;
  }

  /** Derives everything from the registers and keeps it in the place of the oldest. */
  private newContext(bits: number): Context {
    const get = (slot: Slot): bigint => this.registers[slot] as bigint;
    const cs = get(R.cs);
    const cr0 = get(R.cr0);
    const rflags = get(R.rflags);
    const user = get(R.cpl) === 3n;
    const guest = (get(R.svmMode) & SvmMode.GUEST) !== 0n;
    const long = (get(R.efer) & EFER.LMA) !== 0n && (cs & CODE_LONG) !== 0n;
    const real = (cr0 & CR0.PE) === 0n || (rflags & Flag.VM) !== 0n;
    const sse = (cr0 & (CR0.EM | CR0.TS)) === 0n && (get(R.cr4) & CR4.OSFXSR) !== 0n;
    const avx = isAvxEnabled({ get }) && (cr0 & CR0.TS) === 0n;
    const smapOverride = (get(R.cr4) & CR4.SMAP) !== 0n && (rflags & Flag.AC) !== 0n;
    const alignment = user && (cr0 & CR0.AM) !== 0n && (rflags & Flag.AC) !== 0n;
    const key = CONTEXT_WORDS.map((word) => this.words[word] as number);
    const paging = pagingContext(get, this.features);
    // RFLAGS.AC is part of the privilege, where it counts.
    const translation = JSON.stringify({ ...paging, accessAllowed: undefined });
    const legacyCode = long ? '' : `${cs}:${get(R.csBase)}`;
    const context: Context = {
      key,
      bits,
      paging,
      translation,
      mode:
        (long ? Mode.BITS64 : (cs & CODE_BIG) !== 0n ? Mode.BITS32 : Mode.BITS16) |
        (real ? Mode.REAL : 0) |
        ((get(R.ss) & CODE_BIG) !== 0n ? Mode.STACK32 : 0) |
        (sse ? 0 : Mode.NO_SSE) |
        (avx ? 0 : Mode.NO_AVX) |
        (guest ? Mode.GUEST : 0) |
        ((bits & (BUS_LOCK_INTERCEPT | BUS_LOCK_TRAP)) !== 0 ? Mode.BUS_LOCKS : 0) |
        (long && get(R.cpl) === 0n && (!guest || this.leavesKernel(bits)) ? Mode.KERNEL : 0) |
        (user ? Mode.USER : 0),
      asid: guest ? Number(get(R.guestAsid)) : 0,
      privilege:
        (user ? Privilege.USER : 0) | (smapOverride ? Privilege.USER_PAGES : 0) | (alignment ? Privilege.ALIGNED : 0),
      fillsAllowed: !alignment,
      watched: watchedPages(get).join(),
      legacyCode,
      codeSpace: `${translation}${legacyCode}`,
      rareAt: this.rareChanges,
    };
    this.contexts[this.oldestContext] = context;
    this.oldestContext = (this.oldestContext + 1) % HELD_CONTEXTS;
    return context;
  }
}

/** Regions are made of 64-bit code, and of 32-bit code whose pages are those of its segment, with a stack of 32 bits. */
export function isForRegions(mode: number, csBase: bigint): boolean {
  if ((mode & Mode.SINGLE) !== 0) return false;
  if ((mode & Mode.BITS64) !== 0) return true;
  return (mode & (Mode.BITS32 | Mode.STACK32 | Mode.REAL)) === (Mode.BITS32 | Mode.STACK32) && (csBase & 0xfffn) === 0n;
}

/** Page numbers (linear address / 4096, as the fill computes them) that an enabled data breakpoint watches. */
function watchedPages(get: (slot: Slot) => bigint): readonly number[] {
  const dr7 = get(R.dr7);
  if ((dr7 & 0xffn) === 0n) return [];
  const pages: number[] = [];
  for (const [index, slot] of [R.dr0, R.dr1, R.dr2, R.dr3].entries()) {
    if (((dr7 >> BigInt(2 * index)) & 3n) === 0n) continue;
    const address = get(slot);
    pages.push(Number(address >> 12n), Number((address + 7n) >> 12n));
  }
  return pages;
}

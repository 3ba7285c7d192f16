/**
 * Units of the machine: branded numbers, so that the compiler keeps physical addresses, times and counts apart.
 *
 * Invariant: every branded number is a non-negative integer below 2^53, hence exact as a double. Mind that `&` and `>>`
 * cut to 32 bits; `pageOf` and `offsetIn` do not. Linear (virtual) addresses need all 64 bits and are plain `bigint`s.
 */

declare const unit: unique symbol;
type Unit<Name extends string> = number & { readonly [unit]: Name };

/** System-physical address: what the memory controller sees; at most 52 bits. */
export type SPA = Unit<'sPA'>;
/** Guest-physical address: an L2's idea of physical memory, before nested paging. At most 52 bits. */
export type GPA = Unit<'gPA'>;
/** Virtual time since power-on, in nanoseconds; a function of retired instructions and of skipped halts (`clock.ts`). */
export type Nanoseconds = Unit<'ns'>;
/** Instructions retired by the whole machine since power-on. What counts as one is told in docs/adr. */
export type InstructionCount = Unit<'instructions'>;

export const PAGE_BYTES = 4096;
/** Rate of the TSC: it counts virtual nanoseconds (docs/adr/0004-virtual-time.md). */
export const TSC_HERTZ = 1_000_000_000n;

export const sPA = (value: number): SPA => value as SPA;
export const gPA = (value: number): GPA => value as GPA;
export const nanoseconds = (value: number): Nanoseconds => value as Nanoseconds;
export const instructionCount = (value: number): InstructionCount => value as InstructionCount;

/** The page frame's address: `address` with its low 12 bits cleared. */
export const pageOf = <T extends number>(address: T): T => (address - (address % PAGE_BYTES)) as T;
/** The byte offset within the page, 0..4095. */
export const offsetIn = (address: number): number => address % PAGE_BYTES;

/** Cuts to 64 bits, unsigned. */
export const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);
/** Cuts to `bits` bits, unsigned. */
export const uN = (bits: number, value: bigint): bigint => BigInt.asUintN(bits, value);
/** Sign-extends the low `bits` bits of `value` to an unsigned 64-bit value. */
export const signExtend = (bits: number, value: bigint): bigint => u64(BigInt.asIntN(bits, value));
/** True for addresses whose bits 63:47 are all equal (48-bit linear addresses, APM vol.2 §1.1.3 Canonical Address Form). */
export const isCanonical = (linear: bigint): boolean => u64(BigInt.asIntN(48, linear)) === linear;
/** The same of an address of which this is the upper half. */
export const isCanonicalHigh = (high: number): boolean => high >> 15 === 0 || high >> 15 === -1;

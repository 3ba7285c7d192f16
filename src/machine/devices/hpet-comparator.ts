/**
 * What a comparator of the HPET does while the main counter runs from one value to another: whether it matches, and what
 * is then in its register. 64 bits throughout, hence bigints; the state keeps them as halves, for events and snapshots
 * hold no bigints.
 *
 * Source: IA-PC HPET (High Precision Event Timers) Specification 1.0a, §2.3.9 Timer N Comparator Register.
 */

/** An unsigned 64-bit number as two unsigned 32-bit ones. */
export interface Halves {
  low: number;
  high: number;
}

const LOW_WORD = 0xffff_ffffn;
const ALL_ONES = 0xffff_ffff;

export const allOnes = (): Halves => ({ low: ALL_ONES, high: ALL_ONES });
export const wholeOf = ({ low, high }: Readonly<Halves>): bigint => (BigInt(high) << 32n) | BigInt(low);
export const halvesOf = (value: bigint): Halves => ({
  low: Number(value & LOW_WORD),
  high: Number((value >> 32n) & LOW_WORD),
});

export interface Comparator {
  /** What the main counter is compared with. */
  readonly value: bigint;
  /** Added at each match in periodic mode: what was last written. */
  readonly period: bigint;
  readonly periodic: boolean;
  /** 64, or 32 when the timer was told to behave so. */
  readonly bits: 32 | 64;
  /** It, or the counter, was written since the counter last moved: being equal is then a match, too. */
  readonly written: boolean;
}

/** Ticks until the main counter, which has `counter`, matches; after the match it takes all values to match again. */
export function ticksToMatch({ value, bits, written }: Comparator, counter: bigint): bigint {
  const distance = BigInt.asUintN(bits, value - counter);
  return distance === 0n && !written ? 1n << BigInt(bits) : distance;
}

/** The comparator's value after the counter went `ticks` on from `counter`, or undefined when it did not match. */
export function matchedValue(it: Comparator, counter: bigint, ticks: bigint): bigint | undefined {
  const first = ticksToMatch(it, counter);
  if (ticks < first) return undefined;
  if (!it.periodic) return it.value;
  const step = BigInt.asUintN(it.bits, it.period);
  const matches = step === 0n ? 1n : (ticks - first) / step + 1n;
  return BigInt.asUintN(it.bits, it.value + matches * step);
}

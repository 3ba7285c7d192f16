/**
 * VMCB clean bits. The processor keeps one VMCB cached: the one that ran last, by its physical address. What it holds is
 * the machine's copy of that VMCB, as VMRUN and #VMEXIT left it. VMRUN takes a field whose clean bit is set from there.
 *
 * With honest software memory and copy agree, and nothing happens here. Where software changed a field under a set clean
 * bit, the cached value stays in force and the event `svm.stale` tells what memory says instead.
 * Source: APM vol.2 §15.15 VMCB State Caching, figure 15-4.
 */
import type { VmcbDelta } from '../events.js';
import {
  decodeVmcbDelta,
  emptyVmcbWords,
  encodeVmcbDelta,
  VMCB_DELTA_ENTRY_BYTES,
  type VmcbWords,
  W,
} from '../layout/vmcb.js';

/** Bits of the VMCB clean field. CET (12) has no fields here. */
export const CleanBit = {
  INTERCEPTS: 1 << 0,
  PERMISSION_MAPS: 1 << 1,
  ASID: 1 << 2,
  TPR: 1 << 3,
  NESTED_PAGING: 1 << 4,
  CONTROL_REGISTERS: 1 << 5,
  DEBUG_REGISTERS: 1 << 6,
  DESCRIPTOR_TABLES: 1 << 7,
  SEGMENTS: 1 << 8,
  CR2: 1 << 9,
  LAST_BRANCH: 1 << 10,
  /** Nothing is cached under it where the processor has no AVIC. */
  AVIC: 1 << 11,
} as const;
/** Those that every processor with clean bits has. */
export const CLEAN_BITS = 0x7ff;

const range = (first: number, last: number): readonly number[] =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** The fields of each group. NP_ENABLE and the enable bits at 0B8h are in none, hence never cached. */
const GROUPS: readonly (readonly [bit: number, words: readonly number[]])[] = [
  [CleanBit.INTERCEPTS, [...range(W.interceptCr, W.intercept4), W.tscOffset, W.pauseFilterCount]],
  [CleanBit.PERMISSION_MAPS, [W.iopmBasePA, W.msrpmBasePA]],
  [CleanBit.ASID, [W.guestASID]],
  [CleanBit.TPR, [W.intControl]],
  [CleanBit.NESTED_PAGING, [W.nCR3, W.gPAT]],
  [CleanBit.CONTROL_REGISTERS, [W.cr0, W.cr3, W.cr4, W.efer]],
  [CleanBit.DEBUG_REGISTERS, [W.dr6, W.dr7]],
  [CleanBit.DESCRIPTOR_TABLES, [W.gdtrLimit, W.gdtrBase, W.idtrLimit, W.idtrBase]],
  [CleanBit.SEGMENTS, [...range(W.es, W.dsBase), W.cpl]],
  [CleanBit.CR2, [W.cr2]],
  [CleanBit.LAST_BRANCH, range(W.debugCtl, W.lastIntTo)],
  [CleanBit.AVIC, [W.avicApicBar, W.avicBackingPage, W.avicLogicalTable, W.avicPhysicalTable]],
];

/** The clean bit that covers a 64-bit word, 0 for none. */
const CLEAN_BIT_OF_WORD: Uint16Array = (() => {
  const bits = new Uint16Array(emptyVmcbWords().length / 2);
  for (const [bit, words] of GROUPS) for (const word of words) bits[word] = bit;
  return bits;
})();

/** In the high half of the word of the PAUSE filter. */
const THRESHOLD = 0xffff;

/** TLB_CONTROL shares a word with the ASID and is never cached. */
const LOW_HALF_ONLY = W.guestASID;

/** True when a changed word is covered by a clean bit that is set. */
export function changedUnderCleanBit(changes: VmcbDelta, clean: number): boolean {
  for (let at = 0; at < changes.length; at += VMCB_DELTA_ENTRY_BYTES) {
    const word = (changes[at] as number) | ((changes[at + 1] as number) << 8);
    if (((CLEAN_BIT_OF_WORD[word] as number) & clean) !== 0) return true;
  }
  return false;
}

/** What VMRUN works with when software changed fields that it called clean. */
export interface CachedState {
  /** The VMCB as the processor takes it, a 32-bit word each. */
  readonly words: Uint32Array;
  /** What the processor learns of the VMCB: the changes, but for what it did not look at. */
  readonly changes: VmcbDelta;
  /** What memory has instead of the cached values. */
  readonly stale: VmcbDelta;
}

/** Deviations of the cache. */
interface CacheRules {
  /** Of stale intercepts only those that memory asks for as well are in force. */
  readonly narrowsStaleIntercepts: boolean;
  /** The PAUSE filter's threshold is never cached. */
  readonly reloadsPauseThreshold: boolean;
}

/**
 * @param known the cached copy. @param memory RAM as 32-bit words. @param at the VMCB's place among them.
 * @param changes what differs from the copy. @param clean the clean bits that are set.
 */
export function takeCached(
  known: VmcbWords,
  memory: Uint32Array,
  at: number,
  changes: VmcbDelta,
  clean: number,
  rules: CacheRules,
): CachedState {
  const words = memory.slice(at, at + known.length);
  const learnt: [number, bigint][] = [];
  const stale: [number, bigint][] = [];
  for (const [word, value] of decodeVmcbDelta(changes)) {
    const low = known[2 * word] as number;
    const high = known[2 * word + 1] as number;
    const cached = ((CLEAN_BIT_OF_WORD[word] as number) & clean) !== 0;
    const lowDiffers = words[2 * word] !== low;
    if (!cached || (word === LOW_HALF_ONLY && !lowDiffers)) {
      learnt.push([word, value]);
      continue;
    }
    if (rules.reloadsPauseThreshold && word === W.pauseFilterCount) {
      // The rest of the word is as cached; the copy learns the threshold.
      const reloaded = (high & ~THRESHOLD) | ((words[2 * word + 1] as number) & THRESHOLD);
      if (reloaded >>> 0 !== words[2 * word + 1]) stale.push([word, value]);
      words[2 * word + 1] = reloaded;
      learnt.push([word, (BigInt(reloaded >>> 0) << 32n) | BigInt(low)]);
      continue;
    }
    stale.push([word, value]);
    if (rules.narrowsStaleIntercepts && word <= W.intercept4) {
      words[2 * word] = (words[2 * word] as number) & low;
      words[2 * word + 1] = (words[2 * word + 1] as number) & high;
      continue;
    }
    words[2 * word] = low;
    if (word !== LOW_HALF_ONLY) words[2 * word + 1] = high;
    else if (words[2 * word + 1] !== high) {
      learnt.push([word, (BigInt(words[2 * word + 1] as number) << 32n) | BigInt(low)]);
    }
  }
  return { words, changes: encodeVmcbDelta(learnt), stale: encodeVmcbDelta(stale) };
}

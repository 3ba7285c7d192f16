/**
 * VMLOAD and VMSAVE: the guest state that the world switch leaves alone.
 * Source: APM vol.2 §15.5.2 VMSAVE and VMLOAD Instructions.
 */
import type { SwitchContext } from '../cpu/nested-virtualization.js';
import type { Transaction } from '../cpu/transaction.js';
import type { VmcbDelta } from '../events.js';
import { EMPTY_DELTA, type HalvesWriter, R, type Slot } from '../layout/cpu-state.js';
import { SegmentWord, VMLOAD_WORDS, type VmcbWords, vmcbChanges, vmcbQuad, W } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { VmcbImage } from './vmcb-image.js';
import type { VmrunRules } from './vmrun-rules.js';

/** Segments by the word of their attributes; the base follows, in registers as in the VMCB. */
const SEGMENTS: readonly (readonly [slot: Slot, word: number])[] = [
  [R.fs, W.fs],
  [R.gs, W.gs],
  [R.ldtr, W.ldtr],
  [R.tr, W.tr],
];
const MSRS: readonly (readonly [slot: Slot, word: number])[] = [
  [R.star, W.star],
  [R.lstar, W.lstar],
  [R.cstar, W.cstar],
  [R.sfmask, W.sfmask],
  [R.kernelGsBase, W.kernelGsBase],
  [R.sysenterCs, W.sysenterCs],
  [R.sysenterEsp, W.sysenterEsp],
  [R.sysenterEip, W.sysenterEip],
];

const SEGMENT_BITS = Number(SegmentWord.MASK & 0xffff_ffffn);

const image = new VmcbImage();

/** What software changed of the state that VMLOAD reads. @param vmcb sPA of a page in RAM. @param known the machine's copy. */
const softwareChanges = (memory: PhysicalMemory, vmcb: number, known: VmcbWords | undefined): VmcbDelta =>
  vmcbChanges(memory, vmcb, known, VMLOAD_WORDS);

/**
 * VMLOAD past its checks. Bases become canonical on the way in, but for the deviation `bases-not-canonical`; SYSCALL and
 * SYSENTER targets stay as they are. @param to gets slots in ascending order. @param vmcb sPA of a page in RAM.
 */
function loadState(to: HalvesWriter, memory: PhysicalMemory, vmcb: number, rules: VmrunRules): void {
  const { words } = memory;
  const at = 2 * vmcbQuad(vmcb);
  const asStored = rules.keepsBasesAsStored;
  for (const [slot, word] of SEGMENTS) {
    to.setHalves(slot, lowOf(words, at, word) & SEGMENT_BITS, highOf(words, at, word));
    to.setHalves((slot + 1) as Slot, lowOf(words, at, word + 1), baseHigh(words, at, word + 1, asStored));
  }
  for (const [slot, word] of MSRS) {
    const high = slot === R.kernelGsBase ? baseHigh(words, at, word, asStored) : highOf(words, at, word);
    to.setHalves(slot, lowOf(words, at, word), high);
  }
}

/** Of a base, whose bits 63:48 follow bit 47, but for the deviation. */
function baseHigh(words: Uint32Array, at: number, word: number, asStored: boolean): number {
  const high = highOf(words, at, word);
  return asStored ? high : (high << 16) >> 16;
}

const lowOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word] as number;
const highOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word + 1] as number;

/** VMSAVE past its checks. @param known the machine's copy of the VMCB. @returns how it must change. */
function storeState(tx: Transaction, vmcb: number, known: VmcbWords | undefined): VmcbDelta {
  for (const [slot, word] of SEGMENTS) {
    const base = (slot + 1) as Slot;
    image.set(word, tx.low(slot), tx.high(slot));
    image.set(word + 1, tx.low(base), tx.high(base));
  }
  for (const [slot, word] of MSRS) image.set(word, tx.low(slot), tx.high(slot));
  return image.store(tx, vmcb, known);
}

export function vmload(context: SwitchContext, vmcb: number, rules: VmrunRules): void {
  const { tx } = context;
  const { memory } = tx.host;
  const words = softwareChanges(memory, vmcb, context.vmcbShadow.knownWords(vmcb));
  loadState(context.target(), memory, vmcb, rules);
  context.outcome({ type: 'svm.vmload', vmcb, words, registers: EMPTY_DELTA });
}

export function vmsave(context: SwitchContext, vmcb: number): void {
  const { tx } = context;
  const words = storeState(tx, vmcb, context.vmcbShadow.knownWords(vmcb));
  context.outcome({ type: 'svm.vmsave', vmcb, words, registers: EMPTY_DELTA });
}

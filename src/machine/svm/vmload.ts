/**
 * VMLOAD and VMSAVE: the guest state that the world switch leaves alone.
 * Source: APM vol.2 §15.5.2 VMSAVE and VMLOAD Instructions.
 */
import type { SwitchContext } from '../cpu/nested-virtualization.js';
import type { Transaction } from '../cpu/transaction.js';
import { EMPTY_DELTA, R, type Slot } from '../layout/cpu-state.js';
import { SegmentWord, VMLOAD_WORDS, vmcbChanges, vmcbQuad, W } from '../layout/vmcb.js';
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

/**
 * @param vmcb sPA of a page in RAM. Bases become canonical on the way in, but for the deviation `bases-not-canonical`;
 * SYSCALL and SYSENTER targets stay as they are.
 */
export function vmload(context: SwitchContext, vmcb: number, rules: VmrunRules): void {
  const { tx } = context;
  const { memory } = tx.host;
  const { words } = memory;
  const at = 2 * vmcbQuad(vmcb);
  const changes = vmcbChanges(memory, vmcb, context.vmcbShadow.knownWords(vmcb), VMLOAD_WORDS);
  const asStored = rules.keepsBasesAsStored;
  for (const [slot, word] of SEGMENTS) {
    tx.setHalves(slot, lowOf(words, at, word) & SEGMENT_BITS, highOf(words, at, word));
    loadBase(tx, (slot + 1) as Slot, words, at, word + 1, asStored);
  }
  for (const [slot, word] of MSRS) tx.setHalves(slot, lowOf(words, at, word), highOf(words, at, word));
  loadBase(tx, R.kernelGsBase, words, at, W.kernelGsBase, asStored);
  context.outcome({ type: 'svm.vmload', vmcb, words: changes, registers: EMPTY_DELTA });
}

/** Bits 63:48 of a base follow bit 47, but for the deviation. */
function loadBase(tx: Transaction, slot: Slot, words: Uint32Array, at: number, word: number, asStored: boolean): void {
  const high = highOf(words, at, word);
  tx.setHalves(slot, lowOf(words, at, word), asStored ? high : (high << 16) >> 16);
}

const lowOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word] as number;
const highOf = (words: Uint32Array, at: number, word: number): number => words[at + 2 * word + 1] as number;

export function vmsave(context: SwitchContext, vmcb: number): void {
  const { tx } = context;
  for (const [slot, word] of SEGMENTS) {
    const base = (slot + 1) as Slot;
    image.set(word, tx.low(slot), tx.high(slot));
    image.set(word + 1, tx.low(base), tx.high(base));
  }
  for (const [slot, word] of MSRS) image.set(word, tx.low(slot), tx.high(slot));
  const words = image.store(tx, vmcb, context.vmcbShadow.knownWords(vmcb));
  context.outcome({ type: 'svm.vmsave', vmcb, words, registers: EMPTY_DELTA });
}

/**
 * VMLOAD and VMSAVE: the guest state that the world switch leaves alone.
 * Source: APM vol.2 §15.5.2 VMSAVE and VMLOAD Instructions.
 */
import type { SystemContext } from '../cpu/system-context.js';
import { R, type Slot } from '../layout/cpu-state.js';
import { SegmentWord, VMLOAD_WORDS, vmcbChanges, vmcbQuad, W } from '../layout/vmcb.js';
import { signExtend } from '../units.js';
import { VmcbImage } from './vmcb-image.js';
import { vmrunRules } from './vmrun-rules.js';

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

const image = new VmcbImage();

/**
 * @param vmcb sPA of a page in RAM. Bases become canonical on the way in, but for the deviation `bases-not-canonical`;
 * SYSCALL and SYSENTER targets stay as they are.
 */
export function vmload(context: SystemContext, vmcb: number): void {
  const { tx } = context;
  const { memory } = tx.host;
  const at = vmcbQuad(vmcb);
  const words = vmcbChanges(memory, vmcb, context.vmcbShadow.knownWords(vmcb), VMLOAD_WORDS);
  const asStored = vmrunRules(context.profile).keepsBasesAsStored;
  const base = (word: number): bigint =>
    asStored ? (memory.quads[at + word] as bigint) : signExtend(48, memory.quads[at + word] as bigint);
  for (const [slot, word] of SEGMENTS) {
    tx.set(slot, (memory.quads[at + word] as bigint) & SegmentWord.MASK);
    tx.set((slot + 1) as Slot, base(word + 1));
  }
  for (const [slot, word] of MSRS) tx.set(slot, memory.quads[at + word] as bigint);
  tx.set(R.kernelGsBase, base(W.kernelGsBase));
  context.outcome((registers) => ({ type: 'svm.vmload', vmcb, words, registers }));
}

export function vmsave(context: SystemContext, vmcb: number): void {
  const { tx } = context;
  for (const [slot, word] of SEGMENTS) {
    image.setQuad(word, tx.get(slot));
    image.setQuad(word + 1, tx.get((slot + 1) as Slot));
  }
  for (const [slot, word] of MSRS) image.setQuad(word, tx.get(slot));
  const words = image.store(tx, vmcb, context.vmcbShadow.knownWords(vmcb));
  context.outcome((registers) => ({ type: 'svm.vmsave', vmcb, words, registers }));
}

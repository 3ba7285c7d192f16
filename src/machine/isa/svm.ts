/**
 * The instructions of SVM. All but VMMCALL want EFER.SVME and protected mode (#UD), then privilege level 0 (#GP), then an
 * address that can hold a VMCB (#GP); the intercept stands behind these. VMMCALL's stands before everything.
 * Source: APM vol.3 §4 System Instruction Reference; APM vol.2 §15.4 Enabling SVM, §15.9 Instruction Intercepts.
 */

import { cplOf, hasParagraphs } from '../cpu/mode.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { generalProtection, invalidOpcode } from '../faults.js';
import { EFER, R } from '../layout/cpu-state.js';
import { VMCB_BYTES } from '../layout/vmcb.js';
import { setGif } from '../svm/gif.js';
import { vmload, vmsave } from '../svm/vmload.js';
import { vmrun } from '../svm/vmrun.js';
import { uN } from '../units.js';

/** #UD without SVM or protected mode, #GP(0) above privilege level 0. */
function requireSvm({ tx }: SystemContext): void {
  if ((tx.get(R.efer) & EFER.SVME) === 0n || hasParagraphs(tx)) throw invalidOpcode();
  if (cplOf(tx) !== 0) throw generalProtection();
}

/** rAX by the effective address size. */
const linearOperand = ({ tx, insn }: SystemContext): bigint => uN(insn.addressWidth, tx.get(R.rax));

/**
 * sPA of the VMCB in rAX: #GP(0) when it is not aligned or no valid physical address, and here also when it is not RAM,
 * for a device cannot hold a VMCB.
 */
function vmcbOperand(context: SystemContext): number {
  const address = linearOperand(context);
  if (address % BigInt(VMCB_BYTES) !== 0n || address >> BigInt(context.profile.physicalAddressBits) !== 0n) {
    throw generalProtection();
  }
  const vmcb = Number(address);
  if (!context.tx.host.memory.isRam(vmcb, VMCB_BYTES)) throw generalProtection();
  return vmcb;
}

export const VMRUN = systemInstruction({
  mnemonic: 'VMRUN',
  source: 'APM vol.3, VMRUN',
  forms: ['0F 01 D8: '],
  feature: 'svm',
  system(context) {
    requireSvm(context);
    const vmcb = vmcbOperand(context);
    context.intercept('VMRUN');
    vmrun(context, vmcb);
  },
});

export const VMMCALL = systemInstruction({
  mnemonic: 'VMMCALL',
  source: 'APM vol.3, VMMCALL',
  forms: ['0F 01 D9: '],
  feature: 'svm',
  interceptedFirst: 'VMMCALL',
  system() {
    throw invalidOpcode();
  },
});

export const VMLOAD = systemInstruction({
  mnemonic: 'VMLOAD',
  source: 'APM vol.3, VMLOAD',
  forms: ['0F 01 DA: '],
  feature: 'svm',
  system(context) {
    requireSvm(context);
    const vmcb = vmcbOperand(context);
    context.intercept('VMLOAD');
    vmload(context, vmcb);
  },
});

export const VMSAVE = systemInstruction({
  mnemonic: 'VMSAVE',
  source: 'APM vol.3, VMSAVE',
  forms: ['0F 01 DB: '],
  feature: 'svm',
  system(context) {
    requireSvm(context);
    const vmcb = vmcbOperand(context);
    context.intercept('VMSAVE');
    vmsave(context, vmcb);
  },
});

export const STGI = systemInstruction({
  mnemonic: 'STGI',
  source: 'APM vol.3, STGI',
  forms: ['0F 01 DC: '],
  feature: 'svm',
  system(context) {
    requireSvm(context);
    context.intercept('STGI');
    setGif(context.tx, true);
    context.outcome((registers) => ({ type: 'svm.gif', set: true, registers }));
  },
});

export const CLGI = systemInstruction({
  mnemonic: 'CLGI',
  source: 'APM vol.3, CLGI',
  forms: ['0F 01 DD: '],
  feature: 'svm',
  system(context) {
    requireSvm(context);
    context.intercept('CLGI');
    setGif(context.tx, false);
    context.outcome((registers) => ({ type: 'svm.gif', set: false, registers }));
  },
});

/** This machine has no secure startup (CPUID Fn8000_0001 ECX[SKINIT] is clear). */
export const SKINIT = systemInstruction({
  mnemonic: 'SKINIT',
  source: 'APM vol.3, SKINIT',
  forms: ['0F 01 DE: '],
  feature: 'svm',
  system() {
    throw invalidOpcode();
  },
});

/** Drops one page of the address space in ECX; 0 is the host's own. */
export const INVLPGA = systemInstruction({
  mnemonic: 'INVLPGA',
  source: 'APM vol.3, INVLPGA',
  forms: ['0F 01 DF: '],
  feature: 'svm',
  system(context) {
    requireSvm(context);
    context.intercept('INVLPGA');
    const linear = linearOperand(context);
    const asid = Number(uN(32, context.tx.get(R.rcx)));
    context.flushTlb({ scope: 'page', asid, linear });
    context.outcome((registers) => ({ type: 'svm.invlpga', linear, asid, registers }));
  },
});

export const SVM_INSTRUCTIONS = [VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, INVLPGA] as const;

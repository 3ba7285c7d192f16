/**
 * The instructions of SVM but VMMCALL (`hypercall.ts`). They want EFER.SVME and protected mode (#UD), then privilege level 0 (#GP), then an
 * address that can be a VMCB's (#GP); the intercept stands behind these.
 *
 * A guest's STGI and CLGI act on V_GIF where it has one, its VMLOAD and VMSAVE on guest-physical addresses where they are
 * virtualized; without that they act like the host's.
 * Source: APM vol.3 §4 System Instruction Reference; APM vol.2 §15.4 Enabling SVM, §15.9 Instruction Intercepts, §15.31
 * SVM-Lock, §15.33 Nested Virtualization.
 */

import { isLongMode } from '../cpu/mode.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { GuestFault, generalProtection, invalidOpcode, Vector } from '../faults.js';
import { Boundary, CR0, EFER, EMPTY_DELTA, Flag, R } from '../layout/cpu-state.js';
import { NestedControl, SegmentWord, VirtExt, VMCB_BYTES } from '../layout/vmcb.js';
import { setGif } from '../svm/gif.js';
import { hasVirtualGif, inGuest, withVirtualGif } from '../svm/injection.js';
import { INTERCEPTS } from '../svm/intercepts.js';
import { VmExit } from '../svm/vmexit-request.js';
import { uN } from '../units.js';

const SVME = Number(EFER.SVME);
const PE = Number(CR0.PE);
const VM = Number(Flag.VM);

/** #UD without SVM or protected mode, #GP(0) above privilege level 0. @param always SVM need not be enabled. */
function requireSvm({ tx }: SystemContext, always = false): void {
  const hasParagraphs = (tx.low(R.cr0) & PE) === 0 || (tx.low(R.rflags) & VM) !== 0;
  if ((!always && (tx.low(R.efer) & SVME) === 0) || hasParagraphs) throw invalidOpcode();
  if (tx.low(R.cpl) !== 0) throw generalProtection();
}

/** What `svm-needs-paging` adds behind the intercept. */
function requirePaging({ tx, profile }: SystemContext): void {
  if (profile.deviations.has('svm-needs-paging') && (tx.get(R.cr0) & CR0.PG) === 0n) throw invalidOpcode();
}

/** rAX by the effective address size. */
const linearOperand = ({ tx, insn }: SystemContext): bigint => uN(insn.addressWidth, tx.get(R.rax));

/** Physical address of the VMCB in rAX: #GP(0) when it is not aligned or no valid physical address. */
function vmcbOperand({ tx, insn, profile }: SystemContext): number {
  const low = insn.addressWidth === 16 ? tx.low(R.rax) & 0xffff : tx.low(R.rax);
  const high = insn.addressWidth === 64 ? tx.high(R.rax) : 0;
  if ((low & (VMCB_BYTES - 1)) !== 0 || high >>> (profile.physicalAddressBits - 32) !== 0) throw generalProtection();
  return high * 2 ** 32 + low;
}

type WithVmcb = 'VMRUN' | 'VMLOAD' | 'VMSAVE';

/** The VMCB's address, past the intercept. */
function namedVmcb(context: SystemContext, name: WithVmcb): number {
  const vmcb = uninterceptedVmcb(context, name);
  context.intercept(name);
  requirePaging(context);
  return vmcb;
}

/** `vmcb-address-by-high-bits` looks at the bits above these. */
const ADDRESS_BITS = 48n;

/** What stands before the intercept. */
function uninterceptedVmcb(context: SystemContext, name: WithVmcb): number {
  const { tx, profile } = context;
  if (profile.deviations.has('vmcb-address-by-high-bits')) {
    requireSvm(context, true);
    if (tx.get(R.rax) >> ADDRESS_BITS !== 0n) throw generalProtection();
    requireSvm(context);
    context.intercept(name);
    return vmcbOperand(context);
  }
  try {
    requireSvm(context);
    context.intercept(name, {}, 'before-operands');
    return vmcbOperand(context);
  } catch (raised) {
    if (
      profile.deviations.has('svm-fault-exits') &&
      inGuest(tx) &&
      raised instanceof GuestFault &&
      raised.vector === Vector.GP &&
      tx.get(R.rax) % BigInt(VMCB_BYTES) === 0n
    ) {
      throw new VmExit(INTERCEPTS[name].exitCode, 0n, 0n, true);
    }
    throw raised;
  }
}

/** #GP(0), here, also for an sPA that is not RAM: a device cannot hold a VMCB. */
function inRam({ tx }: SystemContext, vmcb: number): number {
  if (!tx.host.memory.isRam(vmcb, VMCB_BYTES)) throw generalProtection();
  return vmcb;
}

/**
 * Where a VMLOAD or VMSAVE past its intercept finds its VMCB. A guest's address is guest-physical under
 * virtualization of the two; the enable bit counts for a 64-bit hypervisor with nested paging, and exits for others.
 * Source: APM vol.2 §15.33.1 VMSAVE and VMLOAD Virtualization.
 * @throws VmExit, NestedPageFault
 */
function savedStateAt(context: SystemContext, address: number, name: Exclude<WithVmcb, 'VMRUN'>): number {
  const { tx, profile } = context;
  if (!inGuest(tx)) return inRam(context, address);
  const plain = (tx.get(R.nestedControl) & NestedControl.NP_ENABLE) === 0n || !isLongMode(tx);
  if (plain && profile.deviations.has('vmload-exits-outside-long-mode')) {
    throw new VmExit(INTERCEPTS[name].exitCode, 0n, 0n, true);
  }
  if ((tx.get(R.virtExt) & VirtExt.VMLOAD_VMSAVE) === 0n) return inRam(context, address);
  const recognised =
    (tx.get(R.hostEfer) & EFER.LMA) !== 0n &&
    (tx.get(R.hostCs) & SegmentWord.LONG) !== 0n &&
    (tx.get(R.nestedControl) & NestedControl.NP_ENABLE) !== 0n;
  if (!recognised) throw new VmExit(INTERCEPTS[name].exitCode, 0n, 0n, true);
  return inRam(context, context.nestedAddress(address, name === 'VMSAVE'));
}

/** What the manual leaves undefined: no host save area was ever named, or the caller is in SMM. */
function refuseVmrun({ tx, profile: { deviations } }: SystemContext): void {
  if (deviations.has('vmrun-needs-save-area') && tx.get(R.vmHsavePA) === 0n) throw generalProtection();
  if (deviations.has('vmrun-refused-in-smm') && (tx.get(R.boundary) & Boundary.IN_SMM) !== 0n) throw invalidOpcode();
}

export const VMRUN = systemInstruction({
  mnemonic: 'VMRUN',
  source: 'APM vol.3, VMRUN',
  forms: ['0F 01 D8: '],
  feature: 'svm',
  system(context) {
    const vmcb = namedVmcb(context, 'VMRUN');
    refuseVmrun(context);
    context.nested.vmrun(context, inRam(context, vmcb));
  },
});

export const VMLOAD = systemInstruction({
  mnemonic: 'VMLOAD',
  source: 'APM vol.3, VMLOAD',
  forms: ['0F 01 DA: '],
  feature: 'svm',
  system(context) {
    const vmcb = namedVmcb(context, 'VMLOAD');
    context.nested.vmload(context, savedStateAt(context, vmcb, 'VMLOAD'));
  },
});

export const VMSAVE = systemInstruction({
  mnemonic: 'VMSAVE',
  source: 'APM vol.3, VMSAVE',
  forms: ['0F 01 DB: '],
  feature: 'svm',
  system(context) {
    const vmcb = namedVmcb(context, 'VMSAVE');
    context.nested.vmsave(context, savedStateAt(context, vmcb, 'VMSAVE'));
  },
});

/** GIF, or the guest's own. */
function changeGif(context: SystemContext, set: boolean): void {
  const { tx } = context;
  if (hasVirtualGif(tx)) tx.set(R.intControl, withVirtualGif(tx.get(R.intControl), set));
  else setGif(tx, set);
  context.outcome({ type: 'svm.gif', set, registers: EMPTY_DELTA });
}

/** With SVM-Lock it needs no EFER.SVME. */
export const STGI = systemInstruction({
  mnemonic: 'STGI',
  source: 'APM vol.3, STGI',
  forms: ['0F 01 DC: '],
  feature: 'svm',
  system(context) {
    const { svm, deviations } = context.profile;
    requireSvm(context, svm.has('svm-lock') || deviations.has('stgi-without-svme'));
    context.intercept('STGI');
    requirePaging(context);
    changeGif(context, true);
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
    requirePaging(context);
    changeGif(context, false);
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
    const { svm, deviations } = context.profile;
    requireSvm(context, deviations.has('invlpga-without-svme'));
    const linear = linearOperand(context);
    const told = deviations.has('invlpga-reports-address') && svm.has('decode-assists');
    context.intercept('INVLPGA', told ? { info1: linear } : {});
    const asid = Number(uN(32, context.tx.get(R.rcx)));
    context.flushTlb({ scope: 'page', asid, linear });
    context.outcome({ type: 'svm.invlpga', linear, asid, registers: EMPTY_DELTA });
  },
});

export const SVM_INSTRUCTIONS = [VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, INVLPGA] as const;

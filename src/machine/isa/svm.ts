/**
 * The instructions of SVM. All but VMMCALL want EFER.SVME and protected mode (#UD), then privilege level 0 (#GP), then an
 * address that can be a VMCB's (#GP); the intercept stands behind these. VMMCALL's stands before everything.
 *
 * A guest's STGI and CLGI act on V_GIF where it has one, its VMLOAD and VMSAVE on guest-physical addresses where they are
 * virtualized; without that they act like the host's.
 * Source: APM vol.3 §4 System Instruction Reference; APM vol.2 §15.4 Enabling SVM, §15.9 Instruction Intercepts, §15.31
 * SVM-Lock, §15.33 Nested Virtualization.
 */

import { accessAt, cplOf, hasParagraphs, is64Bit, type SlotReader } from '../cpu/mode.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { generalProtection, invalidOpcode } from '../faults.js';
import { EFER, R, type Slot, SvmMode } from '../layout/cpu-state.js';
import { NestedControl, SegmentWord, VirtExt, VMCB_BYTES } from '../layout/vmcb.js';
import type { Paravirt } from '../paravirt/interface.js';
import { setGif } from '../svm/gif.js';
import { hasVirtualGif, withVirtualGif } from '../svm/injection.js';
import { INTERCEPTS } from '../svm/intercepts.js';
import { VmExit } from '../svm/vmexit-request.js';
import { vmload, vmsave } from '../svm/vmload.js';
import { vmrun } from '../svm/vmrun.js';
import { u64, uN } from '../units.js';

const inGuest = (cpu: SlotReader): boolean => (cpu.get(R.svmMode) & SvmMode.GUEST) !== 0n;

/** #UD without SVM or protected mode, #GP(0) above privilege level 0. @param always SVM need not be enabled. */
function requireSvm({ tx }: SystemContext, always = false): void {
  if ((!always && (tx.get(R.efer) & EFER.SVME) === 0n) || hasParagraphs(tx)) throw invalidOpcode();
  if (cplOf(tx) !== 0) throw generalProtection();
}

/** rAX by the effective address size. */
const linearOperand = ({ tx, insn }: SystemContext): bigint => uN(insn.addressWidth, tx.get(R.rax));

/** Physical address of the VMCB in rAX: #GP(0) when it is not aligned or no valid physical address. */
function vmcbOperand(context: SystemContext): number {
  const address = linearOperand(context);
  if (address % BigInt(VMCB_BYTES) !== 0n || address >> BigInt(context.profile.physicalAddressBits) !== 0n) {
    throw generalProtection();
  }
  return Number(address);
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
function savedStateAt(context: SystemContext, address: number, name: 'VMLOAD' | 'VMSAVE'): number {
  const { tx } = context;
  if (!inGuest(tx) || (tx.get(R.virtExt) & VirtExt.VMLOAD_VMSAVE) === 0n) {
    return inRam(context, address);
  }
  const recognised =
    (tx.get(R.hostEfer) & EFER.LMA) !== 0n &&
    (tx.get(R.hostCs) & SegmentWord.LONG) !== 0n &&
    (tx.get(R.nestedControl) & NestedControl.NP_ENABLE) !== 0n;
  if (!recognised) throw new VmExit(INTERCEPTS[name].exitCode, 0n, 0n, true);
  return inRam(context, context.nestedAddress(address, name === 'VMSAVE'));
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
    vmrun(context, inRam(context, vmcb));
  },
});

/** EPERM: hypercalls are the kernel's. */
const NOT_PERMITTED = u64(-1n);

/** Number in RAX, arguments in RBX, RCX, RDX and RSI, result in RAX; 32 bits of each outside 64-bit mode. */
function hypercall(context: SystemContext, paravirt: Paravirt, patched: boolean): void {
  const { tx } = context;
  const long = is64Bit(tx);
  const read = (slot: Slot): bigint => uN(long ? 64 : 32, tx.get(slot));
  const number = read(R.rax);
  const result =
    cplOf(tx) === 0
      ? paravirt.hypercall(context.vcpu, {
          number,
          arguments: [read(R.rbx), read(R.rcx), read(R.rdx), read(R.rsi)],
          is64Bit: long,
        })
      : NOT_PERMITTED;
  tx.set(R.rax, uN(long ? 64 : 32, result));
  context.outcome((registers) => ({ type: 'paravirt.hypercall', number, result, patched, registers }));
}

/** A hypercall to the L0 that the machine has; L2's go to L1, which intercepts them, or are #UD. */
export const VMMCALL = systemInstruction({
  mnemonic: 'VMMCALL',
  source: 'APM vol.3, VMMCALL',
  forms: ['0F 01 D9: '],
  feature: 'svm',
  interceptedFirst: 'VMMCALL',
  system(context) {
    const { paravirt } = context;
    if (paravirt === undefined || inGuest(context.tx)) throw invalidOpcode();
    hypercall(context, paravirt, false);
  },
});

const VMMCALL_BYTES = 0xd9_010fn;
const VMMCALL_LENGTH = 3n;

/**
 * The other vendor's VMMCALL. As KVM does for its guests, L0 puts VMMCALL in its place, as the program itself could (#PF
 * where it cannot), and the hypercall is made. On bare hardware and in L2 it is #UD.
 */
const VMCALL = systemInstruction({
  mnemonic: 'VMCALL',
  source: 'Intel SDM vol.3, VMCALL; Linux, Documentation/virt/kvm/api.rst, KVM_X86_QUIRK_FIX_HYPERCALL_INSN',
  forms: ['0F 01 C1: '],
  system(context) {
    const { paravirt, tx } = context;
    if (paravirt === undefined || inGuest(tx)) throw invalidOpcode();
    const start = tx.get(R.rip) - VMMCALL_LENGTH; // prefixes stay
    const linear = is64Bit(tx) ? u64(start) : uN(32, tx.get(R.csBase) + start);
    tx.writeLinear(linear, Number(VMMCALL_LENGTH), VMMCALL_BYTES, accessAt(cplOf(tx)));
    hypercall(context, paravirt, true);
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
    vmload(context, savedStateAt(context, vmcb, 'VMLOAD'));
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
    vmsave(context, savedStateAt(context, vmcb, 'VMSAVE'));
  },
});

/** GIF, or the guest's own. */
function changeGif(context: SystemContext, set: boolean): void {
  const { tx } = context;
  if (hasVirtualGif(tx)) tx.set(R.intControl, withVirtualGif(tx.get(R.intControl), set));
  else setGif(tx, set);
  context.outcome((registers) => ({ type: 'svm.gif', set, registers }));
}

/** With SVM-Lock it needs no EFER.SVME. */
export const STGI = systemInstruction({
  mnemonic: 'STGI',
  source: 'APM vol.3, STGI',
  forms: ['0F 01 DC: '],
  feature: 'svm',
  system(context) {
    requireSvm(context, context.profile.svm.has('svm-lock'));
    context.intercept('STGI');
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
    requireSvm(context);
    context.intercept('INVLPGA');
    const linear = linearOperand(context);
    const asid = Number(uN(32, context.tx.get(R.rcx)));
    context.flushTlb({ scope: 'page', asid, linear });
    context.outcome((registers) => ({ type: 'svm.invlpga', linear, asid, registers }));
  },
});

export const SVM_INSTRUCTIONS = [VMRUN, VMMCALL, VMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, INVLPGA] as const;

/**
 * VMMCALL, which calls the hypervisor above, and the other vendor's VMCALL.
 *
 * L2's VMMCALL is L1's: an intercept, which stands before everything. L1's is L0's where the machine has one
 * (`src/machine/paravirt`), and #UD on bare hardware.
 * Source: APM vol.3, VMMCALL; APM vol.2 §15.9 Instruction Intercepts.
 */
import { accessAt, cplOf, is64Bit } from '../cpu/mode.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { invalidOpcode } from '../faults.js';
import { EMPTY_DELTA, R, type Slot } from '../layout/cpu-state.js';
import type { Paravirt } from '../paravirt/interface.js';
import { inGuest } from '../svm/injection.js';
import { INTERCEPTS } from '../svm/intercepts.js';
import { VmExit } from '../svm/vmexit-request.js';
import { u64, uN } from '../units.js';
import { ownRip } from './system-operands.js';

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
  context.outcome({ type: 'paravirt.hypercall', number, result, patched, registers: EMPTY_DELTA });
}

/** L2's VMMCALL that L1 does not intercept. @throws GuestFault, VmExit */
function unanswered(context: SystemContext): void {
  const { tx, profile } = context;
  if (profile.deviations.has('vmmcall-always-exits')) throw new VmExit(INTERCEPTS.VMMCALL.exitCode, 0n, 0n, true);
  if (!profile.deviations.has('vmmcall-repeats')) throw invalidOpcode();
  tx.set(R.rip, ownRip(context));
  context.plain();
}

export const VMMCALL = systemInstruction({
  mnemonic: 'VMMCALL',
  source: 'APM vol.3, VMMCALL',
  forms: ['0F 01 D9: '],
  feature: 'svm',
  interceptedFirst: 'VMMCALL',
  system(context) {
    if (inGuest(context.tx)) unanswered(context);
    else if (context.paravirt === undefined) throw invalidOpcode();
    else hypercall(context, context.paravirt, false);
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

export const HYPERCALL_INSTRUCTIONS = [VMMCALL, VMCALL] as const;

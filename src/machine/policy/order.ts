/**
 * Deviations in the table of intercepts: where a check stands among the exceptions of its instruction, and which bits
 * are not looked at.
 * Source of the rule: APM vol.2 §15.7 Intercept Operation, §15.9 Instruction Intercepts (table 15-7).
 */
import { type Deviation, qemu, xen } from './deviation.js';

export const ORDER = {
  'cr-write-before-value': {
    differs: 'the intercept of MOV to CR0, CR3 and CR4 stands before the checks of the value',
    manual: 'exceptions that do not depend on memory come first (§15.9 Instruction Intercepts, table 15-7)',
    effect: 'a MOV CRn with a reserved bit exits instead of raising #GP in the guest',
    stages: { CR0_WRITE: 'before-operands', CR3_WRITE: 'before-operands', CR4_WRITE: 'before-operands' },
    witnesses: [qemu('Q-10', 'target/i386/tcg/sysemu/misc_helper.c, helper_write_crN')],
  },
  'intercept-word-5-ignored': {
    differs: 'the intercepts of the word at 014h are not looked at',
    manual:
      'INVLPGB, INVPCID, MCOMMIT, TLBSYNC and the bus lock threshold are intercepted there (appendix B, table B-1)',
    effect: 'none of them exits from L2',
    never: ['INVLPGB', 'INVLPGB_ILLEGAL', 'INVPCID', 'MCOMMIT', 'TLBSYNC', 'BUSLOCK_THRESHOLD', 'IDLE_HLT'],
    witnesses: [
      xen('X-06', 'xen/arch/x86/hvm/svm/nestedsvm.c, nsvm_vmcb_prepare4vmrun'),
      qemu('Q-12', 'target/i386/tcg/sysemu/svm_helper.c, helper_vmrun'),
    ],
  },
  'ioio-every-byte': {
    differs: 'an access to several ports exits only when the bits of all its bytes are set in the I/O permission map',
    manual: 'any set bit is enough (§15.10.2 IN and OUT Behavior)',
    effect: 'IN EAX across the border of a denied and an allowed port does not exit',
    witnesses: [xen('X-01', 'xen/arch/x86/hvm/svm/nestedsvm.c, nsvm_vmcb_guest_intercepts_ioio')],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

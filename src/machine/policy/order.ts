/**
 * Deviations in the table of intercepts: where a check stands among the exceptions of its instruction, and which bits
 * are not looked at.
 * Source of the rule: APM vol.2 §15.7 Intercept Operation, §15.9 Instruction Intercepts (table 15-7).
 */
import { drRead, drWrite } from '../svm/intercepts.js';
import { bochs, type Deviation, qemu, xen } from './deviation.js';

const FIRST = 'exceptions that do not depend on memory come first (§15.9 Instruction Intercepts, table 15-7)';
const DEBUG_ACCESSES = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((number) => [drRead(number), drWrite(number)]);

export const ORDER = {
  'cr-write-before-value': {
    differs: 'the intercept of MOV to CR0 and CR4 stands before the checks of the value',
    manual: FIRST,
    effect: 'a value with a reserved bit exits instead of raising #GP in the guest',
    stages: { CR0_WRITE: 'before-operands', CR4_WRITE: 'before-operands' },
    witnesses: [qemu('Q-10', 'target/i386/tcg/sysemu/misc_helper.c, helper_write_crN')],
  },
  'cr3-write-before-value': {
    differs: 'the intercept of MOV to CR3 stands before the check of the value',
    manual: FIRST,
    effect: 'an address beyond the physical width exits instead of raising #GP in the guest',
    stages: { CR3_WRITE: 'before-operands' },
    witnesses: [
      qemu('Q-10', 'target/i386/tcg/sysemu/misc_helper.c, helper_write_crN'),
      bochs('CRn_WRITE', 'cpu/crregs.cc, MOV_CR3Rq'),
    ],
  },
  'cr8-write-before-value': {
    differs: 'the intercept of MOV to CR8 stands before the check of the value',
    manual: FIRST,
    effect: 'a value above 15 exits instead of raising #GP in the guest',
    stages: { CR8_WRITE: 'before-operands' },
    witnesses: [
      qemu('Q-10', 'target/i386/tcg/sysemu/misc_helper.c, helper_write_crN'),
      bochs('CRn_WRITE', 'cpu/crregs.cc, WriteCR8'),
    ],
  },
  'cr4-write-after-pointers': {
    differs: 'the intercept of MOV to CR4 stands behind the reading of the PAE page-directory pointers',
    manual: FIRST,
    effect: 'a pointer with a reserved bit raises #GP in a guest whose write would exit',
    stages: { CR4_WRITE: 'after-memory' },
    witnesses: [bochs('B-21', 'cpu/crregs.cc, SetCR4')],
  },
  'dr-write-before-value': {
    differs: 'the intercept of MOV to DR6 and DR7 stands before the check of bits 63:32',
    manual: FIRST,
    effect: 'a value with one of these bits set exits instead of raising #GP in the guest',
    stages: {
      DR4_WRITE: 'before-operands',
      DR5_WRITE: 'before-operands',
      DR6_WRITE: 'before-operands',
      DR7_WRITE: 'before-operands',
    },
    witnesses: [bochs('DRn_WRITE', 'cpu/crregs.cc, MOV_DqRq')],
  },
  'dr-access-before-debug-checks': {
    differs: 'the intercept of MOV from and to DRn stands right behind the check of CPL',
    manual: FIRST,
    effect: 'DR4 and DR5 under CR4.DE, and any DRn under DR7.GD, exit instead of raising #UD and #DB in the guest',
    stages: Object.fromEntries(DEBUG_ACCESSES.map((name) => [name, 'after-cpl'] as const)),
    witnesses: [
      qemu('DRn_READ', 'target/i386/tcg/translate.c, disas_insn; bpt_helper.c, helper_get_dr'),
      qemu('DRn_WRITE', 'target/i386/tcg/translate.c, disas_insn; bpt_helper.c, helper_set_dr'),
    ],
  },
  'vmcb-address-after-intercept': {
    differs: 'the intercepts of VMRUN, VMLOAD and VMSAVE stand before the check of the address in rAX',
    manual: FIRST,
    effect: 'an address that is not aligned, or beyond the physical width, exits instead of raising #GP in the guest',
    stages: { VMRUN: 'before-operands', VMLOAD: 'before-operands', VMSAVE: 'before-operands' },
    witnesses: [
      bochs('B-13', 'cpu/svm.cc, VMRUN, VMLOAD, VMSAVE'),
      qemu('Q-11', 'target/i386/tcg/sysemu/svm_helper.c, helper_vmrun; ended by d09c79010ffd', { before: '9.0' }),
    ],
  },
  'rsm-outside-smm-first': {
    differs: 'the intercept of RSM stands behind the #UD that it raises outside system-management mode',
    manual: 'it comes before any exception (§15.9 Instruction Intercepts, table 15-7)',
    effect: 'RSM raises #UD in the guest instead of exiting',
    stages: { RSM: 'after-privilege' },
    witnesses: [bochs('B-17', 'cpu/smm.cc, RSM')],
  },
  'rdpmc-before-counter': {
    differs: 'the intercept of RDPMC stands before the check of the counter in ECX',
    manual: FIRST,
    effect: 'a counter that there is not exits instead of raising #GP in the guest',
    stages: { RDPMC: 'before-operands' },
    witnesses: [
      bochs('RDPMC', 'cpu/proc_ctrl.cc, RDPMC'),
      qemu('RDPMC', 'target/i386/tcg/sysemu/misc_helper.c, helper_rdpmc'),
    ],
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
  'mwait-armed-ignored': {
    differs: 'the conditional intercept of MWAIT is not looked at',
    manual: 'it exits while the monitor is armed (§15.9 Instruction Intercepts, table 15-7)',
    effect: 'MWAIT of L2 waits',
    never: ['MWAIT_ARMED'],
    witnesses: [qemu('Q-12', 'target/i386/tcg/sysemu/misc_helper.c, helper_mwait')],
  },
  'cr0-selective-ignored': {
    differs: 'the selective intercept of CR0 writes is not looked at',
    manual: 'writes that change more than TS and MP exit (§15.9 Instruction Intercepts, table 15-7)',
    effect: 'L1 that asks for nothing else misses that L2 turns paging or caches off',
    never: ['CR0_SEL_WRITE'],
    witnesses: [xen('X-19', 'xen/arch/x86/hvm/svm/nestedsvm.c, nsvm_vmcb_guest_intercepts_exitcode; by reading')],
  },
  'ioio-every-byte': {
    differs: 'an access to several ports exits only when the bits of all its bytes are set in the I/O permission map',
    manual: 'any set bit is enough (§15.10.2 IN and OUT Behavior)',
    effect: 'IN EAX across the border of a denied and an allowed port does not exit',
    witnesses: [xen('X-01', 'xen/arch/x86/hvm/svm/nestedsvm.c, nsvm_vmcb_guest_intercepts_ioio')],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

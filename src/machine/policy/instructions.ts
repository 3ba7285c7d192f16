/**
 * Deviations of single instructions and MSRs: who may execute them, what they do past their intercept, and what their
 * #VMEXIT tells.
 * Source of the rule: APM vol.2 §15.4 Enabling SVM, §15.8 Decode Assists, §15.9 Instruction Intercepts, §15.10.3 (I)OIO
 * Intercept Information, §15.14.4 Pause Intercept Filtering, §15.30 SVM Related MSRs; APM vol.3 §4.
 */
import { apm, bochs, type Deviation, kvm, qemu, xen } from './deviation.js';

const PAUSE_FILTER =
  'each PAUSE takes one off the count, and the one that takes it below zero exits (§15.9, table 15-7)';
const DECODE_ASSISTS =
  'it names the general-purpose register, and bit 63 is set for MOV (§15.8.1 MOV CRx/DRx Intercepts)';
const SVME = '#UD unless EFER.SVME is set (APM vol.3 §4; §15.4 Enabling SVM)';
const VM_CR = 'LOCK freezes LOCK and SVMDIS; setting SVMDIS while EFER.SVME is set is #GP (§15.30.1 VM_CR MSR)';

const SVM_INSTRUCTIONS = {
  'svm-needs-paging': {
    differs: 'VMRUN, VMLOAD, VMSAVE, STGI and CLGI raise #UD while paging is off',
    manual: 'protected mode is enough (APM vol.3 §4; §15.4 Enabling SVM)',
    effect: 'L1 cannot run guests before it has turned paging on',
    witnesses: [kvm('K-01', 'nested.c, nested_svm_check_permissions')],
  },
  'vmrun-needs-save-area': {
    differs: 'VMRUN raises #GP while VM_HSAVE_PA is zero',
    manual: 'VM_HSAVE_PA must hold an address before the first VMRUN (§15.30.4 VM_HSAVE_PA MSR); zero is one',
    effect: 'L1 that never wrote the MSR cannot run guests',
    witnesses: [kvm('K-02', 'nested.c, nested_svm_vmrun; since fb79f566e4c9', { since: '5.14' })],
  },
  'vmrun-refused-in-smm': {
    differs: 'VMRUN raises #UD in system-management mode',
    manual: 'undefined (§15.22 SMM Support)',
    effect: 'a handler of SMIs cannot run guests',
    witnesses: [kvm('K-02', 'nested.c, nested_svm_vmrun; since 7c67f54661fc', { since: '5.8' })],
  },
  'vmcb-address-by-high-bits': {
    differs:
      'VMRUN, VMLOAD and VMSAVE look at bits 63:48 of rAX before EFER.SVME, and at the rest of it behind the intercept',
    manual: '#UD comes first; then an address that is not aligned or beyond the physical width is #GP (APM vol.3 §4)',
    effect: '#GP instead of #UD without SVME; in a guest an exit instead of #GP',
    witnesses: [kvm('K-26', 'emulate.c, check_svme_pa', { emulatedOnly: true })],
  },
  'svm-fault-exits': {
    differs: "where a guest's VMRUN, VMLOAD or VMSAVE would raise #GP, with rAX aligned, it exits with its own code",
    manual: '#GP in the guest, whatever is intercepted (§15.9 Instruction Intercepts, table 15-7)',
    effect: 'L1 gets exits that it did not ask for: at privilege level 3, and for addresses beyond the physical width',
    witnesses: [
      kvm('K-03', 'svm.c, gp_interception and emulate_svm_instr; later ones test CPL and the address', {
        since: '5.12',
      }),
    ],
  },
  'vmload-exits-outside-long-mode': {
    differs: 'VMLOAD and VMSAVE of a guest exit when nested paging is off or the guest is not in long mode',
    manual: 'that is so for guests with virtualized VMLOAD and VMSAVE only (§15.33.1 VMSAVE and VMLOAD Virtualization)',
    effect: 'L1 gets exits that it did not ask for',
    witnesses: [qemu('Q-05', 'target/i386/tcg/sysemu/svm_helper.c, virtual_vm_load_save_enabled', { since: '6.2' })],
  },
  'invlpga-without-svme': {
    differs: 'INVLPGA does not need EFER.SVME',
    manual: SVME,
    effect: 'it drops translations instead of raising #UD',
    witnesses: [kvm('K-12', 'svm.c, invlpga_interception; ended by d99df02ff427', { before: '7.1' })],
  },
  'stgi-without-svme': {
    differs: 'STGI does not need EFER.SVME, though CPUID reports no SVM-Lock',
    manual: SVME,
    effect: 'it sets GIF instead of raising #UD',
    witnesses: [xen('X-15', 'xen/arch/x86/hvm/svm/nestedsvm.c, svm_vmexit_do_stgi')],
  },
  'vmmcall-always-exits': {
    differs: 'VMMCALL of a guest exits whether it is intercepted or not',
    manual: '#UD unless it is intercepted (APM vol.3 §4, VMMCALL)',
    effect: 'L1 gets #VMEXIT(VMMCALL) that it did not ask for',
    witnesses: [xen('X-03', 'xen/arch/x86/hvm/svm/nestedsvm.c, nestedsvm_check_intercepts')],
  },
  'vmmcall-repeats': {
    differs: 'VMMCALL of a guest that is not intercepted begins anew for ever',
    manual: '#UD unless it is intercepted (APM vol.3 §4, VMMCALL)',
    effect: 'L2 hangs; only interrupts get through',
    witnesses: [
      kvm('K-13', 'the emulator puts the same instruction in its place; ended by c36991c6f8d2 and 33d3617a52f9', {
        before: '7.1',
      }),
    ],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

const CONTROL_REGISTERS = {
  'cr-read-without-mov-bit': {
    differs: 'EXITINFO1 of a MOV from CRn has bit 63 clear',
    manual: DECODE_ASSISTS,
    effect: 'L1 takes it for SMSW, and decodes the instruction itself',
    witnesses: [
      bochs('B-04', 'cpu/crregs.cc, MOV_RqCR0 and its like'),
      bochs('D-05', 'cpu/crregs.cc, MOV_RqCR0 and its like'),
    ],
  },
  'cr8-read-without-info': {
    differs: 'EXITINFO1 of a MOV from CR8 is zero',
    manual: DECODE_ASSISTS,
    effect: 'L1 does not learn the register',
    witnesses: [bochs('B-04', 'cpu/crregs.cc, ReadCR8')],
  },
  'lmsw-selective-by-value': {
    differs: 'the selective intercept of CR0 writes goes by the bits that LMSW changes, and stands behind its operand',
    manual: 'LMSW always exits, before its operand is read (§15.9 Instruction Intercepts, table 15-7)',
    effect: 'LMSW that changes TS and MP only is not seen by L1',
    witnesses: [
      kvm('K-04', 'svm.c, svm_check_intercept', { emulatedOnly: true }),
      bochs('B-18', 'cpu/crregs.cc, LMSW_Ew and SetCR0'),
      qemu('CR0_SEL_WRITE', 'target/i386/tcg/sysemu/misc_helper.c, helper_write_crN'),
    ],
  },
  'cr0-selective-first': {
    differs: 'of the two intercepts of CR0 writes the selective one wins',
    manual: 'the other wins (§15.9 Instruction Intercepts, table 15-7)',
    effect: '#VMEXIT 65h instead of 10h when L1 asks for both',
    witnesses: [kvm('K-04', 'svm.c, svm_check_intercept', { emulatedOnly: true })],
  },
  'cr-value-exits-invalid': {
    differs: 'MOV to CR3 and CR4 of a guest with a reserved bit set is #VMEXIT(INVALID)',
    manual: '#GP in the guest (APM vol.3 §4, MOV CRn)',
    effect: 'L1 gets an exit that means that VMRUN failed',
    witnesses: [qemu('Q-02', 'target/i386/tcg/sysemu/misc_helper.c, helper_write_crN')],
  },
  'svme-cleared-by-guest-shuts-down': {
    differs: 'L2 that clears EFER.SVME shuts L1 down',
    manual: 'undefined (§15.4 Enabling SVM)',
    effect: 'the machine is at its end',
    witnesses: [kvm('K-14', 'svm.c, svm_set_efer; since cdc69269b18a', { since: '7.1' })],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

const OTHER_INSTRUCTIONS = {
  'ioio-without-segment': {
    differs: 'EXITINFO1 of OUTS has no segment',
    manual: 'SEG names the segment register (§15.10.3 (I)OIO Intercept Information)',
    effect: 'L1 reads the operand from ES',
    witnesses: [
      bochs('B-20', 'cpu/svm.cc, SvmInterceptIO'),
      kvm('K-23', 'svm.c, svm_check_intercept', { emulatedOnly: true }),
    ],
  },
  'invpcid-without-info': {
    differs: 'EXITINFO1 and EXITINFO2 of INVPCID are zero',
    manual: 'the address of the descriptor and the kind of invalidation (§15.9, table 15-7)',
    effect: 'L1 decodes the instruction itself',
    witnesses: [bochs('B-20', 'cpu/vmx.cc, INVPCID')],
  },
  'invlpga-reports-address': {
    differs: 'EXITINFO1 of INVLPGA is the linear address',
    manual: 'undefined; zero here (§15.8 Decode Assists names INVLPG only)',
    effect: 'L1 finds the address there',
    witnesses: [bochs('B-03', 'cpu/svm.cc, INVLPGA')],
  },
  'monitor-without-access': {
    differs: 'MONITOR does not touch memory',
    manual: 'it faults as a read of one byte does, before it is intercepted (§15.9, table 15-7; APM vol.3, MONITOR)',
    effect: 'an address that is not there exits, or does nothing, instead of raising #PF',
    witnesses: [qemu('Q-13', 'target/i386/tcg/sysemu/misc_helper.c, helper_monitor')],
  },
  'pause-filter-reaches-zero': {
    differs: 'the PAUSE that takes the count of the filter to zero exits',
    manual: PAUSE_FILTER,
    effect: 'one PAUSE fewer passes',
    witnesses: [apm('D-01', '§15.14.4 Pause Intercept Filtering, first paragraph')],
  },
  'pause-filter-merged': {
    differs: 'the count of the PAUSE filter is 4000 at most, and its threshold is not looked at',
    manual: PAUSE_FILTER,
    effect: 'PAUSEs that are far apart are counted; more than 4000 exit whatever L1 asks for',
    witnesses: [xen('X-13', 'xen/arch/x86/hvm/svm/nestedsvm.c, nsvm_vmcb_prepare4vmrun; vmcb.c, construct_vmcb')],
  },
  'pause-threshold-always': {
    differs: 'a threshold of zero is one: any two PAUSEs are farther apart, and reload the count',
    manual: 'zero means that there is no threshold (§15.14.4 Pause Intercept Filtering)',
    effect: 'PAUSE never exits',
    witnesses: [bochs('B-09', 'cpu/svm.cc, SvmInterceptPAUSE')],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

const MSRS = {
  'vm-cr-svmdis-locks': {
    differs: 'SVMDIS freezes LOCK and SVMDIS, LOCK does not; a write that sets SVMDIS under EFER.SVME is #GP and done',
    manual: VM_CR,
    effect: 'sequences of writes leave other values',
    witnesses: [kvm('K-22', 'svm.c, svm_set_vm_cr')],
  },
  'svmdis-allows-svme': {
    differs: 'EFER.SVME can be set while VM_CR.SVMDIS is',
    manual: 'EFER.SVME must be zero then (§15.30.1 VM_CR MSR)',
    effect: 'no #GP',
    witnesses: [kvm('K-22', 'x86.c, __kvm_valid_efer')],
  },
  'vm-cr-tests-old-svmdis': {
    differs: 'a write of VM_CR under EFER.SVME is #GP when SVMDIS was set before, not when it is being set',
    manual: VM_CR,
    effect: 'L1 can disable SVM while it uses it',
    witnesses: [bochs('B-10', 'cpu/svm.cc, Svm_Update_VM_CR_MSR')],
  },
  'vm-cr-inert': {
    differs: 'VM_CR reads as zero, and drops what is written',
    manual: VM_CR,
    effect: 'SVMDIS, LOCK and R_INIT cannot be set',
    witnesses: [xen('X-16', 'xen/arch/x86/hvm/svm/svm.c, svm_msr_read_intercept, svm_msr_write_intercept')],
  },
  'save-area-limited': {
    differs: 'VM_HSAVE_PA takes addresses up to FD_0000_0000h, whatever the physical width',
    manual: 'an address beyond the physical width is #GP (§15.30.4 VM_HSAVE_PA MSR)',
    effect: 'other values are #GP',
    witnesses: [xen('X-16', 'xen/arch/x86/hvm/svm/svm.c, svm_msr_write_intercept')],
  },
  'sysenter-32-bits': {
    differs: 'WRMSR keeps the low 32 bits of SYSENTER_ESP and SYSENTER_EIP',
    manual: 'the registers have 64 bits (§6.1.2 SYSENTER and SYSEXIT)',
    effect: 'the high half reads as zero',
    witnesses: [kvm('K-31', 'svm.c, svm_set_msr', { emulatedOnly: true, since: '5.13' })],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

export const INSTRUCTION_DEVIATIONS = {
  ...SVM_INSTRUCTIONS,
  ...CONTROL_REGISTERS,
  ...OTHER_INSTRUCTIONS,
  ...MSRS,
} as const;

/**
 * Deviations of VMRUN: which checks are left out or added, and what is taken from the VMCB.
 * Source of the rule: APM vol.2 §15.5.1 Basic Operation, §15.10 IOIO Intercepts, §15.11 MSR Intercepts, §15.15 VMCB State
 * Caching, §15.16.1 TLB Flush, §15.20 Event Injection, §15.21 Interrupt and Local APIC Support, §15.25.3 Enabling Nested
 * Paging.
 */
import { apm, bochs, type Deviation, kvm, qemu, xen } from './deviation.js';

const CHECKS = '§15.5.1 Basic Operation, Canonicalization and Consistency Checks';
const NO_INVALID = 'no #VMEXIT(INVALID)';

export const ENTRY = {
  'asid-zero-allowed': {
    differs: 'a guest may have ASID 0',
    manual: `VMRUN refuses it (${CHECKS})`,
    effect: NO_INVALID,
    witnesses: [xen('X-09', 'svmdebug.c, svm_vmcb_isvalid')],
  },
  'permission-maps-unchecked': {
    differs: 'the permission maps may lie anywhere',
    manual:
      'their last byte lies below the highest physical address (§15.10.1 I/O Permissions Map, §15.11 MSR Intercepts)',
    effect: NO_INVALID,
    witnesses: [xen('X-09', 'svmdebug.c, svm_vmcb_isvalid; for the I/O map ended by 8c36d5a500')],
  },
  'permission-map-ends-unchecked': {
    differs: 'of the permission maps only the base is compared with the highest physical address',
    manual: 'their last byte counts (§15.10.1 I/O Permissions Map, §15.11 MSR Intercepts)',
    effect: 'no #VMEXIT(INVALID) for a map that begins in the last page',
    witnesses: [bochs('B-14', 'svm.cc, SvmEnterLoadCheckControls')],
  },
  'msrpm-up-to-the-top': {
    differs: 'the MSR permission map may end with the physical address space',
    manual: 'its last byte is not at the highest physical address or above (§15.11 MSR Intercepts)',
    effect: 'no #VMEXIT(INVALID) for a map in the last two pages',
    witnesses: [kvm('D-02', 'nested.c, nested_svm_check_bitmap_pa')],
  },
  'n-cr3-unchecked': {
    differs: 'N_CR3 may have MBZ bits set',
    manual: `VMRUN refuses it (${CHECKS}; §15.25.3 Enabling Nested Paging)`,
    effect: 'the first nested walk meets with what lies there',
    witnesses: [
      kvm('K-07', 'nested.c, nested_vmcb_check_controls; ended by b71138fcc362', { before: '7.1' }),
      xen('X-09', 'svmdebug.c, svm_vmcb_isvalid'),
    ],
  },
  'nested-paging-on-unpaged-host': {
    differs: 'a host without paging may turn nested paging on',
    manual: 'VMRUN refuses it (§15.25.3 Enabling Nested Paging)',
    effect: 'the nested tables have the format that CR4 and EFER of the host say',
    witnesses: [
      xen('X-09', 'svmdebug.c, svm_vmcb_isvalid'),
      qemu('X-09', 'target/i386/tcg/sysemu/svm_helper.c, helper_vmrun'),
    ],
  },
  'absent-nested-paging-refused': {
    differs: 'VMRUN refuses NP_ENABLE where CPUID reports no nested paging',
    manual: 'the bit is ignored there: no check names it (§15.25.3 Enabling Nested Paging)',
    effect: '#VMEXIT(INVALID)',
    witnesses: [kvm('K-08', 'nested.c, nested_vmcb_check_controls; ended by e0b6f031d64c', { before: '7.1' })],
  },
  'cs-long-and-big-allowed': {
    differs: 'a guest in long mode may have both CS.L and CS.D set',
    manual: `VMRUN refuses it (${CHECKS})`,
    effect: NO_INVALID,
    witnesses: [kvm('K-06', 'nested.c, nested_vmcb_check_save; ended by 96bd3e76a171', { before: '7.1' })],
  },
  'cr3-checked-by-host-mode': {
    differs: 'MBZ bits of CR3 are looked at when the host is in long mode, whatever the guest is in',
    manual: `those of a guest in long mode are (${CHECKS})`,
    effect: 'a guest without paging is refused for bits of CR3 that mean nothing to it',
    witnesses: [qemu('Q-14', 'target/i386/tcg/sysemu/svm_helper.c, helper_vmrun')],
  },
  'tlb-control-by-asid-refused': {
    differs: 'VMRUN refuses every TLB_CONTROL but 0 and 1',
    manual: '3 and 7 drop the translations of the guest (§15.16.1 TLB Flush, table 15-9)',
    effect: '#VMEXIT(INVALID)',
    witnesses: [
      kvm('K-20', 'nested.c, nested_svm_check_tlb_ctl; 174a921b6975, taken back by a484755ab252', {
        since: '5.16',
        before: '6.7',
      }),
    ],
  },
  'unbacked-msrpm-refused': {
    differs: 'VMRUN refuses an MSR permission map that no memory answers for',
    manual: 'its address is compared with the highest physical address, nothing else (§15.11 MSR Intercepts)',
    effect: '#VMEXIT(INVALID); here such a map reads as all ones otherwise',
    witnesses: [kvm('K-33', 'nested.c, nested_svm_merge_msrpm')],
  },
  'unbacked-msrpm-undefined-opcode': {
    differs: 'VMRUN raises #UD for an MSR permission map that no memory answers for',
    manual: 'its address is compared with the highest physical address, nothing else (§15.11 MSR Intercepts)',
    effect: '#UD instead of a guest',
    witnesses: [xen('X-10', 'nestedsvm.c, nsvm_vmrun_permissionmap and nsvm_vcpu_vmrun')],
  },
  'reserved-exceptions-injected': {
    differs: 'EVENTINJ may have any exception vector below 31 but 2, in every mode',
    manual: 'a vector that is no exception, or none of the mode, makes VMRUN fail (§15.20 Event Injection)',
    effect: 'the guest gets an exception 9, 15 or 20, or #BR in 64-bit mode',
    witnesses: [
      qemu('Q-07', 'target/i386/tcg/sysemu/svm_helper.c, helper_vmrun'),
      bochs('Q-07', 'svm.cc, SvmInjectEvents'),
    ],
  },
  'clean-bits-ignored': {
    differs: 'every VMRUN loads the whole VMCB, whatever its clean bits say',
    manual: 'a field whose clean bit is set may come from the cache (§15.15.1 VMCB Clean Bits)',
    effect: 'a field that was changed under a set clean bit counts',
    witnesses: [
      bochs('B-19', 'svm.cc, SvmEnterLoadCheckControls'),
      qemu('B-19', 'target/i386/tcg/sysemu/svm_helper.c, helper_vmrun'),
    ],
  },
  'stale-intercepts-narrowed': {
    differs: 'under a set clean bit an intercept is in force when the cache and memory both have it',
    manual: 'the cached intercepts are (§15.15.1 VMCB Clean Bits)',
    effect: 'a hypervisor that takes intercepts back under a set clean bit is obeyed, one that adds some is not',
    witnesses: [xen('X-07', 'nestedsvm.c, nsvm_vmcb_prepare4vmrun: the merge takes memory, the routing its copy')],
  },
  'pause-threshold-uncached': {
    differs: "the PAUSE filter's threshold is in no group of clean bits",
    manual:
      'its count is in group 0; of the threshold nothing is said, and here it goes with the count (figure 15-4, §15.15)',
    effect: 'a threshold that was changed under a set clean bit counts',
    witnesses: [apm('D-03', 'figure 15-4, read to the letter')],
  },
  'msr-prot-not-turned-on': {
    differs: 'MSR_PROT stays off for good on a processor whose first guest ran without it',
    manual: 'each VMRUN loads the intercepts and the map (§15.5.1 Basic Operation, Control Bits)',
    effect: 'RDMSR and WRMSR of L2 do not exit although its VMCB asks for it',
    witnesses: [
      kvm('K-36', 'nested.c, nested_vmcb02_prepare_control; ended by 93c9e107386d', { since: '5.13', before: '6.19' }),
    ],
  },
  'virtual-gif-and-nmi-ignored': {
    differs: 'V_GIF_ENABLE and V_NMI_ENABLE are not looked at',
    manual: 'the guest has a virtual GIF and virtual NMIs (§15.33.2 Virtual GIF, §15.21.10 NMI Virtualization)',
    effect: 'STGI and CLGI of L2 change the real GIF, and its virtual NMIs never come',
    witnesses: [bochs('B-15', 'svm.cc, SvmEnterLoadCheckControls', { unreported: true })],
  },
  'cr8-always-virtual': {
    differs: 'CR8 of a guest is V_TPR, whether or not its VMCB has V_INTR_MASKING',
    manual: 'without V_INTR_MASKING it is the TPR of the local APIC (§15.21.2 Virtualizing APIC.TPR)',
    effect: 'MOV to CR8 in L2 does not reach the TPR of L1',
    witnesses: [xen('X-08', 'nestedsvm.c, nsvm_vmcb_prepare4vmrun: V_INTR_MASKING is forced on')],
  },
  'vmload-virtualized-unasked': {
    differs: 'VMLOAD and VMSAVE of a guest are virtualized whether or not its VMCB asks for it',
    manual: 'bit 1 of the field at 0B8h turns that on (§15.33.1 VMSAVE and VMLOAD Virtualization)',
    effect: 'where they are not intercepted, rAX is an address of L2 and not of L1',
    witnesses: [xen('X-08', 'nestedsvm.c, nsvm_vmcb_prepare4vmrun: an OR with its own field')],
  },
  'lbr-virtualization-ignored': {
    differs: 'the branch record is not exchanged at VMRUN and #VMEXIT',
    manual: 'bit 0 of the field at 0B8h has it exchanged (§15.23.1 Hardware Acceleration for LBR Virtualization)',
    effect: 'L1 finds the branches of L2 in its own record',
    witnesses: [
      bochs('B-19', 'svm.cc, VMRUN'),
      qemu('B-19', 'target/i386/tcg/sysemu/svm_helper.c, helper_vmrun', { unreported: true }),
    ],
  },
  'bases-not-canonical': {
    differs: 'bases are loaded as the VMCB has them',
    manual: 'they are made canonical (§15.5.1 Basic Operation; §15.5.2 VMSAVE and VMLOAD Instructions)',
    effect: 'GDTR, IDTR, FS, GS, LDTR, TR and KernelGSbase keep a base that is not canonical, and VMSAVE shows it',
    witnesses: [
      qemu('Q-06', 'target/i386/tcg/sysemu/svm_helper.c, before it had svm_canonicalization', { before: '6.2' }),
    ],
  },
  'exit-info-2-cleared-at-vmrun': {
    differs: 'VMRUN writes zero to EXITINFO2',
    manual: 'VMRUN writes to no field of the VMCB (§15.5.1 Basic Operation)',
    effect: 'a guest that can read its VMCB finds zero there',
    witnesses: [qemu('Q-14', 'target/i386/tcg/sysemu/svm_helper.c, helper_vmrun')],
  },
  'tsc-ratio-without-effect': {
    differs: 'TSC_RATIO is stored and scales nothing',
    manual: 'it scales the time-stamp counter of guests (§15.30.5 TSC Ratio MSR)',
    effect: 'RDTSC of L2 counts as fast as that of L1',
    witnesses: [
      xen('X-17', 'nestedsvm.c, nsvm_vmcb_prepare4vmrun; the MSR is gone with 0cd50753eb', {
        before: '4.19',
        unreported: true,
      }),
    ],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

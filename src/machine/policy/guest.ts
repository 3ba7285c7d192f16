/**
 * Deviations while a guest runs: nested paging, its PAT, and where the permission maps lie.
 * Source of the rule: APM vol.2 §15.10 IOIO Intercepts, §15.11 MSR Intercepts, §15.25 Nested Paging.
 */
import { bochs, type Deviation, kvm, qemu, xen } from './deviation.js';

export const GUEST = {
  'guest-pat-shared': {
    differs: 'a guest under nested paging has the PAT of L1; G_PAT is neither checked, loaded nor stored',
    manual: 'it has its own (§15.25.4 Nested Paging and VMRUN/#VMEXIT; §15.25.8 Combining Memory Types, MTRRs)',
    effect: 'RDMSR and WRMSR of the PAT in L2 reach that of L1',
    witnesses: [
      kvm('K-15', 'nested.c, nested_vmcb02_compute_g_pat; under KVM_X86_QUIRK_NESTED_SVM_SHARED_PAT, which is on'),
    ],
  },
  'npf-fetch-always': {
    differs: 'EXITINFO1 of a #VMEXIT(NPF) tells fetches apart whatever the host pages with',
    manual: 'its bit 4 is set only where the host has EFER.NXE or CR4.SMEP (§15.25.6 Nested versus Guest Page Faults)',
    effect: 'bit 4 of EXITINFO1',
    witnesses: [bochs('B-08', 'paging.cc, nested_page_fault')],
  },
  'npf-never-present': {
    differs: "EXITINFO1 of a #VMEXIT(NPF) is that of a first touch: nothing is present in the program's own tables",
    manual: 'P and RSV tell of the tables of the hypervisor (§15.25.6 Nested versus Guest Page Faults)',
    effect: 'bits 0 and 3 of EXITINFO1 are clear; a write to a read-only page looks like one to an absent page',
    witnesses: [
      xen('X-05', 'svm.c, svm_do_nested_pgfault: the error code of its shadow of the tables, filled on demand'),
    ],
  },
  'string-io-npf-final': {
    differs: 'a #VMEXIT(NPF) of INS or OUTS always says that the final translation faulted',
    manual:
      'bits 33:32 of EXITINFO1 tell that from the walk of the guest tables (§15.25.6 Nested versus Guest Page Faults)',
    effect: 'bit 32 in place of bit 33',
    witnesses: [
      kvm('K-16', 'nested.c, nested_svm_inject_npf_exit: on the way of emulated instructions; newer code tracks it'),
    ],
  },
  'permission-map-base-unaligned': {
    differs: 'bits 11:0 of the addresses of the permission maps count',
    manual: 'they are ignored (§15.10.1 I/O Permissions Map; §15.11 MSR Intercepts)',
    effect: 'the bits are looked for so many bytes behind the page',
    witnesses: [qemu('Q-04', 'target/i386/tcg/sysemu/svm_helper.c, helper_svm_check_io')],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

/**
 * Deviations of #VMEXIT: what is stored in the VMCB, what the host gets back, and how a VMRUN that failed ends.
 * Source of the rule: APM vol.2 §15.6 #VMEXIT, §15.7 Intercept Operation, §15.8 Decode Assists, §15.20 Event Injection.
 */
import { apm, bochs, type Deviation, kvm, qemu, xen } from './deviation.js';

const HELPER = 'target/i386/tcg/sysemu/svm_helper.c';

export const EXIT = {
  'failed-vmrun-keeps-event': {
    differs: 'EVENTINJ stays valid when VMRUN fails',
    manual: 'every #VMEXIT clears it (§15.6 #VMEXIT; §15.20 Event Injection)',
    effect: 'the next VMRUN injects the event again',
    witnesses: [
      kvm('K-09', 'nested.c, nested_svm_vmrun; since 2d8a42be0e2b, ended by 69b721a86d0d', {
        since: '5.8',
        before: '7.1',
      }),
    ],
  },
  'failed-vmrun-keeps-gif': {
    differs: 'GIF stays as it was when VMRUN fails',
    manual: 'every #VMEXIT clears it (§15.6 #VMEXIT)',
    effect: 'L1 takes interrupts right behind a VMRUN that failed',
    witnesses: [
      kvm('K-10', 'nested.c, nested_svm_vmrun; ended by f85a6ce06e4a', { before: '7.1' }),
      xen('K-10', 'nestedsvm.c, nsvm_vcpu_switch; ended by 5fa2c5849f', { before: '4.22' }),
    ],
  },
  'invalid-exit-code-32-bit': {
    differs: 'EXITCODE of a VMRUN that fails is FFFF_FFFFh',
    manual: 'it is -1, of 64 bits (appendix C, table C-1)',
    effect: 'a hypervisor that compares 64 bits does not know #VMEXIT(INVALID)',
    witnesses: [
      kvm('K-18', 'nested.c, nested_svm_vmrun; ended in 6.19, in the stable series by 63354ea9585f', {
        before: '6.19',
      }),
      qemu('K-18', `${HELPER}, cpu_vmexit: the code is of 32 bits without sign`),
    ],
  },
  'next-rip-always': {
    differs: 'nRIP is stored on every exit',
    manual: 'it is zero but for instructions and the exceptions that are like them (§15.7.1 State Saved on Exit)',
    effect: '#VMEXIT(INTR) and #VMEXIT(NPF) leave an address at 0C8h',
    witnesses: [bochs('B-01', 'svm.cc, Svm_Vmexit')],
  },
  'next-rip-unused': {
    differs: 'the field nRIP is neither written nor read',
    manual: '#VMEXIT stores it and event injection takes it (§15.7.1 State Saved on Exit; §15.20 Event Injection)',
    effect: '0C8h stays as it was, and injected software interrupts return to RIP',
    witnesses: [qemu('Q-03', `${HELPER}, do_vmexit`, { unreported: true })],
  },
  'decode-assists-unused': {
    differs: 'no exit has decode assists',
    manual: 'EXITINFO1 and the field at 0D0h tell of the instruction (§15.8 Decode Assists)',
    effect: 'EXITINFO1 of MOV CRn, INVLPG and INTn is zero, and the bytes at 0D0h stay as they were',
    witnesses: [qemu('Q-03', `${HELPER}, do_vmexit`, { unreported: true })],
  },
  'instruction-bytes-omitted': {
    differs: 'data faults store no guest instruction bytes',
    manual: 'an intercepted #PF and #VMEXIT(NPF) of a data access do (§15.8.4 Nested and Intercepted #PF)',
    effect: 'count and bytes at 0D0h are those of an earlier exit',
    witnesses: [bochs('B-02', 'svm.cc, Svm_Vmexit', { unreported: true })],
  },
  'event-injection-left-readable': {
    differs: '#VMEXIT clears V of EVENTINJ and leaves the rest',
    manual: 'the field is cleared (§15.6 #VMEXIT; §15.20 Event Injection)',
    effect: 'L1 reads vector, type and error code of what it injected',
    witnesses: [bochs('B-05', 'svm.cc, Svm_Vmexit')],
  },
  'double-fault-exit-forgets-event': {
    differs: 'an intercepted #DF leaves EXITINTINFO zero',
    manual: 'it tells the event whose delivery was cut short (§15.7.2 Intercepts During IDT Interrupt Delivery)',
    effect: 'L1 does not learn of the first fault',
    witnesses: [bochs('B-11', 'svm.cc, SvmInterceptException')],
  },
  'v-irq-byte-written': {
    differs: '#VMEXIT writes the whole byte of V_IRQ',
    manual: 'V_GIF, V_NMI and V_NMI_MASK stand in it as well, and are kept (appendix B, table B-1)',
    effect: 'bits 15:9 of the field at 060h read as zero',
    witnesses: [bochs('B-15', 'svm.cc, SvmExitSaveGuestState')],
  },
  'tlb-control-cleared': {
    differs: '#VMEXIT clears TLB_CONTROL',
    manual: 'the processor does not write it (§15.16.1 TLB Flush)',
    effect: 'a hypervisor that set it once finds zero',
    witnesses: [xen('X-04', 'nestedsvm.c, nsvm_vmcb_prepare4vmexit')],
  },
  'unused-n-cr3-cleared': {
    differs: '#VMEXIT of a guest without nested paging clears N_CR3',
    manual: 'the processor does not write it (§15.6 #VMEXIT)',
    effect: 'L1 finds its own field changed',
    witnesses: [xen('X-20', 'nestedsvm.c, nsvm_vmcb_prepare4vmexit')],
  },
  'lbr-clean-bit-cleared': {
    differs: '#VMEXIT of a guest with LBR virtualization clears bit 10 of the clean bits',
    manual: 'software alone writes them (§15.15.1 VMCB Clean Bits)',
    effect: 'L1 finds its own field changed',
    witnesses: [kvm('K-27', 'svm.c, svm_copy_lbrs; ended by b53ab5167a81', { since: '5.19', before: '7.1' })],
  },
  'page-fault-exit-writes-cr2': {
    differs: 'an intercepted #PF stores its address in CR2 of the VMCB',
    manual: 'CR2 is as before the fault (§15.12.15 #PF (Page Fault))',
    effect: 'L2 would find the address in CR2 though it never saw the fault',
    witnesses: [xen('X-18', 'nestedsvm.c, nsvm_vcpu_vmexit_inject')],
  },
  'ts-error-code-missing': {
    differs: 'EXITINFO1 of an intercepted #TS is zero',
    manual: 'it is undefined, other than that of its kin (§15.12.11 #TS (Invalid TSS)); here it has the error code',
    effect: 'L1 does not learn the selector',
    witnesses: [apm('D-04', '§15.12.11, read to the letter'), xen('X-18', 'nestedsvm.c, nsvm_vcpu_vmexit_inject')],
  },
  'host-dr7-kept': {
    differs: 'DR7 comes back as VMRUN found it',
    manual: '#VMEXIT disables all breakpoints (§15.6 #VMEXIT)',
    effect: 'breakpoints of L1 stay enabled behind VMRUN',
    witnesses: [qemu('Q-08', `${HELPER}, do_vmexit`, { before: '9.1' })],
  },
  'host-dr7-conditions-kept': {
    differs: 'DR7 comes back with its enables clear and the rest as VMRUN found it',
    manual: '#VMEXIT disables all breakpoints: DR7 is 400h (§15.6 #VMEXIT)',
    effect: 'MOV from DR7 reads conditions and lengths that L1 had set',
    witnesses: [qemu('Q-08', `${HELPER}, do_vmexit`, { since: '9.1' })],
  },
  'bad-host-pdptes-ignored': {
    differs: 'a host in PAE mode goes on with page-directory pointers that have reserved bits set',
    manual: 'the processor shuts down (§15.6 #VMEXIT)',
    effect: 'L1 runs on, with the pointers that the processor held before',
    witnesses: [kvm('K-11', 'nested.c, nested_svm_vmexit; ended by 5d291ef0585e', { before: '7.1' })],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

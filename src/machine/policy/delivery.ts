/**
 * Deviations at the boundary between two instructions: which interrupts are recognised while a guest runs, how an event
 * whose delivery an exit cut short is reported, and the debug traps around VMRUN and a clear GIF.
 * Source of the rule: APM vol.2 §15.5.1 Basic Operation, §15.7.2 Intercepts During IDT Interrupt Delivery, §15.13
 * Interrupt Intercepts, §15.17 Global Interrupt Flag, §15.21 Interrupt and Local APIC Support.
 */
import { bochs, type Deviation, kvm, qemu, xen } from './deviation.js';

const INTR = "under V_INTR_MASKING the host's IF at VMRUN gates INTR (§15.21.1 Physical (INTR) Interrupt Masking)";
const EXITINTINFO = 'the event with its own type (§15.7.2 Intercepts During IDT Interrupt Delivery)';
const STEP = 'the single-step trap is taken after VMRUN, which is after the #VMEXIT (§15.5.1 Basic Operation)';

export const DELIVERY = {
  'intr-mask-latched': {
    differs:
      "under V_INTR_MASKING the guest's IF lets INTR in; where it was never set since VMRUN, the host's IF does not",
    manual: INTR,
    effect: 'exits for interrupts that the host holds back; none for those that it lets in, before L2 executes STI',
    witnesses: [
      bochs(
        'B-06',
        'cpu/flag_ctrl_pro.cc, handleInterruptMaskChange; svm.cc, VMRUN sets in_svm_guest after EFLAGS; by reading',
      ),
    ],
  },
  'virq-mask-latched': {
    differs: 'what IF and V_TPR say of a virtual interrupt is looked at when IF changes and when CR8 is written only',
    manual: 'it is recognised while IF is set and its priority is above V_TPR (§15.21.4 Injecting Virtual Interrupts)',
    effect: 'one that L1 leaves in the VMCB of a guest with IF set waits; one that IF let in is taken above its V_TPR',
    witnesses: [
      bochs('B-06', 'cpu/flag_ctrl_pro.cc, handleInterruptMaskChange; svm.cc, Svm_Vmexit masks it; by reading'),
    ],
  },
  'intr-exits-whatever-if': {
    differs: "an intercepted INTR exits whatever the guest's IF and interrupt shadow say, without V_INTR_MASKING",
    manual: "the guest's IF gates it (§15.21.1 Physical (INTR) Interrupt Masking in EFLAGS)",
    effect: 'L1 gets #VMEXIT(INTR) of a guest that has interrupts off',
    witnesses: [xen('X-12', 'xen/arch/x86/hvm/svm/nestedsvm.c, nsvm_intr_blocked and nestedsvm_vcpu_interrupt')],
  },
  'nmi-waits-for-host-if': {
    differs: "under V_INTR_MASKING an NMI waits while the host's IF was clear at VMRUN",
    manual: 'no IF concerns NMIs (§15.13.2 NMI Intercept)',
    effect: '#VMEXIT(NMI) comes late',
    witnesses: [xen('NMI', 'xen/arch/x86/hvm/svm/nestedsvm.c, nsvm_intr_blocked')],
  },
  'exitintinfo-all-exceptions': {
    differs:
      'EXITINTINFO reports interrupts and NMIs as exceptions, INT3 and INTO as INT n; injected events are as asked',
    manual: EXITINTINFO,
    effect: 'L1 that injects the event again injects another one',
    witnesses: [qemu('Q-01', 'target/i386/tcg/seg_helper.c, handle_even_inj')],
  },
  'exitintinfo-keeps-last-event': {
    differs: 'EXITINTINFO of an exit outside of a delivery holds the last event, or EVENTINJ, with V clear',
    manual: 'zero (§15.7.2 Intercepts During IDT Interrupt Delivery)',
    effect: 'L1 that looks at the field without V takes it for an event',
    witnesses: [qemu('Q-01', 'target/i386/tcg/sysemu/svm_helper.c, do_vmexit')],
  },
  'vmrun-not-stepped': {
    differs: 'TF of the host does not trap after VMRUN',
    manual: STEP,
    effect: 'L1 that steps itself misses the trap behind the #VMEXIT',
    witnesses: [kvm('K-24', 'nested.c, nested_svm_vmexit; ended by 9a7de6ecc3ed', { before: '5.13' })],
  },
  'failed-vmrun-not-stepped': {
    differs: 'TF of the host does not trap after a VMRUN that failed',
    manual: STEP,
    effect: 'L1 that steps itself misses the trap behind #VMEXIT(INVALID)',
    witnesses: [kvm('K-24', 'svm.c, vmrun_interception, which moves RIP by itself', { before: '5.4' })],
  },
  'breakpoints-ignore-gif': {
    differs: 'matches of breakpoint registers are delivered while GIF is clear',
    manual: 'they are ignored and discarded (§15.17 Global Interrupt Flag, table 15-10)',
    effect: '#DB between #VMEXIT and STGI, on a processor that would discard it',
    witnesses: [kvm('K-35', 'Documentation/virt/kvm/x86/errata.rst')],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

/**
 * Deviations of VMRUN: which checks are left out or added, and what is loaded.
 * Source of the rule: APM vol.2 §15.5.1 Basic Operation, §15.20 Event Injection, §15.25.3 Enabling Nested Paging.
 */
import { type Deviation, kvm } from './deviation.js';

export const ENTRY = {
  'cs-long-and-big-allowed': {
    differs: 'a guest in long mode may have both CS.L and CS.D set',
    manual: 'VMRUN refuses it (§15.5.1 Basic Operation, Canonicalization and Consistency Checks)',
    effect: 'no #VMEXIT(INVALID)',
    witnesses: [kvm('K-06', 'nested.c, nested_vmcb_check_save; ended by 96bd3e76a171')],
  },
} as const satisfies Readonly<Record<string, Deviation>>;

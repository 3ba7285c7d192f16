/**
 * Which SVM features a hypervisor hands on to the hypervisors that run on it: for each bit of CPUID Fn8000_000A EDX
 * whether it wants the feature itself before it offers nested virtualization at all, and whether it offers it. The
 * processor that L1 then sees is computed from these tables and the processor below (`cpu/profiles.ts`).
 * Source: Xen, docs/designs/nested-svm-cpu-features.md, xen/arch/x86/cpu-policy.c; Linux, arch/x86/kvm/svm/svm.c, svm_set_cpu_caps.
 */
import type { SvmFeature } from '../cpu/cpuid.js';

export interface FeatureRule {
  readonly feature: SvmFeature;
  /** Nested virtualization is not offered without it. */
  readonly required: boolean;
  /** `host`: offered where the processor below has it. `always`: the hypervisor makes it up itself. */
  readonly offered: 'never' | 'host' | 'always';
  readonly reason: string;
}

export interface FeaturePolicy {
  readonly hypervisor: string;
  /** Features without a rule are neither required nor offered. */
  readonly rules: readonly FeatureRule[];
}

const rule = (
  feature: SvmFeature,
  required: boolean,
  offered: FeatureRule['offered'],
  reason: string,
): FeatureRule => ({
  feature,
  required,
  offered,
  reason,
});

/** As the design text has it. */
export const XEN_POLICY: FeaturePolicy = {
  hypervisor: 'xen',
  rules: [
    rule('np', true, 'host', 'shadow paging of nested guests is not worth having'),
    rule('lbr-virtualization', true, 'host', 'each branch record would have to be switched by hand'),
    rule('svm-lock', false, 'never', 'nobody uses it'),
    rule('nrips', true, 'host', 'software interrupts cannot be injected without'),
    rule('tsc-ratio', false, 'never', 'two ratios would have to be combined'),
    rule('vmcb-clean', false, 'always', 'a hint that may be ignored'),
    rule('flush-by-asid', true, 'host', 'cheap to pass on'),
    rule('decode-assists', true, 'host', 'decoding by hand is where mistakes are made'),
  ],
};

/** What the program does: it hands on the PAUSE filter, which the text does not name, and not FlushByAsid. */
const XEN_OFFERS: readonly FeatureRule[] = [
  rule('np', true, 'host', 'shadow paging of nested guests is not worth having'),
  rule('lbr-virtualization', true, 'host', 'each branch record would have to be switched by hand'),
  rule('nrips', true, 'host', 'software interrupts cannot be injected without'),
  rule('vmcb-clean', false, 'always', 'looked at where it saves copying'),
  rule('flush-by-asid', true, 'never', 'any TLB_CONTROL flushes'),
  rule('decode-assists', true, 'host', 'decoding by hand is where mistakes are made'),
  rule('pause-filter', false, 'host', 'the smaller one of two counts is used'),
];

/** Xen 4.17 and 4.18. */
export const XEN_4_17_POLICY: FeaturePolicy = {
  hypervisor: 'xen-4.17',
  rules: [
    ...XEN_OFFERS.map((each) => ({ ...each, required: false })),
    rule('tsc-ratio', false, 'always', 'emulated; taken back by 0cd50753eb'),
  ],
};

/** Since Xen 4.19 nested virtualization has requirements (0d19d3aab0). */
export const XEN_4_19_POLICY: FeaturePolicy = { hypervisor: 'xen-4.19', rules: XEN_OFFERS };

export const KVM_POLICY: FeaturePolicy = {
  hypervisor: 'kvm',
  rules: [
    rule('np', false, 'host', 'the nested tables are walked by software'),
    rule('lbr-virtualization', false, 'host', 'the branch record is switched with the VMCB'),
    rule('nrips', false, 'host', 'the field is copied'),
    rule('tsc-ratio', false, 'host', 'the two ratios are multiplied'),
    rule('vmcb-clean', false, 'always', 'ignored, which a hint allows'),
    rule('flush-by-asid', false, 'always', 'every nested transition flushes'),
    rule('pause-filter', false, 'host', "the guest's filter is used while it runs"),
    rule('pause-filter-threshold', false, 'host', 'the same'),
    rule('vmload-virtualization', false, 'host', 'the bit is handed on'),
    rule('vgif', false, 'host', 'the bits at 060h are handed on'),
    rule('vnmi', false, 'host', 'the bits at 060h are handed on'),
  ],
};

/** What L1 is offered on a processor with `host`; undefined when that lacks a required feature, and SVM is then hidden. */
export function offeredFeatures(
  { rules }: FeaturePolicy,
  host: ReadonlySet<SvmFeature>,
): ReadonlySet<SvmFeature> | undefined {
  if (rules.some(({ feature, required }) => required && !host.has(feature))) return undefined;
  return new Set(
    rules.flatMap(({ feature, offered }) =>
      offered === 'always' || (offered === 'host' && host.has(feature)) ? [feature] : [],
    ),
  );
}

/**
 * The CPU profiles that there are, and how one is named: `zen-2`, or `zen-2,-rdtscp,-np` for the same processor without
 * some of its features. `zen-2,-svm` is what it looks like with nested virtualization off: SVM is hidden altogether.
 *
 * A profile of a real processor reports of that processor's features those that this machine has, and its identity.
 * Source: APM vol.3 appendix E Obtaining Processor Information Via the CPUID Instruction, §E.4.9 Function 8000_000Ah—SVM
 * Features; Revision Guides of the families for what each reports.
 */
import type { Feature } from '../isa/instruction.js';
import {
  type FeaturePolicy,
  KVM_POLICY,
  offeredFeatures,
  XEN_4_17_POLICY,
  XEN_4_19_POLICY,
  XEN_POLICY,
} from '../svm/feature-policy.js';
import { BASE_PROFILE, type CpuProfile, type SvmFeature, type SystemFeature } from './cpuid.js';

/** Of what a processor has, what this machine can do as well. */
const amongBase = (...features: readonly Feature[]): ReadonlySet<Feature> =>
  new Set(features.filter((feature) => BASE_PROFILE.features.has(feature)));

/**
 * The system features of a processor of AMD: of the base, all but some, and but those of Intel's that only virtual
 * processors have under its name; and AMD's own local APIC registers, which hypervisors do not show their guests.
 */
const systemWithout = (...features: readonly SystemFeature[]): ReadonlySet<SystemFeature> => {
  const missing: readonly SystemFeature[] = ['tsc-deadline', 'tsc-adjust', ...features];
  return new Set([...[...BASE_PROFILE.system].filter((feature) => !missing.includes(feature)), 'extapic']);
};

const SSE3_TIMES: readonly Feature[] = ['mmx', 'sse', 'sse2', 'sse3', 'cx16', '3dnowprefetch', 'svm'];
const ZEN_2: readonly Feature[] = [
  ...SSE3_TIMES,
  ...([
    'rdtscp',
    'monitor',
    'popcnt',
    'abm',
    'lzcnt',
    'sse4a',
    'ssse3',
    'sse4.1',
    'sse4.2',
    'aes',
    'pclmulqdq',
  ] as const),
  ...(['crc32', 'movbe', 'bmi1', 'bmi2', 'adx', 'sha', 'rdrand', 'rdseed', 'smap', 'clflushopt', 'clwb'] as const),
  ...(['avx', 'fsgsbase', 'xsave', 'rdpid', 'rdpru', 'mwaitx', 'clzero', 'wbnoinvd'] as const),
];

/** Revision F of the eighth generation, the first with SVM: no nested paging, no nRIP, nothing to decode with. */
const K8_F: CpuProfile = {
  ...BASE_PROFILE,
  name: 'k8-f',
  brand: 'AMD Athlon 64 (revision F) as vmtape has it',
  family: 0x0f,
  model: 0x41,
  stepping: 2,
  features: amongBase(...SSE3_TIMES, 'rdtscp'),
  system: systemWithout('x2apic', 'page1gb', 'smep', 'umip', 'invariant-tsc', 'hw-pstate', 'osvw'),
  svm: new Set<SvmFeature>(),
  quirks: new Set(),
  asids: 64,
  patchLevel: 0,
  machineCheckBanks: 5,
};

const ZEN_2_SVM: readonly SvmFeature[] = [
  ...(['np', 'lbr-virtualization', 'svm-lock', 'nrips', 'tsc-ratio', 'vmcb-clean', 'flush-by-asid'] as const),
  ...(['decode-assists', 'pause-filter', 'pause-filter-threshold', 'avic', 'vmload-virtualization'] as const),
  ...(['vgif', 'gmet'] as const),
];

const ZEN_2_PROFILE: CpuProfile = {
  ...BASE_PROFILE,
  name: 'zen-2',
  brand: 'AMD EPYC 7002 as vmtape has it',
  family: 0x17,
  model: 0x31,
  stepping: 0,
  features: amongBase(...ZEN_2),
  system: systemWithout('x2apic'),
  svm: new Set(ZEN_2_SVM),
  asids: 0x8000,
  physicalAddressBits: 48,
  patchLevel: 0x0830_107a,
  machineCheckBanks: 23,
};

const ZEN_4_PROFILE: CpuProfile = {
  ...ZEN_2_PROFILE,
  name: 'zen-4',
  brand: 'AMD EPYC 9004 as vmtape has it',
  family: 0x19,
  model: 0x11,
  stepping: 1,
  features: amongBase(...ZEN_2, 'invpcid', 'invlpgb'),
  system: new Set<SystemFeature>([...systemWithout(), 'no-smm-ctl']),
  svm: new Set<SvmFeature>([...ZEN_2_SVM, 'tlbi-ctl', 'vnmi']),
  physicalAddressBits: 52,
  patchLevel: 0x0a10_113e,
  machineCheckBanks: 32,
};

/** The one profile with bus lock trap: software that writes zero to DR6 finds another value there afterwards. */
const ZEN_5_PROFILE: CpuProfile = {
  ...ZEN_4_PROFILE,
  name: 'zen-5',
  brand: 'AMD EPYC 9005 as vmtape has it',
  family: 0x1a,
  model: 2,
  stepping: 1,
  system: new Set<SystemFeature>([...ZEN_4_PROFILE.system, 'bus-lock-trap']),
  svm: new Set<SvmFeature>([...ZEN_4_PROFILE.svm, 'bus-lock-threshold', 'idle-hlt']),
  patchLevel: 0x0b00_2147,
};

/**
 * A processor without one of its features. Without SVM CPUID does not name it, EFER.SVME is reserved, and its MSRs,
 * instructions and features are not there.
 * @returns undefined when it has no feature of that name.
 */
function without(profile: CpuProfile, feature: string): CpuProfile | undefined {
  const rest = <Name extends string>(features: ReadonlySet<Name>): ReadonlySet<Name> =>
    new Set([...features].filter((name) => name !== feature));
  const features = rest(profile.features);
  const system = rest(profile.system);
  const svm = feature === 'svm' ? new Set<SvmFeature>() : rest(profile.svm);
  const fewer = features.size + system.size + svm.size < profile.features.size + profile.system.size + profile.svm.size;
  return fewer ? { ...profile, name: `${profile.name},-${feature}`, features, system, svm } : undefined;
}

/**
 * What L1 sees of `host` under a hypervisor that follows `policy`; without SVM where it offers no nesting. None hands on
 * INVLPGB, which names the processor's own address spaces, or the extended local APIC.
 */
export function nestedProfile(policy: FeaturePolicy, host: CpuProfile, asids: number): CpuProfile {
  const name = `${policy.hypervisor}-nested`;
  const shown = ['extapic', 'invlpgb'].reduce((profile, feature) => without(profile, feature) ?? profile, host);
  const svm = offeredFeatures(policy, host.svm);
  if (svm === undefined) return { ...(without(shown, 'svm') ?? shown), name };
  return { ...shown, name, brand: `${host.brand.replace(/ as vmtape.*/, '')} under ${policy.hypervisor}`, svm, asids };
}

/** KVM names eight ASIDs; Xen hands on the processor's number. */
const KVM_ASIDS = 8;

export const CPU_PROFILES: readonly CpuProfile[] = [
  BASE_PROFILE,
  K8_F,
  ZEN_2_PROFILE,
  ZEN_4_PROFILE,
  ZEN_5_PROFILE,
  nestedProfile(XEN_POLICY, ZEN_2_PROFILE, ZEN_2_PROFILE.asids),
  nestedProfile(XEN_4_17_POLICY, ZEN_2_PROFILE, ZEN_2_PROFILE.asids),
  nestedProfile(XEN_4_19_POLICY, ZEN_2_PROFILE, ZEN_2_PROFILE.asids),
  nestedProfile(KVM_POLICY, ZEN_4_PROFILE, KVM_ASIDS),
];

const PROFILES: ReadonlyMap<string, CpuProfile> = new Map(CPU_PROFILES.map((profile) => [profile.name, profile]));

/** The profile of that name, without the features that follow it as `,-feature`; undefined when there is none. */
export function cpuProfile(name: string): CpuProfile | undefined {
  const [base = '', ...removed] = name.split(',');
  let profile = PROFILES.get(base);
  for (const word of removed) {
    profile = profile !== undefined && word.startsWith('-') ? without(profile, word.slice(1)) : undefined;
  }
  return profile;
}

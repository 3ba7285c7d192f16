import { describe, expect, it } from 'vitest';
import { checkConfig, DEFAULT_CONFIG } from '../../../src/machine/config.js';
import { BASE_PROFILE, eferMask, type SvmFeature } from '../../../src/machine/cpu/cpuid.js';
import { CPU_PROFILES, cpuProfile, nestedProfile } from '../../../src/machine/cpu/profiles.js';
import { EFER } from '../../../src/machine/layout/cpu-state.js';
import { KVM_POLICY, offeredFeatures, XEN_POLICY } from '../../../src/machine/svm/feature-policy.js';
import { leafOf } from '../../support/cpuid.js';
import { LiveMachine } from '../../support/live-machine.js';

const named = (name: string) => {
  const profile = cpuProfile(name);
  if (profile === undefined) throw new Error(name);
  return profile;
};
const leaf = (name: string, number: number) => leafOf(named(name), number);
const SVM_LEAF = 0x8000_000a;
const SVM_BIT = 1 << 2;

describe('CPUID Fn8000_000A by profile (APM vol.3 §E.4.9 Function 8000_000Ah; APM vol.2 §15.25.12)', () => {
  it.each([
    ['vmtape-base', 64, 0x6303_b4ff],
    ['k8-f', 64, 0],
    ['zen-2', 0x8000, 0x0003_b4ff],
    ['zen-4', 0x8000, 0x0303_b4ff],
    ['zen-5', 0x8000, 0x6303_b4ff],
    ['xen-nested', 0x8000, 0xeb],
    ['xen-4.17-nested', 0x8000, 0x4bb],
    ['xen-4.19-nested', 0x8000, 0x4ab],
    ['kvm-nested', 8, 0x0201_947b],
  ])('%s: %i ASIDs, EDX = %i', (name, ebx, edx) => {
    expect(leaf(name, SVM_LEAF)).toEqual({ eax: 1, ebx, ecx: 0, edx });
  });

  it('each of them names a machine', () => {
    for (const { name } of CPU_PROFILES) {
      expect(() => checkConfig({ ...DEFAULT_CONFIG, cpu: name })).not.toThrow();
      expect(new LiveMachine('90 f4', {}, name).run(), name).toBe('idle');
    }
    expect(new Set(CPU_PROFILES.map(({ name }) => name)).size).toBe(CPU_PROFILES.length);
  });

  it('no profile offers instructions that the machine lacks', () => {
    for (const { features, svm } of CPU_PROFILES) {
      for (const feature of features) expect(BASE_PROFILE.features).toContain(feature);
      for (const feature of svm) expect(BASE_PROFILE.svm).toContain(feature);
    }
  });
});

describe('nested virtualization off (APM vol.2 §15.4 Enabling SVM)', () => {
  it.each(CPU_PROFILES.map(({ name }) => name))('%s,-svm hides SVM', (name) => {
    const hidden = `${name},-svm`;
    expect(leaf(name, 0x8000_0001).ecx & SVM_BIT).toBe(SVM_BIT);
    expect(leaf(hidden, 0x8000_0001).ecx & SVM_BIT).toBe(0);
    expect(leaf(hidden, SVM_LEAF)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
    expect(eferMask(named(hidden)) & EFER.SVME).toBe(0n);
  });

  it('VMRUN is #UD and VM_CR is #GP then', () => {
    expect(vectorsOf('0f01d8 f4')).toEqual([6]);
    expect(vectorsOf('b9140101c0 0f32 f4')).toEqual([13]);
  });

  const vectorsOf = (code: string): number[] => {
    const live = new LiveMachine(code, { efer: EFER.SCE | EFER.LME | EFER.LMA }, 'vmtape-base,-svm');
    live.run();
    return live.vectors;
  };
});

describe('features taken away by name', () => {
  it('instructions, system features and those of SVM', () => {
    const profile = named('zen-2,-rdtscp,-page1gb,-vgif');
    expect(profile.name).toBe('zen-2,-rdtscp,-page1gb,-vgif');
    expect([profile.features.has('rdtscp'), profile.system.has('page1gb'), profile.svm.has('vgif')]).toEqual([
      false,
      false,
      false,
    ]);
    expect(profile.svm.has('np')).toBe(true);
  });

  it.each(['zen-3', 'zen-2,rdtscp', 'zen-2,-nothing', 'k8-f,-np', ',-svm'])('%s is no profile', (name) => {
    expect(cpuProfile(name)).toBeUndefined();
  });
});

describe('what a hypervisor hands on (Xen, nested-svm-cpu-features)', () => {
  const ALL = BASE_PROFILE.svm;
  const without = (...features: readonly SvmFeature[]): ReadonlySet<SvmFeature> =>
    new Set([...ALL].filter((feature) => !features.includes(feature)));

  it('Xen: nested paging, branch records, nRIP, flush by ASID, decode assists, and clean bits in any case', () => {
    expect([...(offeredFeatures(XEN_POLICY, without('vmcb-clean')) ?? [])].sort()).toEqual(
      ['decode-assists', 'flush-by-asid', 'lbr-virtualization', 'np', 'nrips', 'vmcb-clean'].sort(),
    );
  });

  it.each(['np', 'lbr-virtualization', 'nrips', 'flush-by-asid', 'decode-assists'] as const)(
    'Xen offers no nesting on a processor without %s, and SVM is hidden',
    (feature) => {
      expect(offeredFeatures(XEN_POLICY, without(feature))).toBeUndefined();
      const profile = nestedProfile(XEN_POLICY, { ...BASE_PROFILE, svm: without(feature) }, 64);
      expect(profile.features.has('svm')).toBe(false);
    },
  );

  it('KVM requires nothing, and hands on what the processor has', () => {
    expect([...(offeredFeatures(KVM_POLICY, new Set()) ?? [])]).toEqual(['vmcb-clean', 'flush-by-asid']);
    expect(offeredFeatures(KVM_POLICY, ALL)).not.toContain('decode-assists');
  });

  it('no feature has two rules', () => {
    for (const { rules } of [XEN_POLICY, KVM_POLICY]) {
      expect(new Set(rules.map(({ feature }) => feature)).size).toBe(rules.length);
    }
  });
});

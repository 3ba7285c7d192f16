/** CPUID of a profile on one vCPU after RESET, or as a test has it. */
import { type CpuidLeaf, type CpuProfile, cpuidLeaf } from '../../src/machine/cpu/cpuid.js';
import { virtualizationOf } from '../../src/machine/svm/nested-svm.js';

type Dynamic = Parameters<typeof cpuidLeaf>[3];

export const leafOf = (
  profile: CpuProfile,
  leaf: number,
  subleaf = 0,
  { xcr0 = 1n, ...dynamic }: Partial<Dynamic> = {},
): CpuidLeaf =>
  cpuidLeaf(profile, leaf, subleaf, {
    apicId: 0,
    processors: 1,
    apicEnabled: true,
    osxsave: false,
    xcr0,
    virtualization: virtualizationOf(profile).features(),
    ...dynamic,
  });

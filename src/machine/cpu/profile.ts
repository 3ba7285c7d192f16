/**
 * What a CPU profile says: who the processor is, which instruction sets it decodes, which system and SVM features it has.
 * The profiles themselves stand in `cpuid.ts` (the base) and `profiles.ts`.
 * Source: APM vol.3 appendix E Obtaining Processor Information Via the CPUID Instruction.
 */
import type { Feature } from '../isa/instruction.js';
import type { DeviationSet } from '../policy/catalogue.js';

/** System features, which gate no encoding by themselves. */
export type SystemFeature =
  | 'fpu'
  | 'vme'
  | 'de'
  | 'pse'
  | 'tsc'
  | 'msr'
  | 'pae'
  | 'mce'
  | 'cx8'
  | 'apic'
  | 'sep'
  | 'mtrr'
  | 'pge'
  | 'mca'
  | 'cmov'
  | 'pat'
  | 'pse36'
  | 'clflush'
  | 'fxsr'
  | 'x2apic'
  | 'syscall'
  | 'nx'
  | 'page1gb'
  | 'lm'
  | 'lahf64'
  | 'alt-mov-cr8'
  | 'smep'
  | 'umip'
  | 'pcid'
  | 'invariant-tsc'
  | 'bus-lock-trap'
  | 'hw-pstate'
  | 'osvw'
  /** There is no SMM_CTL MSR. */
  | 'no-smm-ctl'
  /** The local APIC timer's TSC-deadline mode. */
  | 'tsc-deadline'
  | 'tsc-adjust'
  /** AMD's extended local APIC registers. */
  | 'extapic';

/** Features of SVM, CPUID Fn8000_000A EDX. */
export type SvmFeature =
  | 'np'
  | 'lbr-virtualization'
  | 'svm-lock'
  | 'nrips'
  | 'tsc-ratio'
  | 'vmcb-clean'
  | 'flush-by-asid'
  | 'decode-assists'
  | 'pause-filter'
  | 'pause-filter-threshold'
  | 'avic'
  | 'vmload-virtualization'
  | 'vgif'
  | 'gmet'
  /** INVLPGB and TLBSYNC have an enable bit in the VMCB, and TLBSYNC an intercept. */
  | 'tlbi-ctl'
  | 'vnmi'
  | 'bus-lock-threshold'
  | 'idle-hlt';

/** Where processors do other than the manual says (docs/fidelity.md). */
export type CpuQuirk =
  /** Matches of breakpoint registers are delivered while GIF is clear; APM vol.2 §15.17 has them discarded. */
  'breakpoints-ignore-gif';

export interface CpuProfile {
  readonly name: string;
  /** Twelve characters, EBX EDX ECX of leaf 0. */
  readonly vendor: string;
  /** At most 47 characters, leaves 8000_0002h to 8000_0004h. */
  readonly brand: string;
  /** Family with the extended family added, model with the extended model in bits 7:4. */
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  /** Instruction sets; they drive the decoder's #UD. */
  readonly features: ReadonlySet<Feature>;
  readonly system: ReadonlySet<SystemFeature>;
  readonly svm: ReadonlySet<SvmFeature>;
  readonly quirks: ReadonlySet<CpuQuirk>;
  /** Where it does as another program does, on request (`policy/`). No profile has any by itself. */
  readonly deviations: DeviationSet;
  /** Number of address space identifiers, the host's 0 included. */
  readonly asids: number;
  readonly physicalAddressBits: number;
  readonly linearAddressBits: number;
  /** Microcode patch level, MSR 8Bh. */
  readonly patchLevel: number;
  /** MCG_CAP.Count: machine-check banks that answer. */
  readonly machineCheckBanks: number;
}

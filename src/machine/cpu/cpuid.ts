/**
 * CPU profiles: what the processor says it is (CPUID), which instruction sets it decodes, and which control bits exist.
 * A profile is data; `vmtape-base` is the one that reports what this machine has and nothing else, `profiles.ts` has the
 * others.
 * Source: APM vol.3 appendix E Obtaining Processor Information Via the CPUID Instruction.
 */
import { invariant } from '../errors.js';
import type { Feature } from '../isa/instruction.js';
import { CR4, EFER } from '../layout/cpu-state.js';
import { NO_DEVIATIONS } from '../policy/catalogue.js';
import type { CpuProfile, CpuQuirk, SvmFeature, SystemFeature } from './profile.js';
import { AVX_STATE, areaBytes, XState, xcr0Mask } from './xstate.js';

export type { CpuProfile, CpuQuirk, SvmFeature, SystemFeature } from './profile.js';

/** The four registers that CPUID returns; unsigned 32-bit numbers. */
export interface CpuidLeaf {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** What CPUID reports of the running machine. */
export interface CpuidDynamic {
  readonly apicId: number;
  /** Logical processors of the machine. */
  readonly processors: number;
  /** APIC_BASE.AE: a disabled local APIC vanishes from CPUID. */
  readonly apicEnabled: boolean;
  /** CR4.OSXSAVE. */
  readonly osxsave: boolean;
  readonly xcr0: bigint;
  /** Fn8000_000A, as the virtualization extension has it. */
  readonly virtualization: CpuidLeaf;
  /** A hypervisor tells of itself in the leaves from 4000_0000h on; there is none when absent. */
  readonly hypervisor?: boolean;
}

export const ZERO_LEAF: CpuidLeaf = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/** Bits of CPUID registers by feature; a feature that is in no set of the profile reports 0. */
type FeatureBits = readonly (readonly [bit: number, feature: Feature | SystemFeature])[];

const LEAF1_ECX: FeatureBits = [
  [0, 'sse3'],
  [1, 'pclmulqdq'],
  [3, 'monitor'],
  [9, 'ssse3'],
  [12, 'fma'],
  [13, 'cx16'],
  [17, 'pcid'],
  [19, 'sse4.1'],
  [20, 'sse4.2'],
  [21, 'x2apic'],
  [22, 'movbe'],
  [23, 'popcnt'],
  [24, 'tsc-deadline'],
  [25, 'aes'],
  [26, 'xsave'],
  [28, 'avx'],
  [29, 'f16c'],
  [30, 'rdrand'],
];
const LEAF1_EDX: FeatureBits = [
  [0, 'fpu'],
  [1, 'vme'],
  [2, 'de'],
  [3, 'pse'],
  [4, 'tsc'],
  [5, 'msr'],
  [6, 'pae'],
  [7, 'mce'],
  [8, 'cx8'],
  [9, 'apic'],
  [11, 'sep'],
  [12, 'mtrr'],
  [13, 'pge'],
  [14, 'mca'],
  [15, 'cmov'],
  [16, 'pat'],
  [17, 'pse36'],
  [19, 'clflush'],
  [23, 'mmx'],
  [24, 'fxsr'],
  [25, 'sse'],
  [26, 'sse2'],
];
const LEAF7_EBX: FeatureBits = [
  [0, 'fsgsbase'],
  [1, 'tsc-adjust'],
  [3, 'bmi1'],
  [5, 'avx2'],
  [7, 'smep'],
  [8, 'bmi2'],
  [10, 'invpcid'],
  [18, 'rdseed'],
  [19, 'adx'],
  [20, 'smap'],
  [23, 'clflushopt'],
  [24, 'clwb'],
  [29, 'sha'],
];
const LEAF7_ECX: FeatureBits = [
  [2, 'umip'],
  [22, 'rdpid'],
  [24, 'bus-lock-trap'],
];
/** XGETBV with ECX = 1 came with XSAVEC. */
const LEAFD_1_EAX: FeatureBits = [
  [0, 'xsaveopt'],
  [1, 'xsavec'],
  [2, 'xsavec'],
  [3, 'xsaves'],
];
const EXTENDED1_ECX: FeatureBits = [
  [0, 'lahf64'],
  [2, 'svm'],
  [3, 'extapic'],
  [4, 'alt-mov-cr8'],
  [5, 'abm'],
  [6, 'sse4a'],
  [8, '3dnowprefetch'],
  [9, 'osvw'],
  [29, 'mwaitx'],
];
/** The features that Fn8000_0001 EDX repeats from Fn0000_0001 EDX, and its own. */
const EXTENDED1_EDX: FeatureBits = [
  ...LEAF1_EDX.filter(([bit]) => (bit <= 17 && bit !== 11) || bit === 23 || bit === 24),
  [11, 'syscall'],
  [20, 'nx'],
  // AMD's extensions to MMX, which are those of SSE.
  [22, 'sse'],
  [26, 'page1gb'],
  [27, 'rdtscp'],
  [29, 'lm'],
];

const HIGHEST_LEAF = 0xd;
const HIGHEST_EXTENDED_LEAF = 0x8000_0021;
const EXTENDED7_EDX: FeatureBits = [
  [7, 'hw-pstate'],
  [8, 'invariant-tsc'],
];
/** LFENCE is always serializing. A null selector does not clear the segment base (bit 6 is clear). */
const LFENCE_SERIALIZING = 1 << 2;
const EXTENDED21_EAX: FeatureBits = [[9, 'no-smm-ctl']];
const EXTENDED8_EBX: FeatureBits = [
  [0, 'clzero'],
  [3, 'invlpgb'],
  [4, 'rdpru'],
  [9, 'wbnoinvd'],
  // Guest nested translations, too.
  [21, 'invlpgb'],
];
/** FXSAVE and FXRSTOR always carry the x87 error pointers. */
const X87_POINTERS = 1 << 2;
/** How many pages INVLPGB takes besides the first, as processors of family 19h have it. */
export const INVLPGB_COUNT_MAX = 7;
/** RDPRU reads MPERF and APERF, numbers 0 and 1. */
const RDPRU_MAXIMUM = 1 << 16;

/** @param subleaf ECX. */
export function cpuidLeaf(profile: CpuProfile, leaf: number, subleaf: number, dynamic: CpuidDynamic): CpuidLeaf {
  switch (leaf >>> 0) {
    case 0:
      return { eax: HIGHEST_LEAF, ...vendorRegisters(profile) };
    case 1:
      return leaf1(profile, dynamic);
    case 5:
      // Monitored lines of 64 bytes; MWAIT has no extensions.
      return profile.features.has('monitor') ? { ...ZERO_LEAF, eax: 64, ebx: 64 } : ZERO_LEAF;
    case 7:
      return subleaf === 0
        ? { ...ZERO_LEAF, ebx: report(LEAF7_EBX, profile), ecx: report(LEAF7_ECX, profile) }
        : ZERO_LEAF;
    case 0xb:
      return topology(profile, subleaf, dynamic);
    case 0xd:
      return extendedState(profile, subleaf, dynamic);
    case 0x8000_0000:
      return { eax: HIGHEST_EXTENDED_LEAF, ...vendorRegisters(profile) };
    case 0x8000_0001:
      return {
        eax: signature(profile),
        ebx: 0,
        // CmpLegacy: the logical processors of leaf 1 are cores.
        ecx: report(EXTENDED1_ECX, profile) | (dynamic.processors > 1 ? 1 << 1 : 0),
        edx: withoutApic(report(EXTENDED1_EDX, profile), dynamic),
      };
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004:
      return brandRegisters(profile, leaf - 0x8000_0002);
    case 0x8000_0005:
      // L1 TLBs of 64 entries, fully associative; L1 caches of 32 KiB, 8-way, 64-byte lines.
      return { eax: 0xff40_ff40, ebx: 0xff40_ff40, ecx: 0x2008_0140, edx: 0x2008_0140 };
    case 0x8000_0006:
      // L2: TLBs of 1024 entries, 8-way; cache of 512 KiB, 8-way, 64-byte lines. No L3.
      return { eax: 0x6400_6400, ebx: 0x6400_6400, ecx: 0x0200_6140, edx: 0 };
    case 0x8000_0007:
      return { ...ZERO_LEAF, edx: report(EXTENDED7_EDX, profile) };
    case 0x8000_0008:
      return {
        eax: (profile.linearAddressBits << 8) | profile.physicalAddressBits,
        ebx: report(EXTENDED8_EBX, profile) | X87_POINTERS,
        ecx: (apicIdBits(dynamic) << 12) | (dynamic.processors - 1),
        edx:
          (profile.features.has('rdpru') ? RDPRU_MAXIMUM : 0) |
          (profile.features.has('invlpgb') ? INVLPGB_COUNT_MAX : 0),
      };
    case 0x8000_000a:
      return dynamic.virtualization;
    case 0x8000_0021:
      return { ...ZERO_LEAF, eax: report(EXTENDED21_EAX, profile) | LFENCE_SERIALIZING };
    default:
      return ZERO_LEAF;
  }
}

/** CR4 bits that software may set. Source: APM vol.2 §3.1.3 CR4 Register. */
export function cr4Mask({ features, system }: CpuProfile): bigint {
  const has = (feature: Feature | SystemFeature): boolean =>
    features.has(feature as Feature) || system.has(feature as SystemFeature);
  return (
    CR4.TSD |
    CR4.PCE |
    (has('vme') ? CR4.VME | CR4.PVI : 0n) |
    (has('de') ? CR4.DE : 0n) |
    (has('pse') ? CR4.PSE : 0n) |
    (has('pae') ? CR4.PAE : 0n) |
    (has('mce') ? CR4.MCE : 0n) |
    (has('pge') ? CR4.PGE : 0n) |
    (has('fxsr') ? CR4.OSFXSR : 0n) |
    (has('sse') ? CR4.OSXMMEXCPT : 0n) |
    (has('umip') ? CR4.UMIP : 0n) |
    (has('fsgsbase') ? CR4.FSGSBASE : 0n) |
    (has('pcid') ? CR4.PCIDE : 0n) |
    (has('xsave') ? CR4.OSXSAVE : 0n) |
    (has('smep') ? CR4.SMEP : 0n) |
    (has('smap') ? CR4.SMAP : 0n)
  );
}

/** EFER bits that software may set; LMA is the processor's. Source: APM vol.2 §3.1.7 EFER Register. */
export function eferMask({ features, system }: CpuProfile): bigint {
  return (
    (system.has('syscall') ? EFER.SCE : 0n) |
    (system.has('lm') ? EFER.LME : 0n) |
    (system.has('nx') ? EFER.NXE : 0n) |
    (features.has('svm') ? EFER.SVME : 0n)
  );
}

function leaf1(profile: CpuProfile, dynamic: CpuidDynamic): CpuidLeaf {
  const clflushQuadwords = 8;
  const logical = dynamic.processors > 1 ? dynamic.processors : 0;
  return {
    eax: signature(profile),
    ebx: ((dynamic.apicId << 24) | (logical << 16) | (clflushQuadwords << 8)) >>> 0,
    ecx:
      (report(LEAF1_ECX, profile) | (dynamic.osxsave ? 1 << 27 : 0) | (dynamic.hypervisor === true ? 1 << 31 : 0)) >>>
      0,
    edx: (withoutApic(report(LEAF1_EDX, profile), dynamic) | (dynamic.processors > 1 ? 1 << 28 : 0)) >>> 0,
  };
}

/** Extended topology: one thread a core, all cores in one package. */
function topology(profile: CpuProfile, subleaf: number, dynamic: CpuidDynamic): CpuidLeaf {
  if (!profile.system.has('x2apic')) return ZERO_LEAF;
  switch (subleaf) {
    case 0:
      return { eax: 0, ebx: 1, ecx: 0x100, edx: dynamic.apicId };
    case 1:
      return { eax: apicIdBits(dynamic), ebx: dynamic.processors, ecx: 0x201, edx: dynamic.apicId };
    default:
      return { ...ZERO_LEAF, ecx: subleaf & 0xff, edx: dynamic.apicId };
  }
}

/** XSAVE: what there is, how large the areas are, and the place of each state. There are no supervisor states. */
function extendedState(profile: CpuProfile, subleaf: number, { xcr0 }: CpuidDynamic): CpuidLeaf {
  if (!profile.features.has('xsave')) return ZERO_LEAF;
  const possible = xcr0Mask(profile);
  switch (subleaf) {
    case 0:
      return { eax: Number(possible), ebx: areaBytes(xcr0), ecx: areaBytes(possible), edx: 0 };
    case 1:
      return { ...ZERO_LEAF, eax: report(LEAFD_1_EAX, profile), ebx: areaBytes(xcr0) };
    case 2:
      if ((possible & XState.AVX) === 0n) return ZERO_LEAF;
      return { ...ZERO_LEAF, eax: AVX_STATE.bytes, ebx: AVX_STATE.offset };
    default:
      return ZERO_LEAF;
  }
}

/** Bits of the APIC id that number the processors: the ceiling of log2. */
const apicIdBits = ({ processors }: CpuidDynamic): number => 32 - Math.clz32(processors - 1);

const withoutApic = (edx: number, { apicEnabled }: CpuidDynamic): number => (apicEnabled ? edx : edx & ~(1 << 9)) >>> 0;

/** Family, model and stepping, as EAX of leaves 1 and 8000_0001h. */
export function signature({ family, model, stepping }: CpuProfile): number {
  const base = Math.min(family, 15);
  return (((family - base) << 20) | ((model >> 4) << 16) | (base << 8) | ((model & 15) << 4) | stepping) >>> 0;
}

function report(table: FeatureBits, { features, system }: CpuProfile): number {
  return bits(table, (feature) => features.has(feature as Feature) || system.has(feature as SystemFeature));
}

function bits<Name>(table: readonly (readonly [number, Name])[], has: (name: Name) => boolean): number {
  let value = 0;
  for (const [bit, name] of table) if (has(name)) value |= 1 << bit;
  return value >>> 0;
}

/** Four characters as a little-endian word. */
function word(text: string, at: number): number {
  let value = 0;
  for (let byte = 0; byte < 4; byte++) value |= (text.charCodeAt(at + byte) || 0) << (8 * byte);
  return value >>> 0;
}

function vendorRegisters({ vendor }: CpuProfile): { ebx: number; ecx: number; edx: number } {
  invariant(vendor.length === 12, 'a CPU vendor has twelve characters');
  return { ebx: word(vendor, 0), edx: word(vendor, 4), ecx: word(vendor, 8) };
}

function brandRegisters({ brand }: CpuProfile, part: number): CpuidLeaf {
  invariant(brand.length < 48, 'a CPU brand has at most 47 characters');
  const at = 16 * part;
  return { eax: word(brand, at), ebx: word(brand, at + 4), ecx: word(brand, at + 8), edx: word(brand, at + 12) };
}

/**
 * All that this machine has, but AMD's extended local APIC registers, which no virtual processor shows, and bus lock trap:
 * DR6.BLD would be writable then, which older software does not expect.
 */
export const BASE_PROFILE: CpuProfile = {
  name: 'vmtape-base',
  vendor: 'AuthenticAMD',
  brand: 'vmtape base processor',
  family: 0x17,
  model: 1,
  stepping: 2,
  features: new Set<Feature>([
    'mmx',
    'sse',
    'sse2',
    'sse3',
    'ssse3',
    'sse4.1',
    'sse4.2',
    'aes',
    'pclmulqdq',
    'cx16',
    'popcnt',
    'abm',
    'lzcnt',
    'bmi1',
    'bmi2',
    'movbe',
    'crc32',
    'rdrand',
    'rdseed',
    'rdtscp',
    'smap',
    'svm',
    'monitor',
    '3dnowprefetch',
    'sse4a',
    'sha',
    'adx',
    'fsgsbase',
    'invpcid',
    'invlpgb',
    'rdpid',
    'rdpru',
    'clzero',
    'clflushopt',
    'clwb',
    'wbnoinvd',
    'mwaitx',
    'xsave',
    'xsaveopt',
    'xsavec',
    'xsaves',
    'avx',
    'avx2',
    'fma',
    'f16c',
  ]),
  system: new Set<SystemFeature>([
    'fpu',
    'vme',
    'de',
    'pse',
    'tsc',
    'msr',
    'pae',
    'mce',
    'cx8',
    'apic',
    'sep',
    'mtrr',
    'pge',
    'mca',
    'cmov',
    'pat',
    'pse36',
    'clflush',
    'fxsr',
    'x2apic',
    'syscall',
    'nx',
    'page1gb',
    'lm',
    'lahf64',
    'alt-mov-cr8',
    'smep',
    'umip',
    'pcid',
    'invariant-tsc',
    'hw-pstate',
    'osvw',
    'tsc-deadline',
    'tsc-adjust',
  ]),
  svm: new Set<SvmFeature>([
    'np',
    'lbr-virtualization',
    'svm-lock',
    'nrips',
    'tsc-ratio',
    'vmcb-clean',
    'flush-by-asid',
    'decode-assists',
    'pause-filter',
    'pause-filter-threshold',
    'avic',
    'vmload-virtualization',
    'vgif',
    'gmet',
    'tlbi-ctl',
    'vnmi',
    'bus-lock-threshold',
    'idle-hlt',
  ]),
  quirks: new Set<CpuQuirk>(['breakpoints-ignore-gif']),
  deviations: NO_DEVIATIONS,
  asids: 64,
  physicalAddressBits: 40,
  linearAddressBits: 48,
  patchLevel: 0x0800_1250,
  machineCheckBanks: 6,
};

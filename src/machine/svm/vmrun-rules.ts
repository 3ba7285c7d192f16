/**
 * What a CPU profile means for VMRUN and #VMEXIT: masks of what it has, and where it deviates from the manual. Made once
 * for each profile, so that a world switch looks at numbers and flags and into no set.
 *
 * Flags are named for what a deviation does; all are clear on the manual's machine (`policy/entry.ts`, `policy/exit.ts`).
 * Source: APM vol.2 §15.5.1 Basic Operation, §15.10.1 I/O Permissions Map, §15.11 MSR Intercepts; appendix B.
 */
import { type CpuProfile, cr4Mask, eferMask, type SvmFeature } from '../cpu/cpuid.js';
import { DR6 } from '../cpu/debug.js';
import { EFER } from '../layout/cpu-state.js';
import { IntControl, NestedControl, VirtExt } from '../layout/vmcb.js';
import { type DeviationName, interceptMasks } from '../policy/catalogue.js';
import { CLEAN_BITS, CleanBit } from './clean-bits.js';
import { ExitCode } from './exit-code.js';
import { INTERCEPTS, type InterceptName } from './intercepts.js';

/** What VMRUN refuses. */
interface CheckRules {
  /** Low words of what may be set; high words must be clear. */
  readonly eferAllowed: number;
  readonly cr4Allowed: number;
  /** Bits of a physical address's high word that must be clear, and of N_CR3's. */
  readonly addressHighReserved: number;
  readonly nestedCr3HighReserved: number;
  /** First map bases that are illegal. */
  readonly iopmLimit: number;
  readonly msrpmLimit: number;
  readonly allowsAsidZero: boolean;
  readonly allowsUnpagedHost: boolean;
  readonly allowsLongAndBig: boolean;
  readonly allowsReservedExceptions: boolean;
  readonly checksCr3ByHostMode: boolean;
  readonly refusesAbsentNestedPaging: boolean;
  readonly refusesFlushByAsid: boolean;
  readonly refusesUnbackedMsrpm: boolean;
}

/** What VMRUN takes from a VMCB. */
interface LoadRules {
  readonly nestedPaging: boolean;
  /** The guest has a PAT of its own under nested paging. */
  readonly guestPat: boolean;
  readonly flushByAsid: boolean;
  /** A guest may have a virtual APIC. */
  readonly avic: boolean;
  /** What exists of the low word at 060h, of those at 090h and 0B8h, and of the high word at 038h. */
  readonly intControl: number;
  readonly nestedControl: number;
  readonly virtExt: number;
  readonly pauseFilter: number;
  /** Counts of the PAUSE filter above it count as this. */
  readonly mostPauses: number;
  /** Bits of the low word at 0B8h that are taken as set. */
  readonly virtExtForced: number;
  /** Clean bits that are honoured; 0 without VMCB state caching. */
  readonly cleanBits: number;
  readonly narrowsStaleIntercepts: boolean;
  readonly reloadsPauseThreshold: boolean;
  /** Of each control word of intercepts, what is looked at. */
  readonly interceptMasks: readonly number[];
  /** The VMCB has a count of bus locks, which #VMEXIT writes back. */
  readonly busLockThreshold: boolean;
  /** Bits of DR6 that are loaded, and those that read as ones. */
  readonly dr6Loaded: number;
  readonly dr6Ones: number;
  readonly keepsFirstMsrProt: boolean;
  readonly keepsBasesAsStored: boolean;
  readonly clearsExitInfo2: boolean;
  readonly startsIntInfoFromEvent: boolean;
  /** The host's IF lets interrupts in only once the guest's was set (`interrupt-rules.ts`). */
  readonly hostIfWaits: boolean;
  readonly faultsOnUnbackedMsrpm: boolean;
}

/** What #VMEXIT stores, and what the host gets back. */
interface ExitRules {
  readonly nextRipSave: boolean;
  readonly decodeAssists: boolean;
  readonly omitsInstructionBytes: boolean;
  readonly keepsEventInjection: boolean;
  /** Bits of the low word at 060h that read as zero afterwards. */
  readonly intControlCleared: number;
  readonly clearsTlbControl: boolean;
  readonly clearsUnusedNestedCr3: boolean;
  readonly clearsLbrCleanBit: boolean;
  readonly storesFaultAddressInCr2: boolean;
  /** Bits of the host's DR7 that come back. */
  readonly hostDr7: number;
  readonly ignoresBadHostPdptes: boolean;
  readonly dropsHostStep: boolean;
  /** EXITCODE of a VMRUN that failed. */
  readonly invalid: bigint;
  readonly keepsEventOnFailure: boolean;
  readonly keepsGifOnFailure: boolean;
}

export interface VmrunRules extends CheckRules, LoadRules, ExitRules {}

const rulesByProfile = new WeakMap<CpuProfile, VmrunRules>();

export function vmrunRules(profile: CpuProfile): VmrunRules {
  let rules = rulesByProfile.get(profile);
  if (rules === undefined) {
    const deviates = (name: DeviationName): boolean => profile.deviations.has(name);
    rules = { ...checkRules(profile, deviates), ...loadRules(profile, deviates), ...exitRules(profile, deviates) };
    rulesByProfile.set(profile, rules);
  }
  return rules;
}

type Deviates = (name: DeviationName) => boolean;

function checkRules(profile: CpuProfile, deviates: Deviates): CheckRules {
  const longMode = profile.system.has('lm') ? EFER.LMA : 0n;
  const addressHighReserved = (0xffff_ffff & ~(2 ** (profile.physicalAddressBits - 32) - 1)) >>> 0;
  return {
    eferAllowed: Number(eferMask(profile) | longMode),
    cr4Allowed: Number(cr4Mask(profile)),
    addressHighReserved,
    nestedCr3HighReserved: deviates('n-cr3-unchecked') ? 0 : addressHighReserved,
    ...mapLimits(profile, deviates),
    allowsAsidZero: deviates('asid-zero-allowed'),
    allowsUnpagedHost: deviates('nested-paging-on-unpaged-host'),
    allowsLongAndBig: deviates('cs-long-and-big-allowed'),
    allowsReservedExceptions: deviates('reserved-exceptions-injected'),
    checksCr3ByHostMode: deviates('cr3-checked-by-host-mode'),
    refusesAbsentNestedPaging: deviates('absent-nested-paging-refused') && !profile.svm.has('np'),
    refusesFlushByAsid: deviates('tlb-control-by-asid-refused'),
    refusesUnbackedMsrpm: deviates('unbacked-msrpm-refused'),
  };
}

function mapLimits(
  { physicalAddressBits }: CpuProfile,
  deviates: Deviates,
): Pick<CheckRules, 'iopmLimit' | 'msrpmLimit'> {
  const highest = 2 ** physicalAddressBits - 1;
  if (deviates('permission-maps-unchecked')) return { iopmLimit: Infinity, msrpmLimit: Infinity };
  if (deviates('permission-map-ends-unchecked')) return { iopmLimit: highest, msrpmLimit: highest };
  // A map is illegal when its last byte is at the highest address or above; the I/O map counts two pages and a byte.
  return { iopmLimit: highest - 0x2000, msrpmLimit: highest - (deviates('msrpm-up-to-the-top') ? 0x1ffe : 0x1fff) };
}

/** Intercepts that came with a feature of SVM; those of absent instructions do no harm. */
const FEATURES_OF_INTERCEPTS: readonly (readonly [InterceptName, SvmFeature])[] = [
  ['TLBSYNC', 'tlbi-ctl'],
  ['BUSLOCK_THRESHOLD', 'bus-lock-threshold'],
  ['IDLE_HLT', 'idle-hlt'],
];

function existingIntercepts({ svm, deviations }: CpuProfile): readonly number[] {
  const masks = [...interceptMasks(deviations)];
  for (const [name, feature] of FEATURES_OF_INTERCEPTS) {
    const { offset, bit } = INTERCEPTS[name];
    if (!svm.has(feature)) masks[offset / 4] = (masks[offset / 4] as number) & ~(1 << bit);
  }
  return masks;
}

/** DR6: B0..B3, BD, BS, BT; the other bits of the low half read as ones but for bit 12. */
const DR6_BITS = Number(DR6.BREAKPOINTS | DR6.BD | DR6.BS | DR6.BT);
const DR6_ONES = Number(DR6.ONES);

const NP = Number(NestedControl.NP_ENABLE);
/** Of the word at 090h, what does not depend on nested paging. */
export const INVLPGB_ENABLE = Number(NestedControl.INVLPGB_ENABLE);
/** What every processor with SVM has at 060h. */
const INT_CONTROL = Number(
  IntControl.V_TPR | IntControl.V_IRQ | IntControl.V_INTR_PRIO | IntControl.V_IGN_TPR | IntControl.V_INTR_MASKING,
);
export const AVIC_ENABLE = Number(IntControl.AVIC_ENABLE);
export const V_NMI_ENABLE = Number(IntControl.V_NMI_ENABLE);
export const V_NMI_BITS = Number(IntControl.V_NMI | IntControl.V_NMI_MASK);
const VMLOAD_VMSAVE = Number(VirtExt.VMLOAD_VMSAVE);

function loadRules(profile: CpuProfile, deviates: Deviates): LoadRules {
  const { svm, system } = profile;
  const busLockDetect = system.has('bus-lock-trap') ? Number(DR6.BLD) : 0;
  const virtualEvents = !deviates('virtual-gif-and-nmi-ignored');
  const branchRecord = svm.has('lbr-virtualization') && !deviates('lbr-virtualization-ignored');
  const virtualVmload = svm.has('vmload-virtualization') ? VMLOAD_VMSAVE : 0;
  return {
    nestedPaging: svm.has('np'),
    guestPat: !deviates('guest-pat-shared'),
    flushByAsid: svm.has('flush-by-asid'),
    avic: svm.has('avic'),
    intControl:
      INT_CONTROL |
      (svm.has('avic') ? AVIC_ENABLE : 0) |
      (svm.has('vgif') && virtualEvents ? Number(IntControl.V_GIF | IntControl.V_GIF_ENABLE) : 0) |
      (svm.has('vnmi') && virtualEvents ? V_NMI_BITS | V_NMI_ENABLE : 0),
    nestedControl:
      (svm.has('np') ? NP : 0) |
      (svm.has('gmet') ? Number(NestedControl.GMET_ENABLE) : 0) |
      (svm.has('tlbi-ctl') ? INVLPGB_ENABLE : 0),
    virtExt: (branchRecord ? Number(VirtExt.LBR_VIRTUALIZATION) : 0) | virtualVmload,
    pauseFilter: pauseFilterBits(profile),
    mostPauses: deviates('pause-filter-merged') ? MERGED_PAUSES : 0xffff,
    virtExtForced: deviates('vmload-virtualized-unasked') ? virtualVmload : 0,
    cleanBits: cleanBits(profile),
    narrowsStaleIntercepts: deviates('stale-intercepts-narrowed'),
    reloadsPauseThreshold: deviates('pause-threshold-uncached'),
    interceptMasks: existingIntercepts(profile),
    busLockThreshold: svm.has('bus-lock-threshold'),
    dr6Loaded: DR6_BITS | busLockDetect,
    dr6Ones: (DR6_ONES & ~busLockDetect) >>> 0,
    keepsFirstMsrProt: deviates('msr-prot-not-turned-on'),
    keepsBasesAsStored: deviates('bases-not-canonical'),
    startsIntInfoFromEvent: deviates('exitintinfo-keeps-last-event'),
    hostIfWaits: deviates('intr-mask-latched'),
    clearsExitInfo2: deviates('exit-info-2-cleared-at-vmrun'),
    faultsOnUnbackedMsrpm: deviates('unbacked-msrpm-undefined-opcode'),
  };
}

function cleanBits({ svm, deviations }: CpuProfile): number {
  if (!svm.has('vmcb-clean') || deviations.has('clean-bits-ignored')) return 0;
  return svm.has('avic') ? CLEAN_BITS | CleanBit.AVIC : CLEAN_BITS;
}

/** Count in bits 31:16, threshold in bits 15:0. */
function pauseFilterBits({ svm, deviations }: CpuProfile): number {
  if (!svm.has('pause-filter')) return 0;
  const threshold = svm.has('pause-filter-threshold') && !deviations.has('pause-filter-merged');
  return threshold ? 0xffff_ffff : 0xffff_0000;
}

/** The count that Xen sets for its own guests. */
const MERGED_PAUSES = 4000;

/** The byte at 061h, V_IRQ in its lowest bit. */
const V_IRQ_BYTE = 0xff00;
const DR7_ENABLES = 0xff;

function exitRules({ svm }: CpuProfile, deviates: Deviates): ExitRules {
  return {
    nextRipSave: svm.has('nrips') && !deviates('next-rip-unused'),
    decodeAssists: svm.has('decode-assists') && !deviates('decode-assists-unused'),
    omitsInstructionBytes: deviates('instruction-bytes-omitted'),
    keepsEventInjection: deviates('event-injection-left-readable'),
    intControlCleared: deviates('v-irq-byte-written') ? V_IRQ_BYTE & ~Number(IntControl.V_IRQ) : 0,
    clearsTlbControl: deviates('tlb-control-cleared'),
    clearsUnusedNestedCr3: deviates('unused-n-cr3-cleared'),
    clearsLbrCleanBit: deviates('lbr-clean-bit-cleared'),
    storesFaultAddressInCr2: deviates('page-fault-exit-writes-cr2'),
    hostDr7: hostDr7(deviates),
    dropsHostStep: deviates('vmrun-not-stepped'),
    ignoresBadHostPdptes: deviates('bad-host-pdptes-ignored'),
    invalid: deviates('invalid-exit-code-32-bit') ? BigInt.asUintN(32, ExitCode.INVALID) : ExitCode.INVALID,
    keepsEventOnFailure: deviates('failed-vmrun-keeps-event'),
    keepsGifOnFailure: deviates('failed-vmrun-keeps-gif'),
  };
}

function hostDr7(deviates: Deviates): number {
  if (deviates('host-dr7-kept')) return 0xffff_ffff;
  return deviates('host-dr7-conditions-kept') ? (0xffff_ffff & ~DR7_ENABLES) >>> 0 : 0;
}

/**
 * Model-specific registers: one table, each row with its name, its source, and what reads and writes do. An MSR that is
 * in no row is #GP and an event.
 * Source: APM vol.2 appendix A MSR Cross-Reference; APM vol.3 RDMSR, WRMSR.
 */
import { ownRip } from '../isa/system-operands.js';
import { EFER, R, type Slot, SvmMode } from '../layout/cpu-state.js';
import { KVM_MSR_ROWS } from '../paravirt/msr-rows.js';
import { isCanonical, u64 } from '../units.js';
import { VM_CR_LOCK, VM_CR_SVMDIS, writeEfer } from './control-registers.js';
import { type CpuProfile, eferMask } from './cpuid.js';
import { DEBUG_CTL_DEFINED } from './debug.js';
import { type Check, gp, readOnly, storage, stored, within } from './msr-kinds.js';
import type { MsrRow } from './msr-row.js';
import { MTRR_CAP, MTRR_ROWS } from './mtrr.js';
import { PLATFORM_ROWS } from './platform-msrs.js';
import { SMM_ROWS } from './smm-msrs.js';
import { StoredMsr } from './stored-msrs.js';
import type { SystemContext } from './system-context.js';

const canonical: Check = (value) => isCanonical(value);
const LOW_WORD = 0xffff_ffffn;
const ALL_ONES = 0xffff_ffff_ffff_ffffn;
const hasSvm = ({ features }: CpuProfile): boolean => features.has('svm');

/** Memory types of PAT entries; 2 and 3 are reserved (APM vol.2 §7.8.1 PAT Register). */
function isValidPat(value: bigint): boolean {
  for (let entry = value; entry !== 0n; entry >>= 8n) {
    const type = entry & 0xffn;
    if (type > 7n || type === 2n || type === 3n) return false;
  }
  return true;
}

/** A guest under nested paging has a PAT of its own (APM vol.2 §15.25.8 Combining Memory Types, MTRRs). */
function patSlot({ tx, profile }: SystemContext): Slot {
  const nested = (tx.get(R.svmMode) & SvmMode.GUEST) !== 0n && (tx.get(R.nestedControl) & 1n) !== 0n;
  return nested && !profile.deviations.has('guest-pat-shared') ? R.guestPat : R.pat;
}

/** Fraction bits of TSC_RATIO. */
const TSC_RATIO_FRACTION = 32n;

/**
 * What RDTSC and MSR 10h show: in a guest the counter is scaled, then the offset is added (APM vol.2 §15.5.1 Basic
 * Operation, Control Bits; §15.30.5 TSC Ratio MSR).
 */
export function guestTsc(context: SystemContext): bigint {
  const { tx } = context;
  const tsc = context.readTsc();
  if ((tx.get(R.svmMode) & SvmMode.GUEST) === 0n) return tsc;
  const scaled = context.profile.deviations.has('tsc-ratio-without-effect')
    ? tsc
    : (tsc * tx.get(R.tscRatio)) >> TSC_RATIO_FRACTION;
  return BigInt.asUintN(64, scaled + tx.get(R.tscOffset));
}

/** VM_CR bits: DPD, R_INIT, DIS_A20M, LOCK, SVMDIS. */
const VM_CR_BITS = 0x1fn;

/** Of the doorbell register: a physical APIC ID. */
const DOORBELL_ID = 0xffn;

/** The key that takes VM_CR.LOCK back; reads as zero (APM vol.2 §15.31.1 SVM_KEY MSR). */
const SVM_KEY: MsrRow = {
  msr: 0xc001_0118,
  name: 'SVM_KEY',
  source: 'APM vol.2 §15.31.1 SVM_KEY MSR (C001_0118h)',
  exists: ({ svm }) => svm.has('svm-lock'),
  read: () => 0n,
  write({ tx }, value) {
    const vmCr = tx.get(R.vmCr);
    if ((vmCr & VM_CR_LOCK) === 0n) tx.set(R.svmKey, value);
    else if (value !== 0n && value === tx.get(R.svmKey)) tx.set(R.vmCr, vmCr & ~VM_CR_LOCK);
    return true;
  },
};

/** #GP(0) of a write that is not taken back. */
function faultBehind(context: SystemContext): void {
  context.tx.set(R.rip, ownRip(context));
  context.faultAfter(gp());
}

const VM_CR: MsrRow = {
  msr: 0xc001_0114,
  name: 'VM_CR',
  source: 'APM vol.2 §15.30.1 VM_CR MSR (C001_0114h)',
  slot: R.vmCr,
  exists: hasSvm,
  read: ({ tx, profile }) => (profile.deviations.has('vm-cr-inert') ? 0n : tx.get(R.vmCr)),
  write(context, value) {
    const { tx, profile } = context;
    const { deviations } = profile;
    if (deviations.has('vm-cr-inert')) return true;
    if ((value & ~VM_CR_BITS) !== 0n) throw gp();
    const old = tx.get(R.vmCr);
    const svme = (tx.get(R.efer) & EFER.SVME) !== 0n;
    const lock = deviations.has('vm-cr-svmdis-locks') ? VM_CR_SVMDIS : VM_CR_LOCK;
    const locked = (old & lock) === 0n ? 0n : VM_CR_LOCK | VM_CR_SVMDIS;
    const next = (value & ~locked) | (old & locked);
    if (deviations.has('vm-cr-svmdis-locks')) {
      if ((next & VM_CR_SVMDIS) !== 0n && svme) faultBehind(context);
    } else {
      // Regardless of LOCK: what was asked for counts, not what a locked register would become.
      const disables = deviations.has('vm-cr-tests-old-svmdis') ? old : value;
      if ((disables & VM_CR_SVMDIS) !== 0n && svme) throw gp();
    }
    tx.set(R.vmCr, next);
    return true;
  },
};

const MCG_CAP_CONTROL_PRESENT = 1n << 8n;
/** MCG_STATUS: RIPV, EIPV, MCIP. */
const MCG_STATUS_BITS = 7n;
/** HWCR.McStatusWrEn: MCi_STATUS takes any value. */
const MC_STATUS_WRITABLE = 1n << 18n;
const COUNTER_BITS = (1n << 48n) - 1n;

/**
 * MCi_CTL enables all error sources or none, for a bank here has no others; MCi_STATUS can only be cleared
 * (APM vol.2 §9.3.2.1, §9.3.2.2). No error is ever reported.
 */
function allowsMachineCheck({ tx }: SystemContext, value: bigint, index: number): boolean {
  const register = index % 4;
  if (register === 0) return value === 0n || value === ALL_ONES;
  return register !== 1 || value === 0n || (tx.get(R.hwcr) & MC_STATUS_WRITABLE) !== 0n;
}

function sysenterTarget(msr: number, slot: 'sysenterEsp' | 'sysenterEip', name: string): MsrRow {
  return {
    ...storage(msr, slot, name, 'APM vol.2 §6.1.2 SYSENTER and SYSEXIT'),
    write({ tx, profile }, value) {
      if (!isCanonical(value)) throw gp();
      tx.set(R[slot], profile.deviations.has('sysenter-32-bits') ? value & LOW_WORD : value);
      return true;
    },
  };
}

/** Above it lies what processors keep for themselves (HyperTransport). */
const SAVE_AREA_LIMIT = 0xfd_0000_0000n;

/** VM_HSAVE_PA: an aligned physical address. */
function isSaveArea(value: bigint, { profile }: SystemContext): boolean {
  if ((value & 0xfffn) !== 0n) return false;
  return profile.deviations.has('save-area-limited')
    ? value <= SAVE_AREA_LIMIT
    : value >> BigInt(profile.physicalAddressBits) === 0n;
}

const ROWS: readonly MsrRow[] = [
  {
    msr: 0x10,
    name: 'TSC',
    source: 'APM vol.2 §13.2.4 Time-Stamp Counter',
    read: guestTsc,
    write(context, value) {
      context.writeTsc(value);
      return true;
    },
  },
  {
    msr: 0x1b,
    name: 'APIC_BASE',
    source: 'APM vol.2 §16.3.1 Local APIC Enable, §16.9 x2APIC Support',
    exists: ({ system }) => system.has('apic'),
    read: (context) => context.readApicBase(),
    write(context, value) {
      if (!context.writeApicBase(value)) throw gp();
      return true;
    },
  },
  {
    msr: 0x3b,
    name: 'TSC_ADJUST',
    source: 'Intel SDM vol.3 §18.17.3 Time-Stamp Counter Adjustment; no processor of AMD has it',
    exists: ({ system }) => system.has('tsc-adjust'),
    // What software has added to the counter since it was reset.
    read: (context) => u64(context.tx.get(R.tscBase) + context.resetTime),
    write(context, value) {
      const counted = context.readTsc() - context.tx.get(R.tscBase) - context.resetTime;
      context.writeTsc(u64(counted + value));
      return true;
    },
  },
  readOnly(0x8b, 'PATCH_LEVEL', 'BKDG of the family, MSR 0000_008B', ({ profile }) => BigInt(profile.patchLevel)),
  readOnly(0xfe, 'MTRRcap', 'APM vol.2 §7.7.5 MTRR Capabilities Register', () => MTRR_CAP),
  storage(0x174, 'sysenterCs', 'SYSENTER_CS', 'APM vol.2 §6.1.2 SYSENTER and SYSEXIT', { mask: LOW_WORD }),
  sysenterTarget(0x175, 'sysenterEsp', 'SYSENTER_ESP'),
  sysenterTarget(0x176, 'sysenterEip', 'SYSENTER_EIP'),
  readOnly(
    0x179,
    'MCG_CAP',
    'APM vol.2 §9.3.1.1 Machine-Check Capabilities Register',
    ({ profile }) => BigInt(profile.machineCheckBanks) | MCG_CAP_CONTROL_PRESENT,
  ),
  storage(0x17a, 'mcgStatus', 'MCG_STATUS', 'APM vol.2 §9.3.1.2 Machine-Check Status Register', {
    allows: within(MCG_STATUS_BITS),
  }),
  storage(0x17b, 'mcgCtl', 'MCG_CTL', 'APM vol.2 §9.3.1.3 Machine-Check Control Register'),
  storage(0x1a0, 'miscEnable', 'MISC_ENABLE', 'storage for software that expects it; no AMD processor defines it'),
  storage(0x1d9, 'debugCtl', 'DebugCtl', 'APM vol.2 §13.1.1.7 Debug-Control MSR', {
    allows: within(DEBUG_CTL_DEFINED),
  }),
  ...(['lastBranchFrom', 'lastBranchTo', 'lastIntFrom', 'lastIntTo'] as const).map((slot, index) =>
    readOnly(0x1db + index, slot, 'APM vol.2 §13.1.1.8 Control-Transfer Breakpoint Features', ({ tx }) =>
      tx.get(R[slot]),
    ),
  ),
  ...MTRR_ROWS,
  {
    msr: 0x277,
    name: 'PAT',
    source: 'APM vol.2 §7.8.1 PAT Register',
    read: (context) => context.tx.get(patSlot(context)),
    write(context, value) {
      if (!isValidPat(value)) throw gp();
      context.tx.set(patSlot(context), value);
      return true;
    },
  },
  stored(
    StoredMsr.MACHINE_CHECK_BANKS,
    'MCi_CTL, MCi_STATUS, MCi_ADDR, MCi_MISC',
    'APM vol.2 §9.3.2 Error-Reporting Register Banks',
    { exists: ({ machineCheckBanks }, index) => index < 4 * machineCheckBanks, allows: allowsMachineCheck },
  ),
  {
    msr: 0x6e0,
    name: 'TSC_DEADLINE',
    source: 'Intel SDM vol.3 §11.5.4.1 TSC-Deadline Mode; no processor of AMD has it',
    exists: ({ system }) => system.has('tsc-deadline'),
    read: (context) => context.readTscDeadline(),
    write(context, value) {
      context.writeTscDeadline(value);
      return true;
    },
  },
  {
    msr: 0x800,
    count: 0x100,
    name: 'x2APIC registers',
    source: 'APM vol.2 §16.11 Accessing x2APIC Registers',
    exists: ({ system }) => system.has('x2apic'),
    read: (context, index) => context.readApicRegister(index),
    write: (context, value, index) => context.writeApicRegister(index, value),
  },
  {
    // No supervisor state exists: none can be enabled.
    ...storage(0xda0, 'xss', 'XSS', 'APM vol.2 §11.5.8 Extended Supervisor State, XSS MSR', { allows: within(0n) }),
    exists: ({ features }) => features.has('xsaves'),
  },
  {
    msr: 0xc000_0080,
    name: 'EFER',
    source: 'APM vol.2 §3.1.7 Extended Feature Enable Register (EFER)',
    slot: R.efer,
    read: ({ tx }) => tx.get(R.efer),
    write(context, value) {
      writeEfer(context, value, eferMask(context.profile));
      context.writeTrap('EFER_WRITE_TRAP', context.tx.get(R.efer));
      return true;
    },
  },
  storage(0xc000_0081, 'star', 'STAR', 'APM vol.2 §6.1.1 SYSCALL and SYSRET'),
  storage(0xc000_0082, 'lstar', 'LSTAR', 'APM vol.2 §6.1.1 SYSCALL and SYSRET', { allows: canonical }),
  storage(0xc000_0083, 'cstar', 'CSTAR', 'APM vol.2 §6.1.1 SYSCALL and SYSRET', { allows: canonical }),
  storage(0xc000_0084, 'sfmask', 'SFMASK', 'APM vol.2 §6.1.1 SYSCALL and SYSRET', { mask: LOW_WORD }),
  storage(0xc000_0100, 'fsBase', 'FS.Base', 'APM vol.2 §4.5.3 FS and GS Registers in 64-Bit Mode', {
    allows: canonical,
  }),
  storage(0xc000_0101, 'gsBase', 'GS.Base', 'APM vol.2 §4.5.3 FS and GS Registers in 64-Bit Mode', {
    allows: canonical,
  }),
  storage(0xc000_0102, 'kernelGsBase', 'KernelGSbase', 'APM vol.2 §6.4 SWAPGS Instruction', { allows: canonical }),
  {
    ...storage(0xc000_0103, 'tscAux', 'TSC_AUX', 'APM vol.3, RDTSCP', { mask: LOW_WORD }),
    exists: ({ features }) => features.has('rdtscp') || features.has('rdpid'),
  },
  {
    ...storage(0xc000_0104, 'tscRatio', 'TSC_RATIO', 'APM vol.2 §15.30.5 TSC Ratio MSR (C000_0104h)', {
      allows: within((1n << 40n) - 1n),
    }),
    exists: ({ svm }) => svm.has('tsc-ratio'),
  },
  stored(StoredMsr.PERFORMANCE_SELECT, 'PerfEvtSel0-3', 'APM vol.2 §13.2.1 Performance Counters; no event is counted'),
  stored(StoredMsr.PERFORMANCE_COUNTER, 'PerfCtr0-3', 'APM vol.2 §13.2.1 Performance Counters; no event is counted', {
    mask: COUNTER_BITS,
  }),
  stored(StoredMsr.MACHINE_CHECK_MASKS, 'MCi_CTL_MASK', 'APM vol.2 §9.3.2.5 Machine-Check Control Mask Registers', {
    exists: ({ machineCheckBanks }, index) => index < machineCheckBanks,
  }),
  VM_CR,
  SVM_KEY,
  {
    ...storage(0xc001_0117, 'vmHsavePA', 'VM_HSAVE_PA', 'APM vol.2 §15.30.4 VM_HSAVE_PA MSR (C001_0117h)', {
      allows: isSaveArea,
    }),
    exists: hasSvm,
  },
  {
    msr: 0xc001_011b,
    name: 'AVIC doorbell',
    source: 'APM vol.2 §15.29.8.2 Doorbell Mechanism, Doorbell Register (C001_011Bh)',
    exists: ({ svm }) => svm.has('avic'),
    read: () => {
      throw gp();
    },
    write(context, value) {
      if (value > DOORBELL_ID) throw gp();
      context.ringDoorbell(Number(value));
      return true;
    },
  },
  ...SMM_ROWS,
  ...PLATFORM_ROWS,
  ...KVM_MSR_ROWS,
];

const BY_NUMBER: ReadonlyMap<number, MsrRow> = new Map(
  ROWS.flatMap((row) => Array.from({ length: row.count ?? 1 }, (_, index): [number, MsrRow] => [row.msr + index, row])),
);

/** All rows, for documentation and coverage. */
export const MSR_ROWS = ROWS;

/** The register slot that holds an MSR, where one does. */
export const slotOfMsr = (msr: number): Slot | undefined => BY_NUMBER.get(msr)?.slot;

const BY_SLOT: ReadonlyMap<Slot, number> = new Map(
  ROWS.flatMap(({ slot, msr }): [Slot, number][] => (slot === undefined ? [] : [[slot, msr]])),
);

/** The MSR that a register slot holds, where it holds one. */
export const msrOfSlot = (slot: Slot): number | undefined => BY_SLOT.get(slot);

const find = (profile: CpuProfile, msr: number): MsrRow | undefined => {
  const row = BY_NUMBER.get(msr);
  return row?.exists === undefined || row.exists(profile, msr - row.msr) ? row : undefined;
};

/**
 * RDMSR, after privilege checks and intercepts.
 * @throws GuestFault #GP for an MSR that does not exist; the event `cpu.msr-unknown` is stated before.
 */
export function readMsr(context: SystemContext, msr: number): bigint {
  const row = find(context.profile, msr);
  const value = row?.read(context, msr - row.msr);
  if (value !== undefined) return value;
  context.state({ type: 'cpu.msr-unknown', msr, write: false, value: 0n });
  throw gp();
}

/** WRMSR, after privilege checks and intercepts. @returns false when the value is dropped. @throws GuestFault #GP. */
export function writeMsr(context: SystemContext, msr: number, value: bigint): boolean {
  const row = find(context.profile, msr);
  const written = row?.write(context, value, msr - row.msr) ?? false;
  if (written !== false) return written !== 'dropped';
  context.state({ type: 'cpu.msr-unknown', msr, write: true, value });
  throw gp();
}

/**
 * Model-specific registers by which a hypervisor or firmware stands in for signals and for system-management mode: HWCR,
 * IGNNE, SMM_CTL, SMM_KEY and the registers that place SMRAM.
 * Source: APM vol.2 §3.2.10 Hardware Configuration Register, §10.2 SMM Resources, §15.30.2 IGNNE MSR, §15.30.3 SMM_CTL
 * MSR, §15.32 SMM-Lock.
 */
import { Boundary, R } from '../layout/cpu-state.js';
import { HWCR_SMM_LOCK } from './control-registers.js';
import type { CpuProfile } from './cpuid.js';
import { gp, storage, stored } from './msr-kinds.js';
import type { MsrRow } from './msr-row.js';
import { StoredMsr } from './stored-msrs.js';
import type { SystemContext } from './system-context.js';
import type { Transaction } from './transaction.js';

const LOW_WORD = 0xffff_ffffn;
const TSEG_BITS = 0x000f_ffff_fffe_0000n;
/** TE and AE. */
const TSEG_ENABLES = 3n;

/** Under HWCR.SmmLock the registers of SMM can no longer be written. */
const smmUnlocked = ({ tx }: SystemContext): boolean => (tx.get(R.hwcr) & HWCR_SMM_LOCK) === 0n;
const hasSvm = ({ features }: CpuProfile): boolean => features.has('svm');

/** SmmLock stays once it is set; only SMM_KEY takes it back (§15.32.1 SmmLock Bit). */
const HWCR: MsrRow = {
  ...storage(0xc001_0015, 'hwcr', 'HWCR', 'APM vol.2 §3.2.10 Hardware Configuration Register'),
  write({ tx }, value) {
    tx.set(R.hwcr, value | (tx.get(R.hwcr) & HWCR_SMM_LOCK));
    return true;
  },
};

/** Shows IGNNE# as the processor has it. What is written counts while HWCR.IgnneEm sets the outer signal aside. */
const IGNNE: MsrRow = {
  ...stored(StoredMsr.IGNNE, 'IGNNE', 'APM vol.2 §15.30.2 IGNNE MSR (C001_0115h)', {
    exists: hasSvm,
    allows: (_context, value) => (value & ~1n) === 0n,
  }),
  read: ({ tx }) => (tx.host.ignoresNumericErrors ? 1n : 0n),
};

/** Bits of SMM_CTL. Of the special cycles nothing can be seen. */
const SmmControl = { DISMISS: 1n << 0n, ENTER: 1n << 1n, EXIT: 1n << 3n, DEFINED: 0x1fn } as const;

function controlSmm(tx: Transaction, value: bigint): void {
  let boundary = tx.get(R.boundary);
  if ((value & SmmControl.ENTER) !== 0n) {
    const before = (boundary & Boundary.NMI_BLOCKED) << Boundary.SMM_SHIFT;
    boundary |= before | Boundary.IN_SMM | Boundary.NMI_BLOCKED;
  }
  if ((value & SmmControl.DISMISS) !== 0n) boundary &= ~Boundary.SMI_PENDING;
  if ((value & SmmControl.EXIT) !== 0n) {
    const before = (boundary >> Boundary.SMM_SHIFT) & Boundary.NMI_BLOCKED;
    const kept = ~(Boundary.IN_SMM | Boundary.NMI_BLOCKED | (Boundary.NMI_BLOCKED << Boundary.SMM_SHIFT));
    boundary = (boundary & kept) | before;
  }
  tx.set(R.boundary, boundary);
}

/** ENTER and EXIT map nothing, for SMRAM is ordinary RAM here; they mask SMIs and NMIs. */
const SMM_CTL: MsrRow = {
  msr: 0xc001_0116,
  name: 'SMM_CTL',
  source: 'APM vol.2 §15.30.3 SMM_CTL MSR (C001_0116h)',
  exists: ({ features, system }) => features.has('svm') && !system.has('no-smm-ctl'),
  read: () => {
    throw gp();
  },
  write(context, value) {
    if (!smmUnlocked(context) || (value & ~SmmControl.DEFINED) !== 0n) throw gp();
    controlSmm(context.tx, value);
    return true;
  },
};

/** While SmmLock is clear it takes the key; then the key opens the lock. */
const SMM_KEY: MsrRow = {
  ...stored(StoredMsr.SMM_KEY, 'SMM_KEY', 'APM vol.2 §15.32.2 SMM_KEY MSR (C001_0119h)', { exists: hasSvm }),
  read: () => 0n,
  write(context, value) {
    if (smmUnlocked(context)) return true;
    const { tx } = context;
    const opens = value !== 0n && value === context.storedMsr(StoredMsr.SMM_KEY.msr);
    if (opens) tx.set(R.hwcr, tx.get(R.hwcr) & ~HWCR_SMM_LOCK);
    return opens || 'dropped';
  },
};

export const SMM_ROWS: readonly MsrRow[] = [
  HWCR,
  storage(0xc001_0111, 'smBase', 'SMM_BASE', 'APM vol.2 §10.2.2 SMBASE Register; BKDG of the family, MSR C001_0111', {
    allows: (value, context) => (value & ~LOW_WORD) === 0n && smmUnlocked(context),
  }),
  stored(StoredMsr.SMM_ADDR, 'SMM_ADDR', 'APM vol.2 §10.2.5 SMRAM Protected Areas; nothing is protected', {
    allows: smmUnlocked,
    mask: TSEG_BITS,
  }),
  stored(StoredMsr.SMM_MASK, 'SMM_MASK', 'APM vol.2 §10.2.5 SMRAM Protected Areas; nothing is protected', {
    allows: smmUnlocked,
    mask: TSEG_BITS | TSEG_ENABLES,
  }),
  IGNNE,
  SMM_CTL,
  SMM_KEY,
];

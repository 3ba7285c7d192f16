/**
 * Model-specific registers of the system and of the processor's units: what firmware programs, and what operating systems
 * read to find out, or write to work around a fault of the silicon that this machine does not have. Nothing here follows
 * from their values.
 * Source: APM vol.2 §3.2.1 System Configuration Register, §7.9 Memory-Mapped I/O (IORRs, top of memory), §17.1 P-State
 * Control, appendix A; BIOS and Kernel Developer's Guides and Processor Programming References for the rest.
 */
import { gp, readOnly, storage, stored, within } from './msr-kinds.js';
import type { MsrRow } from './msr-row.js';
import { StoredMsr } from './stored-msrs.js';
import type { SystemContext } from './system-context.js';

const LOW_WORD = 0xffff_ffffn;
/** SYSCFG bits that exist: MTRR extensions and top of memory; memory encryption does not. */
const SYSCFG_BITS = 0x7c_0000n;

const physicalBits = ({ profile }: SystemContext): bigint => (1n << BigInt(profile.physicalAddressBits)) - 1n;
const IORR_BASE_LOW = 0xfe7n; // bits 11:5 and 2:0
const IORR_MASK_LOW = 0x7ffn;
const TOP_OF_MEMORY_LOW = 0x7f_ffffn;
/** Reserved bits must be zero: those above the physical address width, and some below the address. */
const addresses =
  (reservedLow: (index: number) => bigint) =>
  (context: SystemContext, value: bigint, index: number): boolean =>
    (value & (~physicalBits(context) | reservedLow(index))) === 0n;

/** DE_CFG: LFENCE is serializing (CPUID Fn8000_0021 EAX[2] says so as well). */
const LFENCE_SERIALIZING = 1n << 1n;

const hasPstates: MsrRow['exists'] = ({ system }) => system.has('hw-pstate');
/** P-state 0, the only one: enabled, 1 GHz, which is the rate of the time-stamp counter (PPR, MSRC001_006[4...B]). */
const PSTATE_0 = (1n << 63n) | (8n << 8n) | 0x28n;
const PSTATES = 8;

/** A row that only profiles with P-states have. */
const pstates = (row: MsrRow): MsrRow => ({ ...row, exists: hasPstates });

export const PLATFORM_ROWS: readonly MsrRow[] = [
  storage(0xc001_0010, 'syscfg', 'SYSCFG', 'APM vol.2 §3.2.1 System Configuration Register', {
    allows: within(LOW_WORD),
    mask: SYSCFG_BITS,
  }),
  stored(StoredMsr.IORR, 'IORRBase, IORRMask', 'APM vol.2 §7.9.2 IORRs', {
    allows: addresses((index) => (index % 2 === 0 ? IORR_BASE_LOW : IORR_MASK_LOW)),
  }),
  stored(StoredMsr.TOP_MEM, 'TOP_MEM', 'APM vol.2 §7.9.4 Top of Memory', {
    allows: addresses(() => TOP_OF_MEMORY_LOW),
  }),
  stored(StoredMsr.TOP_MEM2, 'TOP_MEM2', 'APM vol.2 §7.9.4 Top of Memory', {
    allows: addresses(() => TOP_OF_MEMORY_LOW),
  }),
  stored(StoredMsr.NB_CFG, 'NB_CFG', 'BKDG of the family, MSRC001_001F Northbridge Configuration'),
  stored(StoredMsr.INTERRUPT_PENDING, 'IntPend', 'BKDG of the family, MSRC001_0055 Interrupt Pending and CMP-Halt'),
  stored(
    StoredMsr.MMIO_CONFIGURATION_BASE,
    'MmioCfgBaseAddr',
    'BKDG of the family, MSRC001_0058; no MMIO configuration',
  ),
  pstates(readOnly(0xc001_0061, 'PStateCurLim', 'APM vol.2 §17.1 P-State Control', () => 0n)),
  pstates(
    stored(StoredMsr.PSTATE_CONTROL, 'PStateCtl', 'APM vol.2 §17.1 P-State Control', {
      allows: (_context, value) => (value & ~7n) === 0n,
    }),
  ),
  pstates(readOnly(0xc001_0063, 'PStateStat', 'APM vol.2 §17.1 P-State Control', () => 0n)),
  pstates({
    msr: 0xc001_0064,
    count: PSTATES,
    name: 'PStateDef',
    source: 'APM vol.2 §17.1 P-State Control; PPR, MSRC001_006[4...B]; fixed',
    read: (_context, index) => (index === 0 ? PSTATE_0 : 0n),
    write: () => {
      throw gp();
    },
  }),
  stored(StoredMsr.OSVW, 'OSVW_ID_Length, OSVW_Status', 'APM vol.2 appendix A; BKDG, OS Visible Work-around MSRs', {
    exists: ({ system }) => system.has('osvw'),
  }),
  stored(StoredMsr.UNIT_CONFIGURATION, 'LS_CFG, IC_CFG, DC_CFG, BU_CFG', 'BKDG, MSRC001_1020 to MSRC001_1023'),
  stored(StoredMsr.FP_CFG, 'FP_CFG', 'BKDG, MSRC001_1028'),
  stored(StoredMsr.DE_CFG, 'DE_CFG', 'Software Techniques for Managing Speculation on AMD Processors, LFENCE', {
    ones: LFENCE_SERIALIZING,
  }),
  stored(StoredMsr.UNIT_CONFIGURATION_2, 'BU_CFG2 to BP_CFG', 'BKDG and PPR, MSRC001_102A to MSRC001_102E'),
];

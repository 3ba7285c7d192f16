/**
 * Model-specific registers that only hold what was written: the processor looks at them by RDMSR and RDPMC, and seldom
 * otherwise. They are too many for slots of their own and are kept by number instead, beside the register file; the event
 * of a WRMSR (`cpu.msr`) brings the value.
 * Source: with their rows, in msr.ts, smm-msrs.ts and platform-msrs.ts.
 */

/** By number in decimal; what is not there was never written and reads as zero. */
export type StoredMsrs = Record<string, bigint>;

/** First number, and how many. */
export interface MsrRange {
  readonly msr: number;
  readonly count: number;
}

export const PERFORMANCE_COUNTERS = 4;

export const StoredMsr = {
  /** MCi_CTL, MCi_STATUS, MCi_ADDR, MCi_MISC, four numbers a bank. */
  MACHINE_CHECK_BANKS: { msr: 0x400, count: 4 * 32 },
  PERFORMANCE_SELECT: { msr: 0xc001_0000, count: PERFORMANCE_COUNTERS },
  PERFORMANCE_COUNTER: { msr: 0xc001_0004, count: PERFORMANCE_COUNTERS },
  /** IORRBase0, IORRMask0, IORRBase1, IORRMask1. */
  IORR: { msr: 0xc001_0016, count: 4 },
  TOP_MEM: { msr: 0xc001_001a, count: 1 },
  TOP_MEM2: { msr: 0xc001_001d, count: 1 },
  NB_CFG: { msr: 0xc001_001f, count: 1 },
  /** MCi_CTL_MASK, one number a bank; banks above 6 have none. */
  MACHINE_CHECK_MASKS: { msr: 0xc001_0044, count: 7 },
  INTERRUPT_PENDING: { msr: 0xc001_0055, count: 1 },
  MMIO_CONFIGURATION_BASE: { msr: 0xc001_0058, count: 1 },
  PSTATE_CONTROL: { msr: 0xc001_0062, count: 1 },
  SMM_ADDR: { msr: 0xc001_0112, count: 1 },
  SMM_MASK: { msr: 0xc001_0113, count: 1 },
  IGNNE: { msr: 0xc001_0115, count: 1 },
  /** The key, which reads as zero. */
  SMM_KEY: { msr: 0xc001_0119, count: 1 },
  /** OSVW_ID_Length, OSVW_Status. */
  OSVW: { msr: 0xc001_0140, count: 2 },
  /** LS_CFG, IC_CFG, DC_CFG, BU_CFG. */
  UNIT_CONFIGURATION: { msr: 0xc001_1020, count: 4 },
  FP_CFG: { msr: 0xc001_1028, count: 1 },
  DE_CFG: { msr: 0xc001_1029, count: 1 },
  /** BU_CFG2 to BP_CFG. */
  UNIT_CONFIGURATION_2: { msr: 0xc001_102a, count: 5 },
} as const satisfies Readonly<Record<string, MsrRange>>;

const RANGES: readonly MsrRange[] = Object.values(StoredMsr);

export const isStoredMsr = (number: number): boolean =>
  RANGES.some(({ msr, count }) => number >= msr && number < msr + count);

/**
 * Model-specific registers that only hold what was written: nothing of the processor looks at them but RDMSR and RDPMC.
 * They are too many for slots of their own and are kept by number instead, beside the register file; the event of a WRMSR
 * (`cpu.msr`) brings the value.
 * Source: APM vol.2 §9.3.2 Error-Reporting Register Banks, §13.2.1 Performance Counters, §10.2.5 SMRAM Protected Areas.
 */

/** By number in decimal; what is not there was never written and reads as zero. */
export type StoredMsrs = Record<string, bigint>;

/** MCi_CTL, MCi_STATUS, MCi_ADDR, MCi_MISC, four numbers a bank. */
export const MACHINE_CHECK_BANKS = { msr: 0x400, count: 4 * 32 } as const;
/** MCi_CTL_MASK, one number a bank. */
export const MACHINE_CHECK_MASKS = { msr: 0xc001_0044, count: 32 } as const;
export const PERFORMANCE_COUNTERS = 4;
export const PERFORMANCE_SELECT = { msr: 0xc001_0000, count: PERFORMANCE_COUNTERS } as const;
export const PERFORMANCE_COUNTER = { msr: 0xc001_0004, count: PERFORMANCE_COUNTERS } as const;
export const SMM_ADDR = { msr: 0xc001_0112, count: 1 } as const;
export const SMM_MASK = { msr: 0xc001_0113, count: 1 } as const;

const STORED = [
  ...[MACHINE_CHECK_BANKS, MACHINE_CHECK_MASKS, PERFORMANCE_SELECT, PERFORMANCE_COUNTER],
  ...[SMM_ADDR, SMM_MASK],
];

export const isStoredMsr = (number: number): boolean =>
  STORED.some(({ msr, count }) => number >= msr && number < msr + count);

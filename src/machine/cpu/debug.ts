/**
 * Debug registers: which breakpoints an access hits, and what a debug exception leaves in DR6 and DR7.
 * Source: APM vol.2 §13.1 Software-Debug Resources: §13.1.1 Debug Registers, §13.1.2 Setting Breakpoints, §13.1.3 Using
 * Breakpoints.
 */
import { CR4, R, type Slot } from '../layout/cpu-state.js';
import { u64 } from '../units.js';
import type { SlotReader } from './mode.js';

/** DR6 bits (APM vol.2 §13.1.1.2). */
export const DR6 = {
  /** B0..B3: the breakpoint register that matched. */
  BREAKPOINTS: 0xfn,
  /** Clear after a bus lock trap; one on processors without. As a cause it stands for the trap. */
  BLD: 1n << 11n,
  /** Debug-register access detected. */
  BD: 1n << 13n,
  /** Single step. */
  BS: 1n << 14n,
  /** Task switch. */
  BT: 1n << 15n,
  /** Bits that always read as one, and BLD. */
  ONES: 0xffff_0ff0n,
} as const;

/** DR7 bits (APM vol.2 §13.1.1.3). */
export const DR7 = {
  /** L0 G0 L1 G1 L2 G2 L3 G3. */
  ENABLES: 0xffn,
  /** General detect: the next MOV DR faults. */
  GD: 1n << 13n,
  /** Reads as one. */
  ONE: 1n << 10n,
} as const;

/** DebugCtl bits (APM vol.2 §13.1.1.7 Debug-Control MSR): LBR, BTF and BLCKDB; the pin controls are storage. */
export const DEBUG_CTL = { LBR: 1n << 0n, BTF: 1n << 1n, BLCKDB: 1n << 2n } as const;
export const DEBUG_CTL_DEFINED = 0x3fn;

/** What a breakpoint watches: R/W field of DR7. */
const Watch = { EXECUTE: 0, WRITE: 1, IO: 2, ACCESS: 3 } as const;
/** Bytes by LEN field: 1, 2, 8, 4. */
const LENGTHS = [1, 2, 8, 4] as const;

/** True when any breakpoint is enabled: the engine must then show every access. */
export const breakpointsEnabled = (cpu: SlotReader): boolean => (cpu.get(R.dr7) & DR7.ENABLES) !== 0n;

/** Breakpoints that hit the instruction at linear address `linear`, as DR6 bits 3:0. RFLAGS.RF is the caller's to test. */
export const executionHits = (cpu: SlotReader, linear: bigint): bigint =>
  hits(cpu, linear, 1, (watch) => watch === Watch.EXECUTE);

/** Breakpoints that a data access hits, as DR6 bits 3:0. @param linear address of the first byte. */
export const dataHits = (cpu: SlotReader, linear: bigint, size: number, write: boolean): bigint =>
  hits(cpu, linear, size, (watch) => watch === Watch.ACCESS || (write && watch === Watch.WRITE));

/** Breakpoints that an I/O access hits, as DR6 bits 3:0; only with CR4.DE. */
export const ioHits = (cpu: SlotReader, port: number, size: number): bigint =>
  (cpu.get(R.cr4) & CR4.DE) === 0n ? 0n : hits(cpu, BigInt(port), size, (watch) => watch === Watch.IO);

function hits(cpu: SlotReader, first: bigint, size: number, watches: (watch: number) => boolean): bigint {
  const dr7 = cpu.get(R.dr7);
  if ((dr7 & DR7.ENABLES) === 0n) return 0n;
  let found = 0n;
  for (let number = 0; number < 4; number++) {
    if (((dr7 >> BigInt(2 * number)) & 3n) === 0n) continue;
    const field = Number((dr7 >> BigInt(16 + 4 * number)) & 0xfn);
    if (!watches(field & 3)) continue;
    const length = (field & 3) === Watch.EXECUTE ? 1n : BigInt(LENGTHS[(field >> 2) as 0 | 1 | 2 | 3]);
    const start = cpu.get((R.dr0 + number) as Slot) & ~(length - 1n);
    // Both ranges are compared from where the access begins, so that they may lie at the end of the address space.
    const apart = u64(start - first);
    if (apart < BigInt(size) || u64(first - start) < length) found |= 1n << BigInt(number);
  }
  return found;
}

/**
 * What a debug exception writes: its cause into DR6, and DR7.GD clear so that the handler may use the registers.
 * @returns the changes; the caller makes them.
 */
export function recordDebug(cpu: SlotReader, cause: bigint): readonly (readonly [Slot, bigint])[] {
  return [
    [R.dr6, statusAfter(cpu.get(R.dr6), cause)],
    [R.dr7, cpu.get(R.dr7) & ~DR7.GD],
  ];
}

/** All but a bus lock leaves BLD as it is (APM vol.2 §13.1.3.6 Bus Lock Trap). */
function statusAfter(dr6: bigint, cause: bigint): bigint {
  const kept = dr6 & ~DR6.BREAKPOINTS & ~(cause & DR6.BLD);
  return kept | (cause & ~DR6.BLD) | (DR6.ONES & ~DR6.BLD);
}

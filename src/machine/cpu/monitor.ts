/**
 * The line that MONITOR watches. Whether anyone wrote to it shows in its content: MONITOR keeps a digest of the line, and
 * a wait is over when the digest is another. A store of what the line already holds goes unseen; it tells nobody anything.
 *
 * Slot `monitorAddress`: sPA of the line, and two flags below; `monitorDigest`: of the line when MONITOR executed.
 * Source: APM vol.3, MONITOR, MWAIT; APM vol.2 §3.2.2 (CPUID Fn0000_0005 gives the size of the line).
 */
import { Activity, R } from '../layout/cpu-state.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { SlotReader } from './mode.js';

export const MONITOR_LINE_BYTES = 64;

/** Bits of `monitorAddress` below the line. */
export const Monitor = {
  /** MONITOR has executed and no MWAIT after it. */
  ARMED: 1n,
  /** MWAIT waits for a write to the line. */
  WAITING: 2n,
} as const;

const FLAGS = BigInt(MONITOR_LINE_BYTES - 1);

/** @param line sPA, aligned. @returns 64 bits; 0 for what is not RAM. */
export function lineDigest(memory: PhysicalMemory, line: number): bigint {
  if (!memory.isRam(line, MONITOR_LINE_BYTES)) return 0n;
  // FNV-1a over words, twice: no two lines that differ in one word have the same.
  let low = 0x811c_9dc5;
  let high = 0x0100_0193;
  for (let at = line; at < line + MONITOR_LINE_BYTES; at += 4) {
    const word = memory.read32(at);
    low = Math.imul(low ^ word, 0x0100_0193);
    high = Math.imul(high + word, 0x85eb_ca6b) ^ (high >>> 15);
  }
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

/** Someone has written to the line since MONITOR. */
export const lineChanged = (cpu: SlotReader, memory: PhysicalMemory): boolean =>
  lineDigest(memory, Number(cpu.get(R.monitorAddress) & ~FLAGS)) !== cpu.get(R.monitorDigest);

/** A vCPU whose MWAIT is over because of a write. */
export const monitorHit = (cpu: SlotReader, memory: PhysicalMemory): boolean =>
  cpu.get(R.activity) === Activity.MWAIT &&
  (cpu.get(R.monitorAddress) & Monitor.WAITING) !== 0n &&
  lineChanged(cpu, memory);

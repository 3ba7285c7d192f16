/**
 * The global interrupt flag, and what waits while it is clear.
 * Source: APM vol.2 §15.17 Global Interrupt Flag, STGI and CLGI Instructions, table 15-10.
 */
import type { SlotReader } from '../cpu/mode.js';
import type { Transaction } from '../cpu/transaction.js';
import { Boundary, R, SvmMode } from '../layout/cpu-state.js';

export const gifSet = (cpu: SlotReader): boolean => (cpu.get(R.svmMode) & SvmMode.GIF) !== 0n;

export function setGif(tx: Transaction, set: boolean): void {
  const mode = tx.get(R.svmMode);
  tx.set(R.svmMode, set ? mode | SvmMode.GIF : mode & ~SvmMode.GIF);
}

/** True when an NMI that is pending is recognised now: taken, or #VMEXIT(NMI). */
export function nmiAllowed(cpu: SlotReader): boolean {
  const held = Boundary.NMI_BLOCKED | Boundary.INTERRUPT_SHADOW;
  return gifSet(cpu) && (cpu.get(R.boundary) & held) === 0n;
}

/** INIT and external SMI wait for GIF, and for the end of system-management mode (APM vol.2 §10.3.3). */
export const initAllowed = (cpu: SlotReader): boolean => gifSet(cpu) && !inSmm(cpu);
export const smiAllowed = (cpu: SlotReader): boolean => gifSet(cpu) && !inSmm(cpu);
const inSmm = (cpu: SlotReader): boolean => (cpu.get(R.boundary) & Boundary.IN_SMM) !== 0n;

/** Matches of breakpoint registers are ignored and discarded while GIF is clear; single steps are not. */
export const breakpointsDiscarded = (cpu: SlotReader): boolean => !gifSet(cpu);

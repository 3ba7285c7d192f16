/**
 * Alignment checks of programs at CPL 3: on while CR0.AM and RFLAGS.AC are set. Operands of more than eight bytes have
 * rules of their own (#GP where the instruction wants alignment, nothing where it does not).
 * Source: APM vol.2 §8.2.18 #AC—Alignment-Check Exception (table 8-7).
 */
import { GuestFault, Vector } from '../faults.js';
import { CR0, Flag, R } from '../layout/cpu-state.js';
import type { SlotReader } from './mode.js';

/**
 * @param cpl privilege level that the access is made at.
 * @throws GuestFault #AC(0).
 */
export function checkAlignment(cpu: SlotReader, linear: bigint, bytes: number, cpl: bigint): void {
  if (bytes > 8 || cpl !== 3n || (linear & BigInt(bytes - 1)) === 0n) return;
  if ((cpu.get(R.rflags) & Flag.AC) === 0n || (cpu.get(R.cr0) & CR0.AM) === 0n) return;
  throw new GuestFault(Vector.AC, 0);
}

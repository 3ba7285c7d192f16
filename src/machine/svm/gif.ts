/**
 * The global interrupt flag. What waits while it is clear: see interrupt-block.ts.
 * Source: APM vol.2 §15.17 Global Interrupt Flag, STGI and CLGI Instructions, table 15-10.
 */
import type { SlotReader } from '../cpu/mode.js';
import { type HalvesWriter, R, SvmMode } from '../layout/cpu-state.js';

const GIF = Number(SvmMode.GIF);

export const gifSet = (cpu: SlotReader): boolean => (cpu.get(R.svmMode) & SvmMode.GIF) !== 0n;

export function setGif(tx: HalvesWriter, set: boolean): void {
  const mode = tx.low(R.svmMode);
  tx.setHalves(R.svmMode, set ? mode | GIF : mode & ~GIF, 0);
}

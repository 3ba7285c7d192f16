/**
 * The memory map that every boot protocol hands over, as the BIOS function that gave it its name and its types does.
 * Source: ACPI Specification 6.5, §15.1 INT 15H, E820H – Query System Address Map, §15.4 (table 15.6).
 */
import { CONVENTIONAL_END, HIGH_MEMORY } from './segments.js';

const MapType = { AVAILABLE: 1, RESERVED: 2 } as const;

export interface MapRange {
  readonly start: number;
  readonly end: number;
  readonly type: number;
}

/** Ranges in order; empty ones are left out. The firmware's tables lie in the reserved one below 1 MiB. */
export function memoryMap(ramBytes: number): readonly MapRange[] {
  return [
    { start: 0, end: CONVENTIONAL_END, type: MapType.AVAILABLE },
    { start: CONVENTIONAL_END, end: 0xa_0000, type: MapType.RESERVED },
    { start: 0xf_0000, end: HIGH_MEMORY, type: MapType.RESERVED },
    { start: HIGH_MEMORY, end: ramBytes, type: MapType.AVAILABLE },
  ].filter(({ start, end }) => end > start);
}

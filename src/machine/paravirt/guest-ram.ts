/**
 * Guest RAM as KVM's interface names it: by 64-bit guest-physical addresses that software wrote. Each write is one, so no
 * reader finds a structure half written.
 */
import type { Fields, Layout, View } from '../layout/layout.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { sPA } from '../units.js';

/** True when all of `length` bytes (at most a page) at `address` are RAM. */
export const isGuestRam = (memory: PhysicalMemory, address: bigint, length: number): boolean =>
  address <= Number.MAX_SAFE_INTEGER && memory.isRam(Number(address), length);

/** Changes a structure in RAM. @param change gets the fields as they are. */
export function updateStructure<F extends Fields>(
  memory: PhysicalMemory,
  layout: Layout<F>,
  address: bigint,
  change: (fields: View<F>) => void,
): void {
  const at = sPA(Number(address));
  const bytes = memory.window(at, layout.bytes).slice();
  change(layout.at(new DataView(bytes.buffer), 0));
  memory.copyIn(at, bytes);
}

/**
 * One row of the table of model-specific registers (`msr.ts`).
 */
import type { Slot } from '../layout/cpu-state.js';
import type { CpuProfile } from './cpuid.js';
import type { SystemContext } from './system-context.js';

export interface MsrRow {
  /** First number, and how many numbers the row covers. */
  readonly msr: number;
  readonly count?: number;
  readonly name: string;
  readonly source: string;
  /** Which profiles have it, and which of the row's numbers; all, when absent. */
  readonly exists?: ((profile: CpuProfile, index: number) => boolean) | undefined;
  /** The register slot that holds it, where one does. */
  readonly slot?: Slot;
  /** @param index place within the row. @returns undefined when there is no such register after all. */
  readonly read: (context: SystemContext, index: number) => bigint | undefined;
  /**
   * @returns false when there is no such register after all; `dropped` when the register stays as it was.
   * @throws GuestFault #GP for a value that the register refuses.
   */
  readonly write: (context: SystemContext, value: bigint, index: number) => boolean | 'dropped';
}

/**
 * What a save, a transfer or a restore may do wrong. Torture that is asked for has none of it: only its tests do, which
 * hold it against the bugs that other hypervisors had.
 */
import type { Machine } from '../../machine/index.js';
import type { Components, Fields } from '../snapshot/components.js';

/** What has been put back so far, by component. */
export type Arrived = Map<string, Fields>;

export interface RestoreFault {
  /** What is saved instead of the machine's state. */
  saved?(components: Components): Components;
  /**
   * A component has been put back.
   * @param arrived that and those before it, which may be changed. @param fresh a machine's that has just been made.
   */
  put?(component: string, arrived: Arrived, fresh: Components): void;
  /** What arrives of a page of RAM that was written to since the boundary before. */
  page?(page: number, content: Uint8Array): Uint8Array;
  /** The machine stands where it was saved. */
  restored?(machine: Machine): void;
}

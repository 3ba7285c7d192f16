/** The unit of the index of writes. */
import type { Position } from './record.js';

/** A stretch of a tape, and what of RAM may have been written to in it. */
export interface WriteStretch {
  readonly start: Position;
  readonly end: Position;
  /** Page numbers, ascending. */
  readonly pages: Uint32Array;
}

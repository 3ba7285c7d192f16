/** What it costs about to run a stretch of a session again: on the machine that docs/adr/0040 was measured on. */
import type { Position } from '../journal/index.js';

const INSTRUCTION = 1;
const EVENT = 2000;

/** In nanoseconds. A place may be an estimate, whose events lie before those of the other: they count nothing then. */
export const runCost = (from: Position, to: Position): number =>
  Math.max(0, Number(to.icount - from.icount)) * INSTRUCTION + Math.max(0, Number(to.seq - from.seq)) * EVENT;

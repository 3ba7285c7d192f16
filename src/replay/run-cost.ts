/** What it costs about to run a stretch of a session again: on the machine that docs/adr/0026 was measured on. */
import type { Position } from '../journal/index.js';

const INSTRUCTION = 3;
const EVENT = 5000;

/** In nanoseconds. */
export const runCost = (from: Position, to: Position): number =>
  Number(to.icount - from.icount) * INSTRUCTION + Number(to.seq - from.seq) * EVENT;

/** Two machines that are to do the same, however each does it. */
import { expect } from 'vitest';
import type { LiveMachine } from './live-machine.js';

/**
 * The same session on the evaluator and on the engine, in pieces of `piece` instructions: registers after each piece, events and RAM at
 * the end.
 */
export function compareMachines<M extends LiveMachine>(piece: number, make: () => M): { evaluated: M; run: M } {
  const [evaluated, run] = [make(), make()];
  evaluated.machine.watch(undefined, 'evaluator');
  const state = (live: LiveMachine) => ({
    retired: live.retired,
    registers: [...(live.machine.registers as unknown as BigUint64Array)],
  });
  for (let pieces = 0; pieces * piece < 3000; pieces++) {
    const stops = [evaluated.run(piece), run.run(piece)];
    expect(stops[1]).toBe(stops[0]);
    expect(state(run)).toEqual(state(evaluated));
    if (stops[0] !== 'limit') break;
  }
  expect(run.stated).toEqual(evaluated.stated);
  expect(Buffer.compare(run.memory.window(0, 1 << 22), evaluated.memory.window(0, 1 << 22))).toBe(0);
  return { evaluated, run };
}

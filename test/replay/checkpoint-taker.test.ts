/** When a recording takes its checkpoints: docs/adr/0026 and 0040. */
import { describe, expect, it } from 'vitest';
import type { Machine } from '../../src/machine/index.js';
import { CheckpointTaker } from '../../src/replay/checkpoint-taker.js';

/** @returns instructions after which one is due, when so many pages have been written to, in a session without events. */
function interval(pages: number): number {
  const machine = { retired: 0, memory: { pagesWrittenSince: () => new Uint32Array(pages) } };
  const taker = new CheckpointTaker(machine as unknown as Machine, 'adaptive');
  while (!taker.isDue(0n)) machine.retired += 10_000_000;
  return machine.retired;
}

describe('an adaptive interval', () => {
  it('is 120 million instructions where few pages are written to', () => {
    expect(interval(0)).toBe(120_000_000);
    expect(interval(250)).toBe(120_000_000);
  });

  it('is longer the more pages are written to', () => {
    expect(interval(500)).toBe(240_000_000);
    expect(interval(1000)).toBe(480_000_000);
  });

  it('is never longer than 600 million, however many they are', () => {
    expect(interval(100_000)).toBe(600_000_000);
  });
});

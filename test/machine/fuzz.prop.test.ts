/**
 * Evaluator and engine, machine against machine, over random programs with faults and mode changes: event by event, and
 * register by register and byte by byte at the end of each program. What programs are made of: tools/fuzz.
 *
 * This is the short run; `npm run fuzz -- --instructions 10000000` is the long one.
 */
import { describe, expect, it } from 'vitest';
import { Evaluator } from '../../src/machine/isa/evaluate.js';
import { Campaign } from '../../tools/fuzz/campaign.js';
import { coverageFloor, missedForms } from '../../tools/fuzz/report.js';

const INSTRUCTIONS = 300_000;
const SEED = 1;

describe('random programs', () => {
  it(`of ${INSTRUCTIONS.toLocaleString('en')} instructions in all run alike on the evaluator and on the engine`, {
    timeout: 0,
  }, () => {
    const { failure, retired, coverage } = new Campaign(SEED).run({ instructions: INSTRUCTIONS, seed: SEED });
    expect(failure).toBeUndefined();
    // Programs that hardly run, or leave all to the evaluator, would test nothing.
    expect(retired).toBeGreaterThanOrEqual(INSTRUCTIONS);
    expect(coverage.compiledShare).toBeGreaterThan(0.4);
    expect(missedForms(coverage, coverageFloor(retired))).toEqual([]);
  });

  it('that end differently are found, and cut to the instruction that differs', () => {
    const { xor } = Evaluator.prototype;
    try {
      // An evaluator whose XOR is wrong in one case.
      Evaluator.prototype.xor = (a, b) => (a === b ? 1n : a ^ b);
      const { failure } = new Campaign(SEED).run({ instructions: INSTRUCTIONS, seed: SEED });
      expect(failure).toMatchObject({ before: 0, instruction: expect.stringMatching(/\b(xor|btc|bls)/) });
    } finally {
      Evaluator.prototype.xor = xor;
    }
  }, 120_000);
});

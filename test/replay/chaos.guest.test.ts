/** Chaos over whole sessions: it breaks a race, and nothing that is right; its tapes replay and fold like any other. */
import { describe, expect, it } from 'vitest';
import { DEFAULT_CONFIG } from '../../src/machine/index.js';
import { randomPlan } from '../../src/replay/chaos.js';
import { searchChaos, type TriedSession, tryPlan } from '../../src/replay/chaos-search.js';
import { FoldChecker, Replayer } from '../../src/replay/index.js';
import { MEBIBYTE, recordGuest, sessionOptions } from '../support/sessions.js';

const tried = (options: string, quantumInstructions = DEFAULT_CONFIG.quantumInstructions): TriedSession => ({
  ...sessionOptions('lost-wakeup.elf'),
  commandLine: `lost-wakeup.elf patience=60000 ${options}`,
  config: { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE, vcpus: 2, quantumInstructions },
  limit: 20_000_000,
});
const SUCCESS = { ended: 'debug-exit', status: 1, matched: false } as const;
const LOST = { ended: 'debug-exit', status: 7, matched: false } as const;
const seeds = (count: number): readonly bigint[] => Array.from({ length: count }, (_, index) => BigInt(index + 1));

describe('a hypervisor that loses a wake-up between its look and VMRUN', () => {
  it('gets through 50 plain sessions with turns of all lengths', () => {
    for (let run = 0; run < 50; run++) {
      expect(tryPlan(tried('', 10_000 + 5_003 * run)).verdict).toEqual(SUCCESS);
    }
  });

  it('is caught by chaos within 200 seeds, and by at most three perturbations in the end; the tape replays', () => {
    const finding = searchChaos(tried(''), SUCCESS, seeds(200));
    expect(finding?.verdict).toEqual(LOST);
    const shrunk = finding?.shrunk ?? [];
    expect(shrunk.length).toBeGreaterThan(0);
    expect(shrunk.length).toBeLessThanOrEqual(3);

    const { image, commandLine, config } = tried('');
    const { store } = recordGuest('lost-wakeup.elf', { image, commandLine, config, chaos: shrunk });
    const reader = store.read();
    const replayer = new Replayer(reader);
    expect(replayer.run()).toMatchObject({ kind: 'identical', ending: 'ended' });
    expect(replayer.machine.state.ended).toEqual({ reason: 'debug-exit', status: LOST.status });
    for (const [index] of shrunk.entries()) {
      const without = shrunk.filter((_, other) => other !== index);
      expect(tryPlan(tried(''), without).verdict).toEqual(SUCCESS);
    }
  });

  it('is not caught once it is mended', () => {
    expect(searchChaos(tried('fixed=1'), SUCCESS, seeds(60))).toBeUndefined();
  });
});

describe('chaos', () => {
  const config = { ...DEFAULT_CONFIG, ramBytes: 16 * MEBIBYTE, vcpus: 3 };

  it.each(seeds(2))('of seed %s breaks nothing that is right, and its tape replays and folds', (seed) => {
    const record = () =>
      recordGuest('smp.elf', { config, commandLine: 'smp.elf rounds=200', chaos: randomPlan(seed, 3) });
    const { store, recorder, output } = record();
    expect(output).not.toContain('FAIL');
    expect(recorder.machine.state.ended).toEqual({ reason: 'debug-exit', status: 1 });
    expect(recorder.perturbations.length).toBeGreaterThan(0);
    const reader = store.read();
    expect([...record().store.read().chunks()].map(({ raw }) => raw)).toEqual(
      [...reader.chunks()].map(({ raw }) => raw),
    );
    const fold = new FoldChecker(reader);
    const replayer = new Replayer(reader, { observe: fold.check });
    fold.watch(replayer.machine);
    expect(replayer.run()).toMatchObject({ kind: 'identical' });
    expect(fold.checked).toBe(Number(reader.end.seq));
  });

  it('delays the interrupts of one vCPU, and no more', () => {
    const options = { commandLine: 'nested-timer.elf', config: { ...config, vcpus: 1 } };
    const { recorder, output } = recordGuest('nested-timer.elf', { ...options, chaos: randomPlan(5n, 1) });
    expect(recorder.machine.state.ended).toEqual({ reason: 'debug-exit', status: 1 });
    expect(output).not.toContain('FAIL');
    expect(recorder.perturbations.length).toBeGreaterThan(0);
  });
});

/** `--profile` changes nothing of what is recorded, says the same each time, and counts right. */
import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../../src/journal/index.js';
import { DEFAULT_CONFIG, type Level, type StatedEvent } from '../../../src/machine/index.js';
import { Recorder } from '../../../src/replay/index.js';
import { ExitCosts } from '../../../tools/profile/exit-costs.js';
import { Profile, type ProfileDocument } from '../../../tools/profile/profile.js';
import { LevelSymbols } from '../../../tools/symbols/level-symbols.js';
import { MEBIBYTE, type RecordedHow, sessionOptions } from '../../support/sessions.js';
import { image, vmtape } from '../vmtape.js';

interface Recorded {
  readonly history: string;
  readonly document: ProfileDocument | undefined;
  readonly retired: number;
}

function record(file: string, changes: Partial<RecordedHow>, profiles: boolean): Recorded {
  const store = memoryStore();
  let profile: Profile | undefined;
  const options = { ...sessionOptions(file, changes), observe: (stated: StatedEvent) => profile?.take(stated) };
  const recorder = Recorder.boot(store, options);
  let seconds = 0;
  profile = profiles ? new Profile(recorder.machine, new LevelSymbols(), () => ++seconds) : undefined;
  recorder.sampler = profile?.sampler;
  recorder.endInput();
  while (recorder.step(changes.limit) === 'running');
  recorder.finish();
  const reader = store.read();
  const history = reader.historyDigest(reader.end.seq);
  return { history, document: profile?.document(), retired: recorder.machine.retired };
}

describe.each<readonly [string, Partial<RecordedHow>]>([
  ['nested-timer.elf', {}],
  ['smp.elf', { config: { ...DEFAULT_CONFIG, ramBytes: 64 * MEBIBYTE, vcpus: 4 } }],
  ['compute.elf', { limit: 3_000_000, checkpointEvery: 500_000 }],
  ['exits.elf', { checkpointEvery: 10_000 }],
])('a profile of %s', (file, changes) => {
  const plain = record(file, changes, false);
  const profiled = record(file, changes, true);

  it('leaves the tape as it is, and is the same again', () => {
    expect(profiled.history).toBe(plain.history);
    expect(record(file, changes, true).document).toEqual(profiled.document);
  });

  it('counts every instruction once', () => {
    const { instructions, functions, samples, tiers } = profiled.document as ProfileDocument;
    expect(instructions.L1 + instructions.L2).toBe(profiled.retired);
    expect(tiers.evaluated + tiers.executed).toBe(profiled.retired);
    expect(tiers.evaluated).toBeGreaterThan(0);
    const sampled = functions.reduce((sum, { instructions: count }) => sum + count, 0);
    expect(sampled).toBeLessThanOrEqual(profiled.retired);
    if (samples > 10) expect(sampled).toBeGreaterThan(0.5 * profiled.retired);
  });
});

it('the exits of a profile are those on the tape, with what L1 ran until its VMRUN', () => {
  const { document } = record('exits.elf', {}, true);
  const [vmmcall] = document?.exits ?? [];
  expect(vmmcall?.count).toBe(1000);
  expect(vmmcall?.instructions).toBeGreaterThan(vmmcall?.count ?? 0);
  expect(vmmcall?.hostSeconds).toBeGreaterThan(0);
});

it('what lies between an exit and the VMRUN of the same vCPU is its cost, whatever other vCPUs do', () => {
  let now = 0;
  const costs = new ExitCosts(() => now);
  const take = (vcpu: number, level: Level, retired: number, type: string, seconds: number): void => {
    now += seconds;
    costs.take({ retired, vcpu, level, event: { type, code: 0x72n } as unknown as StatedEvent['event'] });
  };
  take(0, 2, 10, 'cpu.ran', 1);
  take(0, 2, 0, 'svm.vmexit', 1);
  take(0, 1, 20, 'cpu.ran', 1);
  take(1, 1, 500, 'cpu.ran', 8);
  take(0, 1, 3, 'cpu.ran', 1);
  take(0, 1, 1, 'svm.vmrun', 1);
  take(0, 2, 7, 'cpu.ran', 1);
  expect(costs.exits).toEqual([{ code: 0x72n, count: 1, instructions: 24, seconds: 3 }]);
  expect(costs.instructions).toEqual({ 1: 524, 2: 17 });
  expect(costs.seconds).toEqual({ 1: 11, 2: 3 });
});

describe('vmtape run --profile', () => {
  const flags = ['--serial', 'null', '--memory', '64M', '--seed', '1', '--clock', '2026-01-01'];

  it('prints a page, and figures of the tiers with --stats', () => {
    const { status, stdout, stderr } = vmtape(['run', image('exits.elf'), ...flags, '--profile', '--stats', '-q']);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    const [stats = '', ...page] = stderr.split('\n');
    const { tiers } = JSON.parse(stats) as { readonly tiers: Readonly<Record<string, number>> };
    expect(tiers).toMatchObject({ evaluated: expect.any(Number), regionsMade: expect.any(Number) });
    expect(page.join('\n')).toMatch(/L2 [\s\S]*instructions by function, of [\s\S]*\nvmmcall [\s\S]*\nregions /);
  });

  it('refuses files of symbols that are none, or that nobody asked for', () => {
    const wrong = vmtape(['run', image('exits.elf'), ...flags, '--profile', '--symbols', image('hello64-flat.bin')]);
    expect(wrong).toMatchObject({ status: 2, stderr: expect.stringContaining('Give an ELF file with symbols') });
    const alone = vmtape(['run', image('exits.elf'), ...flags, '--symbols', image('exits.elf')]);
    expect(alone).toMatchObject({ status: 2, stderr: expect.stringContaining('--symbols is for --profile') });
  });
});

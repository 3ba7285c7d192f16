/** A recorded nested guest against logs of it: written from the tape, cut, and with something planted. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { sqliteStore } from '../../../src/journal/index.js';
import { exitName } from '../../../src/machine/index.js';
import { alignCommand } from '../../../tools/cli/commands/align.js';
import { conformCommand } from '../../../tools/cli/commands/conform.js';
import { type TapeExit, tapeExits } from '../../../tools/import/tape-exits.js';
import { recordGuest } from '../../support/sessions.js';
import { inProcess } from '../in-process.js';
import { image, STACK, temporaryFolder, vmtape } from '../vmtape.js';
import { GENERATIONS, logFile, renderLog, type Step } from './log-text.js';

const folder = temporaryFolder();
const tape = join(folder, 'nested.vmtape');
let exits: readonly TapeExit[] = [];

beforeAll(() => {
  const { store } = recordGuest('nested.elf', { store: sqliteStore(tape), commandLine: 'nested.elf rounds=1' });
  const reader = store.read();
  exits = [...tapeExits(reader)];
  reader.close();
});

/** What KVM as L0 would have logged of these exits; the host's interrupts come in between. */
function stepsOf(taken: readonly TapeExit[]): readonly Step[] {
  return taken.flatMap(({ code, rip, info1 }, index): readonly Step[] => {
    const exit = { exit: exitName(code), rip: rip ?? 0n, info1 };
    return [
      { vcpu: 0, happening: { what: 'vmrun' } },
      ...(index % 5 === 0
        ? ([
            { vcpu: 0, happening: { what: 'nested-exit', exit: 'intr', rip: 0x1234n } },
            { vcpu: 0, happening: { what: 'entry' } },
          ] as const)
        : []),
      { vcpu: 0, happening: { what: 'nested-exit', ...exit } },
      { vcpu: 0, happening: { what: 'reflected', ...exit } },
      { vcpu: 0, happening: { what: 'entry' } },
    ];
  });
}

const run = (...args: readonly string[]) => inProcess([alignCommand, conformCommand], args);

const aligned = async (generation: string, taken: readonly TapeExit[], ...flags: readonly string[]) => {
  const file = logFile(folder, renderLog(generation, stepsOf(taken)).lines);
  const { status, stdout, stderr } = await run('align', tape, file, '--json', ...flags);
  expect(stderr).toBe('');
  return { status, ...JSON.parse(stdout) };
};

const byTime = /^(?:intr|nmi|smi|init|vintr)$/;
const compared = (taken: readonly TapeExit[]): number =>
  taken.filter(({ code }) => !byTime.test(exitName(code))).length;

describe('align', () => {
  it('knows the guest’s RIP at every exit of a tape', () => {
    expect(exits.length).toBeGreaterThan(60);
    expect(exits.every(({ rip }) => rip !== undefined)).toBe(true);
  });

  it.each(Object.keys(GENERATIONS).filter((_, index) => index % 2 === 0))(
    'finds a log in the form of %s the same to its end',
    async (generation) => {
      const { status, exits: whose, vcpus } = await aligned(generation, exits);
      expect(status).toBe(0);
      expect(whose).toBe('nested');
      expect(vcpus).toMatchObject([{ vcpu: 0, same: compared(exits), ahead: 0, differs: null, ended: 'log' }]);
    },
  );

  it('finds where on the tape a log begins', async () => {
    const [skipped, rest] = [exits.slice(0, 40), exits.slice(40)];
    const { status, vcpus } = await aligned('perf script', rest);
    expect(status).toBe(0);
    expect(vcpus).toMatchObject([{ same: compared(rest), ahead: compared(skipped), differs: null }]);
  });

  it('tells the first exit that differs, and those before it, with status 1', async () => {
    const at = exits.findIndex(({ code }, index) => index > 20 && !byTime.test(exitName(code)));
    const planted = exits.map((exit, index) => (index === at ? { ...exit, code: 0xa1n } : exit));
    const { status, vcpus } = await aligned('tracefs of Linux 5.10', planted);
    expect(status).toBe(1);
    const { position, rip, code } = exits[at] as TapeExit;
    expect(vcpus).toMatchObject([
      {
        same: compared(exits.slice(0, at)),
        before: [{}, {}, {}],
        differs: {
          tape: { position: `${position.icount}:${position.seq}`, exit: exitName(code), rip: String(rip) },
          log: { exit: 'invlpgb-illegal' },
        },
      },
    ]);
  });

  it('compares RIP and the information of I/O and MSR exits, unless told not to', async () => {
    const at = exits.findIndex(({ code }) => exitName(code) === 'ioio');
    const planted = exits.map((exit, index) => (index === at ? { ...exit, info1: exit.info1 ^ 0x10000n } : exit));
    expect((await aligned('tracefs of Linux 4', planted)).status).toBe(1);
    expect((await aligned('tracefs of Linux 4', planted, '--compare', 'rip')).status).toBe(0);
    const moved = exits.map((exit, index) => (index === 20 ? { ...exit, rip: 1n } : exit));
    expect((await aligned('tracefs of Linux 4', moved)).status).toBe(1);
    expect((await aligned('tracefs of Linux 4', moved, '--compare', 'code')).status).toBe(0);
  });

  it('shows people both sides, side by side', async () => {
    const planted = exits.map((exit, index) => (index === 25 ? { ...exit, rip: 1n } : exit));
    const file = logFile(folder, renderLog('trace-cmd on Linux 6.13', stepsOf(planted)).lines);
    const { status, stdout } = await run('align', tape, file);
    expect(status).toBe(1);
    expect(stdout).toContain('vCPU 0');
    expect(stdout).toMatch(/they part after \d+ exits the same/);
    expect(stdout).toMatch(/≠ .* 0000000000000001/);
  });
});

describe('logs on the command line', () => {
  it('conform: status 1 with something wrong, 0 without, progress and words as elsewhere', async () => {
    const step = (what: 'entry'): Step => ({ vcpu: 0, happening: { what } });
    const hlt = { what: 'nested-exit', exit: 'hlt' } as const;
    const steps: readonly Step[] = [
      { vcpu: 0, happening: { what: 'vmrun', word3: 1 << 24 } },
      { vcpu: 0, happening: hlt },
      step('entry'),
    ];
    const { lines } = renderLog('tracefs of Linux 6.13', steps);
    const wrong = await run('conform', logFile(folder, [...lines, 'what is this']));
    expect(wrong).toMatchObject({ status: 1, stderr: '' });
    expect(wrong.stdout).toMatch(
      /line 7 +vCPU 0 .* hlt +handled in L0 +model: HLT \(bit 24 at 00ch\) is set: L1 gets it/,
    );
    expect(wrong.stdout).toMatch(/1 line not understood:\n +9: what is this/);
    const right = lines.filter((line) => !line.includes('kvm_nested_intercepts'));
    const given = [
      '--intercepts',
      'cr_read: 0000 cr_write: 0000 excp: 00000000 intercepts: 00000000 00000001 00000000',
    ];
    expect(await run('conform', logFile(folder, right), ...given)).toMatchObject({ status: 0 });
    expect((await run('conform', logFile(folder, right), '--json')).stdout).toContain('does not show');
  });

  it('refuses what is no log, in words', async () => {
    const binary = join(folder, 'trace.dat');
    writeFileSync(binary, Buffer.from('\x17\x08\x44tracing6\0\0\x08', 'latin1'));
    for (const args of [
      ['conform', binary],
      ['conform', image('nested.elf')],
      ['conform', tape],
      ['conform', folder],
      ['conform', join(folder, 'none')],
      ['conform', logFile(folder, [''])],
      ['conform', binary, '--intercepts', 'all'],
      ['align', tape, binary],
      ['align', tape, logFile(folder, ['kvm_entry: vcpu 0'])],
      ['align', tape, logFile(folder, ['x']), '--ignore', 'nothing'],
      ['align', logFile(folder, ['x']), binary],
    ]) {
      const { status, stdout, stderr } = await run(...args);
      expect([args.slice(0, 2), status, stdout]).toEqual([args.slice(0, 2), 2, '']);
      expect(stderr).toMatch(/^vmtape: .+\n$/);
      expect(stderr).not.toMatch(STACK);
    }
  });

  it('reads a log that is longer than memory for it would be, line by line', () => {
    const round: readonly Step[] = stepsOf(exits.slice(0, 50));
    const text = `${renderLog('tracefs of Linux 5.10', round).lines.join('\n')}\n`;
    const file = join(folder, 'long.txt');
    writeFileSync(file, text.repeat(400));
    expect(readFileSync(file).length).toBeGreaterThan(12_000_000);
    const { status, stdout } = vmtape(['conform', file, '--json'], {
      env: { NODE_OPTIONS: '--max-old-space-size=64' },
    });
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ unparsed: 0 });
  });
});

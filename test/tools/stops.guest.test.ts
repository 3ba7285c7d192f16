/** What ends a recording from outside: signals, a full disk, another process. What was recorded stays good. */
import { spawnSync } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { flatImage, HALT, SPIN } from './flat-image.js';
import { FIXED, image, MAIN, STACK, startVmtape, temporaryFolder, until, vmtape } from './vmtape.js';

const folder = temporaryFolder();
/** A session that goes on for minutes, and states many events. */
const endless = (tape: string): string[] => [
  ...['record', image('exits.elf'), '-o', tape, ...FIXED, '--append', 'n=100000000', '--serial', 'null'],
];
const ENOUGH_BYTES = 60_000;

/** Starts the endless session and waits until a good part of it is on the tape. */
async function recording(name: string) {
  const tape = join(folder, `${name}.vmtape`);
  const started = startVmtape(endless(tape));
  await until(() => [tape, `${tape}-wal`].some((file) => existsSync(file) && statSync(file).size > ENOUGH_BYTES));
  return { tape, ...started };
}

interface Info {
  readonly state: string;
  readonly end: string;
  readonly ending: unknown;
}
const info = (tape: string): Info => JSON.parse(vmtape(['info', tape, '--json']).stdout);

function expectReplayable(tape: string): void {
  expect(vmtape(['verify', tape])).toMatchObject({ status: 0 });
  const { status, stdout } = vmtape(['replay', tape]);
  expect({ status, stdout }).toMatchObject({ status: 0, stdout: expect.stringMatching(/: identical: /) });
}

describe('a recording', () => {
  it.each(['SIGINT', 'SIGTERM'] as const)('ends cleanly at %s: the tape is complete, the status 0', async (signal) => {
    const { tape, child, ended } = await recording(signal);
    child.kill(signal);
    const { status, stderr } = await ended;
    expect(status).toBe(0);
    expect(stderr).toMatch(new RegExp(`^vmtape: stopped by ${signal}; .* instructions, .* events?, .* exits?, `));
    expect(info(tape)).toMatchObject({ state: 'complete', ending: null });
    expectReplayable(tape);
  });

  it('ends at once at a second SIGINT, and leaves what is stored', async () => {
    const { tape, child, ended } = await recording('twice');
    child.kill('SIGINT');
    child.kill('SIGINT');
    // The second signal may come when the session has ended already.
    expect([null, 0]).toContain((await ended).status);
    expectReplayable(tape);
  });

  it('that is killed leaves a tape that was cut, and replays to its last group', async () => {
    const { tape, child, ended } = await recording('killed');
    child.kill('SIGKILL');
    expect(await ended).toMatchObject({ status: null, signal: 'SIGKILL' });
    const { state, end } = info(tape);
    expect(state).toBe('cut');
    expect(BigInt(end.split(':')[1] ?? 0)).toBeGreaterThan(1000n);
    expectReplayable(tape);
    expect(vmtape(['info', tape]).stdout).toMatch(/cut: its recording was killed or failed/);
  });

  it('can be read while it goes on, and cannot be written by another process', async () => {
    const { tape, child, ended } = await recording('shared');
    expect(info(tape).state).toBe('recording');
    expectReplayable(tape);
    expect(vmtape(['log', tape, '--kind', 'svm.vmexit', '--limit', '3']).stdout.split('\n')).toHaveLength(4);
    const second = vmtape(endless(tape));
    expect(second).toMatchObject({ status: 2, stderr: expect.stringMatching(/shared\.vmtape: exists already/) });
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({ status: 0 });
    expect(info(tape).state).toBe('complete');
  });
});

describe('a guest', () => {
  const imageOf = (name: string, code: readonly number[]): string => {
    const path = join(folder, name);
    writeFileSync(path, flatImage(code));
    return path;
  };

  it('that states nothing and never ends is stopped like any other', async () => {
    const { child, ended } = startVmtape(['run', imageOf('spin.bin', SPIN), '--stats']);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    child.kill('SIGINT');
    const { status, stderr } = await ended;
    expect(status).toBe(0);
    expect(stderr).toMatch(/^vmtape: stopped by SIGINT; /);
  });

  it('that halts with interrupts off ends by itself', () => {
    const { status, stderr } = vmtape(['run', imageOf('halt.bin', HALT)]);
    expect({ status, stderr }).toEqual({
      status: 0,
      stderr: expect.stringMatching(/^vmtape: the guest halted, and nothing can wake it; /),
    });
  });
});

/** True where this process may mount a small disk of its own. */
const mayMount = spawnSync('unshare', ['-rm', 'true']).status === 0;

describe('a full disk while recording', () => {
  const MESSAGE = /^vmtape: .*\.vmtape: cannot write: .*\. Stored safely up to (\d+):(\d+)\. .*\n$/;

  it('as a limit of the file size: status 4, where it stopped, and what is kept replays', () => {
    const tape = join(folder, 'limited.vmtape');
    const { status, signal, stderr } = vmtape([...endless(tape), '-q'], {
      through: ['sh', '-c', 'ulimit -f 600; exec "$@"', 'sh'],
    });
    expect({ status, signal, stderr }).toEqual({ status: 4, signal: null, stderr: expect.stringMatching(MESSAGE) });
    expect(stderr).not.toMatch(STACK);
    expect(info(tape)).toMatchObject({ state: 'cut', end: MESSAGE.exec(stderr)?.slice(1).join(':') });
    expectReplayable(tape);
  });

  it.runIf(mayMount)('of one megabyte: status 4, where it stopped, and what is kept replays', () => {
    const script =
      'mount -t tmpfs -o size=1m none "$0" && cd "$0" && "$@"; echo $?; node "$2" verify t.vmtape; echo $?; node "$2" replay t.vmtape; echo $?';
    const args = [process.execPath, MAIN, ...endless('t.vmtape'), '-q'];
    const disk = join(folder);
    const { stdout, stderr } = spawnSync('unshare', ['-rm', 'sh', '-c', script, disk, ...args], {
      encoding: 'utf8',
      input: '',
    });
    expect(stderr).toMatch(/t\.vmtape: cannot write: the disk is full\. Stored safely up to \d+:\d+\. Make room/);
    expect(stdout).toMatch(/^4\nt\.vmtape: whole, cut.*\n0\nt\.vmtape: identical: .*\n0\n$/);
  });

  it('that is full from the start: status 4', () => {
    const tape = join(folder, 'never.vmtape');
    const { status, stderr } = vmtape([...endless(tape), '-q'], {
      through: ['sh', '-c', 'ulimit -f 0; exec "$@"', 'sh'],
    });
    expect(status).toBe(4);
    expect(stderr).toMatch(/never\.vmtape: cannot write/);
  });
});

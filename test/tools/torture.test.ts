/** `vmtape torture` as a user types it: the pool, the report, what it refuses. */
import { spawn } from 'node:child_process';
import { readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { FIXED, image, MAIN, STACK, temporaryFolder, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const tape = join(folder, 'torture.vmtape');

beforeAll(() => {
  expect(vmtape(['record', image('torture.elf'), '-o', tape, ...FIXED, '-q', '--append', 'rounds=1']).status).toBe(0);
});

interface Report {
  readonly chosen: number;
  readonly of: number;
  readonly seed: string;
  readonly places: number;
  readonly restores: number;
  readonly apart: number;
  readonly failures: readonly unknown[];
}

describe('vmtape torture', () => {
  it('finds nothing around switches of levels, and says what it did', () => {
    const report = join(folder, 'report.json');
    const flags = [
      '--at',
      'vmexit,vmrun,injection',
      '--sample',
      '10',
      '--seed',
      '5',
      '--workers',
      '2',
      '--report',
      report,
    ];
    const { status, stdout, stderr } = vmtape(['torture', tape, ...flags]);
    expect({ status, stdout }).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('no difference: saved at '),
    });
    expect(stderr).toMatch(/a sample of 10 of \d+ boundaries, seed 5; 7 orders; 2 workers/);
    const written = JSON.parse(readFileSync(report, 'utf8')) as Report;
    expect(written).toMatchObject({ chosen: 10, seed: '5', apart: 4, failures: [], apartFailures: [] });
    expect(written.places).toBeGreaterThan(5);
    expect(written.restores).toBe(7 * written.places);
  });

  it('prints one document, of the boundaries between two positions', () => {
    const flags = [
      '--at',
      'every:1000',
      '--orders',
      'qemu,random:1',
      '--from',
      'vmrun[0]',
      '--to',
      'vmexit[2]',
      '--window',
      'end',
    ];
    const { status, stdout } = vmtape(['torture', tape, ...flags, '--json']);
    expect(status).toBe(0);
    const { chosen, of, places, restores } = JSON.parse(stdout) as Report;
    expect(chosen).toBe(of);
    expect(restores).toBe(2 * places);
  });

  it('ends with a word when a process of its pool is killed', async () => {
    const child = spawn(process.execPath, [MAIN, 'torture', tape, '--at', 'all', '--window', 'end', '--workers', '1']);
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    const workers = () =>
      readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').split(' ').filter(Boolean);
    await expect.poll(() => workers().length, { timeout: 20_000 }).toBeGreaterThan(0);
    // By then it has a task.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    for (const worker of workers()) process.kill(Number(worker), 'SIGKILL');
    expect(await ended).toBe(4);
    expect(said).toMatch(/vmtape: a process that restores machines was ended from outside/);
  });

  it.each([
    [['--at', 'midnight'], 'names no boundaries'],
    [['--at', 'every:0'], 'names no boundaries'],
    [['--orders', 'bhyve'], 'there is none of that name'],
    [['--sample', '0'], 'is no count'],
    [['--workers', 'many'], 'is no count'],
    [['--from', 'end', '--to', 'start'], 'Swap them'],
    [['--from', 'vmexit[1000]'], 'vmexit'],
  ])('refuses %j', (flags, said) => {
    const { status, stdout, stderr } = vmtape(['torture', tape, ...flags]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(said);
    expect(stderr).not.toMatch(STACK);
  });

  it('says that a tape is damaged', () => {
    const damaged = join(folder, 'damaged.vmtape');
    expect(vmtape(['record', image('torture.elf'), '-o', damaged, ...FIXED, '-q', '--append', 'rounds=1']).status).toBe(
      0,
    );
    truncateSync(damaged, 30_000);
    const { status, stderr } = vmtape(['torture', damaged]);
    expect(status).toBe(3);
    expect(stderr).toContain('damaged');
  });
});

/** `vmtape snapshot`, `resume`, `diff` and `replay` of tapes in sequence, as a user has them. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { image, temporaryFolder, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const tape = at('nested.vmtape');
const taken = at('nested.vmsnap');

const record = (name: string, ...flags: readonly string[]) =>
  vmtape(['record', image('nested.elf'), '-o', at(name), '--serial', 'null', '--memory', '16M', ...flags]);

beforeAll(() => {
  const fixed = ['--seed', '1', '--clock', '2024-01-01T00:00:00Z', '--append', 'rounds=3'];
  expect(record('nested.vmtape', ...fixed).status).toBe(0);
  expect(record('other.vmtape', '--seed', '2', '--clock', '2024-01-01T00:00:00Z').status).toBe(0);
  expect(vmtape(['snapshot', tape, 'vmexit:npf[1]', '-o', taken]).status).toBe(0);
});

describe('a snapshot', () => {
  it('is taken once: a file of that name stays as it is', () => {
    const before = readFileSync(taken);
    const { status, stderr } = vmtape(['snapshot', tape, 'end', '-o', taken]);
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringMatching(/there is such a file already/) });
    expect(readFileSync(taken)).toEqual(before);
  });

  it('tells what it is', () => {
    expect(vmtape(['info', taken]).stdout).toMatch(/snapshot at +\d+:\d+[\s\S]*vcpu\.0\.nested +version 1/);
    expect(JSON.parse(vmtape(['info', taken, '--json']).stdout)).toMatchObject({ machineVersion: expect.any(String) });
  });

  it('goes on on a tape of its own, and the two are one session', () => {
    const rest = at('rest.vmtape');
    expect(vmtape(['resume', taken, '-o', rest, '--serial', 'null'])).toMatchObject({ status: 0, stdout: '' });
    const replayed = vmtape(['replay', tape, rest]);
    expect(replayed).toMatchObject({ status: 0, stderr: '' });
    expect(replayed.stdout).toMatch(/nested\.vmtape: identical up to .*\n.*rest\.vmtape: identical from/);
    expect(vmtape(['diff', tape, 'end', rest, 'end'])).toMatchObject({ status: 0 });
    expect(vmtape(['verify', rest])).toMatchObject({ status: 0 });
    expect(vmtape(['show', rest, '0'])).toMatchObject({ status: 2, stderr: expect.stringMatching(/begins at/) });
  });

  it('goes on after its own tape has dropped its checkpoints, but for that at its origin', () => {
    const rest = at('dropped.vmtape');
    vmtape(['resume', taken, '-o', rest, '--serial', 'null']);
    expect(vmtape(['checkpoint', rest, '--drop']).stdout).toMatch(/1 checkpoint \(\d before\)/);
    expect(vmtape(['replay', tape, rest])).toMatchObject({ status: 0 });
    expect(vmtape(['verify', rest])).toMatchObject({ status: 0 });
  });

  it('goes on without a tape, and says what the guest says', () => {
    const { status, stdout } = vmtape(['resume', taken]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/exits in 3 rounds/);
  });

  it('that is cut off is damaged, and leaves no tape', () => {
    const cut = at('cut.vmsnap');
    writeFileSync(cut, readFileSync(taken).subarray(0, 9000));
    const { status, stderr } = vmtape(['resume', cut, '-o', at('none.vmtape')]);
    expect({ status, stderr }).toEqual({
      status: 3,
      stderr: expect.stringMatching(/damaged: it ends after 9000 bytes/),
    });
    expect(existsSync(at('none.vmtape'))).toBe(false);
  });

  it('that is none is no snapshot', () => {
    expect(vmtape(['resume', tape])).toMatchObject({ status: 2, stderr: expect.stringMatching(/it is no snapshot/) });
  });

  it('onto a full disk leaves nothing', () => {
    const { status, stderr } = vmtape(['snapshot', tape, 'end', '-o', at('full.vmsnap')], {
      through: ['bash', '-c', 'ulimit -f 8; exec "$@"', 'bash'],
    });
    expect({ status, stderr }).toEqual({ status: 4, stderr: expect.stringMatching(/Nothing was made/) });
    expect(existsSync(at('full.vmsnap'))).toBe(false);
  });
});

describe('tapes in sequence', () => {
  it('must be of one session, and in order', () => {
    const rest = at('again.vmtape');
    vmtape(['resume', taken, '-o', rest, '--serial', 'null']);
    for (const tapes of [
      [rest, tape],
      [at('other.vmtape'), rest],
    ]) {
      expect(vmtape(['replay', ...tapes])).toMatchObject({
        status: 2,
        stderr: expect.stringMatching(/does not go on from/),
      });
    }
    expect(vmtape(['replay', tape, rest, '--to', 'end'])).toMatchObject({ status: 2 });
  });
});

describe('two states', () => {
  it('differ field by field', () => {
    const { status, stdout } = vmtape(['diff', taken, tape, 'vmexit:npf[2]']);
    expect(status).toBe(1);
    expect(stdout).toMatch(/retired +\d+ +\d+\n[\s\S]*RAM [0-9a-f]+, \d bytes?/);
    const document = JSON.parse(vmtape(['diff', taken, tape, 'vmexit:npf[2]', '--json']).stdout);
    expect(document.fields[0]).toMatchObject({ path: 'retired' });
    expect(document.memory.length).toBeGreaterThan(0);
  });

  it('are named by a tape and a position, or a snapshot, and they are two', () => {
    expect(vmtape(['diff', taken])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/two states are needed/),
    });
    expect(vmtape(['diff', taken, tape])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/needs a position/),
    });
    expect(vmtape(['diff', taken, taken, taken])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/left over/),
    });
  });
});

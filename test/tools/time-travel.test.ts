/** Checkpoints and last writers on the command line. */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { FIXED, image, temporaryFolder, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const tape = join(folder, 'nested.vmtape');

beforeAll(() => {
  const flags = ['--append', 'rounds=30', '--checkpoint-every', '50000', '--stats'];
  const { status, stderr } = vmtape(['record', image('nested.elf'), '-o', tape, ...FIXED, '-q', ...flags]);
  expect(status).toBe(0);
  expect(JSON.parse(stderr.trim().split('\n').at(-1) ?? '')).toMatchObject({ checkpoints: expect.any(Number) });
});

const copyOf = (name: string): string => {
  const copy = join(folder, `${name}.vmtape`);
  copyFileSync(tape, copy);
  return copy;
};

const count = (file: string): number =>
  (JSON.parse(vmtape(['info', file, '--json']).stdout) as { checkpoints: number }).checkpoints;

describe('vmtape checkpoint', () => {
  it('drops all, and makes them again, of a tape that stays the same session', () => {
    const copy = copyOf('again');
    expect(count(copy)).toBeGreaterThan(2);
    expect(vmtape(['checkpoint', copy, '--drop']).stdout).toMatch(/0 checkpoints \(\d+ before\)/);
    expect(count(copy)).toBe(0);
    expect(vmtape(['replay', copy, '--from', 'end']).stdout).toContain('identical: ');
    expect(vmtape(['checkpoint', copy, '--every', '100000', '-q']).status).toBe(0);
    expect(count(copy)).toBeGreaterThan(1);
    expect(vmtape(['verify', copy]).stdout).toMatch(/whole, complete; .*checkpoints/);
    const { status, stdout } = vmtape(['replay', copy, '--from', '150000']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/identical from 100000:\d+ on: /);
  });

  it('thins them', () => {
    const copy = copyOf('thinned');
    const before = count(copy);
    const { status, stdout } = vmtape(['checkpoint', copy, '--thin', '--json']);
    expect(status).toBe(0);
    const { checkpoints } = JSON.parse(stdout) as { checkpoints: { position: string }[] };
    expect(checkpoints.length).toBeLessThanOrEqual(before);
    expect(vmtape(['replay', copy, '--from', checkpoints[0]?.position ?? '']).status).toBe(0);
  });

  it('is asked for one thing at a time', () => {
    expect(vmtape(['checkpoint', tape, '--drop', '--thin'])).toMatchObject({ status: 2 });
  });
});

describe('vmtape replay --from', () => {
  it('must not lie behind --to', () => {
    const { status, stderr } = vmtape(['replay', tape, '--from', 'end', '--to', 'start']);
    expect(status).toBe(2);
    expect(stderr).toContain('Swap them');
  });
});

describe('vmtape who-wrote', () => {
  interface Found {
    readonly found: boolean;
    readonly before: string;
    readonly after: string;
    readonly level: string;
    readonly old: string;
    readonly new: string;
    readonly events: readonly string[];
  }
  const ask = (...words: string[]): Found => {
    const { status, stdout, stderr } = vmtape(['who-wrote', ...words, '--json']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return JSON.parse(stdout) as Found;
  };

  it('names the exit that filled in a field of the VMCB; its positions are taken back', () => {
    const found = ask(tape, 'vmcb.exitCode', '--before', 'vmexit:cpuid[2]');
    expect(found).toMatchObject({ found: true, level: 'L2' });
    expect(found.events.join()).toContain('#VMEXIT');
    expect(vmtape(['show', tape, found.before]).status).toBe(0);
    // Right after it, it is the last one still.
    expect(ask(tape, 'vmcb.exitCode', '--before', found.after)).toEqual(found);
    const earlier = ask(tape, 'vmcb.exitCode', '--before', found.before);
    expect(earlier.after).not.toBe(found.after);
    expect(earlier.new).toBe(found.old);
  });

  it('knows registers, MSRs and addresses', () => {
    expect(ask(tape, 'rax')).toMatchObject({ found: true });
    expect(ask(tape, 'msr.0xc0010117').events.join()).toContain('MSR 0xc0010117');
    expect(ask(tape, 'device.uart').events.join()).toMatch(/uart/i);
    expect(ask(tape, 'walk:0x101d51', '--before', 'vmexit:cpuid')).toMatchObject({ found: true });
    const stack = ask(tape, 'phys:0x0', '--length', '4096');
    expect(stack.found).toBe(true);
  });

  it('says no where nobody wrote', () => {
    const { status, stdout } = vmtape(['who-wrote', tape, 'phys:0x3000000']);
    expect({ status, stdout }).toEqual({ status: 1, stdout: expect.stringContaining('nothing wrote to') });
  });

  it.each([
    ['vmcb.nothing', /is no field/],
    ['phys:0xa0000', /is not RAM/],
    ['0xffff800000000000', /is not RAM, or not mapped/],
    ['msr.0x1234', /is no register that keeps/],
    ['frobnicate', /the address of RAM, or a name/],
    ['r16', /Is it r1\d/],
    ['device.pot.mode', /Is it pit/],
    ['device.pit.nothing', /channels, control/],
  ])('refuses %s', (what, message) => {
    const { status, stderr } = vmtape(['who-wrote', tape, what]);
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
  });
});

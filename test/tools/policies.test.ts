import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { POLICIES, UNMODELLED } from '../../src/machine/index.js';
import { FIXED, image, STACK, temporaryFolder, vmtape } from './vmtape.js';

const folder = temporaryFolder();
const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};
const NESTED = [image('nested.elf'), '--append', 'rounds=2', ...FIXED];

describe('--policy', () => {
  it.each<[string, () => string, RegExp]>([
    ['a name that is none', () => 'kvm', /--policy "kvm" is none\. See vmtape policies, or give a JSON file/],
    ['a file that is not there', () => join(folder, 'no.json'), /no\.json: there is no such file.*the policy file/],
    ['a file that is no JSON', () => file('text.json', 'xen-4.17'), /text\.json: is no JSON/],
    [
      'a file that names nothing',
      () => file('odd.json', '{"with": ["xen-5"]}'),
      /odd\.json: names "xen-5" under "with"/,
    ],
  ])('%s: status 2 and a message that names it', (_name, policy, message) => {
    const { status, stdout, stderr } = vmtape(['run', image('hello64.elf'), '--policy', policy()]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(STACK);
  });

  it('by name is on the tape, and a replay does as it says', () => {
    const tape = join(folder, 'named.vmtape');
    expect(vmtape(['record', ...NESTED, '-o', tape, '-q', '--policy', 'bochs']).status).toBe(0);
    const { policy, configuration } = JSON.parse(vmtape(['info', tape, '--json']).stdout);
    expect(policy).toBe('bochs');
    expect(configuration.machine.deviations).toEqual(POLICIES.find(({ name }) => name === 'bochs')?.deviations);
    expect(vmtape(['info', tape]).stdout).toMatch(/^policy +bochs$/m);
    const { status, stdout } = vmtape(['replay', tape]);
    expect({ status, stdout }).toEqual({ status: 0, stdout: expect.stringContaining('identical') });
    // The deviations show in what the guest does: a tape without them is another one.
    const plain = join(folder, 'plain.vmtape');
    expect(vmtape(['record', ...NESTED, '-o', plain, '-q']).status).toBe(0);
    const exits = (of: string): string => vmtape(['log', of, '--kind', 'svm.vmexit', '--limit', '40']).stdout;
    expect(exits(tape)).not.toBe(exits(plain));
    expect(vmtape(['info', plain]).stdout).toMatch(/^policy +apm$/m);
  });

  it('by file is on the tape as its deviations', () => {
    const tape = join(folder, 'file.vmtape');
    const mine = file('mine.json', '{"name": "mine", "with": ["D-04", "tlb-control-cleared"]}');
    expect(vmtape(['record', ...NESTED, '-o', tape, '-q', '--policy', mine]).status).toBe(0);
    const { stdout } = vmtape(['info', tape]);
    expect(stdout).toMatch(/^policy +2 deviations$/m);
    expect(stdout).toMatch(/^deviations from the manual\ntlb-control-cleared\nts-error-code-missing$/m);
    expect(JSON.parse(vmtape(['info', tape, '--json']).stdout).policy).toBe(null);
    expect(vmtape(['replay', tape]).status).toBe(0);
  });
});

describe('vmtape policies', () => {
  it('lists the policies, the deviations, and what is none', () => {
    const { status, stdout } = vmtape(['policies']);
    expect(status).toBe(0);
    for (const { name } of POLICIES) expect(stdout).toMatch(new RegExp(`^${name} `, 'm'));
    expect(stdout).toContain('\ntlb-control-cleared\n  #VMEXIT clears TLB_CONTROL\n');
    for (const { row, reason } of UNMODELLED) expect(stdout).toContain(`${row}  ${reason}`);
  });

  it('explains one policy, or one deviation', () => {
    const xen = vmtape(['policies', 'xen-4.17']).stdout;
    expect(xen).toContain('\nasid-zero-allowed\n');
    expect(xen).not.toContain('\nnext-rip-always\n');
    const one = vmtape(['policies', 'tlb-control-by-asid-refused']).stdout;
    expect(one).toMatch(/^kvm-6\.1 /);
    expect(one).toContain('K-20    kvm from 5.16 before 6.7: nested.c, nested_svm_check_tlb_ctl');
  });

  it('says the same in JSON', () => {
    const { policies, deviations, unmodelled } = JSON.parse(vmtape(['policies', '--json']).stdout);
    expect(policies).toHaveLength(POLICIES.length);
    expect(deviations[0]).toMatchObject({ witnesses: [{ row: expect.any(String) }] });
    expect(unmodelled).toEqual(UNMODELLED);
  });

  it('knows no other name: status 2', () => {
    const { status, stderr } = vmtape(['policies', 'kvm']);
    expect(status).toBe(2);
    expect(stderr).toContain('"kvm" is neither a policy nor a deviation');
  });
});

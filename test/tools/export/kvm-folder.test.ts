/** `vmtape export --kvm`, `import` and `lint-nested-state`, as a user has them. */
import { cpSync, existsSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { R } from '../../../src/machine/index.js';
import { decodeSnapshot, encodeSnapshot } from '../../../src/replay/index.js';
import { digestsWithoutRam } from '../../../src/replay/state-digest.js';
import { FIXED, image, STACK, temporaryFolder, vmtape } from '../vmtape.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const tape = at('nested.vmtape');
const taken = at('l2.vmsnap');
const kvm = at('kvm');
const PLACE = 'vmexit:npf[1]';

beforeAll(() => {
  const flags = ['--serial', 'null', '--append', 'rounds=3', ...FIXED, '--memory', '16M'];
  expect(vmtape(['record', image('nested.elf'), '-o', tape, ...flags]).status).toBe(0);
  expect(vmtape(['snapshot', tape, PLACE, '-o', taken]).status).toBe(0);
  expect(vmtape(['export', tape, '--at', PLACE, '--kvm', kvm, '--ram']).status).toBe(0);
});

/** A copy of the folder, changed. */
function changed(name: string, change: (path: string) => void): string {
  const path = at(name);
  rmSync(path, { recursive: true, force: true });
  cpSync(kvm, path, { recursive: true });
  change(path);
  return path;
}

interface Manifest {
  version: number;
  configuration?: unknown;
  vcpus: {
    structs: { struct: string; file: string; bytes?: number; sha256?: string; fields?: Record<string, string> }[];
  }[];
  notCarried: { lost: unknown[]; outside: string[] };
}
function editManifest(path: string, edit: (manifest: Manifest) => void): void {
  const file = join(path, 'manifest.json');
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest;
  edit(manifest);
  writeFileSync(file, JSON.stringify(manifest));
}
/** Files may be other ones than were written. */
const unsealed = (manifest: Manifest): void => {
  for (const { structs } of manifest.vcpus) {
    for (const entry of structs) {
      delete entry.sha256;
      delete entry.bytes;
      delete entry.fields;
    }
  }
};
function poke(path: string, name: string, offset: number, value: number): void {
  const file = join(path, 'vcpu0', name);
  const bytes = readFileSync(file);
  bytes[offset] = value;
  writeFileSync(file, bytes);
}

describe('a folder of KVM’s structures', () => {
  it('says what the structures do not carry, in the manifest and in words', () => {
    const { status, stderr } = vmtape(['export', taken, '--kvm', at('words')]);
    expect({ status, stderr }).toEqual({
      status: 0,
      stderr: expect.stringMatching(/not in the structures: machine\.time, .*svm\.vmcbs, .*device\.pic, .*RAM \(--ram/),
    });
    const manifest = JSON.parse(readFileSync(join(kvm, 'manifest.json'), 'utf8')) as Manifest;
    expect(manifest.notCarried).toMatchObject({ lost: [], outside: expect.arrayContaining(['device.uart']) });
    expect(manifest.vcpus[0]?.structs.map(({ struct }) => struct)).toContain('kvm_nested_state');
    const ram = statSync(join(kvm, 'ram.bin'));
    expect([ram.size, ram.blocks * 512 < 2 ** 20]).toEqual([16 * 2 ** 20, true]);
    expect(existsSync(join(at('words'), 'ram.bin'))).toBe(false);
  });

  it('comes back as the same snapshot, with its base', () => {
    const back = at('back.vmsnap');
    expect(vmtape(['import', kvm, '-o', back, '--base', tape, '--at', PLACE])).toMatchObject({ status: 0 });
    expect(vmtape(['diff', back, taken])).toMatchObject({ status: 0, stdout: expect.stringMatching(/the same state/) });
    expect(vmtape(['resume', back, '-o', at('rest.vmtape'), '--serial', 'null']).status).toBe(0);
    expect(vmtape(['replay', tape, at('rest.vmtape')])).toMatchObject({ status: 0 });
  });

  it('goes on with the devices of a fresh machine, too', () => {
    const fresh = at('fresh.vmsnap');
    expect(vmtape(['import', kvm, '-o', fresh, '--fresh'])).toMatchObject({ status: 0 });
    const { status, stdout } = vmtape(['resume', fresh]);
    const whole = vmtape(['resume', taken]);
    expect({ status, stdout }).toEqual({ status: 0, stdout: whole.stdout });
  });

  it('may be edited: another RIP is another machine', () => {
    const edited = changed('edited', (path) => {
      poke(path, 'regs.bin', 128, 0x90);
      editManifest(path, unsealed);
    });
    const snapshot = at('edited.vmsnap');
    expect(vmtape(['import', edited, '-o', snapshot, '--base', taken])).toMatchObject({ status: 0 });
    expect(vmtape(['diff', snapshot, taken]).stdout).toMatch(/rip +0x101e90 +0x101e63/);
  });

  it.each<readonly [string, (path: string) => void, number, RegExp]>([
    [
      'a file that is missing',
      (path) => rmSync(join(path, 'vcpu0/regs.bin')),
      2,
      /vcpu0\/regs\.bin: there is no such file/,
    ],
    [
      'a manifest that is missing',
      (path) => rmSync(join(path, 'manifest.json')),
      2,
      /manifest\.json: there is no such file/,
    ],
    ['no JSON', (path) => writeFileSync(join(path, 'manifest.json'), '{'), 2, /it is no JSON/],
    ['other JSON', (path) => writeFileSync(join(path, 'manifest.json'), '[]'), 2, /its format is not/],
    ['a newer one', (path) => editManifest(path, (it) => Object.assign(it, { version: 2 })), 2, /of version 2/],
    [
      'a file that is cut off',
      (path) => truncateSync(join(path, 'vcpu0/xsave.bin'), 999),
      3,
      /damaged: it has 999 of 4096/,
    ],
    ['a file that is changed', (path) => poke(path, 'regs.bin', 128, 0x90), 3, /regs\.bin: damaged: its SHA-256/],
    [
      'a structure that is not listed',
      (path) => editManifest(path, ({ vcpus }) => vcpus[0]?.structs.pop()),
      2,
      /vCPU 0 kvm_mp_state: it is missing/,
    ],
    [
      'a structure twice',
      (path) => editManifest(path, ({ vcpus }) => vcpus[0]?.structs.push(...(vcpus[0]?.structs.slice(-1) ?? []))),
      2,
      /has kvm_mp_state twice/,
    ],
    [
      'a file outside',
      (path) => editManifest(path, ({ vcpus }) => Object.assign(vcpus[0]?.structs[0] ?? {}, { file: '../x' })),
      2,
      /no file inside the folder/,
    ],
    [
      'fields that contradict their file',
      (path) => editManifest(path, ({ vcpus }) => Object.assign(vcpus[0]?.structs[2]?.fields ?? {}, { rip: '0x1' })),
      2,
      /rip is 0x101e63 there and 0x1 in the manifest/,
    ],
    [
      'structures that contradict each other',
      (path) => {
        poke(path, 'sregs.bin', 240, 0x77);
        editManifest(path, unsealed);
      },
      2,
      /vCPU 0 cr3: it is .*77h in kvm_sregs and .*h in kvm_sregs2/,
    ],
    [
      'a wrong size',
      (path) => {
        truncateSync(join(path, 'vcpu0/nested_state.bin'), 4000);
        editManifest(path, unsealed);
      },
      2,
      /it has 4000 bytes, and kvm_nested_state has 128 or 4224/,
    ],
    [
      'a nested state that KVM would refuse',
      (path) => {
        poke(path, 'nested_state.bin', 128 + 0x58, 0);
        editManifest(path, unsealed);
      },
      2,
      /KVM_SET_NESTED_STATE would refuse it: the ASID is 0/,
    ],
    ['RAM of another size', (path) => truncateSync(join(path, 'ram.bin'), 4096), 2, /its file has 4096 bytes/],
    [
      'two vCPUs for one',
      (path) => editManifest(path, ({ vcpus }) => vcpus.push({ ...vcpus[0], vcpu: 1 } as never)),
      2,
      /the machine has 1, and the manifest 2/,
    ],
  ])('is refused by name: %s', (_, change, status, message) => {
    const path = changed('bad', change);
    const ended = vmtape(['import', path, '-o', at('none.vmsnap'), '--base', taken]);
    expect(ended).toMatchObject({ status, stderr: expect.stringMatching(message) });
    expect(ended.stderr).not.toMatch(STACK);
    expect(existsSync(at('none.vmsnap'))).toBe(false);
  });

  it('does not come back without what it does not have', () => {
    expect(vmtape(['import', kvm, '-o', at('none.vmsnap')])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/it does not have machine\.time.*--base.*--fresh/),
    });
    const bare = changed('bare', (path) => editManifest(path, (it) => Reflect.deleteProperty(it, 'configuration')));
    const ended = vmtape(['import', bare, '-o', at('none.vmsnap'), '--fresh']);
    expect(ended).toMatchObject({ status: 2, stderr: expect.stringMatching(/no configuration of a machine/) });
    expect(vmtape(['export', taken, '--kvm', kvm])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/already/),
    });
  });
});

describe('state of a vCPU that the structures do not carry', () => {
  const armed = at('armed.vmsnap');
  beforeAll(() => {
    const snapshot = decodeSnapshot(readFileSync(taken), taken);
    const [vcpu] = snapshot.point.state.vcpus;
    if (vcpu !== undefined) vcpu.registers[R.monitorAddress] = 0x12_3001n;
    const digests = { ...snapshot.digests, ...digestsWithoutRam(snapshot.point as never) };
    writeFileSync(armed, Buffer.concat(encodeSnapshot({ ...snapshot, digests })));
  });

  it('makes the export fail by name, and nothing is left', () => {
    const { status, stderr } = vmtape(['export', armed, '--kvm', at('lost')]);
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: expect.stringMatching(/no room for vcpu 0 monitorAddress \(0x123001\)\. Nothing was made\. --lossy/),
    });
    expect(existsSync(at('lost'))).toBe(false);
  });

  it('is named on stderr and in the manifest with --lossy, and comes from the base', () => {
    const { status, stderr } = vmtape(['export', armed, '--kvm', at('lossy'), '--lossy']);
    expect({ status, stderr }).toEqual({
      status: 0,
      stderr: expect.stringMatching(/lost: vcpu 0 monitorAddress \(0x123001\)/),
    });
    const manifest = JSON.parse(readFileSync(join(at('lossy'), 'manifest.json'), 'utf8')) as Manifest;
    expect(manifest.notCarried.lost).toEqual([{ state: 'vcpu 0 monitorAddress', value: '0x123001' }]);
    expect(vmtape(['import', at('lossy'), '-o', at('lossy.vmsnap'), '--base', armed]).status).toBe(0);
    expect(vmtape(['diff', at('lossy.vmsnap'), armed]).status).toBe(0);
  });

  it('leaves nothing on a full disk', () => {
    const ended = vmtape(['export', taken, '--kvm', at('full'), '--ram'], {
      through: ['bash', '-c', 'ulimit -f 8; exec "$@"', 'bash'],
    });
    expect(ended).toMatchObject({ status: 4, stderr: expect.stringMatching(/Nothing was made/) });
    expect(existsSync(at('full'))).toBe(false);
  });
});

describe('lint-nested-state', () => {
  const nested = join(kvm, 'vcpu0/nested_state.bin');
  const beside = ['--sregs', join(kvm, 'vcpu0/sregs.bin'), '--events', join(kvm, 'vcpu0/vcpu_events.bin')];

  it('takes what vmtape exports', () => {
    const { status, stdout } = vmtape(['lint-nested-state', nested, ...beside, '--cpu', 'vmtape-base']);
    expect({ status, stdout }).toEqual({
      status: 0,
      stdout: expect.stringMatching(/KVM_SET_NESTED_STATE takes it\nnot kept:\n +PAT of L2/),
    });
  });

  it('says each reason, with its errno', () => {
    const bytes = readFileSync(nested);
    bytes[128 + 0x58] = 0;
    bytes[8] = 1;
    writeFileSync(at('bad.bin'), bytes);
    const { status, stdout } = vmtape(['lint-nested-state', at('bad.bin')]);
    expect({ status, stdout }).toEqual({
      status: 1,
      stdout: expect.stringMatching(
        /refuses it; not checked: svme, smm.*\n +EINVAL +vmcb-pa +.*\n +EINVAL +asid +the ASID is 0/,
      ),
    });
    const document = vmtape(['lint-nested-state', at('bad.bin'), ...beside, '--json']);
    expect(JSON.parse(document.stdout)).toMatchObject({
      taken: false,
      refusals: [{ rule: 'vmcb-pa' }, { rule: 'asid' }],
      unchecked: [],
    });
  });

  it.each([
    [[at('manifest')], /no such file/],
    [[join(kvm, 'vcpu0/mp_state.bin')], /it is no nested state: it has 4 bytes/],
    [[nested, '--sregs', nested], /kvm_sregs2 with 320 or kvm_sregs with 312/],
    [[nested, '--cpu', 'z80'], /--cpu "z80" is none/],
    [[nested, '--address-bits', '64'], /there are 32 to 52/],
  ])('refuses what is none: %j', (words, message) => {
    expect(vmtape(['lint-nested-state', ...words])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(message),
    });
  });
});

/** Core files of a level: what is in them byte by byte, and what the real gdb sees, where there is one. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { FIXED, image, temporaryFolder, vmtape } from '../vmtape.js';

const version = spawnSync('gdb', ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0];
if (version === undefined) console.warn('there is no gdb here: it opens no core files. apt-get install gdb');

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const tape = at('nested.vmtape');
const taken = at('l2.vmsnap');
const PLACE = 'vmexit:npf[1]';

interface Shown {
  readonly registers: Readonly<Record<string, string>>;
}
const shown = (place: string): Shown => JSON.parse(vmtape(['show', tape, place, '--json']).stdout) as Shown;

const core = (name: string, ...flags: readonly string[]) => vmtape(['export', ...flags, '--elf-core', at(name)]);

beforeAll(() => {
  const flags = ['--serial', 'null', '--append', 'rounds=3', ...FIXED, '--memory', '16M'];
  expect(vmtape(['record', image('nested.elf'), '-o', tape, ...flags]).status).toBe(0);
  expect(vmtape(['snapshot', tape, PLACE, '-o', taken]).status).toBe(0);
  expect(core('l2.core', tape, '--at', PLACE, '--level', 'L2')).toMatchObject({ status: 0 });
  expect(core('l1.core', tape, '--at', PLACE, '--level', 'L1')).toMatchObject({ status: 0 });
});

/** Program headers of a core file, as the ELF specification has them. */
function segments(
  file: string,
): readonly { type: number; offset: number; linear: bigint; physical: bigint; bytes: number }[] {
  const bytes = readFileSync(file);
  return Array.from({ length: bytes.readUInt16LE(56) }, (_, index) => {
    const header = 64 + 56 * index;
    return {
      type: bytes.readUInt32LE(header),
      offset: Number(bytes.readBigUInt64LE(header + 8)),
      linear: bytes.readBigUInt64LE(header + 16),
      physical: bytes.readBigUInt64LE(header + 24),
      bytes: Number(bytes.readBigUInt64LE(header + 32)),
    };
  });
}

/** Contents of the notes by type. */
function notes(file: string): ReadonlyMap<number, Buffer> {
  const bytes = readFileSync(file);
  const [segment] = segments(file);
  const found = new Map<number, Buffer>();
  const end = (segment?.offset ?? 0) + (segment?.bytes ?? 0);
  for (let here = segment?.offset ?? 0; here < end; ) {
    const [name, length, type] = [0, 4, 8].map((offset) => bytes.readUInt32LE(here + offset)) as [
      number,
      number,
      number,
    ];
    const contents = here + 12 + Math.ceil(name / 4) * 4;
    found.set(type, bytes.subarray(contents, contents + length));
    here = contents + Math.ceil(length / 4) * 4;
  }
  return found;
}

describe('a core file', () => {
  it('has the sizes and places of Linux for x86-64 (elfcore.h, user_regs_struct)', () => {
    const { registers } = shown(PLACE);
    const status = notes(at('l2.core')).get(1) as Buffer;
    expect([...notes(at('l2.core'))].map(([type, { length }]) => [type, length])).toMatchObject([
      [1, 336],
      [3, 136],
      [2, 512],
      [0x202, 832],
      [0x766d7470, expect.any(Number)],
    ]);
    // Offsets of sys/user.h, from 112 on.
    const offsets = {
      r15: 0,
      r12: 24,
      rbp: 32,
      rbx: 40,
      rax: 80,
      rcx: 88,
      rip: 128,
      rflags: 144,
      rsp: 152,
      fsBase: 168,
    };
    for (const [name, offset] of Object.entries(offsets)) {
      expect([name, `0x${status.readBigUInt64LE(112 + offset).toString(16)}`]).toEqual([name, registers[name]]);
    }
    expect(status.readBigUInt64LE(112 + 136)).toBe(BigInt(registers.cs as string) & 0xffffn);
    expect(status.readBigUInt64LE(112 + 120)).toBe(2n ** 64n - 1n);
  });

  it('shows L2’s linear addresses, merged through both tables, with its own physical ones', () => {
    // The test guest maps 4000_0000h + n pages to gPA 8000_0000h + n, which its hypervisor gives pages as they are touched.
    const far = segments(at('l2.core')).filter(({ linear }) => linear >= 0x4000_0000n);
    expect(far.map(({ linear, physical }) => [linear, physical])).toContainEqual([0x4000_3000n, 0x8000_3000n]);
    const memory = vmtape(['show', tape, PLACE, '--memory', '0x40003000,16']).stdout;
    const bytes = readFileSync(at('l2.core'));
    const { offset } = far.find(({ linear }) => linear === 0x4000_3000n) ?? { offset: -1 };
    const digits = [...bytes.subarray(offset, offset + 16)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    expect(memory).toContain(digits);
    // L1 has no such addresses.
    expect(segments(at('l1.core')).some(({ linear }) => linear >= 0x4000_0000n)).toBe(false);
  });

  it('is sparse, and the same from a snapshot', () => {
    const { size, blocks } = statSync(at('l2.core'));
    expect(size).toBeGreaterThan(16 * 2 ** 20);
    expect(blocks * 512).toBeLessThan(2 ** 20);
    expect(core('again.core', taken, '--level', 'L2')).toMatchObject({ status: 0 });
    expect(readFileSync(at('again.core')).equals(readFileSync(at('l2.core')))).toBe(true);
  });

  it('says what nobody knows of a level that waits', () => {
    const { status, stderr } = core('waits.core', taken, '--level', 'L1');
    expect({ status, stderr }).toEqual({
      status: 0,
      stderr: expect.stringMatching(/L1 waits behind its guest: rcx, rdx/),
    });
    const document = vmtape(['export', taken, '--level', 'L2', '--elf-core', at('json.core'), '--json']);
    expect(JSON.parse(document.stdout)).toMatchObject({
      level: 2,
      vcpus: [0],
      ranges: expect.any(Number),
      remarks: [],
    });
  });

  it.each([
    [['--level', 'L2'], 2, /a tape needs --at/],
    [['--at', 'end'], 2, /needs --level/],
    [['--at', 'start', '--level', 'L2'], 2, /no vCPU has run a guest/],
    [['--at', 'end', '--level', 'L1', '--vcpu', '3'], 2, /vCPU 3: the machine has 1 of them/],
    [['--at', 'end', '--level', 'L1', '--perfetto', 'x.json'], 2, /Give one of/],
    [['--at', 'end', '--level', 'L1', '--views', 'exits'], 2, /--views goes with --sqlite/],
  ])('is refused by name: %j', (flags, status, message) => {
    const ended = core('none.core', tape, ...flags);
    expect(ended).toMatchObject({ status, stderr: expect.stringMatching(message) });
    expect(existsSync(at('none.core'))).toBe(false);
  });

  it('is none over a snapshot with a place, or onto another file', () => {
    expect(core('none.core', taken, '--at', 'end', '--level', 'L2')).toMatchObject({ status: 2 });
    expect(core('l2.core', taken, '--level', 'L2')).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/already/),
    });
    const small = { through: ['bash', '-c', 'ulimit -f 8; exec "$@"', 'bash'] };
    const full = vmtape(['export', taken, '--level', 'L2', '--elf-core', at('full.core')], small);
    expect(full).toMatchObject({ status: 4, stderr: expect.stringMatching(/Nothing was made/) });
    expect(existsSync(at('full.core'))).toBe(false);
  });
});

function gdb(file: string, ...commands: readonly string[]): string {
  const words = commands.flatMap((each) => ['-ex', each]);
  const { stdout, stderr } = spawnSync('gdb', ['-q', '-batch', '-nx', ...words, '-c', file], { encoding: 'utf8' });
  return stdout + stderr;
}
const printed = (output: string): string[] => [...output.matchAll(/^\$\d+ = (.*)$/gm)].map(([, text]) => text ?? '');

describe.skipIf(version === undefined)(`a core file in ${version ?? 'gdb, which is not here'}`, () => {
  it('has L2’s registers, memory and code', () => {
    const { registers } = shown(PLACE);
    const names = ['rax', 'rbx', 'rsp', 'rip', 'r13', 'r15'] as const;
    const output = gdb(at('l2.core'), ...names.map((name) => `p/x $${name}`), 'x/2i $pc', 'x/2gx 0x40003000', 'bt 1');
    expect(printed(output)).toEqual(names.map((name) => registers[name]));
    expect(output).toMatch(/=> 0x101e63:\s+mov +%r14,0x40002008\n\s+0x101e6b:/);
    expect(output).toContain('Core was generated by `vmtape L2, vCPU 0, at ');
    expect(output).toMatch(/#0 +0x0*101e63 in/);
    const [first = '', second = ''] = /0x40003000:\s+(0x[0-9a-f]+)\s+(0x[0-9a-f]+)/.exec(output)?.slice(1) ?? [];
    const bytes = readFileSync(at('l2.core'));
    const { offset = 0 } = segments(at('l2.core')).find(({ linear }) => linear === 0x4000_3000n) ?? {};
    expect(BigInt(first)).not.toBe(0n);
    expect([first, second].map(BigInt)).toEqual([bytes.readBigUInt64LE(offset), bytes.readBigUInt64LE(offset + 8)]);
    // What L2 does not map is not there.
    expect(gdb(at('l2.core'), 'x/gx 0x50000000')).toContain('Cannot access memory at address 0x50000000');
  });

  it('has L1 where it waits', () => {
    const { registers } = shown(PLACE);
    const output = gdb(at('l1.core'), 'p/x $rip', 'p/x $rsp', 'p/x $rax', 'x/i $pc', 'x/gx 0x40001000');
    expect(printed(output)).toEqual([registers.hostRip, registers.hostRsp, registers.hostRax]);
    expect(output).toContain('Cannot access memory at address 0x40001000');
  });

  it('has a thread for each vCPU with the same tables, and x87, SSE and AVX registers', () => {
    const smp = at('smp.vmtape');
    const flags = ['--serial', 'null', '--smp', '3', ...FIXED, '--max-instructions', '300000'];
    expect(vmtape(['record', image('smp.elf'), '-o', smp, ...flags]).status).toBe(0);
    expect(core('smp.core', smp, '--at', 'end', '--level', 'L1')).toMatchObject({ status: 0 });
    const shownThreads = gdb(at('smp.core'), 'info threads').match(/LWP \d/g);
    expect(new Set(shownThreads).size).toBeGreaterThan(1);
    const compute = at('compute.vmtape');
    vmtape([
      'record',
      image('compute.elf'),
      '-o',
      compute,
      '--serial',
      'null',
      ...FIXED,
      '--max-instructions',
      '200000',
    ]);
    expect(core('compute.core', compute, '--at', 'end', '--level', 'L1')).toMatchObject({ status: 0 });
    const vectors = JSON.parse(vmtape(['show', compute, 'end', '--json']).stdout) as Shown;
    const output = gdb(
      at('compute.core'),
      ...[0, 1, 7].map((n) => `p/x $xmm${n}.v2_int64[0]`),
      'p/x $mxcsr',
      'p/x $fctrl',
    );
    const expected = [vectors.registers.xmm0, vectors.registers.xmm1, vectors.registers.xmm7];
    expect(printed(output).map((text) => text.replace(/ .*/, ''))).toEqual([
      ...expected,
      expect.any(String),
      vectors.registers.fcw,
    ]);
  });
});

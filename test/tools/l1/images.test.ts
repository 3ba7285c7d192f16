import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { cpioArchive, Mode } from '../../../tools/l1/cpio.js';
import { Lz4Error, unpackLz4 } from '../../../tools/l1/lz4.js';
import {
  EXPECTED,
  LINUX_SESSIONS,
  type Line,
  type LinuxSession,
  linuxSession,
  missingLine,
} from '../../../tools/l1/sessions.js';
import { fnv1a, virtioDevices } from '../../../tools/l1/virtio.js';
import { vmlinuxOf } from '../../../tools/l1/vmlinux.js';

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const block = (body: string): string => {
  const bytes = hex(body);
  return `${Buffer.from(Uint32Array.of(bytes.length).buffer).toString('hex')} ${body}`;
};
const MAGIC = '02214c18';
/** "abcd" and 19 bytes from 4 back, then literals. */
const REPEATED = block('4f 61626364 0400 00 20 7879');

describe('LZ4 of kernels (LZ4 Block Format Description)', () => {
  it('has literals, matches that overlap what they make, and lengths of several bytes', () => {
    expect(text(unpackLz4(hex(MAGIC + REPEATED), 25))).toBe('abcdabcdabcdabcdabcdabcxy');
    const long = block(`f0 01 ${'41'.repeat(16)}`);
    expect(text(unpackLz4(hex(MAGIC + long), 16))).toBe('A'.repeat(16));
  });

  it('comes in several blocks', () => {
    expect(text(unpackLz4(hex(MAGIC + block('10 61') + block('20 6263')), 3))).toBe('abc');
  });

  it.each([
    ['another magic number', '00000000', 1, /no legacy frame/],
    ['less than it says', MAGIC + REPEATED, 26, /25 bytes instead of 26/],
    ['more than it says', MAGIC + REPEATED, 22, /more than 22 bytes/],
    ['a cut block', `${MAGIC}09000000 10`, 1, /block at 4 is cut off/],
    ['a cut length', `${MAGIC}0900`, 1, /length of a block is cut off/],
    ['a match before the start', MAGIC + block('10 61 0200 10 62'), 6, /match lies 2 bytes back/],
    ['a match at no distance', MAGIC + block('10 61 0000 10 62'), 6, /match lies 0 bytes back/],
    ['cut literals', MAGIC + block('30 61'), 3, /amid its literals/],
    ['a cut sequence', MAGIC + block('10 61 01'), 6, /amid a sequence/],
  ])('is refused with %s', (_, bytes, size, message) => {
    expect(() => unpackLz4(hex(bytes), size)).toThrow(Lz4Error);
    expect(() => unpackLz4(hex(bytes), size)).toThrow(message);
  });
});

describe('the kernel in a bzImage (Linux, boot.rst, payload_offset)', () => {
  function bzImage(payload: Uint8Array, size: number): Uint8Array {
    const bytes = new Uint8Array(1024 + 8 + payload.length + 4);
    const view = new DataView(bytes.buffer);
    view.setUint8(0x1f1, 1);
    view.setUint32(0x202, 0x5372_6448, true);
    view.setUint32(0x248, 8, true);
    view.setUint32(0x24c, payload.length + 4, true);
    bytes.set(payload, 1024 + 8);
    view.setUint32(bytes.length - 4, size, true);
    return bytes;
  }

  it('is what its payload unpacks to', () => {
    expect(text(vmlinuxOf(bzImage(hex(MAGIC + REPEATED), 25)))).toBe('abcdabcdabcdabcdabcdabcxy');
  });

  it('may be compressed with XZ', () => {
    const packed = execFileSync('xz', ['-c', '--check=crc32'], { input: 'a kernel' });
    expect(text(vmlinuxOf(bzImage(packed, 8)))).toBe('a kernel');
    expect(() => vmlinuxOf(bzImage(packed.subarray(0, -20), 8))).toThrow(/cannot be unpacked by xz/);
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['what is no bzImage', new Uint8Array(2000), /no bzImage/],
    ['what is cut off', bzImage(hex(MAGIC + REPEATED), 25).subarray(0, -1), /cut off/],
    ['other compression', bzImage(hex('1f8b0800 00000000'), 25), /neither LZ4 nor XZ/],
    ['damage', bzImage(hex(MAGIC + REPEATED), 24), /cannot be unpacked: there are more than 24 bytes/],
  ])('is not found in %s', (_, bytes, message) => {
    expect(() => vmlinuxOf(bytes)).toThrow(message);
  });
});

describe('an archive for the first file system', () => {
  const files = [
    { name: 'dev', mode: Mode.FOLDER },
    { name: 'init', mode: Mode.PROGRAM, contents: hex('0102030405') },
    { name: 'odd.ko', mode: Mode.FILE, contents: hex('06') },
  ];

  it('is headers of hexadecimal digits, names and contents on 4-byte boundaries, and a trailer', () => {
    const archive = cpioArchive(files);
    expect(archive.length % 4).toBe(0);
    const found: [string, number, string][] = [];
    for (let at = 0; at < archive.length; ) {
      const field = (index: number): number =>
        Number.parseInt(text(archive.subarray(at + 6 + 8 * index, at + 14 + 8 * index)), 16);
      expect(text(archive.subarray(at, at + 6))).toBe('070701');
      const [mode, size, nameLength] = [field(1), field(6), field(11)];
      const data = (at + 110 + nameLength + 3) & ~3;
      found.push([
        text(archive.subarray(at + 110, at + 109 + nameLength)),
        mode,
        archive.subarray(data, data + size).toString('hex'),
      ]);
      at = (data + size + 3) & ~3;
    }
    expect(found).toEqual([
      ['dev', 0o040755, ''],
      ['init', 0o100755, '0102030405'],
      ['odd.ko', 0o100644, '06'],
      ['TRAILER!!!', 0, ''],
    ]);
  });
});

describe('the lines of a session', () => {
  it('must all be there, in order', () => {
    const good = ['[ 0.1] boot', ...EXPECTED.slice(0, 2), 'L2-EXITS', ...EXPECTED.slice(2)];
    const missing = (lines: string): Line | undefined => missingLine(EXPECTED, lines);
    expect(missing(good.join('\r\n'))).toBeUndefined();
    expect(missing(good.toReversed().join('\n'))).toBe(EXPECTED[1]);
    expect(missing(good.join('\n').replace('698b2168', '698b2169'))).toBe('L2-SUM 698b2168');
    expect(missing('')).toBe('L1-UP');
    expect(missingLine([/Total of 4/, 'L1-UP'], 'smpboot: Total of 4 processors\nL1-UP')).toBeUndefined();
    expect(missingLine([/Total of 4/, 'L1-UP'], 'L1-UP\nsmpboot: Total of 4 processors')).toBe('L1-UP');
  });
});

describe('the session with a level more', () => {
  it('has every line of its hypervisors, in order, behind those of the guests', () => {
    const session = LINUX_SESSIONS.find(({ also }) => also === 'hypervisors') as LinuxSession;
    const images = {
      ...{ bzImage: 'b', vmlinux: 'v', initrd: 'i' },
      ...{ virtioInitrd: 'vi', hypervisorsInitrd: 'hi' },
    };
    const { boot, expected } = linuxSession(session, { ...images, package: 'p' }, tmpdir());
    expect(boot.slice(0, 1)).toEqual(['v']);
    expect(boot[boot.indexOf('--initrd') + 1]).toBe('hi');
    expect(boot[boot.indexOf('--append') + 1]).toMatch(
      /pause_filter_count=0 hypervisor=exits hypervisor=nested hypervisor=nested-timer$/,
    );
    const at = (line: string): number => expected.indexOf(line);
    const lines = ['L2-TMR ticks=8', 'exits: exits 1000, L2 counted 1000, last exit 81', 'exits ends with 0'];
    const order = [
      ...lines,
      'nested: VMRUN refused 10 bad states',
      'nested ends with 0',
      'nested-timer ends with 0',
      'DONE',
    ];
    expect(order.map(at).every((place, index, all) => place > (all[index - 1] ?? 0))).toBe(true);
    expect(at('DONE')).toBe(expected.length - 1);
  });
});

describe('the virtio session', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('knows the sums of its blocks (draft-eastlake-fnv, appendix C)', () => {
    expect(fnv1a(Buffer.from('foobar'))).toBe('bf9cf968');
    const { expected } = virtioDevices(folder);
    expect(expected.map((line) => line.replace(/[0-9a-f]{8}$/, 'sum'))).toEqual([
      'VDA-READ sum',
      'VDA-WROTE sum',
      'HVC-GOT from the host',
    ]);
    expect(expected[0]?.slice(-8)).not.toBe(expected[1]?.slice(-8));
  });

  it('is wrong when its console says nothing, or its disk is another afterwards', () => {
    const { flags, check } = virtioDevices(folder);
    const [disk = '', output = ''] = [flags[1], flags[3]?.slice('file:'.length)];
    writeFileSync(output, '');
    expect(check()).toMatch(/no line HVC-UP/);
    writeFileSync(output, 'HVC-UP\r\nfrom the host\r\n');
    expect(check()).toBeUndefined();
    writeFileSync(disk, 'x', { flag: 'r+' });
    expect(check()).toMatch(/is not as it was/);
  });
});

describe('the tool', () => {
  it('tells its usage', () => {
    const said = execFileSync(process.execPath, ['dist/tools/l1/main.js', '--help'], { encoding: 'utf8' });
    expect(said).toMatch(/usage: npm run test:l1.*--only NAMES/s);
  });
});

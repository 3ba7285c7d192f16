import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/machine/errors.js';
import { R } from '../../../src/machine/layout/cpu-state.js';
import { elfImage, joined, pattern } from '../../support/boot-images.js';
import { fromHex, heard, loaded, notes, SEND_BYTES_AND_END, SEND_TEXT } from '../../support/booted-image.js';

const AT = 0x10_0000;
const SETUP_SECTORS = 2;
const SETUP_BYTES = (SETUP_SECTORS + 1) * 512;
/** From the zero page at RSI: command line and RAM disk. 64-bit and 32-bit code differ in no byte. */
const GUEST = `
  89f3 8bb328020000 ${SEND_TEXT}
  8bb318020000 8b8b1c020000 ${SEND_BYTES_AND_END}`;

interface KernelFields {
  readonly version?: number;
  readonly loadflags?: number;
  readonly xloadflags?: number;
  readonly preferred?: number;
  readonly initSize?: number;
  readonly initrdMax?: number;
  readonly commandLineBytes?: number;
  readonly code?: string;
  /** Of the protected-mode part, what the header says. */
  readonly paragraphs?: number;
}

/** A bzImage whose setup header ends at 268h, as that of protocol 2.12 does. */
function bzImage(fields: KernelFields = {}): Uint8Array {
  const { xloadflags = 3, code = GUEST } = fields;
  // The 64-bit entry is at 200h.
  const kernel = joined(new Uint8Array((xloadflags & 1) === 0 ? 0 : 0x200), fromHex(code), new Uint8Array(15));
  const setup = new Uint8Array(SETUP_BYTES);
  const view = new DataView(setup.buffer);
  view.setUint8(0x1f1, SETUP_SECTORS);
  view.setUint32(0x1f4, fields.paragraphs ?? kernel.length >> 4, true);
  view.setUint16(0x1fe, 0xaa55, true);
  setup.set([0xeb, 0x66], 0x200);
  view.setUint32(0x202, 0x5372_6448, true);
  view.setUint16(0x206, fields.version ?? 0x20f, true);
  view.setUint8(0x211, fields.loadflags ?? 1);
  view.setUint32(0x22c, fields.initrdMax ?? 0x7fff_ffff, true);
  view.setUint16(0x236, xloadflags, true);
  view.setUint32(0x238, fields.commandLineBytes ?? 2047, true);
  view.setBigUint64(0x258, BigInt(fields.preferred ?? 0x20_0000), true);
  view.setUint32(0x260, fields.initSize ?? 0x1_0000, true);
  return joined(setup, kernel);
}

const vmlinux = (bits: 32 | 64 = 64): Uint8Array => {
  const note = notes({ owner: 'Linux', type: 0x100, content: pattern(4) });
  return elfImage(
    [
      { physical: AT, virtual: 0xc010_0000, data: fromHex(GUEST) },
      { physical: 0, type: 4, data: note },
    ],
    { bits, entry: AT },
  );
};
const ramdisk = { bytes: new TextEncoder().encode('ramdisk'), commandLine: '' };
const how = { commandLine: 'quiet ', modules: [ramdisk] };

describe('a Linux kernel (Linux, Documentation/arch/x86/boot.rst)', () => {
  it.each<[string, Uint8Array]>([
    ['a bzImage, in 64-bit mode', bzImage()],
    ['a bzImage without an entry in 64-bit mode', bzImage({ xloadflags: 0 })],
    ['a bzImage of protocol 2.00', bzImage({ version: 0x200, xloadflags: 0 })],
    ['a vmlinux', vmlinux()],
    ['a vmlinux of 32 bits', vmlinux(32)],
  ])('%s finds its command line and its RAM disk', (_, image) => {
    expect(heard(image, how)).toBe('quiet ramdisk');
  });

  it('is entered in 64-bit mode with the first 4 GiB mapped to themselves (64-bit Boot Protocol)', () => {
    const { registers, u64, memory } = loaded(bzImage(), how);
    const value = (slot: number): number => Number(registers.get(slot as never));
    expect(value(R.rip)).toBe(0x20_0200);
    expect([value(R.cr0), value(R.cr4), value(R.efer)]).toEqual([0x8000_0011, 0x20, 0x500]);
    expect([registers.get(R.cs), registers.get(R.ds)]).toEqual([0xffff_ffff_0a9b_0010n, 0xffff_ffff_0c93_0018n]);
    for (const address of [0, 0x20_0000, 0x3fff_ffff, 0x4000_0000, 0xffe0_1234]) {
      const pdpt = u64(value(R.cr3)) & ~0xfff;
      const directory = u64(pdpt + 8 * Math.floor(address / 2 ** 30)) - 3;
      const entry = u64(directory + 8 * (Math.floor(address / 2 ** 21) % 512));
      expect(entry).toBe(address - (address % 2 ** 21) + 0x83);
    }
    expect(Buffer.from(memory.window(value(R.gdtrBase) + 0x10, 16)).toString('hex')).toBe(
      'ffff0000009baf00ffff00000093cf00',
    );
    expect(value(R.gdtrLimit)).toBe(31);
  });

  it('finds its setup header, the loader and the memory map in the zero page (The Linux/x86 Boot Protocol, zero-page.rst)', () => {
    const image = bzImage();
    const { registers, u32, u64, memory, text } = loaded(image, how);
    const zero = Number(registers.get(R.rsi));
    expect(zero % 4096).toBe(0);
    expect(memory.window(zero + 0x1f1, 0x1f)).toEqual(image.subarray(0x1f1, 0x210));
    expect(memory.window(zero + 0x22c, 0x3c)).toEqual(image.subarray(0x22c, 0x268));
    expect(u32(zero + 0x268)).toBe(0);
    expect([memory.read32(zero + 0x210) & 0xff, u32(zero + 0x214)]).toEqual([0xff, 0x20_0000]);
    expect([u32(zero + 0x218), u32(zero + 0x21c)]).toEqual([0x7f_f000, 7]);
    expect(text(u32(zero + 0x228))).toBe('quiet ');
    expect(u64(zero + 0x70)).toBe(0xf_0000);
    const entries = Array.from({ length: memory.read32(zero + 0x1e8) & 0xff }, (_, index) => {
      const at = zero + 0x2d0 + 20 * index;
      return [u64(at), u64(at + 8), u32(at + 16)];
    });
    expect(entries).toEqual([
      [0, 0x9_fc00, 1],
      [0x9_fc00, 0x400, 2],
      [0xf_0000, 0x1_0000, 2],
      [0x10_0000, 0x70_0000, 1],
    ]);
  });

  it.each<[string, Uint8Array]>([
    ['a bzImage', bzImage()],
    ['a vmlinux', vmlinux()],
  ])('is told of no RSDP where there are no ACPI tables: %s', (_, image) => {
    const { registers, u64 } = loaded(image, { ...how, acpiTables: false });
    expect(u64(Number(registers.get(R.rsi)) + 0x70)).toBe(0);
  });

  it('gets its RAM disk below what its header allows, unless it may be anywhere', () => {
    const at = (image: Uint8Array): number => {
      const { registers, u32 } = loaded(image, how);
      return u32(Number(registers.get(R.rsi)) + 0x218);
    };
    expect(at(bzImage({ initrdMax: 0x5f_ffff, xloadflags: 1 }))).toBe(0x5f_f000);
    expect(at(bzImage({ initrdMax: 0x5f_ffff, xloadflags: 3 }))).toBe(0x7f_f000);
  });

  it('has the room to itself that it needs to unpack', () => {
    const modules = [{ bytes: new Uint8Array(0x10_0001), commandLine: '' }];
    const image = bzImage({ initSize: 0x50_0000 });
    expect(() => loaded(image, { modules, ramBytes: 0x70_0000 })).toThrow(/no room in RAM for its 1048577 bytes/);
    expect(heard(image, { ...how, ramBytes: 0x80_0000 })).toBe('quiet ramdisk');
  });
});

describe('a Linux kernel is refused', () => {
  it.each<[string, Uint8Array, RegExp]>([
    ['that is cut off amid its header', bzImage().subarray(0, 0x230), /setup header: the file ends after 560 bytes/],
    [
      'that is cut off',
      bzImage().subarray(0, -64),
      /the kernel ends at file offset [0-9A-F]+h, past the end of the file/,
    ],
    [
      'without a kernel behind its setup',
      bzImage({ paragraphs: 0 }).subarray(0, SETUP_BYTES),
      /past the end of the file/,
    ],
    ['that is loaded low', bzImage({ loadflags: 0 }), /it is a zImage/],
    ['of a protocol before 2.00', bzImage({ version: 0x1ff }), /boot protocol 1FFh is too old/],
    [
      'that RAM does not hold',
      bzImage({ initSize: 0x80_0000 }),
      /the kernel: the segment at 200000h\.\.9FFFFFh does not fit/,
    ],
    ['whose preferred address is beyond RAM', bzImage({ preferred: 0x100_0000 }), /does not fit into RAM/],
    [
      'that takes a shorter command line',
      bzImage({ commandLineBytes: 5 }),
      /it has 6 bytes, and the kernel takes 5\. Shorten/,
    ],
  ])('%s', (_, image, message) => {
    expect(() => loaded(image, how)).toThrow(InputError);
    expect(() => loaded(image, how)).toThrow(message);
  });

  it('with modules beside its RAM disk', () => {
    expect(() => loaded(bzImage(), { modules: [ramdisk, ramdisk] })).toThrow(/one RAM disk and no modules/);
  });

  it('that is none', () => {
    expect(() => loaded(pattern(2000), { protocol: 'linux' })).toThrow(/neither a bzImage nor an ELF file/);
  });

  it('whose RAM disk has no room', () => {
    const modules = [{ bytes: new Uint8Array(0x60_0000), commandLine: '' }];
    expect(() => loaded(bzImage(), { modules })).toThrow(/no room in RAM for its 6291456 bytes/);
  });
});

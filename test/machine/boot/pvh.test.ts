import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/machine/errors.js';
import { R } from '../../../src/machine/layout/cpu-state.js';
import { elfImage, pattern } from '../../support/boot-images.js';
import {
  fromHex,
  heard,
  loaded,
  type Note,
  notes,
  SEND_BYTES_AND_END,
  SEND_TEXT,
  word,
} from '../../support/booted-image.js';

const AT = 0x10_0000;
const ENTRY = AT + 16;
const TYPE_NOTE = 4;
const PHYS32_ENTRY: Note = { owner: 'Xen', type: 18, content: word(ENTRY) };
/** Checks the magic number, then sends the command line, the first module's arguments and the module. */
const GUEST = `
  813b 78c56e33 7402 ebfe
  8b7318 ${SEND_TEXT}
  8b4310 8b7010 ${SEND_TEXT}
  8b4310 8b30 8b4808 ${SEND_BYTES_AND_END}`;

const kernel = (given: readonly Note[] = [PHYS32_ENTRY], bits: 32 | 64 = 64, more = {}): Uint8Array =>
  elfImage(
    [
      { physical: AT, data: Uint8Array.from([...pattern(16), ...fromHex(GUEST)]) },
      { physical: 0, type: TYPE_NOTE, data: notes(...given), ...more },
    ],
    { bits },
  );
const initrd = { bytes: new TextEncoder().encode('ramdisk'), commandLine: 'with args, ' };

describe('a kernel with a PVH entry (Xen, PVH Specification)', () => {
  it.each([64, 32] as const)('finds its command line and its RAM disk; ELF%i', (bits) => {
    expect(heard(kernel([PHYS32_ENTRY], bits), { commandLine: 'console=ttyS0 ', modules: [initrd] })).toBe(
      'console=ttyS0 with args, ramdisk',
    );
  });

  it('is entered in flat 32-bit protected mode, with a task register', () => {
    const { registers } = loaded(kernel());
    expect(Object.fromEntries(registers)).toMatchObject({
      [R.rip]: BigInt(ENTRY),
      [R.cr0]: 0x11n,
      [R.cs]: 0xffff_ffff_0c9b_0008n,
      [R.ds]: 0xffff_ffff_0c93_0010n,
      [R.tr]: 0x67_008b_0000n,
    });
    expect(registers.has(R.cr4) || registers.has(R.efer)).toBe(false);
  });

  it('finds the start info by EBX: version 1, the RSDP, the memory map', () => {
    const { registers, u32, u64 } = loaded(kernel());
    const info = Number(registers.get(R.rbx));
    expect([u32(info), u32(info + 4), u32(info + 8), u32(info + 12)]).toEqual([0x336e_c578, 1, 0, 0]);
    expect(u64(info + 16)).toBe(0);
    expect(u64(u64(info + 32))).toBe(Number(Buffer.from('RSD PTR ').readBigUInt64LE()));
    const map = u64(info + 40);
    const entries = Array.from({ length: u32(info + 48) }, (_, index) =>
      [0, 8, 16].map((field) => u64(map + 24 * index + field)),
    );
    expect(entries).toEqual([
      [0, 0x9_fc00, 1],
      [0x9_fc00, 0x400, 2],
      [0xf_0000, 0x1_0000, 2],
      [0x10_0000, 0x70_0000, 1],
    ]);
  });

  it('is told of no RSDP where there are no ACPI tables', () => {
    const { registers, u64 } = loaded(kernel(), { acpiTables: false });
    expect(u64(Number(registers.get(R.rbx)) + 32)).toBe(0);
  });

  it('gets modules at the end of RAM, the first above the second, on page boundaries', () => {
    const modules = [
      { bytes: pattern(5000, 1), commandLine: 'one' },
      { bytes: pattern(10, 2), commandLine: '' },
    ];
    const { registers, u32, u64, memory, text } = loaded(kernel(), { modules });
    const info = Number(registers.get(R.rbx));
    const table = u64(info + 16);
    expect(u32(info + 12)).toBe(2);
    const found = [0, 1].map((index) => {
      const [address = 0, size = 0, line = 0, reserved = 0] = [0, 8, 16, 24].map((at) => u64(table + 32 * index + at));
      return { address, bytes: memory.window(address, size), commandLine: text(line), reserved };
    });
    expect(found).toEqual([
      { address: 0x7f_e000, ...modules[0], reserved: 0 },
      { address: 0x7f_d000, ...modules[1], reserved: 0 },
    ]);
  });

  it('may have other notes, and its entry in a quadword', () => {
    const content = Uint8Array.from([...word(ENTRY), 0, 0, 0, 0]);
    const before = { owner: 'GNU', type: 18, content: pattern(5) };
    expect(heard(kernel([before, { ...PHYS32_ENTRY, type: 17 }, { ...PHYS32_ENTRY, content }]))).toMatch(/./);
    expect(loaded(kernel([before, { ...PHYS32_ENTRY, content }])).registers.get(R.rip)).toBe(BigInt(ENTRY));
  });
});

describe('a kernel is refused for PVH', () => {
  it.each<[string, Uint8Array, RegExp]>([
    ['that has no such note', kernel([]), /no Xen note 18 with a PVH entry\. Build the kernel with CONFIG_PVH/],
    ['that is no ELF file', pattern(64), /no ELF file, which PVH needs/],
    [
      'whose notes are cut off',
      kernel(undefined, 64, { fileBytes: 0x1000 }),
      /program header 1: its notes end at file offset/,
    ],
    [
      'with a note that is longer than its segment',
      kernel(undefined, 64, { fileBytes: 17 }),
      /note at file offset .* is cut off/,
    ],
    [
      'whose entry is too short',
      kernel([{ ...PHYS32_ENTRY, content: pattern(2) }]),
      /Xen note 18: its entry point has 2 bytes/,
    ],
    [
      'whose entry lies in no segment',
      kernel([{ ...PHYS32_ENTRY, content: word(0x5000) }]),
      /entry point: 5000h lies in no/,
    ],
  ])('%s', (_, image, message) => {
    expect(() => loaded(image, { protocol: 'pvh' })).toThrow(InputError);
    expect(() => loaded(image, { protocol: 'pvh' })).toThrow(message);
  });

  it('whose RAM disk has no room', () => {
    const modules = [{ bytes: new Uint8Array(0x70_0000), commandLine: '' }];
    expect(() => loaded(kernel(), { modules })).toThrow(/module "": no room in RAM for its 7340032 bytes\. Give the/);
  });
});

import { describe, expect, it } from 'vitest';
import type { BootModule } from '../../../src/machine/boot/boot-package.js';
import { ImageReader } from '../../../src/machine/boot/image-reader.js';
import { bootMultiboot } from '../../../src/machine/boot/multiboot.js';
import { InputError } from '../../../src/machine/errors.js';
import { R, type Slot } from '../../../src/machine/layout/cpu-state.js';
import { PhysicalMemory } from '../../../src/machine/mmu/memory.js';
import { sPA } from '../../../src/machine/units.js';
import {
  type ElfFields,
  type ElfSegment,
  elfImage,
  joined,
  multibootHeader,
  pattern,
} from '../../support/boot-images.js';

const RAM_BYTES = 0x20_0000;
const AT = 0x10_0000;
const CODE = joined(multibootHeader(), pattern(100));

const elf = (segment: Partial<ElfSegment> = {}, fields: ElfFields = {}, ...more: readonly ElfSegment[]): Uint8Array =>
  elfImage([{ physical: AT, data: CODE, ...segment }, ...more], fields);

function boot(image: Uint8Array, commandLine = 'guest', modules: readonly BootModule[] = [], ramBytes = RAM_BYTES) {
  const memory = new PhysicalMemory(ramBytes);
  const target = { memory, board: { vcpus: 1, timerBits: 24, virtio: [], acpiTables: true }, commandLine, modules };
  const registers = new Map(bootMultiboot(target, new ImageReader(image)));
  const u32 = (address: number): number => memory.read32(address);
  const info = Number(registers.get(R.rbx));
  return { memory, registers, info, u32, text: (address: number) => textAt(memory, address) };
}

function textAt(memory: PhysicalMemory, address: number): string {
  let text = '';
  for (let at = address; memory.read(sPA(at), 1) !== 0n; at++)
    text += String.fromCharCode(Number(memory.read(sPA(at), 1)));
  return text;
}

describe('a Multiboot image', () => {
  it.each([
    ['ELF32', elf()],
    ['ELF64', elf({}, { bits: 64 })],
    ['with load addresses', joined(multibootHeader({ addresses: [AT, AT, 0, 0, AT] }), pattern(100))],
  ])('%s is loaded where it says', (_, image) => {
    const { memory, registers } = boot(image);
    expect(registers.get(R.rip)).toBe(BigInt(AT));
    expect(memory.window(AT + CODE.length - 100, 1)).toEqual(pattern(1));
    expect(memory.read32(AT)).toBe(0x1bad_b002);
  });

  it('is entered in flat 32-bit protected mode without paging, x87 initialized (Multiboot 0.6.96, §3.2 Machine state)', () => {
    const { registers, info } = boot(elf());
    expect(Object.fromEntries(registers)).toEqual({
      [R.rax]: 0x2bad_b002n,
      [R.rbx]: BigInt(info),
      [R.rip]: BigInt(AT),
      [R.cr0]: 0x11n,
      [R.cs]: 0xffff_ffff_0c9b_0008n,
      [R.csBase]: 0n,
      [R.fcw]: 0x37fn,
      [R.ftw]: 0n,
      ...Object.fromEntries([R.es, R.ss, R.ds, R.fs, R.gs].map((slot: Slot) => [slot, 0xffff_ffff_0c93_0010n])),
    });
  });

  it('finds the information structure by EBX (Multiboot 0.6.96, §3.3 Boot information format)', () => {
    const { info, u32, text } = boot(elf(), 'guest one "two three"');
    expect(info).toBe(0x9000);
    expect(u32(info)).toBe(0x24d); // memory, command line, modules, memory map, boot loader name
    expect([u32(info + 4), u32(info + 8)]).toEqual([639, 1024]);
    expect(text(u32(info + 16))).toBe('guest one "two three"');
    expect(u32(info + 20)).toBe(0);
    expect(text(u32(info + 64))).toBe('vmtape');
  });

  it('is told which memory there is', () => {
    const { info, u32, memory } = boot(elf());
    const start = u32(info + 48);
    const entries = Array.from({ length: u32(info + 44) / 24 }, (_, index) => {
      const at = start + 24 * index;
      expect(u32(at)).toBe(20);
      return [memory.read(sPA(at + 4), 8), memory.read(sPA(at + 12), 8), u32(at + 20)];
    });
    expect(entries).toEqual([
      [0n, 0x9_fc00n, 1],
      [0x9_fc00n, 0x400n, 2],
      [0xf_0000n, 0x1_0000n, 2],
      [0x10_0000n, 0x10_0000n, 1],
    ]);
  });

  it('finds the BIOS data area as a BIOS leaves it', () => {
    const { memory } = boot(elf());
    expect([memory.read(sPA(0x40e), 2), memory.read(sPA(0x413), 2)]).toEqual([0x9fc0n, 639n]);
  });

  it('gets modules on page boundaries above the image', () => {
    const modules = [
      { bytes: pattern(5000, 1), commandLine: 'first a b' },
      { bytes: pattern(10, 2), commandLine: 'second' },
    ];
    const { info, u32, text, memory } = boot(elf({ memoryBytes: 0x1800 }), 'guest', modules);
    const table = u32(info + 24);
    expect(u32(info + 20)).toBe(2);
    const found = [0, 1].map((index) => {
      const [start = 0, end = 0, string = 0] = [0, 4, 8].map((offset) => u32(table + 16 * index + offset));
      return { start, bytes: memory.window(start, end - start), commandLine: text(string) };
    });
    expect(found).toEqual([
      { start: 0x10_2000, ...modules[0] },
      { start: 0x10_4000, ...modules[1] },
    ]);
  });

  it('may be in the way of the information structure, which then stands elsewhere', () => {
    const low = { physical: 0x8000, data: pattern(16), memoryBytes: 0x4000 };
    expect(boot(elf({}, { entry: AT }, low)).info).toBe(0xc000);
    const all = { physical: 0x500, data: pattern(16), memoryBytes: 0x9_fc00 - 0x500 };
    expect(boot(elf({}, { entry: AT }, all)).info).toBe(0x10_1000);
  });

  it('is entered at the physical address of its entry when that is a linear one', () => {
    const virtual = 0xc010_0000;
    expect(boot(elf({ virtual }, { entry: virtual + 8 })).registers.get(R.rip)).toBe(BigInt(AT + 8));
  });

  it('may stand behind other bytes, and its load addresses count from there', () => {
    const header = multibootHeader({ addresses: [AT + 64, AT, AT + 200, AT + 0x3000, AT + 96] });
    const image = joined(pattern(4096), pattern(64), header, pattern(400));
    const { memory, registers } = boot(image);
    expect(registers.get(R.rip)).toBe(BigInt(AT + 96));
    expect(memory.window(AT, 64)).toEqual(pattern(64));
    expect(memory.window(AT + 200, 8)).toEqual(new Uint8Array(8));
  });

  it('may hold the magic number by chance before its header', () => {
    const image = joined(
      multibootHeader({ checksumError: 1 }),
      multibootHeader({ addresses: [AT + 12, AT, 0, 0, AT + 44] }),
    );
    expect(boot(joined(image, pattern(8))).registers.get(R.rip)).toBe(BigInt(AT + 44));
  });

  it('that prefers a video mode boots without one', () => {
    expect(() => boot(elf({ data: joined(multibootHeader({ flags: 4 }), pattern(8)) }))).not.toThrow();
  });

  it('boots with the least RAM', () => {
    const image = elf({ physical: 0x1_0000 });
    const { info, u32 } = boot(image, 'guest', [], AT);
    expect(u32(info + 8)).toBe(0);
    expect(u32(info + 44)).toBe(3 * 24);
  });
});

describe('an image is refused, with what, where and what to do', () => {
  const kludge = (...addresses: readonly number[]): Uint8Array => joined(multibootHeader({ addresses }), pattern(100));

  const refused: readonly (readonly [what: string, image: Uint8Array, message: RegExp])[] = [
    ['an empty file', new Uint8Array(0), /^boot image: the file is empty\. Build/],
    ['a text', new TextEncoder().encode('#!/bin/sh\necho hello\n'), /no Multiboot header.*first 8192 bytes/],
    ['a header behind 8192 bytes', joined(new Uint8Array(8192), CODE), /no Multiboot header/],
    ['a header across byte 8192', joined(new Uint8Array(8184), CODE), /no Multiboot header/],
    ['a header that is not aligned', joined(new Uint8Array(2), CODE), /no Multiboot header/],
    ['a wrong checksum', elf({ data: multibootHeader({ checksumError: 4 }) }), /file offset 54h.*do not add up to 0/],
    ['unknown features', elf({ data: multibootHeader({ flags: 0x28 }) }), /features \(flags 28h\).*Build it without/],
    ['a header alone', multibootHeader(), /no ELF file, and its Multiboot header has no load addresses/],
    ['cut address fields', kludge(AT, AT, 0, 0, AT).subarray(0, 20), /address fields are cut off/],
    ['a start before the file', kludge(AT, AT - 64, 0, 0, AT), /start of the image outside of the file/],
    ['a header before its load address', kludge(AT, AT + 64, 0, 0, AT), /start of the image outside of the file/],
    ['a load end before the start', kludge(AT, AT, AT - 4, 0, AT), /load_end_addr FFFFCh lies before/],
    ['less file than it loads', kludge(AT, AT, AT + 0x1000, 0, AT), /ends at file offset 1000h, past the end/],
    ['a bss that ends in the data', kludge(AT, AT, AT + 100, AT + 50, AT), /bss_end_addr 100032h lies before/],
    [
      'a truncated ELF header',
      joined(elf({}, { bits: 64 }).subarray(0, 16), multibootHeader(), pattern(30)),
      /ELF header: the file ends after 58 of 64 bytes/,
    ],
    ['truncated program headers', elf({}, { programHeaderOffset: 0x500 }), /program headers.*520h, past the end/],
    ['short program headers', elf({}, { programHeaderBytes: 16 }), /program headers of 16 bytes are too short/],
    ['no program header', joined(elfImage([]), CODE), /no program headers/],
    ['nothing loadable', elf({ type: 4 }), /no program header is loadable/],
    ['a relocatable file', elf({}, { type: 1 }), /of type 1, not an executable/],
    ['another processor', elf({}, { machine: 183 }), /machine type 183, not x86/],
    ['another byte order', elf({}, { encoding: 2 }), /not little-endian/],
    ['another class', elf({}, { fileClass: 3 }), /class is 3/],
    [
      'a truncated segment',
      elf().subarray(0, -1),
      /program header 0: the segment ends at file offset C4h, past the end/,
    ],
    ['more file than memory', elf({ memoryBytes: 8 }), /70h bytes in the file, 8h in memory/],
    [
      'a segment past RAM',
      elf({ memoryBytes: RAM_BYTES }),
      /100000h\.\.2FFFFFh does not fit into RAM, which ends at 200000h/,
    ],
    ['a segment beyond 64 bits', elf({ physical: 0xffff_ffff_f000 }, { bits: 64 }), /does not fit into RAM/],
    [
      'a segment over the video hole',
      elf({ physical: 0x9_f000, memoryBytes: 0x2000 }),
      /covers the extended BIOS data area/,
    ],
    [
      'a segment in the ROM area',
      elf({ physical: 0xc_0000 }),
      /covers the hole for video memory and ROMs at A0000h\.\.FFFFFh/,
    ],
    ['a segment over the BIOS data', elf({ physical: 0x3f0 }), /covers the BIOS data area at 400h\.\.4FFh/],
    [
      'overlapping segments',
      elf({}, {}, { physical: AT + 0x20, data: pattern(16) }),
      /program header 1: the segment at 100020h\.\.10002Fh overlaps the segment at 100000h\.\.10006Fh of program header 0/,
    ],
    ['an entry outside', elf({}, { entry: 0x5000 }), /entry point: 5000h lies in no loaded segment/],
  ];

  it.each(refused)('%s', (_, image, message) => {
    expect(() => boot(image)).toThrow(InputError);
    expect(() => boot(image)).toThrow(message);
  });

  it('a module that does not fit', () => {
    const modules = [{ bytes: new Uint8Array(RAM_BYTES), commandLine: 'initrd.img' }];
    expect(() => boot(elf(), 'guest', modules)).toThrow(/module "initrd.img": no room in RAM for its 2097152 bytes/);
  });

  it('no room for the information structure', () => {
    const low = { physical: 0x500, data: pattern(16), memoryBytes: 0x9_fc00 - 0x500 };
    expect(() => boot(elf({ memoryBytes: AT }, { entry: AT }, low))).toThrow(
      /no room in RAM for \d+ bytes of boot info/,
    );
  });
});

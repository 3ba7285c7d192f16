import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/machine/errors.js';
import { R } from '../../../src/machine/layout/cpu-state.js';
import { elfImage, joined, pattern } from '../../support/boot-images.js';
import { fromHex, heard, loaded, SEND_BYTES_AND_END, SEND_TEXT } from '../../support/booted-image.js';

const AT = 0x10_0000;
const MAGIC = 0xe852_50d6;
/** The command line's tag is the first, the first module's the third. */
const GUEST = fromHex(`
  3d 8962d736 7402 ebfe
  8d7310 ${SEND_TEXT}
  8d5308 0352 04 83c207 83e2f8 035204 83c207 83e2f8
  8b7208 8b4a0c 29f1 ${SEND_BYTES_AND_END}`);

interface Tag {
  readonly type: number;
  readonly optional?: boolean;
  readonly words?: readonly number[];
}
const END: Tag = { type: 0 };

function header(tags: readonly Tag[], { architecture = 0, error = 0, length = 0 } = {}): Uint8Array {
  const fields = tags.flatMap(({ type, optional = false, words = [] }) => {
    const size = 8 + 4 * words.length;
    return [type | (optional ? 0x1_0000 : 0), size, ...words, ...(size % 8 === 0 ? [] : [0])];
  });
  const bytes = 16 + 4 * fields.length + length;
  const all = [MAGIC, architecture, bytes, -(MAGIC + architecture + bytes) + error, ...fields];
  return new Uint8Array(Uint32Array.from(all, (field) => field >>> 0).buffer);
}

/** Load addresses from the header on, and an entry behind it. */
const addressed = (...more: readonly Tag[]): Uint8Array => {
  const tags = (entry: number): Tag[] => [
    { type: 2, words: [AT, AT, 0, 0] },
    { type: 3, words: [entry] },
    ...more,
    END,
  ];
  const { length } = header(tags(0));
  return joined(header(tags(AT + length)), GUEST);
};
const elf = (tags: readonly Tag[] = [END], fields = {}): Uint8Array => {
  const head = header(tags, fields);
  // The header of an ELF64 and its one program header end on an 8-byte boundary.
  return elfImage([{ physical: AT, data: joined(head, GUEST) }], { bits: 64, entry: AT + head.length });
};

describe('a Multiboot 2 image (Multiboot2 Specification 2.0)', () => {
  const how = { commandLine: 'guest one ', modules: [{ bytes: new TextEncoder().encode('module'), commandLine: '' }] };

  it.each<[string, Uint8Array]>([
    ['ELF', elf()],
    ['with load addresses', addressed()],
    [
      'with tags that it can do without',
      elf([{ type: 99, optional: true, words: [1, 2, 3] }, { type: 7, optional: true }, END]),
    ],
    [
      'with wishes that are met',
      elf([{ type: 1, words: [1, 2, 3, 4, 6, 15] }, { type: 4, words: [0] }, { type: 6 }, END]),
    ],
    [
      'for EFI as well, and relocatable',
      elf([{ type: 8, words: [5] }, { type: 10, words: [0, 1, 1, 0] }, { type: 5, words: [0, 0, 0] }, END]),
    ],
    [
      'behind other bytes',
      elfImage(
        [
          { physical: AT, data: joined(pattern(0x7000), header([{ type: 3, words: [AT] }, END])) },
          { physical: AT + 0x1_0000, data: GUEST },
        ],
        { bits: 64, entry: AT + 0x1_0000 },
      ),
    ],
  ])('%s finds its command line and its module', (what, image) => {
    if (what === 'behind other bytes') expect(loaded(image).registers.get(R.rip)).toBe(BigInt(AT));
    else expect(heard(image, how)).toBe('guest one module');
  });

  it('finds the boot information by EBX, tag after tag (§3.6)', () => {
    const { registers, memory, u32, u64, text } = loaded(elf(), {
      ...how,
      modules: [{ bytes: pattern(5000), commandLine: 'mod args' }],
    });
    expect(registers.get(R.rax)).toBe(0x36d7_6289n);
    const info = Number(registers.get(R.rbx));
    const found = new Map<number, number>();
    for (let at = info + 8; ; at += Math.ceil(u32(at + 4) / 8) * 8) {
      found.set(u32(at), at);
      if (u32(at) === 0) {
        expect(u32(info)).toBe(at + 8 - info);
        break;
      }
    }
    const tag = (type: number): number => (found.get(type) as number) + 8;
    expect([...found.keys()]).toEqual([1, 2, 3, 4, 6, 15, 0]);
    expect([text(tag(1)), text(tag(2)), text(tag(3) + 8)]).toEqual(['guest one ', 'vmtape', 'mod args']);
    expect(memory.window(u32(tag(3)), u32(tag(3) + 4) - u32(tag(3)))).toEqual(pattern(5000));
    expect([u32(tag(4)), u32(tag(4) + 4)]).toEqual([639, 7 * 1024]);
    expect([u32(tag(6)), u32(tag(6) + 4), u32(tag(6) - 4)]).toEqual([24, 0, 16 + 4 * 24]);
    expect([u64(tag(6) + 8 + 72), u64(tag(6) + 16 + 72), u32(tag(6) + 24 + 72)]).toEqual([0x10_0000, 0x70_0000, 1]);
    expect(memory.window(tag(15), 36)).toEqual(memory.window(0xf_0000, 36));
  });

  it('gets no RSDP where there are no ACPI tables, and is refused when it needs one', () => {
    const { registers, u32 } = loaded(elf(), { acpiTables: false });
    const info = Number(registers.get(R.rbx));
    const types: number[] = [];
    for (let at = info + 8; at < info + u32(info); at += Math.ceil(u32(at + 4) / 8) * 8) types.push(u32(at));
    expect(types).toEqual([1, 2, 4, 6, 0]);
    const needing = elf([{ type: 1, words: [15] }, END]);
    expect(() => loaded(needing)).not.toThrow();
    expect(() => loaded(needing, { acpiTables: false })).toThrow(/asks for boot information of type 15/);
  });
});

describe('a Multiboot 2 image is refused', () => {
  it.each<[string, Uint8Array, RegExp]>([
    [
      'for another architecture',
      elf([END], { architecture: 4 }),
      /header at file offset 78h: it is for architecture 4, not i386/,
    ],
    ['without a header', elf([END], { error: 1 }), /no Multiboot 2 header in its first 32768 bytes/],
    ['whose tags have no end', elf([{ type: 6 }]), /its tags are cut off, or lack the last one/],
    ['whose header ends behind the file', elf([END], { length: 0x100 }), /its tags are cut off/],
    ['with a tag that is too short', elf([{ type: 3 }, END]), /its tags are cut off/],
    ['that needs what nobody knows', elf([{ type: 99 }, END]), /asks for a feature by tag 99, which is not there/],
    ['that needs EFI', elf([{ type: 7 }, END]), /asks for EFI boot services/],
    ['that needs a console', elf([{ type: 4, words: [1] }, END]), /asks for a console/],
    ['that wants information that there is not', elf([{ type: 1, words: [1, 9] }, END]), /boot information of type 9/],
    [
      'with addresses but no entry',
      joined(header([{ type: 2, words: [AT, AT, 0, 0] }, END]), GUEST),
      /address tag without an entry tag/,
    ],
    [
      'that says nowhere where it belongs',
      joined(header([END]), GUEST),
      /no ELF file, and its Multiboot 2 header has no address tag/,
    ],
    [
      'whose addresses end behind the file',
      joined(header([{ type: 2, words: [AT, AT, AT + 0x1000, 0] }, { type: 3, words: [AT] }, END]), GUEST),
      /image ends at file offset 1000h/,
    ],
  ])('%s', (_, image, message) => {
    const load = () => loaded(image, { protocol: 'multiboot2' });
    expect(load).toThrow(InputError);
    expect(load).toThrow(message);
  });
});

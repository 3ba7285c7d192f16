import { describe, expect, it } from 'vitest';
import { bootProtocol, namesImage } from '../../../src/machine/boot/load-image.js';
import { elfImage, joined, multibootHeader, pattern } from '../../support/boot-images.js';
import { loaded, type Note, notes, word } from '../../support/booted-image.js';

const AT = 0x10_0000;
const XEN = { owner: 'Xen', type: 18, content: word(AT) };
const LINUX = { owner: 'Linux', type: 0x100, content: word(0) };
const MULTIBOOT2 = new Uint8Array(
  Uint32Array.from([0xe852_50d6, 0, 24, -(0xe852_50d6 + 24), 0, 8], (field) => field >>> 0).buffer,
);
const withNotes = (data: Uint8Array, ...given: readonly Note[]): Uint8Array =>
  elfImage(
    [
      { physical: AT, data },
      { physical: 0, type: 4, data: notes(...given) },
    ],
    { bits: 64 },
  );
/** The marks of a boot sector and of a bzImage. */
const marked = (bzImage: boolean): Uint8Array => {
  const bytes = new Uint8Array(1024);
  bytes.set([0x55, 0xaa], 510);
  if (bzImage) bytes.set(new TextEncoder().encode('HdrS'), 0x202);
  return bytes;
};
const padded = joined(multibootHeader(), new Uint8Array(4));

describe('the protocol of an image', () => {
  it.each<[string, Uint8Array, string]>([
    ['a Multiboot header', joined(multibootHeader(), pattern(100)), 'multiboot'],
    ['both Multiboot headers and a PVH entry', withNotes(joined(padded, MULTIBOOT2), XEN), 'multiboot'],
    ['a Multiboot 2 header and a PVH entry', withNotes(joined(MULTIBOOT2, pattern(8)), XEN), 'multiboot2'],
    ['a PVH entry in a kernel of Linux', withNotes(pattern(64), LINUX, XEN), 'pvh'],
    ['notes of Linux', withNotes(pattern(64), { ...XEN, type: 5 }, LINUX), 'linux'],
    ['a setup header, which follows the mark of boot sectors', marked(true), 'linux'],
    ['the mark of boot sectors alone', marked(false), 'real'],
  ])('%s', (_, image, protocol) => {
    expect(bootProtocol({ image, protocol: undefined })).toBe(protocol);
    expect(bootProtocol({ image, protocol: 'flat' })).toBe('flat');
  });

  it('decides whether a command line begins with the name of the file', () => {
    expect((['multiboot', 'multiboot2', 'flat', 'pvh', 'linux', 'real'] as const).filter(namesImage)).toEqual([
      'multiboot',
      'multiboot2',
      'flat',
    ]);
  });

  it.each<[string, Uint8Array, RegExp]>([
    [
      'an ELF file without notes',
      elfImage([{ physical: AT, data: pattern(64) }]),
      /is nothing else that this version knows/,
    ],
    ['a Multiboot header whose checksum is wrong', multibootHeader({ checksumError: 1 }), /do not add up to 0/],
    ['an empty file', new Uint8Array(0), /the file is empty/],
  ])('cannot be told from %s', (_, image, message) => {
    expect(() => bootProtocol({ image, protocol: undefined })).toThrow(message);
  });

  it.each(['a command line', 'arguments of a module'])('%s with a zero byte: refused', (where) => {
    const [commandLine, argument] = where === 'a command line' ? ['a\0b', ''] : ['', 'a\0b'];
    const modules = [{ bytes: pattern(1), commandLine: argument }];
    expect(() => loaded(padded, { commandLine, modules, protocol: 'flat' })).toThrow(
      /command line: it contains a zero/,
    );
  });
});

import { describe, expect, it } from 'vitest';
import { R } from '../../../src/machine/layout/cpu-state.js';
import { pattern } from '../../support/boot-images.js';
import { fromHex, heard, loaded, SEND_BYTES_AND_END, SEND_TEXT, SEND_TEXT16 } from '../../support/booted-image.js';

/** Sends its command line, then its first module, as Multiboot has them. */
const FLAT = fromHex(`8b7310 ${SEND_TEXT} 8b4318 8b30 8b4804 29f1 ${SEND_BYTES_AND_END}`);

/** A boot sector that sends the text behind it. */
function bootSector(text: string, sectors = 2): Uint8Array {
  const bytes = new Uint8Array(512 * sectors);
  bytes.set(fromHex(`be007e ${SEND_TEXT16}`));
  bytes.set([0x55, 0xaa], 510);
  bytes.set(new TextEncoder().encode(text), 512);
  return bytes;
}

describe('a flat image', () => {
  it('is entered at 1 MiB, and told what a Multiboot image is', () => {
    const modules = [{ bytes: new TextEncoder().encode('module'), commandLine: '' }];
    expect(heard(FLAT, { protocol: 'flat', commandLine: 'flat.bin ', modules })).toBe('flat.bin module');
    expect(loaded(FLAT, { protocol: 'flat' }).registers.get(R.rip)).toBe(0x10_0000n);
  });

  it('is never guessed, and must fit into RAM', () => {
    expect(() => loaded(FLAT)).toThrow(/no Multiboot header.*say with --boot how/);
    expect(() => loaded(new Uint8Array(0x80_0000), { protocol: 'flat' })).toThrow(
      /the image: .* does not fit into RAM/,
    );
  });
});

describe('a real-mode image (IBM PC AT Technical Reference, bootstrap loader)', () => {
  it('is entered at 0000:7C00, with all that follows its boot sector', () => {
    expect(heard(bootSector('hello'))).toBe('hello');
    const { registers } = loaded(bootSector(''));
    expect(Object.fromEntries(registers)).toMatchObject({
      [R.rip]: 0x7c00n,
      [R.cr0]: 0x10n,
      [R.cs]: 0xffff_009b_0000n,
    });
    expect(registers.get(R.rdx)).toBe(0x80n);
  });

  it('may lack the signature when the protocol is chosen', () => {
    const image = bootSector('hello');
    image[511] = 0;
    expect(() => loaded(image)).toThrow(/no Multiboot header/);
    expect(heard(image, { protocol: 'real' })).toBe('hello');
  });

  it('is refused with modules, or when conventional memory does not hold it', () => {
    const modules = [{ bytes: pattern(1), commandLine: '' }];
    expect(() => loaded(bootSector(''), { modules })).toThrow(/finds no modules\. Leave out --initrd/);
    expect(() => loaded(bootSector('', 0x4c1))).toThrow(/covers the extended BIOS data area/);
    expect(heard(bootSector('fits', 0x4c0))).toBe('fits');
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BOOT_PROTOCOLS, packBoot, unpackBoot } from '../../../src/machine/boot/boot-package.js';
import { InputError } from '../../../src/machine/errors.js';
import { pattern } from '../../support/boot-images.js';

const modules = [
  { bytes: pattern(100), commandLine: 'first, "ä"' },
  { bytes: new Uint8Array(0), commandLine: '' },
];
const whole = packBoot({ image: pattern(1000), protocol: 'pvh', modules });

describe('a package of an image and what goes with it', () => {
  it('gives back what was put in', () => {
    const file = fc.uint8Array({ maxLength: 300 });
    fc.assert(
      fc.property(
        file,
        fc.constantFrom(undefined, ...BOOT_PROTOCOLS),
        fc.array(fc.record({ bytes: file, commandLine: fc.string() }), { maxLength: 3 }),
        file,
        (image, protocol, files, disk) => {
          expect(unpackBoot(packBoot({ image, protocol, modules: files, disk }))).toEqual({
            image,
            protocol,
            modules: files,
            disk,
          });
        },
      ),
    );
  });

  it('is the image itself when there is nothing else', () => {
    const image = pattern(64);
    expect(packBoot({ image, protocol: undefined, modules: [] })).toBe(image);
  });

  const directory = (text: string): Uint8Array => {
    const json = new TextEncoder().encode(text);
    const bytes = new Uint8Array(20 + json.length);
    bytes.set(whole.subarray(0, 16));
    new DataView(bytes.buffer).setUint32(16, json.length, true);
    bytes.set(json, 20);
    return bytes;
  };
  it.each<[string, Uint8Array, RegExp]>([
    [
      'is cut off',
      whole.subarray(0, -1),
      /package of image and modules: its directory does not account for its \d+ bytes/,
    ],
    ['is cut off in its directory', whole.subarray(0, 40), /its directory cannot be read/],
    ['has no directory', directory('null'), /its directory cannot be read/],
    ['has text instead of lengths', directory('{"protocol":null,"imageBytes":"1","modules":[]}'), /cannot be read/],
    ['has a negative length', directory('{"protocol":null,"imageBytes":-1,"modules":[]}'), /cannot be read/],
    [
      'names a protocol that there is not',
      directory('{"protocol":"bios","imageBytes":0,"modules":[]}'),
      /cannot be read/,
    ],
    ['has modules that are none', directory('{"protocol":null,"imageBytes":0,"modules":[null]}'), /cannot be read/],
    [
      'has modules without length',
      directory('{"protocol":null,"imageBytes":0,"modules":[{"commandLine":""}]}'),
      /cannot/,
    ],
  ])('is refused when it %s', (_, bytes, message) => {
    expect(() => unpackBoot(bytes)).toThrow(InputError);
    expect(() => unpackBoot(bytes)).toThrow(message);
  });
});

import { beforeEach, describe, expect, it } from 'vitest';
import { PhysicalMemory } from '../../../src/machine/mmu/memory.js';
import { ioExitInfo, mapBase, msrIntercepted, portIntercepted } from '../../../src/machine/svm/permission-maps.js';
import { sPA } from '../../../src/machine/units.js';

const MAP = 0x1_0000;
let memory: PhysicalMemory;
const setBit = (bit: number): void => {
  const byte = sPA(MAP + (bit >>> 3));
  memory.write(byte, 1, memory.read(byte, 1) | (1n << BigInt(bit & 7)));
};

beforeEach(() => {
  memory = new PhysicalMemory(0x4_0000);
});

describe('I/O permission map (APM vol.2 §15.10.1 I/O Permissions Map)', () => {
  const intercepted = (port: number, size: number) =>
    portIntercepted(memory, mapBase(BigInt(MAP) + 0xabcn), port, size);

  it('has one bit a port; low bits of the base do not count', () => {
    setBit(0x3f8);
    expect([0x3f7, 0x3f8, 0x3f9].map((port) => intercepted(port, 1))).toEqual([false, true, false]);
  });

  it.each([
    [0x80, 4, true],
    [0x81, 2, false],
    [0x82, 2, true],
    [0x84, 1, false],
    [0x7f, 4, false],
    [0x80, 2, false],
  ])('looks at every byte of an access at %i of %i bytes, bit 83h set', (port, size, expected) => {
    setBit(0x83);
    expect(intercepted(port, size)).toBe(expected);
  });

  it('reads on into the third page from port FFFFh, and does not wrap to port 0', () => {
    setBit(0);
    expect(intercepted(0xffff, 4)).toBe(false);
    setBit(0x1_0002);
    expect([intercepted(0xffff, 4), intercepted(0xffff, 2), intercepted(0xffff, 1)]).toEqual([true, false, false]);
  });

  it('intercepts everything where the map is not RAM', () => {
    expect(portIntercepted(memory, 0x80_0000, 0x60, 1)).toBe(true);
  });

  it('reports accesses (figure 15-2)', () => {
    const out = { input: false, string: false, rep: false, size: 1, addressWidth: 64, segment: 3, port: 0x3f8 };
    expect(ioExitInfo(out)).toBe(0x3f8_0210n);
    const insd = { ...out, input: true, string: true, rep: true, size: 4, addressWidth: 32, segment: 0, port: 0xffff };
    expect(ioExitInfo(insd)).toBe(0xffff_014dn);
    expect(ioExitInfo({ ...out, string: true, size: 2, addressWidth: 16, segment: 5 })).toBe(0x3f8_14a4n);
  });
});

describe('MSR permission map (APM vol.2 §15.11 MSR Intercepts, table 15-8)', () => {
  it.each([
    ['the first', 0x0000_0000, 0x000],
    ['the first', 0x0000_1fff, 0x7ff],
    ['the second', 0xc000_0080, 0x820],
    ['the third', 0xc001_0117, 0x1045],
  ])('has two bits an MSR in %s range', (_what, msr, byte) => {
    const read = 8 * byte + 2 * (msr & 3);
    expect(msrIntercepted(memory, MAP, msr, false)).toBe(false);
    setBit(read);
    expect(msrIntercepted(memory, MAP, msr, false)).toBe(true);
    expect(msrIntercepted(memory, MAP, msr, true)).toBe(false);
    setBit(read + 1);
    expect(msrIntercepted(memory, MAP, msr, true)).toBe(true);
  });

  it.each([0x2000, 0x4000_0000, 0xbfff_ffff, 0xc000_2000, 0xc001_2000, 0xffff_ffff])('always intercepts %i', (msr) => {
    expect(msrIntercepted(memory, MAP, msr, false)).toBe(true);
  });
});

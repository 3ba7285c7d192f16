/** Patterns of the three formats: what they stand for, and that packing reverses unpacking. */
import { describe, expect, it } from 'vitest';
import {
  convertNaN,
  F32,
  F64,
  F80,
  type FloatFormat,
  type FloatKind,
  packFinite,
  quiet,
  unpack,
} from '../../../src/machine/fp/format.js';

describe('floating-point formats', () => {
  it.each([
    [F32, 32, 24, -126, 127],
    [F64, 64, 53, -1022, 1023],
    [F80, 80, 64, -16382, 16383],
  ])('have the widths and exponent ranges of the manual ($0.name)', (format, width, precision, lowest, highest) => {
    expect(format.width).toBe(width);
    expect(format.precision).toBe(precision);
    expect(format.minExponent).toBe(lowest);
    expect(format.maxExponent).toBe(highest);
  });

  it('have the floating-point indefinite value as a negative QNaN (APM vol.1 §4.4.8, Indefinite Values)', () => {
    expect(F32.indefinite).toBe(0xffc0_0000n);
    expect(F64.indefinite).toBe(0xfff8_0000_0000_0000n);
    expect(F80.indefinite).toBe(0xffff_c000_0000_0000_0000n);
  });

  it.each<[FloatFormat, bigint, FloatKind]>([
    [F32, 0x0000_0000n, 'zero'],
    [F32, 0x8000_0000n, 'zero'],
    [F32, 0x0000_0001n, 'denormal'],
    [F32, 0x807f_ffffn, 'denormal'],
    [F32, 0x0080_0000n, 'normal'],
    [F32, 0x7f7f_ffffn, 'normal'],
    [F32, 0xff80_0000n, 'infinity'],
    [F32, 0x7f80_0001n, 'snan'],
    [F32, 0xffbf_ffffn, 'snan'],
    [F32, 0x7fc0_0000n, 'qnan'],
    [F64, 0x000f_ffff_ffff_ffffn, 'denormal'],
    [F64, 0x7ff0_0000_0000_0000n, 'infinity'],
    [F64, 0x7ff7_ffff_ffff_ffffn, 'snan'],
    [F64, 0xfff8_0000_0000_0000n, 'qnan'],
    [F80, 0x3fff_8000_0000_0000_0000n, 'normal'],
    [F80, 0x0000_8000_0000_0000_0000n, 'denormal'], // pseudo-denormal
    [F80, 0x3fff_7fff_ffff_ffff_ffffn, 'unsupported'], // unnormal
    [F80, 0x7fff_0000_0000_0000_0000n, 'unsupported'], // pseudo-infinity
    [F80, 0x7fff_8000_0000_0000_0000n, 'infinity'],
    [F80, 0x7fff_8000_0000_0000_0001n, 'snan'],
  ])('tell what a pattern stands for ($0.name $1 is $2)', (format, bits, kind) => {
    expect(unpack(format, bits).kind).toBe(kind);
  });

  it.each([
    [F32, 0x3fc0_0000n, -23, 0xc0_0000n], // 1.5
    [F32, 0x0000_0003n, -149, 3n],
    [F64, 0xbff0_0000_0000_0000n, -52, 1n << 52n], // −1
    [F80, 0x4000_c000_0000_0000_0000n, -62, 3n << 62n], // 3
    [F80, 0x0000_8000_0000_0000_0000n, -16445, 1n << 63n], // 2^-16382, written as a pseudo-denormal
  ])('unpack finite values into integers ($0.name $1)', (format, bits, exponent, significand) => {
    expect(unpack(format, bits)).toMatchObject({ exponent, significand });
  });

  it.each([
    [F32, 0x8080_0000n],
    [F32, 0x0000_0001n],
    [F64, 0x7fef_ffff_ffff_ffffn],
    [F64, 0x8000_0000_0000_0000n],
    [F80, 0xbffe_ffff_ffff_ffff_ffffn],
    [F80, 0x0000_7fff_ffff_ffff_ffffn],
  ])('pack what was unpacked ($0.name $1)', (format, bits) => {
    const { negative, exponent, significand } = unpack(format, bits);
    expect(packFinite(format, negative, exponent + format.fractionBits, significand)).toBe(bits);
  });

  it('convert NaNs with sign and leading payload bits, quietly (APM vol.1 Table 4-5, NaN Results)', () => {
    expect(quiet(F32, 0xff80_0001n)).toBe(0xffc0_0001n);
    expect(convertNaN(F32, F64, unpack(F32, 0xff80_0001n))).toBe(0xfff8_0000_2000_0000n);
    expect(convertNaN(F64, F32, unpack(F64, 0x7ff8_1234_5fff_ffffn))).toBe(0x7fc0_91a2n);
    expect(convertNaN(F64, F80, unpack(F64, 0x7ff4_0000_0000_0001n))).toBe(0x7fff_e000_0000_0000_0800n);
  });
});

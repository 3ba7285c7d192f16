/**
 * Values that make something happen: pointers near the ends of pages, selectors, MSR and port numbers, the special values
 * of integer and floating-point formats.
 */
import { At, CODE_BYTES, DATA_BYTES, RAM_BYTES, SELECTORS, STACK_BYTES, VMCB_COUNT } from './memory-map.js';
import type { Random } from './random.js';

/** How a program addresses memory. */
export interface Addressing {
  /** Added to addresses of the map: a base that is no segment's, an alias. */
  readonly bases: readonly bigint[];
  /** Segments begin at code, data and stack, and offsets have 16 bits. */
  readonly segmented: boolean;
}

const PORTS = [
  ...[0x20, 0x21, 0xa0, 0xa1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0x80, 0xed, 0x3f8, 0x3f9, 0x3fb, 0x3fd],
  ...[0xcf8, 0xcfc, 0x510, 0x511, 0x608, 0x60, 0x1234, 0xffff],
] as const;
const MSRS = [
  ...[0x10, 0x1b, 0x8b, 0xfe, 0x174, 0x175, 0x176, 0x179, 0x17a, 0x1a0, 0x1d9, 0x1db, 0x1dc, 0x200, 0x201, 0x250],
  ...[0x277, 0x2ff, 0x400, 0x401, 0x6e0, 0x802, 0x803, 0x808, 0x80b, 0x80f, 0x830, 0x832, 0x838, 0x839, 0x83e],
  ...[0xda0, 0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102],
  ...[0xc000_0103, 0xc000_0104, 0xc001_0000, 0xc001_0010, 0xc001_0015, 0xc001_0111, 0xc001_0114, 0xc001_0117],
  ...[0xc001_0118, 0xc001_0119, 0x12345],
] as const;
const TABLES = [
  ...[At.GDT, At.IDT64, At.IDT32, At.PML4, At.PDPT, At.TABLE, At.LEGACY_TABLE, At.TSS64, At.TSS32, At.NESTED_TABLE],
  ...[At.HOST_SAVE, At.IO_MAP, At.MSR_MAP, At.RECORDS64, At.RECORDS32, At.HANDLERS64, At.SMM + 0xfe00],
] as const;
const INTEGERS = [
  ...[0n, 1n, 2n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x8000n, 0xffffn, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn],
  ...[0x1_0000_0000n, 0x7fff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n, 0xffff_ffff_ffff_ffffn],
  ...[0x7fff_ffff_fffcn, 0xffff_8000_0000_0000n, 0xfee0_0000n, 0xfee0_0020n, 0xfec0_0000n, 0xa_0000n, 0xb_fffcn],
  ...[BigInt(RAM_BYTES - 4), 0xffff_ffff_ffff_fff8n],
] as const;

/** Zeros, ones, the least and greatest of each kind, infinities, quiet and signalling NaNs. */
const SINGLES = [
  ...[0x0000_0000, 0x8000_0000, 0x3f80_0000, 0xbf80_0000, 0x0000_0001, 0x8000_0001, 0x007f_ffff, 0x0080_0000],
  ...[0x7f7f_ffff, 0xff7f_ffff, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0001, 0x7f80_0001, 0xff80_0123],
  ...[0x4f00_0000, 0xcf00_0000, 0x5f00_0000, 0x3f00_0000, 0x4b00_0001, 0x3eaa_aaab, 0x4049_0fdb],
] as const;
const DOUBLES = [
  ...[0x0n, 0x8000_0000_0000_0000n, 0x3ff0_0000_0000_0000n, 0xbff0_0000_0000_0000n, 0x1n, 0x8000_0000_0000_0001n],
  ...[0x000f_ffff_ffff_ffffn, 0x0010_0000_0000_0000n, 0x7fef_ffff_ffff_ffffn, 0xffef_ffff_ffff_ffffn],
  ...[0x7ff0_0000_0000_0000n, 0xfff0_0000_0000_0000n, 0x7ff8_0000_0000_0000n, 0xfff8_0000_0000_0001n],
  ...[0x7ff0_0000_0000_0001n, 0xfff0_0000_0000_0123n, 0x41e0_0000_0000_0000n, 0xc1e0_0000_0000_0000n],
  ...[0x43e0_0000_0000_0000n, 0x3fe0_0000_0000_0000n, 0x4330_0000_0000_0001n, 0x3fd5_5555_5555_5555n],
  ...[0x36a0_0000_0000_0000n, 0x47ef_ffff_e000_0000n, 0x4009_21fb_5444_2d18n],
] as const;
/** Significand, sign and exponent; pseudo-denormals, unnormals and pseudo-infinities among them. */
const EXTENDEDS: readonly (readonly [bigint, bigint])[] = [
  [0n, 0n],
  [0n, 0x8000n],
  [0x8000_0000_0000_0000n, 0x3fffn],
  [0x8000_0000_0000_0000n, 0xbfffn],
  [0xc90f_daa2_2168_c235n, 0x4000n],
  [1n, 0n],
  [0x8000_0000_0000_0000n, 0n],
  [0x7fff_ffff_ffff_ffffn, 0x8000n],
  [0xffff_ffff_ffff_ffffn, 0x7ffen],
  [0x8000_0000_0000_0000n, 0x7fffn],
  [0x8000_0000_0000_0000n, 0xffffn],
  [0xc000_0000_0000_0000n, 0x7fffn],
  [0x8000_0000_0000_0001n, 0x7fffn],
  [0n, 0x7fffn],
  [0x4000_0000_0000_0000n, 0x3fffn],
  [0xffff_ffff_ffff_ffffn, 0x403en],
];

/** An address of data as an offset in DS: often amid, sometimes across the end of a page or of the data. */
export function dataOffset(random: Random): number {
  if (random.oneIn(8)) return 0x1000 * (1 + random.below(DATA_BYTES >> 12)) - 1 - random.below(32);
  const offset = random.below(DATA_BYTES - 256);
  return random.oneIn(2) ? offset & ~31 : offset;
}

export const codePlace = (random: Random): number => random.below(CODE_BYTES);
export const stackPlace = (random: Random): number => 8 * random.below(STACK_BYTES >> 3);

/** An address in one of the three regions, as programs in this mode write it. */
function pointer(random: Random, { bases, segmented }: Addressing, region: number, offset: number): bigint {
  if (segmented) return BigInt(offset);
  return BigInt.asUintN(64, random.pick(bases) + BigInt(region + offset));
}

export const dataPointer = (random: Random, addressing: Addressing): bigint =>
  pointer(random, addressing, At.DATA, dataOffset(random));
export const codePointer = (random: Random, addressing: Addressing): bigint =>
  pointer(random, addressing, At.CODE, codePlace(random));
export const stackPointer = (random: Random, addressing: Addressing): bigint =>
  pointer(random, addressing, At.STACK, stackPlace(random));

/** What a general-purpose register may hold. @param number some registers have uses of their own. */
export function registerValue(random: Random, addressing: Addressing, number: number): bigint {
  if (number === RCX && random.oneIn(3)) return random.oneIn(3) ? BigInt(random.pick(MSRS)) : BigInt(random.below(40));
  if (number === RDX && random.oneIn(4)) return BigInt(random.pick(PORTS));
  switch (random.below(20)) {
    case 0:
      return codePointer(random, addressing);
    case 1:
      return stackPointer(random, addressing);
    case 2:
    case 3:
      return BigInt(random.below(64));
    case 4:
      return BigInt(random.pick(SELECTORS));
    case 5:
      return BigInt(random.pick(TABLES));
    case 6:
      return BigInt(At.VMCBS + 0x1000 * random.below(VMCB_COUNT));
    case 7:
      return random.pick(INTEGERS);
    case 8:
      return random.next64();
    case 9:
      return BigInt.asUintN(64, -BigInt(random.below(64)));
    default:
      return dataPointer(random, addressing);
  }
}
const [RCX, RDX] = [1, 2];

/** Half of an XMM register, or a quadword of data. */
export function vectorHalf(random: Random): bigint {
  switch (random.below(4)) {
    case 0:
      return (BigInt(random.pick(SINGLES)) << 32n) | BigInt(random.pick(SINGLES));
    case 1:
      return random.pick(DOUBLES);
    case 2:
      return BigInt(random.below(256)) << BigInt(random.below(64));
    default:
      return random.next64();
  }
}

/** An x87 register: significand, sign and exponent. */
export const extendedValue = (random: Random): readonly [bigint, bigint] =>
  random.oneIn(2)
    ? random.pick(EXTENDEDS)
    : [
        random.next64() | 0x8000_0000_0000_0000n,
        BigInt(0x3fff - 70 + random.below(140)) | (random.oneIn(2) ? 0x8000n : 0n),
      ];

/** An immediate or a word of memory. */
export function word(random: Random, addressing: Addressing): bigint {
  switch (random.below(8)) {
    case 0:
      return dataPointer(random, addressing);
    case 1:
      return codePointer(random, addressing);
    case 2:
      return BigInt(random.pick(SELECTORS));
    case 3:
      return vectorHalf(random);
    case 4:
      return random.pick(INTEGERS);
    default:
      return random.next64();
  }
}

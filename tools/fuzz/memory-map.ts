/**
 * Where a fuzz program has what, and the tables that every one of its modes needs: page tables of all formats over the
 * same frames, descriptor tables for long and legacy mode, task states, nested page tables. All of it lies below 1 MiB, so
 * that real mode reaches it, and is writable: programs break it.
 * Source: APM vol.2 §5 Page Translation and Protection, §4.7 and §4.8 Segment Descriptors, §12.2 Task-Management Resources.
 */
import type { Random } from './random.js';

export const RAM_BYTES = 0x20_0000;

export const At = {
  IVT: 0x0000,
  /** Counters of the guest's own hops, one for each world. */
  COUNTER64: 0x0408,
  COUNTER32: 0x0410,
  COUNTER16: 0x0418,
  HANDLERS16: 0x0500,
  GDT: 0x0800,
  PML4: 0x1000,
  PDPT: 0x2000,
  /** Page directory and page table of the long and PAE formats. */
  DIRECTORY: 0x3000,
  TABLE: 0x4000,
  /** Directory of the fourth gigabyte, where devices are. */
  DEVICE_DIRECTORY: 0x5000,
  LEGACY_DIRECTORY: 0x6000,
  LEGACY_TABLE: 0x7000,
  PAE_POINTERS: 0x8000,
  IDT64: 0x9000,
  IDT32: 0xa000,
  LDT: 0xa800,
  TSS64: 0xb000,
  TSS32: 0xb200,
  /** The task that task gates and far jumps lead to. */
  OTHER_TSS32: 0xb400,
  TSS16: 0xb600,
  HANDLERS64: 0xc000,
  HANDLERS32: 0xd000,
  RECORDS16: 0xe000,
  RECORDS64: 0x1_0000,
  RECORDS32: 0x1_4000,
  HANDLER_STACK: 0x1_7ff0,
  NESTED_PML4: 0x1_8000,
  NESTED_PDPT: 0x1_9000,
  NESTED_DIRECTORY: 0x1_a000,
  NESTED_TABLE: 0x1_b000,
  NESTED_LEGACY_DIRECTORY: 0x1_c000,
  NESTED_LEGACY_TABLE: 0x1_d000,
  NESTED_PAE_POINTERS: 0x1_e000,
  VMCBS: 0x2_0000,
  HOST_SAVE: 0x2_4000,
  IO_MAP: 0x2_6000,
  MSR_MAP: 0x2_a000,
  HYPERVISOR: 0x2_e000,
  PROLOGUE: 0x2_f000,
  /** SMBASE: 64 KiB. */
  SMM: 0x3_0000,
  CODE: 0x4_0000,
  DATA: 0x5_0000,
  STACK: 0x5_8000,
  /** Frames that pages of code and data may map to instead of their own. */
  SPARE: 0x6_0000,
} as const;

export const CODE_BYTES = 0x4000;
export const DATA_BYTES = 0x4000;
export const STACK_BYTES = 0x2000;
const SPARE_PAGES = 8;
export const VMCB_COUNT = 3;
/** Bytes of a record by which the guest's own handlers go on, and how many there are: powers of two. */
export const RECORD_BYTES = { 64: 128, 32: 128, 16: 32 } as const;
export const RECORD_COUNT = 64;

/** Linear addresses under which the frames appear besides their own: long mode, and legacy paging. */
export const ALIASES_LONG = [0xffff_8000_0000_0000n, 0x4000_0000n, 0x20_0000n] as const;
export const ALIASES_LEGACY = [0x40_0000n, 0x80_0000n] as const;

export const Sel = {
  CODE64: 0x08,
  DATA: 0x10,
  USER_CODE32: 0x1b,
  USER_DATA: 0x23,
  USER_CODE64: 0x2b,
  TSS64: 0x30,
  CODE16: 0x40,
  CODE32: 0x48,
  TSS32: 0x50,
  OTHER_TSS32: 0x58,
  TSS16: 0x60,
  LDT: 0x68,
  CALL_GATE64: 0x78,
  CALL_GATE32: 0x88,
  CALL_GATE16: 0x90,
  TASK_GATE: 0x98,
  CONFORMING: 0xa0,
  EXPAND_DOWN: 0xa8,
  USER_CODE16: 0xb3,
  USER_DATA16: 0xbb,
  DATA16: 0xc0,
  ABSENT: 0xc8,
  READ_ONLY: 0xd0,
  EXECUTE_ONLY: 0xd8,
  FREE_TSS64: 0xe0,
} as const;
export const GDT_LIMIT = 0xefn;
export const SELECTORS: readonly number[] = [...Object.values(Sel), 0, 3, 0x04, 0x0c, 0x14, 0x1f, 0xf0];

const INT3 = 0xcc;
/** Where a program has nothing: whoever strays there shall come back soon. */
const UNUSED: readonly (readonly [start: number, end: number])[] = [
  [At.HANDLERS64, At.RECORDS16],
  [At.SMM, At.SMM + 0x8000],
  [At.SMM + 0x8010, At.SMM + 0xfe00],
  [At.CODE + CODE_BYTES, At.DATA],
  [At.DATA + DATA_BYTES, At.STACK],
  [At.STACK + STACK_BYTES, 0xa_0000],
  [0xc_0000, RAM_BYTES],
];

/** RAM as a program finds it. */
export class Image {
  readonly bytes = new Uint8Array(RAM_BYTES);
  private readonly view = new DataView(this.bytes.buffer);

  constructor() {
    for (const [start, end] of UNUSED) this.bytes.fill(INT3, start, end);
  }

  put(address: number, code: string): void {
    const text = code.replace(/\s/g, '');
    for (let index = 0; index < text.length; index += 2) {
      this.bytes[address + index / 2] = Number.parseInt(text.slice(index, index + 2), 16);
    }
  }
  write8(address: number, value: number): void {
    this.view.setUint8(address, value);
  }
  write16(address: number, value: number): void {
    this.view.setUint16(address, value, true);
  }
  write32(address: number, value: number): void {
    this.view.setUint32(address, value, true);
  }
  write64(address: number, value: bigint): void {
    this.view.setBigUint64(address, value, true);
  }
}

/** A descriptor of eight bytes. `flags` are attribute bits 11:8 (G, D/B, L, AVL from the top), `access` byte 5. */
function descriptor(base: number, limit: number, access: number, flags: number): bigint {
  return (
    BigInt(limit & 0xffff) |
    (BigInt(base & 0xff_ffff) << 16n) |
    (BigInt(access) << 40n) |
    (BigInt((limit >>> 16) & 0xf) << 48n) |
    (BigInt(flags) << 52n) |
    (BigInt(base >>> 24) << 56n)
  );
}

/** `type` and DPL in `access`; `words` is the IST entry in long mode, the parameter count of a call gate. */
export function gate(selector: number, offset: number, access: number, words = 0): bigint {
  return (
    BigInt(offset & 0xffff) |
    (BigInt(selector) << 16n) |
    (BigInt(words) << 32n) |
    (BigInt(access) << 40n) |
    (BigInt(offset >>> 16) << 48n)
  );
}

export function writeSegments(image: Image, random: Random): void {
  const flat = (access: number, flags: number): bigint => descriptor(0, 0xf_ffff, access, flags);
  const entries: readonly (readonly [number, bigint])[] = [
    [Sel.CODE64, flat(0x9b, 0xa)],
    [Sel.DATA, flat(0x93, 0xc)],
    [Sel.USER_CODE32, flat(0xfb, 0xc)],
    [Sel.USER_DATA, flat(0xf3, 0xc)],
    [Sel.USER_CODE64, flat(0xfb, 0xa)],
    [Sel.TSS64, descriptor(At.TSS64, 0x1ff, 0x8b, 0)],
    [Sel.CODE16, descriptor(At.CODE, 0xffff, 0x9b, 0)],
    [Sel.CODE32, flat(0x9b, 0xc)],
    [Sel.TSS32, descriptor(At.TSS32, 0x1ff, 0x8b, 0)],
    [Sel.OTHER_TSS32, descriptor(At.OTHER_TSS32, 0x1ff, 0x89, 0)],
    [Sel.TSS16, descriptor(At.TSS16, 0x2b, 0x81, 0)],
    [Sel.LDT, descriptor(At.LDT, 0x3f, 0xe2, 0)],
    [Sel.CALL_GATE64, gate(Sel.CODE64, codeOffset(random), 0xec)],
    [Sel.CALL_GATE32, gate(Sel.CODE32, codeOffset(random), 0xec, random.below(4))],
    [Sel.CALL_GATE16, gate(Sel.CODE16, random.below(CODE_BYTES), 0xe4, random.below(4))],
    [Sel.TASK_GATE, gate(Sel.OTHER_TSS32, 0, 0xe5)],
    [Sel.CONFORMING, flat(0x9f, 0xc)],
    [Sel.EXPAND_DOWN, descriptor(0, At.DATA >> 12, 0xf7, 0xc)],
    [Sel.USER_CODE16, descriptor(At.CODE, 0xffff, 0xfb, 0)],
    [Sel.USER_DATA16, descriptor(At.DATA, 0xffff, 0xf3, 0)],
    [Sel.DATA16, descriptor(At.DATA, 0xffff, 0x93, 0)],
    [Sel.ABSENT, descriptor(At.DATA, 0xffff, 0x13, 0)],
    [Sel.READ_ONLY, flat(0xf1, 0xc)],
    [Sel.EXECUTE_ONLY, flat(0xf9, 0xc)],
    [Sel.FREE_TSS64, descriptor(At.TSS64, 0x1ff, 0x89, 0)],
  ];
  for (const [selector, value] of entries) image.write64(At.GDT + (selector & ~7), value);
  [
    flat(0xf3, 0xc),
    descriptor(At.DATA, 0xfff, 0x93, 0),
    flat(0xfb, 0xc),
    gate(Sel.CODE32, codeOffset(random), 0xec),
  ].forEach((value, index) => {
    image.write64(At.LDT + 8 * index, value);
  });
}

const codeOffset = (random: Random): number => At.CODE + random.below(CODE_BYTES);

/** Task states: stacks of the inner levels, and a task to switch to. @param cr3 of legacy paging. */
export function writeTasks(image: Image, random: Random, cr3: number): void {
  for (let entry = 0; entry < 3; entry++) image.write64(At.TSS64 + 4 + 8 * entry, BigInt(At.HANDLER_STACK));
  for (let ist = 1; ist <= 7; ist++) image.write64(At.TSS64 + 0x1c + 8 * ist, BigInt(At.HANDLER_STACK - 0x200 * ist));
  for (const tss of [At.TSS32, At.OTHER_TSS32]) {
    for (let level = 0; level < 3; level++) {
      image.write32(tss + 4 + 8 * level, At.HANDLER_STACK);
      image.write32(tss + 8 + 8 * level, Sel.DATA);
    }
    image.write32(tss + 0x1c, cr3);
  }
  const other = At.OTHER_TSS32;
  image.write32(other + 0x20, codeOffset(random));
  image.write32(other + 0x24, 2);
  for (let gpr = 0; gpr < 8; gpr++) image.write32(other + 0x28 + 4 * gpr, random.next32());
  image.write32(other + 0x38, At.STACK + STACK_BYTES / 2);
  [Sel.DATA, Sel.CODE32, Sel.DATA, Sel.DATA, 0, Sel.DATA].forEach((selector, index) => {
    image.write32(other + 0x48 + 4 * index, selector);
  });
  for (const tss of [At.TSS64, At.TSS32, At.OTHER_TSS32]) {
    // The I/O-permission bitmap: the first ports are open to all, more or less.
    image.write16(tss + 0x66, 0x88);
    for (let at = 0x88; at < 0x200; at++) image.write8(tss + at, random.oneIn(4) ? random.next32() & 0xff : 0);
  }
  const narrow = At.TSS16;
  image.write16(narrow + 2, At.HANDLER_STACK & 0xffff);
  image.write16(narrow + 4, Sel.DATA16);
  image.write16(narrow + 0x0e, random.below(CODE_BYTES));
  image.write16(narrow + 0x10, 2);
  [Sel.DATA16, Sel.CODE16, Sel.DATA16, Sel.DATA16, 0].forEach((selector, index) => {
    image.write16(narrow + 0x22 + 2 * index, selector);
  });
}

/** Present, writable, for user code, accessed and dirty. */
const PAGE = 0x67;
const USER = 4;
const LARGE = 0x80;
const NO_EXECUTE = 1n << 63n;
const HANDLER_PAGES: readonly number[] = [At.HANDLERS64 >> 12, At.HANDLERS32 >> 12, At.HYPERVISOR >> 12];
/** Pages whose entries are made odd: code, data and stack. */
const ODD_PAGES: readonly number[] = [
  ...pagesOf(At.CODE, CODE_BYTES),
  ...pagesOf(At.DATA, DATA_BYTES),
  ...pagesOf(At.STACK, STACK_BYTES),
];

function pagesOf(start: number, bytes: number): number[] {
  return Array.from({ length: bytes >> 12 }, (_, index) => (start >> 12) + index);
}

/**
 * Every format maps the lowest 2 MiB onto themselves in pages of 4 KiB, and again under other addresses in large pages,
 * and the pages of the APICs.
 * @param oddity one in so many pages of code, data and stack is mapped otherwise; 0 for none.
 */
export function writePageTables(image: Image, random: Random, oddity: number): void {
  image.write64(At.PML4, BigInt(At.PDPT | PAGE));
  image.write64(At.PML4 + 8 * 256, BigInt(At.PDPT | PAGE));
  image.write64(At.PDPT, BigInt(At.DIRECTORY | PAGE));
  image.write64(At.PDPT + 8, BigInt(PAGE | LARGE));
  image.write64(At.PDPT + 24, BigInt(At.DEVICE_DIRECTORY | PAGE));
  image.write64(At.DIRECTORY, BigInt(At.TABLE | PAGE));
  image.write64(At.DIRECTORY + 8, BigInt(PAGE | LARGE));
  image.write64(At.DEVICE_DIRECTORY + 8 * 0x1f6, 0xfec0_0000n | BigInt(PAGE | LARGE));
  image.write64(At.DEVICE_DIRECTORY + 8 * 0x1f7, 0xfee0_0000n | BigInt(PAGE | LARGE));
  [At.DIRECTORY, At.DIRECTORY, 0, At.DEVICE_DIRECTORY].forEach((directory, index) => {
    image.write64(At.PAE_POINTERS + 8 * index, directory === 0 ? 0n : BigInt(directory | 1));
  });
  image.write32(At.LEGACY_DIRECTORY, At.LEGACY_TABLE | PAGE);
  image.write32(At.LEGACY_DIRECTORY + 4, PAGE | LARGE);
  image.write32(At.LEGACY_DIRECTORY + 8, At.LEGACY_TABLE | PAGE);
  image.write32(At.LEGACY_DIRECTORY + 4 * 0x3fb, 0xfec0_0000 | PAGE | LARGE);
  writeTables(image, random, { table: At.TABLE, legacyTable: At.LEGACY_TABLE, supervisor: true }, oddity);
}

/** Nested tables in the formats that a host may have, from guest-physical to the same system-physical addresses. */
export function writeNestedTables(image: Image, random: Random, oddity: number): void {
  image.write64(At.NESTED_PML4, BigInt(At.NESTED_PDPT | PAGE));
  image.write64(At.NESTED_PDPT, BigInt(At.NESTED_DIRECTORY | PAGE));
  image.write64(At.NESTED_PDPT + 24, BigInt(At.DEVICE_DIRECTORY | PAGE));
  image.write64(At.NESTED_DIRECTORY, BigInt(At.NESTED_TABLE | PAGE));
  image.write64(At.NESTED_PAE_POINTERS, BigInt(At.NESTED_DIRECTORY | 1));
  image.write64(At.NESTED_PAE_POINTERS + 24, BigInt(At.DEVICE_DIRECTORY | 1));
  image.write32(At.NESTED_LEGACY_DIRECTORY, At.NESTED_LEGACY_TABLE | PAGE);
  image.write32(At.NESTED_LEGACY_DIRECTORY + 4 * 0x3fb, 0xfec0_0000 | PAGE | LARGE);
  const { NESTED_TABLE: table, NESTED_LEGACY_TABLE: legacyTable } = At;
  writeTables(image, random, { table, legacyTable, supervisor: false }, oddity);
}

function writeTables(
  image: Image,
  random: Random,
  { table, legacyTable, supervisor }: { table: number; legacyTable: number; supervisor: boolean },
  oddity: number,
): void {
  for (let page = 0; page < RAM_BYTES >> 12; page++) {
    // Handlers run under SMEP as well: their pages are no user's.
    const bits = HANDLER_PAGES.includes(page) && supervisor ? PAGE & ~USER : PAGE;
    image.write64(table + 8 * page, BigInt((page << 12) | bits));
    image.write32(legacyTable + 4 * page, (page << 12) | bits);
  }
  if (oddity === 0) return;
  for (const page of ODD_PAGES) {
    if (!random.oneIn(oddity)) continue;
    const frame = random.oneIn(3)
      ? (At.SPARE >> 12) + random.below(SPARE_PAGES)
      : random.oneIn(2)
        ? random.pick(ODD_PAGES)
        : page;
    // Not present, read-only, for the supervisor, not accessed, not dirty, global; NX where there is one.
    const bits = random.pick([0x66, 0x65, 0x63, 0x47, 0x27, 0x07, 0x167, PAGE, PAGE]);
    const high = random.oneIn(6) ? NO_EXECUTE : random.oneIn(32) ? 1n << 51n : 0n;
    image.write64(table + 8 * page, BigInt((frame << 12) | bits) | high);
    image.write32(legacyTable + 4 * page, (frame << 12) | bits);
  }
}

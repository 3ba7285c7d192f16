import { beforeEach, describe, expect, it } from 'vitest';
import { Access } from '../../../src/machine/cpu/transaction.js';
import {
  CR0,
  CR4,
  EFER,
  R,
  type Registers,
  SLOT_COUNT,
  type Slot,
  SvmMode,
} from '../../../src/machine/layout/cpu-state.js';
import { RAM_BASE } from '../../../src/machine/layout/linear-memory.js';
import { PhysicalMemory } from '../../../src/machine/mmu/memory.js';
import {
  NESTED_PAGE_FAULT,
  nestedErrorCode,
  PAGE_FAULT,
  PageWalker,
  pagingContext,
} from '../../../src/machine/mmu/page-walk.js';

const FEATURES = { physicalAddressBits: 40, gigabytePages: true };
const LINK = 7n;
const NX = 1n << 63n;
const FINAL = 1n << 32n;
const TABLES = 1n << 33n;
/** Nested tables; the leaf table maps gPA n·1000h to sPA 40000h + n·1000h. */
const [N4, N3, N2, N1] = [0x1000, 0x2000, 0x3000, 0x4000] as const;
const OFFSET = 0x40000;
/** Guest tables, as guest-physical addresses: one level each from 10000h on, the page at 15000h. */
const [G4, G3, G2, G1, PAGE] = [0x10000, 0x11000, 0x12000, 0x13000, 0x15000] as const;
const LINEAR = 0x7123n;

let memory: PhysicalMemory;
let registers: Registers;
let walker: PageWalker;

function put(address: number, value: bigint): void {
  memory.view.setBigUint64(RAM_BASE + address, value, true);
}
const read = (address: number): bigint => memory.view.getBigUint64(RAM_BASE + address, true);
const leafOf = (gPA: number): number => N1 + 8 * (gPA >> 12);
const mapped = (gPA: number): bigint => BigInt(gPA + OFFSET);

function walk(access: number, linear = LINEAR): number {
  const get = (slot: Slot): bigint => registers[slot] as bigint;
  return walker.walk(pagingContext(get, FEATURES), Number(BigInt.asIntN(32, linear)), Number(linear >> 32n), access);
}

beforeEach(() => {
  memory = new PhysicalMemory(0x10_0000);
  registers = new BigUint64Array(SLOT_COUNT);
  walker = new PageWalker(memory);
  registers[R.svmMode] = SvmMode.GUEST;
  registers[R.nestedControl] = 1n;
  registers[R.nestedCr3] = BigInt(N4);
  registers[R.hostCr4] = CR4.PAE;
  registers[R.hostEfer] = EFER.LME | EFER.LMA | EFER.NXE;
  put(N4, BigInt(N3) | LINK);
  put(N3, BigInt(N2) | LINK);
  put(N2, BigInt(N1) | LINK);
  for (let page = 0; page < 0x20; page++) put(N1 + 8 * page, mapped(page * 0x1000) | LINK);

  registers[R.cr0] = CR0.PE | CR0.PG | CR0.WP;
  registers[R.cr3] = BigInt(G4);
  registers[R.cr4] = CR4.PAE;
  registers[R.efer] = EFER.LME | EFER.LMA | EFER.NXE;
  put(G4 + OFFSET, BigInt(G3) | LINK);
  put(G3 + OFFSET, BigInt(G2) | LINK);
  put(G2 + OFFSET, BigInt(G1) | LINK);
  put(G1 + OFFSET + 8 * 7, BigInt(PAGE) | LINK);
});

describe('two-dimensional walks (APM vol.2 §15.25.5 Nested Table Walk)', () => {
  it('translates through guest and nested tables', () => {
    expect(walk(Access.READ)).toBe(PAGE + OFFSET);
    expect(walker.result).toMatchObject({ fault: 'none', gPA: PAGE + 0x123, pageBytes: 4096, writable: true });
  });

  it('translates linear addresses of an unpaged guest as guest-physical ones', () => {
    registers[R.cr0] = CR0.PE;
    registers[R.efer] = 0n;
    expect(walk(Access.WRITE)).toBe(0x7000 + OFFSET);
    expect(read(leafOf(0x7000)) & 0x60n).toBe(0x60n);
  });

  it('reads as a translation of its own without NP_ENABLE', () => {
    registers[R.nestedControl] = 0n;
    registers[R.cr3] = BigInt(G4 + OFFSET);
    expect(walk(Access.READ)).toBe(PAGE_FAULT);
  });

  it('marks the nested pages of guest tables dirty, and the final page as accessed', () => {
    walk(Access.READ);
    for (const table of [G4, G3, G2, G1]) expect(read(leafOf(table)) & 0x60n).toBe(0x60n);
    expect(read(leafOf(PAGE)) & 0x60n).toBe(0x20n);
    expect(read(G1 + OFFSET + 8 * 7)).toBe(BigInt(PAGE) | LINK | 0x20n);
    walk(Access.WRITE);
    expect(read(leafOf(PAGE)) & 0x60n).toBe(0x60n);
    expect(read(G1 + OFFSET + 8 * 7)).toBe(BigInt(PAGE) | LINK | 0x60n);
    expect(walker.result.dirty).toBe(true);
  });

  it('gives the smaller page size (APM vol.2 §15.25.9 Page Splintering)', () => {
    put(G2 + OFFSET, 0n | LINK | 0x80n); // 2 MiB in the guest, 4 KiB nested
    expect(walk(Access.READ)).toBe(0x7000 + OFFSET);
    expect(walker.result.pageBytes).toBe(4096);
    registers[R.cr0] = CR0.PE; // 4 KiB frames of an unpaged guest, 2 MiB nested
    registers[R.efer] = 0n;
    put(N2, 0n | LINK | 0x80n);
    expect(walk(Access.READ)).toBe(0x7000);
    expect(walker.result.pageBytes).toBe(4096);
  });

  it('merges permissions: nested read-only and no-execute pages are so for the guest (APM vol.2 §15.25.7)', () => {
    put(leafOf(PAGE), mapped(PAGE) | 5n | NX);
    expect(walk(Access.READ)).toBe(PAGE + OFFSET);
    expect(walker.result).toMatchObject({ writable: false, executable: false, user: true });
  });

  it('reads a nested guest’s PAE pointers from memory (APM vol.2 §15.25.10 Legacy PAE Mode)', () => {
    registers[R.efer] = EFER.NXE;
    registers[R.cr3] = BigInt(G4 + 0x20);
    put(G4 + OFFSET + 0x20, BigInt(G2) | 1n);
    expect(walk(Access.READ)).toBe(PAGE + OFFSET);
    put(G4 + OFFSET + 0x20, BigInt(G2) | 3n);
    expect(walk(Access.READ)).toBe(PAGE_FAULT);
    expect(walker.result.errorCode).toBe(9);
  });
});

describe('nested page faults (APM vol.2 §15.25.6 Nested versus Guest Page Faults, Fault Ordering)', () => {
  const { READ, WRITE, USER, FETCH } = Access;
  interface Case {
    readonly leaf: bigint;
    readonly access: number;
    readonly hostEfer?: bigint;
    readonly hostCr4?: bigint;
    readonly error?: bigint;
  }
  const NO_NX = EFER.LME | EFER.LMA;
  const page = mapped(PAGE);
  const cases: readonly (readonly [string, Case])[] = [
    ['not present, read', { leaf: 0n, access: READ, error: FINAL | 4n }],
    ['not present, write', { leaf: 0n, access: WRITE, error: FINAL | 6n }],
    ['not present, fetch', { leaf: 0n, access: FETCH, error: FINAL | 0x14n }],
    ['not present, fetch, host without NX', { leaf: 0n, access: FETCH, hostEfer: NO_NX, error: FINAL | 4n }],
    [
      'not present, fetch, host with SMEP alone',
      { leaf: 0n, access: FETCH, hostEfer: NO_NX, hostCr4: CR4.PAE | CR4.SMEP, error: FINAL | 0x14n },
    ],
    ['read-only, read', { leaf: page | 5n, access: READ }],
    ['read-only, supervisor write', { leaf: page | 5n, access: WRITE, error: FINAL | 7n }],
    ['supervisor page', { leaf: page | 3n, access: READ, error: FINAL | 5n }],
    ['no execute, fetch', { leaf: page | LINK | NX, access: FETCH | USER, error: FINAL | 0x15n }],
    ['no execute, read', { leaf: page | LINK | NX, access: READ }],
    ['NX bit, host without NX', { leaf: page | LINK | NX, access: READ, hostEfer: NO_NX, error: FINAL | 0xdn }],
    ['address above the width', { leaf: page | LINK | (1n << 40n), access: READ, error: FINAL | 0xdn }],
    ['address above the width, fetch', { leaf: page | LINK | (1n << 51n), access: FETCH, error: FINAL | 0x1dn }],
  ];

  it.each(cases)('final translation: %s', (_what, { leaf, access, hostEfer, hostCr4, error }) => {
    put(leafOf(PAGE), leaf);
    if (hostEfer !== undefined) registers[R.hostEfer] = hostEfer;
    if (hostCr4 !== undefined) registers[R.hostCr4] = hostCr4;
    const sPA = walk(access);
    if (error === undefined) {
      expect(sPA).toBe(PAGE + OFFSET);
      return;
    }
    expect(sPA).toBe(NESTED_PAGE_FAULT);
    expect(nestedErrorCode(walker.result)).toBe(error);
    expect(walker.result).toMatchObject({ fault: 'nested', gPA: PAGE + 0x123 });
  });

  it.each([
    ['PML4E', G4, 0],
    ['PDPE', G3, 0],
    ['PDE', G2, 0],
    ['PTE', G1, 8 * 7],
  ] as const)('guest table walk: the %s is a user write, whatever the access', (_what, table, offset) => {
    put(leafOf(table), mapped(table) | 5n);
    expect(walk(FETCH)).toBe(NESTED_PAGE_FAULT);
    expect(nestedErrorCode(walker.result)).toBe(TABLES | 7n);
    expect(walker.result.gPA).toBe(table + offset);
    put(leafOf(table), mapped(table) | LINK | (1n << 41n));
    walk(READ);
    expect(nestedErrorCode(walker.result)).toBe(TABLES | 0xfn);
  });

  it('finds a guest fault before a nested fault further down', () => {
    put(G2 + OFFSET, 0n);
    put(leafOf(G1), 0n);
    put(leafOf(PAGE), 0n);
    expect(walk(READ)).toBe(PAGE_FAULT);
    put(G2 + OFFSET, BigInt(G1) | LINK);
    expect(walk(READ)).toBe(NESTED_PAGE_FAULT);
    expect(nestedErrorCode(walker.result)).toBe(TABLES | 6n);
  });

  it('checks guest permissions before the final translation', () => {
    put(G1 + OFFSET + 8 * 7, BigInt(PAGE) | 5n);
    put(leafOf(PAGE), 0n);
    expect(walk(WRITE)).toBe(PAGE_FAULT);
    expect(walk(READ)).toBe(NESTED_PAGE_FAULT);
  });

  it('walks the PAE tables of a legacy host, where no gPA is above 4 GiB', () => {
    registers[R.hostEfer] = 0n;
    registers[R.nestedCr3] = BigInt(N3 + 0x1f); // bits 4:0 do not count
    put(N3, BigInt(N2) | 1n);
    registers[R.efer] = 0n;
    registers[R.cr4] = CR4.PSE;
    memory.view.setUint32(RAM_BASE + G4 + OFFSET, 0x87, true); // a 4 MiB page at 0
    expect(walk(READ)).toBe(0x7000 + OFFSET);
    memory.view.setUint32(RAM_BASE + G4 + OFFSET, 0x87 | (1 << 13), true); // at 1_0000_0000h
    expect(walk(READ)).toBe(NESTED_PAGE_FAULT);
    expect(nestedErrorCode(walker.result)).toBe(FINAL | 4n);
    expect(walker.result.gPA).toBe(0x1_0000_7123);
  });

  it('walks the 32-bit tables of a legacy host', () => {
    registers[R.hostEfer] = 0n;
    registers[R.hostCr4] = CR4.PSE;
    registers[R.nestedCr3] = 0x8000n;
    memory.view.setUint32(RAM_BASE + 0x8000, 0x87, true);
    registers[R.cr0] = CR0.PE;
    registers[R.efer] = 0n;
    expect(walk(READ)).toBe(0x7000);
    expect(memory.read32(0x8000)).toBe(0xa7);
  });
});

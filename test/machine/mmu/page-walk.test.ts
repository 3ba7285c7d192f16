import { beforeEach, describe, expect, it } from 'vitest';
import { Access } from '../../../src/machine/cpu/transaction.js';
import {
  CR0,
  CR4,
  EFER,
  Flag,
  R,
  type Registers,
  SLOT_COUNT,
  type Slot,
} from '../../../src/machine/layout/cpu-state.js';
import { RAM_BASE } from '../../../src/machine/layout/linear-memory.js';
import { PhysicalMemory } from '../../../src/machine/mmu/memory.js';
import { PAGE_FAULT, PageWalker, pagingContext } from '../../../src/machine/mmu/page-walk.js';

const FEATURES = { physicalAddressBits: 40, gigabytePages: true };
const P = 1n;
const RW = 2n;
const US = 4n;
const ACCESSED = 0x20n;
const DIRTY = 0x40n;
const PS = 0x80n;
const G = 0x100n;
const NX = 1n << 63n;
const LINK = P | RW | US;
/** Tables of the tests: one page each. */
const [ROOT, SECOND, THIRD, FOURTH] = [0x1000, 0x2000, 0x3000, 0x4000] as const;
/** The linear address that the tests walk, of 48 bits and of 32. */
const LINEAR = 0x0000_7f12_3456_7abcn;
const LINEAR32 = 0x8765_4abcn;

let memory: PhysicalMemory;
let registers: Registers;
let walker: PageWalker;

const get = (slot: Slot): bigint => registers[slot] as bigint;
const index = (linear: bigint, shift: bigint, bits = 9n): number => Number((linear >> shift) & ((1n << bits) - 1n));
const entryAt = (table: number, entry: number): bigint => memory.view.getBigUint64(RAM_BASE + table + 8 * entry, true);
function put(table: number, entry: number, value: bigint): void {
  memory.view.setBigUint64(RAM_BASE + table + 8 * entry, value, true);
}
function put32(table: number, entry: number, value: bigint): void {
  memory.view.setUint32(RAM_BASE + table + 4 * entry, Number(value), true);
}

/** Four levels that map LINEAR to 5000h; entries may be changed by level 4..1. */
function longTables(changes: Partial<Record<4 | 3 | 2 | 1, bigint>> = {}): void {
  registers[R.cr0] = CR0.PE | CR0.PG | CR0.WP;
  registers[R.cr3] = BigInt(ROOT);
  registers[R.cr4] = CR4.PAE;
  registers[R.efer] = EFER.LME | EFER.LMA | EFER.NXE;
  put(ROOT, index(LINEAR, 39n), changes[4] ?? BigInt(SECOND) | LINK);
  put(SECOND, index(LINEAR, 30n), changes[3] ?? BigInt(THIRD) | LINK);
  put(THIRD, index(LINEAR, 21n), changes[2] ?? BigInt(FOURTH) | LINK);
  put(FOURTH, index(LINEAR, 12n), changes[1] ?? 0x5000n | LINK);
}

function paeTables(pde: bigint = BigInt(FOURTH) | LINK, pte: bigint = 0x5000n | LINK): void {
  registers[R.cr0] = CR0.PE | CR0.PG | CR0.WP;
  registers[R.cr3] = BigInt(ROOT);
  registers[R.cr4] = CR4.PAE;
  registers[R.efer] = EFER.NXE;
  registers[(R.pdpte0 + index(LINEAR32, 30n, 2n)) as Slot] = BigInt(THIRD) | P;
  put(THIRD, index(LINEAR32, 21n), pde);
  put(FOURTH, index(LINEAR32, 12n), pte);
}

function legacyTables(pde: bigint = BigInt(SECOND) | LINK, pte: bigint = 0x5000n | LINK): void {
  registers[R.cr0] = CR0.PE | CR0.PG | CR0.WP;
  registers[R.cr3] = BigInt(ROOT);
  registers[R.cr4] = CR4.PSE;
  put32(ROOT, index(LINEAR32, 22n, 10n), pde);
  put32(SECOND, index(LINEAR32, 12n, 10n), pte);
}

function walk(linear: bigint, access: number, features = FEATURES): number {
  const low = Number(BigInt.asIntN(32, linear));
  return walker.walk(pagingContext(get, features), low, Number(linear >> 32n), access);
}

beforeEach(() => {
  memory = new PhysicalMemory(0x10_0000);
  registers = new BigUint64Array(SLOT_COUNT);
  walker = new PageWalker(memory);
});

describe('page sizes and modes', () => {
  it('maps linear to physical addresses with paging off', () => {
    expect(walk(0xffff_fabcn, Access.WRITE)).toBe(0xffff_f000);
    expect(walker.result).toMatchObject({ fault: 'none', writable: true, executable: true, pageBytes: 4096 });
  });

  it('walks four levels to a 4 KiB page (APM vol.2 §5.3.3 4-Kbyte Page Translation)', () => {
    longTables();
    expect(walk(LINEAR, Access.READ)).toBe(0x5000);
    expect(walker.result).toMatchObject({
      pageBytes: 4096,
      writable: true,
      user: true,
      executable: true,
      global: false,
    });
  });

  it('walks to a 2 MiB page and gives the 4 KiB frame within it', () => {
    longTables({ 2: 0x12_3460_0000n | LINK | PS | G });
    expect(walk(LINEAR, Access.READ)).toBe(0x12_3460_0000 + (Number(LINEAR) % 0x20_0000) - 0xabc);
    expect(walker.result).toMatchObject({ pageBytes: 0x20_0000, global: true });
  });

  it('walks to a 1 GiB page where the profile has them', () => {
    longTables({ 3: 0x40_0000_0000n | LINK | PS });
    expect(walk(LINEAR, Access.READ)).toBe(0x40_0000_0000 + (Number(LINEAR) % 0x4000_0000) - 0xabc);
    expect(walker.result.pageBytes).toBe(0x4000_0000);
  });

  it('walks two PAE levels below the pointers that the processor holds', () => {
    paeTables();
    expect(walk(LINEAR32, Access.READ)).toBe(0x5000);
    paeTables(0x60_0000n | LINK | PS);
    expect(walk(LINEAR32, Access.READ)).toBe(0x60_0000 + (Number(LINEAR32) % 0x20_0000) - 0xabc);
  });

  it('faults on a PAE pointer that is not present', () => {
    paeTables();
    registers[R.pdpte2] = 0n;
    expect(walk(LINEAR32, Access.READ)).toBe(PAGE_FAULT);
    expect(walker.result.errorCode).toBe(0);
  });

  it('walks two 32-bit levels, and to 4 MiB pages with PSE only', () => {
    legacyTables();
    expect(walk(LINEAR32, Access.READ)).toBe(0x5000);
    legacyTables(BigInt(SECOND) | LINK | PS);
    const bit13IsAddressBit32 = 0x1_0000_0000;
    expect(walk(LINEAR32, Access.READ)).toBe(bit13IsAddressBit32 + (Number(LINEAR32) % 0x40_0000) - 0xabc);
    registers[R.cr4] = 0n;
    expect(walk(LINEAR32, Access.READ)).toBe(0x5000);
  });

  it('takes address bits 39:32 from a PSE-36 entry (APM vol.2 §5.2.2 PSE)', () => {
    legacyTables(0x0040_0000n | (0xa5n << 13n) | LINK | PS);
    expect(walk(LINEAR32, Access.READ)).toBe(0xa5_0040_0000 + (Number(LINEAR32) % 0x40_0000) - 0xabc);
  });

  it('reads all ones from tables outside RAM', () => {
    longTables({ 4: 0x80_0000_0000n | LINK });
    expect(walk(LINEAR, Access.READ)).toBe(PAGE_FAULT);
    expect(walker.result.errorCode).toBe(9);
  });
});

describe('reserved bits (APM vol.2 §5.4.1 Field Definitions)', () => {
  const frame = 0x5000n | LINK;
  const cases: readonly (readonly [string, () => void])[] = [
    ['an address bit above the physical width in a PTE', () => longTables({ 1: frame | (1n << 40n) })],
    ['bit 51 in a PML4E', () => longTables({ 4: BigInt(SECOND) | LINK | (1n << 51n) })],
    ['bit 7 of a PML4E', () => longTables({ 4: BigInt(SECOND) | LINK | PS })],
    ['bit 8 of a PML4E', () => longTables({ 4: BigInt(SECOND) | LINK | G })],
    ['bit 13 of a 2 MiB page', () => longTables({ 2: 0x20_2000n | LINK | PS })],
    ['bit 20 of a 1 GiB page', () => longTables({ 3: 0x10_0000n | LINK | PS })],
    [
      'NX while EFER.NXE is clear',
      () => {
        longTables({ 1: frame | NX });
        registers[R.efer] = EFER.LME | EFER.LMA;
      },
    ],
    ['bit 52 of a PAE entry', () => paeTables(BigInt(FOURTH) | LINK, frame | (1n << 52n))],
    ['bit 62 of a PAE entry', () => paeTables(BigInt(FOURTH) | LINK | (1n << 62n))],
    ['bit 21 of a 4 MiB page', () => legacyTables(0x20_0000n | LINK | PS)],
  ];

  it.each(cases)('faults with RSVD on %s', (_what, arrange) => {
    arrange();
    const linear = (registers[R.efer] as bigint) & EFER.LMA ? LINEAR : LINEAR32;
    expect(walk(linear, Access.READ)).toBe(PAGE_FAULT);
    expect(walker.result.errorCode).toBe(9);
  });

  it('reserves PSE-36 bits above the physical width', () => {
    legacyTables((1n << 20n) | LINK | PS);
    expect(walk(LINEAR32, Access.READ, { physicalAddressBits: 36, gigabytePages: false })).toBe(PAGE_FAULT);
    expect(walker.result.errorCode).toBe(9);
  });

  it('faults with RSVD on a 1 GiB page where the profile has none', () => {
    longTables({ 3: LINK | PS });
    expect(walk(LINEAR, Access.READ, { ...FEATURES, gigabytePages: false })).toBe(PAGE_FAULT);
    expect(walker.result.errorCode).toBe(9);
  });

  it('leaves bits 62:52 of long-mode entries to software', () => {
    longTables({ 1: frame | (0x7ffn << 52n) });
    expect(walk(LINEAR, Access.READ)).toBe(0x5000);
  });

  it('ignores reserved bits of an entry that is not present', () => {
    longTables({ 1: ~P & ((1n << 64n) - 1n) });
    expect(walk(LINEAR, Access.READ)).toBe(PAGE_FAULT);
    expect(walker.result.errorCode).toBe(0);
  });
});

describe('permissions (APM vol.2 §5.6 Page-Protection Checks)', () => {
  const { READ, WRITE, USER, FETCH, IMPLICIT } = Access;
  interface Case {
    readonly leaf: bigint;
    readonly access: number;
    readonly cr0?: bigint;
    readonly cr4?: bigint;
    readonly rflags?: bigint;
    /** Undefined: allowed. */
    readonly error?: number;
  }
  const NO_WP = CR0.PE | CR0.PG;
  const SMAP = CR4.PAE | CR4.SMAP;
  const SMEP = CR4.PAE | CR4.SMEP;
  const cases: readonly (readonly [string, Case])[] = [
    ['user read of a user page', { leaf: P | US, access: READ | USER }],
    ['user read of a supervisor page', { leaf: P | RW, access: READ | USER, error: 5 }],
    ['user write of a read-only page', { leaf: P | US, access: WRITE | USER, error: 7 }],
    ['user write of a read-only page without WP', { leaf: P | US, access: WRITE | USER, cr0: NO_WP, error: 7 }],
    ['user write of a writable page', { leaf: LINK, access: WRITE | USER }],
    ['supervisor write of a read-only page with WP', { leaf: P, access: WRITE, error: 3 }],
    ['supervisor write of a read-only page without WP', { leaf: P, access: WRITE, cr0: NO_WP }],
    ['not present, supervisor read', { leaf: 0n, access: READ, error: 0 }],
    ['not present, user write', { leaf: 0n, access: WRITE | USER, error: 6 }],
    ['not present, user fetch', { leaf: 0n, access: FETCH | USER, error: 0x14 }],
    ['fetch from an NX page', { leaf: P | NX, access: FETCH, error: 0x11 }],
    ['user fetch from an NX page', { leaf: P | US | NX, access: FETCH | USER, error: 0x15 }],
    ['read of an NX page', { leaf: P | NX, access: READ }],
    ['supervisor fetch from a user page', { leaf: P | US, access: FETCH }],
    ['supervisor fetch from a user page under SMEP', { leaf: P | US, access: FETCH, cr4: SMEP, error: 0x11 }],
    ['user fetch from a user page under SMEP', { leaf: P | US, access: FETCH | USER, cr4: SMEP }],
    ['supervisor read of a user page under SMAP', { leaf: P | US, access: READ, cr4: SMAP, error: 1 }],
    ['the same with RFLAGS.AC', { leaf: P | US, access: READ, cr4: SMAP, rflags: Flag.AC }],
    [
      'an implicit access with RFLAGS.AC',
      { leaf: P | US, access: READ | IMPLICIT, cr4: SMAP, rflags: Flag.AC, error: 1 },
    ],
    ['an implicit access at CPL 3 to a supervisor page', { leaf: P, access: READ | IMPLICIT | USER }],
    ['supervisor fetch from a user page under SMAP', { leaf: P | US, access: FETCH, cr4: SMAP }],
    ['user read of a user page under SMAP', { leaf: P | US, access: READ | USER, cr4: SMAP }],
  ];

  it.each(cases)('%s', (_what, { leaf, access, cr0, cr4, rflags, error }) => {
    longTables({ 1: leaf === 0n ? 0n : 0x5000n | leaf });
    if (cr0 !== undefined) registers[R.cr0] = cr0;
    if (cr4 !== undefined) registers[R.cr4] = cr4;
    if (rflags !== undefined) registers[R.rflags] = rflags;
    const sPA = walk(LINEAR, access);
    if (error === undefined) {
      expect(sPA).toBe(0x5000);
    } else {
      expect(sPA).toBe(PAGE_FAULT);
      expect(walker.result).toMatchObject({ fault: 'page', errorCode: error });
    }
  });

  it.each([4, 3, 2] as const)('takes the least of all levels: level %i denies', (level) => {
    const tables = { 4: SECOND, 3: THIRD, 2: FOURTH } as const;
    const table = BigInt(tables[level]);
    longTables({ [level]: table | P | US });
    expect(walk(LINEAR, WRITE)).toBe(PAGE_FAULT);
    longTables({ [level]: table | P | RW });
    expect(walk(LINEAR, USER)).toBe(PAGE_FAULT);
    longTables({ [level]: table | LINK | NX });
    expect(walk(LINEAR, FETCH)).toBe(PAGE_FAULT);
    longTables();
    expect(walk(LINEAR, WRITE | USER)).toBe(0x5000);
  });

  it('reports fetches only with NXE or SMEP, and never in 32-bit tables without SMEP', () => {
    longTables({ 1: 0n });
    registers[R.efer] = EFER.LME | EFER.LMA;
    walk(LINEAR, FETCH);
    expect(walker.result.errorCode).toBe(0);
    registers[R.cr4] = SMEP;
    walk(LINEAR, FETCH);
    expect(walker.result.errorCode).toBe(0x10);
    legacyTables(0n);
    registers[R.efer] = EFER.NXE;
    walk(LINEAR32, FETCH);
    expect(walker.result.errorCode).toBe(0);
  });
});

describe('accessed and dirty bits (APM vol.2 §5.4.2 Accessed and Dirty Bits)', () => {
  const entries = (): readonly bigint[] => [
    entryAt(ROOT, index(LINEAR, 39n)),
    entryAt(SECOND, index(LINEAR, 30n)),
    entryAt(THIRD, index(LINEAR, 21n)),
    entryAt(FOURTH, index(LINEAR, 12n)),
  ];

  it('sets A at all levels for a read', () => {
    longTables();
    walk(LINEAR, Access.READ);
    expect(entries().map((entry) => entry & (ACCESSED | DIRTY))).toEqual([ACCESSED, ACCESSED, ACCESSED, ACCESSED]);
    expect(walker.result.dirty).toBe(false);
  });

  it('sets D in the page entry alone for a write', () => {
    longTables();
    walk(LINEAR, Access.WRITE);
    expect(entries().map((entry) => entry & DIRTY)).toEqual([0n, 0n, 0n, DIRTY]);
    expect(walker.result.dirty).toBe(true);
  });

  it('sets nothing when the access is denied', () => {
    longTables({ 1: 0x5000n | P });
    walk(LINEAR, Access.WRITE);
    expect(entries().map((entry) => entry & (ACCESSED | DIRTY))).toEqual([0n, 0n, 0n, 0n]);
  });

  it('sets them in 32-bit entries', () => {
    legacyTables();
    walk(LINEAR32, Access.WRITE);
    expect(memory.read32(ROOT + 4 * index(LINEAR32, 22n, 10n))).toBe(SECOND | 0x27);
    expect(memory.read32(SECOND + 4 * index(LINEAR32, 12n, 10n))).toBe(0x5067);
  });

  it('keeps bit 31 of an entry when it sets them', () => {
    longTables({ 1: 0x8000_5000n | LINK });
    expect(walk(LINEAR, Access.READ)).toBe(0x8000_5000);
    expect(entryAt(FOURTH, index(LINEAR, 12n))).toBe(0x8000_5000n | LINK | ACCESSED);
  });
});

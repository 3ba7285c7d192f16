/**
 * Memory-type range registers. The machine has no caches: they are storage but for bus locks, which ask for the type of
 * an address; what they refuse is the manual's.
 * Source: APM vol.2 §7.7 Memory-Type Range Registers.
 */
import { generalProtection } from '../faults.js';
import { R, type RegisterName, type Slot } from '../layout/cpu-state.js';
import type { MsrRow } from './msr-row.js';

const VARIABLE_RANGES = 8;
/** MTRRcap: eight variable ranges, fixed ranges, write-combining. */
export const MTRR_CAP = BigInt(VARIABLE_RANGES) | (1n << 8n) | (1n << 10n);

export const MemoryType = { UC: 0n, WC: 1n, WT: 4n, WP: 5n, WB: 6n } as const;
const TYPES: ReadonlySet<bigint> = new Set(Object.values(MemoryType));
/** SYSCFG.MtrrFixDramModEn: RdMem and WrMem, bits 4 and 3 of each fixed-range type, are visible. */
const MODIFY_ENABLE = 1n << 19n;
const DRAM_BITS = 0x1818_1818_1818_1818n;

const FIXED: readonly (readonly [number, RegisterName, string])[] = [
  [0x250, 'mtrrFix64K0', 'MTRRfix64K_00000'],
  [0x258, 'mtrrFix16K0', 'MTRRfix16K_80000'],
  [0x259, 'mtrrFix16K1', 'MTRRfix16K_A0000'],
  [0x268, 'mtrrFix4K0', 'MTRRfix4K_C0000'],
  [0x269, 'mtrrFix4K1', 'MTRRfix4K_C8000'],
  [0x26a, 'mtrrFix4K2', 'MTRRfix4K_D0000'],
  [0x26b, 'mtrrFix4K3', 'MTRRfix4K_D8000'],
  [0x26c, 'mtrrFix4K4', 'MTRRfix4K_E0000'],
  [0x26d, 'mtrrFix4K5', 'MTRRfix4K_E8000'],
  [0x26e, 'mtrrFix4K6', 'MTRRfix4K_F0000'],
  [0x26f, 'mtrrFix4K7', 'MTRRfix4K_F8000'],
];

export const MTRR_ROWS: readonly MsrRow[] = [
  {
    msr: 0x200,
    count: 2 * VARIABLE_RANGES,
    name: 'MTRRphysBase, MTRRphysMask',
    source: 'APM vol.2 §7.7.2 MTRR Registers, Variable-Range MTRRs',
    read: ({ tx }, index) => tx.get((R.mtrrBase0 + index) as Slot),
    write({ tx, profile }, value, index) {
      const above = value >> BigInt(profile.physicalAddressBits) !== 0n;
      const isBase = index % 2 === 0;
      const reserved = isBase ? (value & 0xf00n) !== 0n || !TYPES.has(value & 0xffn) : (value & 0x7ffn) !== 0n;
      if (above || reserved) throw generalProtection();
      tx.set((R.mtrrBase0 + index) as Slot, value);
      return true;
    },
  },
  ...FIXED.map(
    ([msr, slot, name]): MsrRow => ({
      msr,
      name,
      source:
        'APM vol.2 §7.7.2 MTRR Registers, Fixed-Range MTRRs; §7.9.1 Extended Fixed-Range MTRR Type-Field Encodings',
      read({ tx }) {
        const value = tx.get(R[slot]);
        return (tx.get(R.syscfg) & MODIFY_ENABLE) === 0n ? value & ~DRAM_BITS : value;
      },
      write({ tx }, value) {
        const visible = (tx.get(R.syscfg) & MODIFY_ENABLE) !== 0n;
        const types = visible ? value & ~DRAM_BITS : value;
        for (let byte = 0n; byte < 64n; byte += 8n) {
          if (!TYPES.has((types >> byte) & 0xffn)) throw generalProtection();
        }
        tx.set(R[slot], visible ? value : value | (tx.get(R[slot]) & DRAM_BITS));
        return true;
      },
    }),
  ),
  {
    msr: 0x2ff,
    name: 'MTRRdefType',
    source: 'APM vol.2 §7.7.2 MTRR Registers, Default-Range MTRRs',
    read: ({ tx }) => tx.get(R.mtrrDefType),
    write({ tx }, value) {
      // Type in bits 7:0, FE and E in bits 10 and 11.
      if ((value & ~0xcffn) !== 0n || !TYPES.has(value & 0xffn)) throw generalProtection();
      tx.set(R.mtrrDefType, value);
      return true;
    },
  },
];

/** Of MTRRdefType: E and FE. */
const MTRRS_ENABLED = 1n << 11n;
const FIXED_ENABLED = 1n << 10n;
const RANGE_VALID = 1n << 11n;
const PAGE_FRAME = ~0xfffn;
const FIXED_END = 0x10_0000;

/**
 * The type of a physical address. Where ranges overlap, UC wins, then WT; other combinations the manual leaves undefined.
 * Source: APM vol.2 §7.7.2 MTRR Registers, §7.7.3 Using MTRRs, Identifying MTRR Features and Overlapping ranges.
 */
export function mtrrType(get: (slot: Slot) => bigint, address: number): bigint {
  const defaults = get(R.mtrrDefType);
  if ((defaults & MTRRS_ENABLED) === 0n) return MemoryType.UC;
  if (address < FIXED_END && (defaults & FIXED_ENABLED) !== 0n) return fixedType(get, address);
  let found: bigint | undefined;
  for (let index = 0; index < VARIABLE_RANGES; index++) {
    const base = get((R.mtrrBase0 + 2 * index) as Slot);
    const mask = get((R.mtrrMask0 + 2 * index) as Slot);
    if ((mask & RANGE_VALID) === 0n || ((BigInt(address) ^ base) & mask & PAGE_FRAME) !== 0n) continue;
    const type = base & 0xffn;
    if (type === MemoryType.UC) return type;
    found = found === undefined || type === MemoryType.WT ? type : found;
  }
  return found ?? defaults & 0xffn;
}

/** Eight ranges a register: of 64 KiB in the first, of 16 KiB in the next two, then of 4 KiB. RdMem and WrMem aside. */
function fixedType(get: (slot: Slot) => bigint, address: number): bigint {
  const [register, shift] =
    address < 0x8_0000
      ? [0, 16]
      : address < 0xc_0000
        ? [1 + ((address - 0x8_0000) >> 17), 14]
        : [3 + ((address - 0xc_0000) >> 15), 12];
  const range = (address >> shift) & 7;
  return (get((R.mtrrFix64K0 + register) as Slot) >> BigInt(8 * range)) & 7n;
}

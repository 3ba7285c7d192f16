/** A walker that remembers tables comes to what one finds that has never walked before, whatever is written to the tables in between. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CR0, CR4, EFER, R, type Slot, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { RAM_BASE } from '../../../src/machine/layout/linear-memory.js';
import { PhysicalMemory } from '../../../src/machine/mmu/memory.js';
import { PageWalker, type PagingContext, pagingContext } from '../../../src/machine/mmu/page-walk.js';
import { sPA } from '../../../src/machine/units.js';

const FEATURES = { physicalAddressBits: 40, gigabytePages: true };
const RAM_BYTES = 2 * 64 * 1024;
const PRESENT_ALL = 7n;
/** The guest's tables, one page each from 1 on; then those that make its physical addresses the system's. */
const GUEST_TABLES = 8;
const [ROOT, NESTED_ROOT, NESTED_POINTERS, NESTED_DIRECTORY, NESTED_TABLE] = [1, 9, 10, 11, 12];

const REGISTERS: readonly (readonly [Slot, bigint])[] = [
  [R.cr0, CR0.PE | CR0.PG | CR0.WP],
  [R.cr3, BigInt(4096 * ROOT)],
  [R.cr4, CR4.PAE],
  [R.efer, EFER.LME | EFER.LMA | EFER.NXE],
];
const GUEST: readonly (readonly [Slot, bigint])[] = [
  [R.svmMode, SvmMode.GUEST],
  [R.nestedControl, 1n],
  [R.nestedCr3, BigInt(4096 * NESTED_ROOT)],
  [R.hostCr0, CR0.PE | CR0.PG],
  [R.hostCr4, CR4.PAE],
  [R.hostEfer, EFER.LME | EFER.LMA | EFER.NXE],
];
const contextOf = (values: readonly (readonly [Slot, bigint])[]) => {
  const registers = new Map(values);
  return pagingContext((slot) => registers.get(slot) ?? 0n, FEATURES);
};
const CONTEXTS = [
  contextOf(REGISTERS),
  contextOf([...REGISTERS, [R.cr3, 4096n * 2n]]),
  contextOf([...REGISTERS, ...GUEST]),
];

type Step =
  | {
      readonly table: number;
      readonly entry: number;
      readonly byte: number;
      readonly size: number;
      readonly value: bigint;
    }
  | {
      readonly indices: readonly number[];
      readonly accesses: readonly number[];
      readonly context: number;
      readonly space: number;
    };

const flags = fc.tuple(
  fc.oneof({ weight: 8, arbitrary: fc.constant(1n) }, { weight: 1, arbitrary: fc.constant(0n) }),
  fc.bigInt(0n, 3n),
  fc.oneof({ weight: 9, arbitrary: fc.constant(0n) }, { weight: 1, arbitrary: fc.bigInt(0n, 63n) }),
  fc.boolean(),
);
const value = fc.tuple(fc.integer({ min: 1, max: 14 }), flags).map(([page, [present, rights, rest, noExecute]]) => {
  const entry = BigInt(4096 * page) | present | (rights << 1n) | (rest << 3n);
  return noExecute ? entry | (1n << 63n) : entry;
});
/** Pages of 2 MiB and 1 GiB, with all kinds of rights. */
const large = flags.map(
  ([present, rights, , noExecute]) => present | (rights << 1n) | 0x80n | (noExecute ? 1n << 63n : 0n),
);
const write = fc.record({
  table: fc.integer({ min: 1, max: NESTED_TABLE }),
  entry: fc.oneof({ weight: 3, arbitrary: fc.nat(1) }, { weight: 1, arbitrary: fc.nat(14) }),
  byte: fc.constantFrom(0, 0, 0, 1, 4),
  size: fc.constantFrom(8, 8, 8, 4, 1),
  value: fc.oneof({ weight: 3, arbitrary: value }, { weight: 1, arbitrary: large }),
});
const walk = fc.record({
  indices: fc.array(fc.nat(1), { minLength: 4, maxLength: 4 }),
  /** One after the other at the same place. */
  accesses: fc.array(fc.nat(7), { minLength: 1, maxLength: 3 }),
  context: fc.nat(CONTEXTS.length - 1),
  space: fc.nat(1),
});
const steps = fc.array(fc.oneof({ weight: 3, arbitrary: walk }, { weight: 1, arbitrary: write }), { maxLength: 120 });

function prepare(memory: PhysicalMemory): void {
  memory.clear(sPA(0), RAM_BYTES);
  const put = (table: number, entry: number, to: number): void =>
    memory.write(sPA(4096 * table + 8 * entry), 8, BigInt(4096 * to) | PRESENT_ALL);
  // Chains of tables 1 2 3 4 and 1 5 6 7, whose ends map pages; and all that is RAM for the guest.
  for (const [table, low, high] of [
    [1, 2, 5],
    [2, 3, 3],
    [3, 4, 8],
    [5, 6, 3],
    [6, 7, 4],
  ] as const) {
    put(table, 0, low);
    put(table, 1, high);
  }
  for (const table of [4, 7, GUEST_TABLES]) for (const entry of [0, 1]) put(table, entry, 13 + entry);
  put(NESTED_ROOT, 0, NESTED_POINTERS);
  put(NESTED_POINTERS, 0, NESTED_DIRECTORY);
  put(NESTED_DIRECTORY, 0, NESTED_TABLE);
  for (let page = 0; page < 32; page++) put(NESTED_TABLE, page, page);
}

describe('a walk', () => {
  const [remembering, fresh] = [new PhysicalMemory(RAM_BYTES), new PhysicalMemory(RAM_BYTES)];
  const walker = new PageWalker(remembering);
  const ram = (memory: PhysicalMemory): Uint8Array => memory.bytes.subarray(RAM_BASE, RAM_BASE + RAM_BYTES);

  it('finds what it would if nobody had walked before', () => {
    fc.assert(
      fc.property(steps, (list: readonly Step[]) => {
        for (const memory of [remembering, fresh]) prepare(memory);
        for (const step of list) {
          if ('table' in step) {
            const { table, entry, byte, size, value: bits } = step;
            const at = sPA(4096 * table + 8 * entry + (byte + size > 8 ? 0 : byte));
            for (const memory of [remembering, fresh]) memory.write(at, size, BigInt.asUintN(8 * size, bits));
            continue;
          }
          const [pml4 = 0, pointer = 0, directory = 0, table = 0] = step.indices;
          const low = ((pointer & 3) << 30) | (directory << 21) | (table << 12);
          const context = CONTEXTS[step.context] as (typeof CONTEXTS)[number];
          for (const memory of [remembering, fresh]) memory.tableOwner = step.space;
          for (const access of step.accesses) {
            const reference = new PageWalker(fresh);
            const expected = reference.walk(context, low, pml4 << 7, access);
            expect(walker.walk(context, low, pml4 << 7, access)).toBe(expected);
            expect(walker.result).toMatchObject(outcomeOf(reference));
            expect(Buffer.compare(ram(remembering), ram(fresh))).toBe(0);
          }
        }
      }),
      { numRuns: 400 },
    );
  });
});

describe('tables', () => {
  it('that another address space has come to, too, are its own as well: a write to them is news for both', () => {
    const memory = new PhysicalMemory(RAM_BYTES);
    const walker = new PageWalker(memory);
    const told: (number | undefined)[] = [];
    prepare(memory);
    memory.onTableWrite = (space) => told.push(space);
    for (const space of [3, 4]) {
      memory.tableOwner = space;
      for (let walked = 0; walked < 2; walked++)
        expect(walker.walk(CONTEXTS[0] as PagingContext, 0, 0, 0)).toBe(4096 * 13);
    }
    memory.write(sPA(4096 * 3), 8, BigInt(4096 * GUEST_TABLES) | PRESENT_ALL);
    expect(told).toEqual([undefined]);
  });
});

/** What of a result the walk has set. */
function outcomeOf({ result }: PageWalker): Partial<typeof result> {
  const { fault, sPA: frame, pageBytes, writable, user, executable, global, dirty, errorCode } = result;
  const { nestedErrorLow, nestedErrorHigh, gPA } = result;
  if (fault === 'page') return { fault, errorCode };
  if (fault === 'nested') return { fault, nestedErrorLow, nestedErrorHigh, gPA };
  return { fault, sPA: frame, pageBytes, writable, user, executable, global, dirty };
}

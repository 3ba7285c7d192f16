/** The two levels of the TLB: what is found again without a page walk, and what must not be. */
import { describe, expect, it } from 'vitest';
import {
  Cell,
  HELD_PAIRS,
  RAM_BASE,
  TLB_BANK_BYTES,
  TLB_BANKS,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
} from '../../../src/machine/layout/linear-memory.js';
import { PhysicalMemory } from '../../../src/machine/mmu/memory.js';
import { TlbBanks } from '../../../src/machine/mmu/tlb.js';

const LOW = 0x40_3000;
const HIGH = 0x7f;
const TARGET = RAM_BASE + 0x5000;

function tlb(): { banks: TlbBanks; bank: number } {
  const banks = new TlbBanks(new PhysicalMemory(1 << 20));
  return { banks, bank: banks.select(1, 0, 'tables') };
}

describe('a translation', () => {
  it('is recalled when another page has taken its place in the first level', () => {
    const { banks, bank } = tlb();
    banks.insert(bank, LOW, HIGH, TARGET, false);
    banks.insert(bank, LOW + TLB_ENTRIES * 4096, HIGH, RAM_BASE, false);
    expect(banks.recall(bank, LOW + 0x123, HIGH, false)).toBe(TARGET);
  });

  it('for reading is none for writing, and one for writing serves both', () => {
    const { banks, bank } = tlb();
    banks.insert(bank, LOW, HIGH, TARGET, false);
    expect(banks.recall(bank, LOW, HIGH, true)).toBe(0);
    banks.insert(bank, LOW, HIGH, TARGET, true);
    banks.insert(bank, LOW, HIGH, TARGET, false);
    expect([banks.recall(bank, LOW, HIGH, true), banks.recall(bank, LOW, HIGH, false)]).toEqual([TARGET, TARGET]);
  });

  it.each([
    ['of another page', LOW + 0x1000, HIGH],
    ['of a page 4 GiB away', LOW, HIGH + 1],
    ['of a page where both hash alike', LOW + 16 * 1024 * 4096, HIGH],
  ])('is none %s', (_which, low, high) => {
    const { banks, bank } = tlb();
    banks.insert(bank, LOW, HIGH, TARGET, true);
    expect(banks.recall(bank, low, high, false)).toBe(0);
  });
});

describe('a translation is gone', () => {
  const gone: readonly (readonly [string, (banks: TlbBanks) => number])[] = [
    [
      'after a flush of its space',
      (banks) => {
        banks.flush(1);
        return banks.select(1, 0, 'tables');
      },
    ],
    [
      'after a flush of everything',
      (banks) => {
        banks.flush(undefined);
        return banks.select(1, 0, 'tables');
      },
    ],
    ['under other rules', (banks) => banks.select(1, 0, 'other tables')],
    ['in another space', (banks) => banks.select(2, 0, 'tables')],
    ['at another privilege', (banks) => banks.select(1, 1, 'tables')],
    [
      'when its bank served others meanwhile',
      (banks) => {
        for (let space = 2; space < 2 + TLB_BANKS; space++)
          banks.insert(banks.select(space, 0, ''), 0, 0, RAM_BASE, false);
        return banks.select(1, 0, 'tables');
      },
    ],
  ];
  it.each(gone)('%s', (_when, happen) => {
    const { banks, bank } = tlb();
    banks.insert(bank, LOW, HIGH, TARGET, true);
    expect(banks.recall(happen(banks), LOW, HIGH, false)).toBe(0);
  });

  it('but not by a flush of another space', () => {
    const { banks, bank } = tlb();
    banks.insert(bank, LOW, HIGH, TARGET, true);
    banks.flush(2);
    expect(banks.recall(bank, LOW, HIGH, true)).toBe(TARGET);
  });
});

describe('a bank', () => {
  it('forgets what only the second level has', () => {
    const { banks, bank } = tlb();
    banks.insert(bank, LOW, HIGH, TARGET, false);
    banks.flush(1);
    banks.note(bank, LOW, HIGH, TARGET, false);
    expect(banks.recall(bank, LOW, HIGH, false)).toBe(TARGET);
    banks.flush(1);
    expect(banks.recall(bank, LOW, HIGH, false)).toBe(0);
  });

  it.each([1, 200, 400])('is empty after a flush when each of %i entries was filled again and again', (pages) => {
    const memory = new PhysicalMemory(1 << 20);
    const banks = new TlbBanks(memory);
    const bank = banks.select(1, 0, 'tables');
    for (let round = 0; round < 600; round++) {
      for (let page = 0; page < pages; page++) banks.insert(bank, page << 12, 0, TARGET, true);
      banks.forgetWrites(TARGET);
    }
    for (let page = 0; page < pages; page++) banks.insert(bank, page << 12, 0, TARGET, true);
    const tags = memory.words.subarray(bank >> 2, (bank + TLB_BANK_BYTES) >> 2);
    const filled = (): number =>
      tags.filter((word, index) => index % (TLB_ENTRY_BYTES / 4) === 0 && word !== 0xffff_ffff).length;
    expect(filled()).toBe(pages);
    banks.flush(1);
    expect(filled()).toBe(0);
  });
});

describe('what compiled code keeps of the bank that is selected', () => {
  const TAG = (Cell.HELD + (HELD_PAIRS - 1) * TLB_ENTRY_BYTES) >> 2;

  function held(): { banks: TlbBanks; isHeld: () => boolean } {
    const memory = new PhysicalMemory(1 << 20);
    const banks = new TlbBanks(memory);
    const bank = banks.select(1, 0, 'tables');
    banks.insert(bank, LOW, HIGH, TARGET, true);
    memory.words[TAG] = LOW;
    memory.words[TAG + 1] = HIGH;
    return { banks, isHeld: () => memory.words[TAG] === LOW };
  }

  it.each<readonly [string, (banks: TlbBanks) => void]>([
    ['another bank is selected', (banks) => banks.select(2, 0, 'tables')],
    ['a page is forgotten', (banks) => banks.forgetPage(1, HIGH * 0x10_0000 + (LOW >>> 12))],
    ['stores to a page are', (banks) => banks.forgetWrites(TARGET)],
    ['all stores are', (banks) => banks.forgetAllWrites()],
    ['the space is flushed', (banks) => banks.flush(1)],
    ['everything is', (banks) => banks.flush(undefined)],
  ])('is gone when %s', (_, change) => {
    const { banks, isHeld } = held();
    expect(isHeld()).toBe(true);
    change(banks);
    expect(isHeld()).toBe(false);
  });

  it('stays when the same bank is selected again, and is nothing at first', () => {
    const { banks, isHeld } = held();
    banks.select(1, 0, 'tables');
    expect(isHeld()).toBe(true);
    const memory = new PhysicalMemory(1 << 20);
    new TlbBanks(memory);
    for (let pair = 0; pair < HELD_PAIRS; pair++)
      expect(memory.words[(Cell.HELD + pair * TLB_ENTRY_BYTES) >> 2]).toBe(0xffff_ffff);
  });
});

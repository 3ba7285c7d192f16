/** Whoever forgets a page must be led to every bank that may hold it. */
import { describe, expect, it } from 'vitest';
import { PageHolders } from '../../../src/machine/mmu/page-holders.js';

const banksOf = (holders: PageHolders, page: number, forgets = false): number[] => {
  const banks: number[] = [];
  holders.each(page, (bank) => {
    banks.push(bank);
    return forgets;
  });
  return banks;
};

describe('the banks that hold a page', () => {
  it('are those that it was added to, until they have forgotten it', () => {
    const holders = new PageHolders();
    for (const bank of [0, 31, 32, 63]) holders.add(0x12345, bank);
    expect(banksOf(holders, 0x12345, true).sort((a, b) => a - b)).toEqual([0, 31, 32, 63]);
    expect(banksOf(holders, 0x12345)).toEqual([]);
    expect(banksOf(holders, 0x12346)).toEqual([]);
  });

  it('stay with it when another one keeps it', () => {
    const holders = new PageHolders();
    holders.add(7, 5);
    expect(banksOf(holders, 7, false)).toEqual([5]);
    expect(banksOf(holders, 7, false)).toEqual([5]);
  });

  it('are among those that are told, of any of more pages than there are places', () => {
    const holders = new PageHolders();
    const bankOf = (page: number): number => page % 61;
    const pages = Array.from({ length: 60_000 }, (_, index) => index * 4099 + (index % 7) * 2 ** 33);
    for (const page of pages) holders.add(page, bankOf(page));
    expect(pages.filter((page) => !banksOf(holders, page).includes(bankOf(page)))).toEqual([]);
  });
});

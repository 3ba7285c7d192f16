/** Registers of a transaction: those written, and those that are still the processor's. */
import { describe, expect, it } from 'vitest';
import { Transaction, type TransactionHost } from '../../../src/machine/cpu/transaction.js';
import { R, type RegisterFile, SLOT_COUNT, type Slot } from '../../../src/machine/layout/cpu-state.js';

const registers = new BigUint64Array(SLOT_COUNT) as unknown as RegisterFile;
const tx = new Transaction({ registers } as TransactionHost);
const PAGING: readonly Slot[] = [R.cr3, R.cr0];

describe('the registers of a transaction', () => {
  it('are the written value, else the one that the processor has', () => {
    registers[R.rax] = 1n;
    tx.abort();
    expect(tx.get(R.rax)).toBe(1n);
    tx.set(R.rax, (1n << 64n) + 2n);
    expect(tx.get(R.rax)).toBe(2n);
    tx.abort();
    expect(tx.get(R.rax)).toBe(1n);
  });

  it('change when one is written with another value', () => {
    registers[R.cr3] = 0x1000n;
    tx.abort();
    tx.set(R.rax, 5n);
    expect(tx.changesAny(PAGING)).toBe(false);
    tx.set(R.cr3, 0x1000n);
    expect(tx.changesAny(PAGING)).toBe(false);
    tx.set(R.cr3, 0x2000n);
    expect(tx.changesAny(PAGING)).toBe(true);
    tx.abort();
    expect(tx.changesAny(PAGING)).toBe(false);
  });

  it('can be shifted in code that V8 optimizes (docs/adr/0025: its version in Node 20 ended the process here)', () => {
    const limitOf = (slot: Slot): bigint => BigInt.asUintN(32, tx.get(slot) >> 32n);
    let sum = 0n;
    for (let round = 0; round < 300_000; round++) {
      tx.abort();
      registers[R.cs] = BigInt(round) << 32n;
      if ((round & 1) === 1) tx.set(R.cs, 1n << 32n);
      sum += limitOf(R.cs);
    }
    expect(sum).toBe(150_000n + 2n * ((149_999n * 150_000n) / 2n));
  });
});

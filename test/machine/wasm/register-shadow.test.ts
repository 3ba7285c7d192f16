/** What a run changed of the registers, and which changes make the engine look at its context again. */
import { describe, expect, it } from 'vitest';
import {
  CPU_BASE,
  decodeDelta,
  R,
  type RegisterName,
  SLOT_COUNT,
  type Slot,
} from '../../../src/machine/layout/cpu-state.js';
import { changesContext } from '../../../src/machine/wasm/context.js';
import { EngineBench } from '../../support/engine-bench.js';

describe('the delta of a run', () => {
  it('names each register that changed, and no other', () => {
    const bench = new EngineBench('engine');
    bench.engine.takeDelta();
    for (let slot = 0; slot < SLOT_COUNT; slot++) {
      const value = 0x8000_0000_0000_0001n + BigInt(slot);
      bench.registers[slot as Slot] = value;
      expect([...decodeDelta(bench.engine.takeDelta())]).toEqual([[slot, value]]);
    }
    expect(bench.engine.takeDelta()).toHaveLength(0);
  });

  it('is in ascending order', () => {
    const bench = new EngineBench('engine');
    bench.engine.takeDelta();
    const slots = [0, 7, 8, 15, 16, 100, SLOT_COUNT - 1];
    for (const slot of slots.toReversed()) bench.registers[slot as Slot] = 5n;
    expect([...decodeDelta(bench.engine.takeDelta())].map(([slot]) => slot)).toEqual(slots);
  });

  it('has nothing of what lies behind the last register', () => {
    const bench = new EngineBench('engine');
    bench.engine.takeDelta();
    bench.memory.bytes.fill(0xff, CPU_BASE + 8 * SLOT_COUNT, CPU_BASE + 8 * SLOT_COUNT + 64);
    expect(bench.engine.takeDelta()).toHaveLength(0);
  });
});

describe('the context', () => {
  it.each<[RegisterName, number, number, boolean]>([
    ['svmMode', 1, 0, true], // a guest begins
    ['svmMode', 2, 0, false], // GIF
    ['rflags', 1 << 18, 0, true], // AC
    ['rflags', 1 << 9, 0, false], // IF
    ['cr3', 0x1000, 0, true],
    ['cr3', 0, 1, true],
    ['hostCr3', 0x1000, 0, true],
    ['debugCtl', 1 << 2, 0, true], // BLCKDB
    ['debugCtl', 1, 0, false],
    ['fs', 0xffff, 0xffff, false],
    ['rax', -1, -1, false],
  ])('of %s, bits %i and %i of its halves: depends on them: %s', (name, low, high, depends) => {
    expect(changesContext(R[name], low, high)).toBe(depends);
  });

  it('follows an event that changes a segment in legacy modes', () => {
    const bench = new EngineBench('engine').mode(32);
    void bench.engine.pagingContext;
    expect(bench.engine.codeMode.bits).toBe(32);
    bench.registers[R.cs] = (bench.registers[R.cs] as bigint) & ~(1n << 26n);
    bench.engine.syncShadow(R.cs);
    expect(bench.engine.codeMode.bits).toBe(16);
  });
});

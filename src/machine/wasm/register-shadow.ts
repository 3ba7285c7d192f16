/** The registers at the last event: what differs from them is what the run since then changed. */
import { CPU_BASE, type RegisterDelta, SLOT_COUNT, type Slot } from '../layout/cpu-state.js';
import { DELTA_BASE, SHADOW_BASE } from '../layout/linear-memory.js';
import { kept } from '../layout/slab.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { changesContext } from './context.js';
import type { Interpreter } from './interpreter.js';

export class RegisterShadow {
  readonly registers: BigUint64Array;

  constructor(private readonly memory: PhysicalMemory) {
    this.registers = new BigUint64Array(memory.wasm.buffer, SHADOW_BASE, SLOT_COUNT);
  }

  /** What the registers differ in, as an event carries it; the shadow follows. */
  takeDelta(interpreter: Interpreter): RegisterDelta {
    const length = interpreter.delta();
    return kept(this.memory.bytes, DELTA_BASE, DELTA_BASE + length);
  }

  /**
   * An event changed a register: it is no part of the next run's delta.
   * @param legacy limits of segments count. @returns whether what the engine derives from the registers may have changed.
   */
  follow(slot: Slot, legacy: boolean): boolean {
    const { words } = this.memory;
    const now = (CPU_BASE >> 2) + 2 * slot;
    const then = (SHADOW_BASE >> 2) + 2 * slot;
    const low = (words[now] as number) ^ (words[then] as number);
    const high = (words[now + 1] as number) ^ (words[then + 1] as number);
    words[then] = words[now] as number;
    words[then + 1] = words[now + 1] as number;
    return legacy || changesContext(slot, low, high);
  }

  /** Other registers stand in the register file: none of them is part of the next run's delta. */
  followAll(): void {
    this.memory.bytes.copyWithin(SHADOW_BASE, CPU_BASE, CPU_BASE + 8 * SLOT_COUNT);
  }
}

/** The registers at the last event: what differs from them is what the run since then changed. */
import { CPU_BASE, DELTA_ENTRY_BYTES, type RegisterDelta, SLOT_COUNT, type Slot } from '../layout/cpu-state.js';
import { DELTA_BASE, SHADOW_BASE } from '../layout/linear-memory.js';
import { word32At } from '../layout/little-endian.js';
import { keptWords } from '../layout/slab.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { changesContext, isRare } from './context.js';
import type { Interpreter } from './interpreter.js';

/** What the engine derives from registers that changed; bits. */
export const Derived = {
  NOTHING: 0,
  /** Modes, translations, segments. */
  SOME: 1,
  /** What `Contexts.rareChanged` must hear of. */
  RARE: 2,
} as const;
export type Derived = number;

/** What is derived from a register that counts. */
export const derivedOf = (slot: Slot): Derived => (isRare(slot) ? Derived.SOME | Derived.RARE : Derived.SOME);

export class RegisterShadow {
  readonly registers: BigUint64Array;

  constructor(private readonly memory: PhysicalMemory) {
    this.registers = new BigUint64Array(memory.wasm.buffer, SHADOW_BASE, SLOT_COUNT);
  }

  /** What the registers differ in, as an event carries it; the shadow follows. */
  takeDelta(interpreter: Interpreter): RegisterDelta {
    return keptWords(this.memory.words, DELTA_BASE >> 2, interpreter.delta());
  }

  /**
   * Applies what an event changes of the registers, which were as the shadow has them: it is no part of the next run's delta.
   * @param legacy limits of segments count. @returns what of it the engine derives something from.
   */
  apply(delta: RegisterDelta, legacy: boolean): Derived {
    const { words } = this.memory;
    let derived: Derived = delta.length > 0 && legacy ? Derived.SOME : Derived.NOTHING;
    for (let at = 0; at < delta.length; at += DELTA_ENTRY_BYTES) {
      const slot = delta[at] as Slot;
      const low = word32At(delta, at + 1);
      const high = word32At(delta, at + 5);
      const now = (CPU_BASE >> 2) + 2 * slot;
      const then = (SHADOW_BASE >> 2) + 2 * slot;
      if (changesContext(slot, low ^ (words[then] as number), high ^ (words[then + 1] as number)) || legacy) {
        derived |= derivedOf(slot);
      }
      words[now] = low;
      words[now + 1] = high;
      words[then] = low;
      words[then + 1] = high;
    }
    return derived;
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

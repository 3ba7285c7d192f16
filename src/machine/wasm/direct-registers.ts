/**
 * The registers that an event is about to change, written straight to their places: to the register file, to the shadow, and
 * to the delta that the event carries. For what cannot fault any more; all else goes through a transaction.
 */
import { invariant } from '../errors.js';
import {
  CPU_BASE,
  DELTA_ENTRY_BYTES,
  type HalvesWriter,
  R,
  type RegisterDelta,
  SLOT_COUNT,
  type Slot,
} from '../layout/cpu-state.js';
import { SHADOW_BASE } from '../layout/linear-memory.js';
import { putWord32 } from '../layout/little-endian.js';
import { keep, room } from '../layout/slab.js';
import { changesContext } from './context.js';
import { Derived, derivedOf } from './register-shadow.js';

export class DirectRegisters implements HalvesWriter {
  private slab: Uint8Array = new Uint8Array(0);
  private start = 0;
  private end = 0;
  private last = -1;
  /** What the engine derives from what was written since `begin`. */
  derived: Derived = Derived.NOTHING;

  /** @param words of the memory. @param isLegacy whether limits of segments count now. */
  constructor(
    private readonly words: Uint32Array,
    private readonly isLegacy: () => boolean,
  ) {}

  /**
   * Begins an event's changes. The run before it must have been stated. Nothing else may be built in the slab until
   * `finish`.
   */
  begin(): void {
    const { slab, at } = room(DELTA_ENTRY_BYTES * SLOT_COUNT);
    this.slab = slab;
    this.start = at;
    this.end = at;
    this.last = -1;
    this.derived = this.isLegacy() ? Derived.SOME : Derived.NOTHING;
  }

  low(slot: Slot): number {
    return this.words[(CPU_BASE >> 2) + 2 * slot] as number;
  }

  high(slot: Slot): number {
    return this.words[(CPU_BASE >> 2) + 2 * slot + 1] as number;
  }

  /** Slots come in ascending order, each once. */
  setHalves(slot: Slot, low: number, high: number): void {
    invariant(slot > this.last, 'registers of an event are written in ascending order');
    this.last = slot;
    const { words, slab, end } = this;
    const then = (SHADOW_BASE >> 2) + 2 * slot;
    const lowChange = (low ^ (words[then] as number)) | 0;
    const highChange = (high ^ (words[then + 1] as number)) | 0;
    if ((lowChange | highChange) === 0) return;
    if (changesContext(slot, lowChange, highChange)) this.derived |= derivedOf(slot);
    const now = (CPU_BASE >> 2) + 2 * slot;
    words[now] = low;
    words[now + 1] = high;
    words[then] = low;
    words[then + 1] = high;
    slab[end] = slot;
    putWord32(slab, end + 1, low);
    putWord32(slab, end + 5, high);
    this.end = end + DELTA_ENTRY_BYTES;
  }

  /** RIP of 64-bit code goes to the next instruction. */
  advance(length: number): void {
    const low = this.low(R.rip) + length;
    this.setHalves(R.rip, low >>> 0, (this.high(R.rip) + (low > 0xffff_ffff ? 1 : 0)) >>> 0);
  }

  /** The same, with nothing of it written yet but RIP itself: an event in the making will write RIP. */
  advanceQuietly(length: number): void {
    const { words } = this;
    const rip = (CPU_BASE >> 2) + 2 * R.rip;
    const low = (words[rip] as number) + length;
    words[rip] = low;
    if (low > 0xffff_ffff) (words[rip + 1] as number)++;
  }

  /** The delta of the event. */
  finish(): RegisterDelta {
    return keep(this.end - this.start);
  }
}

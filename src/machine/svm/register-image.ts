/**
 * The registers of a vCPU on both sides of a world switch, in 32-bit halves: what they are now, and what they shall be.
 * A switch moves some sixty registers of which a dozen change; as numbers in typed arrays they cost a fraction of what
 * as many bigints would. What changed goes into the transaction at the end.
 */
import type { Transaction } from '../cpu/transaction.js';
import {
  DELTA_ENTRY_BYTES,
  type HalvesWriter,
  R,
  type RegisterDelta,
  SLOT_COUNT,
  type Slot,
} from '../layout/cpu-state.js';
import { word32At } from '../layout/little-endian.js';

export class RegisterImage {
  /** The register file itself, where the transaction has changed none. */
  private now: Uint32Array = new Uint32Array(0);
  private readonly copied = new Uint32Array(2 * SLOT_COUNT);
  /** Of slots that were set. */
  private readonly next = new Uint32Array(2 * SLOT_COUNT);
  /** A bit for each of them. */
  private readonly isSet = new Uint32Array(Math.ceil(SLOT_COUNT / 32));

  /** Takes the registers as the transaction has them. */
  begin(tx: Transaction): void {
    for (let group = 0; group < this.isSet.length; group++) this.isSet[group] = 0;
    this.now = tx.held;
    if (tx.isUntouched) return;
    this.copied.set(tx.held);
    this.now = this.copied;
    this.overlay(tx.delta());
  }

  /** Halves of a register as it is before the switch. */
  low(slot: Slot): number {
    return this.now[2 * slot] as number;
  }

  high(slot: Slot): number {
    return this.now[2 * slot + 1] as number;
  }

  set(slot: Slot, low: number, high = 0): void {
    this.next[2 * slot] = low;
    this.next[2 * slot + 1] = high;
    this.isSet[slot >> 5] = (this.isSet[slot >> 5] as number) | (1 << (slot & 31));
  }

  /** `to` becomes what `from` is before the switch. */
  copy(to: Slot, from: Slot): void {
    this.set(to, this.low(from), this.high(from));
  }

  /**
   * Gives what changed to the transaction, or to the registers at once, in ascending order of slot; RIP in any case, which may
   * have advanced before the image began.
   */
  finish(to: HalvesWriter): void {
    const { now, next, isSet } = this;
    for (let group = 0; group < isSet.length; group++) {
      for (let left = isSet[group] as number; left !== 0; left &= left - 1) {
        const slot = 32 * group + 31 - Math.clz32(left & -left);
        const low = next[2 * slot] as number;
        const high = next[2 * slot + 1] as number;
        const stays = now[2 * slot] === low && now[2 * slot + 1] === high;
        if (!stays || slot === R.rip) to.setHalves(slot as Slot, low, high);
      }
    }
  }

  private overlay(pending: RegisterDelta): void {
    for (let at = 0; at < pending.length; at += DELTA_ENTRY_BYTES) {
      const slot = pending[at] as number;
      this.now[2 * slot] = word32At(pending, at + 1);
      this.now[2 * slot + 1] = word32At(pending, at + 5);
    }
  }
}

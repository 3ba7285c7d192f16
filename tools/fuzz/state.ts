/** Registers to set, some or all of them: what a hop brings, or what a VMCB is written from. */
import { R, SLOT_COUNT, type Slot } from '../../src/machine/index.js';

type RegisterName = keyof typeof R;
type Values = Partial<Record<RegisterName, bigint>>;

export class State {
  /** The registers that are to be set, each once. */
  readonly slots: Slot[] = [];
  private readonly isSet = new Uint8Array(SLOT_COUNT);
  private readonly values = new BigUint64Array(SLOT_COUNT);
  private readonly words = new Uint32Array(this.values.buffer);

  put(slot: Slot, value: bigint): void {
    if (this.isSet[slot] === 0) this.slots.push(slot);
    this.isSet[slot] = 1;
    this.values[slot] = value;
  }

  with(values: Values): this {
    for (const name in values) this.put(R[name as RegisterName], values[name as RegisterName] as bigint);
    return this;
  }

  /** 0 for what is not to be set. */
  get(slot: Slot): bigint {
    return this.values[slot] as bigint;
  }

  /** Copies the registers into a register file, given as 32-bit words. */
  copyTo(words: Uint32Array): void {
    for (const slot of this.slots) {
      words[2 * slot] = this.words[2 * slot] as number;
      words[2 * slot + 1] = this.words[2 * slot + 1] as number;
    }
  }

  /** Whether a register is to be set to another value than it has in the file. */
  changes(slot: Slot, words: Uint32Array): boolean {
    if (this.isSet[slot] === 0) return false;
    return words[2 * slot] !== this.words[2 * slot] || words[2 * slot + 1] !== this.words[2 * slot + 1];
  }
}

/**
 * What the processor is about to write into a VMCB: words are set here in ascending order, then stored through a
 * transaction. Words that already stand in memory cost no write, and words that the machine's copy already has stand in
 * no event.
 */
import type { Transaction } from '../cpu/transaction.js';
import { invariant } from '../errors.js';
import type { VmcbDelta } from '../events.js';
import { emptyVmcbWords, VMCB_BYTES, VmcbDeltaBuilder, type VmcbWords, vmcbQuad } from '../layout/vmcb.js';

const NOTHING_KNOWN = emptyVmcbWords();

export class VmcbImage {
  private readonly quads = new BigUint64Array(VMCB_BYTES / 8);
  private readonly halves = new Uint32Array(this.quads.buffer);
  private readonly list = new Uint16Array(VMCB_BYTES / 8);
  private count = 0;
  private readonly delta = new VmcbDeltaBuilder();

  /** @param word index of a 64-bit word (`W`). @param low @param high halves of its value. */
  set(word: number, low: number, high: number): void {
    this.halves[2 * word] = low;
    this.halves[2 * word + 1] = high;
    this.list[this.count++] = word;
  }

  setQuad(word: number, value: bigint): void {
    this.quads[word] = value;
    this.list[this.count++] = word;
  }

  /**
   * Gives the words to the transaction; the image is empty again.
   * @param vmcb sPA of a page in RAM. @param known the machine's copy. @returns how the copy must change.
   */
  store(tx: Transaction, vmcb: number, known: VmcbWords | undefined): VmcbDelta {
    const { halves, list, count } = this;
    const memory = tx.host.memory.words;
    const base = 2 * vmcbQuad(vmcb);
    const copy = known ?? NOTHING_KNOWN;
    this.count = 0;
    this.delta.begin();
    let previous = -1;
    for (let index = 0; index < count; index++) {
      const word = list[index] as number;
      invariant(word > previous, 'VMCB words are set in ascending order');
      previous = word;
      const at = 2 * word;
      const low = halves[at] as number;
      const high = halves[at + 1] as number;
      if (memory[base + at] !== low || memory[base + at + 1] !== high) {
        tx.writeQuad(vmcb + 8 * word, low, high);
      }
      if (copy[at] !== low || copy[at + 1] !== high) this.delta.add(word, low, high);
    }
    return this.delta.finish();
  }
}

/**
 * Which contents of pages a tape has, by digest: what makes that each is kept once.
 *
 * A hash table over flat arrays, for a long session has millions of contents: 32 bytes of digest and 8 of table for each.
 */
import { DIGEST_BYTES } from './page-tree.js';

const INITIAL_CONTENTS = 4096;

export class PageIndex {
  /** The digest of content number n stands at n; numbers are given in order, and some never. */
  private digests = new Uint8Array(INITIAL_CONTENTS * DIGEST_BYTES);
  /** Numbers by digest, 0 where none is; at most half full. */
  private table = new Uint32Array(2 * INITIAL_CONTENTS);
  private count = 0;

  /** The number of a content, or undefined. */
  find(digest: Uint8Array): number | undefined {
    const number = this.table[this.slotOf(digest)] as number;
    return number === 0 ? undefined : number;
  }

  /** Enters a content that is not there yet. */
  add(digest: Uint8Array, number: number): void {
    this.reserve(number);
    this.digests.set(digest, number * DIGEST_BYTES);
    this.table[this.slotOf(digest)] = number;
    this.count++;
  }

  /** Where the digest is, or belongs. */
  private slotOf(digest: Uint8Array): number {
    const { table } = this;
    const mask = table.length - 1;
    const start = new DataView(digest.buffer, digest.byteOffset).getUint32(0, true);
    for (let slot = start & mask; ; slot = (slot + 1) & mask) {
      const number = table[slot] as number;
      if (number === 0 || this.holds(number, digest)) return slot;
    }
  }

  private holds(number: number, digest: Uint8Array): boolean {
    const at = number * DIGEST_BYTES;
    for (let byte = 0; byte < DIGEST_BYTES; byte++) if (this.digests[at + byte] !== digest[byte]) return false;
    return true;
  }

  private reserve(number: number): void {
    if ((number + 1) * DIGEST_BYTES > this.digests.length) {
      const grown = new Uint8Array(2 * Math.max(this.digests.length, (number + 1) * DIGEST_BYTES));
      grown.set(this.digests);
      this.digests = grown;
    }
    if (2 * (this.count + 1) <= this.table.length) return;
    const old = this.table;
    this.table = new Uint32Array(2 * old.length);
    for (const known of old) {
      if (known === 0) continue;
      const at = known * DIGEST_BYTES;
      this.table[this.slotOf(this.digests.subarray(at, at + DIGEST_BYTES))] = known;
    }
  }
}

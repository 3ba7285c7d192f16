/**
 * Which contents of pages a tape or a snapshot has, by digest: what makes that each is kept once.
 *
 * A hash table over flat arrays, for there may be hundreds of thousands of contents: 36 bytes and two places of the table for each.
 */
import { DIGEST_BYTES } from './page-tree.js';

const INITIAL_CONTENTS = 4096;

export class PageIndex {
  /** Of the contents, in the order in which they came. */
  private digests = new Uint8Array(INITIAL_CONTENTS * DIGEST_BYTES);
  private numbers = new Uint32Array(INITIAL_CONTENTS);
  /** One more than the place of a content in that order, 0 where none is; at most half full. */
  private table = new Uint32Array(2 * INITIAL_CONTENTS);
  private count = 0;

  /** Contents in it. */
  get size(): number {
    return this.count;
  }

  /** The number of a content, or undefined. */
  find(digest: Uint8Array): number | undefined {
    const entry = this.table[this.slotOf(digest)] as number;
    return entry === 0 ? undefined : this.numbers[entry - 1];
  }

  /** Enters a content that is not there yet. */
  add(digest: Uint8Array, number: number): void {
    if (this.count === this.numbers.length) this.grow();
    this.digests.set(digest, this.count * DIGEST_BYTES);
    this.numbers[this.count] = number;
    this.table[this.slotOf(digest)] = ++this.count;
  }

  /** Forgets all of them; what there is room for stays. */
  clear(): void {
    this.table.fill(0);
    this.count = 0;
  }

  /** Where the digest is, or belongs. */
  private slotOf(digest: Uint8Array): number {
    const { table } = this;
    const mask = table.length - 1;
    const start = new DataView(digest.buffer, digest.byteOffset).getUint32(0, true);
    for (let slot = start & mask; ; slot = (slot + 1) & mask) {
      const entry = table[slot] as number;
      if (entry === 0 || this.holds(entry - 1, digest)) return slot;
    }
  }

  private holds(place: number, digest: Uint8Array): boolean {
    const at = place * DIGEST_BYTES;
    for (let byte = 0; byte < DIGEST_BYTES; byte++) if (this.digests[at + byte] !== digest[byte]) return false;
    return true;
  }

  private grow(): void {
    const { digests, numbers } = this;
    this.digests = new Uint8Array(2 * digests.length);
    this.digests.set(digests);
    this.numbers = new Uint32Array(2 * numbers.length);
    this.numbers.set(numbers);
    this.table = new Uint32Array(2 * this.numbers.length);
    for (let place = 0; place < this.count; place++) {
      const at = place * DIGEST_BYTES;
      this.table[this.slotOf(digests.subarray(at, at + DIGEST_BYTES))] = place + 1;
    }
  }
}

/**
 * Contents that were new or found again of late: a session that goes on for hours has more of them than there is memory for. What was not
 * looked for in a long time is forgotten, and would be kept a second time.
 */
export class RecentContents {
  private recent = new PageIndex();
  private older = new PageIndex();

  /** @param least as many of the last contents are known; at most twice as many. */
  constructor(private readonly least: number) {}

  /** Contents that are known. */
  get size(): number {
    return this.recent.size + this.older.size;
  }

  /** As `PageIndex.find`. */
  find(digest: Uint8Array): number | undefined {
    const recent = this.recent.find(digest);
    if (recent !== undefined) return recent;
    const older = this.older.find(digest);
    if (older !== undefined) this.add(digest, older);
    return older;
  }

  /** Enters a content that was not found. */
  add(digest: Uint8Array, number: number): void {
    if (this.recent.size >= this.least) {
      const { recent, older } = this;
      older.clear();
      this.recent = older;
      this.older = recent;
    }
    this.recent.add(digest, number);
  }
}

/**
 * Memory in which another thread gets copies of bytes: a few buffers, used in turn. A buffer made for each copy would lie about until
 * both threads have collected their garbage.
 */

/** A buffer larger than this is not kept. */
const MOST_KEPT = 16 * 1024 * 1024;
const PAGE_BYTES = 4096;

export class SharedCopies {
  private readonly buffers: SharedArrayBuffer[] = [];
  private turn = 0;

  /** @param count of copies that are in use at a time. */
  constructor(private readonly count: number) {}

  /** What is shared already stays where it is. A copy is overwritten when as many more were made as there may be. */
  copy(bytes: Uint8Array): Uint8Array {
    if (bytes.buffer instanceof SharedArrayBuffer) return bytes;
    const copy = new Uint8Array(this.next(bytes.length), 0, bytes.length);
    copy.set(bytes);
    return copy;
  }

  private next(length: number): SharedArrayBuffer {
    this.turn = (this.turn + 1) % this.count;
    const kept = this.buffers[this.turn];
    if (kept !== undefined && kept.byteLength >= length) return kept;
    // A quarter more: what is copied is about as long each time.
    const made = new SharedArrayBuffer(Math.ceil((1.25 * length) / PAGE_BYTES) * PAGE_BYTES);
    if (made.byteLength <= MOST_KEPT) this.buffers[this.turn] = made;
    return made;
  }
}

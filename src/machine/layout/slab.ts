/**
 * Small byte strings that outlive the buffer they were made in: the deltas that events carry. They are cut from slabs,
 * because an array buffer of its own for each costs several times what filling it does. A slab lives as long as anything
 * in it does. Each begins at a word of 32 bits.
 */
const SLAB_BYTES = 64 * 1024;
const NOTHING = new Uint8Array(0);

let slab = new Uint8Array(SLAB_BYTES);
/** Asking an array for its buffer costs as much as making one. */
let { buffer } = slab;
let words = new Uint32Array(buffer);
let used = 0;

/** Memory to write a byte string into that shall be kept: from `at` on. The next call gives out the same place again. */
export function room(most: number): { readonly slab: Uint8Array; readonly at: number } {
  if (used + most > slab.length) {
    slab = new Uint8Array(Math.max(SLAB_BYTES, (most + 3) & ~3));
    buffer = slab.buffer;
    words = new Uint32Array(buffer);
    used = 0;
  }
  place.slab = slab;
  place.at = used;
  return place;
}
const place = { slab, at: 0 };

/** Keeps the first `length` bytes of the room given out last. They are never to be changed. */
export function keep(length: number): Uint8Array {
  if (length === 0) return NOTHING;
  const at = used;
  used = (at + length + 3) & ~3;
  return new Uint8Array(buffer, at, length);
}

/** @returns a copy of the bytes `start` to `end` of `source`, never to be changed. */
export function kept(source: Uint8Array, start: number, end: number): Uint8Array {
  const length = end - start;
  const { slab: target, at } = room(length);
  for (let index = 0; index < length; index++) target[at + index] = source[start + index] as number;
  return keep(length);
}

/** The same by words: `length` bytes from the word `start` of `source` on. */
export function keptWords(source: Uint32Array, start: number, length: number): Uint8Array {
  const at = room(length + 3).at >>> 2;
  const count = (length + 3) >>> 2;
  for (let index = 0; index < count; index++) words[at + index] = source[start + index] as number;
  return keep(length);
}

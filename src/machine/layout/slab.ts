/**
 * Small byte strings that outlive the buffer they were made in: the deltas that events carry. They are cut from slabs,
 * because an array buffer of its own for each costs several times what filling it does. A slab lives as long as anything
 * in it does.
 */
const SLAB_BYTES = 64 * 1024;
const NOTHING = new Uint8Array(0);

let slab = new Uint8Array(SLAB_BYTES);
let used = 0;

/** @returns a copy of the bytes `start` to `end` of `source`, never to be changed. */
export function kept(source: Uint8Array, start: number, end: number): Uint8Array {
  const length = end - start;
  if (length === 0) return NOTHING;
  if (length > SLAB_BYTES / 8) return source.slice(start, end);
  if (used + length > SLAB_BYTES) {
    slab = new Uint8Array(SLAB_BYTES);
    used = 0;
  }
  const at = used;
  for (let index = 0; index < length; index++) slab[at + index] = source[start + index] as number;
  used += length;
  return new Uint8Array(slab.buffer, at, length);
}

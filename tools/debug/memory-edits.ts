/** Bytes for RAM, as a debugger's edits have them. */
import { type DebuggerEdit, PAGE_BYTES, type WatchedRange } from '../../src/machine/index.js';

export const littleEndian = (value: bigint, bytes: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, (_, index) => Number((value >> BigInt(8 * index)) & 0xffn));

/** RAM that may cross pages. @param data in order of the ranges, as long as they are together. */
export function memoryEdits(ranges: readonly WatchedRange[], data: Uint8Array): readonly DebuggerEdit[] {
  const edits: DebuggerEdit[] = [];
  let from = 0;
  for (const { address, length } of ranges) {
    for (let at = 0; at < length; ) {
      const bytes = Math.min(length - at, PAGE_BYTES - ((address + at) % PAGE_BYTES));
      edits.push({ kind: 'memory', address: address + at, data: data.subarray(from, from + bytes) });
      at += bytes;
      from += bytes;
    }
  }
  return edits;
}

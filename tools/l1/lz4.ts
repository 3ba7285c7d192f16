/**
 * LZ4 as kernels are compressed with it: legacy frames, whose blocks hold up to 8 MiB each.
 * Source: LZ4 Frame Format Description, Legacy frame; LZ4 Block Format Description.
 */

export const LEGACY_MAGIC = 0x184c_2102;
const LENGTH_GOES_ON = 15;
const LEAST_MATCH = 4;

/** What cannot be unpacked. */
export class Lz4Error extends Error {
  override name = 'Lz4Error';
}

/** @param size of what comes out. @throws Lz4Error */
export function unpackLz4(packed: Uint8Array, size: number): Uint8Array {
  const output = new Uint8Array(size);
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  if (packed.length < 4 || view.getUint32(0, true) !== LEGACY_MAGIC) throw new Lz4Error('it is no legacy frame of LZ4');
  let written = 0;
  for (let at = 4; at < packed.length; ) {
    if (at + 4 > packed.length) throw new Lz4Error('the length of a block is cut off');
    const end = at + 4 + view.getUint32(at, true);
    if (end > packed.length) throw new Lz4Error(`the block at ${at} is cut off`);
    written = unpackBlock(packed.subarray(at + 4, end), output, written);
    at = end;
  }
  if (written !== size) throw new Lz4Error(`there are ${written} bytes instead of ${size}`);
  return output;
}

/** @returns where the output ends now. */
function unpackBlock(block: Uint8Array, output: Uint8Array, start: number): number {
  let at = 0;
  let to = start;
  const byte = (): number => {
    const value = block[at++];
    if (value === undefined) throw new Lz4Error('a block ends amid a sequence');
    return value;
  };
  const length = (nibble: number): number => {
    let total = nibble;
    if (nibble < LENGTH_GOES_ON) return total;
    for (let more = 255; more === 255; total += more) more = byte();
    return total;
  };
  const room = (count: number): void => {
    if (to + count > output.length) throw new Lz4Error(`there are more than ${output.length} bytes`);
  };
  while (at < block.length) {
    const token = byte();
    const literals = length(token >> 4);
    room(literals);
    if (at + literals > block.length) throw new Lz4Error('a block ends amid its literals');
    output.set(block.subarray(at, at + literals), to);
    at += literals;
    to += literals;
    if (at === block.length) return to; // the last sequence has no match
    const distance = byte() | (byte() << 8);
    const count = length(token & 0xf) + LEAST_MATCH;
    if (distance === 0 || distance > to - start) throw new Lz4Error(`a match lies ${distance} bytes back`);
    room(count);
    // Byte by byte: a match may overlap what it makes.
    for (const end = to + count; to < end; to++) output[to] = output[to - distance] as number;
  }
  return to;
}

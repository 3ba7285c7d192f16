/**
 * What the column `data` of a chunk holds. From format 3 on its events are packed before they are compressed, and a byte before
 * them says how; in older tapes they are compressed as they are.
 */
import { compress, decompress } from './chunk.js';
import type { EventTable } from './codec.js';
import { pack } from './packing.js';
import { unpack } from './unpacking.js';

/** The first format whose chunks begin with a byte of `CODING`. */
const FIRST_WITH_CODING = 3;
const CODING = { PLAIN: 0, PACKED: 1 } as const;
/** Packed events are few bytes: there is time for more (docs/adr/0040). */
const PACKED_QUALITY = 5;

/** What a tape says of all its chunks. */
export interface TapeOfChunks {
  readonly formatVersion: number;
  readonly events: EventTable;
}

/** @param raw the events' encoding. */
export function chunkData(raw: Uint8Array, { formatVersion, events }: TapeOfChunks): Uint8Array {
  if (formatVersion < FIRST_WITH_CODING) return compress(raw);
  const packed = pack(raw, events);
  if (packed === undefined || packed.length >= raw.length) return compress(coded(CODING.PLAIN, raw));
  return compress(coded(CODING.PACKED, packed), PACKED_QUALITY);
}

/**
 * @param length of the events' encoding. @param kinds gets the places in the table of those that come; none where that is not known.
 * @throws when the bytes are damaged or hold more than `length` bytes.
 */
export function chunkEvents(
  data: Uint8Array,
  length: number,
  { formatVersion, events }: TapeOfChunks,
  kinds?: Set<number>,
): Uint8Array {
  if (formatVersion < FIRST_WITH_CODING) return decompress(data, length);
  const content = decompress(data, length + 1);
  const [coding] = content;
  if (coding === CODING.PLAIN) return content.slice(1);
  if (coding === CODING.PACKED) return unpack(content.subarray(1), length, events, kinds);
  throw new RangeError(`the events are coded in a way ${coding} that there is not`);
}

function coded(coding: number, bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(bytes.length + 1);
  whole[0] = coding;
  whole.set(bytes, 1);
  return whole;
}

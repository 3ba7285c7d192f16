/**
 * What a checkpoint is made of: the machine's state as bytes, and for each page of RAM the number under which the tape
 * keeps its content. Content is kept once, however many pages and checkpoints have it; number 0 is the page of zeros.
 *
 * Checkpoints are derived data: without them a tape says the same, and takes longer to say it. So their tables are made
 * when they are first needed and may be missing; what is there is checked like everything else.
 */
import { type DigestField, digestOf } from './digest.js';
import type { Position } from './record.js';

/** Bytes of a page of RAM, as x86 has them. */
export const PAGE_BYTES = 4096;
/** Pages that are compressed together: alone they take a fifth more room and twice the time (docs/adr/0026). */
export const GROUP_PAGES = 16;
export const ZERO_PAGE = 0;
/** The checkpoint at the origin of a tape, if it has one. */
export const ORIGIN_CHECKPOINT = 1;

/** What a recorder hands over at a boundary. */
export interface CheckpointInput {
  readonly position: Position;
  /** The machine but its RAM. */
  readonly state: Uint8Array;
  /** Pages of RAM in all. */
  readonly ramPages: number;
  /** Numbers of the pages that may have changed since this writer's checkpoint before; without one, of all but those of zeros. */
  readonly changed: Uint32Array;
  /** Their contents, in that order, one after the other. */
  readonly contents: Uint8Array;
}

/** A checkpoint on a tape, as a list has it. */
export interface CheckpointEntry {
  readonly id: number;
  readonly position: Position;
  /** Bytes of its state and its page map, compressed; pages are shared. */
  readonly bytes: number;
}

export interface Checkpoint extends CheckpointEntry {
  readonly state: Uint8Array;
  /** For each page of RAM the number of its content. */
  readonly pages: Uint32Array;
}

// The page map as bytes

/**
 * Stretches of neighbouring pages whose contents have neighbouring numbers, as variable-length integers: pages of zeros
 * before it, pages in it, and its first number less the one after the stretch before (zigzag). Pages of zeros at the end are
 * left out.
 */
export function encodePageMap(pages: Uint32Array): Uint8Array {
  const values: number[] = [];
  let expected = 1;
  let zeros = 0;
  for (let page = 0; page < pages.length; ) {
    const first = pages[page] as number;
    if (first === ZERO_PAGE) {
      zeros++;
      page++;
      continue;
    }
    let length = 1;
    while (page + length < pages.length && pages[page + length] === first + length) length++;
    values.push(zeros, length, zigzag(first - expected));
    expected = first + length;
    zeros = 0;
    page += length;
  }
  return encodeIntegers(values);
}

/** @throws RangeError when the bytes are no map of so many pages. */
export function decodePageMap(encoded: Uint8Array, ramPages: number): Uint32Array {
  const pages = new Uint32Array(ramPages);
  const values = decodeIntegers(encoded);
  if (values.length % 3 !== 0) throw new RangeError('the page map ends amid a stretch');
  let page = 0;
  let expected = 1;
  for (let at = 0; at < values.length; at += 3) {
    const [zeros, length, offset] = values.slice(at, at + 3) as [number, number, number];
    const first = expected + unzigzag(offset);
    page += zeros;
    if (length < 1 || page + length > ramPages || first < 1 || first + length > 0xffff_ffff) {
      throw new RangeError('the page map has pages that RAM has not');
    }
    for (let index = 0; index < length; index++) pages[page + index] = first + index;
    page += length;
    expected = first + length;
  }
  return pages;
}

const zigzag = (value: number): number => (value < 0 ? -2 * value - 1 : 2 * value);
const unzigzag = (value: number): number => (value % 2 === 1 ? -(value + 1) / 2 : value / 2);

/** Seven bits a byte, the lowest first; all but the last have bit 7 set. */
export function encodeIntegers(values: readonly number[]): Uint8Array {
  const bytes: number[] = [];
  for (let value of values) {
    for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
    bytes.push(value);
  }
  return Uint8Array.from(bytes);
}

/** @throws RangeError when the bytes are none. */
export function decodeIntegers(bytes: Uint8Array): readonly number[] {
  const values: number[] = [];
  let value = 0;
  let unit = 1;
  for (const byte of bytes) {
    value += (byte & 0x7f) * unit;
    unit *= 0x80;
    if (!Number.isSafeInteger(value)) throw new RangeError('an integer is too large');
    if (byte < 0x80) {
      values.push(value);
      value = 0;
      unit = 1;
    }
  }
  if (unit !== 1) throw new RangeError('the bytes end amid an integer');
  return values;
}

// Rows

export interface PageGroupRow {
  readonly id: bigint;
  /** SHA-256 of each page's content, one after the other. */
  readonly digests: Uint8Array;
  readonly seal: Uint8Array;
  /** The contents one after the other, compressed. */
  readonly data: Uint8Array;
}

export interface CheckpointRow {
  readonly id: bigint;
  readonly seq: bigint;
  readonly icount: bigint;
  readonly ram_pages: bigint;
  readonly state_length: bigint;
  readonly map_length: bigint;
  readonly seal: Uint8Array;
  readonly state: Uint8Array;
  readonly map: Uint8Array;
}

/** Ties a group of pages to its tape. @param genesis digest of the tape's header. */
export const pageGroupSeal = (genesis: Uint8Array, row: Omit<PageGroupRow, 'seal'>): Uint8Array =>
  digestOf('vmtape pages', genesis, ...([row.id, row.digests, row.data] satisfies DigestField[]));

export const checkpointSeal = (genesis: Uint8Array, row: Omit<CheckpointRow, 'seal'>): Uint8Array =>
  digestOf(
    'vmtape checkpoint',
    genesis,
    ...([row.id, row.seq, row.icount, row.ram_pages] satisfies DigestField[]),
    ...([row.state_length, row.map_length, row.state, row.map] satisfies DigestField[]),
  );

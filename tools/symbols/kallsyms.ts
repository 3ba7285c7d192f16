/**
 * The symbols that a Linux kernel keeps of itself, found in its memory: no file is needed, and addresses are those of this boot.
 *
 * Names are compressed: each is a length and as many numbers of tokens, and its first character is the type. The table of the
 * 256 tokens is found by those for the digits, which stand for themselves, and checked by the index of it that follows. The
 * names stand before it, behind their number; every 256th name's place is in the table of markers, which must agree. Addresses
 * are 32-bit offsets to a base: with per-CPU variables at absolute offsets, those below zero are the others.
 * Source: Linux, scripts/kallsyms.c and kernel/kallsyms.c; 4.20 to 6.3 with offsets before the names, from 6.4 on behind the tokens.
 */

import { textAt } from './elf-symbols.js';
import type { GuestSymbol } from './symbol-table.js';

/** Memory without a gap. */
export interface Stretch {
  readonly linear: bigint;
  readonly bytes: Uint8Array;
}

const TOKENS = 256;
const FIRST_DIGIT = 0x30;
const DIGITS = Buffer.from([...'0123456789'].map((digit) => `${digit}\0`).join(''), 'latin1');
const LONGEST_TOKEN = 64;
const LEAST_SYMBOLS = 1000;
const MOST_SYMBOLS = 4_000_000;
/** Names lie so far before the tokens at most. */
const LONGEST_NAMES = 64 * 2 ** 20;
const NAMES_PER_MARKER = 256;

const aligned = (at: number): number => Math.ceil(at / 8) * 8;

/** @returns undefined when there is no such table in it. */
export function findKallsyms({ linear, bytes }: Stretch): readonly GuestSymbol[] | undefined {
  const memory = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  // The kernel is loaded at a page: what is aligned in it is aligned here.
  if (linear % 8n !== 0n) return undefined;
  for (let digits = memory.indexOf(DIGITS); digits >= 0; digits = memory.indexOf(DIGITS, digits + 1)) {
    const tokens = tokensAround(memory, view, digits);
    const names = tokens && namesBefore(memory, view, tokens);
    if (tokens === undefined || names === undefined) continue;
    const addresses = addressesOf(view, names, tokens);
    if (addresses !== undefined) return symbolsOf(memory, names, tokens, addresses);
  }
  return undefined;
}

interface Tokens {
  readonly start: number;
  /** Behind the index. */
  readonly end: number;
  readonly texts: readonly string[];
}

/** @param digits where the token for `0` is. */
function tokensAround(memory: Buffer, view: DataView, digits: number): Tokens | undefined {
  let at = digits;
  for (let token = FIRST_DIGIT; token < TOKENS; token++) {
    const end = memory.indexOf(0, at);
    if (end < 0 || end - at > LONGEST_TOKEN) return undefined;
    at = end + 1;
  }
  const index = aligned(at);
  if (index + 2 * TOKENS > memory.length) return undefined;
  const placeOf = (token: number): number => view.getUint16(index + 2 * token, true);
  const start = digits - placeOf(FIRST_DIGIT);
  if (start < 0 || placeOf(0) !== 0) return undefined;
  const texts: string[] = [];
  for (let token = 0, place = 0; token < TOKENS; token++) {
    if (placeOf(token) !== place) return undefined;
    const text = textAt(memory, start + place);
    texts.push(text);
    place += text.length + 1;
  }
  return { start, end: index + 2 * TOKENS, texts };
}

interface Names {
  /** Where their number stands. */
  readonly countAt: number;
  readonly count: number;
  readonly start: number;
}

function namesBefore(memory: Buffer, view: DataView, tokens: Tokens): Names | undefined {
  const types = tokens.texts.map((text) => /^[A-Za-z?]/.test(text));
  const least = Math.max(0, tokens.start - LONGEST_NAMES);
  for (let countAt = aligned(tokens.start) - 16; countAt >= least; countAt -= 8) {
    const count = view.getUint32(countAt, true);
    if (count < LEAST_SYMBOLS || count > MOST_SYMBOLS || view.getUint32(countAt + 4, true) !== 0) continue;
    const names = { countAt, count, start: countAt + 8 };
    if (areNames(memory, view, names, tokens, types)) return names;
  }
  return undefined;
}

/** Length and place of a name's tokens. Names of more than 127 have a length of two bytes. */
function lengthAt(memory: Buffer, at: number): readonly [length: number, start: number] {
  const low = memory[at] as number;
  return low < 0x80 ? [low, at + 1] : [(low & 0x7f) | ((memory[at + 1] as number) << 7), at + 2];
}

function areNames(
  memory: Buffer,
  view: DataView,
  { count, start }: Names,
  tokens: Tokens,
  types: readonly boolean[],
): boolean {
  const marked: number[] = [];
  let at = start;
  for (let index = 0; index < count; index++) {
    if (index % NAMES_PER_MARKER === 0) marked.push(at - start);
    const [length, from] = lengthAt(memory, at);
    if (length === 0 || from + length > tokens.start || types[memory[from] as number] !== true) return false;
    at = from + length;
  }
  const markers = aligned(at);
  return (
    markers + 4 * marked.length <= tokens.start &&
    marked.every((place, index) => view.getUint32(markers + 4 * index, true) === place)
  );
}

/** By either layout; addresses ascend in the right one. */
function addressesOf(view: DataView, { count, countAt }: Names, { end }: Tokens): readonly bigint[] | undefined {
  const bytes = aligned(4 * count);
  const layouts = [
    { offsets: countAt - 8 - bytes, base: countAt - 8 },
    { offsets: aligned(end), base: aligned(aligned(end) + 4 * count) },
  ];
  for (const { offsets, base } of layouts) {
    if (offsets < 0 || base + 8 > view.byteLength) continue;
    const addresses = addressesAt(view, offsets, count, view.getBigUint64(base, true));
    if (addresses !== undefined) return addresses;
  }
  return undefined;
}

const UPPER_HALF = 1n << 63n;

function addressesAt(view: DataView, offsets: number, count: number, base: bigint): readonly bigint[] | undefined {
  if (base < UPPER_HALF) return undefined;
  const values = Array.from({ length: count }, (_, index) => view.getInt32(offsets + 4 * index, true));
  const hasAbsolute = values.some((value) => value < 0);
  const addresses = values.map((value) => {
    if (!hasAbsolute) return base + BigInt(value);
    return value < 0 ? base - 1n - BigInt(value) : BigInt(value);
  });
  return addresses.every((address, index) => index === 0 || address >= (addresses[index - 1] as bigint))
    ? addresses
    : undefined;
}

function symbolsOf(
  memory: Buffer,
  { count, start }: Names,
  { texts }: Tokens,
  addresses: readonly bigint[],
): readonly GuestSymbol[] {
  const symbols: GuestSymbol[] = [];
  let at = start;
  for (let index = 0; index < count; index++) {
    const [length, from] = lengthAt(memory, at);
    at = from + length;
    let text = '';
    for (let token = from; token < at; token++) text += texts[memory[token] as number];
    symbols.push({ address: addresses[index] as bigint, type: text.charAt(0), name: text.slice(1) });
  }
  return symbols;
}

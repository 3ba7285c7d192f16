/** Words of the command line → values, or a UsageError that names the word. */
import { UsageError } from './failure.js';

const SUFFIXES: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** `256M`, `0x1000`, `4096`. @param what the flag, for the message. */
export function parseSize(text: string, what: string): number {
  const hexadecimal = /^0x[0-9a-f]{1,13}$/i.test(text);
  const match = /^(\d{1,15})([KMG]?)$/i.exec(text);
  const value = hexadecimal ? Number(text) : Number(match?.[1]) * (SUFFIXES[match?.[2]?.toUpperCase() ?? ''] ?? 1);
  if ((!hexadecimal && match === null) || !Number.isSafeInteger(value)) {
    throw new UsageError(`${what} ${quote(text)} is no size. Give bytes, or a number with K, M or G: 256M.`);
  }
  return value;
}

/** A whole number from `least` on, exact as a double. */
export function parseCount(text: string, what: string, least = 0): number {
  const value = Number(text.replaceAll('_', ''));
  if (!/^\d[\d_]*$/.test(text) || !Number.isSafeInteger(value) || value < least) {
    throw new UsageError(`${what} ${quote(text)} is no count. Give a whole number from ${least} to 2^53 - 1.`);
  }
  return value;
}

/** A 64-bit number, decimal or hexadecimal. */
export function parseU64(text: string, what: string): bigint {
  const value = /^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text) ? BigInt(text) : undefined;
  if (value === undefined || value !== BigInt.asUintN(64, value)) {
    throw new UsageError(`${what} ${quote(text)} is no 64-bit number. Give digits, or hexadecimal ones after 0x.`);
  }
  return value;
}

/** A range of seeds: `1..200`, both among them, or one alone. */
export interface SeedRange {
  readonly first: bigint;
  readonly last: bigint;
}

export function parseSeeds(text: string, what: string): SeedRange {
  const [from = '', to = from, ...more] = text.split('..');
  const range = { first: parseU64(from, what), last: parseU64(to, what) };
  if (more.length > 0 || range.last < range.first) {
    throw new UsageError(`${what} ${quote(text)} is no range of seeds. Give one, or the first and the last: 1..200.`);
  }
  return range;
}

const ISO_TIME = /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(Z|[+-]\d\d:\d\d)?)?$/;

/** ISO 8601 → seconds since 1970. Without a zone the time is UTC: the host's zone is nobody's business. */
export function parseClock(text: string): number {
  const match = ISO_TIME.exec(text);
  const milliseconds = match === null ? Number.NaN : Date.parse(`${match[1]}T${match[2] ?? '00:00'}${match[3] ?? 'Z'}`);
  if (!Number.isFinite(milliseconds) || milliseconds < 0) {
    throw new UsageError(`--clock ${quote(text)} is no time from 1970 on. Give ISO 8601: 2026-01-31T12:00:00Z.`);
  }
  return milliseconds / 1000;
}

export interface MemoryRange {
  /** Physical addresses are those of the machine (sPA); linear ones go through the tables in force. */
  readonly space: 'linear' | 'physical';
  readonly address: bigint;
  readonly length: number;
}

const LONGEST_DUMP = 2 ** 20;

/** `ADDR,LEN`, or `phys:ADDR,LEN`. */
export function parseMemoryRange(text: string): MemoryRange {
  const match = /^(phys:)?([^,]+),([^,]+)$/.exec(text);
  if (match === null) throw new UsageError(`--memory ${quote(text)} is no range. Give ADDR,LEN or phys:ADDR,LEN.`);
  const address = parseU64(match[2] ?? '', 'the address of --memory');
  const length = parseSize(match[3] ?? '', 'the length of --memory');
  if (length < 1 || length > LONGEST_DUMP) {
    throw new UsageError(`--memory shows from 1 byte to 1M at a time, not ${quote(match[3] ?? '')}.`);
  }
  return { space: match[1] === undefined ? 'linear' : 'physical', address, length };
}

/** `L1` or `L2`. */
export function parseLevel(text: string): 1 | 2 {
  if (/^(L?1)$/i.test(text)) return 1;
  if (/^(L?2)$/i.test(text)) return 2;
  throw new UsageError(`--level ${quote(text)} is no level. Give L1 or L2.`);
}

export const quote = (text: string): string => JSON.stringify(text);

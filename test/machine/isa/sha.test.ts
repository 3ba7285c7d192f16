/** SHA-1 and SHA-256 of messages, computed with the instructions as programs do, against the host's own. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, EngineBench } from '../../support/engine-bench.js';

const bench = new EngineBench('evaluator', ['sha']);

/** A vector of four words, the first in the highest lane. */
const vector = (words: readonly number[]): bigint =>
  words.reduce((value, word) => (value << 32n) | BigInt(word >>> 0), 0n);
const words = (value: bigint): number[] => [96n, 64n, 32n, 0n].map((shift) => Number((value >> shift) & 0xffff_ffffn));

/** `mnemonic xmm1, [DATA]` with an immediate, or XMM0. */
function run(code: string, destination: bigint, source: bigint, xmm0 = 0n): bigint {
  bench.mode(64, { rbx: BigInt(DATA) }).put(CODE, Buffer.from(code.replaceAll(' ', ''), 'hex'));
  bench.write(DATA, 8, source & 0xffff_ffff_ffff_ffffn).write(DATA + 8, 8, source >> 64n);
  const halves = (value: bigint) => [BigInt.asUintN(64, value), value >> 64n] as const;
  const [xmm1, xmm1High] = halves(destination);
  const [low, high] = halves(xmm0);
  bench.set({ xmm0: low, xmm0High: high, xmm1, xmm1High });
  bench.run(1);
  expect(bench.retired).toBeGreaterThan(0);
  bench.retired = 0;
  return (bench.get('xmm1High') << 64n) | bench.get('xmm1');
}
const sha1Rounds = (state: bigint, message: bigint, which: number): bigint => run(`0f3acc0b 0${which}`, state, message);
const sha1NextE = (state: bigint, message: bigint): bigint => run('0f38c80b', state, message);
const sha1Msg1 = (a: bigint, b: bigint): bigint => run('0f38c90b', a, b);
const sha1Msg2 = (a: bigint, b: bigint): bigint => run('0f38ca0b', a, b);
const sha256Rounds = (cdgh: bigint, abef: bigint, wk: bigint): bigint => run('0f38cb0b', cdgh, abef, wk);
const sha256Msg1 = (a: bigint, b: bigint): bigint => run('0f38cc0b', a, b);
const sha256Msg2 = (a: bigint, b: bigint): bigint => run('0f38cd0b', a, b);

/** FIPS 180-4 §5.1.1, one block. */
function block(message: string): number[] {
  const bytes = Buffer.alloc(64);
  bytes.write(message, 'latin1');
  bytes[message.length] = 0x80;
  bytes.writeBigUInt64BE(BigInt(8 * message.length), 56);
  return Array.from({ length: 16 }, (_, index) => bytes.readUInt32BE(4 * index));
}

function sha1(message: string): string {
  const initial = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
  const schedule = block(message);
  const groups = [0, 4, 8, 12].map((at) => vector(schedule.slice(at, at + 4)));
  for (let group = 4; group < 20; group++) {
    const [a, b, c, d] = groups.slice(group - 4, group) as [bigint, bigint, bigint, bigint];
    groups.push(sha1Msg2(sha1Msg1(a, b) ^ c, d));
  }
  let abcd = vector(initial.slice(0, 4));
  let before = 0n;
  groups.forEach((group, index) => {
    const [w0, ...rest] = words(group) as [number, number, number, number];
    const first = vector([w0 + (initial[4] as number), ...rest]);
    const message4 = index === 0 ? first : sha1NextE(before, group);
    before = abcd;
    abcd = sha1Rounds(abcd, message4, Math.floor(index / 5));
  });
  const [e] = words(sha1NextE(before, 0n)) as [number];
  const state = [...words(abcd), e];
  return state.map((word, index) => ((word + (initial[index] as number)) >>> 0).toString(16).padStart(8, '0')).join('');
}

/** The first 32 bits of the fractional parts of roots of the first primes (FIPS 180-4 §4.2.2, §5.3.3). */
const primes = (count: number): number[] => {
  const found: number[] = [];
  for (let n = 2; found.length < count; n++) if (found.every((prime) => n % prime !== 0)) found.push(n);
  return found;
};
const fraction = (root: number): number => Math.floor((root - Math.floor(root)) * 2 ** 32);

function sha256(message: string): string {
  const initial = primes(8).map((prime) => fraction(Math.sqrt(prime)));
  const constants = primes(64).map((prime) => fraction(Math.cbrt(prime)));
  const schedule = block(message);
  // Words of the schedule stand in memory order here: the first in the lowest lane.
  const groups = [0, 4, 8, 12].map((at) => vector(schedule.slice(at, at + 4).reverse()));
  const add = (x: bigint, y: bigint): bigint =>
    vector(words(x).map((word, index) => word + (words(y)[index] as number)));
  for (let group = 4; group < 16; group++) {
    const [a, b, c, d] = groups.slice(group - 4, group) as [bigint, bigint, bigint, bigint];
    const shifted = ((d << 96n) | (c >> 32n)) & ((1n << 128n) - 1n); // w[9..12]
    groups.push(sha256Msg2(add(sha256Msg1(a, b), shifted), d));
  }
  const [a, b, c, d, e, f, g, h] = initial as [number, number, number, number, number, number, number, number];
  let abef = vector([a, b, e, f]);
  let cdgh = vector([c, d, g, h]);
  groups.forEach((group, index) => {
    const wk = add(group, vector(constants.slice(4 * index, 4 * index + 4).reverse()));
    for (const pair of [wk, wk >> 64n]) {
      const next = sha256Rounds(cdgh, abef, pair);
      [cdgh, abef] = [abef, next];
    }
  });
  const [a1, b1, e1, f1] = words(abef) as [number, number, number, number];
  const [c1, d1, g1, h1] = words(cdgh) as [number, number, number, number];
  const state = [a1, b1, c1, d1, e1, f1, g1, h1];
  return state.map((word, index) => ((word + (initial[index] as number)) >>> 0).toString(16).padStart(8, '0')).join('');
}

describe('a digest of one block, made of SHA instructions', () => {
  it.each(['', 'abc', 'The quick brown fox jumps over the lazy dog'])('of %j is the host’s', (message) => {
    expect(sha1(message)).toBe(createHash('sha1').update(message).digest('hex'));
    expect(sha256(message)).toBe(createHash('sha256').update(message).digest('hex'));
  });
});

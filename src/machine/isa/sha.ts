/**
 * SHA-1 and SHA-256: rounds and message schedules.
 * Source: APM vol.3, SHA1RNDS4, SHA1NEXTE, SHA1MSG1, SHA1MSG2, SHA256RNDS2, SHA256MSG1, SHA256MSG2; FIPS 180-4 §4.1, §4.2,
 * §6.1, §6.2.
 *
 * The four 32-bit words of a vector are held highest first, as the manual's tables list them: [bits 127:96, … bits 31:0].
 */
import { type Instruction, instruction, type Ops } from './instruction.js';
import { three } from './operands.js';
import { vectorInstruction } from './sse-int.js';

type Words<V> = readonly [V, V, V, V];

function wordsOf<V, C, X>(ops: Ops<V, C, X>, vector: X): Words<V> {
  const [low, high] = [ops.lane64(vector, 0), ops.lane64(vector, 1)];
  const upper = (value: V): V => ops.shr(64, value, ops.constant(32n));
  return [upper(high), ops.truncate(32, high), upper(low), ops.truncate(32, low)];
}

function vectorOf<V, C, X>(ops: Ops<V, C, X>, [a, b, c, d]: Words<V>): X {
  const joined = (high: V, low: V): V => ops.or(ops.shl(64, high, ops.constant(32n)), low);
  return ops.vectorFromLanes(joined(c, d), joined(a, b));
}

/** The sum of words, modulo 2^32. */
const sum = <V, C, X>(ops: Ops<V, C, X>, first: V, ...rest: readonly V[]): V =>
  rest.reduce((total, term) => ops.add(32, total, term), first);

const xor = <V, C, X>(ops: Ops<V, C, X>, first: V, ...rest: readonly V[]): V =>
  rest.reduce((total, term) => ops.xor(total, term), first);

const rotatedLeft = <V, C, X>(ops: Ops<V, C, X>, value: V, by: number): V =>
  ops.rol(32, value, ops.constant(BigInt(by)));
const rotatedRight = <V, C, X>(ops: Ops<V, C, X>, value: V, by: number): V =>
  ops.ror(32, value, ops.constant(BigInt(by)));

/** Ch(x, y, z) of FIPS 180-4: each bit of x chooses. */
const choose = <V, C, X>(ops: Ops<V, C, X>, x: V, y: V, z: V): V => ops.xor(ops.and(x, y), ops.and(ops.not(32, x), z));

const majority = <V, C, X>(ops: Ops<V, C, X>, x: V, y: V, z: V): V =>
  xor(ops, ops.and(x, y), ops.and(x, z), ops.and(y, z));

/** FIPS 180-4 §4.2.1: the constant of each twenty rounds of SHA-1, as bits 1:0 of the immediate choose it. */
const SHA1_CONSTANTS = [0x5a827999n, 0x6ed9eba1n, 0x8f1bbcdcn, 0xca62c1d6n];

/** The logical function of those rounds, and their constant. */
function sha1Step<V, C, X>(ops: Ops<V, C, X>, which: V, b: V, c: V, d: V): V {
  const functions = [choose(ops, b, c, d), xor(ops, b, c, d), majority(ops, b, c, d), xor(ops, b, c, d)];
  return functions
    .map((value, index) => sum(ops, value, ops.constant(SHA1_CONSTANTS[index] as bigint)))
    .reduce((chosen, value, index) => ops.select(ops.equal(which, ops.constant(BigInt(index))), value, chosen));
}

/** Four rounds. The source holds the scheduled words, E already added to the first of them. */
const SHA1RNDS4 = instruction({
  mnemonic: 'SHA1RNDS4',
  source: 'APM vol.3, SHA1RNDS4',
  forms: ['NP 0F 3A CC /r: Vdq, Wdq, Ib'],
  feature: 'sha',
  evaluatorOnly: true,
  semantics(ops, insn) {
    const [destination, source, immediate] = three(insn);
    const words = wordsOf(ops, ops.readVectorAligned(source));
    let [a, b, c, d] = wordsOf(ops, ops.readVector(destination)) as Words<(typeof words)[0]>;
    const which = ops.and(ops.read(immediate), ops.constant(3n));
    let e = ops.constant(0n);
    for (const word of words) {
      const next = sum(ops, sha1Step(ops, which, b, c, d), rotatedLeft(ops, a, 5), word, e);
      [a, b, c, d, e] = [next, a, rotatedLeft(ops, b, 30), c, d];
    }
    ops.writeVector(destination, vectorOf(ops, [a, b, c, d]));
  },
});

const SHA1NEXTE = vectorInstruction('SHA1NEXTE', 'NP 0F 38 C8', 'sha', (ops, state, message) => {
  const [a] = wordsOf(ops, state);
  const [first, ...rest] = wordsOf(ops, message);
  return vectorOf(ops, [sum(ops, first, rotatedLeft(ops, a, 30)), ...rest]);
});

const SHA1MSG1 = vectorInstruction('SHA1MSG1', 'NP 0F 38 C9', 'sha', (ops, first, second) => {
  const [w0, w1, w2, w3] = wordsOf(ops, first);
  const [w4, w5] = wordsOf(ops, second);
  return vectorOf(ops, [ops.xor(w2, w0), ops.xor(w3, w1), ops.xor(w4, w2), ops.xor(w5, w3)]);
});

const SHA1MSG2 = vectorInstruction('SHA1MSG2', 'NP 0F 38 CA', 'sha', (ops, first, second) => {
  const [a, b, c, d] = wordsOf(ops, first);
  const [, w13, w14, w15] = wordsOf(ops, second);
  const w16 = rotatedLeft(ops, ops.xor(a, w13), 1);
  const w17 = rotatedLeft(ops, ops.xor(b, w14), 1);
  const w18 = rotatedLeft(ops, ops.xor(c, w15), 1);
  return vectorOf(ops, [w16, w17, w18, rotatedLeft(ops, ops.xor(d, w16), 1)]);
});

/** Σ0, Σ1 (three rotations) and σ0, σ1 (two rotations and a shift) of FIPS 180-4 §4.1.2. */
const bigSigma = <V, C, X>(ops: Ops<V, C, X>, x: V, by: readonly [number, number, number]): V =>
  xor(ops, rotatedRight(ops, x, by[0]), rotatedRight(ops, x, by[1]), rotatedRight(ops, x, by[2]));
const smallSigma = <V, C, X>(ops: Ops<V, C, X>, x: V, by: readonly [number, number, number]): V =>
  xor(ops, rotatedRight(ops, x, by[0]), rotatedRight(ops, x, by[1]), ops.shr(32, x, ops.constant(BigInt(by[2]))));

/** Two rounds: C, D, G, H are in the destination, A, B, E, F in the source, words with their constants in XMM0. */
const SHA256RNDS2 = instruction({
  mnemonic: 'SHA256RNDS2',
  source: 'APM vol.3, SHA256RNDS2',
  forms: ['NP 0F 38 CB /r: Vdq, Wdq, XMM0'],
  feature: 'sha',
  evaluatorOnly: true,
  semantics(ops, insn) {
    const [destination, source, schedule] = three(insn);
    let [a, b, e, f] = wordsOf(ops, ops.readVectorAligned(source));
    let [c, d, g, h] = wordsOf(ops, ops.readVector(destination));
    const [, , second, first] = wordsOf(ops, ops.readVector(schedule));
    for (const word of [first, second]) {
      const t1 = sum(ops, h, bigSigma(ops, e, [6, 11, 25]), choose(ops, e, f, g), word);
      const t2 = sum(ops, bigSigma(ops, a, [2, 13, 22]), majority(ops, a, b, c));
      [a, b, c, d, e, f, g, h] = [sum(ops, t1, t2), a, b, c, sum(ops, d, t1), e, f, g];
    }
    ops.writeVector(destination, vectorOf(ops, [a, b, e, f]));
  },
});

const SHA256MSG1 = vectorInstruction('SHA256MSG1', 'NP 0F 38 CC', 'sha', (ops, first, second) => {
  const [w3, w2, w1, w0] = wordsOf(ops, first);
  const [, , , w4] = wordsOf(ops, second);
  const sigma0 = (word: typeof w0): typeof w0 => smallSigma(ops, word, [7, 18, 3]);
  return vectorOf(ops, [
    sum(ops, w3, sigma0(w4)),
    sum(ops, w2, sigma0(w3)),
    sum(ops, w1, sigma0(w2)),
    sum(ops, w0, sigma0(w1)),
  ]);
});

const SHA256MSG2 = vectorInstruction('SHA256MSG2', 'NP 0F 38 CD', 'sha', (ops, first, second) => {
  const [d, c, b, a] = wordsOf(ops, first);
  const [w15, w14] = wordsOf(ops, second);
  const sigma1 = (word: typeof a): typeof a => smallSigma(ops, word, [17, 19, 10]);
  const w16 = sum(ops, a, sigma1(w14));
  const w17 = sum(ops, b, sigma1(w15));
  return vectorOf(ops, [sum(ops, d, sigma1(w17)), sum(ops, c, sigma1(w16)), w17, w16]);
});

export const SHA_INSTRUCTIONS: readonly Instruction[] = [
  ...[SHA1RNDS4, SHA1NEXTE, SHA1MSG1, SHA1MSG2, SHA256RNDS2, SHA256MSG1, SHA256MSG2],
];

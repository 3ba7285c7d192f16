/**
 * AES rounds and carry-less multiplication.
 * Source: APM vol.4, AESDEC, AESDECLAST, AESENC, AESENCLAST, AESIMC, AESKEYGENASSIST, PCLMULQDQ; FIPS 197.
 *
 * A state is 16 bytes, column by column. The substitution of all 16 bytes is 16 swizzles, one for each value of a byte's
 * upper half: a byte whose upper half is another one has an index above 15 there and gives 0.
 */
import { type Instruction, instruction, type Ops } from './instruction.js';
import { three } from './operands.js';
import { vectorInstruction } from './sse-int.js';

/** Multiplication by x in GF(2^8), modulo x^8 + x^4 + x^3 + x + 1. */
const timesX = (value: number): number => (value << 1) ^ ((value & 0x80) !== 0 ? 0x11b : 0);

/** FIPS 197 §5.1.1: the inverse in GF(2^8), then an affine map over its bits. */
function substitutionTable(): readonly number[] {
  const exponents: number[] = [];
  const logarithms: number[] = [];
  for (let value = 1, exponent = 0; exponent < 255; exponent++) {
    exponents.push(value);
    logarithms[value] = exponent;
    value ^= timesX(value); // 3 generates all elements but 0
  }
  return Array.from({ length: 256 }, (_, value) => {
    const inverse = value === 0 ? 0 : (exponents[(255 - (logarithms[value] as number)) % 255] as number);
    const repeated = inverse | (inverse << 8);
    return ((repeated ^ (repeated >> 4) ^ (repeated >> 5) ^ (repeated >> 6) ^ (repeated >> 7)) & 0xff) ^ 0x63;
  });
}

function inverted(table: readonly number[]): readonly number[] {
  const inverse: number[] = [];
  table.forEach((value, index) => {
    inverse[value] = index;
  });
  return inverse;
}

/** Rows of 16 bytes as vectors. */
const rowsOf = (table: readonly number[]): readonly bigint[] =>
  Array.from({ length: 16 }, (_, row) =>
    table
      .slice(16 * row, 16 * row + 16)
      .reduce((vector, byte, index) => vector | (BigInt(byte) << BigInt(8 * index)), 0n),
  );

const SUBSTITUTION = substitutionTable();
const SUBSTITUTION_ROWS = rowsOf(SUBSTITUTION);
const INVERSE_SUBSTITUTION_ROWS = rowsOf(inverted(SUBSTITUTION));

const EACH_BYTE = 0x01010101_01010101_01010101_01010101n;

function substitute<V, C, X>(ops: Ops<V, C, X>, rows: readonly bigint[], state: X): X {
  let result = ops.vectorConstant(0n);
  rows.forEach((row, upper) => {
    const indices = ops.vector('v128.xor', state, ops.vectorConstant(EACH_BYTE * BigInt(16 * upper)));
    result = ops.vector('v128.or', result, ops.swizzle(ops.vectorConstant(row), indices));
  });
  return result;
}

const permutation = (source: (row: number, column: number) => number): readonly number[] =>
  Array.from({ length: 16 }, (_, at) => source(at % 4, Math.floor(at / 4)));

/** Row r turns left by r places, and back. */
const SHIFTED_ROWS = permutation((row, column) => row + 4 * ((column + row) % 4));
const UNSHIFTED_ROWS = permutation((row, column) => row + 4 * ((column + 4 - row) % 4));
/** Every column turned by so many places. */
const TURNED = [0, 1, 2, 3].map((by) => permutation((row, column) => ((row + by) % 4) + 4 * column));

const permute = <V, C, X>(ops: Ops<V, C, X>, state: X, indices: readonly number[] | undefined): X =>
  ops.shuffle(state, state, indices ?? []);

function doubled<V, C, X>(ops: Ops<V, C, X>, state: X): X {
  const overflows = ops.vector('i8x16.gt_s', ops.vectorConstant(0n), state);
  const correction = ops.vector('v128.and', overflows, ops.vectorConstant(EACH_BYTE * 0x1bn));
  return ops.vector('v128.xor', ops.vector('i8x16.add', state, state), correction);
}

const sum = <V, C, X>(ops: Ops<V, C, X>, first: X, ...rest: readonly X[]): X =>
  rest.reduce((total, term) => ops.vector('v128.xor', total, term), first);

/** Each byte becomes 2·itself + 3·the next + the two after that. */
function mixColumns<V, C, X>(ops: Ops<V, C, X>, state: X): X {
  const next = permute(ops, state, TURNED[1]);
  const doubles = doubled(ops, ops.vector('v128.xor', state, next));
  return sum(ops, doubles, next, permute(ops, state, TURNED[2]), permute(ops, state, TURNED[3]));
}

/** The inverse is the same map after adding 4·(itself + the byte two further). */
function unmixColumns<V, C, X>(ops: Ops<V, C, X>, state: X): X {
  const pairs = ops.vector('v128.xor', state, permute(ops, state, TURNED[2]));
  return mixColumns(ops, ops.vector('v128.xor', state, doubled(ops, doubled(ops, pairs))));
}

const encrypt = <V, C, X>(ops: Ops<V, C, X>, state: X): X =>
  substitute(ops, SUBSTITUTION_ROWS, permute(ops, state, SHIFTED_ROWS));
const decrypt = <V, C, X>(ops: Ops<V, C, X>, state: X): X =>
  substitute(ops, INVERSE_SUBSTITUTION_ROWS, permute(ops, state, UNSHIFTED_ROWS));

const AES: readonly Instruction[] = [
  vectorInstruction('AESIMC', '66 0F 38 DB', 'aes', (ops, _state, key) => unmixColumns(ops, key)),
  vectorInstruction('AESENC', '66 0F 38 DC', 'aes', (ops, state, key) =>
    sum(ops, mixColumns(ops, encrypt(ops, state)), key),
  ),
  vectorInstruction('AESENCLAST', '66 0F 38 DD', 'aes', (ops, state, key) => sum(ops, encrypt(ops, state), key)),
  vectorInstruction('AESDEC', '66 0F 38 DE', 'aes', (ops, state, key) =>
    sum(ops, unmixColumns(ops, decrypt(ops, state)), key),
  ),
  vectorInstruction('AESDECLAST', '66 0F 38 DF', 'aes', (ops, state, key) => sum(ops, decrypt(ops, state), key)),
];

/** Words 1 and 3 substituted, each also turned and with the round constant added. */
const AESKEYGENASSIST = instruction({
  mnemonic: 'AESKEYGENASSIST',
  source: 'APM vol.4, AESKEYGENASSIST',
  forms: ['66 0F 3A DF /r: Vdq, Wdq, Ib'],
  feature: 'aes',
  semantics(ops, insn) {
    const [destination, source, constant] = three(insn);
    const substituted = substitute(ops, SUBSTITUTION_ROWS, ops.readVectorAligned(source));
    const words = permute(ops, substituted, [4, 5, 6, 7, 5, 6, 7, 4, 12, 13, 14, 15, 13, 14, 15, 12]);
    const inUpperHalf = ops.shl(64, ops.read(constant), ops.constant(32n));
    ops.writeVector(destination, ops.vector('v128.xor', words, ops.vectorFromLanes(inUpperHalf, inUpperHalf)));
  },
});

/** Immediate bits 0 and 4 choose the halves of destination and source. */
const PCLMULQDQ = instruction({
  mnemonic: 'PCLMULQDQ',
  source: 'APM vol.4, PCLMULQDQ',
  forms: ['66 0F 3A 44 /r: Vdq, Wdq, Ib'],
  feature: 'pclmulqdq',
  evaluatorOnly: true,
  semantics(ops, insn) {
    const [destination, source, halves] = three(insn);
    const choice = ops.read(halves);
    const half = (value: ReturnType<typeof ops.readVector>, bit: number) =>
      ops.select(ops.bit(choice, bit), ops.lane64(value, 1), ops.lane64(value, 0));
    const b = half(ops.readVectorAligned(source), 4);
    const a = half(ops.readVector(destination), 0);
    const zero = ops.constant(0n);
    let low = zero;
    let high = zero;
    for (let index = 0; index < 64; index++) {
      const isSet = ops.bit(b, index);
      low = ops.xor(low, ops.select(isSet, ops.shl(64, a, ops.constant(BigInt(index))), zero));
      const carried = index === 0 ? zero : ops.shr(64, a, ops.constant(BigInt(64 - index)));
      high = ops.xor(high, ops.select(isSet, carried, zero));
    }
    ops.writeVector(destination, ops.vectorFromLanes(low, high));
  },
});

export const SSE_CRYPTO_INSTRUCTIONS: readonly Instruction[] = [...AES, AESKEYGENASSIST, PCLMULQDQ];

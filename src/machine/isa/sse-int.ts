/**
 * SSE2 integer vectors, and the bitwise floating-point instructions, which are the same operations.
 * Source: APM vol.4. Later sets stand in `sse-int-later.ts`; shuffles, inserts and blends in `sse-shuffle.ts`.
 *
 * Most are one lane-wise operation; the destination is its first operand. 128-bit memory operands must be aligned.
 */
import {
  type Feature,
  type Instruction,
  instruction,
  type Ops,
  type Static,
  type VectorOperation,
  type VectorShift,
} from './instruction.js';
import { two } from './operands.js';

/** An instruction whose destination becomes `combine(destination, source)`. */
export function vectorInstruction(
  mnemonic: string,
  form: string,
  feature: Feature,
  combine: <V, C, X>(ops: Ops<V, C, X>, a: X, b: X) => X,
): Instruction {
  return instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [`${form} /r: Vdq, Wdq`],
    feature,
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const b = ops.readVectorAligned(source);
      ops.writeVector(destination, combine(ops, ops.readVector(destination), b));
    },
  });
}

/** [mnemonic, encoding, operation] */
export type LanewiseRow = readonly [string, string, VectorOperation];

export const lanewise = (feature: Feature, rows: readonly LanewiseRow[]): readonly Instruction[] =>
  rows.map(([mnemonic, form, operation]) =>
    vectorInstruction(mnemonic, form, feature, (ops, a, b) => ops.vector(operation, a, b)),
  );

const BITWISE = [
  ...lanewise('sse', [
    ['ANDPS', 'NP 0F 54', 'v128.and'],
    ['ORPS', 'NP 0F 56', 'v128.or'],
    ['XORPS', 'NP 0F 57', 'v128.xor'],
  ]),
  ...lanewise('sse2', [
    ['ANDPD', '66 0F 54', 'v128.and'],
    ['ORPD', '66 0F 56', 'v128.or'],
    ['XORPD', '66 0F 57', 'v128.xor'],
    ['PAND', '66 0F DB', 'v128.and'],
    ['POR', '66 0F EB', 'v128.or'],
    ['PXOR', '66 0F EF', 'v128.xor'],
  ]),
  // The destination is what they invert.
  ...(
    [
      ['ANDNPS', 'NP 0F 55', 'sse'],
      ['ANDNPD', '66 0F 55', 'sse2'],
      ['PANDN', '66 0F DF', 'sse2'],
    ] as const
  ).map(([mnemonic, form, feature]) =>
    vectorInstruction(mnemonic, form, feature, (ops, a, b) => ops.vector('v128.andnot', b, a)),
  ),
];

const LANEWISE = lanewise('sse2', [
  ['PADDB', '66 0F FC', 'i8x16.add'],
  ['PADDW', '66 0F FD', 'i16x8.add'],
  ['PADDD', '66 0F FE', 'i32x4.add'],
  ['PADDQ', '66 0F D4', 'i64x2.add'],
  ['PADDSB', '66 0F EC', 'i8x16.add_sat_s'],
  ['PADDSW', '66 0F ED', 'i16x8.add_sat_s'],
  ['PADDUSB', '66 0F DC', 'i8x16.add_sat_u'],
  ['PADDUSW', '66 0F DD', 'i16x8.add_sat_u'],
  ['PSUBB', '66 0F F8', 'i8x16.sub'],
  ['PSUBW', '66 0F F9', 'i16x8.sub'],
  ['PSUBD', '66 0F FA', 'i32x4.sub'],
  ['PSUBQ', '66 0F FB', 'i64x2.sub'],
  ['PSUBSB', '66 0F E8', 'i8x16.sub_sat_s'],
  ['PSUBSW', '66 0F E9', 'i16x8.sub_sat_s'],
  ['PSUBUSB', '66 0F D8', 'i8x16.sub_sat_u'],
  ['PSUBUSW', '66 0F D9', 'i16x8.sub_sat_u'],
  ['PCMPEQB', '66 0F 74', 'i8x16.eq'],
  ['PCMPEQW', '66 0F 75', 'i16x8.eq'],
  ['PCMPEQD', '66 0F 76', 'i32x4.eq'],
  ['PCMPGTB', '66 0F 64', 'i8x16.gt_s'],
  ['PCMPGTW', '66 0F 65', 'i16x8.gt_s'],
  ['PCMPGTD', '66 0F 66', 'i32x4.gt_s'],
  ['PMINUB', '66 0F DA', 'i8x16.min_u'],
  ['PMAXUB', '66 0F DE', 'i8x16.max_u'],
  ['PMINSW', '66 0F EA', 'i16x8.min_s'],
  ['PMAXSW', '66 0F EE', 'i16x8.max_s'],
  ['PAVGB', '66 0F E0', 'i8x16.avgr_u'],
  ['PAVGW', '66 0F E3', 'i16x8.avgr_u'],
  ['PMULLW', '66 0F D5', 'i16x8.mul'],
  ['PMADDWD', '66 0F F5', 'i32x4.dot_i16x8_s'],
  ['PACKSSWB', '66 0F 63', 'i8x16.narrow_i16x8_s'],
  ['PACKUSWB', '66 0F 67', 'i8x16.narrow_i16x8_u'],
  ['PACKSSDW', '66 0F 6B', 'i16x8.narrow_i32x4_s'],
]);

/** The high words of eight 32-bit products, four in `low`, four in `high`. */
const highWords = <V, C, X>(ops: Ops<V, C, X>, low: X, high: X): X =>
  ops.shuffle(low, high, [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31]);

/** Lanes 0 and 2 of four 32-bit lanes, side by side in the low half. */
export const evenDwords = <V, C, X>(ops: Ops<V, C, X>, a: X): X =>
  ops.shuffle(a, a, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);

const MULTIPLY = [
  vectorInstruction('PMULHW', '66 0F E5', 'sse2', (ops, a, b) =>
    highWords(ops, ops.vector('i32x4.extmul_low_i16x8_s', a, b), ops.vector('i32x4.extmul_high_i16x8_s', a, b)),
  ),
  vectorInstruction('PMULHUW', '66 0F E4', 'sse2', (ops, a, b) =>
    highWords(ops, ops.vector('i32x4.extmul_low_i16x8_u', a, b), ops.vector('i32x4.extmul_high_i16x8_u', a, b)),
  ),
  vectorInstruction('PMULUDQ', '66 0F F4', 'sse2', (ops, a, b) =>
    ops.vector('i64x2.extmul_low_i32x4_u', evenDwords(ops, a), evenDwords(ops, b)),
  ),
  vectorInstruction('PSADBW', '66 0F F6', 'sse2', (ops, a, b) => {
    const differences = ops.vector('v128.or', ops.vector('i8x16.sub_sat_u', a, b), ops.vector('i8x16.sub_sat_u', b, a));
    const pairs = ops.vector('i16x8.extadd_pairwise_i8x16_u', differences);
    const quads = ops.vector('i32x4.extadd_pairwise_i16x8_u', pairs);
    const sums = ops.vector('i64x2.add', quads, ops.vectorShift('i64x2.shr_u', quads, ops.constant(32n)));
    return ops.vector('v128.and', sums, ops.vectorConstant((0xffffffffn << 64n) | 0xffffffffn));
  }),
];

/** Byte indices that interleave elements of `bytes` bytes from the low or high halves of two vectors. */
function interleaving(bytes: number, half: 'low' | 'high'): readonly number[] {
  return Array.from({ length: 16 }, (_, at) => {
    const element = Math.floor(at / bytes);
    const from = (half === 'high' ? 8 : 0) + Math.floor(element / 2) * bytes + (at % bytes);
    return element % 2 === 0 ? from : from + 16;
  });
}

const UNPACK = (
  [
    ['PUNPCKLBW', '66 0F 60', 1, 'low', 'sse2'],
    ['PUNPCKLWD', '66 0F 61', 2, 'low', 'sse2'],
    ['PUNPCKLDQ', '66 0F 62', 4, 'low', 'sse2'],
    ['PUNPCKLQDQ', '66 0F 6C', 8, 'low', 'sse2'],
    ['PUNPCKHBW', '66 0F 68', 1, 'high', 'sse2'],
    ['PUNPCKHWD', '66 0F 69', 2, 'high', 'sse2'],
    ['PUNPCKHDQ', '66 0F 6A', 4, 'high', 'sse2'],
    ['PUNPCKHQDQ', '66 0F 6D', 8, 'high', 'sse2'],
    ['UNPCKLPS', 'NP 0F 14', 4, 'low', 'sse'],
    ['UNPCKLPD', '66 0F 14', 8, 'low', 'sse2'],
    ['UNPCKHPS', 'NP 0F 15', 4, 'high', 'sse'],
    ['UNPCKHPD', '66 0F 15', 8, 'high', 'sse2'],
  ] as const
).map(([mnemonic, form, bytes, half, feature]) => {
  const indices = interleaving(bytes, half);
  return vectorInstruction(mnemonic, form, feature, (ops, a, b) => ops.shuffle(a, b, indices));
});

/** Shifts all lanes of `width` bits by any 64-bit count: too large a one gives zeros, or signs. */
function shiftLanes<V, C, X>(ops: Ops<V, C, X>, operation: VectorShift, width: number, a: X, count: V): X {
  const fits = ops.lessUnsigned(count, ops.constant(BigInt(width)));
  if (operation.endsWith('shr_s')) {
    return ops.vectorShift(operation, a, ops.select(fits, count, ops.constant(BigInt(width - 1))));
  }
  const shifted = ops.vectorShift(operation, a, ops.and(count, ops.constant(BigInt(width - 1))));
  return ops.vector('v128.and', shifted, ops.splat('i64x2', ops.neg(64, ops.fromBool(fits))));
}

const SHIFTS = (
  [
    ['PSRLW', 'i16x8.shr_u', 16, 'D1', '71 /2'],
    ['PSRLD', 'i32x4.shr_u', 32, 'D2', '72 /2'],
    ['PSRLQ', 'i64x2.shr_u', 64, 'D3', '73 /2'],
    ['PSRAW', 'i16x8.shr_s', 16, 'E1', '71 /4'],
    ['PSRAD', 'i32x4.shr_s', 32, 'E2', '72 /4'],
    ['PSLLW', 'i16x8.shl', 16, 'F1', '71 /6'],
    ['PSLLD', 'i32x4.shl', 32, 'F2', '72 /6'],
    ['PSLLQ', 'i64x2.shl', 64, 'F3', '73 /6'],
  ] as const
).flatMap(([mnemonic, operation, width, byVector, byImmediate]): Instruction[] => [
  vectorInstruction(mnemonic, `66 0F ${byVector}`, 'sse2', (ops, a, b) =>
    shiftLanes(ops, operation, width, a, ops.lane64(b, 0)),
  ),
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [`66 0F ${byImmediate}: Udq, Ib`],
    feature: 'sse2',
    semantics(ops, insn) {
      const [destination, count] = two(insn);
      ops.writeVector(destination, shiftLanes(ops, operation, width, ops.readVector(destination), ops.read(count)));
    },
  }),
]);

/** 0, 1, 2 … 15, the byte numbers of a vector. */
export const BYTE_NUMBERS = 0x0f0e0d0c0b0a09080706050403020100n;

/** Moves whole bytes through the register: the byte numbers, moved by the count, pick the bytes. */
function shiftBytes<V, C, X>(ops: Ops<V, C, X>, insn: Static, move: 'i8x16.add' | 'i8x16.sub'): void {
  const [destination, countOperand] = two(insn);
  const limit = ops.constant(16n);
  const count = ops.read(countOperand);
  const bytes = ops.splat('i8x16', ops.select(ops.lessUnsigned(count, limit), count, limit));
  const indices = ops.vector(move, ops.vectorConstant(BYTE_NUMBERS), bytes);
  ops.writeVector(destination, ops.swizzle(ops.readVector(destination), indices));
}

const BYTE_SHIFTS: readonly Instruction[] = [
  instruction({
    mnemonic: 'PSRLDQ',
    source: 'APM vol.4, PSRLDQ',
    forms: ['66 0F 73 /3: Udq, Ib'],
    feature: 'sse2',
    semantics: (ops, insn) => shiftBytes(ops, insn, 'i8x16.add'),
  }),
  instruction({
    mnemonic: 'PSLLDQ',
    source: 'APM vol.4, PSLLDQ',
    forms: ['66 0F 73 /7: Udq, Ib'],
    feature: 'sse2',
    semantics: (ops, insn) => shiftBytes(ops, insn, 'i8x16.sub'),
  }),
];

export const SSE_INTEGER_INSTRUCTIONS: readonly Instruction[] = [
  ...BITWISE,
  ...LANEWISE,
  ...MULTIPLY,
  ...UNPACK,
  ...SHIFTS,
  ...BYTE_SHIFTS,
];

/**
 * Integer vectors of SSSE3, SSE4.1 and SSE4.2.
 * Source: APM vol.4. Shuffles, inserts and blends stand in `sse-shuffle.ts`, string comparison in `sse-string.ts`.
 */
import { type Instruction, instruction, type Ops, type VectorOperation } from './instruction.js';
import { two } from './operands.js';
import { evenDwords, lanewise, vectorInstruction } from './sse-int.js';
import { areZero, halvesOf } from './vector-parts.js';

const LANEWISE = [
  ...lanewise('sse4.1', [
    ['PCMPEQQ', '66 0F 38 29', 'i64x2.eq'],
    ['PACKUSDW', '66 0F 38 2B', 'i16x8.narrow_i32x4_u'],
    ['PMINSB', '66 0F 38 38', 'i8x16.min_s'],
    ['PMINSD', '66 0F 38 39', 'i32x4.min_s'],
    ['PMINUW', '66 0F 38 3A', 'i16x8.min_u'],
    ['PMINUD', '66 0F 38 3B', 'i32x4.min_u'],
    ['PMAXSB', '66 0F 38 3C', 'i8x16.max_s'],
    ['PMAXSD', '66 0F 38 3D', 'i32x4.max_s'],
    ['PMAXUW', '66 0F 38 3E', 'i16x8.max_u'],
    ['PMAXUD', '66 0F 38 3F', 'i32x4.max_u'],
    ['PMULLD', '66 0F 38 40', 'i32x4.mul'],
  ]),
  ...lanewise('sse4.2', [['PCMPGTQ', '66 0F 38 37', 'i64x2.gt_s']]),
  vectorInstruction('PMULDQ', '66 0F 38 28', 'sse4.1', (ops, a, b) =>
    ops.vector('i64x2.extmul_low_i32x4_s', evenDwords(ops, a), evenDwords(ops, b)),
  ),
];

/** Bytes of the elements with even or odd numbers, of a register pair. */
const alternate = (bytes: number, odd: boolean): readonly number[] =>
  Array.from({ length: 16 }, (_, at) => 2 * bytes * Math.floor(at / bytes) + (odd ? bytes : 0) + (at % bytes));

/** Neighbours combined: those of the destination below those of the source. */
const HORIZONTAL = (
  [
    ['PHADDW', '66 0F 38 01', 'i16x8.add', 2],
    ['PHADDD', '66 0F 38 02', 'i32x4.add', 4],
    ['PHADDSW', '66 0F 38 03', 'i16x8.add_sat_s', 2],
    ['PHSUBW', '66 0F 38 05', 'i16x8.sub', 2],
    ['PHSUBD', '66 0F 38 06', 'i32x4.sub', 4],
    ['PHSUBSW', '66 0F 38 07', 'i16x8.sub_sat_s', 2],
  ] as const
).map(([mnemonic, form, operation, bytes]) => {
  const even = alternate(bytes, false);
  const odd = alternate(bytes, true);
  return vectorInstruction(mnemonic, form, 'ssse3', (ops, a, b) =>
    ops.vector(operation, ops.shuffle(a, b, even), ops.shuffle(a, b, odd)),
  );
});

/** The destination's lanes with the signs of the source's; zero where those are zero. */
const SIGN = (
  [
    ['PSIGNB', '66 0F 38 08', 'i8x16'],
    ['PSIGNW', '66 0F 38 09', 'i16x8'],
    ['PSIGND', '66 0F 38 0A', 'i32x4'],
  ] as const
).map(([mnemonic, form, lanes]) =>
  vectorInstruction(mnemonic, form, 'ssse3', (ops, a, b) => {
    const zero = ops.vectorConstant(0n);
    const isNegative = ops.vector(`${lanes}.gt_s`, zero, b);
    const negated = ops.vector('v128.and', ops.vector(`${lanes}.neg`, a), isNegative);
    const withSign = ops.vector('v128.or', negated, ops.vector('v128.andnot', a, isNegative));
    return ops.vector('v128.andnot', withSign, ops.vector(`${lanes}.eq`, b, zero));
  }),
);

const ABSOLUTE = (
  [
    ['PABSB', '66 0F 38 1C', 'i8x16.abs'],
    ['PABSW', '66 0F 38 1D', 'i16x8.abs'],
    ['PABSD', '66 0F 38 1E', 'i32x4.abs'],
  ] as const
).map(([mnemonic, form, operation]) =>
  vectorInstruction(mnemonic, form, 'ssse3', (ops, _a, b) => ops.vector(operation, b)),
);

/** Bits 30:15 of each product, after adding one half of the last place. */
function roundedHighWords<V, C, X>(ops: Ops<V, C, X>, a: X, b: X): X {
  const one = ops.constant(1n);
  const half = (operation: VectorOperation): X => {
    const scaled = ops.vectorShift('i32x4.shr_s', ops.vector(operation, a, b), ops.constant(14n));
    return ops.vectorShift('i32x4.shr_s', ops.vector('i32x4.add', scaled, ops.splat('i32x4', one)), one);
  };
  const low = half('i32x4.extmul_low_i16x8_s');
  const high = half('i32x4.extmul_high_i16x8_s');
  return ops.shuffle(low, high, [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29]);
}

/** Unsigned bytes of the destination times signed ones of the source, neighbouring products added. */
function multiplyBytes<V, C, X>(ops: Ops<V, C, X>, a: X, b: X): X {
  const eight = ops.constant(8n);
  const even = ops.vector(
    'i16x8.mul',
    ops.vector('v128.and', a, ops.splat('i16x8', ops.constant(0xffn))),
    ops.vectorShift('i16x8.shr_s', ops.vectorShift('i16x8.shl', b, eight), eight),
  );
  const odd = ops.vector(
    'i16x8.mul',
    ops.vectorShift('i16x8.shr_u', a, eight),
    ops.vectorShift('i16x8.shr_s', b, eight),
  );
  return ops.vector('i16x8.add_sat_s', even, odd);
}

const MULTIPLY = [
  vectorInstruction('PMULHRSW', '66 0F 38 0B', 'ssse3', roundedHighWords),
  vectorInstruction('PMADDUBSW', '66 0F 38 04', 'ssse3', multiplyBytes),
];

/** Each step doubles the width of the low lanes. */
const EXTEND = (
  [
    ['BW', '0', 'Wq', ['i16x8.extend_low_i8x16']],
    ['BD', '1', 'Wd', ['i16x8.extend_low_i8x16', 'i32x4.extend_low_i16x8']],
    ['BQ', '2', 'Ww', ['i16x8.extend_low_i8x16', 'i32x4.extend_low_i16x8', 'i64x2.extend_low_i32x4']],
    ['WD', '3', 'Wq', ['i32x4.extend_low_i16x8']],
    ['WQ', '4', 'Wd', ['i32x4.extend_low_i16x8', 'i64x2.extend_low_i32x4']],
    ['DQ', '5', 'Wq', ['i64x2.extend_low_i32x4']],
  ] as const
).flatMap(([suffix, column, source, steps]) =>
  (
    [
      ['PMOVSX', '2', 's'],
      ['PMOVZX', '3', 'u'],
    ] as const
  ).map(([prefix, row, sign]) =>
    instruction({
      mnemonic: `${prefix}${suffix}`,
      source: `APM vol.4, ${prefix}${suffix}`,
      forms: [`66 0F 38 ${row}${column} /r: Vdq, ${source}`],
      feature: 'sse4.1',
      semantics(ops, insn) {
        const [destination, narrow] = two(insn);
        let value = ops.readVector(narrow);
        for (const step of steps) value = ops.vector(`${step}_${sign}`, value);
        ops.writeVector(destination, value);
      },
    }),
  ),
);

/** ZF: no bit in common; CF: no bit of the source `b` is clear in `a`. The other flags are cleared. */
export function testBits<V, C, X>(ops: Ops<V, C, X>, a: readonly X[], b: readonly X[]): void {
  const combined = (operation: (first: X, second: X) => X): readonly X[] =>
    a.map((half, index) => operation(half, b[index] as X));
  ops.setArithmeticFlags(ops.constant(0n));
  ops.setFlag(
    'zf',
    areZero(
      ops,
      combined((first, second) => ops.vector('v128.and', first, second)),
    ),
  );
  ops.setFlag(
    'cf',
    areZero(
      ops,
      combined((first, second) => ops.vector('v128.andnot', second, first)),
    ),
  );
}

const PTEST = instruction({
  mnemonic: 'PTEST',
  source: 'APM vol.4, PTEST',
  forms: ['66 0F 38 17 /r: Vdq, Wdq'],
  feature: 'sse4.1',
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    testBits(
      ops,
      halvesOf(ops, destination, ops.readVector(destination)),
      halvesOf(ops, source, ops.readVectorAligned(source)),
    );
  },
});

export const SSE_LATER_INTEGER_INSTRUCTIONS: readonly Instruction[] = [
  ...LANEWISE,
  ...HORIZONTAL,
  ...SIGN,
  ...ABSOLUTE,
  ...MULTIPLY,
  ...EXTEND,
  PTEST,
];

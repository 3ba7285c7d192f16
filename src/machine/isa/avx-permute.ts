/**
 * AVX and AVX2 without a counterpart in SSE: broadcasts, moves of halves, permutations, shifts of each element by its
 * own count, blends and tests of signs.
 * Source: APM vol.4, the page of each instruction.
 */
import { vexSemantics, writeResult } from './avx-derived.js';
import { type Feature, type Instruction, instruction, type Operand, type Ops, type Semantics } from './instruction.js';
import { three, two } from './operands.js';
import { testBits } from './sse-int-later.js';
import { elementsOf, halvesOf, vectorOf } from './vector-parts.js';

const avx = (mnemonic: string, forms: readonly string[], feature: Feature, semantics: Semantics): Instruction =>
  instruction({ mnemonic, source: `APM vol.4, ${mnemonic}`, forms, feature, semantics });

/** A form in both vector lengths; `x` stands for the size of whole vectors. */
const bothLengths = (code: string, operands: string): readonly string[] => [
  `VEX.L0 ${code}: ${operands.replaceAll('x', 'dq')}`,
  `VEX.L1 ${code}: ${operands.replaceAll('x', 'qq')}`,
];

const LANES = { 8: 'i8x16', 16: 'i16x8', 32: 'i32x4', 64: 'i64x2' } as const;

/** One element in all places of the destination. */
const broadcast = (
  mnemonic: string,
  width: 8 | 16 | 32 | 64 | 128,
  rows: readonly (readonly [Feature, ...string[]])[],
): readonly Instruction[] =>
  rows.map(([feature, ...forms]) =>
    avx(mnemonic, forms, feature, (ops, insn) => {
      const [destination, source] = two(insn);
      const half = width === 128 ? ops.readVector(source) : ops.splat(LANES[width], ops.read(source));
      ops.writeWhole(destination, destination.width === 256 ? ops.joinHalves(half, half) : half);
    }),
  );

/** From registers, and of integers, only with AVX2. */
const BROADCASTS: readonly Instruction[] = [
  ...broadcast('VBROADCASTSS', 32, [
    ['avx', ...bothLengths('66 0F 38 18 /r', 'Vx, Md [w0]')],
    ['avx2', ...bothLengths('66 0F 38 18 /r', 'Vx, Ud [w0]')],
  ]),
  ...broadcast('VBROADCASTSD', 64, [
    ['avx', 'VEX.L1 66 0F 38 19 /r: Vqq, Mq [w0]'],
    ['avx2', 'VEX.L1 66 0F 38 19 /r: Vqq, Uq [w0]'],
  ]),
  ...broadcast('VBROADCASTF128', 128, [['avx', 'VEX.L1 66 0F 38 1A /r: Vqq, Mdq [w0]']]),
  ...broadcast('VBROADCASTI128', 128, [['avx2', 'VEX.L1 66 0F 38 5A /r: Vqq, Mdq [w0]']]),
  ...broadcast('VPBROADCASTB', 8, [['avx2', ...bothLengths('66 0F 38 78 /r', 'Vx, Wb [w0]')]]),
  ...broadcast('VPBROADCASTW', 16, [['avx2', ...bothLengths('66 0F 38 79 /r', 'Vx, Ww [w0]')]]),
  ...broadcast('VPBROADCASTD', 32, [['avx2', ...bothLengths('66 0F 38 58 /r', 'Vx, Wd [w0]')]]),
  ...broadcast('VPBROADCASTQ', 64, [['avx2', ...bothLengths('66 0F 38 59 /r', 'Vx, Wq [w0]')]]),
];

/** `b` where the condition holds: vectors have no select of their own. */
function selectVector<V, C, X>(ops: Ops<V, C, X>, condition: C, b: X, a: X): X {
  const lane = (number: 0 | 1): V => ops.select(condition, ops.lane64(b, number), ops.lane64(a, number));
  return ops.vectorFromLanes(lane(0), lane(1));
}

const HALVES: readonly Instruction[] = (
  [
    ['F128', 'avx', ['18', '19', '06']],
    ['I128', 'avx2', ['38', '39', '46']],
  ] as const
).flatMap(([suffix, feature, [insert, extract, permute]]) => [
  avx(`VINSERT${suffix}`, [`VEX.L1 66 0F 3A ${insert} /r: Vqq, Hqq, Wdq, Ib [w0]`], feature, (ops, insn) => {
    const [destination, base, source] = three(insn);
    const value = ops.readVector(source);
    const [low, high] = halvesOf(ops, base, ops.readVector(base)) as [typeof value, typeof value];
    const isHigh = ops.bit(ops.read(insn.operands[3] as Operand), 0);
    const halves = [selectVector(ops, isHigh, low, value), selectVector(ops, isHigh, value, high)] as const;
    ops.writeWhole(destination, ops.joinHalves(...halves));
  }),
  avx(`VEXTRACT${suffix}`, [`VEX.L1 66 0F 3A ${extract} /r: Wdq, Vqq, Ib [w0]`], feature, (ops, insn) => {
    const [destination, source, choice] = three(insn);
    const value = ops.readVector(source);
    const isHigh = ops.bit(ops.read(choice), 0);
    writeResult(ops, destination, selectVector(ops, isHigh, ops.halfOf(value, 1), ops.halfOf(value, 0)));
  }),
  // Two bits of the immediate byte choose each half out of four, a third clears it.
  avx(`VPERM2${suffix}`, [`VEX.L1 66 0F 3A ${permute} /r: Vqq, Hqq, Wqq, Ib [w0]`], feature, (ops, insn) => {
    const [destination, first, second] = three(insn);
    const b = ops.readVector(second);
    const a = ops.readVector(first);
    const control = ops.read(insn.operands[3] as Operand);
    const chosen = (from: number) => {
      const of = (value: typeof a) =>
        selectVector(ops, ops.bit(control, from), ops.halfOf(value, 1), ops.halfOf(value, 0));
      const half = selectVector(ops, ops.bit(control, from + 1), of(b), of(a));
      return selectVector(ops, ops.bit(control, from + 3), ops.vectorConstant(0n), half);
    };
    ops.writeWhole(destination, ops.joinHalves(chosen(0), chosen(4)));
  }),
]);

/** The element that `index` names; only its low bits count. */
function picked<V, C, X>(ops: Ops<V, C, X>, elements: readonly V[], index: V): V {
  const bits = ops.and(index, ops.constant(BigInt(elements.length - 1)));
  return elements.reduce((found, element, number) =>
    ops.select(ops.equal(bits, ops.constant(BigInt(number))), element, found),
  );
}

/** Elements picked by the low bits of an index for each of them. @param within elements that one index chooses among. */
const permute = (
  mnemonic: string,
  forms: readonly string[],
  feature: Feature,
  width: 32 | 64,
  indices: <V, C, X>(ops: Ops<V, C, X>, control: Operand, count: number) => readonly V[],
  operands: 'source first' | 'control first' = 'source first',
): Instruction =>
  avx(mnemonic, forms, feature, (ops, insn) => {
    const [destination, first, second] = three(insn);
    const [source, control] = operands === 'source first' ? [first, second] : [second, first];
    const elements = elementsOf(ops, source, ops.readVector(source), width);
    const chosen = indices(ops, control, elements.length).map((index) => picked(ops, elements, index));
    ops.writeWhole(destination, vectorOf(ops, chosen, width));
  });

/** Two bits of the immediate byte for each element. */
const byImmediate = <V, C, X>(ops: Ops<V, C, X>, control: Operand, count: number): readonly V[] => {
  const immediate = ops.read(control);
  return Array.from({ length: count }, (_, index) =>
    ops.and(ops.shr(8, immediate, ops.constant(BigInt(2 * index))), ops.constant(3n)),
  );
};

const byVector = <V, C, X>(ops: Ops<V, C, X>, control: Operand): readonly V[] =>
  elementsOf(ops, control, ops.readVector(control), 32);

const ACROSS_HALVES: readonly Instruction[] = [
  permute('VPERMQ', ['VEX.L1 66 0F 3A 00 /r: Vqq, Wqq, Ib [w1]'], 'avx2', 64, byImmediate),
  permute('VPERMPD', ['VEX.L1 66 0F 3A 01 /r: Vqq, Wqq, Ib [w1]'], 'avx2', 64, byImmediate),
  permute('VPERMD', ['VEX.L1 66 0F 38 36 /r: Vqq, Hqq, Wqq [w0]'], 'avx2', 32, byVector, 'control first'),
  permute('VPERMPS', ['VEX.L1 66 0F 38 16 /r: Vqq, Hqq, Wqq [w0]'], 'avx2', 32, byVector, 'control first'),
];

/** Within the halves: what is described is a half, for `vexSemantics`. */
const withinHalves = (
  mnemonic: string,
  forms: readonly string[],
  width: 32 | 64,
  immediateStep: number,
  indices: <V, C, X>(ops: Ops<V, C, X>, control: Operand) => readonly V[],
): Instruction =>
  avx(
    mnemonic,
    forms,
    'avx',
    vexSemantics(
      (ops, insn) => {
        const [destination, source, control] = three(insn);
        const half = { ...source, width: 128 };
        const elements = elementsOf(ops, half, ops.readVector(source), width);
        const chosen = indices(ops, control).map((index) => picked(ops, elements, index));
        ops.writeVector(destination, vectorOf(ops, chosen.slice(0, 128 / width), width));
      },
      { operands: 'two', immediateStep },
    ),
  );

const quadsOf = <V, C, X>(ops: Ops<V, C, X>, control: Operand): readonly V[] => {
  const value = ops.readVector(control);
  return [ops.lane64(value, 0), ops.lane64(value, 1)];
};

/** VPERMILPD takes bit 1 of each quadword, VPERMILPS bits 1:0 of each doubleword. */
const WITHIN_HALVES: readonly Instruction[] = [
  withinHalves('VPERMILPS', bothLengths('66 0F 3A 04 /r', 'Vx, Wx, Ib [w0]'), 32, 0, (ops, control) =>
    byImmediate(ops, control, 4),
  ),
  withinHalves('VPERMILPD', bothLengths('66 0F 3A 05 /r', 'Vx, Wx, Ib [w0]'), 64, 2, (ops, control) => {
    const immediate = ops.read(control);
    return [immediate, ops.shr(8, immediate, ops.constant(1n))];
  }),
  withinHalves('VPERMILPS', bothLengths('66 0F 38 0C /r', 'Vx, Hx, Wx [w0]'), 32, 0, (ops, control) =>
    quadsOf(ops, control).flatMap((quad) => [quad, ops.shr(64, quad, ops.constant(32n))]),
  ),
  withinHalves('VPERMILPD', bothLengths('66 0F 38 0D /r', 'Vx, Hx, Wx [w0]'), 64, 0, (ops, control) =>
    quadsOf(ops, control).map((quad) => ops.shr(64, quad, ops.constant(1n))),
  ),
];

/** Element by element; a count of the width or more gives zero, or the sign. */
const SHIFTS: readonly Instruction[] = (
  [
    ['VPSRLVD', '45', 'w0', 32, 'shr'],
    ['VPSRLVQ', '45', 'w1', 64, 'shr'],
    ['VPSRAVD', '46', 'w0', 32, 'sar'],
    ['VPSLLVD', '47', 'w0', 32, 'shl'],
    ['VPSLLVQ', '47', 'w1', 64, 'shl'],
  ] as const
).map(([mnemonic, opcode, w, width, operation]) =>
  avx(mnemonic, bothLengths(`66 0F 38 ${opcode} /r`, `Vx, Hx, Wx [${w}]`), 'avx2', (ops, insn) => {
    const [destination, source, counts] = three(insn);
    const limit = ops.constant(BigInt(width));
    const last = ops.constant(BigInt(width - 1));
    const by = elementsOf(ops, counts, ops.readVector(counts), width);
    const shifted = elementsOf(ops, source, ops.readVector(source), width).map((element, index) => {
      const count = by[index] as typeof element;
      const fits = ops.lessUnsigned(count, limit);
      const result = ops[operation](width, element, ops.select(fits, count, last));
      return operation === 'sar' ? result : ops.select(fits, result, ops.constant(0n));
    });
    ops.writeWhole(destination, vectorOf(ops, shifted, width));
  }),
);

const VPBLENDD = avx('VPBLENDD', bothLengths('66 0F 3A 02 /r', 'Vx, Hx, Wx, Ib [w0]'), 'avx2', (ops, insn) => {
  const [destination, first, second] = three(insn);
  const b = elementsOf(ops, second, ops.readVector(second), 32);
  const choice = ops.read(insn.operands[3] as Operand);
  const blended = elementsOf(ops, first, ops.readVector(first), 32).map((element, index) =>
    ops.select(ops.bit(choice, index), b[index] as typeof element, element),
  );
  ops.writeWhole(destination, vectorOf(ops, blended, 32));
});

/** As VPTEST, of the signs alone. */
const SIGN_TESTS: readonly Instruction[] = (
  [
    ['VTESTPS', '0E', 0x80000000_80000000n],
    ['VTESTPD', '0F', 0x80000000_00000000n],
  ] as const
).map(([mnemonic, opcode, signs]) =>
  avx(mnemonic, bothLengths(`66 0F 38 ${opcode} /r`, 'Vx, Wx [w0]'), 'avx', (ops, insn) => {
    const [first, second] = two(insn);
    const mask = ops.vectorConstant((signs << 64n) | signs);
    const signsOf = (operand: Operand) =>
      halvesOf(ops, operand, ops.readVector(operand)).map((half) => ops.vector('v128.and', half, mask));
    const b = signsOf(second);
    testBits(ops, signsOf(first), b);
  }),
);

export const AVX_PERMUTE_INSTRUCTIONS: readonly Instruction[] = [
  ...BROADCASTS,
  ...HALVES,
  ...ACROSS_HALVES,
  ...WITHIN_HALVES,
  ...SHIFTS,
  VPBLENDD,
  ...SIGN_TESTS,
];

/**
 * FMA3 and F16C: fused multiplication and addition, and conversions from and to half precision.
 * Source: APM vol.4, VFMADD132PD and relatives, VCVTPH2PS, VCVTPS2PH.
 *
 * The digits of a mnemonic say which operands are multiplied, and which is added: of 132, the first and the third, and
 * the second.
 */
import { derive, lowMerged, vexSemantics } from './avx-derived.js';
import { type FusedOperation, type Instruction, instruction, type Operand, type Semantics } from './instruction.js';
import { three } from './operands.js';

const SHAPES = [
  { suffix: 'PS', w: 'w0', forms: ['VEX.L0', 'VEX.L1'], sizes: ['dq', 'qq'], lanes: 'f32x4', scalarBits: undefined },
  { suffix: 'PD', w: 'w1', forms: ['VEX.L0', 'VEX.L1'], sizes: ['dq', 'qq'], lanes: 'f64x2', scalarBits: undefined },
  { suffix: 'SS', w: 'w0', forms: ['VEX.LIG'], sizes: ['d'], lanes: 'f32', scalarBits: 32 },
  { suffix: 'SD', w: 'w1', forms: ['VEX.LIG'], sizes: ['q'], lanes: 'f64', scalarBits: 64 },
] as const;

/** [name, low digit of the opcode for packed and for scalar operands, operation] */
const OPERATIONS = [
  ['VFMADDSUB', 6, undefined, 'maddsub'],
  ['VFMSUBADD', 7, undefined, 'msubadd'],
  ['VFMADD', 8, 9, 'madd'],
  ['VFMSUB', 0xa, 0xb, 'msub'],
  ['VFNMADD', 0xc, 0xd, 'nmadd'],
  ['VFNMSUB', 0xe, 0xf, 'nmsub'],
] as const;

/** High digit of the opcode, and the operands that are multiplicand, multiplier and addend. */
const ORDERS = [
  ['132', 9, [0, 2, 1]],
  ['213', 0xa, [1, 0, 2]],
  ['231', 0xb, [1, 2, 0]],
] as const;

/** @param scalarBits how much of the destination a scalar form writes. */
const fused = (
  operation: FusedOperation,
  order: readonly [number, number, number],
  scalarBits: number | undefined,
): Semantics =>
  vexSemantics(
    (ops, insn) => {
      const operands = three(insn);
      // Memory first: it is always the third.
      const values = [2, 1, 0].map((index) => ops.readVector(operands[index] as Operand)).reverse();
      const [x, y, z] = order.map((index) => values[index]) as [(typeof values)[0], ...typeof values];
      const sum = ops.fused(operation, x, y as typeof x, z as typeof x);
      const old = values[0] as typeof x;
      ops.writeVector(operands[0], scalarBits === undefined ? sum : lowMerged(ops, old, sum, scalarBits));
    },
    { operands: 'two' },
  );

const FMA: readonly Instruction[] = OPERATIONS.flatMap(([name, packed, scalar, operation]) =>
  ORDERS.flatMap(([digits, row, order]) =>
    SHAPES.flatMap(({ suffix, w, forms, sizes, lanes, scalarBits }) => {
      const column = suffix.startsWith('P') ? packed : scalar;
      if (column === undefined) return [];
      const opcode = (16 * row + column).toString(16).toUpperCase();
      const mnemonic = `${name}${digits}${suffix}`;
      return instruction({
        mnemonic,
        source: `APM vol.4, ${mnemonic}`,
        forms: forms.map((length, index) => {
          const size = sizes[index] as string;
          const whole = scalarBits === undefined ? size : 'dq';
          return `${length} 66 0F 38 ${opcode} /r: V${whole}, H${size}, W${size} [${w}]`;
        }),
        feature: 'fma',
        evaluatorOnly: true,
        semantics: fused(`${lanes}.${operation}` as FusedOperation, order, scalarBits),
      });
    }),
  ),
);

const F16C: readonly Instruction[] = [
  ...derive(
    {
      mnemonic: 'CVTPH2PS',
      source: 'APM vol.4, VCVTPH2PS',
      forms: ['66 0F 38 13 /r: Vdq, Wq [w0]'],
      evaluatorOnly: true,
      semantics(ops, insn) {
        const [destination, source] = insn.operands as readonly [Operand, Operand];
        const value = ops.readVector(source);
        ops.writeVector(destination, ops.float('f32x4.promote_f16x4', value, value));
      },
    },
    { operands: 'two', length: 'L0 L1', sources: 'packed', feature: 'f16c' },
  ),
  ...(
    [
      ['L0', ['Mq, Vdq', 'Udq, Vdq']],
      ['L1', ['Wdq, Vqq']],
    ] as const
  ).map(([length, operands]) =>
    instruction({
      mnemonic: 'VCVTPS2PH',
      source: 'APM vol.4, VCVTPS2PH',
      forms: operands.map((list) => `VEX.${length} 66 0F 3A 1D /r: ${list}, Ib [w0]`),
      feature: 'f16c',
      evaluatorOnly: true,
      semantics: vexSemantics(
        (ops, insn) => {
          const [destination, source, control] = three(insn);
          const value = ops.readVector(source);
          ops.writeVector(destination, ops.float('f16x4.demote_f32x4', value, value, ops.read(control)));
        },
        { operands: 'two', packsResult: true },
      ),
    }),
  ),
];

export const AVX_FLOAT_INSTRUCTIONS: readonly Instruction[] = [...FMA, ...F16C];

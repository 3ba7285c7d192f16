/**
 * SSE floating point: arithmetic, comparison, rounding, conversion. All of it is `Ops.float`, which is software.
 * Source: APM vol.4; exceptions: APM vol.1 §4.10 SIMD Floating-Point Exceptions.
 *
 * Scalar forms write only their element; the rest of the destination stays.
 */
import { type Feature, type FloatOperation, type Instruction, instruction } from './instruction.js';
import { three, two } from './operands.js';

/** A shape of operands: mnemonic suffix, prefix, operand size, feature. */
const SHAPES = [
  { suffix: 'PS', prefix: 'NP', size: 'dq', lanes: 'f32x4', feature: 'sse' },
  { suffix: 'PD', prefix: '66', size: 'dq', lanes: 'f64x2', feature: 'sse2' },
  { suffix: 'SS', prefix: 'F3', size: 'd', lanes: 'f32', feature: 'sse' },
  { suffix: 'SD', prefix: 'F2', size: 'q', lanes: 'f64', feature: 'sse2' },
] as const;

/** destination = operation(destination, source). */
function binary(mnemonic: string, form: string, feature: Feature, operation: FloatOperation): Instruction {
  return instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [form],
    feature,
    evaluatorOnly: true,
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const b = ops.readVectorAligned(source);
      ops.writeVector(destination, ops.float(operation, ops.readVector(destination), b));
    },
  });
}

/** destination = operation(source). */
function unary(mnemonic: string, form: string, feature: Feature, operation: FloatOperation): Instruction {
  return instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [form],
    feature,
    evaluatorOnly: true,
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const value = ops.readVectorAligned(source);
      ops.writeVector(destination, ops.float(operation, value, value));
    },
  });
}

const ARITHMETIC = (
  [
    ['ADD', '58', 'add'],
    ['MUL', '59', 'mul'],
    ['SUB', '5C', 'sub'],
    ['MIN', '5D', 'min'],
    ['DIV', '5E', 'div'],
    ['MAX', '5F', 'max'],
  ] as const
).flatMap(([name, opcode, operation]) =>
  SHAPES.map(({ suffix, prefix, size, lanes, feature }) =>
    binary(`${name}${suffix}`, `${prefix} 0F ${opcode} /r: V${size}, W${size}`, feature, `${lanes}.${operation}`),
  ),
);

const SQUARE_ROOTS = SHAPES.map(({ suffix, prefix, size, lanes, feature }) =>
  unary(`SQRT${suffix}`, `${prefix} 0F 51 /r: V${size}, W${size}`, feature, `${lanes}.sqrt`),
);

const ESTIMATES = [
  unary('RSQRTPS', 'NP 0F 52 /r: Vdq, Wdq', 'sse', 'f32x4.rsqrt'),
  unary('RSQRTSS', 'F3 0F 52 /r: Vd, Wd', 'sse', 'f32.rsqrt'),
  unary('RCPPS', 'NP 0F 53 /r: Vdq, Wdq', 'sse', 'f32x4.rcp'),
  unary('RCPSS', 'F3 0F 53 /r: Vd, Wd', 'sse', 'f32.rcp'),
];

const HORIZONTAL = [
  binary('HADDPD', '66 0F 7C /r: Vdq, Wdq', 'sse3', 'f64x2.hadd'),
  binary('HADDPS', 'F2 0F 7C /r: Vdq, Wdq', 'sse3', 'f32x4.hadd'),
  binary('HSUBPD', '66 0F 7D /r: Vdq, Wdq', 'sse3', 'f64x2.hsub'),
  binary('HSUBPS', 'F2 0F 7D /r: Vdq, Wdq', 'sse3', 'f32x4.hsub'),
  binary('ADDSUBPD', '66 0F D0 /r: Vdq, Wdq', 'sse3', 'f64x2.addsub'),
  binary('ADDSUBPS', 'F2 0F D0 /r: Vdq, Wdq', 'sse3', 'f32x4.addsub'),
];

/** With an immediate byte: predicate, rounding control, or choice of elements. */
function controlled(
  mnemonic: string,
  form: string,
  feature: Feature,
  operation: FloatOperation,
  operands: 'binary' | 'unary',
  controls = 0xffn,
): Instruction {
  return instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [form],
    feature,
    evaluatorOnly: true,
    semantics(ops, insn) {
      const [destination, source, immediate] = three(insn);
      const b = ops.readVectorAligned(source);
      const a = operands === 'binary' ? ops.readVector(destination) : b;
      ops.writeVector(destination, ops.float(operation, a, b, ops.and(ops.read(immediate), ops.constant(controls))));
    },
  });
}

/** @param predicates mask of the immediate byte: 7 for SSE, 31 for AVX. */
export const comparisons = (predicates: bigint): readonly Instruction[] =>
  SHAPES.map(({ suffix, prefix, size, lanes, feature }) =>
    controlled(
      `CMP${suffix}`,
      `${prefix} 0F C2 /r: V${size}, W${size}, Ib`,
      feature,
      `${lanes}.compare`,
      'binary',
      predicates,
    ),
  );

const ROUNDING = [
  controlled('ROUNDPS', '66 0F 3A 08 /r: Vdq, Wdq, Ib', 'sse4.1', 'f32x4.round', 'unary'),
  controlled('ROUNDPD', '66 0F 3A 09 /r: Vdq, Wdq, Ib', 'sse4.1', 'f64x2.round', 'unary'),
  controlled('ROUNDSS', '66 0F 3A 0A /r: Vd, Wd, Ib', 'sse4.1', 'f32.round', 'unary'),
  controlled('ROUNDSD', '66 0F 3A 0B /r: Vq, Wq, Ib', 'sse4.1', 'f64.round', 'unary'),
];

const DOT_PRODUCTS = [
  controlled('DPPS', '66 0F 3A 40 /r: Vdq, Wdq, Ib', 'sse4.1', 'f32x4.dot', 'binary'),
  controlled('DPPD', '66 0F 3A 41 /r: Vdq, Wdq, Ib', 'sse4.1', 'f64x2.dot', 'binary'),
];

/** ZF, PF and CF tell the relation; the other flags are cleared. */
const FLAG_COMPARISONS = (
  [
    ['UCOMISS', 'NP 0F 2E /r: Vd, Wd', 'sse', 'f32.ucomi'],
    ['UCOMISD', '66 0F 2E /r: Vq, Wq', 'sse2', 'f64.ucomi'],
    ['COMISS', 'NP 0F 2F /r: Vd, Wd', 'sse', 'f32.comi'],
    ['COMISD', '66 0F 2F /r: Vq, Wq', 'sse2', 'f64.comi'],
  ] as const
).map(([mnemonic, form, feature, operation]) =>
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [form],
    feature,
    evaluatorOnly: true,
    semantics(ops, insn) {
      const [first, second] = two(insn);
      const b = ops.readVector(second);
      ops.setArithmeticFlags(ops.lane64(ops.float(operation, ops.readVector(first), b), 0));
    },
  }),
);

const CONVERSIONS = [
  unary('CVTPS2PD', 'NP 0F 5A /r: Vdq, Wq', 'sse2', 'f64x2.promote_low_f32x4'),
  unary('CVTPD2PS', '66 0F 5A /r: Vdq, Wdq', 'sse2', 'f32x4.demote_f64x2'),
  unary('CVTSS2SD', 'F3 0F 5A /r: Vq, Wd', 'sse2', 'f64.promote_f32'),
  unary('CVTSD2SS', 'F2 0F 5A /r: Vd, Wq', 'sse2', 'f32.demote_f64'),
  unary('CVTDQ2PS', 'NP 0F 5B /r: Vdq, Wdq', 'sse2', 'f32x4.convert_i32x4'),
  unary('CVTPS2DQ', '66 0F 5B /r: Vdq, Wdq', 'sse2', 'i32x4.toInt_f32x4'),
  unary('CVTTPS2DQ', 'F3 0F 5B /r: Vdq, Wdq', 'sse2', 'i32x4.truncate_f32x4'),
  unary('CVTTPD2DQ', '66 0F E6 /r: Vdq, Wdq', 'sse2', 'i32x4.truncate_f64x2'),
  unary('CVTDQ2PD', 'F3 0F E6 /r: Vdq, Wq', 'sse2', 'f64x2.convert_low_i32x4'),
  unary('CVTPD2DQ', 'F2 0F E6 /r: Vdq, Wdq', 'sse2', 'i32x4.toInt_f64x2'),
];

/** From and to general registers, of 32 bits, or of 64 with REX.W. */
const GENERAL_CONVERSIONS = (['SS', 'SD'] as const).flatMap((suffix): Instruction[] => {
  const { prefix, size, lanes, feature } = suffix === 'SS' ? SHAPES[2] : SHAPES[3];
  const toGeneral = (mnemonic: string, opcode: string, operation: 'toInt' | 'truncate'): Instruction =>
    instruction({
      mnemonic,
      source: `APM vol.4, ${mnemonic}`,
      forms: [`${prefix} 0F ${opcode} /r: Gy, W${size}`],
      feature,
      evaluatorOnly: true,
      semantics(ops, insn) {
        const [destination, source] = two(insn);
        const value = ops.readVector(source);
        const integer = insn.width === 64 ? 'i64' : 'i32';
        ops.write(destination, ops.lane64(ops.float(`${integer}.${operation}_${lanes}`, value, value), 0));
      },
    });
  return [
    instruction({
      mnemonic: `CVTSI2${suffix}`,
      source: `APM vol.4, CVTSI2${suffix}`,
      forms: [`${prefix} 0F 2A /r: V${size}, Ey`],
      feature,
      evaluatorOnly: true,
      semantics(ops, insn) {
        const [destination, source] = two(insn);
        const value = ops.vectorFromLow(ops.read(source));
        const integer = insn.width === 64 ? 'i64' : 'i32';
        ops.writeVector(destination, ops.float(`${lanes}.convert_${integer}`, value, value));
      },
    }),
    toGeneral(`CVTT${suffix}2SI`, '2C', 'truncate'),
    toGeneral(`CVT${suffix}2SI`, '2D', 'toInt'),
  ];
});

export const SSE_FLOAT_INSTRUCTIONS: readonly Instruction[] = [
  ...ARITHMETIC,
  ...SQUARE_ROOTS,
  ...ESTIMATES,
  ...HORIZONTAL,
  ...comparisons(7n),
  ...ROUNDING,
  ...DOT_PRODUCTS,
  ...FLAG_COMPARISONS,
  ...CONVERSIONS,
  ...GENERAL_CONVERSIONS,
];

/**
 * MMX integer instructions, and those that SSE, SSE2 and SSSE3 added to them.
 * Source: APM vol.1 §5.6 Instruction Summary: Integer Instructions; APM vol.5.
 *
 * Operations without an entry among the lane-wise ones of `vector-lanes.ts` are spelled out over lanes here; the upper
 * half of those is idle.
 */
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { R } from '../layout/cpu-state.js';
import { uN } from '../units.js';
import { type Feature, Gpr, type Instruction, type VectorOperation, type VectorShift } from './instruction.js';
import { enterMmx, mmxInstruction, readOperand, requireMmx, writeOperand } from './mmx-unit.js';
import { fromLanes, lanesOf, vectorOperation, vectorShift } from './vector-lanes.js';

type Combine = (destination: bigint, source: bigint) => bigint;

/** An instruction whose destination register becomes `combine(destination, source)`. */
const combining = (mnemonic: string, form: string, feature: Feature, combine: Combine): Instruction =>
  mmxInstruction(mnemonic, [form], feature, (context) => {
    const source = readOperand(context, 1);
    writeOperand(context, 0, uN(64, combine(readOperand(context, 0), source)));
  });

/** The lanes of 64 bits. */
const lanes = (value: bigint, width: number): bigint[] => lanesOf(value, width).slice(0, 64 / width);
const signed = (width: number, value: bigint): bigint => BigInt.asIntN(width, value);

/** Both operands, the destination below the source: eight bytes of result come from all sixteen. */
const joined = (a: bigint, b: bigint): bigint => a | (b << 64n);

// Lane-wise operations, and packing

const LANEWISE = (
  [
    ['PADDB', 'FC', 'mmx', 'i8x16.add'],
    ['PADDW', 'FD', 'mmx', 'i16x8.add'],
    ['PADDD', 'FE', 'mmx', 'i32x4.add'],
    ['PADDQ', 'D4', 'sse2', 'i64x2.add'],
    ['PADDSB', 'EC', 'mmx', 'i8x16.add_sat_s'],
    ['PADDSW', 'ED', 'mmx', 'i16x8.add_sat_s'],
    ['PADDUSB', 'DC', 'mmx', 'i8x16.add_sat_u'],
    ['PADDUSW', 'DD', 'mmx', 'i16x8.add_sat_u'],
    ['PSUBB', 'F8', 'mmx', 'i8x16.sub'],
    ['PSUBW', 'F9', 'mmx', 'i16x8.sub'],
    ['PSUBD', 'FA', 'mmx', 'i32x4.sub'],
    ['PSUBQ', 'FB', 'sse2', 'i64x2.sub'],
    ['PSUBSB', 'E8', 'mmx', 'i8x16.sub_sat_s'],
    ['PSUBSW', 'E9', 'mmx', 'i16x8.sub_sat_s'],
    ['PSUBUSB', 'D8', 'mmx', 'i8x16.sub_sat_u'],
    ['PSUBUSW', 'D9', 'mmx', 'i16x8.sub_sat_u'],
    ['PCMPEQB', '74', 'mmx', 'i8x16.eq'],
    ['PCMPEQW', '75', 'mmx', 'i16x8.eq'],
    ['PCMPEQD', '76', 'mmx', 'i32x4.eq'],
    ['PCMPGTB', '64', 'mmx', 'i8x16.gt_s'],
    ['PCMPGTW', '65', 'mmx', 'i16x8.gt_s'],
    ['PCMPGTD', '66', 'mmx', 'i32x4.gt_s'],
    ['PMINUB', 'DA', 'sse', 'i8x16.min_u'],
    ['PMAXUB', 'DE', 'sse', 'i8x16.max_u'],
    ['PMINSW', 'EA', 'sse', 'i16x8.min_s'],
    ['PMAXSW', 'EE', 'sse', 'i16x8.max_s'],
    ['PAVGB', 'E0', 'sse', 'i8x16.avgr_u'],
    ['PAVGW', 'E3', 'sse', 'i16x8.avgr_u'],
    ['PMULLW', 'D5', 'mmx', 'i16x8.mul'],
    ['PMADDWD', 'F5', 'mmx', 'i32x4.dot_i16x8_s'],
    ['PAND', 'DB', 'mmx', 'v128.and'],
    ['POR', 'EB', 'mmx', 'v128.or'],
    ['PXOR', 'EF', 'mmx', 'v128.xor'],
  ] as const satisfies readonly (readonly [string, string, Feature, VectorOperation])[]
).map(([mnemonic, opcode, feature, operation]) =>
  combining(mnemonic, `NP 0F ${opcode} /r: Pq, Qq`, feature, (a, b) => vectorOperation(operation, a, b)),
);

const PACK = (
  [
    ['PACKSSWB', '63', 'i8x16.narrow_i16x8_s'],
    ['PACKUSWB', '67', 'i8x16.narrow_i16x8_u'],
    ['PACKSSDW', '6B', 'i16x8.narrow_i32x4_s'],
  ] as const
).map(([mnemonic, opcode, operation]) =>
  combining(mnemonic, `NP 0F ${opcode} /r: Pq, Qq`, 'mmx', (a, b) => vectorOperation(operation, joined(a, b), 0n)),
);

/** Lanes of the low or high halves of both operands, in turn. */
function interleave(width: number, half: 'low' | 'high', a: bigint, b: bigint): bigint {
  const count = 32 / width;
  const from = half === 'low' ? 0 : count;
  const [x, y] = [lanes(a, width), lanes(b, width)];
  return fromLanes(
    Array.from({ length: 2 * count }, (_, at) => (at % 2 === 0 ? x : y)[from + (at >> 1)] as bigint),
    width,
  );
}

/** The low halves take four bytes from memory. */
const UNPACK = (
  [
    ['PUNPCKLBW', '60', 8, 'low'],
    ['PUNPCKLWD', '61', 16, 'low'],
    ['PUNPCKLDQ', '62', 32, 'low'],
    ['PUNPCKHBW', '68', 8, 'high'],
    ['PUNPCKHWD', '69', 16, 'high'],
    ['PUNPCKHDQ', '6A', 32, 'high'],
  ] as const
).map(([mnemonic, opcode, width, half]) =>
  combining(mnemonic, `NP 0F ${opcode} /r: Pq, ${half === 'low' ? 'Qd' : 'Qq'}`, 'mmx', (a, b) =>
    interleave(width, half, a, b),
  ),
);

// Operations over lanes

const eachLane =
  (width: number, compute: (a: bigint, b: bigint) => bigint): Combine =>
  (a, b) => {
    const other = lanes(b, width);
    return fromLanes(
      lanes(a, width).map((lane, index) => compute(lane, other[index] as bigint)),
      width,
    );
  };

/** The result's lanes are made from neighbours in the destination, then in the source. */
const horizontal =
  (width: number, compute: (low: bigint, high: bigint) => bigint): Combine =>
  (a, b) => {
    const all = lanesOf(joined(a, b), width);
    return fromLanes(
      Array.from({ length: all.length / 2 }, (_, at) => compute(all[2 * at] as bigint, all[2 * at + 1] as bigint)),
      width,
    );
  };

const saturate = (value: bigint): bigint => (value > 0x7fffn ? 0x7fffn : value < -0x8000n ? -0x8000n : value);
const magnitude = (value: bigint): bigint => (value < 0n ? -value : value);
const withSignOf = (width: number, a: bigint, b: bigint): bigint => (b === 0n ? 0n : signed(width, b) < 0n ? -a : a);

const sumOfDifferences: Combine = (a, b) => {
  const other = lanes(b, 8);
  return lanes(a, 8).reduce((sum, lane, index) => sum + magnitude(lane - (other[index] as bigint)), 0n);
};

/** Unsigned bytes of the destination times signed ones of the source, neighbours added. */
const multiplyAddBytes: Combine = (a, b) => {
  const other = lanes(b, 8);
  const products = lanes(a, 8).map((lane, index) => lane * signed(8, other[index] as bigint));
  return fromLanes(
    [0, 2, 4, 6].map((at) => saturate((products[at] as bigint) + (products[at + 1] as bigint))),
    16,
  );
};

const shuffleBytes: Combine = (a, b) => {
  const bytes = lanes(a, 8);
  return fromLanes(
    lanes(b, 8).map((index) => ((index & 0x80n) !== 0n ? 0n : (bytes[Number(index & 7n)] as bigint))),
    8,
  );
};

const OVER_LANES = (
  [
    ['PANDN', '0F DF', 'mmx', (a, b) => ~a & b],
    ['PMULHW', '0F E5', 'mmx', eachLane(16, (a, b) => (signed(16, a) * signed(16, b)) >> 16n)],
    ['PMULHUW', '0F E4', 'sse', eachLane(16, (a, b) => (a * b) >> 16n)],
    ['PMULUDQ', '0F F4', 'sse2', (a, b) => uN(32, a) * uN(32, b)],
    ['PSADBW', '0F F6', 'sse', sumOfDifferences],
    ['PSHUFB', '0F 38 00', 'ssse3', shuffleBytes],
    ['PHADDW', '0F 38 01', 'ssse3', horizontal(16, (low, high) => low + high)],
    ['PHADDD', '0F 38 02', 'ssse3', horizontal(32, (low, high) => low + high)],
    ['PHADDSW', '0F 38 03', 'ssse3', horizontal(16, (low, high) => saturate(signed(16, low) + signed(16, high)))],
    ['PMADDUBSW', '0F 38 04', 'ssse3', multiplyAddBytes],
    ['PHSUBW', '0F 38 05', 'ssse3', horizontal(16, (low, high) => low - high)],
    ['PHSUBD', '0F 38 06', 'ssse3', horizontal(32, (low, high) => low - high)],
    ['PHSUBSW', '0F 38 07', 'ssse3', horizontal(16, (low, high) => saturate(signed(16, low) - signed(16, high)))],
    ['PSIGNB', '0F 38 08', 'ssse3', eachLane(8, (a, b) => withSignOf(8, a, b))],
    ['PSIGNW', '0F 38 09', 'ssse3', eachLane(16, (a, b) => withSignOf(16, a, b))],
    ['PSIGND', '0F 38 0A', 'ssse3', eachLane(32, (a, b) => withSignOf(32, a, b))],
    ['PMULHRSW', '0F 38 0B', 'ssse3', eachLane(16, (a, b) => (((signed(16, a) * signed(16, b)) >> 14n) + 1n) >> 1n)],
    ['PABSB', '0F 38 1C', 'ssse3', eachLane(8, (_, b) => magnitude(signed(8, b)))],
    ['PABSW', '0F 38 1D', 'ssse3', eachLane(16, (_, b) => magnitude(signed(16, b)))],
    ['PABSD', '0F 38 1E', 'ssse3', eachLane(32, (_, b) => magnitude(signed(32, b)))],
  ] as const satisfies readonly (readonly [string, string, Feature, Combine])[]
).map(([mnemonic, opcode, feature, combine]) => combining(mnemonic, `NP ${opcode} /r: Pq, Qq`, feature, combine));

// Shifts

/** A count of the lane width or more empties the lanes, or fills them with signs. */
function shift(operation: VectorShift, width: number, value: bigint, count: bigint): bigint {
  const most = BigInt(width - 1);
  if (count <= most) return vectorShift(operation, value, count);
  return operation.endsWith('shr_s') ? vectorShift(operation, value, most) : 0n;
}

/** [mnemonic, opcode with a count in a register or memory, opcode and digit with an immediate count, operation, width] */
const SHIFTS = (
  [
    ['PSRLW', 'D1', '71 /2', 'i16x8.shr_u', 16],
    ['PSRLD', 'D2', '72 /2', 'i32x4.shr_u', 32],
    ['PSRLQ', 'D3', '73 /2', 'i64x2.shr_u', 64],
    ['PSRAW', 'E1', '71 /4', 'i16x8.shr_s', 16],
    ['PSRAD', 'E2', '72 /4', 'i32x4.shr_s', 32],
    ['PSLLW', 'F1', '71 /6', 'i16x8.shl', 16],
    ['PSLLD', 'F2', '72 /6', 'i32x4.shl', 32],
    ['PSLLQ', 'F3', '73 /6', 'i64x2.shl', 64],
  ] as const
).map(([mnemonic, opcode, immediate, operation, width]) =>
  mmxInstruction(mnemonic, [`NP 0F ${opcode} /r: Pq, Qq`, `NP 0F ${immediate}: Nq, Ib`], 'mmx', (context) => {
    const count = readOperand(context, 1);
    writeOperand(context, 0, shift(operation, width, readOperand(context, 0), count));
  }),
);

// Moves

/** The first operand becomes the second, cut or extended with zeros. */
const copy = (context: SystemContext): void => writeOperand(context, 0, readOperand(context, 1));

/** Bytes of the destination whose mask byte has its top bit set go to DS:rDI. */
function storeMasked(context: SystemContext): void {
  const { ops, insn } = context;
  const data = lanes(readOperand(context, 0), 8);
  const mask = lanes(readOperand(context, 1), 8);
  const start = ops.readGpr(Gpr.RDI, insn.addressWidth);
  data.forEach((byte, index) => {
    if (((mask[index] as bigint) & 0x80n) !== 0n) ops.store('data', 8, start + BigInt(index), byte);
  });
}

const MOVES = [
  mmxInstruction('MOVD', ['NP 0F 6E /r: Pq, Ey', 'NP 0F 7E /r: Ey, Pq'], 'mmx', copy),
  mmxInstruction('MOVQ', ['NP 0F 6F /r: Pq, Qq', 'NP 0F 7F /r: Qq, Pq'], 'mmx', copy),
  mmxInstruction('MOVNTQ', ['NP 0F E7 /r: Mq, Pq'], 'sse', copy),
  mmxInstruction('MOVQ2DQ', ['F3 0F D6 /r: Vdq, Nq'], 'sse2', copy),
  mmxInstruction('MOVDQ2Q', ['F2 0F D6 /r: Pq, Uq'], 'sse2', copy),
  mmxInstruction('MASKMOVQ', ['NP 0F F7 /r: Pq, Nq'], 'sse', storeMasked),
];

// Choosing lanes

const PSHUFW = mmxInstruction('PSHUFW', ['NP 0F 70 /r: Pq, Qq, Ib'], 'sse', (context) => {
  const words = lanes(readOperand(context, 1), 16);
  const order = Number(readOperand(context, 2));
  const chosen = [0, 2, 4, 6].map((at) => words[(order >> at) & 3] as bigint);
  writeOperand(context, 0, fromLanes(chosen, 16));
});

/** Eight bytes of the source with the destination above it, from the byte that the immediate names. */
const PALIGNR = mmxInstruction('PALIGNR', ['NP 0F 3A 0F /r: Pq, Qq, Ib'], 'ssse3', (context) => {
  const bytes = joined(readOperand(context, 1), readOperand(context, 0));
  writeOperand(context, 0, bytes >> (8n * readOperand(context, 2)));
});

const laneShift = (index: bigint): bigint => 16n * (index & 3n);

const PINSRW = mmxInstruction('PINSRW', ['NP 0F C4 /r: Pq, Rd, Ib', 'NP 0F C4 /r: Pq, Mw, Ib'], 'sse', (context) => {
  const word = uN(16, readOperand(context, 1));
  const at = laneShift(readOperand(context, 2));
  writeOperand(context, 0, (readOperand(context, 0) & ~(0xffffn << at)) | (word << at));
});

const PEXTRW = mmxInstruction('PEXTRW', ['NP 0F C5 /r: Gd, Nq, Ib'], 'sse', (context) =>
  writeOperand(context, 0, uN(16, readOperand(context, 1) >> laneShift(readOperand(context, 2)))),
);

const PMOVMSKB = mmxInstruction('PMOVMSKB', ['NP 0F D7 /r: Gd, Nq'], 'sse', (context) => {
  const bytes = lanes(readOperand(context, 1), 8);
  writeOperand(
    context,
    0,
    bytes.reduce((mask, byte, index) => mask | ((byte >> 7n) << BigInt(index)), 0n),
  );
});

/** The registers are empty for x87 code from here on. */
const EMMS = systemInstruction({
  mnemonic: 'EMMS',
  source: 'APM vol.5, EMMS',
  forms: ['0F 77:'],
  system(context) {
    const { tx } = context;
    requireMmx(tx);
    enterMmx(tx);
    tx.set(R.ftw, 0n);
    context.plain();
  },
});

export const MMX_INSTRUCTIONS: readonly Instruction[] = [
  ...LANEWISE,
  ...PACK,
  ...UNPACK,
  ...OVER_LANES,
  ...SHIFTS,
  ...MOVES,
  PSHUFW,
  PALIGNR,
  PINSRW,
  PEXTRW,
  PMOVMSKB,
  EMMS,
];

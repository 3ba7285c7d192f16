/**
 * Shuffles, inserts, extracts and blends that an immediate byte or a register chooses, SSE to SSE4.1.
 * Source: APM vol.4.
 *
 * The immediate becomes byte indices for `swizzle` by arithmetic, so that one handler serves all its values.
 */
import { type Instruction, instruction, type Operand, type Ops } from './instruction.js';
import { three, two } from './operands.js';
import { BYTE_NUMBERS, vectorInstruction } from './sse-int.js';

const LOW_BYTE_NUMBERS = BYTE_NUMBERS & 0xffffffffffffffffn;
const HIGH_BYTE_NUMBERS = BYTE_NUMBERS >> 64n;

/** `value` in each of `count` bytes. */
const bytesOf = (value: number, count: number): bigint =>
  Array.from({ length: count }, (_, index) => BigInt(value) << BigInt(8 * index)).reduce((sum, byte) => sum | byte, 0n);

/**
 * Byte indices for eight bytes of a result: elements of `bytes` bytes, each chosen by two bits of `immediate`, the first
 * of them at bit `from`.
 */
function chosenElements<V, C, X>(ops: Ops<V, C, X>, immediate: V, bytes: number, from: number): V {
  const stride = ops.constant(bytesOf(bytes, bytes));
  const first = ops.constant(LOW_BYTE_NUMBERS & ((1n << BigInt(8 * bytes)) - 1n));
  let indices = ops.constant(0n);
  for (let element = 0; element < 8 / bytes; element++) {
    const choice = ops.and(ops.shr(64, immediate, ops.constant(BigInt(from + 2 * element))), ops.constant(3n));
    const numbers = ops.add(64, ops.mul(64, choice, stride), first);
    indices = ops.or(indices, ops.shl(64, numbers, ops.constant(BigInt(8 * bytes * element))));
  }
  return indices;
}

const chosenDwords = <V, C, X>(ops: Ops<V, C, X>, immediate: V): X =>
  ops.vectorFromLanes(chosenElements(ops, immediate, 4, 0), chosenElements(ops, immediate, 4, 4));

const PSHUFD = instruction({
  mnemonic: 'PSHUFD',
  source: 'APM vol.4, PSHUFD',
  forms: ['66 0F 70 /r: Vdq, Wdq, Ib'],
  feature: 'sse2',
  semantics(ops, insn) {
    const [destination, source, order] = three(insn);
    const value = ops.readVectorAligned(source);
    ops.writeVector(destination, ops.swizzle(value, chosenDwords(ops, ops.read(order))));
  },
});

const PSHUFLW = instruction({
  mnemonic: 'PSHUFLW',
  source: 'APM vol.4, PSHUFLW',
  forms: ['F2 0F 70 /r: Vdq, Wdq, Ib'],
  feature: 'sse2',
  semantics(ops, insn) {
    const [destination, source, order] = three(insn);
    const value = ops.readVectorAligned(source);
    const low = chosenElements(ops, ops.read(order), 2, 0);
    ops.writeVector(destination, ops.swizzle(value, ops.vectorFromLanes(low, ops.constant(HIGH_BYTE_NUMBERS))));
  },
});

const PSHUFHW = instruction({
  mnemonic: 'PSHUFHW',
  source: 'APM vol.4, PSHUFHW',
  forms: ['F3 0F 70 /r: Vdq, Wdq, Ib'],
  feature: 'sse2',
  semantics(ops, insn) {
    const [destination, source, order] = three(insn);
    const value = ops.readVectorAligned(source);
    const high = ops.add(64, chosenElements(ops, ops.read(order), 2, 0), ops.constant(bytesOf(8, 8)));
    ops.writeVector(destination, ops.swizzle(value, ops.vectorFromLanes(ops.constant(LOW_BYTE_NUMBERS), high)));
  },
});

/** Two elements of the destination, then two of the source. */
const SHUFPS = instruction({
  mnemonic: 'SHUFPS',
  source: 'APM vol.4, SHUFPS',
  forms: ['NP 0F C6 /r: Vdq, Wdq, Ib'],
  feature: 'sse',
  semantics(ops, insn) {
    const [destination, source, order] = three(insn);
    const b = ops.readVectorAligned(source);
    const a = ops.readVector(destination);
    const indices = chosenDwords(ops, ops.read(order));
    ops.writeVector(
      destination,
      ops.vectorFromLanes(ops.lane64(ops.swizzle(a, indices), 0), ops.lane64(ops.swizzle(b, indices), 1)),
    );
  },
});

const SHUFPD = instruction({
  mnemonic: 'SHUFPD',
  source: 'APM vol.4, SHUFPD',
  forms: ['66 0F C6 /r: Vdq, Wdq, Ib'],
  feature: 'sse2',
  semantics(ops, insn) {
    const [destination, source, order] = three(insn);
    const b = ops.readVectorAligned(source);
    const a = ops.readVector(destination);
    const immediate = ops.read(order);
    const low = ops.select(ops.bit(immediate, 0), ops.lane64(a, 1), ops.lane64(a, 0));
    const high = ops.select(ops.bit(immediate, 1), ops.lane64(b, 1), ops.lane64(b, 0));
    ops.writeVector(destination, ops.vectorFromLanes(low, high));
  },
});

/** Where a lane of `width` bits with a dynamic number lies: which half, and how far up in it. */
function place<V, C, X>(ops: Ops<V, C, X>, width: number, lane: V): { readonly isHigh: C; readonly shift: V } {
  const perHalf = 64 / width;
  const inHalf = ops.and(lane, ops.constant(BigInt(perHalf - 1)));
  return {
    isHigh: ops.bit(lane, 31 - Math.clz32(perHalf)),
    shift: ops.shl(64, inHalf, ops.constant(BigInt(31 - Math.clz32(width)))),
  };
}

function extractLane<V, C, X>(ops: Ops<V, C, X>, width: number, value: X, lane: V): V {
  const { isHigh, shift } = place(ops, width, lane);
  return ops.truncate(width, ops.shr(64, ops.select(isHigh, ops.lane64(value, 1), ops.lane64(value, 0)), shift));
}

function insertLane<V, C, X>(ops: Ops<V, C, X>, width: number, into: X, lane: V, value: V): X {
  const { isHigh, shift } = place(ops, width, lane);
  const hole = ops.not(64, ops.shl(64, ops.constant((1n << BigInt(width)) - 1n), shift));
  const moved = ops.shl(64, ops.truncate(width, value), shift);
  const [low, high] = [ops.lane64(into, 0), ops.lane64(into, 1)];
  return ops.vectorFromLanes(
    ops.select(isHigh, low, ops.or(ops.and(low, hole), moved)),
    ops.select(isHigh, ops.or(ops.and(high, hole), moved), high),
  );
}

const insert = (mnemonic: string, forms: readonly string[], feature: 'sse2' | 'sse4.1', width?: number): Instruction =>
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms,
    feature,
    semantics(ops, insn) {
      const [destination, source, lane] = three(insn);
      const value = ops.read(source);
      const into = ops.readVector(destination);
      ops.writeVector(destination, insertLane(ops, width ?? source.width, into, ops.read(lane), value));
    },
  });

/** Writes one lane to a general register, zero-extended, or to memory. */
const extract = (mnemonic: string, forms: readonly string[], feature: 'sse2' | 'sse4.1', width?: number): Instruction =>
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms,
    feature,
    semantics(ops, insn) {
      const [destination, source, lane] = three(insn);
      ops.write(destination, extractLane(ops, width ?? destination.width, ops.readVector(source), ops.read(lane)));
    },
  });

const LANE_ACCESS: readonly Instruction[] = [
  insert('PINSRW', ['66 0F C4 /r: Vdq, Rd, Ib', '66 0F C4 /r: Vdq, Mw, Ib'], 'sse2', 16),
  insert('PINSRB', ['66 0F 3A 20 /r: Vdq, Rd, Ib', '66 0F 3A 20 /r: Vdq, Mb, Ib'], 'sse4.1', 8),
  insert('PINSRD', ['66 0F 3A 22 /r: Vdq, Ey, Ib'], 'sse4.1'),
  extract('PEXTRW', ['66 0F C5 /r: Gd, Udq, Ib'], 'sse2', 16),
  extract('PEXTRW', ['66 0F 3A 15 /r: Rd, Vdq, Ib', '66 0F 3A 15 /r: Mw, Vdq, Ib'], 'sse4.1', 16),
  extract('PEXTRB', ['66 0F 3A 14 /r: Rd, Vdq, Ib', '66 0F 3A 14 /r: Mb, Vdq, Ib'], 'sse4.1', 8),
  extract('PEXTRD', ['66 0F 3A 16 /r: Ey, Vdq, Ib'], 'sse4.1'),
  extract('EXTRACTPS', ['66 0F 3A 17 /r: Ed, Vdq, Ib'], 'sse4.1'),
];

/** Immediate bits 7:6 choose the element (of a register), 5:4 its place, 3:0 what is cleared. */
const INSERTPS = instruction({
  mnemonic: 'INSERTPS',
  source: 'APM vol.4, INSERTPS',
  forms: ['66 0F 3A 21 /r: Vdq, Udq, Ib', '66 0F 3A 21 /r: Vdq, Md, Ib'],
  feature: 'sse4.1',
  semantics(ops, insn) {
    const [destination, source, control] = three(insn);
    const from = ops.readVector(source);
    const immediate = ops.read(control);
    const field = (shift: bigint) => ops.and(ops.shr(64, immediate, ops.constant(shift)), ops.constant(3n));
    const element = source.kind === 'mem' ? ops.lane64(from, 0) : extractLane(ops, 32, from, field(6n));
    const inserted = insertLane(ops, 32, ops.readVector(destination), field(4n), element);
    ops.writeVector(destination, ops.vector('v128.andnot', inserted, laneMask(ops, 32, immediate)));
  },
});

/** All ones in the lanes whose bit of `bits` is set. */
function laneMask<V, C, X>(ops: Ops<V, C, X>, width: number, bits: V): X {
  const ones = ops.constant((1n << BigInt(width)) - 1n);
  const half = (first: number): V => {
    let mask = ops.constant(0n);
    for (let lane = 0; lane < 64 / width; lane++) {
      const chosen = ops.select(ops.bit(bits, first + lane), ones, ops.constant(0n));
      mask = ops.or(mask, ops.shl(64, chosen, ops.constant(BigInt(width * lane))));
    }
    return mask;
  };
  return ops.vectorFromLanes(half(0), half(64 / width));
}

/** `b` where the mask has ones, else `a`. */
const blend = <V, C, X>(ops: Ops<V, C, X>, a: X, b: X, mask: X): X =>
  ops.vector('v128.or', ops.vector('v128.andnot', a, mask), ops.vector('v128.and', b, mask));

const BLENDS: readonly Instruction[] = (
  [
    ['BLENDPS', '66 0F 3A 0C', 32],
    ['BLENDPD', '66 0F 3A 0D', 64],
    ['PBLENDW', '66 0F 3A 0E', 16],
  ] as const
).map(([mnemonic, form, width]) =>
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [`${form} /r: Vdq, Wdq, Ib`],
    feature: 'sse4.1',
    semantics(ops, insn) {
      const [destination, source, choice] = three(insn);
      const b = ops.readVectorAligned(source);
      const mask = laneMask(ops, width, ops.read(choice));
      ops.writeVector(destination, blend(ops, ops.readVector(destination), b, mask));
    },
  }),
);

/** The signs of the lanes of XMM0 choose. */
const VARIABLE_BLENDS: readonly Instruction[] = (
  [
    ['PBLENDVB', '66 0F 38 10', 'i8x16'],
    ['BLENDVPS', '66 0F 38 14', 'i32x4'],
    ['BLENDVPD', '66 0F 38 15', 'i64x2'],
  ] as const
).map(([mnemonic, form, lanes]) =>
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [`${form} /r: Vdq, Wdq, XMM0`],
    feature: 'sse4.1',
    semantics(ops, insn) {
      const [destination, source, choice] = three(insn);
      const b = ops.readVectorAligned(source);
      const mask = ops.vector(`${lanes}.gt_s`, ops.vectorConstant(0n), ops.readVector(choice));
      ops.writeVector(destination, blend(ops, ops.readVector(destination), b, mask));
    },
  }),
);

/** Bytes from `count` on of the destination above the source. */
const PALIGNR = instruction({
  mnemonic: 'PALIGNR',
  source: 'APM vol.4, PALIGNR',
  forms: ['66 0F 3A 0F /r: Vdq, Wdq, Ib'],
  feature: 'ssse3',
  semantics(ops, insn) {
    const [destination, source, countOperand] = three(insn);
    const low = ops.readVectorAligned(source);
    const high = ops.readVector(destination);
    const count = clampedCount(ops, countOperand, 32n);
    const indices = ops.vector('i8x16.add', ops.vectorConstant(BYTE_NUMBERS), ops.splat('i8x16', count));
    const inHigh = ops.vector('i8x16.sub', indices, ops.vectorConstant(bytesOf(16, 16)));
    ops.writeVector(destination, ops.vector('v128.or', ops.swizzle(low, indices), ops.swizzle(high, inHigh)));
  },
});

function clampedCount<V, C, X>(ops: Ops<V, C, X>, operand: Operand, limit: bigint): V {
  const count = ops.read(operand);
  return ops.select(ops.lessUnsigned(count, ops.constant(limit)), count, ops.constant(limit));
}

/** An index with its sign set gives zero; otherwise its low four bits count. */
const PSHUFB = vectorInstruction('PSHUFB', '66 0F 38 00', 'ssse3', (ops, a, b) =>
  ops.swizzle(a, ops.vector('v128.and', b, ops.vectorConstant(bytesOf(0x8f, 16)))),
);

/**
 * Eight sums of absolute differences: four bytes of the source, chosen by immediate bits 1:0, against each four bytes in
 * a row of the destination from byte 0 or 4 on, chosen by bit 2.
 */
const MPSADBW = instruction({
  mnemonic: 'MPSADBW',
  source: 'APM vol.4, MPSADBW',
  forms: ['66 0F 3A 42 /r: Vdq, Wdq, Ib'],
  feature: 'sse4.1',
  semantics(ops, insn) {
    const [destination, source, control] = three(insn);
    const b = ops.readVectorAligned(source);
    const immediate = ops.read(control);
    const four = extractLane(ops, 32, b, ops.and(immediate, ops.constant(3n)));
    const start = ops.select(ops.bit(immediate, 2), ops.constant(4n), ops.constant(0n));
    const a = ops.readVector(destination);
    let sums = ops.vectorConstant(0n);
    for (let index = 0; index < 4; index++) {
      const from = ops.splat('i8x16', ops.add(8, start, ops.constant(BigInt(index))));
      const window = ops.swizzle(a, ops.vector('i8x16.add', ops.vectorConstant(BYTE_NUMBERS), from));
      const byte = ops.truncate(8, ops.shr(64, four, ops.constant(BigInt(8 * index))));
      const difference = ops.vector(
        'i16x8.sub',
        ops.vector('i16x8.extend_low_i8x16_u', window),
        ops.splat('i16x8', byte),
      );
      sums = ops.vector('i16x8.add', sums, ops.vector('i16x8.abs', difference));
    }
    ops.writeVector(destination, sums);
  },
});

/** The smallest word, and its number above it. */
const PHMINPOSUW = instruction({
  mnemonic: 'PHMINPOSUW',
  source: 'APM vol.4, PHMINPOSUW',
  forms: ['66 0F 38 41 /r: Vdq, Wdq'],
  feature: 'sse4.1',
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const value = ops.readVectorAligned(source);
    const word = (index: number) =>
      ops.truncate(16, ops.shr(64, ops.lane64(value, index < 4 ? 0 : 1), ops.constant(BigInt(16 * (index % 4)))));
    let least = word(0);
    let position = ops.constant(0n);
    for (let index = 1; index < 8; index++) {
      const candidate = word(index);
      const isLess = ops.lessUnsigned(candidate, least);
      least = ops.select(isLess, candidate, least);
      position = ops.select(isLess, ops.constant(BigInt(index)), position);
    }
    ops.writeVector(destination, ops.vectorFromLow(ops.or(ops.shl(64, position, ops.constant(16n)), least)));
  },
});

export const SSE_SHUFFLE_INSTRUCTIONS: readonly Instruction[] = [
  PSHUFD,
  PSHUFLW,
  PSHUFHW,
  SHUFPS,
  SHUFPD,
  ...LANE_ACCESS,
  INSERTPS,
  ...BLENDS,
  ...VARIABLE_BLENDS,
  PALIGNR,
  PSHUFB,
  MPSADBW,
  PHMINPOSUW,
];

/**
 * Lane-wise vector operations over 128-bit bigints, by the names that WebAssembly gives them: the reference meaning of
 * `Ops.vector`. Source: APM vol.4 for the instructions that use them.
 */
import type { VectorOperation, VectorShift } from './instruction.js';

const MASK128 = (1n << 128n) - 1n;

/** The lanes of `value`, lowest first, unsigned. */
export function lanesOf(value: bigint, width: number): bigint[] {
  const lanes: bigint[] = [];
  for (let at = 0; at < 128; at += width) lanes.push(BigInt.asUintN(width, value >> BigInt(at)));
  return lanes;
}

/** The inverse of `lanesOf`; lanes are cut to `width`. */
export function fromLanes(lanes: readonly bigint[], width: number): bigint {
  return lanes.reduce((value, lane, index) => value | (BigInt.asUintN(width, lane) << BigInt(index * width)), 0n);
}

type LaneFunction = (a: bigint, b: bigint, width: number) => bigint;

const signed = (width: number, value: bigint): bigint => BigInt.asIntN(width, value);
const allOnes = (width: number, condition: boolean): bigint => (condition ? (1n << BigInt(width)) - 1n : 0n);
const clamp = (value: bigint, low: bigint, high: bigint): bigint => (value < low ? low : value > high ? high : value);
const clampSigned = (width: number, value: bigint): bigint =>
  clamp(value, -(1n << BigInt(width - 1)), (1n << BigInt(width - 1)) - 1n);
const clampUnsigned = (width: number, value: bigint): bigint => clamp(value, 0n, (1n << BigInt(width)) - 1n);

const LANE_FUNCTIONS: Readonly<Record<string, LaneFunction>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  add_sat_s: (a, b, w) => clampSigned(w, signed(w, a) + signed(w, b)),
  add_sat_u: (a, b, w) => clampUnsigned(w, a + b),
  sub_sat_s: (a, b, w) => clampSigned(w, signed(w, a) - signed(w, b)),
  sub_sat_u: (a, b, w) => clampUnsigned(w, a - b),
  min_s: (a, b, w) => (signed(w, a) < signed(w, b) ? a : b),
  max_s: (a, b, w) => (signed(w, a) > signed(w, b) ? a : b),
  min_u: (a, b) => (a < b ? a : b),
  max_u: (a, b) => (a > b ? a : b),
  avgr_u: (a, b) => (a + b + 1n) >> 1n,
  eq: (a, b, w) => allOnes(w, a === b),
  abs: (a, _, w) => (signed(w, a) < 0n ? -signed(w, a) : a),
  neg: (a) => -a,
  gt_s: (a, b, w) => allOnes(w, signed(w, a) > signed(w, b)),
};

const LANE_WIDTHS: Readonly<Record<string, number>> = { i8x16: 8, i16x8: 16, i32x4: 32, i64x2: 64 };

/** @param b ignored by `v128.not`. */
export function vectorOperation(operation: VectorOperation, a: bigint, b: bigint): bigint {
  const [shape, name] = operation.split('.') as [string, string];
  if (shape === 'v128') return bitwise(name, a, b);
  const width = LANE_WIDTHS[shape] as number;
  const lane = LANE_FUNCTIONS[name];
  if (lane !== undefined) {
    const other = lanesOf(b, width);
    return fromLanes(
      lanesOf(a, width).map((value, index) => lane(value, other[index] as bigint, width)),
      width,
    );
  }
  if (name.startsWith('narrow')) return narrow(width, name.endsWith('_s'), a, b);
  if (name.startsWith('extmul')) return extendedMultiply(width, name.includes('low'), name.endsWith('_s'), a, b);
  if (name.startsWith('extend_')) return extend(width, name.includes('low'), name.endsWith('_s'), a);
  if (name.startsWith('extadd')) return pairwiseSums(width, a);
  return dotProduct(a, b);
}

/** The low or high half of the lanes, widened to `width`. */
function extend(width: number, low: boolean, isSigned: boolean, a: bigint): bigint {
  const half = width / 2;
  const lanes = lanesOf(low ? a : a >> 64n, half).slice(0, 64 / half);
  return fromLanes(
    lanes.map((lane) => (isSigned ? signed(half, lane) : lane)),
    width,
  );
}

/** Sums of neighbouring unsigned lanes of half the width. */
function pairwiseSums(width: number, a: bigint): bigint {
  const half = lanesOf(a, width / 2);
  return fromLanes(
    half.filter((_, index) => index % 2 === 0).map((lane, index) => lane + (half[2 * index + 1] as bigint)),
    width,
  );
}

function bitwise(name: string, a: bigint, b: bigint): bigint {
  switch (name) {
    case 'and':
      return a & b;
    case 'andnot':
      return a & (b ^ MASK128);
    case 'or':
      return a | b;
    case 'xor':
      return a ^ b;
    default:
      return a ^ MASK128;
  }
}

/** Saturates lanes of twice the width, taken as signed, to `width` bits: those of `a` below those of `b`. */
function narrow(width: number, toSigned: boolean, a: bigint, b: bigint): bigint {
  const wide = [...lanesOf(a, 2 * width), ...lanesOf(b, 2 * width)].map((lane) => signed(2 * width, lane));
  return fromLanes(
    wide.map((lane) => (toSigned ? clampSigned(width, lane) : clampUnsigned(width, lane))),
    width,
  );
}

/** Products of the low or high half of the lanes, each of the full `width`. */
function extendedMultiply(width: number, low: boolean, isSigned: boolean, a: bigint, b: bigint): bigint {
  const half = width / 2;
  const read = (value: bigint): bigint[] =>
    lanesOf(low ? value : value >> 64n, half).map((lane) => (isSigned ? signed(half, lane) : lane));
  const other = read(b);
  return fromLanes(
    read(a)
      .slice(0, 64 / half)
      .map((lane, index) => lane * (other[index] as bigint)),
    width,
  );
}

/** i32x4.dot_i16x8_s: sums of neighbouring products. */
function dotProduct(a: bigint, b: bigint): bigint {
  const other = lanesOf(b, 16);
  const products = lanesOf(a, 16).map((lane, index) => signed(16, lane) * signed(16, other[index] as bigint));
  return fromLanes(
    [0, 2, 4, 6].map((index) => (products[index] as bigint) + (products[index + 1] as bigint)),
    32,
  );
}

/** @param count below the lane width. */
export function vectorShift(operation: VectorShift, a: bigint, count: bigint): bigint {
  const [shape, name] = operation.split('.') as [string, string];
  const width = LANE_WIDTHS[shape] as number;
  return fromLanes(
    lanesOf(a, width).map((lane) =>
      name === 'shl' ? lane << count : name === 'shr_u' ? lane >> count : signed(width, lane) >> count,
    ),
    width,
  );
}

/** Picks bytes of a (0..15) and b (16..31). */
export function shuffleBytes(a: bigint, b: bigint, indices: readonly number[]): bigint {
  const bytes = [...lanesOf(a, 8), ...lanesOf(b, 8)];
  return fromLanes(
    indices.map((index) => bytes[index] as bigint),
    8,
  );
}

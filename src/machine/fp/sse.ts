/**
 * SSE, SSE2 and SSE4.1 floating-point operations on one element, with the MXCSR flags they raise.
 *
 * Source: APM vol.1 §4.4.8 Floating-Point Number Encodings (Table 4-5, NaN Results), §4.10.2 SIMD Floating-Point
 * Exception Causes, §4.10.3 SIMD Floating-Point Exception Priority; APM vol.4, the instruction pages.
 *
 * Order within an element, as in §4.10.3: SNaN operand (IE), QNaN operand (no exception), other invalid operations
 * (IE) and zero-divide (ZE), denormal operand (DE), then the result with OE, UE and PE. The first four are found
 * before computing: when one of them is unmasked nothing is computed and no post-computation flag is raised.
 *
 * Invariants: operands and results are bit patterns of the element's width, unsigned. Operations never throw; after
 * an unmasked exception (`env.flags & ~env.masks`) the returned value is meaningless and must not be written.
 */

import { addExact, divideExact, multiplyExact, squareRootExact } from './exact.js';
import {
  convertNaN,
  F16,
  F32,
  F64,
  type FloatFormat,
  infinity,
  isNaNKind,
  quiet,
  type Unpacked,
  unpack,
  zero,
} from './format.js';
import { doubleShortcuts, type Shortcuts, singleShortcuts } from './native.js';
import {
  DE,
  DOWN,
  type FloatEnvironment,
  IE,
  PE,
  POST_COMPUTATION,
  PRE_COMPUTATION,
  type RoundingMode,
  roundOff,
  roundPack,
  TRUNCATE,
  ZE,
} from './rounding.js';

export type Relation = 'less' | 'equal' | 'greater' | 'unordered';
/** Predicates of CMPPS and relatives by their imm8, 0 to 31; SSE has the first eight. */
export type ComparePredicate = number;
export type IntegerWidth = 32 | 64;

type Unary = (a: bigint, env: FloatEnvironment) => bigint;
type Binary = (a: bigint, b: bigint, env: FloatEnvironment) => bigint;

/** The operations of one format; `a` is the destination operand, `b` the source. */
export interface FloatArithmetic {
  readonly format: FloatFormat;
  readonly add: Binary;
  readonly sub: Binary;
  readonly mul: Binary;
  readonly div: Binary;
  readonly sqrt: Unary;
  /** FMA: x·y + z with one rounding. */
  readonly fused: (operands: readonly [bigint, bigint, bigint], signs: FusedSigns, env: FloatEnvironment) => bigint;
  readonly min: Binary;
  readonly max: Binary;
  /** CMPccxx: all ones or zero. */
  readonly compare: (predicate: ComparePredicate, a: bigint, b: bigint, env: FloatEnvironment) => bigint;
  /** COMISx: IE for any NaN. */
  readonly comi: (a: bigint, b: bigint, env: FloatEnvironment) => Relation;
  /** UCOMISx: IE for an SNaN only. */
  readonly ucomi: (a: bigint, b: bigint, env: FloatEnvironment) => Relation;
  /** CVTx2SI and CVTx2DQ: two's complement pattern, rounded by MXCSR.RC. */
  readonly toInt: (a: bigint, width: IntegerWidth, env: FloatEnvironment) => bigint;
  /** CVTTx2SI and CVTTx2DQ: two's complement pattern, truncated. */
  readonly toIntTruncated: (a: bigint, width: IntegerWidth, env: FloatEnvironment) => bigint;
  /** CVTSI2x and CVTDQ2x, from a two's complement pattern. */
  readonly fromInt: (pattern: bigint, width: IntegerWidth, env: FloatEnvironment) => bigint;
  /** ROUNDxx: an integral value of the same format; `imm8` chooses rounding mode and whether PE is suppressed. */
  readonly round: (a: bigint, imm8: number, env: FloatEnvironment) => bigint;
}

/** Which terms of x·y + z change their sign. */
export interface FusedSigns {
  readonly negatesProduct: boolean;
  readonly subtracts: boolean;
}

/** What an operation returns when an unmasked exception ends it before there is a result. */
const NO_RESULT = 0n;

export const single: FloatArithmetic = arithmetic(F32, singleShortcuts);
export const double: FloatArithmetic = arithmetic(F64, doubleShortcuts);

function arithmetic(format: FloatFormat, shortcuts: Shortcuts): FloatArithmetic {
  const read: (bits: bigint, env: FloatEnvironment) => Unpacked = (bits, env) => operand(format, bits, env);
  return {
    format,
    add: (a, b, env) => shortcuts.add(a, b, env) ?? sum(format, read(a, env), read(b, env), false, env),
    sub: (a, b, env) => shortcuts.sub(a, b, env) ?? sum(format, read(a, env), read(b, env), true, env),
    mul: (a, b, env) => shortcuts.mul(a, b, env) ?? product(format, read(a, env), read(b, env), env),
    div: (a, b, env) => shortcuts.div(a, b, env) ?? quotient(format, read(a, env), read(b, env), env),
    sqrt: (a, env) => squareRoot(format, read(a, env), env),
    fused: ([x, y, z], signs, env) => fusedSum(format, [read(x, env), read(y, env), read(z, env)], signs, env),
    min: (a, b, env) => select(format, 'less', read(a, env), read(b, env), env),
    max: (a, b, env) => select(format, 'greater', read(a, env), read(b, env), env),
    compare: (predicate, a, b, env) => {
      const { holds, signalsQNaN } = PREDICATES[predicate & 15] as Predicate;
      // The upper sixteen differ from the lower ones in what a QNaN raises.
      const relation = relate(format, read(a, env), read(b, env), signalsQNaN !== (predicate & 16) > 0, env);
      return holds.includes(relation) ? (1n << BigInt(format.width)) - 1n : 0n;
    },
    comi: (a, b, env) => relate(format, read(a, env), read(b, env), true, env),
    ucomi: (a, b, env) => relate(format, read(a, env), read(b, env), false, env),
    toInt: (a, width, env) => toInteger(read(a, env), width, env.rounding, env),
    toIntTruncated: (a, width, env) => toInteger(read(a, env), width, TRUNCATE, env),
    fromInt: (pattern, width, env) => fromInteger(format, BigInt.asIntN(width, pattern), env),
    round: (a, imm8, env) => roundToIntegral(format, read(a, env), imm8, env),
  };
}

/** CVTSS2SD, CVTPS2PD: always exact. */
export function singleToDouble(a: bigint, env: FloatEnvironment): bigint {
  return convert(F32, F64, operand(F32, a, env), env);
}

/** CVTSD2SS, CVTPD2PS. */
export function doubleToSingle(a: bigint, env: FloatEnvironment): bigint {
  return convert(F64, F32, operand(F64, a, env), env);
}

/**
 * Runs one packed instruction: `element(i, env)` for each element in turn. An unmasked pre-computation exception of
 * any element keeps the whole instruction from computing, so no element's post-computation flags are raised then.
 * Source: APM vol.1 §4.10.3 SIMD Floating-Point Exception Priority.
 */
export function forElements(
  count: number,
  env: FloatEnvironment,
  element: (index: number, env: FloatEnvironment) => bigint,
): bigint[] {
  const own = { ...env, flags: 0 };
  const results = Array.from({ length: count }, (_, index) => element(index, own));
  const stopped = (own.flags & ~own.masks & PRE_COMPUTATION) !== 0;
  env.flags |= stopped ? own.flags & ~POST_COMPUTATION : own.flags;
  return results;
}

/** VCVTPH2PS: always exact; a denormal raises nothing and stays what it is. */
export function halfToSingle(a: bigint, env: FloatEnvironment): bigint {
  const x = unpack(F16, a);
  return x.kind === 'denormal' ? roundPack(F32, { ...x, sticky: false }, env) : convert(F16, F32, x, env);
}

/** VCVTPS2PH: imm8 bits 0–1 rounding mode, bit 2 MXCSR.RC instead; results are never flushed to zero. */
export function singleToHalf(a: bigint, env: FloatEnvironment, imm8: number): bigint {
  const rounding = (imm8 & 4) !== 0 ? env.rounding : ((imm8 & 3) as RoundingMode);
  const own = { ...env, rounding, ftz: false };
  const result = convert(F32, F16, operand(F32, a, env), own);
  env.flags |= own.flags;
  return result;
}

/** Unpacks a source operand; with DAZ a denormal is a zero of its sign from here on. */
function operand(format: FloatFormat, bits: bigint, env: FloatEnvironment): Unpacked {
  const x = unpack(format, bits);
  if (x.kind !== 'denormal' || !env.daz) return x;
  return { ...x, bits: zero(format, x.negative), kind: 'zero', significand: 0n };
}

/** The NaN that results from NaN operands: the first one, as a QNaN. */
function propagateNaN(format: FloatFormat, x: Unpacked, y: Unpacked, env: FloatEnvironment): bigint {
  if (x.kind === 'snan' || y.kind === 'snan') env.flags |= IE;
  return quiet(format, isNaNKind(x) ? x.bits : y.bits);
}

function invalid(format: FloatFormat, env: FloatEnvironment): bigint {
  env.flags |= IE;
  return format.indefinite;
}

/** Raises DE for denormal operands. @returns whether that ends the operation. */
function stopsOnDenormal(x: Unpacked, y: Unpacked, env: FloatEnvironment): boolean {
  if (x.kind !== 'denormal' && y.kind !== 'denormal') return false;
  env.flags |= DE;
  return (env.masks & DE) === 0;
}

function sum(format: FloatFormat, x: Unpacked, y: Unpacked, subtract: boolean, env: FloatEnvironment): bigint {
  if (isNaNKind(x) || isNaNKind(y)) return propagateNaN(format, x, y, env);
  const yNegative = y.negative !== subtract;
  if (x.kind === 'infinity' && y.kind === 'infinity' && x.negative !== yNegative) return invalid(format, env);
  if (stopsOnDenormal(x, y, env)) return NO_RESULT;
  if (x.kind === 'infinity') return x.bits;
  if (y.kind === 'infinity') return infinity(format, yNegative);
  const exact = addExact(x, { ...y, negative: yNegative });
  if (exact.significand !== 0n) return roundPack(format, exact, env);
  // Zeros of one sign keep it; any other exact zero is +0, or −0 when rounding down.
  return zero(format, x.negative === yNegative ? x.negative : env.rounding === DOWN);
}

function product(format: FloatFormat, x: Unpacked, y: Unpacked, env: FloatEnvironment): bigint {
  if (isNaNKind(x) || isNaNKind(y)) return propagateNaN(format, x, y, env);
  const infinite = x.kind === 'infinity' || y.kind === 'infinity';
  const zeroFactor = x.kind === 'zero' || y.kind === 'zero';
  if (infinite && zeroFactor) return invalid(format, env);
  if (stopsOnDenormal(x, y, env)) return NO_RESULT;
  const negative = x.negative !== y.negative;
  if (infinite) return infinity(format, negative);
  if (zeroFactor) return zero(format, negative);
  return roundPack(format, multiplyExact(x, y), env);
}

/**
 * The addition of an exact product. The first NaN of multiplicand, multiplier and addend wins, and an invalid product
 * raises nothing beside it.
 * Source: APM vol.1 §4.4.8 (NaN Results), §4.12 Fused Multiply-Add; APM vol.4, VFMADDPD.
 */
function fusedSum(
  format: FloatFormat,
  [x, y, z]: readonly [Unpacked, Unpacked, Unpacked],
  { negatesProduct, subtracts }: FusedSigns,
  env: FloatEnvironment,
): bigint {
  const nan = [x, y, z].find(isNaNKind);
  if (nan !== undefined) {
    if ([x, y, z].some(({ kind }) => kind === 'snan')) env.flags |= IE;
    return quiet(format, nan.bits);
  }
  const infinite = x.kind === 'infinity' || y.kind === 'infinity';
  const negative = (x.negative !== y.negative) !== negatesProduct;
  const addendNegative = z.negative !== subtracts;
  if (infinite && (x.kind === 'zero' || y.kind === 'zero')) return invalid(format, env);
  if (infinite && z.kind === 'infinity' && negative !== addendNegative) return invalid(format, env);
  if (stopsOnDenormal(x, y, env) || stopsOnDenormal(z, z, env)) return NO_RESULT;
  if (infinite) return infinity(format, negative);
  if (z.kind === 'infinity') return infinity(format, addendNegative);
  const exact = addExact({ ...multiplyExact(x, y), negative }, { ...z, negative: addendNegative });
  if (exact.significand !== 0n) return roundPack(format, exact, env);
  return zero(format, negative === addendNegative ? negative : env.rounding === DOWN);
}

function quotient(format: FloatFormat, x: Unpacked, y: Unpacked, env: FloatEnvironment): bigint {
  if (isNaNKind(x) || isNaNKind(y)) return propagateNaN(format, x, y, env);
  if (x.kind === y.kind && (x.kind === 'infinity' || x.kind === 'zero')) return invalid(format, env);
  const negative = x.negative !== y.negative;
  if (y.kind === 'zero' && x.kind !== 'infinity') {
    env.flags |= ZE;
    return infinity(format, negative);
  }
  if (stopsOnDenormal(x, y, env)) return NO_RESULT;
  if (x.kind === 'infinity') return infinity(format, negative);
  if (x.kind === 'zero' || y.kind === 'infinity') return zero(format, negative);
  return roundPack(format, divideExact(x, y, format.precision), env);
}

function squareRoot(format: FloatFormat, x: Unpacked, env: FloatEnvironment): bigint {
  if (isNaNKind(x)) return propagateNaN(format, x, x, env);
  if (x.kind === 'zero') return x.bits;
  if (x.negative) return invalid(format, env);
  if (stopsOnDenormal(x, x, env)) return NO_RESULT;
  if (x.kind === 'infinity') return x.bits;
  return roundPack(format, squareRootExact(x, format.precision), env);
}

/** MIN and MAX: the source operand unless both are numbers and the destination operand is strictly `wanted`. */
function select(
  format: FloatFormat,
  wanted: 'less' | 'greater',
  x: Unpacked,
  y: Unpacked,
  env: FloatEnvironment,
): bigint {
  return relate(format, x, y, true, env) === wanted ? x.bits : y.bits;
}

/** Compares two operands, raising IE for an SNaN, or for any NaN with `signalsQNaN`, else DE for denormals. */
function relate(format: FloatFormat, x: Unpacked, y: Unpacked, signalsQNaN: boolean, env: FloatEnvironment): Relation {
  if (isNaNKind(x) || isNaNKind(y)) {
    if (signalsQNaN || x.kind === 'snan' || y.kind === 'snan') env.flags |= IE;
    return 'unordered';
  }
  stopsOnDenormal(x, y, env);
  const a = orderKey(format, x);
  const b = orderKey(format, y);
  if (a === b) return 'equal';
  return a < b ? 'less' : 'greater';
}

/** Numbers of one format order as these integers do, both zeros being 0. */
function orderKey(format: FloatFormat, x: Unpacked): bigint {
  return x.negative ? format.signMask - x.bits : x.bits;
}

interface Predicate {
  readonly holds: readonly Relation[];
  readonly signalsQNaN: boolean;
}

const predicate = (signalsQNaN: boolean, ...holds: readonly Relation[]): Predicate => ({ holds, signalsQNaN });

/** Source: APM vol.4, VCMPPD, table of comparison predicates. */
const PREDICATES: readonly Predicate[] = [
  predicate(false, 'equal'), // EQ
  predicate(true, 'less'), // LT
  predicate(true, 'less', 'equal'), // LE
  predicate(false, 'unordered'), // UNORD
  predicate(false, 'less', 'greater', 'unordered'), // NEQ
  predicate(true, 'equal', 'greater', 'unordered'), // NLT
  predicate(true, 'greater', 'unordered'), // NLE
  predicate(false, 'less', 'equal', 'greater'), // ORD
  predicate(false, 'equal', 'unordered'), // EQ_UQ
  predicate(true, 'less', 'unordered'), // NGE
  predicate(true, 'less', 'equal', 'unordered'), // NGT
  predicate(false), // FALSE
  predicate(false, 'less', 'greater'), // NEQ_OQ
  predicate(true, 'equal', 'greater'), // GE
  predicate(true, 'greater'), // GT
  predicate(false, 'less', 'equal', 'greater', 'unordered'), // TRUE
];

/** Rounds to a two's complement integer; what does not fit is invalid and gives the integer indefinite value. */
function toInteger(x: Unpacked, width: IntegerWidth, rounding: RoundingMode, env: FloatEnvironment): bigint {
  const limit = 1n << BigInt(width - 1);
  if (isNaNKind(x) || x.kind === 'infinity') {
    env.flags |= IE;
    return limit;
  }
  const { significand, inexact } = roundOff({ ...x, sticky: false }, -x.exponent, rounding);
  if (significand > limit || (significand === limit && !x.negative)) {
    env.flags |= IE;
    return limit;
  }
  if (inexact) env.flags |= PE;
  return BigInt.asUintN(width, x.negative ? -significand : significand);
}

function fromInteger(format: FloatFormat, value: bigint, env: FloatEnvironment): bigint {
  if (value === 0n) return 0n;
  const negative = value < 0n;
  return roundPack(format, { negative, exponent: 0, significand: negative ? -value : value, sticky: false }, env);
}

function convert(from: FloatFormat, to: FloatFormat, x: Unpacked, env: FloatEnvironment): bigint {
  if (isNaNKind(x)) {
    if (x.kind === 'snan') env.flags |= IE;
    return convertNaN(from, to, x);
  }
  if (x.kind === 'infinity') return infinity(to, x.negative);
  if (x.kind === 'zero') return zero(to, x.negative);
  if (stopsOnDenormal(x, x, env)) return NO_RESULT;
  return roundPack(to, { ...x, sticky: false }, env);
}

/** ROUNDxx imm8: bits 0–1 rounding mode, bit 2 MXCSR.RC instead, bit 3 suppresses PE. A denormal raises no DE. */
function roundToIntegral(format: FloatFormat, x: Unpacked, imm8: number, env: FloatEnvironment): bigint {
  if (isNaNKind(x)) return propagateNaN(format, x, x, env);
  // Values whose lowest bit is at or above the units are integral: infinities and zeros come here, too.
  if (x.kind === 'infinity' || x.kind === 'zero' || x.exponent >= 0) return x.bits;
  const rounding = (imm8 & 4) !== 0 ? env.rounding : ((imm8 & 3) as RoundingMode);
  const { significand, inexact } = roundOff({ ...x, sticky: false }, -x.exponent, rounding);
  if (inexact && (imm8 & 8) === 0) env.flags |= PE;
  if (significand === 0n) return zero(format, x.negative);
  return roundPack(format, { negative: x.negative, exponent: 0, significand, sticky: false }, env);
}

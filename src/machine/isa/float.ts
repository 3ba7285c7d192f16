/**
 * `Ops.float` on a transaction: reads the controls of MXCSR, computes with `fp/`, adds the flags, raises #XF.
 * Source: APM vol.1 §4.2.2 MXCSR Register, §4.10 SIMD Floating-Point Exceptions; operations: APM vol.4.
 *
 * Invariant: the flags that lead to #XF are in MXCSR when the handler runs, though nothing else of the instruction is.
 */
import type { Transaction } from '../cpu/transaction.js';
import { GuestFault, Vector } from '../faults.js';
import { reciprocalEstimate, reciprocalSqrtEstimate } from '../fp/estimate.js';
import { type FloatEnvironment, PRE_COMPUTATION, type RoundingMode } from '../fp/rounding.js';
import {
  double,
  doubleToSingle,
  type FloatArithmetic,
  forElements,
  halfToSingle,
  type Relation,
  single,
  singleToDouble,
  singleToHalf,
} from '../fp/sse.js';
import { CR4, Flag, R } from '../layout/cpu-state.js';
import type { FloatOperation, FusedOperation } from './instruction.js';
import { fromLanes, lanesOf } from './vector-lanes.js';

const MXCSR_DAZ = 1 << 6;
const MXCSR_FTZ = 1 << 15;
const MXCSR_MASKS_SHIFT = 7;
const MXCSR_ROUNDING_SHIFT = 13;

/** Rounding, masks and treatment of denormals as MXCSR says; no flags yet. */
export function floatEnvironment(tx: Transaction): FloatEnvironment {
  const mxcsr = Number(tx.get(R.mxcsr));
  return {
    rounding: ((mxcsr >> MXCSR_ROUNDING_SHIFT) & 3) as RoundingMode,
    daz: (mxcsr & MXCSR_DAZ) !== 0,
    ftz: (mxcsr & MXCSR_FTZ) !== 0,
    masks: (mxcsr >> MXCSR_MASKS_SHIFT) & 0x3f,
    flags: 0,
  };
}

/**
 * Raises what the parts of one instruction have raised. An unmasked pre-computation exception of one part keeps the
 * others from computing.
 * @throws GuestFault #XF, or #UD while the operating system has not said that it handles #XF.
 */
export function raiseFloat(tx: Transaction, parts: readonly FloatEnvironment[]): void {
  let flags = parts.reduce((all, part) => all | part.flags, 0);
  if (flags === 0) return;
  const stopped = parts.some((part) => (part.flags & ~part.masks & PRE_COMPUTATION) !== 0);
  if (stopped && parts.length > 1) flags &= PRE_COMPUTATION;
  const mxcsr = Number(tx.get(R.mxcsr));
  const flagged = BigInt(mxcsr | flags);
  if ((flags & ~(mxcsr >> MXCSR_MASKS_SHIFT) & 0x3f) === 0) {
    tx.set(R.mxcsr, flagged);
    return;
  }
  tx.setBeforeFault(R.mxcsr, flagged);
  throw new GuestFault((tx.get(R.cr4) & CR4.OSXMMEXCPT) !== 0n ? Vector.XF : Vector.UD);
}

/** Lanes of each shape: what they are, and how many take part. */
const SHAPES = {
  f32x4: { arithmetic: single, width: 32, count: 4 },
  f64x2: { arithmetic: double, width: 64, count: 2 },
  f32: { arithmetic: single, width: 32, count: 1 },
  f64: { arithmetic: double, width: 64, count: 1 },
} as const;
type Shape = keyof typeof SHAPES;
const isShape = (text: string): text is Shape => text in SHAPES;

export function floatOperation(
  env: FloatEnvironment,
  operation: FloatOperation,
  a: bigint,
  b: bigint,
  control: bigint,
): bigint {
  const immediate = Number(control);
  const [shape, name] = operation.split('.') as [string, string];
  const conversion = CONVERSIONS[operation];
  if (conversion !== undefined) return convert(conversion, a, immediate, env);
  if (!isShape(shape)) throw new Error(`unknown floating-point operation ${operation}`);
  const { arithmetic, width, count } = SHAPES[shape];
  const x = lanesOf(a, width);
  const y = lanesOf(b, width);
  const each = (element: (x: bigint, y: bigint, env: FloatEnvironment, index: number) => bigint): bigint =>
    fromLanes(
      forElements(count, env, (index, own) => element(x[index] as bigint, y[index] as bigint, own, index)),
      width,
    );
  switch (name) {
    case 'add':
    case 'sub':
    case 'mul':
    case 'div':
    case 'min':
    case 'max':
      return each(arithmetic[name]);
    case 'sqrt':
      return each((value, _other, own) => arithmetic.sqrt(value, own));
    case 'compare':
      return each((p, q, own) => arithmetic.compare(immediate, p, q, own));
    case 'round':
      return each((value, _other, own) => arithmetic.round(value, immediate, own));
    case 'comi':
    case 'ucomi':
      return RELATION_FLAGS[arithmetic[name](x[0] as bigint, y[0] as bigint, env)];
    case 'addsub':
      return each((p, q, own, index) => (index % 2 === 0 ? arithmetic.sub(p, q, own) : arithmetic.add(p, q, own)));
    case 'hadd':
    case 'hsub':
      return horizontal(name === 'hadd' ? arithmetic.add : arithmetic.sub, [...x, ...y], width, count, env);
    case 'dot':
      return dotProduct(arithmetic, x, y, width, count, immediate, env);
    case 'rcp':
      return each(reciprocalEstimate);
    case 'rsqrt':
      return each(reciprocalSqrtEstimate);
    default:
      throw new Error(`unknown floating-point operation ${operation}`);
  }
}

/** Lanes that alternate: `maddsub` adds in the odd ones, `msubadd` in the even ones. */
export function fusedOperation(
  env: FloatEnvironment,
  operation: FusedOperation,
  a: bigint,
  b: bigint,
  c: bigint,
): bigint {
  const [shape, name] = operation.split('.') as [Shape, string];
  const { arithmetic, width, count } = SHAPES[shape];
  const [x, y, z] = [lanesOf(a, width), lanesOf(b, width), lanesOf(c, width)];
  const negatesProduct = name.startsWith('n');
  const subtracts = (index: number): boolean => {
    if (name === 'maddsub') return index % 2 === 0;
    if (name === 'msubadd') return index % 2 === 1;
    return name.endsWith('sub');
  };
  return fromLanes(
    forElements(count, env, (index, own) =>
      arithmetic.fused(
        [x[index] as bigint, y[index] as bigint, z[index] as bigint],
        { negatesProduct, subtracts: subtracts(index) },
        own,
      ),
    ),
    width,
  );
}

/** COMISx: unordered sets all three. Source: APM vol.4, COMISS. */
const RELATION_FLAGS: Readonly<Record<Relation, bigint>> = {
  unordered: Flag.ZF | Flag.PF | Flag.CF,
  greater: 0n,
  less: Flag.CF,
  equal: Flag.ZF,
};

function horizontal(
  combine: FloatArithmetic['add'],
  lanes: readonly bigint[],
  width: number,
  count: number,
  env: FloatEnvironment,
): bigint {
  return fromLanes(
    forElements(count, env, (index, own) => combine(lanes[2 * index] as bigint, lanes[2 * index + 1] as bigint, own)),
    width,
  );
}

/** Products of the lanes that immediate bits 7:4 choose, their sum in the lanes that bits 3:0 choose (DPPS, DPPD). */
function dotProduct(
  arithmetic: FloatArithmetic,
  x: readonly bigint[],
  y: readonly bigint[],
  width: number,
  count: number,
  immediate: number,
  env: FloatEnvironment,
): bigint {
  const chosen = (index: number): boolean => ((immediate >> (4 + index)) & 1) !== 0;
  let terms = forElements(count, env, (index, own) =>
    chosen(index) ? arithmetic.mul(x[index] as bigint, y[index] as bigint, own) : 0n,
  );
  while (terms.length > 1) {
    if ((env.flags & ~env.masks) !== 0) return 0n;
    const pairs = terms;
    terms = forElements(pairs.length / 2, env, (index, own) =>
      arithmetic.add(pairs[2 * index] as bigint, pairs[2 * index + 1] as bigint, own),
    );
  }
  const sum = terms[0] as bigint;
  return fromLanes(
    Array.from({ length: count }, (_, index) => (((immediate >> index) & 1) !== 0 ? sum : 0n)),
    width,
  );
}

interface Conversion {
  readonly from: number;
  readonly to: number;
  readonly count: number;
  readonly element: (value: bigint, env: FloatEnvironment, immediate: number) => bigint;
}

/** Lanes of the result beyond `count` are zero. */
function convert(
  { from, to, count, element }: Conversion,
  a: bigint,
  immediate: number,
  env: FloatEnvironment,
): bigint {
  const lanes = lanesOf(a, from);
  return fromLanes(
    forElements(count, env, (index, own) => element(lanes[index] as bigint, own, immediate)),
    to,
  );
}

const conversion = (from: number, to: number, count: number, element: Conversion['element']): Conversion => ({
  from,
  to,
  count,
  element,
});

const CONVERSIONS: Readonly<Partial<Record<FloatOperation, Conversion>>> = {
  'f32x4.promote_f16x4': conversion(16, 32, 4, halfToSingle),
  'f16x4.demote_f32x4': conversion(32, 16, 4, singleToHalf),
  'f64x2.promote_low_f32x4': conversion(32, 64, 2, singleToDouble),
  'f32x4.demote_f64x2': conversion(64, 32, 2, doubleToSingle),
  'f64.promote_f32': conversion(32, 64, 1, singleToDouble),
  'f32.demote_f64': conversion(64, 32, 1, doubleToSingle),
  'f32x4.convert_i32x4': conversion(32, 32, 4, (value, env) => single.fromInt(value, 32, env)),
  'f64x2.convert_low_i32x4': conversion(32, 64, 2, (value, env) => double.fromInt(value, 32, env)),
  'f32.convert_i32': conversion(32, 32, 1, (value, env) => single.fromInt(value, 32, env)),
  'f32.convert_i64': conversion(64, 32, 1, (value, env) => single.fromInt(value, 64, env)),
  'f64.convert_i32': conversion(32, 64, 1, (value, env) => double.fromInt(value, 32, env)),
  'f64.convert_i64': conversion(64, 64, 1, (value, env) => double.fromInt(value, 64, env)),
  'i32x4.toInt_f32x4': conversion(32, 32, 4, (value, env) => single.toInt(value, 32, env)),
  'i32x4.truncate_f32x4': conversion(32, 32, 4, (value, env) => single.toIntTruncated(value, 32, env)),
  'i32x4.toInt_f64x2': conversion(64, 32, 2, (value, env) => double.toInt(value, 32, env)),
  'i32x4.truncate_f64x2': conversion(64, 32, 2, (value, env) => double.toIntTruncated(value, 32, env)),
  'i32.toInt_f32': conversion(32, 32, 1, (value, env) => single.toInt(value, 32, env)),
  'i32.truncate_f32': conversion(32, 32, 1, (value, env) => single.toIntTruncated(value, 32, env)),
  'i64.toInt_f32': conversion(32, 64, 1, (value, env) => single.toInt(value, 64, env)),
  'i64.truncate_f32': conversion(32, 64, 1, (value, env) => single.toIntTruncated(value, 64, env)),
  'i32.toInt_f64': conversion(64, 32, 1, (value, env) => double.toInt(value, 32, env)),
  'i32.truncate_f64': conversion(64, 32, 1, (value, env) => double.toIntTruncated(value, 32, env)),
  'i64.toInt_f64': conversion(64, 64, 1, (value, env) => double.toInt(value, 64, env)),
  'i64.truncate_f64': conversion(64, 64, 1, (value, env) => double.toIntTruncated(value, 64, env)),
};

/** Ops that need no machine: integers, truths and vectors as bigints and booleans, zero-extended from their width. */
import { GuestFault, Vector } from '../faults.js';
import { u64, uN } from '../units.js';
import type { FaultName, VectorMask, VectorOperation, VectorShift } from './instruction.js';
import { fromLanes, lanesOf, shuffleBytes, vectorOperation, vectorShift } from './vector-lanes.js';

const MASK64 = (1n << 64n) - 1n;
const MASK128 = (1n << 128n) - 1n;

/** What the evaluator does with values, whatever they are of. */
export class ValueEvaluator {
  constant(value: bigint): bigint {
    return u64(value);
  }

  // Integers

  add(width: number, a: bigint, b: bigint): bigint {
    return uN(width, a + b);
  }
  sub(width: number, a: bigint, b: bigint): bigint {
    return uN(width, a - b);
  }
  mul(width: number, a: bigint, b: bigint): bigint {
    return uN(width, a * b);
  }
  mulHighUnsigned(width: number, a: bigint, b: bigint): bigint {
    return uN(width, (a * b) >> BigInt(width));
  }
  mulHighSigned(width: number, a: bigint, b: bigint): bigint {
    return uN(width, (BigInt.asIntN(width, a) * BigInt.asIntN(width, b)) >> BigInt(width));
  }
  and(a: bigint, b: bigint): bigint {
    return a & b;
  }
  or(a: bigint, b: bigint): bigint {
    return a | b;
  }
  xor(a: bigint, b: bigint): bigint {
    return a ^ b;
  }
  not(width: number, a: bigint): bigint {
    return uN(width, ~a);
  }
  neg(width: number, a: bigint): bigint {
    return uN(width, -a);
  }
  shl(width: number, a: bigint, count: bigint): bigint {
    return uN(width, a << count);
  }
  shr(_width: number, a: bigint, count: bigint): bigint {
    return a >> count;
  }
  sar(width: number, a: bigint, count: bigint): bigint {
    return uN(width, BigInt.asIntN(width, a) >> count);
  }
  rol(width: number, a: bigint, count: bigint): bigint {
    return uN(width, (a << count) | (a >> (BigInt(width) - count)));
  }
  ror(width: number, a: bigint, count: bigint): bigint {
    return uN(width, (a >> count) | (a << (BigInt(width) - count)));
  }
  signExtend(from: number, to: number, a: bigint): bigint {
    return uN(to, BigInt.asIntN(from, a));
  }
  truncate(width: number, a: bigint): bigint {
    return uN(width, a);
  }
  countLeadingZeros(width: number, a: bigint): bigint {
    return BigInt(a === 0n ? width : width - a.toString(2).length);
  }
  countTrailingZeros(width: number, a: bigint): bigint {
    return a === 0n ? BigInt(width) : BigInt((a & -a).toString(2).length - 1);
  }
  countOnes(_width: number, a: bigint): bigint {
    let count = 0n;
    for (let left = a; left !== 0n; left &= left - 1n) count++;
    return count;
  }
  byteSwap(width: 32 | 64, a: bigint): bigint {
    let swapped = 0n;
    for (let at = 0n; at < BigInt(width); at += 8n) swapped = (swapped << 8n) | ((a >> at) & 0xffn);
    return swapped;
  }

  /** #DE for a divisor of zero, and where the quotient does not fit. Source: APM vol.3, DIV. */
  divideUnsigned(width: number, high: bigint, low: bigint, divisor: bigint): { quotient: bigint; remainder: bigint } {
    const dividend = (high << BigInt(width)) | low;
    if (divisor === 0n || (dividend / divisor) >> BigInt(width) !== 0n) this.fault('DE');
    return { quotient: dividend / divisor, remainder: dividend % divisor };
  }

  /** The same with signs. Source: APM vol.3, IDIV. */
  divideSigned(width: number, high: bigint, low: bigint, divisor: bigint): { quotient: bigint; remainder: bigint } {
    const dividend = (BigInt.asIntN(width, high) << BigInt(width)) | low;
    const by = BigInt.asIntN(width, divisor);
    if (by === 0n || BigInt.asIntN(width, dividend / by) !== dividend / by) this.fault('DE');
    return { quotient: uN(width, dividend / by), remainder: uN(width, dividend % by) };
  }

  // Truth

  isZero(a: bigint): boolean {
    return a === 0n;
  }
  equal(a: bigint, b: bigint): boolean {
    return a === b;
  }
  lessUnsigned(a: bigint, b: bigint): boolean {
    return a < b;
  }
  bit(a: bigint, index: number): boolean {
    return ((a >> BigInt(index)) & 1n) === 1n;
  }
  both(a: boolean, b: boolean): boolean {
    return a && b;
  }
  either(a: boolean, b: boolean): boolean {
    return a || b;
  }
  differ(a: boolean, b: boolean): boolean {
    return a !== b;
  }
  negate(c: boolean): boolean {
    return !c;
  }
  select(c: boolean, a: bigint, b: bigint): bigint {
    return c ? a : b;
  }
  fromBool(c: boolean): bigint {
    return c ? 1n : 0n;
  }
  when(c: boolean, then: () => void, otherwise?: () => void): void {
    if (c) then();
    else otherwise?.();
  }

  // Vectors

  halfOf(a: bigint, half: 0 | 1): bigint {
    return half === 0 ? a & MASK128 : a >> 128n;
  }
  joinHalves(low: bigint, high: bigint): bigint {
    return low | (high << 128n);
  }
  vectorConstant(value: bigint): bigint {
    return value;
  }
  vector(operation: VectorOperation, a: bigint, b = 0n): bigint {
    return vectorOperation(operation, a, b);
  }
  vectorShift(operation: VectorShift, a: bigint, count: bigint): bigint {
    return vectorShift(operation, a, count);
  }
  shuffle(a: bigint, b: bigint, indices: readonly number[]): bigint {
    return shuffleBytes(a, b, indices);
  }
  swizzle(a: bigint, indices: bigint): bigint {
    const bytes = lanesOf(a, 8);
    return fromLanes(
      lanesOf(indices, 8).map((index) => bytes[Number(index)] ?? 0n),
      8,
    );
  }
  vectorMask(operation: VectorMask, a: bigint): bigint {
    const width = { i8x16: 8, i16x8: 16, i32x4: 32, i64x2: 64 }[operation.split('.')[0] as 'i8x16'];
    return lanesOf(a, width).reduce((mask, lane, index) => mask | ((lane >> BigInt(width - 1)) << BigInt(index)), 0n);
  }
  splat(lanes: 'i8x16' | 'i16x8' | 'i32x4' | 'i64x2', value: bigint): bigint {
    const width = { i8x16: 8, i16x8: 16, i32x4: 32, i64x2: 64 }[lanes];
    return fromLanes(new Array<bigint>(128 / width).fill(value), width);
  }
  vectorFromLow(value: bigint): bigint {
    return value;
  }
  lane64(a: bigint, lane: 0 | 1): bigint {
    return lane === 0 ? a & MASK64 : a >> 64n;
  }
  vectorFromLanes(low: bigint, high: bigint): bigint {
    return low | (high << 64n);
  }

  // Faults

  fault(vector: FaultName): never {
    throw new GuestFault(Vector[vector], vector === 'GP' ? 0 : undefined);
  }
  faultWhen(condition: boolean, vector: FaultName): void {
    if (condition) this.fault(vector);
  }
}

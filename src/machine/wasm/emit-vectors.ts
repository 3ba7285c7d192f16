/**
 * Vectors: XMM registers and memory as v128 locals, YMM registers as two of them, and the lane-wise operations, each one
 * WebAssembly instruction.
 */
import type { Operand, VectorMask, VectorOperation, VectorShift } from '../isa/instruction.js';
import { R, slotAddress, xmmSlot, ymmSlot } from '../layout/cpu-state.js';
import { StringEmitter } from './emit-strings.js';
import { NotCompiled, type V, type X } from './emit-values.js';
import { Op } from './module.js';
import { SIMD } from './simd.js';

export abstract class VectorEmitter extends StringEmitter {
  /** The upper halves of 256-bit vectors by the lower ones, which stand for the whole. */
  private readonly upperHalves = new Map<X, X>();

  readVector(operand: Operand): X {
    const address = this.vectorAddress(operand, false);
    const load = (offset: number): X => {
      this.code.get(address).simdMemory(loadOpcode(Math.min(operand.width, 128)), offset);
      return this.vectorResult();
    };
    const low = load(0);
    if (operand.width === 256) this.upperHalves.set(low, load(upperOffset(operand)));
    return low;
  }
  writeVector(operand: Operand, value: X): void {
    const { code } = this;
    const address = this.vectorAddress(operand, true);
    if (operand.width < 128) {
      code.get(address).get(value).simd(SIMD.I64X2_EXTRACT_LANE).op(0);
      this.storeWidth(operand.width);
      return;
    }
    code.get(address).get(value).simdMemory(SIMD.STORE);
    if (operand.width < 256) return;
    code.get(address).get(this.halfOf(value, 1)).simdMemory(SIMD.STORE, upperOffset(operand));
  }
  writeWhole(operand: Operand, value: X): void {
    const { code } = this;
    if (operand.kind !== 'xmm') throw new NotCompiled(`a whole vector register of kind ${operand.kind}`);
    const upper = operand.width === 256 ? this.halfOf(value, 1) : this.vectorConstant(0n);
    const address = this.vectorAddress(operand, true);
    code.get(address).get(value).simdMemory(SIMD.STORE);
    code.get(address).get(upper).simdMemory(SIMD.STORE, upperOffset(operand));
  }
  /** Where the operand lies in the memory, as a local. */
  private vectorAddress(operand: Operand, write: boolean): number {
    if (operand.kind === 'mem') return this.translate(this.effective(), operand.width / 8, write);
    if (operand.kind !== 'xmm') throw new NotCompiled(`a vector operand of kind ${operand.kind}`);
    this.pushRegisterAddress(operand);
    return this.truth();
  }
  clearVectors(part: 'all' | 'upper'): void {
    const { code } = this;
    const zero = this.vectorConstant(0n);
    for (let number = 0; number < (this.current.long ? 16 : 8); number++) {
      for (const slot of part === 'all' ? [xmmSlot(number), ymmSlot(number)] : [ymmSlot(number)]) {
        code.i32(slotAddress(slot)).get(zero).simdMemory(SIMD.STORE);
      }
    }
  }
  halfOf(a: X, half: 0 | 1): X {
    if (half === 0) return a;
    const upper = this.upperHalves.get(a);
    if (upper === undefined) throw new NotCompiled('the upper half of a 128-bit vector');
    return upper;
  }
  joinHalves(low: X, high: X): X {
    this.code.get(low);
    const whole = this.vectorResult();
    this.upperHalves.set(whole, high);
    return whole;
  }
  elementAt(): Operand {
    throw new NotCompiled('vectors of indices');
  }
  jointly(action: () => void): void {
    action();
  }
  readVectorAligned(operand: Operand): X {
    this.requireAligned(operand);
    return this.readVector(operand);
  }
  writeVectorAligned(operand: Operand, value: X): void {
    const { writeAddress } = this;
    if (writeAddress === undefined) {
      this.requireAligned(operand);
      this.writeVector(operand, value);
      return;
    }
    this.writeAddress = undefined;
    this.code.get(writeAddress).get(value).simdMemory(SIMD.STORE);
  }
  protected requireAligned(operand: Operand): void {
    if (operand.kind !== 'mem' || operand.width < 128) return;
    const address = this.effective();
    this.code
      .get(address)
      .i64(BigInt(operand.width / 8 - 1))
      .op(Op.I64_AND, Op.I64_EQZ, Op.I32_EQZ);
    this.assistWhen(this.truth());
  }
  vectorConstant(value: bigint): X {
    this.code.v128(value);
    return this.vectorResult();
  }
  vector(operation: VectorOperation, a: X, b?: X): X {
    const { code } = this;
    code.get(a);
    if (b !== undefined) code.get(b);
    code.simd(SIMD.OPERATIONS[operation]);
    return this.vectorResult();
  }
  vectorShift(operation: VectorShift, a: X, count: V): X {
    this.code.get(a).get(count).op(Op.I32_WRAP_I64).simd(SIMD.SHIFTS[operation]);
    return this.vectorResult();
  }
  shuffle(a: X, b: X, indices: readonly number[]): X {
    this.code
      .get(a)
      .get(b)
      .simd(SIMD.SHUFFLE)
      .op(...indices);
    return this.vectorResult();
  }
  swizzle(a: X, indices: X): X {
    this.code.get(a).get(indices).simd(SIMD.SWIZZLE);
    return this.vectorResult();
  }
  vectorMask(operation: VectorMask, a: X): V {
    this.code.get(a).simd(SIMD.MASKS[operation]).op(Op.I64_EXTEND_I32_U);
    return this.result();
  }
  splat(lanes: 'i8x16' | 'i16x8' | 'i32x4' | 'i64x2', value: V): X {
    this.code.get(value);
    if (lanes !== 'i64x2') this.code.op(Op.I32_WRAP_I64);
    this.code.simd(SIMD.SPLATS[lanes]);
    return this.vectorResult();
  }
  float(): X {
    throw new NotCompiled('floating point');
  }
  fused(): X {
    throw new NotCompiled('floating point');
  }
  readVectorForWrite(operand: Operand): X {
    if (operand.kind !== 'mem' || operand.width !== 128) throw new NotCompiled('read-modify-write of such a vector');
    this.requireAligned(operand);
    this.writeAddress = this.translate(this.effective(), 16, true);
    this.code.get(this.writeAddress).simdMemory(SIMD.LOAD);
    return this.vectorResult();
  }
  vectorFromLow(value: V): X {
    this.code.v128(0n).get(value).simd(SIMD.I64X2_REPLACE_LANE).op(0);
    return this.vectorResult();
  }
  lane64(a: X, lane: 0 | 1): V {
    this.code.get(a).simd(SIMD.I64X2_EXTRACT_LANE).op(lane);
    return this.result();
  }
  vectorFromLanes(low: V, high: V): X {
    const bottom = this.vectorFromLow(low);
    this.code.get(bottom).get(high).simd(SIMD.I64X2_REPLACE_LANE).op(1);
    return this.vectorResult();
  }
}

/** Where bits 255:128 lie: behind the lower half in memory; among the registers they stand apart, in the same order. */
const upperOffset = ({ kind }: Operand): number => (kind === 'mem' ? 16 : slotAddress(R.ymm0) - slotAddress(R.xmm0));

function loadOpcode(width: number): number {
  switch (width) {
    case 128:
      return SIMD.LOAD;
    case 64:
      return SIMD.LOAD64_ZERO;
    case 32:
      return SIMD.LOAD32_ZERO;
    default:
      throw new NotCompiled(`loads ${width} bits as a vector`);
  }
}

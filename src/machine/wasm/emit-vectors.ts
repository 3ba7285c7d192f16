/**
 * Vectors: XMM registers and memory as v128 locals, and the lane-wise operations, each one WebAssembly instruction.
 */
import type { Operand, VectorMask, VectorOperation, VectorShift } from '../isa/instruction.js';
import { R } from '../layout/cpu-state.js';
import { MemoryEmitter } from './emit-memory.js';
import { NotCompiled, UOP, type V, type X } from './emit-values.js';
import { Op } from './module.js';
import { SIMD } from './simd.js';

export abstract class VectorEmitter extends MemoryEmitter {
  readVector(operand: Operand): X {
    const { code } = this;
    if (operand.kind === 'xmm') {
      code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand));
    } else if (operand.kind === 'mem') {
      code.get(this.translate(this.effective(), operand.width / 8, false));
    } else throw new NotCompiled(`a vector operand of kind ${operand.kind}`);
    code.simdMemory(loadOpcode(operand.width));
    return this.vectorResult();
  }
  writeVector(operand: Operand, value: X): void {
    const { code } = this;
    if (operand.kind === 'xmm') {
      code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand));
    } else if (operand.kind === 'mem') {
      code.get(this.translate(this.effective(), operand.width / 8, true));
    } else throw new NotCompiled(`a vector operand of kind ${operand.kind}`);
    code.get(value);
    if (operand.width === 128) {
      code.simdMemory(SIMD.STORE);
      return;
    }
    code.simd(SIMD.I64X2_EXTRACT_LANE).op(0);
    this.storeWidth(operand.width);
  }
  /** The upper halves of the YMM registers stand apart from the lower ones, in the same order. */
  writeWhole(operand: Operand, value: X): void {
    const { code } = this;
    if (operand.kind !== 'xmm' || operand.width > 128)
      throw new NotCompiled(`writes ${operand.width} bits as a vector`);
    code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand)).get(value).simdMemory(SIMD.STORE);
    code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand)).v128(0n);
    code.simdMemory(SIMD.STORE, 8 * (R.ymm0 - R.xmm0));
  }
  halfOf(): X {
    throw new NotCompiled('256-bit vectors');
  }
  joinHalves(): X {
    throw new NotCompiled('256-bit vectors');
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
    this.requireAligned(operand);
    this.writeVector(operand, value);
  }
  protected requireAligned(operand: Operand): void {
    if (operand.kind !== 'mem' || operand.width < 128) return;
    const address = this.effective();
    this.code.get(address).i64(15n).op(Op.I64_AND, Op.I64_EQZ, Op.I32_EQZ);
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
  readVectorForWrite(): X {
    throw new NotCompiled('vector read-modify-write');
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

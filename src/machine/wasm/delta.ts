/** The comparison of the register file with its shadow: what a run changed, as its event carries it. */
import { CPU_BASE, DELTA_ENTRY_BYTES, SLOT_COUNT } from '../layout/cpu-state.js';
import { DELTA_BASE, SHADOW_BASE } from '../layout/linear-memory.js';
import { Code, Op, ValueType } from './module.js';
import { SIMD } from './simd.js';

/** Slots that are compared at once: most runs change few registers. */
const GROUP = 8;

/** Writes (slot: u8, value: u64) for each slot that differs from the shadow, and updates the shadow. */
export function deltaFunction(): Code {
  const code = new Code({ parameters: [], results: [ValueType.I32] });
  const slot = code.local(ValueType.I32);
  const end = code.local(ValueType.I32);
  const at = code.local(ValueType.I32);
  const out = code.local(ValueType.I32);
  const value = code.local(ValueType.I64);
  code.i32(DELTA_BASE).set(out);
  code.loop();
  const nextGroup = code.blockDepth;
  code.get(slot).i32(3).op(Op.I32_SHL).set(at);
  // The last group may reach behind the last slot: that makes it be looked at, and no more.
  for (let offset = 0; offset < 8 * GROUP; offset += 16) {
    code
      .get(at)
      .simdMemory(SIMD.LOAD, CPU_BASE + offset)
      .get(at)
      .simdMemory(SIMD.LOAD, SHADOW_BASE + offset);
    code.simd(SIMD.OPERATIONS['v128.xor']);
    if (offset > 0) code.simd(SIMD.OPERATIONS['v128.or']);
  }
  code.simd(SIMD.ANY_TRUE).if();
  code.get(slot).i32(GROUP).op(Op.I32_ADD).set(end);
  code.loop();
  const nextSlot = code.blockDepth;
  code.get(slot).i32(3).op(Op.I32_SHL).tee(at).memory(Op.I64_LOAD, CPU_BASE).tee(value);
  code.get(at).memory(Op.I64_LOAD, SHADOW_BASE).op(Op.I64_NE).if();
  code.get(out).get(slot).memory(Op.I32_STORE8);
  code.get(out).get(value).memory(Op.I64_STORE, 1);
  code.get(at).get(value).memory(Op.I64_STORE, SHADOW_BASE);
  code.get(out).i32(DELTA_ENTRY_BYTES).op(Op.I32_ADD).set(out);
  code.end();
  code.get(slot).i32(1).op(Op.I32_ADD).tee(slot).get(end).op(Op.I32_LT_U);
  code.get(slot).i32(SLOT_COUNT).op(Op.I32_LT_U).op(Op.I32_AND).brIf(nextSlot);
  code.end();
  code.get(end).i32(GROUP).op(Op.I32_SUB).set(slot);
  code.end();
  code.get(slot).i32(GROUP).op(Op.I32_ADD).tee(slot).i32(SLOT_COUNT).op(Op.I32_LT_U).brIf(nextGroup);
  code.end();
  code.get(out).i32(DELTA_BASE).op(Op.I32_SUB);
  return code;
}

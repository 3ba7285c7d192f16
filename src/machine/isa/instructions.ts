/** All instructions, in one list: what the decoder knows, and what docs/generated tells about. */
import { ARITHMETIC_INSTRUCTIONS } from './arith.js';
import { AVX_DERIVED_INSTRUCTIONS } from './avx.js';
import { AVX_FLOAT_INSTRUCTIONS } from './avx-float.js';
import { AVX_MEMORY_INSTRUCTIONS } from './avx-memory.js';
import { AVX_PERMUTE_INSTRUCTIONS } from './avx-permute.js';
import { AVX_STATE_INSTRUCTIONS } from './avx-state.js';
import { BIT_INSTRUCTIONS } from './bits.js';
import { BMI_INSTRUCTIONS } from './bmi.js';
import { BRANCH_INSTRUCTIONS } from './branch.js';
import { CACHE_INSTRUCTIONS } from './cache.js';
import { CONTROL_INSTRUCTIONS } from './control.js';
import { FAR_INSTRUCTIONS } from './far.js';
import { FLAG_INSTRUCTIONS } from './flag-control.js';
import { FPU_CONTROL_INSTRUCTIONS } from './fpu-control.js';
import { HYPERCALL_INSTRUCTIONS } from './hypercall.js';
import type { Instruction } from './instruction.js';
import { IO_INSTRUCTIONS } from './io.js';
import { LEGACY_INSTRUCTIONS } from './legacy.js';
import { LOGIC_INSTRUCTIONS } from './logic.js';
import { MISCELLANEOUS_INSTRUCTIONS } from './misc.js';
import { MMX_INSTRUCTIONS } from './mmx.js';
import { MMX_CONVERSION_INSTRUCTIONS } from './mmx-convert.js';
import { MOVE_INSTRUCTIONS } from './move.js';
import { PROCESSOR_VALUE_INSTRUCTIONS } from './processor-values.js';
import { SEGMENT_INSTRUCTIONS } from './segment.js';
import { SHA_INSTRUCTIONS } from './sha.js';
import { SHIFT_INSTRUCTIONS } from './shift.js';
import { SSE_CRYPTO_INSTRUCTIONS } from './sse-crypto.js';
import { SSE_FLOAT_INSTRUCTIONS } from './sse-fp.js';
import { SSE_INTEGER_INSTRUCTIONS } from './sse-int.js';
import { SSE_LATER_INTEGER_INSTRUCTIONS } from './sse-int-later.js';
import { SSE_MOVE_INSTRUCTIONS } from './sse-move.js';
import { SSE_SHUFFLE_INSTRUCTIONS } from './sse-shuffle.js';
import { SSE_STRING_INSTRUCTIONS } from './sse-string.js';
import { SSE4A_INSTRUCTIONS } from './sse4a.js';
import { STACK_INSTRUCTIONS } from './stack.js';
import { STRING_INSTRUCTIONS } from './string.js';
import { SVM_INSTRUCTIONS } from './svm.js';
import { SYSTEM_INSTRUCTIONS } from './system.js';
import { TRANSLATION_INSTRUCTIONS } from './translation.js';
import { X87_ARITHMETIC_INSTRUCTIONS } from './x87-arith.js';
import { X87_ENVIRONMENT_INSTRUCTIONS } from './x87-environment.js';
import { X87_MOVE_INSTRUCTIONS } from './x87-move.js';
import { X87_TRANSCENDENTAL_INSTRUCTIONS } from './x87-transcendental.js';
import { XSAVE_INSTRUCTIONS } from './xsave.js';

export const INSTRUCTIONS: readonly Instruction[] = [
  ...ARITHMETIC_INSTRUCTIONS,
  ...LOGIC_INSTRUCTIONS,
  ...SHIFT_INSTRUCTIONS,
  ...BIT_INSTRUCTIONS,
  ...MOVE_INSTRUCTIONS,
  ...STACK_INSTRUCTIONS,
  ...BRANCH_INSTRUCTIONS,
  ...STRING_INSTRUCTIONS,
  ...FLAG_INSTRUCTIONS,
  ...BMI_INSTRUCTIONS,
  ...MISCELLANEOUS_INSTRUCTIONS,
  ...LEGACY_INSTRUCTIONS,
  ...SSE_MOVE_INSTRUCTIONS,
  ...SSE_INTEGER_INSTRUCTIONS,
  ...SSE_LATER_INTEGER_INSTRUCTIONS,
  ...SSE_SHUFFLE_INSTRUCTIONS,
  ...SSE_FLOAT_INSTRUCTIONS,
  ...SSE_STRING_INSTRUCTIONS,
  ...SSE_CRYPTO_INSTRUCTIONS,
  ...SHA_INSTRUCTIONS,
  ...SSE4A_INSTRUCTIONS,
  ...AVX_DERIVED_INSTRUCTIONS,
  ...AVX_PERMUTE_INSTRUCTIONS,
  ...AVX_MEMORY_INSTRUCTIONS,
  ...AVX_FLOAT_INSTRUCTIONS,
  ...AVX_STATE_INSTRUCTIONS,
  ...SYSTEM_INSTRUCTIONS,
  ...FAR_INSTRUCTIONS,
  ...IO_INSTRUCTIONS,
  ...SVM_INSTRUCTIONS,
  ...HYPERCALL_INSTRUCTIONS,
  ...CACHE_INSTRUCTIONS,
  ...CONTROL_INSTRUCTIONS,
  ...TRANSLATION_INSTRUCTIONS,
  ...PROCESSOR_VALUE_INSTRUCTIONS,
  ...FPU_CONTROL_INSTRUCTIONS,
  ...X87_ENVIRONMENT_INSTRUCTIONS,
  ...X87_MOVE_INSTRUCTIONS,
  ...X87_ARITHMETIC_INSTRUCTIONS,
  ...X87_TRANSCENDENTAL_INSTRUCTIONS,
  ...MMX_INSTRUCTIONS,
  ...MMX_CONVERSION_INSTRUCTIONS,
  ...XSAVE_INSTRUCTIONS,
  ...SEGMENT_INSTRUCTIONS,
];

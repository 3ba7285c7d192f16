/**
 * How an instruction is described: its encodings, and its meaning once, against `Ops`, the vocabulary of semantics.
 *
 * A plain instruction has `semantics`, a function that is run with different `Ops`: over bigints it *is* the instruction
 * (`evaluate.ts`, the reference), over WebAssembly locals it writes a handler or a piece of a compiled block
 * (`wasm/emit.ts`). A control-plane instruction has `system` instead: TypeScript on a transaction, never compiled.
 *
 * Rules of a description (they make faults precise and compiled code possible):
 * - nothing is changed before the last step that can fault: read memory, compute, write memory, then registers, flags;
 * - a plain `if` may test what the decoder knows (`insn.width`, operand kinds); guest values are tested with `ops.when`
 *   or `ops.select`;
 * - a description that cannot keep the first rule, or has no use for speed, says `evaluatorOnly`: transactions keep the
 *   rule for it.
 */

import type { InterceptName } from '../svm/intercepts.js';

export type Width = 8 | 16 | 32 | 64;

/** One operand, as the decoder knows it. Which register, which address: see `decode/decode.ts`. */
export interface Operand {
  readonly kind: 'gpr' | 'mem' | 'imm' | 'rel' | 'xmm' | 'mmx' | 'st' | 'segment' | 'control' | 'debug' | 'far';
  /** Bits read or written: 8..64 for integers; for vectors 32 to 256; for x87 values up to 80. */
  readonly width: number;
}

/** What a description may ask of the instruction at hand when it is translated or evaluated. */
export interface Static {
  /** Effective operand size in bits. */
  readonly width: Width;
  /** Effective address size in bits. */
  readonly addressWidth: 16 | 32 | 64;
  /** True in 64-bit mode. */
  readonly long: boolean;
  readonly rep: 'none' | 'rep' | 'repne';
  readonly operands: readonly Operand[];
}

export type ConditionCode =
  | 'o'
  | 'no'
  | 'b'
  | 'ae'
  | 'e'
  | 'ne'
  | 'be'
  | 'a'
  | 's'
  | 'ns'
  | 'p'
  | 'np'
  | 'l'
  | 'ge'
  | 'le'
  | 'g';
/** In the order of the low four opcode bits. */
export const CONDITIONS: readonly ConditionCode[] = [
  'o',
  'no',
  'b',
  'ae',
  'e',
  'ne',
  'be',
  'a',
  's',
  'ns',
  'p',
  'np',
  'l',
  'ge',
  'le',
  'g',
];

export type ArithmeticFlag = 'cf' | 'pf' | 'af' | 'zf' | 'sf' | 'of';

/** Numbers of the general-purpose registers that instructions name implicitly. */
export const Gpr = { RAX: 0, RCX: 1, RDX: 2, RBX: 3, RSP: 4, RBP: 5, RSI: 6, RDI: 7 } as const;

/**
 * The vocabulary. `V` is an integer of up to 64 bits, always zero-extended from its width; `C` is a truth value; `X` is
 * a vector of 128 or 256 bits; where nothing is said, operations take those of 128. Over bigints these are bigint, boolean, bigint; over WebAssembly they are locals.
 */
export interface Ops<V, C, X> {
  constant(value: bigint): V;

  // Operands. `read` and `write` may fault when the operand is memory; `write` merges 8 and 16 bits, extends 32.
  read(operand: Operand): V;
  write(operand: Operand, value: V): void;
  /** For read-modify-write: reads, and faults as the write will. Must be followed by `write` of the same operand. */
  readForWrite(operand: Operand): V;
  /** Effective address without segment base, cut to the address size (LEA). */
  address(operand: Operand): V;
  /** The memory operand moved by `bytes` (signed 64-bit), `width` bits wide; to be read and written like any other. */
  displaced(operand: Operand, bytes: V, width: number): Operand;
  /**
   * Memory that no operand names: at `offset` in DS or its override, cut to the address size ('data': XLAT, MASKMOVDQU),
   * or in SS, cut to the stack's address size ('stack': ENTER).
   */
  load(segment: 'data' | 'stack', width: number, offset: V): V;
  store(segment: 'data' | 'stack', width: number, offset: V, value: V): void;
  readGpr(number: number, width: number): V;
  writeGpr(number: number, width: number, value: V): void;

  // Integers, cut to `width` bits.
  add(width: number, a: V, b: V): V;
  sub(width: number, a: V, b: V): V;
  /** Low half of the product. */
  mul(width: number, a: V, b: V): V;
  mulHighUnsigned(width: number, a: V, b: V): V;
  mulHighSigned(width: number, a: V, b: V): V;
  and(a: V, b: V): V;
  or(a: V, b: V): V;
  xor(a: V, b: V): V;
  not(width: number, a: V): V;
  neg(width: number, a: V): V;
  /** Shifts by `count` < `width`; the caller masks. */
  shl(width: number, a: V, count: V): V;
  shr(width: number, a: V, count: V): V;
  sar(width: number, a: V, count: V): V;
  /** Rotates by `count` < `width`. */
  rol(width: number, a: V, count: V): V;
  ror(width: number, a: V, count: V): V;
  signExtend(from: number, to: number, a: V): V;
  /** The low `width` bits. */
  truncate(width: number, a: V): V;
  /** `width` when `a` is zero. */
  countLeadingZeros(width: number, a: V): V;
  countTrailingZeros(width: number, a: V): V;
  countOnes(width: number, a: V): V;
  byteSwap(width: 32 | 64, a: V): V;
  /** Unsigned division of the double-width high:low. Raises #DE on zero or overflow. */
  divideUnsigned(width: number, high: V, low: V, divisor: V): { quotient: V; remainder: V };
  divideSigned(width: number, high: V, low: V, divisor: V): { quotient: V; remainder: V };

  // Truth.
  isZero(a: V): C;
  equal(a: V, b: V): C;
  lessUnsigned(a: V, b: V): C;
  /** Bit `index` of `a`, a constant index. */
  bit(a: V, index: number): C;
  both(a: C, b: C): C;
  either(a: C, b: C): C;
  differ(a: C, b: C): C;
  negate(c: C): C;
  select(c: C, a: V, b: V): V;
  /** 1 or 0. */
  fromBool(c: C): V;
  /** Runs one side. What a side writes to registers and flags is visible after; values made inside are not. */
  when(c: C, then: () => void, otherwise?: () => void): void;

  // Flags. Each kind defines all six flags, the undefined ones too, so that all tiers agree: see `flags.ts`.
  /** result = a + b (+ carry in). */
  flagsAdd(width: number, a: V, b: V, result: V): void;
  /** result = a - b (- borrow in). */
  flagsSub(width: number, a: V, b: V, result: V): void;
  /** CF = OF = AF = 0; SF, ZF, PF from the result. */
  flagsLogic(width: number, result: V): void;
  /** As flagsAdd with b = 1, CF unchanged. */
  flagsInc(width: number, a: V, result: V): void;
  flagsDec(width: number, a: V, result: V): void;
  /** CF and OF as given, AF = 0; SF, ZF, PF from the result. */
  flagsResult(width: number, result: V, carry: C, overflow: C): void;
  /** Single flags; the others stay. */
  setFlag(flag: ArithmeticFlag, value: C): void;
  flag(flag: ArithmeticFlag): C;
  condition(code: ConditionCode): C;
  /** RFLAGS.DF. */
  directionFlag(): C;
  setDirectionFlag(value: boolean): void;
  /** rFLAGS but for the arithmetic flags. */
  systemFlags(): V;
  /** Clears rFLAGS.IF. */
  clearInterruptFlag(): void;
  /** The six arithmetic flags packed as in RFLAGS bits 7:0 and 11 (others 0), and the way back. */
  arithmeticFlags(): V;
  setArithmeticFlags(value: V): void;

  // Control flow. The last step of a description; without it RIP moves to the next instruction.
  /** Faults as a jump to `target` does; must precede `jump`, and whatever else the instruction changes. */
  requireTarget(target: V): void;
  /** The same for a relative jump, taken when `condition` holds: only where something changes before the jump. */
  requireRelative(operand: Operand, condition?: C): void;
  /** Near jump to an absolute RIP, cut to the operand size in legacy modes. */
  jump(target: V): void;
  /** Relative jump to the operand of kind `rel`. */
  jumpRelative(operand: Operand): void;
  jumpRelativeWhen(condition: C, operand: Operand): void;
  nextRip(): V;

  // Stack, at SS:rSP with the stack's own address size. The pointer moves last.
  push(width: number, value: V): void;
  /** Reads `width` bits at offset `bytes` above the top; the pointer stays. */
  peek(width: number, bytes: number): V;
  /** Moves the stack pointer up by `bytes` (down when negative). */
  moveStack(bytes: V): void;

  // String operands: seg:[rSI] and ES:[rDI] with the effective address size. One element; REP is done around it.
  loadSource(width: number): V;
  loadDestination(width: number): V;
  storeDestination(width: number, value: V): void;
  /** Moves rSI or rDI by the element, by DF. */
  advance(register: 'source' | 'destination', width: number): void;

  // Vectors (XMM and YMM registers and memory). Operand widths of 32 and 64 read the low part, zero-extended.
  readVector(operand: Operand): X;
  /** Writes the low `operand.width` bits; a register keeps its other bits. */
  writeVector(operand: Operand, value: X): void;
  /** Writes a whole vector register: 128 bits, or 256 when it is so wide, and zeros above them. */
  writeWhole(operand: Operand, value: X): void;
  /** As readVector, but a memory operand of 128 or 256 bits must be aligned to its size, else #GP. */
  readVectorAligned(operand: Operand): X;
  writeVectorAligned(operand: Operand, value: X): void;
  /** As readVectorAligned, but faults as the write will. Must be followed by `writeVectorAligned` of the same operand. */
  readVectorForWrite(operand: Operand): X;
  vectorConstant(value: bigint): X;
  /** Clears all vector registers that the mode has, or bits 255:128 of them. */
  clearVectors(part: 'all' | 'upper'): void;
  /** A half of a 256-bit vector, and both together. */
  halfOf(a: X, half: 0 | 1): X;
  joinHalves(low: X, high: X): X;
  /** Element `number` of a memory operand with a vector of indices, each of `indexWidth` bits; `width` bits wide. */
  elementAt(operand: Operand, number: number, indexWidth: 32 | 64, width: number): Operand;
  /** A lane-wise operation, named as WebAssembly names it: `i8x16.add`, `v128.xor`, `i16x8.narrow_i32x4_s` … */
  vector(operation: VectorOperation, a: X, b?: X): X;
  /** Shifts all lanes by a count below the lane width. */
  vectorShift(operation: VectorShift, a: X, count: V): X;
  /** Bytes of a:b picked by constant indices 0..31: 0..15 from `a`, 16..31 from `b`. */
  shuffle(a: X, b: X, indices: readonly number[]): X;
  /** Bytes of `a` picked by the bytes of `indices`; an index above 15 gives 0 (`i8x16.swizzle`). */
  swizzle(a: X, indices: X): X;
  /** The most significant bits of all lanes, lane 0 lowest. */
  vectorMask(operation: VectorMask, a: X): V;
  /** All lanes hold the low bits of `value`. */
  splat(lanes: 'i8x16' | 'i16x8' | 'i32x4' | 'i64x2', value: V): X;
  vectorFromLow(value: V): X;
  /** 64-bit lane 0 or 1. */
  lane64(a: X, lane: 0 | 1): V;
  vectorFromLanes(low: V, high: V): X;
  /**
   * Floating point under MXCSR: adds the flags raised, and raises #XF (#UD while CR4.OSXMMEXCPT is clear) when one of
   * them is unmasked. Always software, see `fp/`; compiled code leaves it to the evaluator.
   */
  float(operation: FloatOperation, a: X, b: X, immediate?: V): X;
  /** x·y + z with one rounding, or with signs changed; the NaN that results is that of `x`, else `y`, else `z`. */
  fused(operation: FusedOperation, x: X, y: X, z: X): X;
  /** Runs `action`; what its floating-point operations raise is raised after it, as by one operation. */
  jointly(action: () => void): void;

  /** Raises an exception that is no memory fault. Compiled code leaves it to the evaluator. */
  fault(vector: FaultName): void;
  faultWhen(condition: C, vector: FaultName): void;
}

export type FaultName = 'UD' | 'DE' | 'GP' | 'NM' | 'BR';

/** Lane-wise operations of one or two vectors; each is one WebAssembly SIMD instruction of that name. */
export type VectorOperation =
  | `v128.${'and' | 'andnot' | 'or' | 'xor' | 'not'}`
  | `${'i8x16' | 'i16x8'}.${'add' | 'sub' | 'add_sat_s' | 'add_sat_u' | 'sub_sat_s' | 'sub_sat_u' | 'avgr_u'}`
  | `${'i32x4' | 'i64x2'}.${'add' | 'sub'}`
  | `${'i8x16' | 'i16x8' | 'i32x4'}.${'min_s' | 'min_u' | 'max_s' | 'max_u' | 'abs'}`
  | `${'i8x16' | 'i16x8' | 'i32x4' | 'i64x2'}.${'eq' | 'gt_s' | 'neg'}`
  | `${'i16x8' | 'i32x4'}.mul`
  | 'i32x4.dot_i16x8_s'
  | `i8x16.${'narrow_i16x8_s' | 'narrow_i16x8_u'}`
  | `i16x8.${'narrow_i32x4_s' | 'narrow_i32x4_u'}`
  | `i16x8.${'extend' | 'extmul'}_${'low' | 'high'}_i8x16_${'s' | 'u'}`
  | `i32x4.${'extend' | 'extmul'}_${'low' | 'high'}_i16x8_${'s' | 'u'}`
  | `i64x2.${'extend' | 'extmul'}_${'low' | 'high'}_i32x4_${'s' | 'u'}`
  | 'i16x8.extadd_pairwise_i8x16_u'
  | 'i32x4.extadd_pairwise_i16x8_u';

export type VectorMask = `${'i8x16' | 'i16x8' | 'i32x4' | 'i64x2'}.bitmask`;

export type VectorShift = `${'i16x8' | 'i32x4' | 'i64x2'}.${'shl' | 'shr_s' | 'shr_u'}`;

/**
 * Operations of `Ops.float`. `f32x4` and `f64x2` work on all lanes; `f32` and `f64` on lane 0, and the other bits of the
 * result are zero. `a` is the destination operand where the manual has two, else the source (then `b` is not looked at).
 */
export type FloatOperation =
  | `${'f32x4' | 'f64x2' | 'f32' | 'f64'}.${'add' | 'sub' | 'mul' | 'div' | 'min' | 'max' | 'sqrt'}`
  /** Predicate, or rounding control, in `immediate`. */
  | `${'f32x4' | 'f64x2' | 'f32' | 'f64'}.${'compare' | 'round'}`
  /** Lane 0 is ZF, PF and CF at their places in RFLAGS. */
  | `${'f32' | 'f64'}.${'comi' | 'ucomi'}`
  /** SSE3: horizontal, and subtracting in even and adding in odd lanes. SSE4.1: dot product by `immediate`. */
  | `${'f32x4' | 'f64x2'}.${'hadd' | 'hsub' | 'addsub' | 'dot'}`
  /** Estimates: no flags, no exceptions. */
  | `${'f32x4' | 'f32'}.${'rcp' | 'rsqrt'}`
  /** Conversions to a format, named as in WebAssembly; `toInt` rounds by MXCSR, `truncate` towards zero. */
  | 'f32x4.promote_f16x4'
  /** By the rounding control in `immediate`. */
  | 'f16x4.demote_f32x4'
  | 'f64x2.promote_low_f32x4'
  | 'f32x4.demote_f64x2'
  | 'f64.promote_f32'
  | 'f32.demote_f64'
  | 'f32x4.convert_i32x4'
  | 'f64x2.convert_low_i32x4'
  | `${'f32' | 'f64'}.convert_${'i32' | 'i64'}`
  | `i32x4.${'toInt' | 'truncate'}_f32x4`
  | `i32x4.${'toInt' | 'truncate'}_f64x2`
  | `${'i32' | 'i64'}.${'toInt' | 'truncate'}_${'f32' | 'f64'}`;

/** Names as in FMA: the product negated (`n`), the addend subtracted (`sub`), both alternating from the odd lanes on. */
export type FusedOperation =
  | `${'f32x4' | 'f64x2' | 'f32' | 'f64'}.${'madd' | 'msub' | 'nmadd' | 'nmsub'}`
  | `${'f32x4' | 'f64x2'}.${'maddsub' | 'msubadd'}`;

/** A function that means the instruction, whatever `Ops` it is given. */
export type Semantics = <V, C, X>(ops: Ops<V, C, X>, insn: Static) => void;

/** Instruction sets that a CPU profile may lack; their absence makes the encoding #UD (or its older meaning). */
export type Feature =
  | 'sse'
  | 'sse2'
  | 'sse3'
  | 'ssse3'
  | 'sse4.1'
  | 'sse4.2'
  | 'sse4a'
  | 'aes'
  | 'pclmulqdq'
  | 'sha'
  | 'adx'
  | 'bmi1'
  | 'bmi2'
  | 'abm'
  | 'lzcnt'
  | 'popcnt'
  | 'movbe'
  | 'crc32'
  | 'rdrand'
  | 'rdseed'
  | 'cx16'
  | 'rdtscp'
  | 'clflushopt'
  | 'clwb'
  | 'svm'
  | 'mmx'
  | 'avx'
  | 'avx2'
  | 'fma'
  | 'f16c'
  | 'fsgsbase'
  | 'monitor'
  | 'xsave'
  | 'xsaveopt'
  | 'xsavec'
  | 'xsaves'
  | 'invpcid'
  | 'invlpgb'
  | 'rdpid'
  | 'smap'
  | 'mwaitx'
  | 'clzero'
  | 'rdpru'
  | 'wbnoinvd'
  | '3dnowprefetch';

export interface InstructionSpec {
  readonly mnemonic: string;
  /** Where the meaning is told: `APM vol.3, ADD`. */
  readonly source: string;
  /**
   * Encodings in the notation of APM vol.3 appendix A, `opcode bytes [/digit or /r]: operands [attributes]`:
   * `01 /r: Ev, Gv [lock]`, `F3 0F B8 /r: Gv, Ev`, `50+r: Zv [d64]`, `VEX.0F38.W? F2 /r: Gy, By, Ey`. See `decode/tables.ts`.
   */
  readonly forms: readonly string[];
  readonly feature?: Feature;
  /** Of a feature of SSE, but without its registers: it works whether or not CR0 and CR4 let those be used. */
  readonly withoutSseState?: true;
  /** Another one that must be there, too: AVX forms of AES. */
  readonly alsoFeature?: Feature;
}

export interface PlainInstruction extends InstructionSpec {
  readonly semantics: Semantics;
  /** Never compiled: each execution is evaluated. */
  readonly evaluatorOnly?: boolean;
}

export interface SystemInstruction extends InstructionSpec {
  /** The intercept that wins against every exception of the instruction: looked at before it is executed. */
  readonly interceptedFirst?: InterceptName;
  /** The same at CPL 0 of 64-bit mode and in no guest, where nothing is left to check: what is compiled for such code. */
  readonly semantics?: Semantics;
  /**
   * Executes on a transaction; throws GuestFault, or #VMEXIT as data. The context is a `SystemContext`
   * (`cpu/system-context.ts`), which knows decoded instructions and so cannot be named here; as a method, it may be
   * declared with that type.
   */
  system(context: object): void;
}

export type Instruction = PlainInstruction | SystemInstruction;

/** What the control plane asks of a description at each execution: in objects of one shape, which descriptions are not. */
export interface SystemPart {
  readonly interceptedFirst: InterceptName | undefined;
  readonly system: (context: object) => void;
}

/** @returns undefined for a plain instruction. */
export const systemPart = (described: Instruction): SystemPart | undefined =>
  'system' in described ? { interceptedFirst: described.interceptedFirst, system: described.system } : undefined;

/** Declares an instruction; exists for its types. */
export function instruction<I extends Instruction>(spec: I): I {
  return spec;
}

/**
 * What the decoder makes of instruction bytes: the form, the prefixes, and operands with their registers and addresses.
 * The evaluator runs on it directly; the engine packs it into micro-ops.
 */
import type { Instruction, Operand, Static, SystemPart, Width } from '../isa/instruction.js';

export const MAX_INSTRUCTION_BYTES = 15;
/** Register number that stands for RIP in a memory operand. */
export const RIP_BASE = 16;
export const NO_REGISTER = -1;

export interface GprOperand extends Operand {
  readonly kind: 'gpr';
  /** 0..15. */
  readonly number: number;
  /** AH, CH, DH, BH: bits 15:8 of register 0..3. */
  readonly high: boolean;
}

export interface MemoryOperand extends Operand {
  readonly kind: 'mem';
  /** Register numbers; -1 for none, 16 for RIP. */
  readonly base: number;
  readonly index: number;
  /** log2 of the factor. */
  readonly scale: number;
  /** Sign-extended. For RIP-relative addresses relative to the next instruction. */
  readonly displacement: bigint;
  /** VSIB: the vector register that holds the indices; `index` is none then. */
  readonly vectorIndex?: { readonly number: number; readonly width: 128 | 256 };
  /** Segment register by number (Segment.ES …), prefixes and defaults applied. */
  readonly segment: number;
}

export interface ImmediateOperand extends Operand {
  readonly kind: 'imm';
  /** Zero-extended from `width` after any sign extension that the encoding asks for. */
  readonly value: bigint;
}

export interface RelativeOperand extends Operand {
  readonly kind: 'rel';
  /** Sign-extended displacement from the next instruction. */
  readonly displacement: bigint;
}

export interface FarOperand extends Operand {
  readonly kind: 'far';
  readonly selector: number;
  readonly offset: bigint;
}

/** XMM (YMM when 256 bits wide), MMX, x87 stack, segment, control and debug registers. */
export interface NumberedOperand extends Operand {
  readonly kind: 'xmm' | 'mmx' | 'st' | 'segment' | 'control' | 'debug';
  readonly number: number;
}

export type DecodedOperand =
  | GprOperand
  | MemoryOperand
  | ImmediateOperand
  | RelativeOperand
  | FarOperand
  | NumberedOperand;

export interface DecodedInstruction extends Static {
  readonly instruction: Instruction;
  /** Where the control plane executes it. */
  readonly system: SystemPart | undefined;
  /** Index of the form among all forms of the decoder's tables; with the static part it names the handler. */
  readonly form: number;
  readonly mnemonic: string;
  readonly width: Width;
  readonly operands: readonly DecodedOperand[];
  /** Bytes, 1..15. */
  readonly length: number;
  readonly bytes: Uint8Array;
  /** How many of them stand before displacement and immediate, which are all that the others say. */
  readonly headLength: number;
  readonly lock: boolean;
  /** Segment override prefix, or undefined. */
  readonly segmentOverride: number | undefined;
  /** Last opcode byte, for forms that share a description (Jcc, SETcc, Ib of IN …). */
  readonly opcode: number;
  /** Some system instructions want REX.W or the raw ModRM byte. */
  readonly rexW: boolean;
  readonly modrm: number;
}

/** What decoding depends on besides the bytes. */
export interface CodeMode {
  /** Default operand and address size: 64 means 64-bit mode. */
  readonly bits: 16 | 32 | 64;
  /** Real-address or virtual-8086 mode: some encodings are #UD there. */
  readonly real: boolean;
}

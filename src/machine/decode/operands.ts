/**
 * Operands of an instruction: registers by ModRM, SIB, REX and VEX, addresses, immediates.
 * Source: APM vol.3 §1.4 ModRM and SIB Bytes, §1.5 Displacement Bytes, §1.6 Immediate Bytes; appendix A for the operand codes.
 */
import { Segment } from '../layout/cpu-state.js';
import { type CodeMode, type DecodedOperand, type MemoryOperand, NO_REGISTER, RIP_BASE } from './decoded.js';
import type { Encoding } from './encoding.js';
import type { InstructionBytes } from './instruction-bytes.js';
import type { Form, OperandCode } from './tables.js';

export class OperandReader {
  /** Index field of the SIB byte with its extension: a vector register to some. */
  private sibIndex: number | undefined;

  constructor(private readonly bytes: InstructionBytes) {}

  /** @param memory what ModRM names, when it names memory. @returns undefined when there is no such operand. */
  operand(
    code: OperandCode,
    encoding: Encoding,
    form: Form,
    operandSize: 16 | 32 | 64,
    addressWidth: 16 | 32 | 64,
    memory: MemoryOperand | undefined,
    mode: CodeMode,
  ): DecodedOperand | undefined {
    const { modrm, rex } = encoding;
    // VEX.W, which legacy modes have too, makes no 64-bit operands there.
    const width = widthOf(code.size, operandSize, (rex & 8) !== 0 && mode.bits === 64);
    const reg = ((modrm >> 3) & 7) | ((rex & 4) << 1);
    const rm = (modrm & 7) | ((rex & 1) << 3);
    switch (code.addressing) {
      case 'E':
        return memory === undefined ? gpr(rm, width, encoding) : { ...memory, width };
      case 'M':
        if (memory === undefined) return undefined;
        return { ...memory, width: code.size === 'p' ? operandSize + 16 : code.size === '' ? operandSize : width };
      case 'R':
        // Beside a control or debug register it has that one's width.
        return gpr(rm, form.mod !== 'ignored' ? width : mode.bits === 64 ? 64 : 32, encoding);
      case 'G':
        return gpr(reg, width, encoding);
      case 'Z':
        return gpr((encoding.opcode & 7) | ((rex & 1) << 3), width, encoding);
      case 'B':
        return gpr(encoding.vexRegister, width, encoding);
      case 'V':
        return { kind: 'xmm', number: reg, width };
      case 'W':
        return memory === undefined ? { kind: 'xmm', number: rm, width } : { ...memory, width };
      case 'U':
        return { kind: 'xmm', number: rm, width };
      case 'H':
        return { kind: 'xmm', number: encoding.vexRegister, width };
      case 'L':
        return { kind: 'xmm', number: (this.bytes.next8() >> 4) & (mode.bits === 64 ? 15 : 7), width };
      case 'Y':
        return memory === undefined ? undefined : this.vectorIndexed(memory, encoding, addressWidth, width);
      case 'P':
        return { kind: 'mmx', number: reg & 7, width };
      case 'Q':
        return memory === undefined ? { kind: 'mmx', number: rm & 7, width } : { ...memory, width };
      case 'N':
        return { kind: 'mmx', number: rm & 7, width };
      case 'ST':
        return { kind: 'st', number: 0, width: 80 };
      case 'STi':
        return { kind: 'st', number: modrm & 7, width: 80 };
      case 'S':
        // CS can be read but not loaded; numbers above GS do not exist.
        return (reg & 7) > Segment.GS ? undefined : { kind: 'segment', number: reg & 7, width: 16 };
      case 'C':
        // LOCK MOV CR0 is AMD's other encoding of CR8 (APM vol.3 MOV CRn); the description sees number 8.
        return { kind: 'control', number: reg, width: mode.bits === 64 ? 64 : 32 };
      case 'D':
        return { kind: 'debug', number: reg, width: mode.bits === 64 ? 64 : 32 };
      case 'I':
        return this.immediate(code.size, operandSize);
      case 'J':
        return { kind: 'rel', width, displacement: BigInt(this.bytes.signed(width / 8)) };
      case 'A': {
        const offset = this.bytes.little(operandSize / 8);
        return { kind: 'far', width: operandSize + 16, offset, selector: this.bytes.unsigned(2) };
      }
      case 'O':
        return {
          kind: 'mem',
          width,
          base: NO_REGISTER,
          index: NO_REGISTER,
          scale: 0,
          displacement: BigInt.asIntN(64, this.bytes.little(addressWidth / 8)),
          segment: encoding.segment ?? Segment.DS,
        };
      case 'AL':
        return { kind: 'gpr', number: 0, high: false, width: 8 };
      case 'CL':
        return { kind: 'gpr', number: 1, high: false, width: 8 };
      case 'DX':
        return { kind: 'gpr', number: 2, high: false, width: 16 };
      case 'rAX':
        return { kind: 'gpr', number: 0, high: false, width: operandSize };
      case 'eAX':
        return { kind: 'gpr', number: 0, high: false, width: Math.min(32, operandSize) };
      case 'XMM0':
        return { kind: 'xmm', number: 0, width: 128 };
      case 'one':
        return { kind: 'imm', width: 8, value: 1n };
      default:
        throw new Error(
          `${form.instruction.mnemonic} "${form.text}": unknown operand code ${code.addressing}${code.size}`,
        );
    }
  }

  private immediate(size: string, operandSize: 16 | 32 | 64): DecodedOperand {
    switch (size) {
      case 'b':
        return { kind: 'imm', width: 8, value: BigInt(this.bytes.unsigned(1)) };
      case 'w':
        return { kind: 'imm', width: 16, value: BigInt(this.bytes.unsigned(2)) };
      case 'bs':
        return { kind: 'imm', width: operandSize, value: wrapped(operandSize, this.bytes.signed(1)) };
      case 'v':
        return { kind: 'imm', width: operandSize, value: this.bytes.little(operandSize / 8) };
      default: {
        // z: 16 or 32 bits, sign-extended to the operand size.
        const value = wrapped(operandSize, this.bytes.signed(operandSize === 16 ? 2 : 4));
        return { kind: 'imm', width: operandSize, value };
      }
    }
  }

  /** What ModRM and SIB name. */
  memoryOperand(encoding: Encoding, addressWidth: 16 | 32 | 64, mode: CodeMode): MemoryOperand {
    const operand =
      addressWidth === 16
        ? this.address16(encoding.modrm)
        : this.addressWide(encoding.modrm, encoding.rex, mode.bits === 64);
    const stack = operand.base === 4 || operand.base === 5;
    const byDefault = stack && !(addressWidth === 16 && operand.base === 4) ? Segment.SS : Segment.DS;
    const { base, index, scale, displacement } = operand;
    return { kind: 'mem', width: 0, base, index, scale, displacement, segment: encoding.segment ?? byDefault };
  }

  /**
   * VSIB: the index is a vector register. It, the destination and the mask (VEX.vvvv) must be three registers.
   * Source: APM vol.4 §1.3.3 Memory Operands with VSIB Addressing.
   */
  private vectorIndexed(
    memory: MemoryOperand,
    { modrm, rex, vexRegister, vexL, opcode }: Encoding,
    addressWidth: number,
    width: number,
  ): MemoryOperand | undefined {
    const number = this.sibIndex;
    const destination = ((modrm >> 3) & 7) | ((rex & 4) << 1);
    if (addressWidth === 16 || number === undefined) return undefined;
    if (new Set([number, destination, vexRegister]).size < 3) return undefined;
    // Odd opcodes have indices of 64 bits, even ones of 32: of those four suffice for quadwords.
    const isWide = vexL === 1 && ((opcode & 1) !== 0 || width === 32);
    return { ...memory, width, index: NO_REGISTER, vectorIndex: { number, width: isWide ? 256 : 128 } };
  }

  /** 16-bit addressing: APM vol.3 table A-34. */
  private address16(modrm: number) {
    const mod = modrm >> 6;
    const rm = modrm & 7;
    const [base, index] = ADDRESS16[rm] as readonly [number, number];
    if (mod === 0 && rm === 6) {
      return { base: NO_REGISTER, index: NO_REGISTER, scale: 0, displacement: BigInt.asIntN(16, this.bytes.little(2)) };
    }
    const displacement =
      mod === 0 ? 0n : mod === 1 ? BigInt.asIntN(8, this.bytes.little(1)) : BigInt.asIntN(16, this.bytes.little(2));
    return { base, index, scale: 0, displacement };
  }

  private addressWide(modrm: number, rex: number, long: boolean) {
    const mod = modrm >> 6;
    let base = (modrm & 7) | ((rex & 1) << 3);
    let index = NO_REGISTER;
    let scale = 0;
    let bare = false;
    this.sibIndex = undefined;
    if ((modrm & 7) === 4) {
      const sib = this.bytes.next8();
      this.bytes.endHead();
      scale = sib >> 6;
      index = ((sib >> 3) & 7) | ((rex & 2) << 2);
      this.sibIndex = index;
      if (index === 4) index = NO_REGISTER;
      base = (sib & 7) | ((rex & 1) << 3);
      bare = mod === 0 && (sib & 7) === 5;
      if (bare) base = NO_REGISTER;
    } else if (mod === 0 && (modrm & 7) === 5) {
      bare = true;
      base = long ? RIP_BASE : NO_REGISTER;
    }
    const displacement =
      mod === 1 ? BigInt(this.bytes.signed(1)) : mod === 2 || bare ? BigInt(this.bytes.signed(4)) : 0n;
    return { base, index, scale, displacement };
  }
}

/** A number of 32 bits as two's complement of `bits`. */
function wrapped(bits: 16 | 32 | 64, value: number): bigint {
  if (value >= 0) return BigInt(value);
  return bits === 64 ? BigInt.asUintN(64, BigInt(value)) : BigInt(value + 2 ** bits);
}

/** Base and index of the 16-bit forms: BX+SI, BX+DI, BP+SI, BP+DI, SI, DI, BP, BX. */
const ADDRESS16: readonly (readonly [number, number])[] = [
  [3, 6],
  [3, 7],
  [5, 6],
  [5, 7],
  [6, NO_REGISTER],
  [7, NO_REGISTER],
  [5, NO_REGISTER],
  [3, NO_REGISTER],
];

function widthOf(size: string, operandSize: 16 | 32 | 64, rexW: boolean): number {
  switch (size) {
    case 'b':
      return 8;
    case 'w':
      return 16;
    case 'd':
    case 'ss':
      return 32;
    case 'q':
    case 'sd':
      return 64;
    case 't':
      return 80;
    case 'dq':
    case 'ps':
    case 'pd':
      return 128;
    case 'qq':
      return 256;
    case 'y':
      return rexW ? 64 : 32;
    case 'z':
      return Math.min(32, operandSize);
    default:
      return operandSize;
  }
}

/** Each operand is an object of its own, for they are told apart as such. */
const gpr = (number: number, width: number, encoding: Encoding): DecodedOperand =>
  width === 8 && !encoding.hasRex && number >= 4 && number < 8
    ? { kind: 'gpr', number: number - 4, high: true, width }
    : { kind: 'gpr', number, high: false, width };

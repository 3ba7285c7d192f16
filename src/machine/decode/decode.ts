/**
 * Bytes → DecodedInstruction: prefixes, REX, VEX, ModRM, SIB, displacement, immediates.
 * Source: APM vol.3 §1 Instruction Encoding; table look-up by the forms of `tables.ts`.
 */
import { type Feature, systemPart, type Width } from '../isa/instruction.js';
import { Segment } from '../layout/cpu-state.js';
import { kept } from '../layout/slab.js';
import type { CodeMode, DecodedInstruction, DecodedOperand, MemoryOperand } from './decoded.js';
import { buildTables, type DecodeTables, type Form, type OperandCode, type PrefixClass, tableIndex } from './tables.js';

/** Why bytes make no instruction. */
export type DecodeFailure =
  /** More bytes are needed than were given: fetch on, or fault at the page where they end. */
  | 'incomplete'
  /** #UD. */
  | 'invalid'
  /** Longer than 15 bytes: #GP. */
  | 'too-long';

export const MAX_INSTRUCTION_BYTES = 15;
/** Register number that stands for RIP in a memory operand. */
export const RIP_BASE = 16;
export const NO_REGISTER = -1;

const PREFIX_SEGMENTS: Readonly<Record<number, number>> = {
  38: Segment.ES,
  46: Segment.CS,
  54: Segment.SS,
  62: Segment.DS,
  100: Segment.FS,
  101: Segment.GS,
};

/** Thrown inside one decode when the bytes run out. */
const INCOMPLETE = Symbol('incomplete');
const TOO_LONG = Symbol('too long');

interface Encoding {
  operandSizePrefix: boolean;
  addressSizePrefix: boolean;
  lock: boolean;
  /** The last of F2 and F3, or 0. */
  repeat: number;
  segment: number | undefined;
  rex: number;
  hasRex: boolean;
  vex: boolean;
  vexL: number;
  vexRegister: number;
  /** VEX.vvvv is not 1111b: it must be where the form has no operand in it. */
  hasVexRegister: boolean;
  vexPrefix: number;
  map: number;
  opcode: number;
  modrm: number;
}

type Instructions = Parameters<typeof buildTables>[0];
const TABLES = new WeakMap<Instructions, ReturnType<typeof buildTables>>();

/** The tables of a list of instructions: made once, for every machine has the same. */
function tablesOf(instructions: Instructions): ReturnType<typeof buildTables> {
  const tables = TABLES.get(instructions) ?? buildTables(instructions);
  TABLES.set(instructions, tables);
  return tables;
}

/** A form, with what its declaration means for decoding worked out. */
interface Candidate {
  readonly form: Form;
  readonly invalidIn64: boolean;
  readonly onlyIn64: boolean;
  readonly onlyProtected: boolean;
  /** REX.W or VEX.W that it demands. */
  readonly w: boolean | undefined;
  readonly withoutRexB: boolean;
  readonly takesVexRegister: boolean;
  readonly defaultsTo64: boolean;
  readonly always64: boolean;
  readonly mayLock: boolean;
  readonly repeats: boolean;
  readonly width: WidthRule;
}

function candidateOf(form: Form): Candidate {
  const { attributes, operands } = form;
  return {
    form,
    invalidIn64: attributes.has('i64'),
    onlyIn64: attributes.has('o64'),
    onlyProtected: attributes.has('prot'),
    w: attributes.has('w1') ? true : attributes.has('w0') ? false : undefined,
    withoutRexB: attributes.has('b0'),
    takesVexRegister: operands.some(({ addressing }) => addressing === 'B' || addressing === 'H'),
    defaultsTo64: attributes.has('d64'),
    always64: attributes.has('f64'),
    mayLock: attributes.has('lock'),
    repeats: attributes.has('rep'),
    width: widthRuleOf(form),
  };
}

/** The forms of an opcode that a processor has. */
interface Opcode {
  readonly hasModRM: boolean;
  readonly candidates: readonly Candidate[];
}

export class Decoder {
  readonly tables: DecodeTables;
  /** By `tableIndex`. */
  private readonly opcodes: readonly Opcode[];
  private bytes: Uint8Array = new Uint8Array(0);
  private start = 0;
  private at = 0;
  /** Index field of the SIB byte with its extension: a vector register to some. */
  private sibIndex: number | undefined;

  constructor(instructions: Instructions, features: ReadonlySet<Feature>) {
    this.tables = tablesOf(instructions);
    const known = new Map<Form, Candidate>();
    const candidate = (form: Form): Candidate => {
      const made = known.get(form) ?? candidateOf(form);
      known.set(form, made);
      return made;
    };
    this.opcodes = this.tables.candidates.map((forms) => ({
      hasModRM: forms.some((form) => form.hasModRM),
      candidates: forms.filter((form) => form.features.every((feature) => features.has(feature))).map(candidate),
    }));
  }

  /**
   * Decodes the instruction at `start`.
   * @param bytes to the end of what could be fetched. At most 15 bytes are looked at.
   */
  decode(bytes: Uint8Array, mode: CodeMode, start = 0): DecodedInstruction | DecodeFailure {
    this.bytes = bytes;
    this.start = start;
    this.at = start;
    try {
      return this.decodeOne(mode);
    } catch (reason) {
      if (reason === INCOMPLETE) return 'incomplete';
      if (reason === TOO_LONG) return 'too-long';
      throw reason;
    }
  }

  private decodeOne(mode: CodeMode): DecodedInstruction | DecodeFailure {
    const encoding = this.prefixesAndOpcode(mode);
    if (encoding === undefined) return 'invalid';
    const opcode = this.opcodes[tableIndex(encoding.vex, encoding.map, encoding.opcode)];
    if (opcode === undefined) return 'invalid';
    if (opcode.hasModRM) encoding.modrm = this.peek8();
    for (const candidate of opcode.candidates) {
      if (!matches(candidate, encoding, mode)) continue;
      if (candidate.form.hasModRM) this.at++;
      return this.operandsOf(candidate, encoding, mode);
    }
    return 'invalid';
  }

  private prefixesAndOpcode(mode: CodeMode): Encoding | undefined {
    const encoding: Encoding = {
      operandSizePrefix: false,
      addressSizePrefix: false,
      lock: false,
      repeat: 0,
      segment: undefined,
      rex: 0,
      hasRex: false,
      vex: false,
      vexL: 0,
      vexRegister: 0,
      hasVexRegister: false,
      vexPrefix: 0,
      map: 0,
      opcode: 0,
      modrm: 0,
    };
    let byte = this.next8();
    for (;;) {
      const segment = PREFIX_SEGMENTS[byte];
      if (segment !== undefined) {
        // In 64-bit mode only FS and GS overrides have a meaning (APM vol.3 §1.2.4).
        if (mode.bits !== 64 || segment >= Segment.FS) encoding.segment = segment;
      } else if (byte === 0x66) encoding.operandSizePrefix = true;
      else if (byte === 0x67) encoding.addressSizePrefix = true;
      else if (byte === 0xf0) encoding.lock = true;
      else if (byte === 0xf2 || byte === 0xf3) encoding.repeat = byte;
      else if (mode.bits === 64 && (byte & 0xf0) === 0x40) {
        encoding.rex = byte;
        encoding.hasRex = true;
        byte = this.next8();
        // A REX prefix counts only directly before the opcode.
        if (isPrefix(byte) || (byte & 0xf0) === 0x40) {
          encoding.rex = 0;
          encoding.hasRex = false;
          continue;
        }
        break;
      } else break;
      byte = this.next8();
    }
    if ((byte === 0xc4 || byte === 0xc5) && this.isVex(mode)) return this.vexPrefix(byte, encoding, mode);
    if (byte === 0x0f) {
      byte = this.next8();
      if (byte === 0x38 || byte === 0x3a) {
        encoding.map = byte === 0x38 ? 2 : 3;
        byte = this.next8();
      } else encoding.map = 1;
    }
    encoding.opcode = byte;
    return encoding;
  }

  /** LES and LDS share the opcodes outside 64-bit mode: there mod = 11b means VEX, and never in real mode. */
  private isVex(mode: CodeMode): boolean {
    return mode.bits === 64 || (!mode.real && this.peek8() >= 0xc0);
  }

  /** Source: APM vol.3 §1.8 XOP/VEX prefixes. VEX after 66, F2, F3, LOCK or REX is #UD. */
  private vexPrefix(byte: number, encoding: Encoding, mode: CodeMode): Encoding | undefined {
    if (encoding.operandSizePrefix || encoding.repeat !== 0 || encoding.lock || encoding.hasRex) return undefined;
    encoding.vex = true;
    const first = this.next8();
    let last = first;
    let rex = (~first >> 5) & 0b100;
    if (byte === 0xc4) {
      last = this.next8();
      rex = ((~first >> 5) & 0b111) | ((last >> 4) & 0b1000);
      encoding.map = first & 0x1f;
      if (encoding.map < 1 || encoding.map > 3) return undefined;
    } else encoding.map = 1;
    // Outside 64-bit mode there are eight registers.
    encoding.rex = 0x40 | (mode.bits === 64 ? rex : rex & 0b1000);
    encoding.vexRegister = (~last >> 3) & (mode.bits === 64 ? 15 : 7);
    encoding.hasVexRegister = (~last & 0x78) !== 0;
    encoding.vexL = (last >> 2) & 1;
    encoding.vexPrefix = last & 3;
    encoding.opcode = this.next8();
    return encoding;
  }

  private operandsOf(candidate: Candidate, encoding: Encoding, mode: CodeMode): DecodedInstruction | DecodeFailure {
    const { form } = candidate;
    const rexW = (encoding.rex & 8) !== 0;
    // A mandatory 66 selects the form and is no operand size there.
    const sizePrefix = encoding.operandSizePrefix && form.prefix !== '66';
    const operandSize = operandSizeOf(mode, candidate, rexW, sizePrefix);
    const addressWidth = addressSizeOf(mode, encoding.addressSizePrefix);
    const memory =
      form.hasModRM && encoding.modrm < 0xc0 && form.fixedModRM === undefined && form.mod !== 'ignored'
        ? this.memoryOperand(encoding, addressWidth, mode)
        : undefined;
    const operands: DecodedOperand[] = [];
    for (const code of form.operands) {
      const operand = this.operand(code, encoding, form, operandSize, addressWidth, memory, mode);
      if (operand === undefined) return 'invalid';
      operands.push(operand);
    }
    if (encoding.lock && !form.attributes.has('cr8') && !(candidate.mayLock && operands[0]?.kind === 'mem'))
      return 'invalid';
    const prefixRepeats = encoding.repeat !== 0 && form.prefix !== 'F2' && form.prefix !== 'F3';
    return {
      instruction: form.instruction,
      system: systemPart(form.instruction),
      form: form.id,
      mnemonic: form.instruction.mnemonic,
      width: instructionWidth(candidate.width, operandSize, operands),
      addressWidth,
      long: mode.bits === 64,
      rep: prefixRepeats && candidate.repeats ? (encoding.repeat === 0xf3 ? 'rep' : 'repne') : 'none',
      operands,
      length: this.at - this.start,
      bytes: kept(this.bytes, this.start, this.at),
      lock: encoding.lock,
      segmentOverride: encoding.segment,
      opcode: encoding.opcode,
      rexW,
      modrm: encoding.modrm,
    };
  }

  private operand(
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
        return { kind: 'xmm', number: (this.next8() >> 4) & (mode.bits === 64 ? 15 : 7), width };
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
        return { kind: 'rel', width, displacement: BigInt(this.signed(width / 8)) };
      case 'A': {
        const offset = this.little(operandSize / 8);
        return { kind: 'far', width: operandSize + 16, offset, selector: this.unsigned(2) };
      }
      case 'O':
        return {
          kind: 'mem',
          width,
          base: NO_REGISTER,
          index: NO_REGISTER,
          scale: 0,
          displacement: BigInt.asIntN(64, this.little(addressWidth / 8)),
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
        return { kind: 'imm', width: 8, value: BigInt(this.unsigned(1)) };
      case 'w':
        return { kind: 'imm', width: 16, value: BigInt(this.unsigned(2)) };
      case 'bs':
        return { kind: 'imm', width: operandSize, value: wrapped(operandSize, this.signed(1)) };
      case 'v':
        return { kind: 'imm', width: operandSize, value: this.little(operandSize / 8) };
      default: {
        // z: 16 or 32 bits, sign-extended to the operand size.
        const value = wrapped(operandSize, this.signed(operandSize === 16 ? 2 : 4));
        return { kind: 'imm', width: operandSize, value };
      }
    }
  }

  private memoryOperand(encoding: Encoding, addressWidth: 16 | 32 | 64, mode: CodeMode): MemoryOperand {
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
      return { base: NO_REGISTER, index: NO_REGISTER, scale: 0, displacement: BigInt.asIntN(16, this.little(2)) };
    }
    const displacement =
      mod === 0 ? 0n : mod === 1 ? BigInt.asIntN(8, this.little(1)) : BigInt.asIntN(16, this.little(2));
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
      const sib = this.next8();
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
    const displacement = mod === 1 ? BigInt(this.signed(1)) : mod === 2 || bare ? BigInt(this.signed(4)) : 0n;
    return { base, index, scale, displacement };
  }

  private next8(): number {
    const byte = this.peek8();
    this.at++;
    return byte;
  }

  private peek8(): number {
    if (this.at - this.start >= MAX_INSTRUCTION_BYTES) throw TOO_LONG;
    if (this.at >= this.bytes.length) throw INCOMPLETE;
    return this.bytes[this.at] as number;
  }

  /** @param bytes 1 to 8. */
  private little(bytes: number): bigint {
    if (bytes <= 4) return BigInt(this.unsigned(bytes));
    return BigInt(this.unsigned(4)) | (BigInt(this.unsigned(bytes - 4)) << 32n);
  }

  /** @param bytes 1, 2 or 4. */
  private unsigned(bytes: number): number {
    return this.word(bytes) >>> 0;
  }

  /** The same as two's complement. */
  private signed(bytes: number): number {
    const unused = 32 - 8 * bytes;
    return (this.word(bytes) << unused) >> unused;
  }

  private word(bytes: number): number {
    let value = 0;
    for (let shift = 0; shift < 8 * bytes; shift += 8) value |= this.next8() << shift;
    return value;
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

const isPrefix = (byte: number): boolean =>
  PREFIX_SEGMENTS[byte] !== undefined ||
  byte === 0x66 ||
  byte === 0x67 ||
  byte === 0xf0 ||
  byte === 0xf2 ||
  byte === 0xf3;

function matches(candidate: Candidate, encoding: Encoding, mode: CodeMode): boolean {
  const { form } = candidate;
  const { modrm, rex } = encoding;
  if (form.digit !== undefined && form.digit !== ((modrm >> 3) & 7)) return false;
  if (form.fixedModRM !== undefined && form.fixedModRM !== modrm) return false;
  if (form.mod === 'memory' && modrm >= 0xc0) return false;
  if (form.mod === 'register' && form.hasModRM && modrm < 0xc0) return false;
  if (form.vexL !== undefined && form.vexL !== encoding.vexL) return false;
  if (encoding.hasVexRegister && !candidate.takesVexRegister) return false;
  if (mode.bits === 64 ? candidate.invalidIn64 : candidate.onlyIn64) return false;
  if (mode.real && candidate.onlyProtected) return false;
  if (candidate.w !== undefined && candidate.w !== ((rex & 8) !== 0)) return false;
  if (candidate.withoutRexB && (rex & 1) !== 0) return false;
  return form.prefix === 'any' || form.prefix === mandatoryPrefix(encoding);
}

const VEX_PREFIXES = ['NP', '66', 'F3', 'F2'] as const;

function mandatoryPrefix(encoding: Encoding): PrefixClass {
  if (encoding.vex) return VEX_PREFIXES[encoding.vexPrefix] as PrefixClass;
  if (encoding.repeat !== 0) return encoding.repeat === 0xf3 ? 'F3' : 'F2';
  return encoding.operandSizePrefix ? '66' : 'NP';
}

function operandSizeOf(mode: CodeMode, candidate: Candidate, rexW: boolean, prefix: boolean): 16 | 32 | 64 {
  if (mode.bits === 64) {
    if (candidate.always64 || rexW) return 64;
    if (prefix) return 16;
    return candidate.defaultsTo64 ? 64 : 32;
  }
  return (mode.bits === 32) !== prefix ? 32 : 16;
}

function addressSizeOf(mode: CodeMode, prefix: boolean): 16 | 32 | 64 {
  if (mode.bits === 64) return prefix ? 32 : 64;
  return (mode.bits === 32) !== prefix ? 32 : 16;
}

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

/** The width that semantics go by: 8, the operand size, or that of an operand, given by its number. */
type WidthRule = 'byte' | 'operand-size' | number;

/** 8 when the form is a byte form, else the operand size, or that of its y operands. */
function widthRuleOf({ attributes, operands }: Form): WidthRule {
  if (attributes.has('b')) return 'byte';
  // The length of a branch displacement says nothing about the operand size.
  const sizes = operands.map(({ addressing, size }) =>
    addressing === 'rAX' ? 'v' : addressing === 'AL' ? 'b' : addressing === 'J' ? '' : size,
  );
  if (sizes.some((size) => size === 'v' || size === 'z')) return 'operand-size';
  const y = sizes.indexOf('y');
  if (y >= 0) return y;
  if (sizes.length > 0 && sizes.every((size) => size === 'b')) return 'byte';
  if (sizes[0] === 'b' && operands[0]?.addressing !== 'I' && operands[0]?.addressing !== 'J') return 'byte';
  return 'operand-size';
}

function instructionWidth(rule: WidthRule, operandSize: 16 | 32 | 64, operands: readonly DecodedOperand[]): Width {
  if (rule === 'byte') return 8;
  if (rule === 'operand-size') return operandSize;
  return operands[rule]?.width === 64 ? 64 : 32;
}

/** Each operand is an object of its own, for they are told apart as such. */
const gpr = (number: number, width: number, encoding: Encoding): DecodedOperand =>
  width === 8 && !encoding.hasRex && number >= 4 && number < 8
    ? { kind: 'gpr', number: number - 4, high: true, width }
    : { kind: 'gpr', number, high: false, width };

/**
 * Bytes → DecodedInstruction: prefixes and opcode (`encoding.ts`), the form that they are (`candidate.ts`, by the forms of
 * `tables.ts`), its operands (`operands.ts`).
 * Source: APM vol.3 §1 Instruction Encoding.
 */
import { type Feature, systemPart } from '../isa/instruction.js';
import { addressSizeOf, type Candidate, candidateOf, instructionWidth, matches, operandSizeOf } from './candidate.js';
import type { CodeMode, DecodedInstruction, DecodedOperand } from './decoded.js';
import { type Encoding, readEncoding } from './encoding.js';
import { INCOMPLETE, InstructionBytes, TOO_LONG } from './instruction-bytes.js';
import { OperandReader } from './operands.js';
import { buildTables, type DecodeTables, type Form, tableIndex } from './tables.js';

/** Why bytes make no instruction. */
export type DecodeFailure =
  /** More bytes are needed than were given: fetch on, or fault at the page where they end. */
  | 'incomplete'
  /** #UD. */
  | 'invalid'
  /** Longer than 15 bytes: #GP. */
  | 'too-long';

type Instructions = Parameters<typeof buildTables>[0];
const TABLES = new WeakMap<Instructions, ReturnType<typeof buildTables>>();

/** The tables of a list of instructions: made once, for every machine has the same. */
function tablesOf(instructions: Instructions): ReturnType<typeof buildTables> {
  const tables = TABLES.get(instructions) ?? buildTables(instructions);
  TABLES.set(instructions, tables);
  return tables;
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
  private readonly bytes = new InstructionBytes();
  private readonly operands = new OperandReader(this.bytes);

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
    this.bytes.begin(bytes, start);
    try {
      return this.decodeOne(mode);
    } catch (reason) {
      if (reason === INCOMPLETE) return 'incomplete';
      if (reason === TOO_LONG) return 'too-long';
      throw reason;
    }
  }

  private decodeOne(mode: CodeMode): DecodedInstruction | DecodeFailure {
    const encoding = readEncoding(this.bytes, mode);
    if (encoding === undefined) return 'invalid';
    const opcode = this.opcodes[tableIndex(encoding.vex, encoding.map, encoding.opcode)];
    if (opcode === undefined) return 'invalid';
    if (opcode.hasModRM) encoding.modrm = this.bytes.peek8();
    for (const candidate of opcode.candidates) {
      if (!matches(candidate, encoding, mode)) continue;
      if (candidate.form.hasModRM) this.bytes.next8();
      this.bytes.endHead();
      return this.instructionOf(candidate, encoding, mode);
    }
    return 'invalid';
  }

  private instructionOf(candidate: Candidate, encoding: Encoding, mode: CodeMode): DecodedInstruction | DecodeFailure {
    const { form } = candidate;
    const rexW = (encoding.rex & 8) !== 0;
    // A mandatory 66 selects the form and is no operand size there.
    const sizePrefix = encoding.operandSizePrefix && form.prefix !== '66';
    const operandSize = operandSizeOf(mode, candidate, rexW, sizePrefix);
    const addressWidth = addressSizeOf(mode, encoding.addressSizePrefix);
    const memory =
      form.hasModRM && encoding.modrm < 0xc0 && form.fixedModRM === undefined && form.mod !== 'ignored'
        ? this.operands.memoryOperand(encoding, addressWidth, mode)
        : undefined;
    const operands: DecodedOperand[] = [];
    for (const code of form.operands) {
      const operand = this.operands.operand(code, encoding, form, operandSize, addressWidth, memory, mode);
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
      length: this.bytes.length,
      bytes: this.bytes.read,
      headLength: this.bytes.headLength,
      lock: encoding.lock,
      segmentOverride: encoding.segment,
      opcode: encoding.opcode,
      rexW,
      modrm: encoding.modrm,
    };
  }
}

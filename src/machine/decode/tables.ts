/**
 * Opcode maps, built from the forms that instruction descriptions declare. The notation is that of APM vol.3 appendix A
 * "Opcode and Operand Encodings":
 *
 *     [VEX.LZ|VEX.L0|VEX.L1|VEX.LIG] [NP|66|F3|F2] [0F|0F 38|0F 3A] OP[+r] [FIXED] [/digit|/r]: operands [attributes]
 *
 * VEX.LIG takes any vector length. Two operands go beyond the manual's letters: `L` is a vector register in bits 7:4 of
 * an immediate byte, `Y` memory with a vector of indices (VSIB).
 *
 * `FIXED` is a whole ModRM byte (`0F 01 D8`). Without a prefix word a form takes any prefix, 66 being the operand size.
 * Attributes: [lock] LOCK is allowed with a memory destination; [cr8] LOCK makes CR0 mean CR8; [d64] 64-bit operand size by default in 64-bit mode;
 * [f64] always 64 bits there; [i64] invalid in 64-bit mode; [o64] only there; [prot] #UD in real and virtual-8086 mode;
 * [rep] repeated by REP prefixes; [b] an operand size of 8 bits that no operand shows; [w0] [w1] by REX.W or VEX.W;
 * [b0] without REX.B. Operand codes beyond appendix A: ST and STi, x87 registers; size t, 80 bits.
 *
 * Invariants: no two forms stand on one encoding, and in 64-bit code all forms of an opcode have a ModRM byte or none has, so that
 * where an instruction's operands begin follows from the bytes before them; building the tables fails otherwise.
 */
import { invariant } from '../errors.js';
import type { Feature, Instruction } from '../isa/instruction.js';

export type PrefixClass = 'any' | 'NP' | '66' | 'F3' | 'F2';

/** Operand as written in a form, split into addressing and size. */
export interface OperandCode {
  readonly addressing: string;
  readonly size: string;
}

export interface Form {
  readonly id: number;
  readonly instruction: Instruction;
  readonly text: string;
  /** 0 one-byte, 1 0F, 2 0F 38, 3 0F 3A. */
  readonly map: number;
  readonly opcode: number;
  readonly vex: boolean;
  readonly vexL: 0 | 1 | undefined;
  readonly prefix: PrefixClass;
  /** Register in the low three opcode bits. */
  readonly plusR: boolean;
  readonly hasModRM: boolean;
  readonly digit: number | undefined;
  readonly fixedModRM: number | undefined;
  /** Which ModRM.mod the operands demand. */
  readonly mod: 'any' | 'register' | 'memory' | 'ignored';
  readonly operands: readonly OperandCode[];
  readonly attributes: ReadonlySet<string>;
  /** All of them must be there. */
  readonly features: readonly Feature[];
}

export interface DecodeTables {
  readonly forms: readonly Form[];
  /** Candidates by map * 256 + opcode, most specific first. VEX maps follow the four legacy maps. */
  readonly candidates: readonly (readonly Form[])[];
}

const FORM = /^(?<code>[^:]*):(?<operands>[^[]*)(?<attributes>(\[[a-z0-9]+\]\s*)*)$/;
const ATTRIBUTES = new Set(['lock', 'cr8', 'd64', 'f64', 'i64', 'o64', 'prot', 'rep', 'b', 'b0', 'w0', 'w1']);
/** Operand codes without a size letter. */
const FIXED_OPERANDS = new Set(['AL', 'rAX', 'CL', 'DX', '1', 'M', 'eAX', 'XMM0', 'ST', 'STi']);
/** Addressing of register operands that ModRM.rm names. */
const REGISTER_ONLY = new Set(['R', 'U', 'N', 'STi']);

/** @throws InvariantError naming the form that is malformed or stands on another's encoding. */
export function buildTables(instructions: readonly Instruction[]): DecodeTables {
  const forms: Form[] = [];
  for (const instruction of instructions) {
    for (const text of instruction.forms) forms.push(parseForm(forms.length, instruction, text));
  }
  const candidates: Form[][] = Array.from({ length: 8 * 256 }, () => []);
  for (const form of forms) {
    const registers = form.plusR ? 8 : 1;
    for (let register = 0; register < registers; register++) {
      candidates[tableIndex(form.vex, form.map, form.opcode + register)]?.push(form);
    }
  }
  for (const list of candidates) {
    list.sort((a, b) => specificity(b) - specificity(a));
    refuseTwins(list);
    refuseMixture(list);
  }
  return { forms, candidates };
}

export const tableIndex = (vex: boolean, map: number, opcode: number): number => ((vex ? 4 : 0) + map) * 256 + opcode;

function parseForm(id: number, instruction: Instruction, text: string): Form {
  const where = `${instruction.mnemonic} form "${text}"`;
  const match = FORM.exec(text)?.groups;
  invariant(match, `${where} is not "opcode: operands [attributes]"`);
  const words = (match.code ?? '').trim().split(/\s+/);
  const attributes = new Set(Array.from((match.attributes ?? '').matchAll(/\[(\w+)\]/g), ([, name]) => name as string));
  for (const name of attributes) invariant(ATTRIBUTES.has(name), `${where} has the unknown attribute [${name}]`);

  const vexWord = words[0]?.startsWith('VEX') ? words.shift() : undefined;
  const vexL = vexWord === undefined || vexWord.endsWith('LIG') ? undefined : vexWord.endsWith('L1') ? 1 : 0;
  const prefix = takePrefix(words, vexWord !== undefined);
  const map = takeMap(words);
  const opcodeWord = words.shift() ?? '';
  const plusR = opcodeWord.endsWith('+r');
  const opcode = Number.parseInt(opcodeWord, 16);
  invariant(/^[0-9A-F]{2}(\+r)?$/.test(opcodeWord), `${where} has no opcode byte where one is due: "${opcodeWord}"`);
  let digit: number | undefined;
  let fixedModRM: number | undefined;
  let hasModRM = false;
  for (const word of words) {
    if (word === '/r') hasModRM = true;
    else if (/^\/[0-7]$/.test(word)) digit = Number(word[1]);
    else if (/^[0-9A-F]{2}$/.test(word)) fixedModRM = Number.parseInt(word, 16);
    else invariant(false, `${where} has the unknown word "${word}"`);
  }
  hasModRM ||= digit !== undefined || fixedModRM !== undefined;
  const operands = (match.operands ?? '')
    .split(',')
    .map((operand) => operand.trim())
    .filter((operand) => operand !== '')
    .map(parseOperand);
  // MOV to and from control and debug registers takes any ModRM.mod for a register (APM vol.3 MOV CRn, MOV DRn).
  const ignoresMod = operands.some(({ addressing }) => addressing === 'C' || addressing === 'D');
  const mod = ignoresMod
    ? 'ignored'
    : operands.some(({ addressing }) => addressing === 'M' || addressing === 'Y')
      ? 'memory'
      : operands.some(({ addressing }) => REGISTER_ONLY.has(addressing))
        ? 'register'
        : 'any';
  return {
    id,
    instruction,
    text,
    map,
    opcode,
    vex: vexWord !== undefined,
    vexL,
    prefix,
    plusR,
    hasModRM,
    digit,
    fixedModRM,
    mod,
    operands,
    attributes,
    features: [instruction.feature, instruction.alsoFeature].filter((feature) => feature !== undefined),
  };
}

/**
 * A leading 66, F3 or F2 is a mandatory prefix. Words are looked at only while an opcode byte follows them, so that the
 * one-byte opcodes of those values (which do not exist) cannot be meant.
 */
function takePrefix(words: string[], vex: boolean): PrefixClass {
  const word = words[0];
  if (word === 'NP') {
    words.shift();
    return 'NP';
  }
  if (words.length > 1 && (word === '66' || word === 'F3' || word === 'F2')) {
    words.shift();
    return word;
  }
  return vex ? 'NP' : 'any';
}

function takeMap(words: string[]): number {
  if (words[0] !== '0F' || words.length === 1) return 0;
  const [, next, opcode] = words;
  const long = (next === '38' || next === '3A') && /^[0-9A-F]{2}/.test(opcode ?? '');
  words.splice(0, long ? 2 : 1);
  return !long ? 1 : next === '38' ? 2 : 3;
}

function parseOperand(code: string): OperandCode {
  if (code === '1') return { addressing: 'one', size: 'b' };
  if (FIXED_OPERANDS.has(code)) return { addressing: code, size: '' };
  return { addressing: code[0] as string, size: code.slice(1) };
}

function specificity(form: Form): number {
  return (
    (form.fixedModRM !== undefined ? 32 : 0) +
    (form.digit !== undefined ? 16 : 0) +
    (form.prefix !== 'any' ? 8 : 0) +
    (form.mod === 'memory' || form.mod === 'register' ? 4 : 0) +
    (form.attributes.has('w0') || form.attributes.has('w1') || form.attributes.has('b0') ? 2 : 0) +
    (form.attributes.has('i64') || form.attributes.has('o64') ? 1 : 0)
  );
}

function refuseTwins(list: readonly Form[]): void {
  const seen = new Map<string, Form>();
  for (const form of list) {
    const modes = form.attributes.has('i64') ? 'i64' : form.attributes.has('o64') ? 'o64' : '';
    const w = form.attributes.has('w0') ? 'w0' : form.attributes.has('w1') ? 'w1' : '';
    const b = form.attributes.has('b0') ? 'b0' : '';
    const key = [form.prefix, form.digit, form.fixedModRM, form.mod, form.vexL, modes, w, b].join();
    const twin = seen.get(key);
    invariant(
      twin === undefined,
      `${form.instruction.mnemonic} "${form.text}" stands on the encoding of ${twin?.instruction.mnemonic} "${twin?.text}"`,
    );
    seen.set(key, form);
  }
}

function refuseMixture(list: readonly Form[]): void {
  const [first, ...others] = list.filter(({ attributes }) => !attributes.has('i64'));
  const other = others.find(({ hasModRM }) => hasModRM !== first?.hasModRM);
  invariant(
    other === undefined,
    `of ${first?.instruction.mnemonic} "${first?.text}" and ${other?.instruction.mnemonic} "${other?.text}" one alone has ModRM`,
  );
}

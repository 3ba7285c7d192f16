/**
 * Instructions as text, in Intel syntax, by the machine's own decoder: what it would execute is what is shown.
 */
import {
  type CodeMode,
  codeBits,
  type DecodedInstruction,
  type DecodedOperand,
  type Decoder,
  hasParagraphs,
  MAX_INSTRUCTION_BYTES,
  type MemoryOperand,
  NO_REGISTER,
  type PhysicalMemory,
  peekLinear,
  R,
  type Registers,
  RIP_BASE,
  SEGMENT_NAMES,
  type Slot,
} from '../machine/index.js';
import { hex } from './event-text.js';

export interface DisassembledInstruction {
  /** RIP, the offset in the code segment. */
  readonly rip: bigint;
  readonly bytes: Uint8Array;
  readonly text: string;
}

/** Where code is read from: memory, and the registers that say how. */
export interface CodePlace {
  readonly memory: PhysicalMemory;
  readonly registers: Registers;
  readonly decoder: Decoder;
  readonly features: Parameters<typeof peekLinear>[2];
}

/** At most `count` instructions from `rip` on; fewer where memory or sense ends. */
export function disassemble(place: CodePlace, rip: bigint, count: number): readonly DisassembledInstruction[] {
  const mode = codeModeOf(place.registers);
  const found: DisassembledInstruction[] = [];
  let at = rip;
  while (found.length < count) {
    const next = disassembleOne(place, at, mode);
    found.push(next);
    if (next.bytes.length === 0) break;
    at = cut(at + BigInt(next.bytes.length), mode.bits);
  }
  return found;
}

function disassembleOne(place: CodePlace, rip: bigint, mode: CodeMode): DisassembledInstruction {
  const { memory, registers, decoder, features } = place;
  // Only FS and GS have a base in 64-bit mode.
  const base = mode.bits === 64 ? 0n : (registers[R.csBase] as bigint);
  const linear = cut(base + rip, mode.bits === 64 ? 64 : 32);
  const bytes = peekLinear(memory, registers, features, linear, MAX_INSTRUCTION_BYTES);
  const insn = decoder.decode(bytes, mode);
  if (typeof insn !== 'string') return { rip, bytes: insn.bytes, text: instructionText(insn, rip) };
  if (bytes.length === 0) return { rip, bytes, text: '(not mapped)' };
  const reasons = { incomplete: '(the bytes end)', invalid: '(no instruction)', 'too-long': '(longer than 15 bytes)' };
  // One byte further may be sense again, but nobody executes it.
  return { rip, bytes: bytes.subarray(0, 0), text: `${reasons[insn]} ${bytesText(bytes)}` };
}

function codeModeOf(registers: Registers): CodeMode {
  const reader = { get: (slot: Slot) => registers[slot] as bigint };
  return { bits: codeBits(reader), real: hasParagraphs(reader) };
}

/** `rip  bytes  text` */
export const lineOf = ({ rip, bytes, text }: DisassembledInstruction): string =>
  `${hex(rip).padEnd(18)}  ${bytesText(bytes).padEnd(32)}  ${text}`;

const bytesText = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');

const cut = (value: bigint, bits: number): bigint => BigInt.asUintN(bits === 16 ? 32 : bits, value);

// Text

/** Mnemonics whose size shows in no operand, with their names by operand size. */
const SIZED: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  ...Object.fromEntries(
    ['MOVS', 'CMPS', 'STOS', 'LODS', 'SCAS', 'INS', 'OUTS'].map((name) => {
      const stem = name.toLowerCase();
      return [name, { 8: `${stem}b`, 16: `${stem}w`, 32: `${stem}d`, 64: `${stem}q` }];
    }),
  ),
  CBW: { 16: 'cbw', 32: 'cwde', 64: 'cdqe' },
  CWD: { 16: 'cwd', 32: 'cdq', 64: 'cqo' },
  IRET: { 16: 'iretw', 32: 'iretd', 64: 'iretq' },
  PUSHF: { 16: 'pushfw', 32: 'pushfd', 64: 'pushfq' },
  POPF: { 16: 'popfw', 32: 'popfd', 64: 'popfq' },
  PUSHA: { 16: 'pushaw', 32: 'pushad' },
  POPA: { 16: 'popaw', 32: 'popad' },
};
const RENAMED: Readonly<Record<string, string>> = {
  JMPF: 'jmp far',
  CALLF: 'call far',
  JCXZ_32: 'jecxz',
  JCXZ_64: 'jrcxz',
};
/** Their memory operand is an address, or has a size of its own. */
const WITHOUT_SIZE =
  /^(LEA|INVLPG|LGDT|LIDT|SGDT|SIDT|FXSAVE|FXRSTOR|XSAVE.*|XRSTOR.*|PREFETCH.*|CLFLUSH|CMPXCHG8B|CMPXCHG16B)$/;

/** @param rip of the instruction, for targets of branches. */
export function instructionText(insn: DecodedInstruction, rip: bigint): string {
  const prefix = `${insn.lock ? 'lock ' : ''}${repeatText(insn)}`;
  const operands = insn.operands.map((operand) => operandText(operand, insn, rip)).join(', ');
  return `${prefix}${mnemonicText(insn)}${operands === '' ? '' : ` ${operands}`}`;
}

function mnemonicText({ mnemonic, width, addressWidth }: DecodedInstruction): string {
  const sized = SIZED[mnemonic]?.[width];
  if (sized !== undefined) return sized;
  return RENAMED[mnemonic === 'JCXZ' ? `JCXZ_${addressWidth}` : mnemonic] ?? mnemonic.toLowerCase();
}

function repeatText({ rep, mnemonic }: DecodedInstruction): string {
  if (rep === 'none') return '';
  if (rep === 'repne') return 'repne ';
  return /^(CMPS|SCAS)/.test(mnemonic) ? 'repe ' : 'rep ';
}

const LOW_NAMES = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'] as const;
const BYTE_NAMES = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil'] as const;
const HIGH_BYTE_NAMES = ['ah', 'ch', 'dh', 'bh'] as const;

function gprName(number: number, width: number, high = false): string {
  if (high) return HIGH_BYTE_NAMES[number as 0 | 1 | 2 | 3];
  if (number >= 8) return `r${number}${width === 64 ? '' : width === 32 ? 'd' : width === 16 ? 'w' : 'b'}`;
  if (width === 8) return BYTE_NAMES[number] as string;
  const low = LOW_NAMES[number] as string;
  return width === 64 ? `r${low}` : width === 32 ? `e${low}` : low;
}

function operandText(operand: DecodedOperand, insn: DecodedInstruction, rip: bigint): string {
  switch (operand.kind) {
    case 'gpr':
      return gprName(operand.number, movesSystemRegister(insn) ? systemWidth(insn) : operand.width, operand.high);
    case 'mem':
      return memoryText(operand, insn, rip);
    case 'imm':
      return immediateText(operand.value, operand.width);
    case 'rel':
      return hex(BigInt.asUintN(insn.long ? 64 : insn.width, rip + BigInt(insn.length) + operand.displacement));
    case 'far':
      return `${hex(operand.selector)}:${hex(operand.offset)}`;
    case 'segment':
      return SEGMENT_NAMES[operand.number] ?? `segment ${operand.number}`;
    case 'xmm':
      return vectorName(operand.number, operand.width);
    case 'st':
      return `st(${operand.number})`;
    case 'mmx':
      return `mm${operand.number}`;
    case 'control':
      return `cr${operand.number}`;
    case 'debug':
      return `dr${operand.number}`;
  }
}

const vectorName = (number: number, width: number): string => `${width === 256 ? 'y' : 'x'}mm${number}`;

/** MOV CRn and MOV DRn: the mode alone says how wide they are. */
const movesSystemRegister = ({ operands }: DecodedInstruction): boolean =>
  operands.some(({ kind }) => kind === 'control' || kind === 'debug');
const systemWidth = ({ long }: DecodedInstruction): number => (long ? 64 : 32);

/** Small negative values read better with their sign. */
function immediateText(value: bigint, width: number): string {
  const signed = BigInt.asIntN(width, value);
  return width > 8 && signed < 0n && signed > -0x1_0000n ? `-${hex(-signed)}` : hex(value);
}

const SIZE_NAMES: Readonly<Record<number, string>> = {
  8: 'byte ',
  16: 'word ',
  32: 'dword ',
  48: 'fword ',
  64: 'qword ',
  80: 'tbyte ',
  128: 'xmmword ',
  256: 'ymmword ',
};

function memoryText(operand: MemoryOperand, insn: DecodedInstruction, rip: bigint): string {
  const { base, index, scale, displacement, width } = operand;
  const size = WITHOUT_SIZE.test(insn.mnemonic) ? '' : (SIZE_NAMES[width] ?? '');
  const segment = insn.segmentOverride === undefined ? '' : `${SEGMENT_NAMES[insn.segmentOverride]}:`;
  if (base === RIP_BASE) {
    return `${size}${segment}[rip${signedText(displacement)}] (${hex(cut(rip + BigInt(insn.length) + displacement, 64))})`;
  }
  const terms: string[] = [];
  if (base !== NO_REGISTER) terms.push(gprName(base, insn.addressWidth));
  if (index !== NO_REGISTER) terms.push(`${gprName(index, insn.addressWidth)}${scale === 0 ? '' : `*${1 << scale}`}`);
  if (operand.vectorIndex !== undefined) {
    const index = vectorName(operand.vectorIndex.number, operand.vectorIndex.width);
    terms.push(`${index}${scale === 0 ? '' : `*${1 << scale}`}`);
  }
  if (terms.length === 0) return `${size}${segment}[${hex(BigInt.asUintN(insn.addressWidth, displacement))}]`;
  return `${size}${segment}[${terms.join('+')}${displacement === 0n ? '' : signedText(displacement)}]`;
}

const signedText = (value: bigint): string => (value < 0n ? `-${hex(-value)}` : `+${hex(value)}`);

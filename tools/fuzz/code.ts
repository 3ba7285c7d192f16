/**
 * Random code: pieces of instructions of one mode side by side, so that what leaves a piece runs on in code of another.
 * Instructions come from the tables of the decoder, every form as often as any other; between them stand sequences of the
 * simple integer instructions that compiled programs are made of, for the engine has short ways for those.
 */
import type { Decoder, Form } from '../../src/machine/index.js';
import { type Aim, type Bits, encode } from './encode.js';
import { randomIdiom } from './idioms.js';
import { At, CODE_BYTES, type Image, SELECTORS } from './memory-map.js';
import type { Random } from './random.js';
import { codePlace, dataOffset } from './values.js';

export const PIECE_BYTES = 128;
export const PIECES = CODE_BYTES / PIECE_BYTES;
const LONGEST = 15;
const INT3 = 0xcc;

/** What stops a program, or the whole machine, nearly every time: rarely written. */
const STOPS = /^(HLT|MWAITX?|INVD|WBINVD|OUTS?|INS?|VMRUN|RSM|CLGI)$/;
const STOPS_AMONG = 6;
/** What often breaks a program's tables or mode for good: only some programs have it in numbers. */
const BREAKS =
  /^(LGDT|LIDT|LTR|LLDT|WRMSR|LMSW|XSETBV|XRSTOR.*|FXRSTOR|SWAPGS|MOV|SYSCALL|SYSRET|SYSENTER|SYSEXIT|VMLOAD)$/;
const BREAKS_AMONG = 8;

/** One place in so many has one of the idioms. */
const IDIOMS_AMONG = 40;

const COMPILED =
  /^(ADD|OR|ADC|SBB|AND|SUB|XOR|CMP|TEST|MOV|MOVZX|MOVSXD?|LEA|INC|DEC|NEG|NOT|SHL|SHR|SAR|ROL|ROR|IMUL|PUSH|POP|J[A-Z]+|SET[A-Z]+|CMOV[A-Z]+|CALL|RET|XCHG|BT|MOVS|STOS|LODS|SCAS|CMPS|LEAVE)$/;
const COMPARES = /^(CMP|TEST|SUB|AND|DEC|ADD)$/;
const BRANCHES = /^J(?!MP|CXZ)[A-Z]+$/;

/** The kinds of programs by what they are made of. */
export interface Repertoire {
  readonly all: readonly Form[];
  readonly compiled: readonly Form[];
  readonly compares: readonly Form[];
  readonly branches: readonly Form[];
  /** Forms of one group, for programs that are mostly about it. */
  readonly groups: ReadonlyMap<string, readonly Form[]>;
}

const isSystem = ({ instruction }: Form): boolean => 'system' in instruction;

/** The group that a form is counted with. */
export function groupOf(form: Form): string {
  const { instruction, map, opcode, vex, attributes } = form;
  const { feature } = instruction;
  if (map === 0 && opcode >= 0xd8 && opcode <= 0xdf) return 'x87';
  if (feature === 'mmx') return 'MMX';
  if (feature === 'svm') return 'SVM';
  if (feature !== undefined && /^(avx2?|fma|f16c)$/.test(feature)) return 'AVX';
  if (feature !== undefined && /^(sse|ssse|aes|pclmul|sha)/.test(feature)) return 'SSE';
  if (feature?.startsWith('xsave')) return 'control plane';
  if (attributes.has('rep')) return 'string';
  if (/^(J|CALL|RET|LOOP)/.test(instruction.mnemonic)) return 'branch';
  if (isSystem(form)) return 'control plane';
  return vex ? 'BMI' : 'integer';
}

export function repertoireOf(forms: readonly Form[], features: ReadonlySet<string>): Repertoire {
  const all = forms.filter((form) => form.features.every((feature) => features.has(feature)));
  const named = (pattern: RegExp): readonly Form[] =>
    all.filter((form) => pattern.test(form.instruction.mnemonic) && !isSystem(form));
  const groups = new Map<string, Form[]>();
  for (const form of all) groups.set(groupOf(form), [...(groups.get(groupOf(form)) ?? []), form]);
  return { all, compiled: named(COMPILED), compares: named(COMPARES), branches: named(BRANCHES), groups };
}

export interface CodeStyle {
  /** The group that half of the code is about. */
  readonly theme: string | undefined;
  /** One in so many places has a sequence of integer instructions. */
  readonly compiled: number;
  readonly breaks: boolean;
}

export function randomStyle({ groups }: Repertoire, random: Random): CodeStyle {
  return {
    theme: random.oneIn(2) ? random.pick([...groups.keys()]) : undefined,
    compiled: random.pick([3, 8, 8, 30]),
    breaks: random.oneIn(4),
  };
}

/** Fills the code region. @param bitsOf the mode of each piece. */
export function writeCode(
  image: Image,
  decoder: Decoder,
  {
    repertoire,
    style,
    random,
  }: { readonly repertoire: Repertoire; readonly style: CodeStyle; readonly random: Random },
  bitsOf: (piece: number) => Bits,
): void {
  for (let piece = 0; piece < PIECES; piece++) {
    const writer = new PieceWriter(image, decoder, random, bitsOf(piece), piece * PIECE_BYTES);
    while (!writer.isFull) writePlace(writer, repertoire, style, random);
    writer.close();
  }
}

/** The next instruction, or a few that belong together. */
function writePlace(writer: PieceWriter, repertoire: Repertoire, style: CodeStyle, random: Random): void {
  if (random.oneIn(style.compiled)) {
    const length = 1 + random.below(6);
    for (let index = 0; index < length; index++) writer.write(random.pick(repertoire.compiled));
    if (!random.oneIn(3)) return;
    writer.write(random.pick(repertoire.compares));
    writer.write(random.pick(repertoire.branches));
    return;
  }
  if (random.oneIn(IDIOMS_AMONG)) {
    writer.put(randomIdiom(writer.bits, random));
    return;
  }
  const themed = style.theme !== undefined && random.oneIn(2) ? repertoire.groups.get(style.theme) : undefined;
  const form = random.pick(themed ?? repertoire.all);
  const { mnemonic } = form.instruction;
  if (STOPS.test(mnemonic) && !random.oneIn(STOPS_AMONG)) return;
  if (isSystem(form) && BREAKS.test(mnemonic) && !style.breaks && !random.oneIn(BREAKS_AMONG)) return;
  writer.write(form);
}

class PieceWriter {
  private at = 0;

  constructor(
    private readonly image: Image,
    private readonly decoder: Decoder,
    private readonly random: Random,
    readonly bits: Bits,
    private readonly start: number,
  ) {}

  get isFull(): boolean {
    return this.at >= PIECE_BYTES - 2;
  }

  /** What has no encoding in this mode is left out, but for a few bytes now and then. What does not fit is cut. */
  write(form: Form): void {
    if (this.isFull) return;
    const { random, bits } = this;
    const encoded = encode(form, bits, random, this.aim());
    const insn = this.decoder.decode(encoded, { bits, real: false });
    if (typeof insn === 'string' && !random.oneIn(24)) return;
    const length = typeof insn === 'string' ? 1 + random.below(3) : insn.length;
    const room = Math.min(length, PIECE_BYTES - 1 - this.at, LONGEST);
    this.image.bytes.set(encoded.subarray(0, room), At.CODE + this.start + this.at);
    this.at += room;
  }

  /** A sequence as it is, when there is room for all of it. */
  put(bytes: readonly number[]): void {
    if (this.at + bytes.length >= PIECE_BYTES) return;
    this.image.bytes.set(bytes, At.CODE + this.start + this.at);
    this.at += bytes.length;
  }

  close(): void {
    this.image.write8(At.CODE + this.start + PIECE_BYTES - 1, this.random.oneIn(2) ? INT3 : 0x90);
  }

  private aim(): Aim {
    const { random } = this;
    const segmented = this.bits === 16;
    const [code, data] = segmented ? [0, 0] : [At.CODE, At.DATA];
    return {
      rip: code + this.start + this.at,
      data: () => data + dataOffset(random),
      code: () => code + codePlace(random),
      selector: () => random.pick(SELECTORS),
    };
  }
}

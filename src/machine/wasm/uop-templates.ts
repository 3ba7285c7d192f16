/**
 * Micro-ops of instructions like earlier ones. All that an instruction is, but for its displacement and its immediate, is decided by the
 * bytes in front of these: prefixes, opcode, ModRM, SIB. A tree over such bytes leads to a template, the micro-ops of the first
 * instruction that began with them; another one is a copy of it, with numbers and a place of its own, and is neither decoded nor packed.
 * Source: APM vol.3 §1 Instruction Encoding.
 */
import { type DecodedInstruction, RIP_BASE } from '../decode/decoded.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { KnownHandler } from './handlers.js';
import { endsBlock, memoryOperand, type UopPlace, type WrittenInstruction } from './translate.js';
import { Uop } from './uop.js';

const UOP_WORDS = Uop.BYTES / 4;
const DISPLACEMENT_WORD = Uop.DISPLACEMENT / 4;
const IMMEDIATE_WORD = Uop.IMMEDIATE / 4;
const PAGE_OFFSET_WORD = Uop.PAGE_OFFSET / 4;
const POSITION_SHIFT = 8 * Uop.POSITION;
const POSITION_MASK = 0xff << POSITION_SHIFT;
const PAGE_OFFSET_MASK = 0xffff;

export interface UopTemplate {
  readonly handler: KnownHandler;
  /** Bytes of the instruction. */
  readonly length: number;
  /** Its micro-ops, but for what is the instruction's own. */
  readonly words: Int32Array;
  readonly endsBlock: boolean;
  /** A branch by its immediate. */
  readonly isRelative: boolean;
  /** The sample, where what may be compiled depends on more than that the code is of 64 bits. */
  readonly conditional: DecodedInstruction | undefined;
  /** Where the displacement stands in the instruction, and its bytes: 0, 1 or 4. */
  readonly displacementAt: number;
  readonly displacementBytes: number;
  /** It counts from the end of the instruction, and that of the micro-op from the start of the page. */
  readonly fromRip: boolean;
  readonly immediateAt: number;
  /** 0, 1, 2, 4 or 8. */
  readonly immediateBytes: number;
  /** Of the value that they are extended to, and cut to. */
  readonly immediateBits: number;
}

/** One for each byte that may follow. */
const BRANCHES = 256;
const FIRST_NODES = 64;
/** Four mebibytes: a boot of Linux has half of that. */
const MOST_NODES = 4096;

export class UopTemplates {
  /** Of each node what each byte leads to: another node, the complement of a template's number, or 0. */
  private nodes = new Int32Array(FIRST_NODES * BRANCHES);
  private nodesUsed = 1;
  private readonly templates: UopTemplate[] = [];
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly words: Uint32Array;
  /** The immediate of the instruction that was written last. */
  immediate = 0;

  constructor(memory: PhysicalMemory) {
    this.bytes = memory.bytes;
    this.view = memory.view;
    this.words = memory.words;
  }

  /** @param at where an instruction of 64-bit code lies in the memory; what lies behind it may be no part of the code. */
  find(at: number): UopTemplate | undefined {
    const { nodes, bytes } = this;
    let place = at;
    let node = 0;
    do {
      node = nodes[node * BRANCHES + (bytes[place++] as number)] as number;
    } while (node > 0);
    return node === 0 ? undefined : this.templates[~node];
  }

  /**
   * Writes the micro-ops of an instruction at `uop`. @param at where it lies in the memory.
   * @returns the last of its micro-ops; 0, and nothing is written, where a displacement is out of their range.
   */
  write(uop: number, template: UopTemplate, at: number, { pageOffset, position }: UopPlace): number {
    const { words } = this;
    const { words: sample } = template;
    const first = uop >>> 2;
    let displacement = 0;
    if (template.displacementBytes > 0) {
      displacement = this.number(at + template.displacementAt, template.displacementBytes);
      if (template.fromRip) displacement += pageOffset + template.length;
      if (displacement !== (displacement | 0)) return 0;
    }
    for (let index = 0; index < sample.length; index += UOP_WORDS) {
      const head = first + index;
      for (let word = 0; word < UOP_WORDS; word++) words[head + word] = sample[index + word] as number;
      words[head] = (words[head] as number) | (position << POSITION_SHIFT);
      words[head + PAGE_OFFSET_WORD] = (words[head + PAGE_OFFSET_WORD] as number) | pageOffset;
    }
    // The first micro-op has the address, the last one the rest.
    if (template.displacementBytes > 0) words[first + DISPLACEMENT_WORD] = displacement;
    const last = first + sample.length - UOP_WORDS;
    if (template.immediateBytes > 0) this.writeImmediate(last + IMMEDIATE_WORD, template, at);
    return last << 2;
  }

  private writeImmediate(word: number, template: UopTemplate, at: number): void {
    const { words, view } = this;
    const { immediateBytes, immediateBits } = template;
    const place = at + template.immediateAt;
    const low = this.number(place, Math.min(4, immediateBytes));
    const high = immediateBytes === 8 ? view.getInt32(place + 4, true) : low >> 31;
    this.immediate = low;
    words[word] = immediateBits < 32 ? low & ((1 << immediateBits) - 1) : low;
    words[word + 1] = immediateBits === 64 ? high : 0;
  }

  /** As two's complement. @param bytes 1, 2 or 4. */
  private number(at: number, bytes: number): number {
    if (bytes === 1) return this.view.getInt8(at);
    return bytes === 2 ? this.view.getInt16(at, true) : this.view.getInt32(at, true);
  }

  /**
   * Keeps how an instruction of 64-bit code was written at `uop`, for others that begin as it does. No such beginning is that of
   * another one (`decode/tables.ts`): a template ends its path.
   */
  learn({ insn, handler, end }: WrittenInstruction, uop: number): void {
    const template = this.templateOf(insn, handler, this.words.subarray(uop >>> 2, end >>> 2));
    if (template === undefined) return;
    let node = 0;
    for (let index = 0; index < insn.headLength - 1; index++) {
      const branch = node * BRANCHES + (insn.bytes[index] as number);
      let next = this.nodes[branch] as number;
      if (next === 0) {
        if (!this.hasRoom()) return;
        next = this.nodesUsed++;
        this.nodes[branch] = next;
      }
      node = next;
    }
    this.nodes[node * BRANCHES + (insn.bytes[insn.headLength - 1] as number)] = ~this.templates.length;
    this.templates.push(template);
  }

  private hasRoom(): boolean {
    const { nodes, nodesUsed } = this;
    if (nodesUsed * BRANCHES < nodes.length) return true;
    if (nodesUsed >= MOST_NODES) return false;
    this.nodes = new Int32Array(2 * nodes.length);
    this.nodes.set(nodes);
    return true;
  }

  /** @param written its micro-ops. @returns nothing for instructions whose numbers stand elsewhere, or mean something else. */
  private templateOf(insn: DecodedInstruction, handler: KnownHandler, written: Uint32Array): UopTemplate | undefined {
    const memory = memoryOperand(insn);
    const displacementBytes = memory === undefined ? 0 : displacementBytesOf(insn);
    const immediateBytes = insn.length - insn.headLength - displacementBytes;
    const numbers = insn.operands.filter(({ kind }) => kind === 'imm' || kind === 'rel');
    const [number] = numbers;
    if (immediateBytes > 0 && (number === undefined || numbers.length > 1)) return undefined;
    const words = new Int32Array(written);
    for (let head = 0; head < words.length; head += UOP_WORDS) {
      words[head] = (words[head] as number) & ~POSITION_MASK;
      words[head + PAGE_OFFSET_WORD] = (words[head + PAGE_OFFSET_WORD] as number) & ~PAGE_OFFSET_MASK;
    }
    const { instruction, system, lock } = insn;
    return {
      handler,
      length: insn.length,
      words,
      endsBlock: endsBlock(insn, true),
      isRelative: insn.operands[0]?.kind === 'rel',
      conditional: lock || system !== undefined || instruction.feature !== undefined ? insn : undefined,
      displacementAt: insn.headLength,
      displacementBytes,
      fromRip: memory?.base === RIP_BASE,
      immediateAt: insn.headLength + displacementBytes,
      immediateBytes,
      immediateBits: number?.kind === 'imm' ? number.width : 64,
    };
  }
}

/** By ModRM and SIB. Source: APM vol.3 §1.4 ModRM and SIB Bytes. */
function displacementBytesOf({ modrm, bytes, headLength }: DecodedInstruction): number {
  const mod = modrm >> 6;
  const field = modrm & 7;
  if (mod === 1) return 1;
  if (mod === 2) return 4;
  const sib = bytes[headLength - 1] as number;
  return field === 5 || (field === 4 && (sib & 7) === 5) ? 4 : 0;
}

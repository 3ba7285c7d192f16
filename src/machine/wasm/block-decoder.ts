/** Code → blocks of micro-ops: decodes from a place on, as far as instructions follow each other within the page. */
import type { Decoder } from '../decode/decode.js';
import { type CodeMode, type DecodedInstruction, MAX_INSTRUCTION_BYTES } from '../decode/decoded.js';
import type { RegisterFile } from '../layout/cpu-state.js';
import { RAM_BASE } from '../layout/linear-memory.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { PAGE_BYTES, type SPA, sPA } from '../units.js';
import type { BlockCache } from './block-cache.js';
import { codeAddress } from './code-segment.js';
import { Mode } from './context.js';
import { isCompiled, TO_THE_EVALUATOR } from './handlers.js';
import { endsBlock, type Translator, WrittenBlock } from './translate.js';
import { MAX_BLOCK_INSTRUCTIONS, Uop } from './uop.js';
import { type UopTemplate, UopTemplates } from './uop-templates.js';

/** Where a block begins, and how its code is read. */
export interface BlockStart {
  readonly rip: bigint;
  readonly linear: bigint;
  readonly page: SPA;
  /** In the page. */
  readonly offset: number;
  /** Key of decoding, as blocks have it. */
  readonly mode: number;
  readonly codeMode: CodeMode;
  /** The segment may end amid the page, or IP wrap: one instruction alone. */
  readonly careful: boolean;
}

/** What the engine tells of the code that runs, and is told. */
export interface DecodingSite {
  readonly registers: RegisterFile;
  /** Offsets in a page at which nothing is compiled. */
  readonly kept: ReadonlySet<number>;
  mayCompile(insn: DecodedInstruction): boolean;
  /** @returns sPA of the code at a linear address, negative when it cannot be fetched. The walk leaves its marks. */
  fetch(linear: bigint): number;
  /** A page holds code now that held none. */
  coded(page: SPA): void;
}

export class BlockDecoder {
  /** Instructions that are left to the control plane, by the micro-op that asks. */
  readonly assists = new Map<number, DecodedInstruction>();
  private readonly view: DataView;
  private readonly templates: UopTemplates;
  private readonly written = new WrittenBlock();

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly decoder: Decoder,
    private readonly translator: Translator,
    private readonly blocks: BlockCache,
    private readonly site: DecodingSite,
  ) {
    this.view = memory.view;
    this.templates = new UopTemplates(memory);
  }

  /** @returns the first micro-op of the block at `place`; 0 when its first instruction cannot be decoded. */
  decode(place: BlockStart): number {
    const { rip, page, offset: start, mode, codeMode, careful } = place;
    const first = this.blocks.reserve();
    const single = careful || (mode & Mode.SINGLE) !== 0;
    const inside = single ? 0 : this.blocks.inside(page, start, mode);
    if (inside !== 0) {
      this.blocks.add(page, start, mode, this.translator.writeInside(first, start, inside), 1);
      return first;
    }
    const block = this.begin(first, codeMode);
    const bytes = this.memory.window(page, PAGE_BYTES);
    const most = single ? 1 : MAX_BLOCK_INSTRUCTIONS;
    let offset = start;
    while (offset < PAGE_BYTES && block.count < most && !this.isKept(offset)) {
      const template = block.long ? this.templates.find(RAM_BASE + page + offset) : undefined;
      if (template !== undefined && this.copy(template, page, offset, block)) {
        offset += template.length;
        if (template.isRelative && !single) this.link(block.last, this.templates.immediate, page, offset, mode);
        if (template.endsBlock) break;
        continue;
      }
      const insn = this.decoder.decode(bytes, codeMode, offset);
      if (insn === 'incomplete' && block.count === 0) return this.decodeCrossing(place);
      if (typeof insn === 'string') break;
      // The limit may cut it; the evaluator sees what becomes of that.
      if (careful && codeAddress(this.site.registers, mode, rip + BigInt(insn.length - 1)) === undefined) break;
      const compiled = this.write(insn, offset, block);
      offset += insn.length;
      const [operand] = insn.operands;
      if (operand?.kind === 'rel' && compiled && !single)
        this.link(block.last, Number(operand.displacement), page, offset, mode);
      if (endsBlock(insn, compiled)) break;
    }
    if (block.count === 0) return 0;
    if (!single) {
      this.translator.dropDeadFlags(block);
      this.translator.fusePairs(block);
    }
    const end = this.translator.writeEnd(block.end, { pageOffset: offset, position: block.count });
    const fresh = this.blocks.add(page, start, careful ? undefined : mode, end, offset - start);
    if (fresh) this.site.coded(page);
    return first;
  }

  private begin(first: number, { bits }: CodeMode): WrittenBlock {
    this.written.begin(first, bits === 64);
    return this.written;
  }

  private isKept(offset: number): boolean {
    const { kept } = this.site;
    return kept.size > 0 && kept.has(offset);
  }

  /** Writes the instruction at `offset` as one like it was written. @returns false where that cannot be. */
  private copy(template: UopTemplate, page: SPA, offset: number, block: WrittenBlock): boolean {
    if (offset + template.length > PAGE_BYTES) return false;
    if (template.conditional !== undefined && !this.site.mayCompile(template.conditional)) return false;
    const { place } = this;
    place.pageOffset = offset;
    place.position = block.count;
    const uop = this.templates.write(block.end, template, RAM_BASE + page + offset, place);
    if (uop === 0) return false;
    block.add(template.handler, uop);
    return true;
  }
  private readonly place = { pageOffset: 0, position: 0 };

  /** @returns whether it is compiled code that executes it. */
  private write(insn: DecodedInstruction, offset: number, block: WrittenBlock): boolean {
    const compiled = this.site.mayCompile(insn) && isCompiled(insn);
    const at = block.end;
    const one = this.translator.write(at, insn, { pageOffset: offset, position: block.count }, compiled);
    block.add(one.handler, one.uop);
    // Address micro-ops may leave for the evaluator too.
    if (one.uop !== at) this.assists.set(at, insn);
    if (one.handler === TO_THE_EVALUATOR) this.assists.set(one.uop, insn);
    else if (block.long) this.templates.learn(one, at);
    return compiled;
  }

  /** One instruction of which some bytes lie in the next page. */
  private decodeCrossing({ rip, linear, page, offset: start, mode, codeMode }: BlockStart): number {
    const { site } = this;
    if (codeAddress(site.registers, mode, rip + BigInt(PAGE_BYTES - start)) === undefined) return 0;
    const next = BigInt.asUintN((mode & Mode.BITS64) !== 0 ? 64 : 32, (linear & ~0xfffn) + 0x1000n);
    const second = site.fetch(next);
    if (second < 0 || !this.memory.isRam(second, MAX_INSTRUCTION_BYTES + 1)) return 0;
    const bytes = new Uint8Array(MAX_INSTRUCTION_BYTES);
    const inFirst = PAGE_BYTES - start;
    bytes.set(this.memory.window(page + start, Math.min(MAX_INSTRUCTION_BYTES, inFirst)));
    bytes.set(this.memory.window(second, MAX_INSTRUCTION_BYTES - inFirst), inFirst);
    const insn = this.decoder.decode(bytes, codeMode);
    if (typeof insn === 'string') return 0;
    const first = this.blocks.reserve();
    const { end } = this.translator.write(first, insn, { pageOffset: start, position: 0 }, site.mayCompile(insn));
    for (let uop = first; uop < end; uop += Uop.BYTES) this.assists.set(uop, insn);
    const at = this.translator.writeEnd(end, { pageOffset: start + insn.length, position: 1 });
    if (this.blocks.add(page, start, undefined, at, insn.length, sPA(second))) {
      site.coded(page);
      site.coded(sPA(second - (second % PAGE_BYTES)));
    }
    return first;
  }

  /**
   * A relative branch within the page jumps to its target's block directly, once that is decoded.
   * @param after offset of what follows the branch.
   */
  private link(uop: number, displacement: number, page: SPA, after: number, mode: number): void {
    const target = after + displacement;
    if (target < 0 || target >= PAGE_BYTES) return;
    const known = this.blocks.find(page, target, mode);
    if (known !== 0) this.view.setInt32(uop + Uop.LINK, known, true);
    else this.blocks.awaitLink(page, target, mode, uop);
  }
}

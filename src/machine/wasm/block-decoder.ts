/** Code → blocks of micro-ops: decodes from a place on, as far as instructions follow each other within the page. */
import type { Decoder } from '../decode/decode.js';
import { type CodeMode, type DecodedInstruction, MAX_INSTRUCTION_BYTES } from '../decode/decoded.js';
import type { RegisterFile } from '../layout/cpu-state.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { PAGE_BYTES, type SPA, sPA } from '../units.js';
import type { BlockCache } from './block-cache.js';
import { codeAddress } from './code-segment.js';
import { Mode } from './context.js';
import { isCompiled, TO_THE_EVALUATOR } from './handlers.js';
import { endsBlock, type Translator, type WrittenInstruction } from './translate.js';
import { MAX_BLOCK_INSTRUCTIONS, Uop } from './uop.js';

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

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly decoder: Decoder,
    private readonly translator: Translator,
    private readonly blocks: BlockCache,
    private readonly site: DecodingSite,
  ) {
    this.view = memory.view;
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
    const bytes = this.memory.window(page, PAGE_BYTES);
    let at = first;
    let offset = start;
    let position = 0;
    const written: WrittenInstruction[] = [];
    while (offset < PAGE_BYTES && position < (single ? 1 : MAX_BLOCK_INSTRUCTIONS)) {
      if (this.site.kept.has(offset)) break;
      const insn = this.decoder.decode(bytes, codeMode, offset);
      if (insn === 'incomplete' && position === 0) return this.decodeCrossing(place);
      if (typeof insn === 'string') break;
      // The limit may cut it; the evaluator sees what becomes of that.
      if (careful && codeAddress(this.site.registers, mode, rip + BigInt(insn.length - 1)) === undefined) break;
      const compiled = this.site.mayCompile(insn) && isCompiled(insn);
      const one = this.translator.write(at, insn, { pageOffset: offset, position }, compiled);
      if (one.handler === TO_THE_EVALUATOR) this.assists.set(one.uop, insn);
      // Address micro-ops may leave for the evaluator too.
      if (one.uop !== at) this.assists.set(at, insn);
      at = one.end;
      offset += insn.length;
      position++;
      if (!single) {
        this.link(one.uop, insn, page, offset, mode);
        written.push(one);
      }
      if (endsBlock(insn, compiled)) break;
    }
    if (position === 0) return 0;
    this.translator.dropDeadFlags(written);
    this.translator.fusePairs(written);
    at = this.translator.writeEnd(at, { pageOffset: offset, position });
    const fresh = this.blocks.add(page, start, careful ? undefined : mode, at, offset - start);
    if (fresh) this.site.coded(page);
    return first;
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

  /** A relative branch within the page jumps to its target's block directly, once that is decoded. */
  private link(uop: number, insn: DecodedInstruction, page: SPA, after: number, mode: number): void {
    const operand = insn.operands[0];
    if (operand?.kind !== 'rel' || this.view.getUint16(uop, true) === 0) return;
    const target = after + Number(operand.displacement);
    if (target < 0 || target >= PAGE_BYTES) return;
    const known = this.blocks.find(page, target, mode);
    if (known !== 0) this.view.setInt32(uop + Uop.LINK, known, true);
    else this.blocks.awaitLink(page, target, mode, uop);
  }
}

/**
 * The regions of a machine: finds out where it spends its time, compiles what is there, and puts it in the way of the
 * interpreter. A region is entered by micro-ops, whose handler it is then; one that must go gives them their handlers back.
 *
 * When a region comes into use shows nowhere: it does what its instructions do, in the same order, and stops where they stop.
 */
import type { DecodedInstruction } from '../../decode/decoded.js';
import { Cell, WASM_PAGE_BYTES } from '../../layout/linear-memory.js';
import type { PhysicalMemory } from '../../mmu/memory.js';
import type { SPA } from '../../units.js';
import type { BlockCache } from '../block-cache.js';
import { ByShape } from '../by-shape.js';
import { Mode } from '../context.js';
import { isCompiled } from '../handlers.js';
import type { Interpreter } from '../interpreter.js';
import type { Translator } from '../translate.js';
import { Uop } from '../uop.js';
import { compileRegion, isForRegions } from './compile.js';
import {
  type CodeSource,
  discover,
  type RegionBlock,
  type RegionCode,
  type RegionInstruction,
  type Treatment,
} from './discover.js';
import { hashOf, NO_RIP, RegionLayout } from './layout.js';
import type { RegionPolicy } from './policy.js';

/** What the engine knows of the code that runs now. */
export interface RunningCode {
  /** Key of decoding, as blocks have it. */
  readonly mode: number;
  /** Whether regions can be made of code in this mode at all. */
  readonly isForRegions: boolean;
  /** Where the page lies that begins at a RIP, if code of it has run since translations last changed. */
  pageAt(rip: bigint): SPA | undefined;
  /** The same, where tables tell without being marked. */
  findPage(rip: bigint): SPA | undefined;
  decode(page: SPA, offset: number): DecodedInstruction | undefined;
  mayCompile(insn: DecodedInstruction): boolean;
  /** A page holds code now that held none. */
  coded(page: SPA): void;
}

interface Entry {
  readonly page: SPA;
  readonly offset: number;
  readonly mode: number;
}

interface Patched {
  readonly uop: number;
  /** The handler that stood there. */
  readonly handler: number;
  readonly page: SPA;
}

interface Region {
  readonly handler: number;
  readonly layout: RegionLayout;
  readonly mode: number;
  /** By the RIP at which each begins. */
  readonly pages: ReadonlyMap<bigint, SPA>;
  readonly entries: readonly Entry[];
  readonly patched: Patched[];
  /** Where its instructions stand, as first RIP and end of each block. */
  readonly spans: readonly (readonly [bigint, bigint])[];
  /** How often in a row it was asked for in another context. */
  strangers: number;
}

/** Stops of the interpreter at one place that make it worth compiling: the first ones. */
const HOT = 2;
/**
 * One more for each few regions that were made, up to a bound: where much has been compiled already, as in a boot, code runs for a while and
 * then never again, and compiling it takes longer than it will run.
 */
const REGIONS_FOR_A_STOP = 4;
const HOTTEST = 12;
/** Places that are counted; then all are forgotten. */
const MOST_PLACES = 4096;
/** Instructions that are compiled for each stop of the interpreter, at most: compiling takes its time, too. */
const INSTRUCTIONS_FOR_A_STOP = 100;
/** Pages whose code was overwritten so often are left to the interpreter. */
const MOST_DROPS = 4;
const MOST_STRANGERS = 256;
/** First instruction with its address, and an end. */
const TWIN_BYTES = 3 * Uop.BYTES;

export class Regions {
  private readonly byHandler = new Map<number, Region>();
  private readonly byPage = new Map<SPA, Set<Region>>();
  private readonly byEntry = new Map<string, { readonly region: Region; readonly number: number }>();
  private readonly stops = new Map<bigint, number>();
  private readonly drops = new Map<SPA, number>();
  private readonly treatments = new ByShape<Treatment>();
  /** Instructions compiled ahead of the stops that pay for them. */
  private debt = 0;
  /** Regions compiled so far. */
  made = 0;
  /** Regions dropped so far: the one that runs may be among them. */
  dropped = 0;
  /** Instructions of all regions that were made, and bytes of their modules. */
  instructions = 0;
  moduleBytes = 0;

  constructor(
    private readonly memory: PhysicalMemory,
    private readonly interpreter: Interpreter,
    private readonly blocks: BlockCache,
    private readonly translator: Translator,
    private readonly policy: RegionPolicy,
  ) {
    blocks.onBlock = (page, offset, mode, uop) => this.onBlock({ page, offset, mode }, uop);
    blocks.onDrop = (page) => this.onDrop(page);
  }

  /** The interpreter stopped before RIP because its budget was spent: it has been running. */
  stopped(rip: bigint, code: RunningCode): void {
    this.look(rip, code, false);
  }

  /**
   * A run begins at RIP, and it is time to look. An interrupt or an exit may have ended the run before anywhere inside of a
   * region: hot code that a region has already does not become one once more.
   */
  resumed(rip: bigint, code: RunningCode): void {
    this.look(rip, code, this.policy === 'hot' && this.covers(rip, code, code.mode));
  }

  private look(rip: bigint, code: RunningCode, isKnown: boolean): void {
    this.debt = Math.max(0, this.debt - INSTRUCTIONS_FOR_A_STOP);
    if (isKnown || !code.isForRegions || this.isEntry(rip, code)) return;
    const stops = (this.stops.get(rip) ?? 0) + 1;
    if (this.stops.size > MOST_PLACES) this.stops.clear();
    this.stops.set(rip, stops);
    if (this.policy === 'hot' && (stops < this.hot || this.debt > 0)) return;
    this.stops.delete(rip);
    this.debt += this.compile(rip, code);
  }

  private get hot(): number {
    return Math.min(HOTTEST, HOT + Math.floor(this.made / REGIONS_FOR_A_STOP));
  }

  /** Whether a region has the instruction at RIP. @param mode of the code; any when it is left out. */
  covers(rip: bigint, code: RunningCode, mode?: number): boolean {
    const page = pageOf(pageBase(rip), code);
    const regions = page === undefined ? undefined : this.byPage.get(page);
    if (regions === undefined) return false;
    return [...regions].some(
      (region) =>
        (mode === undefined || region.mode === mode) && region.spans.some(([first, end]) => rip >= first && rip < end),
    );
  }

  private isEntry(rip: bigint, code: RunningCode): boolean {
    const page = pageOf(pageBase(rip), code);
    return page !== undefined && this.byEntry.has(keyOfEntry({ page, offset: offsetOf(rip), mode: code.mode }));
  }

  /** @returns instructions compiled. */
  private compile(start: bigint, code: RunningCode): number {
    const found = discover(start, this.sourceOf(code));
    if (found === undefined) return 0;
    const pages = pagesOf(found, code);
    const data = this.blocks.allocate(dataBytes(found));
    if (data === 0) return 0;
    const layout = new RegionLayout(data, found.entries.length);
    const options = {
      pages: this.memory.wasm.buffer.byteLength / WASM_PAGE_BYTES,
      checksContext: pages.size > 1,
      flat: (code.mode & Mode.FLAT) !== 0,
    };
    const { binary, leavings, nodes } = compileRegion(found, layout, options);
    const handler = this.interpreter.placeRegion(binary);
    if (handler === 0) return 0;
    leavings.forEach(({ rip, before }, index) => {
      this.memory.view.setBigUint64(layout.leaving(index), rip, true);
      this.memory.view.setInt32(layout.leaving(index) + 8, before, true);
    });
    this.writeEntries(found, layout, code);
    nodes.forEach((node, index) => {
      this.memory.view.setUint16(layout.nodeOf(index + 1), node, true);
    });
    const entries = found.entries.map(
      (rip): Entry => ({ page: pages.get(pageBase(rip)) as SPA, offset: offsetOf(rip), mode: code.mode }),
    );
    const spans = found.blocks.map(spanOf);
    const region: Region = {
      ...{ handler, layout, mode: code.mode, pages, entries, spans },
      patched: [],
      strangers: 0,
    };
    this.keep(region, found, code);
    this.made++;
    this.instructions += found.instructions;
    this.moduleBytes += binary.length;
    return found.instructions;
  }

  private writeEntries({ entries, blocks }: RegionCode, layout: RegionLayout, code: RunningCode): void {
    const { view, bytes } = this.memory;
    bytes.fill(0, layout.hashed, layout.leaving(0));
    view.setBigUint64(layout.ripOf(0), NO_RIP, true);
    view.setInt32(layout.context, this.context, true);
    entries.forEach((rip, index) => {
      const entry = index + 1;
      view.setBigUint64(layout.ripOf(entry), rip, true);
      view.setUint8(layout.hashed + hashOf(rip), entry);
      const first = blocks.find((block) => block.rip === rip)?.instructions[0];
      const twin = layout.leaving(0) + leavingBytes(blocks) + index * TWIN_BYTES;
      view.setInt32(layout.twinOf(entry), twin, true);
      if (first !== undefined) this.writeTwin(twin, first, code);
      else this.translator.writeEnd(twin, { pageOffset: offsetOf(rip), position: 0 });
    });
  }

  /** The first instruction of an entry alone, for whoever cannot enter the region there. */
  private writeTwin(twin: number, { rip, insn }: RegionInstruction, code: RunningCode): void {
    const pageOffset = offsetOf(rip);
    const { end } = this.translator.write(twin, insn, { pageOffset, position: 0 }, code.mayCompile(insn));
    this.translator.writeEnd(end, { pageOffset: pageOffset + insn.length, position: 1 });
  }

  private keep(region: Region, found: RegionCode, code: RunningCode): void {
    this.byHandler.set(region.handler, region);
    for (const page of region.pages.values()) {
      const known = this.byPage.get(page);
      if (known === undefined) this.byPage.set(page, new Set([region]));
      else known.add(region);
    }
    for (const { rip, insn } of found.blocks.flatMap(({ instructions }) => instructions)) {
      const page = region.pages.get(pageBase(rip)) as SPA;
      if (this.blocks.cover(page, offsetOf(rip), insn.length)) code.coded(page);
    }
    region.entries.forEach((entry, index) => {
      const key = keyOfEntry(entry);
      if (this.byEntry.has(key)) return;
      this.byEntry.set(key, { region, number: index + 1 });
      const uop = this.blocks.find(entry.page, entry.offset, entry.mode);
      if (uop !== 0) this.patch(region, index + 1, entry, uop);
    });
  }

  private onBlock(entry: Entry, uop: number): void {
    const known = this.byEntry.get(keyOfEntry(entry));
    if (known !== undefined) this.patch(known.region, known.number, entry, uop);
  }

  private patch(region: Region, number: number, { page }: Entry, uop: number): void {
    const { view } = this.memory;
    region.patched.push({ uop, page, handler: view.getUint16(uop + Uop.HANDLER, true) });
    view.setUint16(uop + Uop.HANDLER, region.handler, true);
    view.setUint8(uop + Uop.ENTRY, number);
  }

  /**
   * The region of a micro-op was asked for in a context that it does not know.
   * @returns the micro-op to go on with: the same when its pages are where they were.
   */
  inContext(uop: number, code: RunningCode): number {
    const { view } = this.memory;
    const region = this.byHandler.get(view.getUint16(uop + Uop.HANDLER, true));
    if (region === undefined) return 0;
    const isKnown = [...region.pages].every(([rip, page]) => pageOf(rip, code) === page);
    if (isKnown) {
      region.strangers = 0;
      view.setInt32(region.layout.context, this.context, true);
      return uop;
    }
    const twin = view.getInt32(region.layout.twinOf(view.getUint8(uop + Uop.ENTRY)), true);
    if (++region.strangers > MOST_STRANGERS) this.drop(region, undefined);
    return twin;
  }

  private get context(): number {
    return this.memory.view.getInt32(Cell.JUMP_CONTEXT, true);
  }

  // The end of regions

  /** All blocks are gone, and with them what leads to regions. */
  reset(): void {
    for (const { handler } of this.byHandler.values()) this.interpreter.dropRegion(handler);
    this.dropped += this.byHandler.size;
    this.byHandler.clear();
    this.byPage.clear();
    this.byEntry.clear();
  }

  private onDrop(page: SPA): void {
    const regions = this.byPage.get(page);
    if (regions === undefined) return;
    this.drops.set(page, (this.drops.get(page) ?? 0) + 1);
    for (const region of [...regions]) this.drop(region, page);
  }

  /** @param gone a page whose micro-ops are ends of blocks already. */
  private drop(region: Region, gone: SPA | undefined): void {
    const { view } = this.memory;
    this.dropped++;
    for (const { uop, handler, page } of region.patched) {
      if (page !== gone) view.setUint16(uop + Uop.HANDLER, handler, true);
    }
    for (const entry of region.entries) {
      const key = keyOfEntry(entry);
      if (this.byEntry.get(key)?.region === region) this.byEntry.delete(key);
    }
    for (const page of region.pages.values()) this.byPage.get(page)?.delete(region);
    this.byHandler.delete(region.handler);
    this.interpreter.dropRegion(region.handler);
  }

  // What to compile

  private sourceOf(code: RunningCode): CodeSource {
    const isSteady = (page: SPA): boolean => this.policy !== 'hot' || (this.drops.get(page) ?? 0) < MOST_DROPS;
    const found = new Map<bigint, SPA | undefined>();
    const foundAt = (base: bigint): SPA | undefined => {
      if (!found.has(base)) found.set(base, pageOf(base, code));
      return found.get(base);
    };
    return {
      decode: (rip) => {
        const page = foundAt(pageBase(rip));
        return page === undefined || !isSteady(page) ? undefined : code.decode(page, offsetOf(rip));
      },
      treatment: (insn) => this.treatment(insn, code),
    };
  }

  private treatment(insn: DecodedInstruction, code: RunningCode): Treatment {
    if (insn.rep !== 'none' && insn.system !== undefined) return 'interpreted';
    if (!code.mayCompile(insn) || !isCompiled(insn) || (insn.lock && insn.operands[0]?.kind !== 'mem'))
      return 'evaluated';
    return this.treatments.once(insn, () =>
      isShort(insn) ? 'interpreted' : isForRegions({ rip: 0n, insn }) ? 'compiled' : 'evaluated',
    );
  }
}

/** Branches that cut RIP to 16 bits. */
const isShort = ({ long, width, mnemonic, operands }: DecodedInstruction): boolean =>
  !long && width === 16 && (operands[0]?.kind === 'rel' || /^(JMP|CALL|RET)$/.test(mnemonic));

function spanOf({ rip, instructions }: RegionBlock): readonly [bigint, bigint] {
  const last = instructions.at(-1);
  return [rip, last === undefined ? rip : last.rip + BigInt(last.insn.length)];
}

const pageOf = (base: bigint, code: RunningCode): SPA | undefined => code.pageAt(base) ?? code.findPage(base);
const offsetOf = (rip: bigint): number => Number(rip & 0xfffn);
const pageBase = (rip: bigint): bigint => rip & ~0xfffn;
const keyOfEntry = ({ page, offset, mode }: Entry): string => `${page + offset}/${mode}`;

function pagesOf({ blocks }: RegionCode, code: RunningCode): Map<bigint, SPA> {
  const bases = new Set(blocks.flatMap(({ instructions }) => instructions.map(({ rip }) => pageBase(rip))));
  return new Map([...bases].map((base) => [base, pageOf(base, code) as SPA]));
}

/** As many as there can be: each instruction, and the one that ends a block. */
const leavingBytes = (blocks: RegionCode['blocks']): number =>
  Math.ceil((16 * blocks.reduce((sum, { instructions }) => sum + instructions.length + 1, 0)) / Uop.BYTES) * Uop.BYTES;

const dataBytes = ({ entries, blocks }: RegionCode): number =>
  new RegionLayout(0, entries.length).leaving(0) + leavingBytes(blocks) + entries.length * TWIN_BYTES;

/**
 * The engine: runs plain instructions of the current vCPU until its budget ends or an instruction needs the control plane.
 * It owns what is derived from architectural state (decoded blocks, TLB banks, mode key) and rebuilds it when
 * `stateChanged` says so; nothing here is ever on a tape.
 */

import type { AccessFault } from '../cpu/access-fault.js';
import { locksMemory } from '../cpu/bus-lock.js';
import { Access, type Transaction } from '../cpu/transaction.js';
import { AVX_FEATURES } from '../cpu/xstate.js';
import { Decoder } from '../decode/decode.js';
import type { CodeMode, DecodedInstruction } from '../decode/decoded.js';
import { needsSseState } from '../isa/evaluate.js';
import type { Feature, Instruction } from '../isa/instruction.js';
import { CPU_BASE, R, type RegisterDelta, type RegisterFile, SLOT_COUNT, type Slot } from '../layout/cpu-state.js';
import {
  Cell,
  JUMP_CACHE_BASE,
  JUMP_CACHE_BYTES,
  JUMP_CACHE_CONTEXT,
  JUMP_CACHE_ENTRIES,
  JUMP_CACHE_ENTRY_BYTES,
  JUMP_CACHES,
  RAM_BASE,
} from '../layout/linear-memory.js';
import { type PhysicalMemory, pageNumber } from '../mmu/memory.js';
import type { PageWalker, PagingContext } from '../mmu/page-walk.js';
import { knownFrame } from '../mmu/peek.js';
import type { TlbBanks } from '../mmu/tlb.js';
import { isCanonicalHigh, PAGE_BYTES, type SPA, sPA } from '../units.js';
import { BlockCache } from './block-cache.js';
import { BlockDecoder, type DecodingSite } from './block-decoder.js';
import { CodePages } from './code-pages.js';
import { codeAddress, ripWraps } from './code-segment.js';
import { CodeSpaces } from './code-spaces.js';
import { type ContextFeatures, Contexts, DECODE_MASK, isForRegions, MODE_BITS, Mode } from './context.js';
import type { EngineCounts } from './counts.js';
import { DirectRegisters } from './direct-registers.js';
import { EvaluatedInstructions } from './evaluated.js';
import { isCompiled } from './handlers.js';
import { HOT_ENCODINGS } from './hot.js';
import { Interpreter } from './interpreter.js';
import { KnownMemory } from './known-memory.js';
import { PlainCases, type Surroundings } from './plain-cases.js';
import { regionPolicy } from './region/policy.js';
import { Regions, type RunningCode } from './region/regions.js';
import { Stretches } from './region/stretches.js';
import { Derived, derivedOf, RegisterShadow } from './register-shadow.js';
import { isFlat, writeSegmentCells } from './segment-cells.js';
import { Translator } from './translate.js';
import { addressOf, Translations } from './translations.js';
import { ExitReason, MAX_BLOCK_INSTRUCTIONS, Uop } from './uop.js';

/** Why `run` came back. */
export type EngineStop =
  /** The budget is used up, exactly. */
  | 'budget'
  /** The instruction at RIP was not executed: the control plane must. */
  | 'assist';

/** Of 2³², for hashing by multiplication. */
const GOLDEN_RATIO = 0x9e37_79b1;
const RIP_WORD = (CPU_BASE >> 2) + 2 * R.rip;
const LAST_SPACE = 1 << (31 - MODE_BITS);

const NO_SHADOW = -1;
/** What of the budget must be left for a plain case: the instruction, one in its shadow, and one behind. */
const PLAIN_CASE = 3;
/** In the place of a micro-op: a region stopped. */
const IN_REGION = -1;
const MAX_BUDGET = 0x4000_0000;
/** ASIDs that a VMCB can name. */
const ASIDS = 0x1_0000_0000;

export interface EngineFeatures extends ContextFeatures {
  readonly instructions: ReadonlySet<Feature>;
}

export class Engine {
  readonly registers: RegisterFile;
  readonly decoder: Decoder;
  private readonly interpreter: Interpreter;
  private readonly blocks: BlockCache;
  private readonly translator: Translator;
  private readonly blockDecoder: BlockDecoder;
  private readonly translations: Translations;
  private readonly banks: TlbBanks;
  private readonly regions: Regions;
  private readonly stretches: Stretches;
  private readonly running: RunningCode;
  private readonly codePages = new CodePages(() => this.flush());
  private readonly evaluated = new EvaluatedInstructions((rip) => this.decodeAt(rip));
  private readonly plainCases: PlainCases;
  private readonly known: KnownMemory;
  private readonly shadowed: RegisterShadow;
  /** For events whose registers are written before they are stated: `registersChanged` must hear of them. */
  readonly directRegisters: DirectRegisters;
  private readonly view: DataView;
  private readonly words: Int32Array;
  private mode: number = Mode.BITS16;
  private space = 1;
  private vcpu = 0;
  private readonly spaces = new CodeSpaces(LAST_SPACE, () => {
    this.codePages.clear();
    this.blocks.clearJumpCaches();
  });
  private readonly contexts: Contexts;
  private stale = true;
  /** Offsets in a page at which nothing is compiled. */
  private kept: ReadonlySet<number> = new Set();

  constructor(
    private readonly memory: PhysicalMemory,
    instructions: readonly Instruction[],
    features: EngineFeatures,
    vcpus = 1,
  ) {
    this.view = memory.view;
    this.words = new Int32Array(memory.wasm.buffer);
    this.registers = new BigUint64Array(memory.wasm.buffer, CPU_BASE, SLOT_COUNT) as unknown as RegisterFile;
    this.shadowed = new RegisterShadow(memory);
    this.directRegisters = new DirectRegisters(memory.words, () => this.isLegacy);
    this.contexts = new Contexts(this.words, this.registers, features);
    this.translations = new Translations(
      memory,
      this.registers,
      features,
      () => this.departures + this.regions.dropped,
    );
    this.banks = this.translations.banks;
    this.running = this.runningCode();
    const isWhole = (low: number, high: number): boolean => this.instructionAt(low, high)?.rep === 'none';
    this.known = new KnownMemory(memory, (low, high, write) => this.translations.knownPage(low, high, write));
    this.plainCases = new PlainCases(memory, this.registers, this.known, isWhole);
    this.decoder = new Decoder(instructions, features.instructions);
    const hot = HOT_ENCODINGS.map((bytes) => this.decoder.decode(bytes, LONG_MODE)).filter(
      (insn): insn is DecodedInstruction => typeof insn === 'object' && isCompiled(insn),
    );
    this.interpreter = new Interpreter(memory.wasm, (accessAndSize) => this.translations.fill(accessAndSize), hot);
    this.translator = new Translator(this.view, this.interpreter);
    this.blocks = new BlockCache(memory, Math.min(vcpus, JUMP_CACHES));
    this.blockDecoder = new BlockDecoder(memory, this.decoder, this.translator, this.blocks, this.decodingSite());
    this.switchTo(0);
    const policy = regionPolicy();
    this.stretches = new Stretches(policy);
    this.regions = new Regions(memory, this.interpreter, this.blocks, this.translator, policy);
    const { onDrop } = this.blocks;
    this.blocks.onDrop = (page) => {
      this.evaluated.clear();
      onDrop(page);
    };
    this.blocks.onReset = () => {
      this.blockDecoder.assists.clear();
      this.evaluated.clear();
      this.regions.reset();
    };
    memory.onNewTable = (page) => this.banks.forgetWrites(RAM_BASE + page);
    memory.onNewEpoch = () => this.banks.forgetAllWrites();
    memory.onWatch = () => this.banks.flush(undefined);
    memory.onTableWrite = (space) => this.flushSpace(space);
    memory.onEntryWrite = (space, page) => {
      if (this.codePages.holds(page)) return false;
      this.banks.forgetPage(space, page);
      return true;
    };
  }

  /** What the engine has done so far. */
  get counts(): EngineCounts {
    const { regions, blocks, interpreter, executed } = this;
    const { made, dropped, instructions, moduleBytes } = regions;
    return {
      ...{ executed, regionsMade: made, regionsDropped: dropped, instructionsCompiled: instructions, moduleBytes },
      ...{ tableUsed: interpreter.tableUsed, codeCacheBytes: blocks.bytesUsed, codeCacheResets: blocks.resets },
    };
  }
  private executed = 0;

  /** What plain cases of control-plane instructions must know; without, they are left to the control plane. */
  set surroundings(surroundings: Surroundings | undefined) {
    this.plainCases.surroundings = surroundings;
  }

  /** Whether the instruction that comes next is part of a region. */
  get isInRegion(): boolean {
    return this.regions.covers(this.registers[R.rip] as bigint, this.running);
  }

  /** Registers that translation, mode or segments depend on may have changed. Cheap; the work is done at the next run. */
  stateChanged(): void {
    this.stale = true;
    this.contexts.rareChanged();
  }

  /** The paging context as the registers now give it. */
  get pagingContext(): PagingContext {
    this.refresh();
    return this.translations.paging;
  }

  /**
   * Runs at most `budget` instructions from RIP.
   * @returns why it stopped and how many retired; RIP and all registers are exact.
   */
  run(budget: number): { stop: EngineStop; retired: number } {
    this.refresh();
    this.leaving = false;
    const limit = Math.min(budget, MAX_BUDGET);
    this.setSingle(limit < MAX_BLOCK_INSTRUCTIONS);
    if (this.stretches.isDue) this.regions.resumed(this.registers[R.rip] as bigint, this.running);
    this.left = this.stretches.begin(limit);
    this.behindShadow = NO_SHADOW;
    this.assist = undefined;
    this.translations.fault = undefined;
    let uop = 0;
    for (;;) {
      this.interpreter.enter(uop);
      uop = 0;
      const reason = this.words[Cell.EXIT_REASON >> 2];
      switch (reason) {
        case ExitReason.LOOKUP: {
          uop = this.findBlock();
          if (uop === 0) return { stop: 'assist', retired: this.retired(limit) };
          break;
        }
        case ExitReason.CONTEXT: {
          uop = this.regions.inContext(this.words[Cell.EXIT_UOP >> 2] as number, this.running);
          break;
        }
        case ExitReason.EVALUATE:
          if (this.goesOn(IN_REGION, limit)) break;
          return { stop: 'assist', retired: this.retired(limit) };
        case ExitReason.SPENT:
        case ExitReason.BUDGET: {
          if (!this.endsShadow() && !this.renew(reason === ExitReason.SPENT))
            return { stop: 'budget', retired: this.retired(limit) };
          break;
        }
        default: {
          const at = this.words[Cell.EXIT_UOP >> 2] as number;
          this.setRip(this.view.getUint16(at + Uop.PAGE_OFFSET, true));
          this.left -= this.view.getUint8(at + Uop.POSITION);
          if (this.goesOn(at, limit)) break;
          return { stop: 'assist', retired: this.retired(limit) };
        }
      }
    }
  }
  private assist: DecodedInstruction | undefined;
  /** While the instruction behind STI, or behind an IRET with RF, runs alone, what of the budget comes after it; else NO_SHADOW. */
  private behindShadow = NO_SHADOW;

  /** Goes on where the budget is too small for another block. @returns false when nothing is left of it. */
  private renew(inRegion: boolean): boolean {
    const isCut = this.stretches.reserve > 0;
    this.allot(this.left + (isCut ? this.stretches.next(inRegion) : 0));
    if (isCut && !inRegion) this.regions.stopped(this.registers[R.rip] as bigint, this.running);
    return this.left > 0;
  }

  /** Where there is not enough for a block, instructions run one by one. @param left the budget. */
  private allot(left: number): void {
    this.setSingle(left < MAX_BLOCK_INSTRUCTIONS);
    this.left = left;
  }

  /** Executes the instruction of an assist, where it is a plain case. @param uop where it is, or IN_REGION. */
  private goesOn(uop: number, limit: number): boolean {
    const insn = this.blockDecoder.assists.get(uop) ?? this.nextKnown;
    this.assist = insn;
    if (this.fault !== undefined) return false;
    const { left } = this;
    if (insn === undefined || left < PLAIN_CASE || this.behindShadow !== NO_SHADOW) return false;
    const outcome = this.plainCases.execute(insn, this.mode, limit - left - this.stretches.reserve);
    if (outcome === 'declined') return false;
    this.assist = undefined;
    if (outcome === 'shadowing') {
      this.behindShadow = left - 2;
      this.allot(1);
    } else this.allot(left - 1);
    return true;
  }

  /** Whether the budget that is spent was that of an instruction in a shadow, behind which the run goes on. */
  private endsShadow(): boolean {
    if (this.behindShadow === NO_SHADOW) return false;
    this.plainCases.endShadow();
    this.allot(this.behindShadow);
    this.behindShadow = NO_SHADOW;
    return true;
  }

  /** In halves: no bigint is made. @param offset within the page that runs. */
  private setRip(offset: number): void {
    const { words } = this;
    const low = ((words[Cell.RIP_PAGE >> 2] as number) >>> 0) + offset;
    words[RIP_WORD] = low;
    words[RIP_WORD + 1] = (words[(Cell.RIP_PAGE >> 2) + 1] as number) + (low > 0xffff_ffff ? 1 : 0);
  }

  /** From within a page walk of `run`: the instruction that needs it is left to the control plane. */
  leave(): void {
    this.leaving = true;
    this.departures++;
  }
  private leaving = false;
  private departures = 0;

  private retired(limit: number): number {
    const retired = limit - this.left - this.stretches.reserve - Math.max(0, this.behindShadow);
    this.stretches.ran(retired);
    this.executed += retired;
    return retired;
  }

  /** Instructions that the run may still retire. */
  private get left(): number {
    return (this.words[Cell.SLACK >> 2] as number) + this.longestBlock;
  }
  private set left(left: number) {
    this.words[Cell.SLACK >> 2] = left - this.longestBlock;
  }
  private get longestBlock(): number {
    return (this.mode & Mode.SINGLE) !== 0 ? 1 : MAX_BLOCK_INSTRUCTIONS;
  }

  /** The decoded instruction that the last `run` stopped at, when the engine knows it. */
  assisted(): DecodedInstruction | undefined {
    return this.assist;
  }

  private get nextKnown(): DecodedInstruction | undefined {
    return this.instructionAt(this.words[RIP_WORD] as number, this.words[RIP_WORD + 1] as number);
  }

  /** The instruction at an RIP, of 64-bit code that is known to be there. @param low @param high words of it. */
  private instructionAt(low: number, high: number): DecodedInstruction | undefined {
    if ((this.mode & Mode.BITS64) === 0) return undefined;
    return this.evaluated.at(low, high, this.words[Cell.JUMP_CONTEXT >> 2] as number);
  }

  private decodeAt(rip: bigint): DecodedInstruction | undefined {
    const page = this.codePageAt(this.linearPageOf(rip));
    return page === undefined ? undefined : this.running.decode(page, Number(rip & 0xfffn));
  }

  /** Changes since the last call, as an event carries them; the shadow follows. */
  takeDelta(): RegisterDelta {
    return this.shadowed.takeDelta(this.interpreter);
  }

  /** The registers at the last event; what differs from them is the next delta. */
  get shadow(): BigUint64Array {
    return this.shadowed.registers;
  }

  /** Leaves instructions at these offsets of any page to the control plane from now on; blocks that hold some are dropped. */
  keepFrom(offsets: ReadonlySet<number>): void {
    this.kept = offsets;
    this.blocks.reset();
  }

  /** Applies what an event between runs changes of the registers: it is no part of the next run's delta. */
  applyDelta(delta: RegisterDelta): void {
    this.registersChanged(this.shadowed.apply(delta, this.isLegacy));
  }

  /** @param derived what of registers has changed, by an event that they are written for. */
  registersChanged(derived: Derived): void {
    if (derived === Derived.NOTHING) return;
    this.stale = true;
    if ((derived & Derived.RARE) !== 0) this.contexts.rareChanged();
  }

  private get isLegacy(): boolean {
    return (this.mode & Mode.BITS64) === 0;
  }

  /** An event changed a register. */
  syncShadow(slot: Slot): void {
    if (this.shadowed.follow(slot, this.isLegacy)) this.registersChanged(derivedOf(slot));
  }

  /** Another vCPU's registers stand in the register file now; none of them is part of the next run's delta. */
  switchTo(vcpu: number): void {
    this.vcpu = vcpu;
    this.words[Cell.JUMP_CACHE >> 2] = JUMP_CACHE_BASE + (vcpu % JUMP_CACHES) * JUMP_CACHE_BYTES;
    this.shadowed.followAll();
    this.contexts.rareChanged();
    this.stale = true;
  }

  /** Drops all translations of every vCPU, and whatever was derived from registers. */
  flush(): void {
    this.contexts.rareChanged();
    this.flushSpace(undefined);
  }

  private flushSpace(space: number | undefined): void {
    this.banks.flush(space);
    this.spaces.drop(space);
    this.stale = true;
  }

  /** Translations are each vCPU's own: an address space is an ASID of a vCPU. */
  private addressSpace(asid: number): number {
    return this.vcpu * ASIDS + asid;
  }

  // Derived state

  private refresh(): void {
    if (!this.stale) return;
    this.stale = false;
    const context = this.contexts.current;
    this.mode = context.mode | (this.mode & Mode.SINGLE);
    const addressSpace = this.addressSpace(context.asid);
    this.translations.enter(context, addressSpace);
    this.space = this.spaces.numberOf(addressSpace, context.codeSpace);
    if (context.legacyCode !== '') {
      if ((this.mode & Mode.REAL) === 0 && isFlat(this.registers)) this.mode |= Mode.FLAT;
      writeSegmentCells(this.view, this.registers, this.mode);
    }
    this.writeContext();
  }

  private writeContext(): void {
    const context = (this.space << MODE_BITS) | this.mode;
    this.words[Cell.JUMP_CONTEXT >> 2] = context;
    this.words[Cell.JUMP_SALT >> 2] = Math.imul(context, GOLDEN_RATIO) >>> 16;
    this.words[Cell.RIP_MASK >> 2] = -1;
    this.words[(Cell.RIP_MASK >> 2) + 1] = (this.mode & Mode.BITS64) !== 0 ? -1 : 0;
  }

  private setSingle(single: boolean): void {
    const mode = single ? this.mode | Mode.SINGLE : this.mode & ~Mode.SINGLE;
    if (mode === this.mode) return;
    this.mode = mode;
    this.writeContext();
  }

  /** How instructions at RIP are decoded now. */
  get codeMode(): CodeMode {
    this.refresh();
    const bits = (this.mode & Mode.BITS64) !== 0 ? 64 : (this.mode & Mode.BITS32) !== 0 ? 32 : 16;
    return { bits, real: (this.mode & Mode.REAL) !== 0 };
  }

  /** The linear address of the instruction at RIP. */
  get nextInstruction(): bigint {
    const rip = this.registers[R.rip] as bigint;
    return this.codeMode.bits === 64 ? rip : (rip + (this.registers[R.csBase] as bigint)) & 0xffff_ffffn;
  }

  // Translations

  /** The outcome of the last page walk. */
  get walker(): PageWalker {
    return this.translations.walker;
  }

  /** Which pages the host has taken away; undefined while there are none. */
  set isAbsent(isAbsent: ((page: SPA) => boolean) | undefined) {
    this.translations.isAbsent = isAbsent;
  }
  get isAbsent(): ((page: SPA) => boolean) | undefined {
    return this.translations.isAbsent;
  }

  /** The fault in which the instruction ends that the last `run` stopped at, when compiled code met with it. */
  get fault(): AccessFault | undefined {
    return this.translations.fault;
  }

  /** What the supervisor finds without a page walk, in the context of now. */
  get knownMemory(): KnownMemory {
    this.refresh();
    return this.known;
  }

  /** As `Translations.translate`, in the context of now. */
  translate(linear: bigint, access: number, tx?: Transaction): number {
    this.refresh();
    return this.translations.translate(linear, access, tx);
  }

  /** Whether an access of `bytes`, which the last translations allow, reaches write-back memory alone. */
  isWriteBack(linear: bigint, bytes: number, access: number): boolean {
    this.refresh();
    return this.translations.isWriteBack(linear, bytes, access);
  }

  /** sPA of the frame at a guest-physical address, or a negative code with `walker.result` telling why. */
  translateNested(address: number, access: number): number {
    this.refresh();
    return this.translations.translateNested(address, access);
  }

  // Blocks

  /** The block at RIP, decoded if need be and entered into the jump cache; 0 when its first instruction cannot be fetched. */
  private findBlock(): number {
    const linear = this.codeAddress();
    if (linear === undefined) return 0;
    const { low, high } = linear;
    const offset = low & 0xfff;
    const number = pageNumber(low, high);
    const known = this.codePageAt(number);
    const page = known ?? this.fetchPage(addressOf(low, high));
    if (page === undefined) return 0;
    const mode = this.mode & DECODE_MASK;
    const careful =
      (mode & Mode.BITS64) === 0 && ripWraps(this.registers, mode, this.registers[R.rip] as bigint, offset);
    let uop = careful ? 0 : this.blocks.find(page, offset, mode);
    if (careful) this.codePages.noteLinear(number);
    else if (known === undefined) this.noteCodePage(number, page);
    if (uop === 0) {
      const [rip, codeMode] = [this.registers[R.rip] as bigint, this.codeMode];
      uop = this.blockDecoder.decode({ rip, linear: addressOf(low, high), page, offset, mode, codeMode, careful });
    }
    if (uop !== 0) this.enterJumpCache(uop, page);
    return uop;
  }

  /** Where RIP leads, in words of 32 bits; undefined where no code can be fetched. */
  private codeAddress(): { readonly low: number; readonly high: number } | undefined {
    const { place, words } = this;
    place.low = words[RIP_WORD] as number;
    place.high = words[RIP_WORD + 1] as number;
    if ((this.mode & Mode.BITS64) !== 0) return isCanonicalHigh(place.high) ? place : undefined;
    const linear = codeAddress(this.registers, this.mode, this.registers[R.rip] as bigint);
    if (linear === undefined) return undefined;
    place.low = Number(linear) | 0;
    place.high = 0;
    return place;
  }
  private readonly place = { low: 0, high: 0 };

  /** Where a fetch of these bytes goes, when that is RAM. The walk leaves its marks. */
  private fetchPage(linear: bigint): SPA | undefined {
    const user = (this.mode & Mode.USER) !== 0 ? Access.USER : 0;
    const address = this.translate(linear, user | Access.FETCH);
    if (address < 0 || this.leaving) return undefined;
    const page = sPA(address - (address % PAGE_BYTES));
    return this.memory.isRam(page, PAGE_BYTES) ? page : undefined;
  }

  /** Where a linear page lies, when code of it was found with the tables and the privilege of now. @param page its number. */
  private codePageAt(page: number): SPA | undefined {
    return this.codePages.at(page, this.space, (this.mode & Mode.USER) !== 0);
  }

  private noteCodePage(page: number, place: SPA): void {
    this.codePages.note(page, this.space, (this.mode & Mode.USER) !== 0, place);
  }

  /** Number of the linear page in which RIP lies. */
  private linearPageOf(rip: bigint): number {
    const long = (this.mode & Mode.BITS64) !== 0;
    return Number((long ? rip : BigInt.asUintN(32, rip + (this.registers[R.csBase] as bigint))) >> 12n);
  }

  private decodingSite(): DecodingSite {
    const engine = this;
    return {
      registers: this.registers,
      get kept() {
        return engine.kept;
      },
      mayCompile: (insn) => this.mayCompile(insn),
      fetch: (linear) => {
        const user = (this.mode & Mode.USER) !== 0 ? Access.USER : 0;
        const address = this.translate(linear, user | Access.FETCH);
        this.codePages.noteLinear(Number(linear >> 12n));
        return address;
      },
      coded: (page) => this.banks.forgetWrites(RAM_BASE + page),
    };
  }

  /** What regions may know of the code that runs. */
  private runningCode(): RunningCode {
    const engine = this;
    return {
      get mode() {
        return engine.mode & DECODE_MASK;
      },
      get isForRegions() {
        return isForRegions(engine.mode, engine.registers[R.csBase] as bigint);
      },
      pageAt: (rip) => this.codePageAt(this.linearPageOf(rip)),
      findPage: (rip) => this.findCodePage(rip),
      decode: (page, offset) => {
        if (this.kept.has(offset)) return undefined;
        const bytes = this.memory.window(page + offset, Math.min(15, PAGE_BYTES - offset));
        const insn = this.decoder.decode(bytes, this.codeMode);
        return typeof insn === 'string' ? undefined : insn;
      },
      mayCompile: (insn) => this.mayCompile(insn),
      coded: (page) => this.banks.forgetWrites(RAM_BASE + page),
    };
  }

  /** As fetching there would find it, when the fetch can be seen nowhere. */
  private findCodePage(rip: bigint): SPA | undefined {
    const linear = codeAddress(this.registers, this.mode, rip);
    if (linear === undefined || ripWraps(this.registers, this.mode, rip, 0)) return undefined;
    const access = ((this.mode & Mode.USER) !== 0 ? Access.USER : 0) | Access.FETCH;
    if (knownFrame(this.memory, this.pagingContext, linear, access) < 0) return undefined;
    const frame = this.translate(linear, access);
    if (frame < 0 || this.leaving || !this.memory.isRam(frame, PAGE_BYTES)) return undefined;
    this.noteCodePage(Number(linear >> 12n), sPA(frame));
    return sPA(frame);
  }

  /** RIP leads to the block `uop` from now on, and lies in the page that runs. */
  private enterJumpCache(uop: number, page: SPA): void {
    const { words } = this;
    const [low, high] = [words[RIP_WORD] as number, words[RIP_WORD + 1] as number];
    const hash = low ^ ((low >>> 12) | (high << 20)) ^ (words[Cell.JUMP_SALT >> 2] as number);
    const cache = words[Cell.JUMP_CACHE >> 2] as number;
    const address = cache + (hash & (JUMP_CACHE_ENTRIES - 1)) * JUMP_CACHE_ENTRY_BYTES;
    const entry = address >> 2;
    words[entry] = low;
    words[entry + 1] = high;
    words[entry + (JUMP_CACHE_CONTEXT >> 2)] = words[Cell.JUMP_CONTEXT >> 2] as number;
    words[entry + 3] = uop;
    this.blocks.entered(page, uop, address);
    const start = (low >>> 0) - this.view.getUint16(uop + Uop.PAGE_OFFSET, true);
    words[Cell.RIP_PAGE >> 2] = start;
    words[(Cell.RIP_PAGE >> 2) + 1] = high - (start < 0 ? 1 : 0);
  }

  private mayCompileSystem({ mnemonic }: DecodedInstruction): boolean {
    if ((this.mode & Mode.KERNEL) === 0) return false;
    return (this.mode & Mode.GUEST) === 0 || mnemonic === 'PUSHF' || mnemonic === 'CLI';
  }

  private mayCompile(insn: DecodedInstruction): boolean {
    if ((this.mode & Mode.BUS_LOCKS) !== 0 && locksMemory(insn)) return false;
    if (insn.system !== undefined && !this.mayCompileSystem(insn)) return false;
    const { feature } = insn.instruction;
    if (feature === undefined) return true;
    if ((this.mode & Mode.NO_SSE) !== 0 && needsSseState(insn.instruction)) return false;
    return (this.mode & Mode.NO_AVX) === 0 || !AVX_FEATURES.has(feature);
  }
}

const LONG_MODE: CodeMode = { bits: 64, real: false };

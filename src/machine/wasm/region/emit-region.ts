/**
 * The instructions of a region: the same descriptions as in handlers, but general-purpose registers and flags are locals,
 * and what a micro-op holds is constant. How a block ends is left to whoever writes the region.
 */
import { type DecodedOperand, type GprOperand, type MemoryOperand, RIP_BASE } from '../../decode/decoded.js';
import { InvariantError } from '../../errors.js';
import type { Operand, PlainInstruction, Static } from '../../isa/instruction.js';
import { CONTROL_SLOTS, Segment, type Slot, segmentSlot, slotAddress, xmmSlot } from '../../layout/cpu-state.js';
import { Cell, segmentBaseAddress } from '../../layout/linear-memory.js';
import { isCanonical } from '../../units.js';
import { Emitter } from '../emit.js';
import type { FlagSource } from '../emit-flags.js';
import { type C, type Frame, type Helpers, type LocalPool, NotCompiled, type V } from '../emit-values.js';
import { type Code, Op, ValueType } from '../module.js';
import { memoryOperand, nextRip, type RegionInstruction, targetOf } from './discover.js';
import { accessOf, type Footprint, type HeldPages, type HeldPair, type Place } from './held-pages.js';

/** Locals that live as long as the region runs. */
export interface RegionLocals {
  readonly gprs: readonly number[];
  /** The lazy flags: what the other two hold (`FlagKind`); then the last result, and carries or an operand. */
  readonly flagKind: number;
  readonly flagResult: number;
  readonly flagCarries: number;
  /** Operands and result of the last comparison: conditions read them rather than the flags. */
  readonly compared: readonly [a: number, b: number, result: number];
}

export const GPRS = 16;

/** Segments in which offsets are linear addresses in `Mode.FLAT`: the code segment is not written to. */
const FLAT_DATA: ReadonlySet<number> = new Set([Segment.ES, Segment.SS, Segment.DS]);

/**
 * What the locals of the flags hold: 0 for result and carries as the cells have them; else the bare result and the first
 * operand of an addition or subtraction, with 64 less its width in the low bits.
 */
const FlagKind = { PLAIN: 0, ADD: 0x100, SUB: 0x200, SHIFT: 0x3f } as const;
const CARRY_AND_OVERFLOW = 3n << 62n;
const AUXILIARY = 8n;

/** What is known of the flags at some place of the code. */
export interface KnownFlags {
  readonly kind: number | undefined;
  readonly source: FlagSource | undefined;
}
export const NOTHING_KNOWN: KnownFlags = { kind: undefined, source: undefined };

/** Their result is the sum or the difference of their operands, and nothing else. */
const SIMPLE = new Set(['ADD', 'XADD', 'CMP', 'SUB', 'NEG', 'CMPXCHG', 'CMPS', 'SCAS']);

export function regionLocals(code: Code): RegionLocals {
  const i64 = (): number => code.local(ValueType.I64);
  return {
    gprs: Array.from({ length: GPRS }, i64),
    flagKind: code.local(ValueType.I32),
    flagResult: i64(),
    flagCarries: i64(),
    compared: [i64(), i64(), i64()],
  };
}

export interface RegionFrame extends Frame {
  readonly locals: RegionLocals;
  /** Its code runs in `Mode.FLAT`. */
  readonly flat: boolean;
  /** Where it keeps translations that it has looked up; none are kept without. */
  readonly held?: HeldPages;
  /** Leaves the region with the instruction at `rip` for the evaluator; `before` instructions of its block have retired. */
  evaluate(rip: bigint, before: number): void;
}

/** What a branch decided; where a relative one goes is known from the block. */
export type Decision = { readonly kind: 'when'; readonly condition: C } | { readonly kind: 'to'; readonly target: V };

export class RegionEmitter extends Emitter {
  /** Of the last instruction; undefined when it goes on in the one way that there is. */
  decision: Decision | undefined;
  /** Registers that the code reads, in part or whole, and those that it writes. */
  readonly gprsRead = new Set<number>();
  readonly gprsWritten = new Set<number>();
  /** What the last instruction does, as far as it depends on its shape. */
  footprint: Footprint = { accesses: [], operands: [], registers: [] };
  /** Linear addresses of the instruction, and what they come from. */
  private readonly places = new Map<V, Place>();
  private instructionHere: RegionInstruction | undefined;
  private retired = 0;

  constructor(
    private readonly region: RegionFrame,
    pool: LocalPool,
    helpers: Helpers,
  ) {
    super(region, pool, helpers);
  }

  /** What is known of the flags: at the start of a block what all that lead to it know. */
  get knownFlags(): KnownFlags {
    return { kind: this.flagKind, source: this.flagSource };
  }
  set knownFlags({ kind, source }: KnownFlags) {
    this.flagKind = kind;
    this.flagSource = source;
  }
  private flagKind: number | undefined;

  /** @param retired instructions of the block before this one. @throws NotCompiled */
  emit(here: RegionInstruction, retired: number, flagsAreDead = false): void {
    this.flagsAreDead = flagsAreDead;
    this.instructionHere = here;
    this.retired = retired;
    this.decision = undefined;
    this.pool.reset();
    this.footprint = { accesses: [], operands: [], registers: [] };
    this.places.clear();
    this.instruction(here.insn.instruction as PlainInstruction, here.insn);
  }

  private get here(): RegionInstruction {
    if (this.instructionHere === undefined) throw new InvariantError('the emitter has no instruction');
    return this.instructionHere;
  }

  // The way on, and the way out

  override nextUop(): void {}

  protected override assist(): void {
    this.effects.leaves = true;
    this.region.evaluate(this.here.rip, this.retired);
  }

  override nextRip(): V {
    return this.constant(nextRip(this.here));
  }

  /** Legacy code may jump past its segment's limit. */
  override requireRelative(_operand: Operand, condition?: C): void {
    const target = targetOf(this.here);
    if (target === undefined) throw new NotCompiled('no relative operand');
    if (this.current.long) {
      if (!isCanonical(target)) throw new NotCompiled('a branch to a non-canonical address');
      return;
    }
    if (this.region.flat) return;
    const { code } = this;
    code.i64(target).i32(0).memory(Op.I64_LOAD, Cell.CODE_LIMIT).op(Op.I64_GT_U);
    if (condition !== undefined) code.get(condition).op(Op.I32_AND);
    this.assistWhen(this.truth());
  }
  override requireTarget(target: V): void {
    if (!this.region.flat) super.requireTarget(target);
  }
  override jump(target: V): void {
    this.decide({ kind: 'to', target: this.targetOf(target) });
  }
  override jumpRelative(operand: Operand): void {
    this.requireRelative(operand);
    this.jumped = true;
  }
  override jumpRelativeWhen(condition: C, operand: Operand): void {
    this.requireRelative(operand, condition);
    this.decide({ kind: 'when', condition });
  }
  private decide(decision: Decision): void {
    this.jumped = true;
    this.decision = decision;
  }

  /** A loop of its own; what may be left of the budget too late for it is the evaluator's. */
  protected override repeated(instruction: PlainInstruction, insn: Static): void {
    const { code } = this;
    this.flagsAreDead = false;
    this.forgetFlags();
    const end = code.block().blockDepth;
    const again = code.loop().blockDepth;
    const count = this.readGpr(1, insn.addressWidth);
    code.get(count).op(Op.I64_EQZ).brIf(end);
    const { done, goesOn } = this.iterate(instruction, insn, count);
    code.get(goesOn).if();
    this.charge(() => code.get(done).op(Op.I32_WRAP_I64));
    this.budgetTooSmall();
    code.op(Op.I32_EQZ).brIf(again);
    this.assist();
    code.end();
    this.chargeAllButOne(done);
    code.end().end();
    this.forgetFlags();
  }

  /** Their kind is known no more before the code runs. */
  private forgetFlags(): void {
    this.knownFlags = NOTHING_KNOWN;
  }

  // Registers

  override read(operand: Operand): V {
    const decoded = operand as DecodedOperand;
    switch (decoded.kind) {
      case 'imm':
        return this.constant(decoded.value);
      case 'gpr': {
        if (!decoded.high) return this.readGpr(decoded.number, decoded.width);
        this.pushGpr(decoded.number);
        this.code.i64(8n).op(Op.I64_SHR_U);
        this.mask(8);
        return this.result();
      }
      default:
        return super.read(operand);
    }
  }

  override write(operand: Operand, value: V): void {
    if (operand.kind !== 'gpr') super.write(operand, value);
    else {
      const { number, width, high } = operand as GprOperand;
      this.footprint.operands.push(this.here.insn.operands.indexOf(operand as GprOperand));
      if (high) this.mergeGpr(number, value, 8, 8);
      else this.putGpr(number, width, value);
    }
  }

  override readGpr(number: number, width: number): V {
    this.pushGpr(number);
    this.mask(width);
    return this.result();
  }

  override writeGpr(number: number, width: number, value: V): void {
    this.footprint.registers.push(number);
    this.putGpr(number, width, value);
  }

  private putGpr(number: number, width: number, value: V): void {
    if (width < 32) this.mergeGpr(number, value, width, 0);
    else {
      this.code.get(value);
      this.setGpr(number);
    }
  }

  private mergeGpr(number: number, value: V, width: number, shift: number): void {
    const { code } = this;
    this.pushGpr(number);
    code
      .i64(~(((1n << BigInt(width)) - 1n) << BigInt(shift)))
      .op(Op.I64_AND)
      .get(value);
    if (shift > 0) code.i64(BigInt(shift)).op(Op.I64_SHL);
    code.op(Op.I64_OR);
    this.setGpr(number);
  }

  private pushGpr(number: number): Code {
    this.gprsRead.add(number);
    return this.code.get(this.region.locals.gprs[number] as number);
  }

  private setGpr(number: number): void {
    this.gprsWritten.add(number);
    this.code.set(this.region.locals.gprs[number] as number);
  }

  protected override pushRegisterAddress(operand: Operand): void {
    const decoded = operand as DecodedOperand;
    if (decoded.kind === 'xmm') this.code.i32(slotAddress(xmmSlot(decoded.number)));
    else if (decoded.kind === 'segment') this.code.i32(slotAddress(segmentSlot(decoded.number)));
    else if (decoded.kind === 'control') this.code.i32(slotAddress(CONTROL_SLOTS.get(decoded.number) as Slot));
    else throw new NotCompiled(`the address of a register of kind ${operand.kind}`);
  }

  // Addresses

  override address(): V {
    const { width, addressWidth } = this.current;
    const offset = this.offset(this.memoryOperand());
    return width < addressWidth ? this.truncate(width, offset) : offset;
  }

  protected override effective(): V {
    const memory = this.memoryOperand();
    const linear = this.linearAt(memory);
    this.places.set(linear, 'operand');
    return linear;
  }

  private linearAt(memory: MemoryOperand): V {
    const { code } = this;
    const offset = this.offset(memory);
    if (!this.current.long) return this.segmentLinear(memory.segment, offset, Math.max(1, memory.width / 8));
    if (memory.segment !== Segment.FS && memory.segment !== Segment.GS) return offset;
    code.get(offset).i32(segmentBaseAddress(memory.segment)).memory(Op.I64_LOAD).op(Op.I64_ADD);
    return this.result();
  }

  private memoryOperand(): MemoryOperand {
    const memory = memoryOperand(this.here.insn);
    if (memory === undefined) throw new NotCompiled('no memory operand');
    return memory;
  }

  /** base + (index << scale) + displacement, cut to the address size. */
  private offset(memory: MemoryOperand): V {
    const { code } = this;
    const base = memory.base === RIP_BASE ? nextRip(this.here) : 0n;
    const displacement = BigInt.asUintN(64, base + memory.displacement);
    code.i64(displacement);
    if (memory.base >= 0 && memory.base !== RIP_BASE) {
      this.pushGpr(memory.base);
      code.op(Op.I64_ADD);
    }
    if (memory.index >= 0) {
      this.pushGpr(memory.index);
      if (memory.scale > 0) code.i64(BigInt(memory.scale)).op(Op.I64_SHL);
      code.op(Op.I64_ADD);
    }
    this.mask(this.current.addressWidth);
    return this.result();
  }

  /** Regions are of code with 32-bit stacks, or in 64-bit mode. */
  protected override stackAddress(pointer: V): V {
    return this.current.long ? pointer : this.truncate(32, pointer);
  }
  protected override segmentLinear(segment: number, offset: V, bytes: number): V {
    return this.region.flat && FLAT_DATA.has(segment) ? offset : super.segmentLinear(segment, offset, bytes);
  }
  protected override setStackPointer(pointer: V): void {
    this.writeGpr(4, 64, pointer);
  }
  protected override stackLinear(offset: V, bytes: number): V {
    const linear = super.stackLinear(offset, bytes);
    this.places.set(linear, 'stack');
    return linear;
  }

  // Translations

  protected override translate(linear: V, bytes: number, write: boolean, many = false): number {
    const place = this.places.get(linear);
    // Of no other size could a tag be compared with where the access begins, nor is a page kept for whatever it is written to.
    if (place === undefined || many || (bytes & (bytes - 1)) !== 0) return super.translate(linear, bytes, write, many);
    this.footprint.accesses.push({ place, write });
    const held = this.region.held?.take(accessOf(this.here, place, write));
    if (held === undefined) return super.translate(linear, bytes, write);
    const { code } = this;
    if (held.isLikely) {
      this.renew(held, linear, bytes, write);
      code
        .get(linear)
        .op(Op.I32_WRAP_I64)
        .i32(0)
        .memory(Op.I32_LOAD, held.cell + 8)
        .op(Op.I32_ADD);
    } else {
      const entry = this.lookUp(linear, bytes, write, false, (entry) =>
        this.hold(held.cell, entry, linear, bytes, write),
      );
      code.get(linear).op(Op.I32_WRAP_I64);
      this.pushAddend(entry, write);
      code.op(Op.I32_ADD);
    }
    return this.truth();
  }

  private hold(cell: number, entry: number, linear: V, bytes: number, write: boolean): void {
    const { code } = this;
    code.i32(0);
    this.pushPage(linear, bytes);
    code.memory(Op.I64_STORE, cell).i32(0);
    this.pushAddend(entry, write);
    code.memory(Op.I32_STORE, cell + 8);
  }

  /** Looks into the TLB where the pair does not hold the page. */
  private renew({ cell, lookUp }: HeldPair, linear: V, bytes: number, write: boolean): void {
    const { code } = this;
    // Of an access that is not aligned more than the page is left: no tag is that, nor is the tag of a pair that holds none.
    code
      .get(linear)
      .i64(-4096n | BigInt(bytes - 1))
      .op(Op.I64_AND);
    code.i32(0).memory(Op.I64_LOAD, cell).op(Op.I64_NE).ifRare();
    code.get(linear).i32(cell).call(lookUp(bytes, write)).op(Op.I32_EQZ).if();
    this.assist();
    code.end();
    code.end();
  }

  // Flags: additions and subtractions keep what they were of, and carries are made of it when somebody asks

  protected override pushFlagResult(): Code {
    if (this.flagKind === undefined) this.settleFlags();
    this.code.get(this.region.locals.flagResult);
    if (this.flagKind !== FlagKind.PLAIN) this.extendOnStack(64 - ((this.flagKind as number) & FlagKind.SHIFT));
    return this.code;
  }

  protected override pushCarries(): Code {
    const { code } = this;
    const { flagCarries, flagResult } = this.region.locals;
    const kind = this.flagKind;
    if (kind === undefined) {
      this.settleFlags();
      return code.get(flagCarries);
    }
    if (kind === FlagKind.PLAIN) return code.get(flagCarries);
    const adds = (kind & FlagKind.ADD) !== 0;
    const [from, less] = adds ? [flagResult, flagCarries] : [flagCarries, flagResult];
    code.get(from).get(less).op(Op.I64_SUB);
    const other = this.result();
    const carries = adds
      ? this.carriesOfAdd(flagCarries, other, flagResult)
      : this.carriesOfSub(flagCarries, other, flagResult);
    this.normalCarries(64 - (kind & FlagKind.SHIFT), carries);
    return code;
  }

  protected override storeCarries(value: () => void): void {
    this.settleFlags();
    value();
    this.code.set(this.region.locals.flagCarries);
    this.flagSource = undefined;
  }
  protected override storeFlagResult(value: () => void): void {
    this.settleFlags();
    value();
    this.code.set(this.region.locals.flagResult);
    this.flagSource = undefined;
  }

  protected override setLazy(width: number, result: V, carries: () => void): void {
    const { code } = this;
    if (this.conditions === 0) this.effects.overwritesFlags = true;
    code.get(result);
    this.extendOnStack(width);
    const extended = this.result();
    carries();
    this.setFlags(FlagKind.PLAIN, extended, this.result());
  }

  private setFlags(kind: number, result: V, carries: V): void {
    const { flagKind, flagResult, flagCarries } = this.region.locals;
    this.code.get(result).set(flagResult).get(carries).set(flagCarries).i32(kind).set(flagKind);
    this.flagKind = kind;
    this.flagSource = undefined;
  }

  /** Makes them plain. */
  private settleFlags(): void {
    if (this.flagKind === FlagKind.PLAIN) return;
    if (this.flagKind === undefined) settleFlags(this.code, this.region.locals, () => this.i64());
    else {
      this.pushCarries();
      const carries = this.result();
      this.pushFlagResult();
      this.setFlags(FlagKind.PLAIN, this.result(), carries);
    }
    this.flagKind = FlagKind.PLAIN;
  }

  override when(c: C, then: () => void, otherwise?: () => void): void {
    const before = this.flagKind;
    let after: number | undefined;
    super.when(
      c,
      () => {
        then();
        after = this.flagKind;
        this.flagKind = before;
      },
      () => otherwise?.(),
    );
    if (this.flagKind !== after) this.flagKind = undefined;
    this.flagSource = undefined;
  }

  override flagsAdd(width: number, a: V, b: V, result: V): void {
    if (!SIMPLE.has(this.here.insn.mnemonic) || this.conditions > 0) super.flagsAdd(width, a, b, result);
    else if (!this.flagsAreDead) {
      this.effects.overwritesFlags = true;
      this.setFlags(FlagKind.ADD | (64 - width), result, a);
    }
  }

  override flagsSub(width: number, a: V, b: V, result: V): void {
    if (!SIMPLE.has(this.here.insn.mnemonic) || this.conditions > 0) {
      super.flagsSub(width, a, b, result);
      this.flagSource = undefined;
      return;
    }
    if (this.flagsAreDead) return;
    this.effects.overwritesFlags = true;
    this.setFlags(FlagKind.SUB | (64 - width), result, a);
    const [keptA, keptB, keptResult] = this.region.locals.compared;
    this.code.get(a).set(keptA).get(b).set(keptB).get(result).set(keptResult);
    this.flagSource = { kind: 'sub', width, a: keptA, b: keptB, result: keptResult };
  }

  override flagsLogic(width: number, result: V): void {
    super.flagsLogic(width, result);
    this.flagSource = undefined;
    if (this.conditions > 0 || this.flagsAreDead) return;
    const [, , kept] = this.region.locals.compared;
    this.code.get(result).set(kept);
    this.flagSource = { kind: 'logic', width, result: kept };
  }
}

/** Makes flags of whatever kind plain. @param local a new one for an i64. */
export function settleFlags(
  code: Code,
  { flagKind, flagResult, flagCarries }: RegionLocals,
  local: () => number,
): void {
  const shift = local();
  const [other, first, second] = [local(), local(), local()];
  const isSum = (): Code => code.get(flagKind).i32(FlagKind.ADD).op(Op.I32_AND);
  code.get(flagKind).if();
  code.get(flagKind).i32(FlagKind.SHIFT).op(Op.I32_AND, Op.I64_EXTEND_I32_U).set(shift);
  // The other operand; then both with the result, as in `carriesOfAdd` and `carriesOfSub`.
  code.get(flagResult).get(flagCarries).op(Op.I64_SUB);
  code.get(flagCarries).get(flagResult).op(Op.I64_SUB);
  isSum().op(Op.SELECT).set(other);
  code.get(flagCarries).get(flagCarries).i64(-1n).op(Op.I64_XOR);
  isSum().op(Op.SELECT).set(first);
  code.get(flagResult).i64(-1n).op(Op.I64_XOR).get(flagResult);
  isSum().op(Op.SELECT).set(second);
  code.get(first).get(other).op(Op.I64_AND);
  code.get(first).get(other).op(Op.I64_OR).get(second).op(Op.I64_AND, Op.I64_OR).set(other);
  code.get(other).get(shift).op(Op.I64_SHL).i64(CARRY_AND_OVERFLOW).op(Op.I64_AND);
  code.get(other).i64(AUXILIARY).op(Op.I64_AND, Op.I64_OR).set(flagCarries);
  code.get(flagResult).get(shift).op(Op.I64_SHL).get(shift).op(Op.I64_SHR_S).set(flagResult);
  code.i32(FlagKind.PLAIN).set(flagKind);
  code.end();
}

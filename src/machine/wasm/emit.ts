/**
 * Ops over WebAssembly locals: writes the code of one instruction. Values are i64 locals, truths i32 locals, vectors
 * v128 locals; operands are found through the micro-op at run time.
 *
 * Whatever cannot be done here leaves by an *assist*: nothing of the instruction has happened yet, and the evaluator
 * does it. That covers faults, device memory, page crossings and writes to decoded code.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import { InvariantError } from '../errors.js';
import type {
  ArithmeticFlag,
  ConditionCode,
  FaultName,
  Operand,
  Ops,
  PlainInstruction,
  Static,
  VectorMask,
  VectorOperation,
  VectorShift,
} from '../isa/instruction.js';
import { gprSlot, R, Segment, slotAddress } from '../layout/cpu-state.js';
import { Cell, segmentBaseAddress, segmentLimitCell, TLB_WRITE_OFFSET } from '../layout/linear-memory.js';
import { type Code, Op, ValueType } from './module.js';
import { SIMD } from './simd.js';
import { ExitReason, Uop } from './uop.js';

type V = number;
type C = number;
type X = number;

/** Indices of the functions that handlers call. */
export interface Helpers {
  /** (access and size) → 1 when the TLB now holds the page of `Cell.EXIT_ADDRESS`, 0 for an assist. */
  readonly fill: number;
  /** (rip: i64) → micro-op or 0 (leave). */
  readonly lookup: number;
}

/** How a handler goes on: within the big dispatch loop, or as a function of its own. */
export interface Frame {
  readonly code: Code;
  /** Writes the jump to the next dispatch, with the micro-op on the stack. */
  next(): void;
  /** Writes the way out of the engine. */
  leave(): void;
  /** Writes the way out of the engine that leaves the instruction of the micro-op in local 0 to the evaluator. */
  assist(): void;
  /** Writes the jump to code that takes the relative branch of the micro-op on the stack, where there is such code. */
  taken?(): void;
}

/** What the flags were last set from, within one handler: conditions need not unpack the cells. */
type FlagSource =
  | { readonly kind: 'sub'; readonly width: number; readonly a: V; readonly b: V; readonly result: V }
  | { readonly kind: 'logic'; readonly width: number; readonly result: V };

/** Thrown by operations that have no WebAssembly counterpart: the instruction is left to the evaluator. */
export class NotCompiled extends Error {}

/** Local 0 holds the micro-op in every handler. */
const UOP = 0;
const SIGN = 1n << 63n;
const FLAG_MASK = 0xc000_0000_0000_0008n;

/** Locals by type, shared by all handlers of one function. */
export class LocalPool {
  private readonly pools = new Map<ValueType, number[]>();
  private readonly used = new Map<ValueType, number>();

  constructor(private readonly code: Code) {}

  take(type: ValueType): number {
    const pool = this.pools.get(type) ?? [];
    this.pools.set(type, pool);
    const index = this.used.get(type) ?? 0;
    this.used.set(type, index + 1);
    const known = pool[index];
    if (known !== undefined) return known;
    const local = this.code.local(type);
    pool.push(local);
    return local;
  }

  reset(): void {
    this.used.clear();
  }
}

export class Emitter implements Ops<V, C, X> {
  private readonly code: Code;
  private insn: Static | undefined;
  private jumped = false;
  /** Offset of the instruction's micro-op from the one in local 0: that of the second of a fused pair is behind it. */
  private at = 0;
  private flagSource: FlagSource | undefined;
  /** Memory address of the operand that `readForWrite` checked, for the write that follows. */
  private writeAddress: number | undefined;

  constructor(
    private readonly frame: Frame,
    private readonly pool: LocalPool,
    private readonly helpers: Helpers,
  ) {
    this.code = frame.code;
  }

  /** Writes the whole handler of `insn`. @throws NotCompiled */
  instruction(instruction: PlainInstruction, insn: Static): void {
    this.insn = insn;
    this.jumped = false;
    this.writeAddress = undefined;
    if (insn.rep === 'none') {
      instruction.semantics(this, insn);
      if (!this.jumped) this.nextUop();
      return;
    }
    this.repeated(instruction, insn);
  }

  /** Writes one handler for two instructions in a row; the second is a branch on the flags of the first. */
  pair(first: DecodedInstruction, second: DecodedInstruction): void {
    this.insn = first;
    this.jumped = false;
    (first.instruction as PlainInstruction).semantics(this, first);
    this.at = Uop.BYTES;
    this.insn = second;
    (second.instruction as PlainInstruction).semantics(this, second);
    this.nextUop();
  }

  /** Writes the code that `Frame.taken` jumps to. */
  takenBranch(): void {
    this.insn = { width: 64, addressWidth: 64, long: true, rep: 'none', operands: [] };
    this.takeRelative();
  }

  /** One iteration; while more are due the same micro-op is dispatched again, each charged as one instruction. */
  private repeated(instruction: PlainInstruction, insn: Static): void {
    const { code } = this;
    const count = this.readGpr(1, insn.addressWidth);
    code.get(count).op(Op.I64_EQZ).if();
    this.nextUop();
    code.end();
    instruction.semantics(this, insn);
    const left = this.sub(insn.addressWidth, count, this.constant(1n));
    this.writeGpr(1, insn.addressWidth, left);
    let goesOn = this.negate(this.isZero(left));
    if (/^(CMPS|SCAS)/.test(instruction.mnemonic)) {
      const zero = this.flag('zf');
      goesOn = this.both(goesOn, insn.rep === 'rep' ? zero : this.negate(zero));
    }
    code.get(goesOn).if();
    this.chargeCell(() => code.i32(1));
    this.budgetTooSmall();
    code.if();
    // Leaves with RIP at this instruction and everything before it charged.
    this.chargeCell(() => code.get(UOP).memory(Op.I32_LOAD8_U, this.at + Uop.POSITION));
    this.storeRip(() => this.ripOfThis());
    this.leaveWith(ExitReason.BUDGET);
    code.end();
    code.get(UOP);
    this.frame.next();
    code.end();
    this.nextUop();
  }

  private get current(): Static {
    if (this.insn === undefined) throw new InvariantError('the emitter has no instruction');
    return this.insn;
  }

  private i64(): V {
    return this.pool.take(ValueType.I64);
  }
  private i32(): C {
    return this.pool.take(ValueType.I32);
  }
  private v128(): X {
    return this.pool.take(ValueType.V128);
  }

  private result(): V {
    const local = this.i64();
    this.code.set(local);
    return local;
  }
  private truth(): C {
    const local = this.i32();
    this.code.set(local);
    return local;
  }
  private vectorResult(): X {
    const local = this.v128();
    this.code.set(local);
    return local;
  }

  constant(value: bigint): V {
    this.code.i64(value);
    return this.result();
  }

  // Operands

  private registerField(operand: Operand): number {
    let index = 0;
    for (const other of this.current.operands) {
      if (other === operand) break;
      if (other.kind === 'gpr' || other.kind === 'xmm') index++;
    }
    const field = [Uop.REGISTER0, Uop.REGISTER1, Uop.REGISTER2][index];
    if (field === undefined) throw new NotCompiled('more than three register operands');
    return this.at + field;
  }

  read(operand: Operand): V {
    const { code } = this;
    switch (operand.kind) {
      case 'gpr':
        code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand));
        this.loadWidth(operand.width);
        return this.result();
      case 'mem':
        return this.loadLinear(this.effective(), operand.width);
      case 'imm':
        code.get(UOP).memory(Op.I64_LOAD, this.at + Uop.IMMEDIATE);
        return this.result();
      case 'xmm':
        code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand));
        this.loadWidth(operand.width);
        return this.result();
      default:
        throw new NotCompiled(`reads an operand of kind ${operand.kind}`);
    }
  }

  readForWrite(operand: Operand): V {
    if (operand.kind !== 'mem') return this.read(operand);
    this.writeAddress = this.translate(this.effective(), operand.width / 8, true);
    this.code.get(this.writeAddress);
    this.loadWidth(operand.width);
    return this.result();
  }

  write(operand: Operand, value: V): void {
    const { code } = this;
    switch (operand.kind) {
      case 'gpr':
        code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand)).get(value);
        this.storeRegisterWidth(operand.width);
        return;
      case 'mem': {
        const address = this.writeAddress ?? this.translate(this.effective(), operand.width / 8, true);
        this.writeAddress = undefined;
        code.get(address).get(value);
        this.storeWidth(operand.width);
        return;
      }
      default:
        throw new NotCompiled(`writes an operand of kind ${operand.kind}`);
    }
  }

  address(_operand: Operand): V {
    const { width } = this.current;
    return width === 64 ? this.effective() : this.truncate(width, this.effective());
  }

  displaced(): Operand {
    throw new NotCompiled('addresses beyond the operand');
  }
  load(segment: 'data' | 'stack', width: number, offset: V): V {
    return this.loadLinear(this.implicitLinear(segment, width, offset), width);
  }
  store(segment: 'data' | 'stack', width: number, offset: V, value: V): void {
    this.storeLinear(this.implicitLinear(segment, width, offset), width, value);
  }
  private implicitLinear(segment: 'data' | 'stack', width: number, offset: V): V {
    if (segment === 'data') throw new NotCompiled('memory that no operand names');
    return this.stackLinear(this.stackAddress(offset), width / 8);
  }

  readGpr(number: number, width: number): V {
    this.code.i32(slotAddress(gprSlot(number)));
    this.loadWidth(width);
    return this.result();
  }

  writeGpr(number: number, width: number, value: V): void {
    this.code.i32(slotAddress(gprSlot(number))).get(value);
    this.storeRegisterWidth(width);
  }

  /** base + (index << scale) + displacement. */
  private effective(): V {
    const { code } = this;
    code
      .get(UOP)
      .memory(Op.I32_LOAD16_U, this.at + Uop.BASE)
      .memory(Op.I64_LOAD);
    code
      .get(UOP)
      .memory(Op.I32_LOAD16_U, this.at + Uop.INDEX)
      .memory(Op.I64_LOAD);
    code
      .get(UOP)
      .memory(Op.I64_LOAD8_U, this.at + Uop.SCALE)
      .op(Op.I64_SHL, Op.I64_ADD);
    code
      .get(UOP)
      .memory(Op.I64_LOAD32_S, this.at + Uop.DISPLACEMENT)
      .op(Op.I64_ADD);
    return this.result();
  }

  private loadWidth(width: number, offset = 0): void {
    const opcode = { 8: Op.I64_LOAD8_U, 16: Op.I64_LOAD16_U, 32: Op.I64_LOAD32_U, 64: Op.I64_LOAD }[width];
    if (opcode === undefined) throw new NotCompiled(`loads ${width} bits`);
    this.code.memory(opcode, offset);
  }

  private storeWidth(width: number, offset = 0): void {
    const opcode = { 8: Op.I64_STORE8, 16: Op.I64_STORE16, 32: Op.I64_STORE32, 64: Op.I64_STORE }[width];
    if (opcode === undefined) throw new NotCompiled(`stores ${width} bits`);
    this.code.memory(opcode, offset);
  }

  /** A 32-bit result clears the upper half of the register; values are zero-extended already. */
  private storeRegisterWidth(width: number): void {
    this.storeWidth(width === 32 ? 64 : width);
  }

  /**
   * TLB look-up of `bytes` at a linear address; an access that crosses its page misses by construction.
   * @returns a local (i32) with the address in this memory.
   */
  private translate(linear: V, bytes: number, write: boolean): number {
    const { code } = this;
    const entry = this.i32();
    code.i32(Cell.TLB_BANK).memory(Op.I32_LOAD);
    code.get(linear).i64(8n).op(Op.I64_SHR_U, Op.I32_WRAP_I64).i32(0x3ff0).op(Op.I32_AND, Op.I32_ADD).tee(entry);
    code.memory(Op.I64_LOAD, write ? TLB_WRITE_OFFSET : 0);
    code.get(linear);
    if (bytes > 1) code.i64(BigInt(bytes - 1)).op(Op.I64_ADD);
    code.i64(-4096n).op(Op.I64_AND, Op.I64_NE).if();
    code.i32(Cell.EXIT_ADDRESS).get(linear).memory(Op.I64_STORE);
    code
      .i32(bytes | (write ? 0x100 : 0))
      .call(this.helpers.fill)
      .op(Op.I32_EQZ)
      .if();
    this.assist();
    code.end().end();
    code.get(linear).op(Op.I32_WRAP_I64);
    code
      .get(entry)
      .memory(Op.I32_LOAD, (write ? TLB_WRITE_OFFSET : 0) + 8)
      .op(Op.I32_ADD);
    return this.truth();
  }

  private loadLinear(linear: V, width: number): V {
    const address = this.translate(linear, width / 8, false);
    this.code.get(address);
    this.loadWidth(width);
    return this.result();
  }

  private storeLinear(linear: V, width: number, value: V): void {
    const address = this.translate(linear, width / 8, true);
    this.code.get(address).get(value);
    this.storeWidth(width);
  }

  // Integers

  private binary(opcode: number, a: V, b: V, width = 64): V {
    this.code.get(a).get(b).op(opcode);
    this.mask(width);
    return this.result();
  }

  /** Cuts the i64 on the stack to `width` bits. */
  private mask(width: number): void {
    if (width < 64) this.code.i64((1n << BigInt(width)) - 1n).op(Op.I64_AND);
  }

  add(width: number, a: V, b: V): V {
    return this.binary(Op.I64_ADD, a, b, width);
  }
  sub(width: number, a: V, b: V): V {
    return this.binary(Op.I64_SUB, a, b, width);
  }
  mul(width: number, a: V, b: V): V {
    return this.binary(Op.I64_MUL, a, b, width);
  }
  mulHighUnsigned(width: number, a: V, b: V): V {
    if (width < 64) {
      this.code.get(a).get(b).op(Op.I64_MUL).i64(BigInt(width)).op(Op.I64_SHR_U);
      this.mask(width);
      return this.result();
    }
    return this.mulHigh64(a, b);
  }
  mulHighSigned(width: number, a: V, b: V): V {
    if (width < 64) {
      const product = this.mul(64, this.signExtend(width, 64, a), this.signExtend(width, 64, b));
      this.code.get(product).i64(BigInt(width)).op(Op.I64_SHR_U);
      this.mask(width);
      return this.result();
    }
    // high signed = high unsigned - (a < 0 ? b : 0) - (b < 0 ? a : 0)
    const high = this.mulHigh64(a, b);
    const { code } = this;
    code.get(high);
    code.get(a).i64(63n).op(Op.I64_SHR_S).get(b).op(Op.I64_AND, Op.I64_SUB);
    code.get(b).i64(63n).op(Op.I64_SHR_S).get(a).op(Op.I64_AND, Op.I64_SUB);
    return this.result();
  }

  /** High half of a 64 x 64 bit product, from 32-bit halves. */
  private mulHigh64(a: V, b: V): V {
    const low = (value: V): V => this.truncate(32, value);
    const high = (value: V): V => {
      this.code.get(value).i64(32n).op(Op.I64_SHR_U);
      return this.result();
    };
    const [aLow, aHigh, bLow, bHigh] = [low(a), high(a), low(b), high(b)];
    const cross = this.add(64, this.mul(64, aHigh, bLow), high(this.mul(64, aLow, bLow)));
    const middle = this.add(64, this.mul(64, aLow, bHigh), low(cross));
    return this.add(64, this.add(64, this.mul(64, aHigh, bHigh), high(cross)), high(middle));
  }

  and(a: V, b: V): V {
    return this.binary(Op.I64_AND, a, b);
  }
  or(a: V, b: V): V {
    return this.binary(Op.I64_OR, a, b);
  }
  xor(a: V, b: V): V {
    return this.binary(Op.I64_XOR, a, b);
  }
  not(width: number, a: V): V {
    this.code
      .get(a)
      .i64((1n << BigInt(width)) - 1n)
      .op(Op.I64_XOR);
    return this.result();
  }
  neg(width: number, a: V): V {
    this.code.i64(0n).get(a).op(Op.I64_SUB);
    this.mask(width);
    return this.result();
  }
  shl(width: number, a: V, count: V): V {
    return this.binary(Op.I64_SHL, a, count, width);
  }
  shr(_width: number, a: V, count: V): V {
    return this.binary(Op.I64_SHR_U, a, count);
  }
  sar(width: number, a: V, count: V): V {
    return this.binary(Op.I64_SHR_S, this.signExtend(width, 64, a), count, width);
  }
  rol(width: number, a: V, count: V): V {
    if (width === 64) return this.binary(Op.I64_ROTL, a, count);
    return this.rotateNarrow(width, a, count, Op.I64_SHL, Op.I64_SHR_U);
  }
  ror(width: number, a: V, count: V): V {
    if (width === 64) return this.binary(Op.I64_ROTR, a, count);
    return this.rotateNarrow(width, a, count, Op.I64_SHR_U, Op.I64_SHL);
  }
  private rotateNarrow(width: number, a: V, count: V, there: number, back: number): V {
    const { code } = this;
    code.get(a).get(count).op(there);
    code.get(a).i64(BigInt(width)).get(count).op(Op.I64_SUB, back, Op.I64_OR);
    this.mask(width);
    return this.result();
  }
  signExtend(from: number, to: number, a: V): V {
    this.code.get(a);
    this.extendOnStack(from);
    this.mask(to);
    return this.result();
  }
  private extendOnStack(from: number): void {
    if (from === 64) return;
    const opcode = { 8: Op.I64_EXTEND8_S, 16: Op.I64_EXTEND16_S, 32: Op.I64_EXTEND32_S }[from];
    if (opcode !== undefined) this.code.op(opcode);
    else
      this.code
        .i64(BigInt(64 - from))
        .op(Op.I64_SHL)
        .i64(BigInt(64 - from))
        .op(Op.I64_SHR_S);
  }
  truncate(width: number, a: V): V {
    this.code.get(a);
    this.mask(width);
    return this.result();
  }
  countLeadingZeros(width: number, a: V): V {
    this.code
      .get(a)
      .op(Op.I64_CLZ)
      .i64(BigInt(64 - width))
      .op(Op.I64_SUB);
    return this.result();
  }
  countTrailingZeros(width: number, a: V): V {
    // A bit just above the width bounds the count.
    this.code.get(a);
    if (width < 64) this.code.i64(1n << BigInt(width)).op(Op.I64_OR);
    this.code.op(Op.I64_CTZ);
    return this.result();
  }
  countOnes(_width: number, a: V): V {
    this.code.get(a).op(Op.I64_POPCNT);
    return this.result();
  }
  byteSwap(width: 32 | 64, a: V): V {
    const { code } = this;
    let value = a;
    for (const [shift, mask] of [
      [8n, 0x00ff_00ff_00ff_00ffn],
      [16n, 0x0000_ffff_0000_ffffn],
    ] as const) {
      code.get(value).i64(mask).op(Op.I64_AND).i64(shift).op(Op.I64_SHL);
      code.get(value).i64(shift).op(Op.I64_SHR_U).i64(mask).op(Op.I64_AND, Op.I64_OR);
      value = this.result();
    }
    code.get(value).i64(32n).op(Op.I64_ROTL);
    value = this.result();
    if (width === 64) return value;
    code.get(value).i64(32n).op(Op.I64_SHR_U);
    return this.result();
  }

  divideUnsigned(width: number, high: V, low: V, divisor: V): { quotient: V; remainder: V } {
    const { code } = this;
    this.assistWhen(this.isZero(divisor));
    let dividend = low;
    if (width === 64) this.assistWhen(this.negate(this.isZero(high)));
    else {
      dividend = this.joined(width, high, low);
      this.assistWhen(this.negate(this.lessUnsigned(high, divisor)));
    }
    code.get(dividend).get(divisor).op(Op.I64_DIV_U);
    const quotient = this.result();
    code.get(dividend).get(divisor).op(Op.I64_REM_U);
    return { quotient, remainder: this.result() };
  }

  divideSigned(width: number, high: V, low: V, divisor: V): { quotient: V; remainder: V } {
    const { code } = this;
    this.assistWhen(this.isZero(divisor));
    const by = this.signExtend(width, 64, divisor);
    const dividend = width === 64 ? low : this.signExtend(2 * width, 64, this.joined(width, high, low));
    if (width === 64) {
      // Only dividends that fit 64 bits; the rest, and the one overflow, is for the evaluator.
      code.get(low).i64(63n).op(Op.I64_SHR_S).get(high).op(Op.I64_NE);
      this.assistWhen(this.truth());
      code.get(dividend).i64(SIGN).op(Op.I64_EQ).get(by).i64(-1n).op(Op.I64_EQ, Op.I32_AND);
      this.assistWhen(this.truth());
    } else if (width === 32) {
      code.get(dividend).i64(SIGN).op(Op.I64_EQ).get(by).i64(-1n).op(Op.I64_EQ, Op.I32_AND);
      this.assistWhen(this.truth());
    }
    code.get(dividend).get(by).op(Op.I64_DIV_S);
    const quotient = this.result();
    code.get(dividend).get(by).op(Op.I64_REM_S);
    const remainder = this.result();
    if (width < 64) {
      code
        .get(this.signExtend(width, 64, quotient))
        .get(quotient)
        .op(Op.I64_NE);
      this.assistWhen(this.truth());
    }
    return { quotient: this.truncate(width, quotient), remainder: this.truncate(width, remainder) };
  }

  private joined(width: number, high: V, low: V): V {
    this.code.get(high).i64(BigInt(width)).op(Op.I64_SHL).get(low).op(Op.I64_OR);
    return this.result();
  }

  // Truth

  isZero(a: V): C {
    this.code.get(a).op(Op.I64_EQZ);
    return this.truth();
  }
  equal(a: V, b: V): C {
    this.code.get(a).get(b).op(Op.I64_EQ);
    return this.truth();
  }
  lessUnsigned(a: V, b: V): C {
    this.code.get(a).get(b).op(Op.I64_LT_U);
    return this.truth();
  }
  bit(a: V, index: number): C {
    this.code.get(a).i64(BigInt(index)).op(Op.I64_SHR_U, Op.I32_WRAP_I64).i32(1).op(Op.I32_AND);
    return this.truth();
  }
  both(a: C, b: C): C {
    this.code.get(a).get(b).op(Op.I32_AND);
    return this.truth();
  }
  either(a: C, b: C): C {
    this.code.get(a).get(b).op(Op.I32_OR);
    return this.truth();
  }
  differ(a: C, b: C): C {
    this.code.get(a).get(b).op(Op.I32_XOR);
    return this.truth();
  }
  negate(c: C): C {
    this.code.get(c).op(Op.I32_EQZ);
    return this.truth();
  }
  select(c: C, a: V, b: V): V {
    this.code.get(a).get(b).get(c).op(Op.SELECT);
    return this.result();
  }
  fromBool(c: C): V {
    this.code.get(c).op(Op.I64_EXTEND_I32_U);
    return this.result();
  }
  when(c: C, then: () => void, otherwise?: () => void): void {
    this.code.get(c).if();
    then();
    if (otherwise !== undefined) {
      this.code.else();
      otherwise();
    }
    this.code.end();
  }

  // Flags: lazy cells, see isa/flags.ts

  private setLazy(width: number, result: V, carries: () => void): void {
    const { code } = this;
    code.i32(0).get(result);
    this.extendOnStack(width);
    code.memory(Op.I64_STORE, Cell.FLAG_RESULT);
    code.i32(0);
    carries();
    code.memory(Op.I64_STORE, Cell.FLAG_CARRIES);
  }

  /** Normalises the vector of carries in local `c`: bits 63 and 62 for CF and OF, bit 3 for AF. */
  private normalCarries(width: number, c: V): void {
    const { code } = this;
    if (width === 64) {
      code.get(c).i64(FLAG_MASK).op(Op.I64_AND);
      return;
    }
    code
      .get(c)
      .i64(BigInt(64 - width))
      .op(Op.I64_SHL)
      .i64(3n << 62n)
      .op(Op.I64_AND);
    code.get(c).i64(8n).op(Op.I64_AND, Op.I64_OR);
  }

  private carriesOfAdd(a: V, b: V, result: V): V {
    const { code } = this;
    code.get(a).get(b).op(Op.I64_AND);
    code.get(a).get(b).op(Op.I64_OR).get(result).i64(-1n).op(Op.I64_XOR, Op.I64_AND, Op.I64_OR);
    return this.result();
  }

  private carriesOfSub(a: V, b: V, result: V): V {
    const { code } = this;
    code.get(a).i64(-1n).op(Op.I64_XOR);
    const inverted = this.result();
    code.get(inverted).get(b).op(Op.I64_AND);
    code.get(inverted).get(b).op(Op.I64_OR).get(result).op(Op.I64_AND, Op.I64_OR);
    return this.result();
  }

  flagsAdd(width: number, a: V, b: V, result: V): void {
    const carries = this.carriesOfAdd(a, b, result);
    this.setLazy(width, result, () => this.normalCarries(width, carries));
  }
  flagsSub(width: number, a: V, b: V, result: V): void {
    this.flagSource = { kind: 'sub', width, a, b, result };
    const carries = this.carriesOfSub(a, b, result);
    this.setLazy(width, result, () => this.normalCarries(width, carries));
  }
  flagsLogic(width: number, result: V): void {
    this.flagSource = { kind: 'logic', width, result };
    this.setLazy(width, result, () => this.code.i64(0n));
  }
  flagsInc(width: number, a: V, result: V): void {
    this.keepingCarry(width, result, this.carriesOfAdd(a, this.constant(1n), result));
  }
  flagsDec(width: number, a: V, result: V): void {
    this.keepingCarry(width, result, this.carriesOfSub(a, this.constant(1n), result));
  }
  /** Takes OF and AF from `carries` and CF from the flags as they are. */
  private keepingCarry(width: number, result: V, carries: V): void {
    const { code } = this;
    this.normalCarries(width, carries);
    const normal = this.result();
    code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_CARRIES).i64(SIGN).op(Op.I64_AND);
    const carry = this.result();
    this.setLazy(width, result, () => {
      this.withOverflow(carry, () =>
        code.get(normal).get(normal).i64(1n).op(Op.I64_SHL, Op.I64_XOR).i64(SIGN).op(Op.I64_AND),
      );
      code.get(normal).i64(8n).op(Op.I64_AND, Op.I64_OR);
    });
  }
  /** CF in bit 63 of local `carry`; writes the pair of bits that also gives the overflow left at bit 63 by `overflow`. */
  private withOverflow(carry: V, overflow: () => void): void {
    const { code } = this;
    code.get(carry).get(carry);
    overflow();
    code.op(Op.I64_XOR).i64(1n).op(Op.I64_SHR_U, Op.I64_OR);
  }
  flagsResult(width: number, result: V, carry: C, overflow: C): void {
    const carryBit = this.atSign(carry);
    const overflowBit = this.atSign(overflow);
    this.setLazy(width, result, () => this.withOverflow(carryBit, () => this.code.get(overflowBit)));
  }
  /** The truth at bit 63. */
  private atSign(c: C): V {
    this.code.get(c).op(Op.I64_EXTEND_I32_U).i64(63n).op(Op.I64_SHL);
    return this.result();
  }
  private carries(): V {
    this.code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_CARRIES);
    return this.result();
  }
  private storeCarries(value: () => void): void {
    this.code.i32(0);
    value();
    this.code.memory(Op.I64_STORE, Cell.FLAG_CARRIES);
  }

  setFlag(flag: ArithmeticFlag, value: C): void {
    const { code } = this;
    const carries = this.carries();
    const sign = this.atSign(value);
    switch (flag) {
      case 'cf':
        this.storeCarries(() => {
          code
            .get(carries)
            .i64(~(3n << 62n))
            .op(Op.I64_AND);
          this.withOverflow(sign, () =>
            code.get(carries).get(carries).i64(1n).op(Op.I64_SHL, Op.I64_XOR).i64(SIGN).op(Op.I64_AND),
          );
          code.op(Op.I64_OR);
        });
        return;
      case 'of':
        this.storeCarries(() => {
          code
            .get(carries)
            .i64(~(1n << 62n))
            .op(Op.I64_AND);
          code.get(carries).get(sign).op(Op.I64_XOR).i64(SIGN).op(Op.I64_AND).i64(1n).op(Op.I64_SHR_U, Op.I64_OR);
        });
        return;
      case 'af':
        this.storeCarries(() => {
          code.get(carries).i64(~8n).op(Op.I64_AND).get(sign).i64(60n).op(Op.I64_SHR_U, Op.I64_OR);
        });
        return;
      default: {
        const bit = { zf: 6n, sf: 7n, pf: 2n }[flag];
        const flags = this.arithmeticFlags();
        code
          .get(flags)
          .i64(~(1n << bit))
          .op(Op.I64_AND);
        code.get(value).op(Op.I64_EXTEND_I32_U).i64(bit).op(Op.I64_SHL, Op.I64_OR);
        this.setArithmeticFlags(this.result());
      }
    }
  }

  flag(flag: ArithmeticFlag): C {
    const { code } = this;
    const result = (): Code => code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_RESULT);
    const carries = (): Code => code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_CARRIES);
    switch (flag) {
      case 'cf':
        carries().i64(0n).op(Op.I64_LT_S);
        break;
      case 'of': {
        const c = this.carries();
        code.get(c).get(c).i64(1n).op(Op.I64_SHL, Op.I64_XOR).i64(0n).op(Op.I64_LT_S);
        break;
      }
      case 'zf':
        result().op(Op.I64_EQZ);
        break;
      case 'sf':
        result();
        carries().i64(63n).op(Op.I64_SHL, Op.I64_XOR).i64(0n).op(Op.I64_LT_S);
        break;
      case 'af':
        carries().i64(3n).op(Op.I64_SHR_U, Op.I32_WRAP_I64).i32(1).op(Op.I32_AND);
        break;
      case 'pf':
        result();
        carries().i64(8n).op(Op.I64_SHR_U, Op.I64_XOR).i64(0xffn).op(Op.I64_AND, Op.I64_POPCNT);
        code.op(Op.I32_WRAP_I64).i32(1).op(Op.I32_AND, Op.I32_EQZ);
        break;
    }
    return this.truth();
  }

  condition(code: ConditionCode): C {
    return this.directCondition(code) ?? this.cellCondition(code);
  }

  /** From the operands of the comparison before, when it stands in the same handler. */
  private directCondition(code: ConditionCode): C | undefined {
    const source = this.flagSource;
    if (source === undefined) return undefined;
    const negated = NEGATIONS[code];
    if (negated !== undefined) {
      const positive = this.directCondition(negated);
      return positive === undefined ? undefined : this.negate(positive);
    }
    const { width, result } = source;
    if (code === 'e') return this.isZero(result);
    if (code === 's') return this.signOf(width, result);
    if (source.kind === 'logic') {
      if (code === 'l') return this.signOf(width, result);
      return code === 'le' ? this.either(this.isZero(result), this.signOf(width, result)) : undefined;
    }
    switch (code) {
      case 'b':
        return this.compare(Op.I64_LT_U, source.a, source.b, 64);
      case 'be':
        return this.compare(Op.I64_LE_U, source.a, source.b, 64);
      case 'l':
        return this.compare(Op.I64_LT_S, source.a, source.b, width);
      case 'le':
        return this.compare(Op.I64_LE_S, source.a, source.b, width);
      default:
        return undefined;
    }
  }

  private signOf(width: number, value: V): C {
    this.code
      .get(value)
      .i64(BigInt(width - 1))
      .op(Op.I64_SHR_U, Op.I32_WRAP_I64);
    return this.truth();
  }

  /** Compares two values as signed numbers of `width` bits (64 for unsigned ones of any width). */
  private compare(opcode: number, a: V, b: V, width: number): C {
    const { code } = this;
    code.get(a);
    this.extendOnStack(width);
    code.get(b);
    this.extendOnStack(width);
    code.op(opcode);
    return this.truth();
  }

  private cellCondition(code: ConditionCode): C {
    switch (code) {
      case 'o':
        return this.flag('of');
      case 'no':
        return this.negate(this.flag('of'));
      case 'b':
        return this.flag('cf');
      case 'ae':
        return this.negate(this.flag('cf'));
      case 'e':
        return this.flag('zf');
      case 'ne':
        return this.negate(this.flag('zf'));
      case 'be':
        return this.either(this.flag('cf'), this.flag('zf'));
      case 'a':
        return this.negate(this.condition('be'));
      case 's':
        return this.flag('sf');
      case 'ns':
        return this.negate(this.flag('sf'));
      case 'p':
        return this.flag('pf');
      case 'np':
        return this.negate(this.flag('pf'));
      case 'l':
        return this.less();
      case 'ge':
        return this.negate(this.less());
      case 'le':
        return this.either(this.flag('zf'), this.less());
      case 'g':
        return this.negate(this.condition('le'));
    }
  }

  /** SF ≠ OF: the sign of result ^ carries ^ carries << 1 ^ carries << 63. */
  private less(): C {
    const c = this.carries();
    const { code } = this;
    code.i32(0).memory(Op.I64_LOAD, Cell.FLAG_RESULT);
    code.get(c).i64(63n).op(Op.I64_SHL, Op.I64_XOR);
    code.get(c).op(Op.I64_XOR).get(c).i64(1n).op(Op.I64_SHL, Op.I64_XOR).i64(0n).op(Op.I64_LT_S);
    return this.truth();
  }

  directionFlag(): C {
    this.code.i32(slotAddress(R.rflags)).memory(Op.I32_LOAD).i32(10).op(Op.I32_SHR_U).i32(1).op(Op.I32_AND);
    return this.truth();
  }
  setDirectionFlag(value: boolean): void {
    const { code } = this;
    code.i32(slotAddress(R.rflags)).i32(slotAddress(R.rflags)).memory(Op.I64_LOAD);
    if (value) code.i64(0x400n).op(Op.I64_OR);
    else code.i64(~0x400n).op(Op.I64_AND);
    code.memory(Op.I64_STORE);
  }

  arithmeticFlags(): V {
    const { code } = this;
    const bits = (['cf', 'pf', 'af', 'zf', 'sf', 'of'] as const).map((name) => this.flag(name));
    const places = [0, 2, 4, 6, 7, 11];
    bits.forEach((bit, index) => {
      code
        .get(bit)
        .i32(places[index] as number)
        .op(Op.I32_SHL);
      if (index > 0) code.op(Op.I32_OR);
    });
    code.op(Op.I64_EXTEND_I32_U);
    return this.result();
  }

  setArithmeticFlags(value: V): void {
    const { code } = this;
    const bitAt = (from: bigint): V => {
      code.get(value).i64(from).op(Op.I64_SHR_U).i64(1n).op(Op.I64_AND);
      return this.result();
    };
    const [cf, pf, af, zf, sf, of] = [0n, 2n, 4n, 6n, 7n, 11n].map(bitAt) as [V, V, V, V, V, V];
    code.i32(0).get(zf).i64(1n).op(Op.I64_XOR).memory(Op.I64_STORE, Cell.FLAG_RESULT);
    this.storeCarries(() => {
      code.get(cf).i64(63n).op(Op.I64_SHL);
      code.get(cf).get(of).op(Op.I64_XOR).i64(62n).op(Op.I64_SHL, Op.I64_OR);
      code.get(af).i64(3n).op(Op.I64_SHL, Op.I64_OR);
      code.get(sf).op(Op.I64_OR);
      code.get(zf).get(pf).op(Op.I64_XOR).i64(8n).op(Op.I64_SHL, Op.I64_OR);
    });
  }

  // Control flow

  requireTarget(target: V): void {
    const { code } = this;
    const rip = this.targetOf(target);
    if (this.current.long) {
      code.get(rip).i64(16n).op(Op.I64_SHL).i64(16n).op(Op.I64_SHR_S).get(rip).op(Op.I64_NE);
    } else {
      code.get(rip).i32(0).memory(Op.I64_LOAD, Cell.CODE_LIMIT).op(Op.I64_GT_U);
    }
    this.assistWhen(this.truth());
  }

  /** A linked target was fetched before: it does not fault. */
  requireRelative(_operand: Operand, condition?: C): void {
    const { code } = this;
    if (condition !== undefined) code.get(condition).if();
    this.link();
    code.op(Op.I32_EQZ).if();
    this.relativeTarget();
    this.requireTarget(this.result());
    code.end();
    if (condition !== undefined) code.end();
  }

  /** `requireTarget` has been asked: nothing faults here. */
  jump(target: V): void {
    this.jumped = true;
    this.takeJump(this.targetOf(target));
  }

  private targetOf(target: V): V {
    const { long, width } = this.current;
    return long ? target : this.truncate(width === 16 ? 16 : 32, target);
  }

  jumpRelative(_operand: Operand): void {
    this.jumped = true;
    this.takeRelative();
  }

  jumpRelativeWhen(condition: C, _operand: Operand): void {
    const { code, frame } = this;
    code.get(condition).if();
    if (frame.taken !== undefined && this.current.long) {
      code.get(UOP);
      if (this.at > 0) code.i32(this.at).op(Op.I32_ADD);
      frame.taken();
    } else this.takeRelative();
    code.end();
  }

  /** By the link when the target lies in the same page, else through the jump cache. */
  private takeRelative(): void {
    const { code } = this;
    const link = this.i32();
    this.link();
    code.tee(link).if();
    this.chargeBlock();
    this.budgetTooSmall();
    code.op(Op.I32_EQZ).if();
    code.get(link);
    this.frame.next();
    code.end();
    this.storeRip(() => this.relativeTarget());
    this.leaveWith(ExitReason.BUDGET);
    code.end();
    this.relativeTarget();
    const target = this.result();
    this.requireTarget(target);
    this.takeJump(this.targetOf(target));
  }

  /** The link, on the stack; 0 where there is none, or where RIP cut to 16 bits is elsewhere. */
  private link(): void {
    const { code } = this;
    code.get(UOP).memory(Op.I32_LOAD, this.at + Uop.LINK);
    if (this.current.long || this.current.width !== 16) return;
    code.i32(0);
    this.relativeTarget();
    code.i64(16n).op(Op.I64_SHR_U, Op.I64_EQZ, Op.SELECT);
  }

  /** Leaves the sum on the stack. */
  private relativeTarget(): void {
    this.code
      .get(this.nextRip())
      .get(UOP)
      .memory(Op.I64_LOAD, this.at + Uop.IMMEDIATE)
      .op(Op.I64_ADD);
  }

  private takeJump(rip: V): void {
    const { code } = this;
    this.chargeBlock();
    this.budgetTooSmall();
    code.if();
    this.storeRip(() => code.get(rip));
    this.leaveWith(ExitReason.BUDGET);
    code.end();
    const uop = this.i32();
    code.get(rip).call(this.helpers.lookup).tee(uop).if();
    code.get(uop);
    this.frame.next();
    code.end();
    this.frame.leave();
  }

  nextRip(): V {
    this.ripOfThis();
    this.code
      .get(UOP)
      .memory(Op.I64_LOAD8_U, this.at + Uop.LENGTH)
      .op(Op.I64_ADD);
    if (!this.current.long) this.mask(32);
    return this.result();
  }

  /** RIP of this instruction, on the stack. */
  private ripOfThis(): void {
    this.code.i32(0).memory(Op.I64_LOAD, Cell.RIP_PAGE);
    this.code
      .get(UOP)
      .memory(Op.I64_LOAD16_U, this.at + Uop.PAGE_OFFSET)
      .op(Op.I64_ADD);
  }

  private storeRip(value: () => void): void {
    this.code.i32(slotAddress(R.rip));
    value();
    this.code.memory(Op.I64_STORE);
  }

  /** Charges this instruction and those of the block before it. */
  private chargeBlock(): void {
    this.chargeCell(() =>
      this.code
        .get(UOP)
        .memory(Op.I32_LOAD8_U, this.at + Uop.POSITION)
        .i32(1)
        .op(Op.I32_ADD),
    );
  }

  private chargeCell(amount: () => void): void {
    const { code } = this;
    code.i32(0).i32(0).memory(Op.I32_LOAD, Cell.BUDGET);
    amount();
    code.op(Op.I32_SUB).memory(Op.I32_STORE, Cell.BUDGET);
  }

  private budgetTooSmall(): void {
    this.code.i32(0).memory(Op.I32_LOAD, Cell.BUDGET).i32(0).memory(Op.I32_LOAD, Cell.BUDGET_FLOOR).op(Op.I32_LT_S);
  }

  private leaveWith(reason: number): void {
    this.code.i32(0).i32(reason).memory(Op.I32_STORE, Cell.EXIT_REASON);
    this.frame.leave();
  }

  /** Leaves before anything of this instruction happened. */
  private assist(): void {
    if (this.at > 0) this.code.get(UOP).i32(this.at).op(Op.I32_ADD).set(UOP);
    this.frame.assist();
  }

  private assistWhen(c: C): void {
    this.code.get(c).if();
    this.assist();
    this.code.end();
  }

  /** Goes on with the micro-op behind this one. */
  nextUop(): void {
    this.code
      .get(UOP)
      .i32(this.at + Uop.BYTES)
      .op(Op.I32_ADD);
    this.frame.next();
  }

  // Stack

  private stackAddress(pointer: V): V {
    if (this.current.long) return pointer;
    const { code } = this;
    code.get(pointer).i32(0).memory(Op.I64_LOAD, Cell.STACK_MASK).op(Op.I64_AND);
    return this.result();
  }

  /** SS:offset as a linear address, checked against the limit in legacy modes. */
  private stackLinear(offset: V, bytes: number): V {
    if (this.current.long) return offset;
    const { code } = this;
    code
      .get(offset)
      .i64(BigInt(bytes - 1))
      .op(Op.I64_ADD);
    code.i32(segmentLimitCell(Segment.SS)).memory(Op.I64_LOAD).op(Op.I64_GT_S);
    this.assistWhen(this.truth());
    code.get(offset).i32(segmentBaseAddress(Segment.SS)).memory(Op.I64_LOAD).op(Op.I64_ADD);
    this.mask(32);
    return this.result();
  }

  private stackPointer(): V {
    return this.stackAddress(this.readGpr(4, 64));
  }

  /** Merges the new pointer under the stack mask in legacy modes. */
  private setStackPointer(pointer: V): void {
    if (this.current.long) {
      this.writeGpr(4, 64, pointer);
      return;
    }
    const { code } = this;
    const mask = (): Code => code.i32(0).memory(Op.I64_LOAD, Cell.STACK_MASK);
    const rsp = slotAddress(gprSlot(4));
    code.i32(rsp).i32(rsp).memory(Op.I64_LOAD);
    // What is kept: all above SP of a 16-bit stack, nothing of RSP with a 32-bit one.
    mask().i64(-1n).op(Op.I64_XOR);
    mask().i64(31n).op(Op.I64_SHR_U).i64(1n).op(Op.I64_SUB, Op.I64_AND, Op.I64_AND);
    code.get(pointer);
    mask().op(Op.I64_AND, Op.I64_OR).memory(Op.I64_STORE);
  }

  push(width: number, value: V): void {
    const top = this.stackAddress(this.sub(64, this.readGpr(4, 64), this.constant(BigInt(width / 8))));
    this.storeLinear(this.stackLinear(top, width / 8), width, value);
    this.setStackPointer(top);
  }
  peek(width: number, bytes: number): V {
    const pointer = this.stackPointer();
    const at = bytes === 0 ? pointer : this.stackAddress(this.add(64, pointer, this.constant(BigInt(bytes))));
    return this.loadLinear(this.stackLinear(at, width / 8), width);
  }
  moveStack(bytes: V): void {
    this.setStackPointer(this.stackAddress(this.add(64, this.readGpr(4, 64), bytes)));
  }

  // Strings: the address micro-op before this one has checked nothing; long mode without FS, GS only.

  private stringAddress(number: number): V {
    const { long, addressWidth } = this.current;
    if (!long) throw new NotCompiled('string operands in segments');
    return this.readGpr(number, addressWidth);
  }
  loadSource(width: number): V {
    return this.loadLinear(this.stringAddress(6), width);
  }
  loadDestination(width: number): V {
    return this.loadLinear(this.stringAddress(7), width);
  }
  storeDestination(width: number, value: V): void {
    this.storeLinear(this.stringAddress(7), width, value);
  }
  advance(register: 'source' | 'destination', width: number): void {
    const number = register === 'source' ? 6 : 7;
    const { addressWidth } = this.current;
    const step = BigInt(width / 8);
    const moved = this.add(
      addressWidth,
      this.readGpr(number, addressWidth),
      this.select(this.directionFlag(), this.constant(-step), this.constant(step)),
    );
    this.writeGpr(number, addressWidth, moved);
  }

  // Vectors

  readVector(operand: Operand): X {
    const { code } = this;
    if (operand.kind === 'xmm') {
      code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand));
    } else if (operand.kind === 'mem') {
      code.get(this.translate(this.effective(), operand.width / 8, false));
    } else throw new NotCompiled(`a vector operand of kind ${operand.kind}`);
    code.simdMemory(loadOpcode(operand.width));
    return this.vectorResult();
  }
  writeVector(operand: Operand, value: X): void {
    const { code } = this;
    if (operand.kind === 'xmm') {
      code.get(UOP).memory(Op.I32_LOAD16_U, this.registerField(operand));
    } else if (operand.kind === 'mem') {
      code.get(this.translate(this.effective(), operand.width / 8, true));
    } else throw new NotCompiled(`a vector operand of kind ${operand.kind}`);
    code.get(value);
    if (operand.width === 128) {
      code.simdMemory(SIMD.STORE);
      return;
    }
    code.simd(SIMD.I64X2_EXTRACT_LANE).op(0);
    this.storeWidth(operand.width);
  }
  readVectorAligned(operand: Operand): X {
    this.requireAligned(operand);
    return this.readVector(operand);
  }
  writeVectorAligned(operand: Operand, value: X): void {
    this.requireAligned(operand);
    this.writeVector(operand, value);
  }
  private requireAligned(operand: Operand): void {
    if (operand.kind !== 'mem' || operand.width !== 128) return;
    const address = this.effective();
    this.code.get(address).i64(15n).op(Op.I64_AND, Op.I64_EQZ, Op.I32_EQZ);
    this.assistWhen(this.truth());
  }
  vectorConstant(value: bigint): X {
    this.code.v128(value);
    return this.vectorResult();
  }
  vector(operation: VectorOperation, a: X, b?: X): X {
    const { code } = this;
    code.get(a);
    if (b !== undefined) code.get(b);
    code.simd(SIMD.OPERATIONS[operation]);
    return this.vectorResult();
  }
  vectorShift(operation: VectorShift, a: X, count: V): X {
    this.code.get(a).get(count).op(Op.I32_WRAP_I64).simd(SIMD.SHIFTS[operation]);
    return this.vectorResult();
  }
  shuffle(a: X, b: X, indices: readonly number[]): X {
    this.code
      .get(a)
      .get(b)
      .simd(SIMD.SHUFFLE)
      .op(...indices);
    return this.vectorResult();
  }
  swizzle(a: X, indices: X): X {
    this.code.get(a).get(indices).simd(SIMD.SWIZZLE);
    return this.vectorResult();
  }
  vectorMask(operation: VectorMask, a: X): V {
    this.code.get(a).simd(SIMD.MASKS[operation]).op(Op.I64_EXTEND_I32_U);
    return this.result();
  }
  splat(lanes: 'i8x16' | 'i16x8' | 'i32x4' | 'i64x2', value: V): X {
    this.code.get(value);
    if (lanes !== 'i64x2') this.code.op(Op.I32_WRAP_I64);
    this.code.simd(SIMD.SPLATS[lanes]);
    return this.vectorResult();
  }
  float(): X {
    throw new NotCompiled('floating point');
  }
  readVectorForWrite(): X {
    throw new NotCompiled('vector read-modify-write');
  }
  vectorFromLow(value: V): X {
    this.code.v128(0n).get(value).simd(SIMD.I64X2_REPLACE_LANE).op(0);
    return this.vectorResult();
  }
  lane64(a: X, lane: 0 | 1): V {
    this.code.get(a).simd(SIMD.I64X2_EXTRACT_LANE).op(lane);
    return this.result();
  }
  vectorFromLanes(low: V, high: V): X {
    const bottom = this.vectorFromLow(low);
    this.code.get(bottom).get(high).simd(SIMD.I64X2_REPLACE_LANE).op(1);
    return this.vectorResult();
  }

  // Faults

  fault(_vector: FaultName): void {
    this.assist();
  }
  faultWhen(condition: C, _vector: FaultName): void {
    this.assistWhen(condition);
  }
}

/** Conditions that are the opposite of another. */
const NEGATIONS: Readonly<Partial<Record<ConditionCode, ConditionCode>>> = {
  no: 'o',
  ae: 'b',
  ne: 'e',
  a: 'be',
  ns: 's',
  np: 'p',
  ge: 'l',
  g: 'le',
};

/** The way out for an assist, where it is not shared. */
export function leaveForAssist(code: Code): void {
  code.i32(0).get(UOP).memory(Op.I32_STORE, Cell.EXIT_UOP);
  code.i32(0).i32(ExitReason.ASSIST).memory(Op.I32_STORE, Cell.EXIT_REASON);
}

function loadOpcode(width: number): number {
  switch (width) {
    case 128:
      return SIMD.LOAD;
    case 64:
      return SIMD.LOAD64_ZERO;
    case 32:
      return SIMD.LOAD32_ZERO;
    default:
      throw new NotCompiled(`loads ${width} bits as a vector`);
  }
}

/**
 * What all writing of code needs: locals, the way out, integers and truth values. Values are i64 locals, zero-extended
 * from their width; truths are i32 locals of 0 or 1; vectors are v128 locals.
 */
import { InvariantError } from '../errors.js';
import type { Static } from '../isa/instruction.js';
import { R, slotAddress } from '../layout/cpu-state.js';
import { Cell } from '../layout/linear-memory.js';
import { type Code, Op, ValueType } from './module.js';
import { ExitReason, Uop } from './uop.js';

/** A local that holds an integer. */
export type V = number;
/** A local that holds a truth value. */
export type C = number;
/** A local that holds a vector. */
export type X = number;

/** Local 0 holds the micro-op in every handler. */
export const UOP = 0;
export const SIGN = 1n << 63n;

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
  /** Locals of the dispatch function that stand for `Cell.SLACK` and `Cell.TLB_BANK`; other functions use the cells. */
  readonly slack?: number;
  readonly bank?: number;
  /** Writes the jump to code that takes the relative branch of the micro-op on the stack, where there is such code. */
  taken?(): void;
}

/** Thrown by operations that have no WebAssembly counterpart: the instruction is left to the evaluator. */
export class NotCompiled extends Error {}

/** What a handler does with the arithmetic flags and with its block: what instructions before it may rely on. */
export interface HandlerEffects {
  /** Its result depends on them. */
  readsFlags: boolean;
  /** Afterwards none of them is what it was, whatever the operands. */
  overwritesFlags: boolean;
  /** It may leave the block, before or after it does anything. */
  leaves: boolean;
}

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

/** The way out for an assist, where it is not shared. */
export function leaveForAssist(code: Code): void {
  code.i32(0).get(UOP).memory(Op.I32_STORE, Cell.EXIT_UOP);
  code.i32(0).i32(ExitReason.ASSIST).memory(Op.I32_STORE, Cell.EXIT_REASON);
}

export abstract class ValueEmitter {
  protected readonly code: Code;
  protected insn: Static | undefined;
  /** Offset of the instruction's micro-op from the one in local 0: that of the second of a fused pair is behind it. */
  protected at = 0;
  readonly effects: HandlerEffects = { readsFlags: false, overwritesFlags: false, leaves: false };
  /** Depth of `when`: what is written there may not happen. */
  protected conditions = 0;

  constructor(
    protected readonly frame: Frame,
    protected readonly pool: LocalPool,
    protected readonly helpers: Helpers,
  ) {
    this.code = frame.code;
  }

  protected get current(): Static {
    if (this.insn === undefined) throw new InvariantError('the emitter has no instruction');
    return this.insn;
  }

  protected i64(): V {
    return this.pool.take(ValueType.I64);
  }
  protected i32(): C {
    return this.pool.take(ValueType.I32);
  }
  protected v128(): X {
    return this.pool.take(ValueType.V128);
  }

  protected result(): V {
    const local = this.i64();
    this.code.set(local);
    return local;
  }
  protected truth(): C {
    const local = this.i32();
    this.code.set(local);
    return local;
  }
  protected vectorResult(): X {
    const local = this.v128();
    this.code.set(local);
    return local;
  }

  constant(value: bigint): V {
    this.code.i64(value);
    return this.result();
  }

  // The way out

  /** Leaves before anything of this instruction happened. */
  protected assist(): void {
    this.effects.leaves = true;
    if (this.at > 0) this.code.get(UOP).i32(this.at).op(Op.I32_ADD).set(UOP);
    this.frame.assist();
  }

  protected assistWhen(c: C): void {
    this.code.get(c).ifRare();
    this.assist();
    this.code.end();
  }

  protected leaveWith(reason: number): void {
    this.effects.leaves = true;
    this.code.i32(0).i32(reason).memory(Op.I32_STORE, Cell.EXIT_REASON);
    this.frame.leave();
  }

  /** RIP of this instruction, on the stack. */
  protected ripOfThis(): void {
    this.code.i32(0).memory(Op.I64_LOAD, Cell.RIP_PAGE);
    this.code
      .get(UOP)
      .memory(Op.I64_LOAD16_U, this.at + Uop.PAGE_OFFSET)
      .op(Op.I64_ADD);
  }

  protected storeRip(value: () => void): void {
    this.code.i32(slotAddress(R.rip));
    value();
    this.code.memory(Op.I64_STORE);
  }

  /** Takes the amount, which `amount` leaves on the stack, from the budget. */
  protected charge(amount: () => void): void {
    const { code, frame } = this;
    if (frame.slack === undefined) code.i32(0);
    this.pushSlack();
    amount();
    code.op(Op.I32_SUB);
    if (frame.slack === undefined) code.memory(Op.I32_STORE, Cell.SLACK);
    else code.set(frame.slack);
  }

  protected budgetTooSmall(): void {
    this.pushSlack();
    this.code.i32(0).op(Op.I32_LT_S);
  }

  /** What the budget has beyond one more block. */
  protected pushSlack(): void {
    const { code, frame } = this;
    if (frame.slack === undefined) code.i32(0).memory(Op.I32_LOAD, Cell.SLACK);
    else code.get(frame.slack);
  }

  // Integers

  protected binary(opcode: number, a: V, b: V, width = 64): V {
    this.code.get(a).get(b).op(opcode);
    this.mask(width);
    return this.result();
  }

  /** Cuts the i64 on the stack to `width` bits. */
  protected mask(width: number): void {
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
  protected mulHigh64(a: V, b: V): V {
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
    if (width === 32) return this.rotate32(a, count, Op.I32_ROTL);
    return this.rotateNarrow(width, a, count, Op.I64_SHL, Op.I64_SHR_U);
  }
  ror(width: number, a: V, count: V): V {
    if (width === 64) return this.binary(Op.I64_ROTR, a, count);
    if (width === 32) return this.rotate32(a, count, Op.I32_ROTR);
    return this.rotateNarrow(width, a, count, Op.I64_SHR_U, Op.I64_SHL);
  }
  private rotate32(a: V, count: V, opcode: number): V {
    this.code.get(a).op(Op.I32_WRAP_I64).get(count).op(Op.I32_WRAP_I64, opcode, Op.I64_EXTEND_I32_U);
    return this.result();
  }
  protected rotateNarrow(width: number, a: V, count: V, there: number, back: number): V {
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
  protected extendOnStack(from: number): void {
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

  protected joined(width: number, high: V, low: V): V {
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
    this.conditions++;
    this.code.get(c).if();
    then();
    if (otherwise !== undefined) {
      this.code.else();
      otherwise();
    }
    this.code.end();
    this.conditions--;
  }
}

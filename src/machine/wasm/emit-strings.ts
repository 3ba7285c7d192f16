/**
 * String instructions: elements at DS:rSI and ES:rDI, and under REP many of them at once.
 * Source: APM vol.3 §1.2.6 Repeat Prefixes.
 */
import { Gpr, type PlainInstruction, type Static } from '../isa/instruction.js';
import { Segment } from '../layout/cpu-state.js';
import { segmentLimitCell } from '../layout/linear-memory.js';
import { PAGE_BYTES } from '../units.js';
import { MemoryEmitter } from './emit-memory.js';
import type { V } from './emit-values.js';
import { Op } from './module.js';

/** Elements from which the host's own copy and fill are faster than a loop. */
const WORTH_A_CALL = 32;

export abstract class StringEmitter extends MemoryEmitter {
  // Which segments is not asked here: whoever overrides DS has no handler.

  private source(width: number): V {
    return this.segmentLinear(Segment.DS, this.readGpr(Gpr.RSI, this.current.addressWidth), width / 8);
  }
  private destination(width: number): V {
    return this.segmentLinear(Segment.ES, this.readGpr(Gpr.RDI, this.current.addressWidth), width / 8);
  }
  loadSource(width: number): V {
    return this.loadLinear(this.source(width), width);
  }
  loadDestination(width: number): V {
    return this.loadLinear(this.destination(width), width);
  }
  storeDestination(width: number, value: V): void {
    this.storeLinear(this.destination(width), width, value);
  }
  advance(register: 'source' | 'destination', width: number): void {
    const number = register === 'source' ? Gpr.RSI : Gpr.RDI;
    const { addressWidth } = this.current;
    const step = BigInt(width / 8);
    const moved = this.add(
      addressWidth,
      this.readGpr(number, addressWidth),
      this.select(this.directionFlag(), this.constant(-step), this.constant(step)),
    );
    this.writeGpr(number, addressWidth, moved);
  }

  /**
   * One iteration of a repeated instruction, or many that leave the same as if each had been done by itself.
   * @param count in rCX, not 0. @returns a local (i64) with how many it were.
   */
  protected iterations(instruction: PlainInstruction, insn: Static, count: V): V {
    const done = this.i64();
    const one = (): void => {
      instruction.semantics(this as never, insn);
      this.code.i64(1n).set(done);
    };
    // Narrower addresses than the mode's wrap in between.
    if (!BULK.has(instruction.mnemonic) || insn.addressWidth !== (insn.long ? 64 : 32)) one();
    else {
      this.code.get(this.directionFlag()).ifRare();
      one();
      this.code.else();
      if (instruction.mnemonic === 'STOS') this.fillMany(insn.width, count, done);
      else this.moveMany(insn.width, count, done);
      this.code.end();
    }
    return done;
  }

  private fillMany(width: number, count: V, done: V): void {
    const { code } = this;
    const value = this.readGpr(Gpr.RAX, width);
    const linear = this.destination(width);
    const to = this.translate(linear, width / 8, true, true);
    const elements = this.atMost(count, [this.room(linear, width), ...this.inSegment(Segment.ES, Gpr.RDI, width)]);
    const splat = BigInt.asUintN(width, 0x0101_0101_0101_0101n);
    code.get(elements).i32(WORTH_A_CALL).op(Op.I32_LT_U);
    // What consists of one byte many times over is filled with it.
    code.get(value).i64(0xffn).op(Op.I64_AND).i64(splat).op(Op.I64_MUL).get(value).op(Op.I64_NE);
    code.op(Op.I32_OR).if();
    this.eachOf(elements, width, [to], () => {
      code.get(to).get(value);
      this.storeWidth(width);
    });
    code.else().get(to).get(value).op(Op.I32_WRAP_I64);
    this.pushBytes(elements, width);
    code.memoryFill().end();
    this.finish(elements, width, [Gpr.RDI], done);
  }

  /** The first element by itself, as its store may change what it came from: then nothing is filled in any more. */
  private moveMany(width: number, count: V, done: V): void {
    const { code } = this;
    const source = this.source(width);
    const from = this.translate(source, width / 8, false);
    code.get(from);
    this.loadWidth(width);
    const first = this.result();
    const destination = this.destination(width);
    const to = this.translate(destination, width / 8, true, true);
    // An element that an earlier one writes is not read before.
    code.get(to).get(from).op(Op.I32_SUB).i32(shiftOf(width)).op(Op.I32_SHR_U);
    const apart = this.truth();
    const limits = [...this.inSegment(Segment.DS, Gpr.RSI, width), ...this.inSegment(Segment.ES, Gpr.RDI, width)];
    const elements = this.atMost(count, [this.room(source, width), this.room(destination, width), apart, ...limits]);
    code.get(to).get(first);
    this.storeWidth(width);
    code.get(elements).i32(1).op(Op.I32_SUB);
    const others = this.truth();
    code.get(others).if();
    for (const address of [from, to]) this.moveOn(address, width);
    code.get(others).i32(WORTH_A_CALL).op(Op.I32_LT_U).if();
    this.eachOf(others, width, [from, to], () => {
      code.get(to).get(from);
      this.loadWidth(width);
      this.storeWidth(width);
    });
    code.else().get(to).get(from);
    this.pushBytes(others, width);
    code.memoryCopy().end().end();
    this.finish(elements, width, [Gpr.RSI, Gpr.RDI], done);
  }

  /** A local (i32): elements from here to the end of the page. */
  private room(linear: V, width: number): number {
    this.code
      .i32(PAGE_BYTES)
      .get(linear)
      .op(Op.I32_WRAP_I64)
      .i32(PAGE_BYTES - 1)
      .op(Op.I32_AND, Op.I32_SUB)
      .i32(shiftOf(width))
      .op(Op.I32_SHR_U);
    return this.truth();
  }

  /** In legacy modes a local (i32): elements from here to the segment's limit, which is not above 32 bits of offset. */
  private inSegment(segment: number, register: number, width: number): readonly number[] {
    if (this.current.long) return [];
    const { code } = this;
    code.i32(segmentLimitCell(segment)).memory(Op.I64_LOAD).i64(1n).op(Op.I64_ADD);
    code.get(this.readGpr(register, 32)).op(Op.I64_SUB);
    code.i64(BigInt(shiftOf(width))).op(Op.I64_SHR_U, Op.I32_WRAP_I64);
    return [this.truth()];
  }

  /** A local (i32): at least one, else what the limits, the count and the budget allow. */
  private atMost(count: V, limits: readonly number[]): number {
    const { code } = this;
    const elements = this.i32();
    const limit = (push: () => void): void => {
      push();
      code.get(elements);
      push();
      code.get(elements).op(Op.I32_LT_U, Op.SELECT).set(elements);
    };
    code.get(count).op(Op.I32_WRAP_I64).i32(PAGE_BYTES);
    code.get(count).i64(BigInt(PAGE_BYTES)).op(Op.I64_LT_U, Op.SELECT).set(elements);
    for (const each of limits) limit(() => void code.get(each));
    // Each is an instruction; the first has its place in the budget.
    this.pushSlack();
    code.i32(1).op(Op.I32_ADD);
    const affordable = this.truth();
    code.i32(0).get(affordable).get(affordable).i32(0).op(Op.I32_LT_S, Op.SELECT).set(affordable);
    limit(() => void code.get(affordable));
    code.i32(1).get(elements).get(elements).op(Op.I32_EQZ, Op.SELECT).set(elements);
    return elements;
  }

  /** Does it for each of one element or more; the addresses are moved on. */
  private eachOf(elements: number, width: number, addresses: readonly number[], element: () => void): void {
    const { code } = this;
    code.get(elements);
    const left = this.truth();
    const again = code.loop().blockDepth;
    element();
    for (const address of addresses) this.moveOn(address, width);
    code.get(left).i32(1).op(Op.I32_SUB).tee(left).brIf(again);
    code.end();
  }

  private moveOn(address: number, width: number): void {
    this.code
      .get(address)
      .i32(width / 8)
      .op(Op.I32_ADD)
      .set(address);
  }

  private pushBytes(elements: number, width: number): void {
    this.code.get(elements).i32(shiftOf(width)).op(Op.I32_SHL);
  }

  private finish(elements: number, width: number, registers: readonly number[], done: V): void {
    const { code } = this;
    code.get(elements).op(Op.I64_EXTEND_I32_U).set(done);
    code
      .get(done)
      .i64(BigInt(shiftOf(width)))
      .op(Op.I64_SHL);
    const bytes = this.result();
    const { addressWidth: bits } = this.current;
    for (const register of registers)
      this.writeGpr(register, bits, this.add(bits, this.readGpr(register, bits), bytes));
  }
}

/** Instructions of which many elements are one copy or one fill. */
const BULK = new Set(['MOVS', 'STOS']);

const shiftOf = (width: number): number => 31 - Math.clz32(width / 8);

/**
 * Operands and memory: registers by the addresses in the micro-op, the TLB look-up, the stack, string elements.
 */
import type { Operand } from '../isa/instruction.js';
import { gprSlot, Segment, slotAddress } from '../layout/cpu-state.js';
import {
  Cell,
  segmentBaseAddress,
  segmentLimitCell,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_WRITE_OFFSET,
} from '../layout/linear-memory.js';
import { FlagEmitter } from './emit-flags.js';
import { NotCompiled, UOP, type V } from './emit-values.js';
import { Fill } from './fill.js';
import { type Code, Op } from './module.js';
import { isRegister, Uop } from './uop.js';

/** Of a linear address shifted right by 8: the place of its page's entry in a bank. */
const TLB_INDEX = (TLB_ENTRIES - 1) * TLB_ENTRY_BYTES;

export abstract class MemoryEmitter extends FlagEmitter {
  /** Memory address of the operand that `readForWrite` checked, for the write that follows. */
  protected writeAddress: number | undefined;

  /** Where a register operand stands in the register file, onto the stack. */
  protected pushRegisterAddress(operand: Operand): void {
    let index = 0;
    for (const other of this.current.operands) {
      if (other === operand) break;
      if (isRegister(other)) index++;
    }
    const field = [Uop.REGISTER0, Uop.REGISTER1, Uop.REGISTER2][index];
    if (field === undefined) throw new NotCompiled('more than three register operands');
    this.code.get(UOP).memory(Op.I32_LOAD16_U, this.at + field);
  }

  read(operand: Operand): V {
    const { code } = this;
    switch (operand.kind) {
      case 'gpr':
        this.pushRegisterAddress(operand);
        this.loadWidth(operand.width);
        return this.result();
      case 'mem':
        return this.loadLinear(this.linearOf(operand), operand.width);
      case 'imm':
        code.get(UOP).memory(Op.I64_LOAD, this.at + Uop.IMMEDIATE);
        return this.result();
      case 'xmm':
      case 'segment':
      case 'control':
        this.pushRegisterAddress(operand);
        this.loadWidth(operand.width);
        return this.result();
      default:
        throw new NotCompiled(`reads an operand of kind ${operand.kind}`);
    }
  }

  readForWrite(operand: Operand): V {
    if (operand.kind !== 'mem') return this.read(operand);
    this.writeAddress = this.translate(this.linearOf(operand), operand.width / 8, true);
    this.code.get(this.writeAddress);
    this.loadWidth(operand.width);
    return this.result();
  }

  write(operand: Operand, value: V): void {
    const { code } = this;
    switch (operand.kind) {
      case 'gpr':
        this.pushRegisterAddress(operand);
        code.get(value);
        this.storeRegisterWidth(operand.width);
        return;
      case 'mem': {
        const address = this.writeAddress ?? this.translate(this.linearOf(operand), operand.width / 8, true);
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

  /** Addresses wrap as 64-bit ones do. */
  displaced(_operand: Operand, bytes: V, width: number): Operand {
    const { long, addressWidth } = this.current;
    if (!long || addressWidth !== 64) throw new NotCompiled('addresses beyond the operand');
    const beyond: Operand = { kind: 'mem', width };
    this.displacements.set(beyond, bytes);
    return beyond;
  }
  private readonly displacements = new WeakMap<Operand, V>();
  load(segment: 'data' | 'stack', width: number, offset: V): V {
    return this.loadLinear(this.implicitLinear(segment, width, offset), width);
  }
  store(segment: 'data' | 'stack', width: number, offset: V, value: V): void {
    this.storeLinear(this.implicitLinear(segment, width, offset), width, value);
  }
  protected implicitLinear(segment: 'data' | 'stack', width: number, offset: V): V {
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

  /** Where an operand in memory lies. */
  protected linearOf(operand: Operand): V {
    const linear = this.effective();
    const bytes = this.displacements.get(operand);
    return bytes === undefined ? linear : this.add(64, linear, bytes);
  }

  /** base + (index << scale) + displacement. */
  protected effective(): V {
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

  protected loadWidth(width: number, offset = 0): void {
    const opcode = { 8: Op.I64_LOAD8_U, 16: Op.I64_LOAD16_U, 32: Op.I64_LOAD32_U, 64: Op.I64_LOAD }[width];
    if (opcode === undefined) throw new NotCompiled(`loads ${width} bits`);
    this.code.memory(opcode, offset);
  }

  protected storeWidth(width: number, offset = 0): void {
    const opcode = { 8: Op.I64_STORE8, 16: Op.I64_STORE16, 32: Op.I64_STORE32, 64: Op.I64_STORE }[width];
    if (opcode === undefined) throw new NotCompiled(`stores ${width} bits`);
    this.code.memory(opcode, offset);
  }

  /** A 32-bit result clears the upper half of the register; values are zero-extended already. */
  protected storeRegisterWidth(width: number): void {
    this.storeWidth(width === 32 ? 64 : width);
  }

  /**
   * TLB look-up of `bytes` at a linear address; an access that crosses its page misses by construction.
   * @param many whether more of the page may be written to than `bytes`.
   * @returns a local (i32) with the address in this memory.
   */
  protected translate(linear: V, bytes: number, write: boolean, many = false): number {
    const { code } = this;
    const entry = this.lookUp(linear, bytes, write, many);
    code.get(linear).op(Op.I32_WRAP_I64);
    this.pushAddend(entry, write);
    code.op(Op.I32_ADD);
    return this.truth();
  }

  /**
   * @param found writes what is done where nothing had to be filled in: the entry's tag is the page of the access then.
   * @returns a local (i32) with the place of the TLB's entry: the addend in it is this access's, even where the tag is not.
   */
  protected lookUp(linear: V, bytes: number, write: boolean, many: boolean, found?: (entry: number) => void): number {
    const { code } = this;
    const entry = this.i32();
    if (this.frame.bank === undefined) code.i32(Cell.TLB_BANK).memory(Op.I32_LOAD);
    else code.get(this.frame.bank);
    code.get(linear).i64(8n).op(Op.I64_SHR_U, Op.I32_WRAP_I64).i32(TLB_INDEX).op(Op.I32_AND, Op.I32_ADD).tee(entry);
    code.memory(Op.I64_LOAD, write ? TLB_WRITE_OFFSET : 0);
    this.pushPage(linear, bytes);
    code.op(Op.I64_NE).ifRare();
    code.i32(Cell.EXIT_ADDRESS).get(linear).memory(Op.I64_STORE);
    code
      .i32(bytes | (write ? Fill.WRITE : 0) | (many ? Fill.MANY : 0))
      .call(this.helpers.fill)
      .op(Op.I32_EQZ)
      .if();
    this.assist();
    code.end();
    if (found !== undefined) {
      code.else();
      found(entry);
    }
    code.end();
    return entry;
  }

  /** The page in which an access ends, as the TLB's tags have it, onto the stack. */
  protected pushPage(linear: V, bytes: number): void {
    const { code } = this;
    code.get(linear);
    if (bytes > 1) code.i64(BigInt(bytes - 1)).op(Op.I64_ADD);
    code.i64(-4096n).op(Op.I64_AND);
  }

  /** What of an entry makes an address in this memory of the low half of a linear one, onto the stack. */
  protected pushAddend(entry: number, write: boolean): void {
    this.code.get(entry).memory(Op.I32_LOAD, (write ? TLB_WRITE_OFFSET : 0) + 8);
  }

  protected loadLinear(linear: V, width: number): V {
    const address = this.translate(linear, width / 8, false);
    this.code.get(address);
    this.loadWidth(width);
    return this.result();
  }

  protected storeLinear(linear: V, width: number, value: V): void {
    const address = this.translate(linear, width / 8, true);
    this.code.get(address).get(value);
    this.storeWidth(width);
  }

  // Stack

  protected stackAddress(pointer: V): V {
    if (this.current.long) return pointer;
    const { code } = this;
    code.get(pointer).i32(0).memory(Op.I64_LOAD, Cell.STACK_MASK).op(Op.I64_AND);
    return this.result();
  }

  /** SS:offset as a linear address. */
  protected stackLinear(offset: V, bytes: number): V {
    return this.segmentLinear(Segment.SS, offset, bytes);
  }

  /** segment:offset as a linear address, checked against the limit in legacy modes; in 64-bit mode not for FS and GS. */
  protected segmentLinear(segment: number, offset: V, bytes: number): V {
    if (this.current.long) return offset;
    const { code } = this;
    code
      .get(offset)
      .i64(BigInt(bytes - 1))
      .op(Op.I64_ADD);
    code.i32(segmentLimitCell(segment)).memory(Op.I64_LOAD).op(Op.I64_GT_S);
    this.assistWhen(this.truth());
    code.get(offset).i32(segmentBaseAddress(segment)).memory(Op.I64_LOAD).op(Op.I64_ADD);
    this.mask(32);
    return this.result();
  }

  protected stackPointer(): V {
    return this.stackAddress(this.readGpr(4, 64));
  }

  /** Merges the new pointer under the stack mask in legacy modes. */
  protected setStackPointer(pointer: V): void {
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
}

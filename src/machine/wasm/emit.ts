/**
 * Ops over WebAssembly locals: writes the code of one instruction. Values are i64 locals, truths i32 locals, vectors
 * v128 locals; operands are found through the micro-op at run time.
 *
 * Whatever cannot be done here leaves by an *assist*: nothing of the instruction has happened yet, and the evaluator
 * does it. That covers faults, device memory, page crossings and writes to decoded code.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import type { FaultName, Operand, Ops, PlainInstruction, Static } from '../isa/instruction.js';
import { Cell } from '../layout/linear-memory.js';
import { type C, UOP, type V, type X } from './emit-values.js';
import { VectorEmitter } from './emit-vectors.js';
import { Op } from './module.js';
import { ExitReason, Uop } from './uop.js';

export class Emitter extends VectorEmitter implements Ops<V, C, X> {
  /** The instruction says itself where to go on. */
  protected jumped = false;

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

  /** Iterations, each charged as one instruction; while more are due the same micro-op is dispatched again. */
  protected repeated(instruction: PlainInstruction, insn: Static): void {
    const { code } = this;
    const count = this.readGpr(1, insn.addressWidth);
    code.get(count).op(Op.I64_EQZ).if();
    this.nextUop();
    code.end();
    const { done, goesOn } = this.iterate(instruction, insn, count);
    code.get(goesOn).if();
    this.charge(() => code.get(done).op(Op.I32_WRAP_I64));
    this.budgetTooSmall();
    code.if();
    // Leaves with RIP at this instruction and everything before it charged.
    this.charge(() => code.get(UOP).memory(Op.I32_LOAD8_U, this.at + Uop.POSITION));
    this.storeRip(() => this.ripOfThis());
    this.leaveWith(ExitReason.BUDGET);
    code.end();
    code.get(UOP);
    this.frame.next();
    code.end();
    this.chargeAllButOne(done);
    this.nextUop();
  }

  /** @returns locals: how many iterations it were (i64), and whether more are due (i32). */
  protected iterate(instruction: PlainInstruction, insn: Static, count: V): { done: V; goesOn: C } {
    const done = this.iterations(instruction, insn, count);
    const left = this.sub(insn.addressWidth, count, done);
    this.writeGpr(1, insn.addressWidth, left);
    const more = this.negate(this.isZero(left));
    if (!/^(CMPS|SCAS)/.test(instruction.mnemonic)) return { done, goesOn: more };
    const zero = this.flag('zf');
    return { done, goesOn: this.both(more, insn.rep === 'rep' ? zero : this.negate(zero)) };
  }

  /** The last iteration is charged with its block. */
  protected chargeAllButOne(done: V): void {
    this.charge(() => this.code.get(done).op(Op.I32_WRAP_I64).i32(1).op(Op.I32_SUB));
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
    this.effects.leaves = true;
    this.takeJump(this.targetOf(target));
  }

  protected targetOf(target: V): V {
    const { long, width } = this.current;
    return long ? target : this.truncate(width === 16 ? 16 : 32, target);
  }

  jumpRelative(_operand: Operand): void {
    this.jumped = true;
    this.takeRelative();
  }

  jumpRelativeWhen(condition: C, _operand: Operand): void {
    const { code, frame } = this;
    this.effects.leaves = true;
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

  /** Charges the instructions before this micro-op and goes on at its RIP. */
  endOfBlock(): void {
    this.charge(() => this.code.get(UOP).memory(Op.I32_LOAD8_U, Uop.POSITION));
    this.ripOfThis();
    this.code.i32(0).memory(Op.I64_LOAD, Cell.RIP_MASK).op(Op.I64_AND);
    this.goTo(this.result());
  }

  /** The block is charged as a whole where it is left: what is not executed of it is credited here. */
  enterInside(): void {
    const { code } = this;
    this.charge(() => code.i32(0).get(UOP).memory(Op.I32_LOAD, Uop.DISPLACEMENT).op(Op.I32_SUB));
    code.get(UOP).memory(Op.I32_LOAD, Uop.LINK);
    this.frame.next();
  }

  private takeJump(rip: V): void {
    this.chargeBlock();
    this.goTo(rip);
  }

  /** By the jump cache; leaves when the budget does not suffice for another block, or when it has none at `rip`. */
  private goTo(rip: V): void {
    const { code } = this;
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

  /** Charges this instruction and those of the block before it. */
  private chargeBlock(): void {
    this.charge(() =>
      this.code
        .get(UOP)
        .memory(Op.I32_LOAD8_U, this.at + Uop.POSITION)
        .i32(1)
        .op(Op.I32_ADD),
    );
  }

  /** Goes on with the micro-op behind this one. */
  nextUop(): void {
    this.code
      .get(UOP)
      .i32(this.at + Uop.BYTES)
      .op(Op.I32_ADD);
    this.frame.next();
  }

  // Faults

  fault(_vector: FaultName): void {
    this.assist();
  }
  faultWhen(condition: C, _vector: FaultName): void {
    this.assistWhen(condition);
  }
}

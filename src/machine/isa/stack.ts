/**
 * PUSH, POP and stack frames, at SS:rSP.
 * Source: APM vol.3, PUSH, POP, PUSHA, POPA, ENTER, LEAVE. Segment registers and rFLAGS are control plane.
 */
import { Gpr, type Instruction, instruction } from './instruction.js';
import { one, two } from './operands.js';

/** PUSH rSP pushes the value before the push; a memory operand is addressed with it, too. */
const PUSH = instruction({
  mnemonic: 'PUSH',
  source: 'APM vol.3, PUSH',
  forms: ['50+r: Zv [d64]', 'FF /6: Ev [d64]', '68: Iz [d64]', '6A: Ibs [d64]'],
  semantics: (ops, insn) => ops.push(insn.width, ops.read(one(insn))),
});

/** POP rSP ends with the popped value. */
const POP = instruction({
  mnemonic: 'POP',
  source: 'APM vol.3, POP',
  forms: ['58+r: Zv [d64]'],
  semantics(ops, insn) {
    const value = ops.peek(insn.width, 0);
    ops.moveStack(ops.constant(BigInt(insn.width / 8)));
    ops.write(one(insn), value);
  },
});

/** Like POP of a register, but the operand may be memory, addressed with rSP after the pop: it moves before the write. */
const POP_TO_MEMORY = instruction({
  mnemonic: 'POP',
  source: 'APM vol.3, POP',
  forms: ['8F /0: Ev [d64]'],
  evaluatorOnly: true,
  semantics: POP.semantics,
});

const PUSHA = instruction({
  mnemonic: 'PUSHA',
  source: 'APM vol.3, PUSHA, PUSHAD',
  forms: ['60: [i64]'],
  evaluatorOnly: true,
  semantics(ops, { width }) {
    const stackPointer = ops.readGpr(Gpr.RSP, width);
    for (let register = 0; register < 8; register++) {
      ops.push(width, register === Gpr.RSP ? stackPointer : ops.readGpr(register, width));
    }
  },
});

/** The stored rSP is skipped. */
const POPA = instruction({
  mnemonic: 'POPA',
  source: 'APM vol.3, POPA, POPAD',
  forms: ['61: [i64]'],
  semantics(ops, { width }) {
    const bytes = width / 8;
    const values = Array.from({ length: 8 }, (_, index) => ops.peek(width, index * bytes));
    ops.moveStack(ops.constant(BigInt(8 * bytes)));
    values.forEach((value, index) => {
      const register = 7 - index;
      if (register !== Gpr.RSP) ops.writeGpr(register, width, value);
    });
  },
});

const ENTER = instruction({
  mnemonic: 'ENTER',
  source: 'APM vol.3, ENTER',
  forms: ['C8: Iw, Ib [d64]'],
  evaluatorOnly: true,
  semantics(ops, { width, operands }) {
    const [allocation, nesting] = two({ operands });
    const step = (count: number) => ops.constant(BigInt((count * width) / 8));
    const level = ops.and(ops.read(nesting), ops.constant(31n));
    const oldFrame = ops.readGpr(Gpr.RBP, 64);
    ops.push(width, ops.truncate(width, oldFrame));
    const frame = ops.readGpr(Gpr.RSP, width);
    // Frame pointers of the enclosing levels, copied from the frame that is left.
    for (let outer = 1; outer < 31; outer++) {
      ops.when(ops.lessUnsigned(ops.constant(BigInt(outer)), level), () =>
        ops.push(width, ops.load('stack', width, ops.sub(64, oldFrame, step(outer)))),
      );
    }
    ops.when(ops.negate(ops.isZero(level)), () => ops.push(width, frame));
    const top = ops.sub(64, ops.readGpr(Gpr.RSP, 64), ops.read(allocation));
    ops.store('stack', width, top, ops.load('stack', width, top)); // only to fault: the stack must reach so far
    ops.moveStack(ops.neg(64, ops.read(allocation)));
    ops.writeGpr(Gpr.RBP, width, frame);
  },
});

const LEAVE = instruction({
  mnemonic: 'LEAVE',
  source: 'APM vol.3, LEAVE',
  forms: ['C9: [d64]'],
  semantics(ops, { width }) {
    const frame = ops.readGpr(Gpr.RBP, 64);
    const value = ops.load('stack', width, frame);
    const toFrame = ops.sub(64, frame, ops.readGpr(Gpr.RSP, 64));
    ops.moveStack(ops.add(64, toFrame, ops.constant(BigInt(width / 8))));
    ops.writeGpr(Gpr.RBP, width, value);
  },
});

export const STACK_INSTRUCTIONS: readonly Instruction[] = [PUSH, POP, POP_TO_MEMORY, PUSHA, POPA, ENTER, LEAVE];

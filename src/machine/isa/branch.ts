/**
 * Near branches, calls and returns.
 * Source: APM vol.3, CALL (Near), Jcc, JCXZ, JMP (Near), LOOPcc, RET (Near). The operand size is 64 bits in 64-bit mode,
 * whatever the prefixes (APM vol.3 appendix B.1).
 */
import { hex } from './forms.js';
import { CONDITIONS, Gpr, type Instruction, instruction, type Ops, type Static } from './instruction.js';
import { one } from './operands.js';

const JMP = instruction({
  mnemonic: 'JMP',
  source: 'APM vol.3, JMP (Near)',
  forms: ['EB: Jb [f64]', 'E9: Jz [f64]'],
  semantics: (ops, insn) => ops.jumpRelative(one(insn)),
});

const JMP_INDIRECT = instruction({
  mnemonic: 'JMP',
  source: 'APM vol.3, JMP (Near)',
  forms: ['FF /4: Ev [f64]'],
  semantics(ops, insn) {
    const target = ops.read(one(insn));
    ops.requireTarget(target);
    ops.jump(target);
  },
});

const JCC: readonly Instruction[] = CONDITIONS.map((code, index) =>
  instruction({
    mnemonic: `J${code.toUpperCase()}`,
    source: 'APM vol.3, Jcc',
    forms: [`${hex(0x70 + index)}: Jb [f64]`, `0F ${hex(0x80 + index)}: Jz [f64]`],
    semantics: (ops, insn) => ops.jumpRelativeWhen(ops.condition(code), one(insn)),
  }),
);

/** JCXZ, JECXZ, JRCXZ, by the address size. */
const JCXZ = instruction({
  mnemonic: 'JCXZ',
  source: 'APM vol.3, JCXZ, JECXZ, JRCXZ',
  forms: ['E3: Jb [f64]'],
  semantics: (ops, insn) => ops.jumpRelativeWhen(ops.isZero(ops.readGpr(Gpr.RCX, insn.addressWidth)), one(insn)),
});

const LOOP = instruction({
  mnemonic: 'LOOP',
  source: 'APM vol.3, LOOPcc',
  forms: ['E2: Jb [f64]'],
  semantics: (ops, insn) => loop(ops, insn, undefined),
});

const LOOPE = instruction({
  mnemonic: 'LOOPE',
  source: 'APM vol.3, LOOPcc',
  forms: ['E1: Jb [f64]'],
  semantics: (ops, insn) => loop(ops, insn, ops.condition('e')),
});

const LOOPNE = instruction({
  mnemonic: 'LOOPNE',
  source: 'APM vol.3, LOOPcc',
  forms: ['E0: Jb [f64]'],
  semantics: (ops, insn) => loop(ops, insn, ops.condition('ne')),
});

/** Decrements rCX, of the address size, without flags; jumps when it is not yet zero and the condition holds. */
function loop<V, C, X>(ops: Ops<V, C, X>, insn: Static, condition: C | undefined): void {
  const { addressWidth } = insn;
  const count = ops.sub(addressWidth, ops.readGpr(Gpr.RCX, addressWidth), ops.constant(1n));
  const goesOn = ops.negate(ops.isZero(count));
  const jumps = condition === undefined ? goesOn : ops.both(goesOn, condition);
  ops.requireRelative(one(insn), jumps);
  ops.writeGpr(Gpr.RCX, addressWidth, count);
  ops.jumpRelativeWhen(jumps, one(insn));
}

const CALL = instruction({
  mnemonic: 'CALL',
  source: 'APM vol.3, CALL (Near)',
  forms: ['E8: Jz [f64]'],
  semantics(ops, insn) {
    ops.requireRelative(one(insn));
    ops.push(insn.width, ops.nextRip());
    ops.jumpRelative(one(insn));
  },
});

const CALL_INDIRECT = instruction({
  mnemonic: 'CALL',
  source: 'APM vol.3, CALL (Near)',
  forms: ['FF /2: Ev [f64]'],
  semantics(ops, insn) {
    const target = ops.read(one(insn));
    ops.requireTarget(target);
    ops.push(insn.width, ops.nextRip());
    ops.jump(target);
  },
});

const RET = instruction({
  mnemonic: 'RET',
  source: 'APM vol.3, RET (Near)',
  forms: ['C3: [f64]'],
  semantics(ops, { width }) {
    const target = ops.peek(width, 0);
    ops.requireTarget(target);
    ops.moveStack(ops.constant(BigInt(width / 8)));
    ops.jump(target);
  },
});

const RET_RELEASING = instruction({
  mnemonic: 'RET',
  source: 'APM vol.3, RET (Near)',
  forms: ['C2: Iw [f64]'],
  semantics(ops, insn) {
    const target = ops.peek(insn.width, 0);
    ops.requireTarget(target);
    ops.moveStack(ops.add(64, ops.read(one(insn)), ops.constant(BigInt(insn.width / 8))));
    ops.jump(target);
  },
});

export const BRANCH_INSTRUCTIONS: readonly Instruction[] = [
  JMP,
  JMP_INDIRECT,
  ...JCC,
  JCXZ,
  LOOP,
  LOOPE,
  LOOPNE,
  CALL,
  CALL_INDIRECT,
  RET,
  RET_RELEASING,
];

/**
 * AND, OR, XOR, TEST, NOT.
 * Source: APM vol.3 §3. AF, which the manual leaves undefined, is cleared.
 */
import { binaryForms } from './forms.js';
import { type Instruction, instruction, type Ops, type Static } from './instruction.js';
import { one, two } from './operands.js';

const AND = instruction({
  mnemonic: 'AND',
  source: 'APM vol.3, AND',
  forms: binaryForms(4, '[lock]'),
  semantics: (ops, insn) => combine(ops, insn, (a, b) => ops.and(a, b)),
});

const OR = instruction({
  mnemonic: 'OR',
  source: 'APM vol.3, OR',
  forms: binaryForms(1, '[lock]'),
  semantics: (ops, insn) => combine(ops, insn, (a, b) => ops.or(a, b)),
});

const XOR = instruction({
  mnemonic: 'XOR',
  source: 'APM vol.3, XOR',
  forms: binaryForms(6, '[lock]'),
  semantics: (ops, insn) => combine(ops, insn, (a, b) => ops.xor(a, b)),
});

const TEST = instruction({
  mnemonic: 'TEST',
  source: 'APM vol.3, TEST',
  forms: [
    '84 /r: Eb, Gb',
    '85 /r: Ev, Gv',
    'A8: AL, Ib',
    'A9: rAX, Iz',
    'F6 /0: Eb, Ib',
    'F6 /1: Eb, Ib',
    'F7 /0: Ev, Iz',
    'F7 /1: Ev, Iz',
  ],
  semantics(ops, insn) {
    const [first, second] = two(insn);
    ops.flagsLogic(insn.width, ops.and(ops.read(first), ops.read(second)));
  },
});

const NOT = instruction({
  mnemonic: 'NOT',
  source: 'APM vol.3, NOT',
  forms: ['F6 /2: Eb [lock]', 'F7 /2: Ev [lock]'],
  semantics(ops, insn) {
    const destination = one(insn);
    ops.write(destination, ops.not(insn.width, ops.readForWrite(destination)));
  },
});

function combine<V, C, X>(ops: Ops<V, C, X>, insn: Static, operation: (a: V, b: V) => V): void {
  const [destination, source] = two(insn);
  const a = ops.readForWrite(destination);
  const result = operation(a, ops.read(source));
  ops.write(destination, result);
  ops.flagsLogic(insn.width, result);
}

export const LOGIC_INSTRUCTIONS: readonly Instruction[] = [AND, OR, XOR, TEST, NOT];

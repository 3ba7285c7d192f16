/**
 * SSE4A: bit fields of XMM registers. (Its streaming stores are with the moves.)
 * Source: APM vol.4, EXTRQ, INSERTQ.
 *
 * A field has a length of 1 to 64 bits (0 means 64) and begins at a bit index; both are six bits. What lies beyond bit 63
 * is undefined in the manual: here bits that are not there are zeros, and an insertion drops them. Bits 127:64 of the
 * destination are undefined; they are cleared.
 */

import { type Instruction, instruction, type Operand, type Ops } from './instruction.js';
import { four, three, two } from './operands.js';

interface Field<V> {
  readonly index: V;
  /** Ones in the field's length, from bit 0. */
  readonly ones: V;
}

function fieldOf<V, C, X>(ops: Ops<V, C, X>, lengthBits: V, indexBits: V): Field<V> {
  const six = ops.constant(0x3fn);
  const length = ops.and(lengthBits, six);
  const ones = ops.sub(64, ops.shl(64, ops.constant(1n), length), ops.constant(1n));
  return { index: ops.and(indexBits, six), ones: ops.select(ops.isZero(length), ops.constant((1n << 64n) - 1n), ones) };
}

/** The field as a register gives it: length in bits 5:0, index in bits 13:8. */
const fieldIn = <V, C, X>(ops: Ops<V, C, X>, control: V): Field<V> =>
  fieldOf(ops, control, ops.shr(64, control, ops.constant(8n)));

function extract<V, C, X>(ops: Ops<V, C, X>, destination: Operand, { index, ones }: Field<V>): void {
  const value = ops.lane64(ops.readVector(destination), 0);
  ops.writeVector(destination, ops.vectorFromLow(ops.and(ops.shr(64, value, index), ones)));
}

function insert<V, C, X>(ops: Ops<V, C, X>, destination: Operand, value: V, { index, ones }: Field<V>): void {
  const old = ops.lane64(ops.readVector(destination), 0);
  const mask = ops.shl(64, ones, index);
  const field = ops.shl(64, ops.and(value, ones), index);
  ops.writeVector(destination, ops.vectorFromLow(ops.or(ops.and(old, ops.not(64, mask)), field)));
}

const SSE4A = { feature: 'sse4a', evaluatorOnly: true } as const;

export const SSE4A_INSTRUCTIONS: readonly Instruction[] = [
  instruction({
    ...SSE4A,
    mnemonic: 'EXTRQ',
    source: 'APM vol.4, EXTRQ',
    forms: ['66 0F 78 /0: Udq, Ib, Ib'],
    semantics(ops, insn) {
      const [destination, length, index] = three(insn);
      extract(ops, destination, fieldOf(ops, ops.read(length), ops.read(index)));
    },
  }),
  instruction({
    ...SSE4A,
    mnemonic: 'EXTRQ',
    source: 'APM vol.4, EXTRQ',
    forms: ['66 0F 79 /r: Vdq, Udq'],
    semantics(ops, insn) {
      const [destination, control] = two(insn);
      extract(ops, destination, fieldIn(ops, ops.lane64(ops.readVector(control), 0)));
    },
  }),
  instruction({
    ...SSE4A,
    mnemonic: 'INSERTQ',
    source: 'APM vol.4, INSERTQ',
    forms: ['F2 0F 78 /r: Vdq, Udq, Ib, Ib'],
    semantics(ops, insn) {
      const [destination, source, length, index] = four(insn);
      const value = ops.lane64(ops.readVector(source), 0);
      insert(ops, destination, value, fieldOf(ops, ops.read(length), ops.read(index)));
    },
  }),
  instruction({
    ...SSE4A,
    mnemonic: 'INSERTQ',
    source: 'APM vol.4, INSERTQ',
    forms: ['F2 0F 79 /r: Vdq, Udq'],
    semantics(ops, insn) {
      const [destination, source] = two(insn);
      const vector = ops.readVector(source);
      insert(ops, destination, ops.lane64(vector, 0), fieldIn(ops, ops.lane64(vector, 1)));
    },
  }),
];

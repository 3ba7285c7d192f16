/**
 * Bits: BT and relatives, bit scans and counts.
 * Source: APM vol.3, BT, BTC, BTR, BTS, BSF, BSR, LZCNT, POPCNT, TZCNT.
 *
 * Flags that the manual leaves undefined stay as they were. BSF and BSR of zero leave the destination alone, which
 * APM vol.3 promises.
 */
import { type Instruction, instruction, type Operand, type Ops, type Static } from './instruction.js';
import { two } from './operands.js';

const BT = instruction({
  mnemonic: 'BT',
  source: 'APM vol.3, BT',
  forms: ['0F A3 /r: Ev, Gv', '0F BA /4: Ev, Ib'],
  semantics(ops, insn) {
    const { operand, index } = bitOf(ops, insn);
    ops.setFlag('cf', ops.bit(ops.shr(insn.width, ops.read(operand), index), 0));
  },
});

const BTS = instruction({
  mnemonic: 'BTS',
  source: 'APM vol.3, BTS',
  forms: ['0F AB /r: Ev, Gv [lock]', '0F BA /5: Ev, Ib [lock]'],
  semantics: (ops, insn) => changeBit(ops, insn, (value, bit) => ops.or(value, bit)),
});

const BTR = instruction({
  mnemonic: 'BTR',
  source: 'APM vol.3, BTR',
  forms: ['0F B3 /r: Ev, Gv [lock]', '0F BA /6: Ev, Ib [lock]'],
  semantics: (ops, insn) => changeBit(ops, insn, (value, bit) => ops.and(value, ops.not(insn.width, bit))),
});

const BTC = instruction({
  mnemonic: 'BTC',
  source: 'APM vol.3, BTC',
  forms: ['0F BB /r: Ev, Gv [lock]', '0F BA /7: Ev, Ib [lock]'],
  semantics: (ops, insn) => changeBit(ops, insn, (value, bit) => ops.xor(value, bit)),
});

function changeBit<V, C, X>(ops: Ops<V, C, X>, insn: Static, change: (value: V, bit: V) => V): void {
  const { operand, index } = bitOf(ops, insn);
  const value = ops.readForWrite(operand);
  ops.write(operand, change(value, ops.shl(insn.width, ops.constant(1n), index)));
  ops.setFlag('cf', ops.bit(ops.shr(insn.width, value, index), 0));
}

/**
 * Where the bit is. A register that indexes memory counts bits from the operand's address, in both directions; any
 * other index is taken modulo the width.
 */
function bitOf<V, C, X>(ops: Ops<V, C, X>, insn: Static): { readonly operand: Operand; readonly index: V } {
  const { width } = insn;
  const [base, offsetOperand] = two(insn);
  const offset = ops.read(offsetOperand);
  const index = ops.and(offset, ops.constant(BigInt(width - 1)));
  if (base.kind !== 'mem' || offsetOperand.kind !== 'gpr') return { operand: base, index };
  const element = ops.sar(64, ops.signExtend(width, 64, offset), ops.constant(BigInt(31 - Math.clz32(width))));
  const bytes = ops.shl(64, element, ops.constant(BigInt(31 - Math.clz32(width / 8))));
  return { operand: ops.displaced(base, bytes, width), index };
}

const BSF = instruction({
  mnemonic: 'BSF',
  source: 'APM vol.3, BSF',
  forms: ['0F BC /r: Gv, Ev'],
  semantics: (ops, insn) => scan(ops, insn, (value) => ops.countTrailingZeros(insn.width, value)),
});

const BSR = instruction({
  mnemonic: 'BSR',
  source: 'APM vol.3, BSR',
  forms: ['0F BD /r: Gv, Ev'],
  semantics: (ops, insn) =>
    scan(ops, insn, (value) =>
      ops.sub(insn.width, ops.constant(BigInt(insn.width - 1)), ops.countLeadingZeros(insn.width, value)),
    ),
});

function scan<V, C, X>(ops: Ops<V, C, X>, insn: Static, find: (value: V) => V): void {
  const [destination, source] = two(insn);
  const value = ops.read(source);
  const none = ops.isZero(value);
  ops.when(ops.negate(none), () => ops.write(destination, find(value)));
  ops.setFlag('zf', none);
}

/** Without BMI1 the encoding is that of BSF, whose prefix is ignored. */
const TZCNT = instruction({
  mnemonic: 'TZCNT',
  source: 'APM vol.3, TZCNT',
  forms: ['F3 0F BC /r: Gv, Ev'],
  feature: 'bmi1',
  semantics: (ops, insn) => count(ops, insn, (value) => ops.countTrailingZeros(insn.width, value)),
});

/** Without the feature the encoding is that of BSR, whose prefix is ignored. */
const LZCNT = instruction({
  mnemonic: 'LZCNT',
  source: 'APM vol.3, LZCNT',
  forms: ['F3 0F BD /r: Gv, Ev'],
  feature: 'abm',
  semantics: (ops, insn) => count(ops, insn, (value) => ops.countLeadingZeros(insn.width, value)),
});

function count<V, C, X>(ops: Ops<V, C, X>, insn: Static, find: (value: V) => V): void {
  const [destination, source] = two(insn);
  const value = ops.read(source);
  const result = find(value);
  ops.write(destination, result);
  ops.setFlag('cf', ops.isZero(value));
  ops.setFlag('zf', ops.isZero(result));
}

const POPCNT = instruction({
  mnemonic: 'POPCNT',
  source: 'APM vol.3, POPCNT',
  forms: ['F3 0F B8 /r: Gv, Ev'],
  feature: 'popcnt',
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const value = ops.read(source);
    ops.write(destination, ops.countOnes(insn.width, value));
    ops.setArithmeticFlags(ops.constant(0n));
    ops.setFlag('zf', ops.isZero(value));
  },
});

export const BIT_INSTRUCTIONS: readonly Instruction[] = [BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT];

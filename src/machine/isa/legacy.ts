/**
 * Instructions that 64-bit mode no longer has: decimal adjustment and BOUND.
 * Source: APM vol.3, AAA, AAD, AAM, AAS, DAA, DAS, BOUND. Undefined flags: OF is cleared by all; AAA and AAS give SF, ZF
 * and PF of AL, AAD and AAM clear CF and AF.
 */
import { Gpr, type Instruction, instruction, type Ops } from './instruction.js';
import { one, two } from './operands.js';

/** The low digit is above 9, or a carry left it. */
function lowDigitOverflows<V, C, X>(ops: Ops<V, C, X>, al: V): C {
  const digit = ops.and(al, ops.constant(0x0fn));
  return ops.either(ops.lessUnsigned(ops.constant(9n), digit), ops.flag('af'));
}

const never = <V, C, X>(ops: Ops<V, C, X>): C => ops.bit(ops.constant(0n), 0);

/** Both digits of a packed byte after an addition or subtraction; `correct` adds or subtracts the surplus. */
function adjustPacked<V, C, X>(
  ops: Ops<V, C, X>,
  correct: (value: V, surplus: V) => V,
  lowCarries: (al: V) => C,
): void {
  const al = ops.readGpr(Gpr.RAX, 8);
  const low = lowDigitOverflows(ops, al);
  const high = ops.either(ops.lessUnsigned(ops.constant(0x99n), al), ops.flag('cf'));
  const afterLow = ops.select(low, correct(al, ops.constant(0x06n)), al);
  const result = ops.select(high, correct(afterLow, ops.constant(0x60n)), afterLow);
  ops.writeGpr(Gpr.RAX, 8, result);
  ops.flagsResult(8, result, ops.either(high, ops.both(low, lowCarries(al))), never(ops));
  ops.setFlag('af', low);
}

const DAA = instruction({
  mnemonic: 'DAA',
  source: 'APM vol.3, DAA',
  forms: ['27: [i64] [b]'],
  evaluatorOnly: true,
  semantics: (ops) =>
    adjustPacked(
      ops,
      (value, surplus) => ops.add(8, value, surplus),
      () => never(ops), // a low digit that carries out of AL has a high digit above 9
    ),
});

const DAS = instruction({
  mnemonic: 'DAS',
  source: 'APM vol.3, DAS',
  forms: ['2F: [i64] [b]'],
  evaluatorOnly: true,
  semantics: (ops) =>
    adjustPacked(
      ops,
      (value, surplus) => ops.sub(8, value, surplus),
      (al) => ops.lessUnsigned(al, ops.constant(6n)),
    ),
});

function adjustUnpacked<V, C, X>(ops: Ops<V, C, X>, correct: (ax: V, surplus: V) => V): void {
  const ax = ops.readGpr(Gpr.RAX, 16);
  const overflows = lowDigitOverflows(ops, ops.truncate(8, ax));
  const result = ops.and(ops.select(overflows, correct(ax, ops.constant(0x106n)), ax), ops.constant(0xff0fn));
  ops.writeGpr(Gpr.RAX, 16, result);
  ops.flagsResult(8, ops.truncate(8, result), overflows, never(ops));
  ops.setFlag('af', overflows);
}

const AAA = instruction({
  mnemonic: 'AAA',
  source: 'APM vol.3, AAA',
  forms: ['37: [i64] [b]'],
  evaluatorOnly: true,
  semantics: (ops) => adjustUnpacked(ops, (ax, surplus) => ops.add(16, ax, surplus)),
});

const AAS = instruction({
  mnemonic: 'AAS',
  source: 'APM vol.3, AAS',
  forms: ['3F: [i64] [b]'],
  evaluatorOnly: true,
  semantics: (ops) => adjustUnpacked(ops, (ax, surplus) => ops.sub(16, ax, surplus)),
});

const AAM = instruction({
  mnemonic: 'AAM',
  source: 'APM vol.3, AAM',
  forms: ['D4: Ib [i64]'],
  evaluatorOnly: true,
  semantics(ops, insn) {
    const base = ops.read(one(insn));
    const { quotient, remainder } = ops.divideUnsigned(8, ops.constant(0n), ops.readGpr(Gpr.RAX, 8), base);
    ops.writeGpr(Gpr.RAX, 16, ops.or(ops.shl(16, quotient, ops.constant(8n)), remainder));
    ops.flagsResult(8, remainder, never(ops), never(ops));
  },
});

const AAD = instruction({
  mnemonic: 'AAD',
  source: 'APM vol.3, AAD',
  forms: ['D5: Ib [i64]'],
  evaluatorOnly: true,
  semantics(ops, insn) {
    const high = ops.shr(16, ops.readGpr(Gpr.RAX, 16), ops.constant(8n));
    const result = ops.add(8, ops.readGpr(Gpr.RAX, 8), ops.mul(8, high, ops.read(one(insn))));
    ops.writeGpr(Gpr.RAX, 16, result);
    ops.flagsResult(8, result, never(ops), never(ops));
  },
});

/** The bounds lie one after the other in memory; both are signed, and both belong to the range. */
const BOUND = instruction({
  mnemonic: 'BOUND',
  source: 'APM vol.3, BOUND',
  forms: ['62 /r: Gv, Mv [i64]'],
  evaluatorOnly: true,
  semantics(ops, insn) {
    const { width } = insn;
    const [index, bounds] = two(insn);
    // With the sign bit turned over, signed order is unsigned order.
    const ordered = (value: Parameters<typeof ops.xor>[0]) => ops.xor(value, ops.constant(1n << BigInt(width - 1)));
    const lower = ordered(ops.read(bounds));
    const upper = ordered(ops.read(ops.displaced(bounds, ops.constant(BigInt(width / 8)), width)));
    const value = ordered(ops.read(index));
    ops.faultWhen(ops.either(ops.lessUnsigned(value, lower), ops.lessUnsigned(upper, value)), 'BR');
  },
});

export const LEGACY_INSTRUCTIONS: readonly Instruction[] = [DAA, DAS, AAA, AAS, AAM, AAD, BOUND];

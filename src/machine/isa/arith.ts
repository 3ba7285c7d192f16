/**
 * Integer arithmetic: ADD to CMP, INC, DEC, NEG, multiplication and division.
 * Source: APM vol.3 §3 General-Purpose Instruction Reference; flags: APM vol.1 §3.1.4 rFLAGS.
 *
 * Flags that the manual leaves undefined: MUL and IMUL give SF, ZF and PF of the low half and clear AF, DIV and IDIV
 * leave all six alone.
 */
import { binaryForms } from './forms.js';
import { Gpr, type Instruction, instruction, type Ops, type Static } from './instruction.js';
import { one, three, two } from './operands.js';

const ADD = instruction({
  mnemonic: 'ADD',
  source: 'APM vol.3, ADD',
  forms: binaryForms(0, '[lock]'),
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const a = ops.readForWrite(destination);
    const b = ops.read(source);
    const sum = ops.add(insn.width, a, b);
    ops.write(destination, sum);
    ops.flagsAdd(insn.width, a, b, sum);
  },
});

const ADC = instruction({
  mnemonic: 'ADC',
  source: 'APM vol.3, ADC',
  forms: binaryForms(2, '[lock]'),
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const a = ops.readForWrite(destination);
    const b = ops.read(source);
    const sum = ops.add(insn.width, ops.add(insn.width, a, b), ops.fromBool(ops.flag('cf')));
    ops.write(destination, sum);
    ops.flagsAdd(insn.width, a, b, sum);
  },
});

const SUB = instruction({
  mnemonic: 'SUB',
  source: 'APM vol.3, SUB',
  forms: binaryForms(5, '[lock]'),
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const a = ops.readForWrite(destination);
    const b = ops.read(source);
    const difference = ops.sub(insn.width, a, b);
    ops.write(destination, difference);
    ops.flagsSub(insn.width, a, b, difference);
  },
});

const SBB = instruction({
  mnemonic: 'SBB',
  source: 'APM vol.3, SBB',
  forms: binaryForms(3, '[lock]'),
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const a = ops.readForWrite(destination);
    const b = ops.read(source);
    const difference = ops.sub(insn.width, ops.sub(insn.width, a, b), ops.fromBool(ops.flag('cf')));
    ops.write(destination, difference);
    ops.flagsSub(insn.width, a, b, difference);
  },
});

const CMP = instruction({
  mnemonic: 'CMP',
  source: 'APM vol.3, CMP',
  forms: binaryForms(7, ''),
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const a = ops.read(destination);
    const b = ops.read(source);
    ops.flagsSub(insn.width, a, b, ops.sub(insn.width, a, b));
  },
});

const INC = instruction({
  mnemonic: 'INC',
  source: 'APM vol.3, INC',
  forms: ['FE /0: Eb [lock]', 'FF /0: Ev [lock]', '40+r: Zv [i64]'],
  semantics(ops, insn) {
    const destination = one(insn);
    const a = ops.readForWrite(destination);
    const result = ops.add(insn.width, a, ops.constant(1n));
    ops.write(destination, result);
    ops.flagsInc(insn.width, a, result);
  },
});

const DEC = instruction({
  mnemonic: 'DEC',
  source: 'APM vol.3, DEC',
  forms: ['FE /1: Eb [lock]', 'FF /1: Ev [lock]', '48+r: Zv [i64]'],
  semantics(ops, insn) {
    const destination = one(insn);
    const a = ops.readForWrite(destination);
    const result = ops.sub(insn.width, a, ops.constant(1n));
    ops.write(destination, result);
    ops.flagsDec(insn.width, a, result);
  },
});

const NEG = instruction({
  mnemonic: 'NEG',
  source: 'APM vol.3, NEG',
  forms: ['F6 /3: Eb [lock]', 'F7 /3: Ev [lock]'],
  semantics(ops, insn) {
    const destination = one(insn);
    const a = ops.readForWrite(destination);
    const result = ops.neg(insn.width, a);
    ops.write(destination, result);
    ops.flagsSub(insn.width, ops.constant(0n), a, result);
  },
});

const MUL = instruction({
  mnemonic: 'MUL',
  source: 'APM vol.3, MUL',
  forms: ['F6 /4: Eb', 'F7 /4: Ev'],
  semantics(ops, insn) {
    const { width } = insn;
    const a = ops.readGpr(Gpr.RAX, width);
    const b = ops.read(one(insn));
    const low = ops.mul(width, a, b);
    const high = ops.mulHighUnsigned(width, a, b);
    writeDoubleWidth(ops, insn, high, low);
    const overflow = ops.negate(ops.isZero(high));
    ops.flagsResult(width, low, overflow, overflow);
  },
});

const IMUL = instruction({
  mnemonic: 'IMUL',
  source: 'APM vol.3, IMUL',
  forms: ['F6 /5: Eb', 'F7 /5: Ev'],
  semantics(ops, insn) {
    const a = ops.readGpr(Gpr.RAX, insn.width);
    const b = ops.read(one(insn));
    const low = ops.mul(insn.width, a, b);
    const high = ops.mulHighSigned(insn.width, a, b);
    writeDoubleWidth(ops, insn, high, low);
    signedProductFlags(ops, insn, high, low);
  },
});

const IMUL_TWO = instruction({
  mnemonic: 'IMUL',
  source: 'APM vol.3, IMUL',
  forms: ['0F AF /r: Gv, Ev'],
  semantics(ops, insn) {
    const [destination, source] = two(insn);
    const a = ops.read(destination);
    const b = ops.read(source);
    const low = ops.mul(insn.width, a, b);
    ops.write(destination, low);
    signedProductFlags(ops, insn, ops.mulHighSigned(insn.width, a, b), low);
  },
});

const IMUL_THREE = instruction({
  mnemonic: 'IMUL',
  source: 'APM vol.3, IMUL',
  forms: ['69 /r: Gv, Ev, Iz', '6B /r: Gv, Ev, Ibs'],
  semantics(ops, insn) {
    const [destination, source, factor] = three(insn);
    const a = ops.read(source);
    const b = ops.read(factor);
    const low = ops.mul(insn.width, a, b);
    ops.write(destination, low);
    signedProductFlags(ops, insn, ops.mulHighSigned(insn.width, a, b), low);
  },
});

const DIV = instruction({
  mnemonic: 'DIV',
  source: 'APM vol.3, DIV',
  forms: ['F6 /6: Eb', 'F7 /6: Ev'],
  semantics(ops, insn) {
    const divisor = ops.read(one(insn));
    const { high, low } = readDoubleWidth(ops, insn);
    const { quotient, remainder } = ops.divideUnsigned(insn.width, high, low, divisor);
    writeDoubleWidth(ops, insn, remainder, quotient);
  },
});

const IDIV = instruction({
  mnemonic: 'IDIV',
  source: 'APM vol.3, IDIV',
  forms: ['F6 /7: Eb', 'F7 /7: Ev'],
  semantics(ops, insn) {
    const divisor = ops.read(one(insn));
    const { high, low } = readDoubleWidth(ops, insn);
    const { quotient, remainder } = ops.divideSigned(insn.width, high, low, divisor);
    writeDoubleWidth(ops, insn, remainder, quotient);
  },
});

/** AH:AL, DX:AX, EDX:EAX or RDX:RAX. */
function readDoubleWidth<V, C, X>(ops: Ops<V, C, X>, { width }: Static): { readonly high: V; readonly low: V } {
  if (width === 8) {
    const ax = ops.readGpr(Gpr.RAX, 16);
    return { high: ops.shr(16, ax, ops.constant(8n)), low: ops.truncate(8, ax) };
  }
  return { high: ops.readGpr(Gpr.RDX, width), low: ops.readGpr(Gpr.RAX, width) };
}

function writeDoubleWidth<V, C, X>(ops: Ops<V, C, X>, { width }: Static, high: V, low: V): void {
  if (width === 8) {
    ops.writeGpr(Gpr.RAX, 16, ops.or(ops.shl(16, high, ops.constant(8n)), low));
  } else {
    ops.writeGpr(Gpr.RAX, width, low);
    ops.writeGpr(Gpr.RDX, width, high);
  }
}

/** CF and OF tell that the high half is more than the sign of the low one. */
function signedProductFlags<V, C, X>(ops: Ops<V, C, X>, { width }: Static, high: V, low: V): void {
  const sign = ops.sar(width, low, ops.constant(BigInt(width - 1)));
  const overflow = ops.negate(ops.equal(high, sign));
  ops.flagsResult(width, low, overflow, overflow);
}

export const ARITHMETIC_INSTRUCTIONS: readonly Instruction[] = [
  ADD,
  ADC,
  SUB,
  SBB,
  CMP,
  INC,
  DEC,
  NEG,
  MUL,
  IMUL,
  IMUL_TWO,
  IMUL_THREE,
  DIV,
  IDIV,
];

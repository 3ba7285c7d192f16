/**
 * Bit manipulation and carry chains: BMI1, BMI2, ADX.
 * Source: APM vol.3, ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, MULX, PDEP, PEXT, RORX, SARX, SHLX, SHRX, ADCX, ADOX.
 * TZCNT and LZCNT stand with the other scans. Flags that the manual leaves undefined: PF is the result's, AF is cleared.
 */
import { type ArithmeticFlag, Gpr, type Instruction, instruction, type Ops, type Static } from './instruction.js';
import { three, two } from './operands.js';

const never = <V, C, X>(ops: Ops<V, C, X>): C => ops.bit(ops.constant(0n), 0);

const ANDN = instruction({
  mnemonic: 'ANDN',
  source: 'APM vol.3, ANDN',
  forms: ['VEX.LZ NP 0F 38 F2 /r: Gy, By, Ey'],
  feature: 'bmi1',
  semantics(ops, insn) {
    const [destination, inverted, source] = three(insn);
    const result = ops.and(ops.not(insn.width, ops.read(inverted)), ops.read(source));
    ops.write(destination, result);
    ops.flagsLogic(insn.width, result);
  },
});

const BEXTR = instruction({
  mnemonic: 'BEXTR',
  source: 'APM vol.3, BEXTR (register form)',
  forms: ['VEX.LZ NP 0F 38 F7 /r: Gy, Ey, By'],
  feature: 'bmi1',
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, source, control] = three(insn);
    const value = ops.read(source);
    const start = ops.and(ops.read(control), ops.constant(0xffn));
    const length = ops.and(ops.shr(64, ops.read(control), ops.constant(8n)), ops.constant(0xffn));
    const size = ops.constant(BigInt(width));
    const index = ops.and(start, ops.constant(BigInt(width - 1)));
    const shifted = ops.select(ops.lessUnsigned(start, size), ops.shr(width, value, index), ops.constant(0n));
    const result = lowBits(ops, width, shifted, length);
    ops.write(destination, result);
    ops.flagsLogic(width, result);
  },
});

/** The lowest `count` bits of `value`, all of them when `count` is the width or more. */
function lowBits<V, C, X>(ops: Ops<V, C, X>, width: number, value: V, count: V): V {
  const one = ops.constant(1n);
  const mask = ops.sub(width, ops.shl(width, one, ops.and(count, ops.constant(BigInt(width - 1)))), one);
  return ops.select(ops.lessUnsigned(count, ops.constant(BigInt(width))), ops.and(value, mask), value);
}

const BLSI = instruction({
  mnemonic: 'BLSI',
  source: 'APM vol.3, BLSI',
  forms: ['VEX.LZ NP 0F 38 F3 /3: By, Ey'],
  feature: 'bmi1',
  semantics(ops, insn) {
    const value = ops.read(two(insn)[1]);
    const result = ops.and(ops.neg(insn.width, value), value);
    writeLowest(ops, insn, result, ops.negate(ops.isZero(value)));
  },
});

const BLSMSK = instruction({
  mnemonic: 'BLSMSK',
  source: 'APM vol.3, BLSMSK',
  forms: ['VEX.LZ NP 0F 38 F3 /2: By, Ey'],
  feature: 'bmi1',
  semantics(ops, insn) {
    const value = ops.read(two(insn)[1]);
    const result = ops.xor(ops.sub(insn.width, value, ops.constant(1n)), value);
    writeLowest(ops, insn, result, ops.isZero(value));
  },
});

const BLSR = instruction({
  mnemonic: 'BLSR',
  source: 'APM vol.3, BLSR',
  forms: ['VEX.LZ NP 0F 38 F3 /1: By, Ey'],
  feature: 'bmi1',
  semantics(ops, insn) {
    const value = ops.read(two(insn)[1]);
    const result = ops.and(ops.sub(insn.width, value, ops.constant(1n)), value);
    writeLowest(ops, insn, result, ops.isZero(value));
  },
});

function writeLowest<V, C, X>(ops: Ops<V, C, X>, insn: Static, result: V, carry: C): void {
  ops.write(two(insn)[0], result);
  ops.flagsResult(insn.width, result, carry, never(ops));
}

const BZHI = instruction({
  mnemonic: 'BZHI',
  source: 'APM vol.3, BZHI',
  forms: ['VEX.LZ NP 0F 38 F5 /r: Gy, Ey, By'],
  feature: 'bmi2',
  semantics(ops, insn) {
    const { width } = insn;
    const [destination, source, control] = three(insn);
    const value = ops.read(source);
    const count = ops.and(ops.read(control), ops.constant(0xffn));
    const result = lowBits(ops, width, value, count);
    ops.write(destination, result);
    ops.flagsResult(width, result, ops.lessUnsigned(ops.constant(BigInt(width - 1)), count), never(ops));
  },
});

/** The high half wins when both destinations are one register. */
const MULX = instruction({
  mnemonic: 'MULX',
  source: 'APM vol.3, MULX',
  forms: ['VEX.LZ F2 0F 38 F6 /r: Gy, By, Ey'],
  feature: 'bmi2',
  semantics(ops, insn) {
    const { width } = insn;
    const [highDestination, lowDestination, source] = three(insn);
    const a = ops.readGpr(Gpr.RDX, width);
    const b = ops.read(source);
    const high = ops.mulHighUnsigned(width, a, b);
    ops.write(lowDestination, ops.mul(width, a, b));
    ops.write(highDestination, high);
  },
});

const PDEP = instruction({
  mnemonic: 'PDEP',
  source: 'APM vol.3, PDEP',
  forms: ['VEX.LZ F2 0F 38 F5 /r: Gy, By, Ey'],
  feature: 'bmi2',
  evaluatorOnly: true,
  semantics(ops, insn) {
    const [destination, source, maskOperand] = three(insn);
    const mask = ops.read(maskOperand);
    const one = ops.constant(1n);
    let rest = ops.read(source);
    let result = ops.constant(0n);
    for (let index = 0; index < insn.width; index++) {
      const chosen = ops.bit(mask, index);
      const bit = ops.shl(64, ops.and(rest, one), ops.constant(BigInt(index)));
      result = ops.select(chosen, ops.or(result, bit), result);
      rest = ops.select(chosen, ops.shr(64, rest, one), rest);
    }
    ops.write(destination, result);
  },
});

const PEXT = instruction({
  mnemonic: 'PEXT',
  source: 'APM vol.3, PEXT',
  forms: ['VEX.LZ F3 0F 38 F5 /r: Gy, By, Ey'],
  feature: 'bmi2',
  evaluatorOnly: true,
  semantics(ops, insn) {
    const [destination, source, maskOperand] = three(insn);
    const mask = ops.read(maskOperand);
    const value = ops.read(source);
    let result = ops.constant(0n);
    // From the top down, so that every chosen bit pushes the others up.
    for (let index = insn.width - 1; index >= 0; index--) {
      const pushed = ops.or(ops.shl(64, result, ops.constant(1n)), ops.fromBool(ops.bit(value, index)));
      result = ops.select(ops.bit(mask, index), pushed, result);
    }
    ops.write(destination, result);
  },
});

const RORX = instruction({
  mnemonic: 'RORX',
  source: 'APM vol.3, RORX',
  forms: ['VEX.LZ F2 0F 3A F0 /r: Gy, Ey, Ib'],
  feature: 'bmi2',
  semantics: (ops, insn) => shiftByRegister(ops, insn, (value, count) => ops.ror(insn.width, value, count)),
});

const SARX = instruction({
  mnemonic: 'SARX',
  source: 'APM vol.3, SARX',
  forms: ['VEX.LZ F3 0F 38 F7 /r: Gy, Ey, By'],
  feature: 'bmi2',
  semantics: (ops, insn) => shiftByRegister(ops, insn, (value, count) => ops.sar(insn.width, value, count)),
});

const SHLX = instruction({
  mnemonic: 'SHLX',
  source: 'APM vol.3, SHLX',
  forms: ['VEX.LZ 66 0F 38 F7 /r: Gy, Ey, By'],
  feature: 'bmi2',
  semantics: (ops, insn) => shiftByRegister(ops, insn, (value, count) => ops.shl(insn.width, value, count)),
});

const SHRX = instruction({
  mnemonic: 'SHRX',
  source: 'APM vol.3, SHRX',
  forms: ['VEX.LZ F2 0F 38 F7 /r: Gy, Ey, By'],
  feature: 'bmi2',
  semantics: (ops, insn) => shiftByRegister(ops, insn, (value, count) => ops.shr(insn.width, value, count)),
});

/** No flags change. */
function shiftByRegister<V, C, X>(ops: Ops<V, C, X>, insn: Static, shift: (value: V, count: V) => V): void {
  const [destination, source, countOperand] = three(insn);
  const count = ops.and(ops.read(countOperand), ops.constant(BigInt(insn.width - 1)));
  ops.write(destination, shift(ops.read(source), count));
}

const ADCX = instruction({
  mnemonic: 'ADCX',
  source: 'APM vol.3, ADCX',
  forms: ['66 0F 38 F6 /r: Gy, Ey'],
  feature: 'adx',
  semantics: (ops, insn) => addThrough(ops, insn, 'cf'),
});

const ADOX = instruction({
  mnemonic: 'ADOX',
  source: 'APM vol.3, ADOX',
  forms: ['F3 0F 38 F6 /r: Gy, Ey'],
  feature: 'adx',
  semantics: (ops, insn) => addThrough(ops, insn, 'of'),
});

/** Adds with `flag` as carry in and out; the other flags stay. */
function addThrough<V, C, X>(ops: Ops<V, C, X>, insn: Static, flag: ArithmeticFlag): void {
  const { width } = insn;
  const [destination, source] = two(insn);
  const a = ops.read(destination);
  const partial = ops.add(width, a, ops.read(source));
  const sum = ops.add(width, partial, ops.fromBool(ops.flag(flag)));
  ops.write(destination, sum);
  ops.setFlag(flag, ops.either(ops.lessUnsigned(partial, a), ops.lessUnsigned(sum, partial)));
}

export const BMI_INSTRUCTIONS: readonly Instruction[] = [
  ANDN,
  BEXTR,
  BLSI,
  BLSMSK,
  BLSR,
  BZHI,
  MULX,
  PDEP,
  PEXT,
  RORX,
  SARX,
  SHLX,
  SHRX,
  ADCX,
  ADOX,
];

/**
 * x87 loads, stores, constants and stack management. Source: APM vol.1 §6.4.1 Data Transfer and Conversion, §6.4.2 Load
 * Constants, §6.4.6 Stack Management, §6.4.7 No Operation; APM vol.5.
 *
 * Loads convert, then push; stores convert, write, then pop. A store that an unmasked exception stops writes nothing.
 * Encodings that the manual reserves and AMD processors execute all the same are here, too: FSTP as DF /2 and DF /3, FXCH
 * as DD /1 and DF /1, and D9 /3, an FSTP that does not mind an empty register.
 */
import type { SystemContext } from '../cpu/system-context.js';
import { F32, F64, F80, type Unpacked } from '../fp/format.js';
import { IE, TRUNCATE } from '../fp/rounding.js';
import { integerOperand } from '../fp/x87.js';
import { constant } from '../fp/x87-constants.js';
import { fromDecimal, load, store, toDecimal, toInteger } from '../fp/x87-convert.js';
import type { X87Environment } from '../fp/x87-rounding.js';
import type { ConditionCode, Feature, Instruction } from './instruction.js';
import { memoryAt } from './system-operands.js';
import { stackOperand, type X87Unit, x87Instruction } from './x87-unit.js';

// Loads

const FLD = x87Instruction('FLD', ['D9 /0: Md', 'DD /0: Mq', 'DB /5: Mt', 'D9 /0: STi'], (unit, context) => {
  const { memory } = unit;
  if (memory === undefined) {
    pushRegister(unit, stackOperand(context, 0));
    return;
  }
  const bits = unit.load(memory);
  if (!unit.isEmpty(-1)) unit.push(bits);
  else {
    const value = memory.width === 80 ? bits : load(memory.width === 32 ? F32 : F64, bits, unit.env);
    // An unmasked DE is told, but does not keep the value from being loaded.
    if ((unit.env.flags & ~unit.env.masks & IE) === 0) unit.push(value);
  }
});

function pushRegister(unit: X87Unit, index: number): void {
  if (!unit.isEmpty(index)) unit.push(unit.bits(index));
  else if (unit.underflows()) {
    unit.rotate(-1);
    unit.set(0, F80.indefinite);
  }
}

const FILD = x87Instruction('FILD', ['DF /0: Mw', 'DB /0: Md', 'DF /5: Mq'], (unit, context) => {
  const memory = memoryAt(context, 0);
  unit.push(integerOperand(BigInt.asIntN(memory.width, unit.load(memory))).bits);
});

const FBLD = x87Instruction('FBLD', ['DF /4: Mt'], (unit, context) =>
  unit.push(fromDecimal(unit.load(memoryAt(context, 0)))),
);

const CONSTANTS = (
  [
    ['FLD1', 'D9 E8:', 'one'],
    ['FLDL2T', 'D9 E9:', 'log2of10'],
    ['FLDL2E', 'D9 EA:', 'log2ofE'],
    ['FLDPI', 'D9 EB:', 'pi'],
    ['FLDLG2', 'D9 EC:', 'log10of2'],
    ['FLDLN2', 'D9 ED:', 'ln2'],
    ['FLDZ', 'D9 EE:', 'zero'],
  ] as const
).map(([mnemonic, form, name]) =>
  x87Instruction(mnemonic, [form], (unit) => unit.push(constant(name, unit.env.rounding))),
);

// Stores

interface Store {
  readonly mnemonic: string;
  readonly forms: readonly string[];
  readonly pops: boolean;
  readonly feature?: Feature;
  convert(x: Unpacked, width: number, env: X87Environment): bigint;
}

/** An empty register is stored as the indefinite value of the destination's type, which an unsupported operand gives. */
const EMPTY: Unpacked = { bits: 0n, kind: 'unsupported', negative: false, exponent: 0, significand: 0n };

function memoryStore({ mnemonic, forms, pops, feature, convert }: Store): Instruction {
  return x87Instruction(
    mnemonic,
    forms,
    (unit, context) => {
      if (unit.memory === undefined) copyRegister(unit, context);
      else {
        if (unit.isEmpty(0)) unit.underflows();
        const value = convert(unit.isEmpty(0) ? EMPTY : unit.operand(0), unit.memory.width, unit.env);
        if (unit.isStoreStopped) {
          unit.context.ops.readForWrite(unit.memory);
          return;
        }
        unit.store(unit.memory, value);
      }
      if (pops && !unit.isStopped) unit.pop();
    },
    feature,
  );
}

function copyRegister(unit: X87Unit, context: SystemContext): void {
  const destination = stackOperand(context, 0);
  if (!unit.isEmpty(0)) unit.set(destination, unit.bits(0));
  else if (unit.underflows()) unit.set(destination, F80.indefinite);
}

const floatStore: Store['convert'] = (x, width, env) => {
  if (width === 80) return x === EMPTY ? F80.indefinite : x.bits;
  return store(width === 32 ? F32 : F64, x, env);
};
const integerStore: Store['convert'] = (x, width, env) => toInteger(x, width, env.rounding, env);

const STORES = [
  memoryStore({
    mnemonic: 'FST',
    forms: ['D9 /2: Md', 'DD /2: Mq', 'DD /2: STi'],
    pops: false,
    convert: floatStore,
  }),
  memoryStore({
    mnemonic: 'FSTP',
    forms: ['D9 /3: Md', 'DD /3: Mq', 'DB /7: Mt', 'DD /3: STi', 'DF /2: STi', 'DF /3: STi'],
    pops: true,
    convert: floatStore,
  }),
  memoryStore({ mnemonic: 'FIST', forms: ['DF /2: Mw', 'DB /2: Md'], pops: false, convert: integerStore }),
  memoryStore({ mnemonic: 'FISTP', forms: ['DF /3: Mw', 'DB /3: Md', 'DF /7: Mq'], pops: true, convert: integerStore }),
  memoryStore({
    mnemonic: 'FISTTP',
    forms: ['DF /1: Mw', 'DB /1: Md', 'DD /1: Mq'],
    pops: true,
    feature: 'sse3',
    convert: (x, width, env) => toInteger(x, width, TRUNCATE, env),
  }),
  memoryStore({
    mnemonic: 'FBSTP',
    forms: ['DF /6: Mt'],
    pops: true,
    convert: (x, _width, env) => toDecimal(x, env),
  }),
];

// Registers

const FXCH = x87Instruction('FXCH', ['D9 /1: STi', 'DD /1: STi', 'DF /1: STi'], (unit, context) => {
  const other = stackOperand(context, 0);
  const isMissing = unit.isEmpty(0) || unit.isEmpty(other);
  if (isMissing && !unit.underflows()) return;
  const [a, b] = [0, other].map((index) => (unit.isEmpty(index) ? F80.indefinite : unit.bits(index)));
  unit.set(0, b as bigint);
  unit.set(other, a as bigint);
});

const CONDITIONAL_MOVES = (
  [
    ['FCMOVB', 'DA /0', 'b'],
    ['FCMOVE', 'DA /1', 'e'],
    ['FCMOVBE', 'DA /2', 'be'],
    ['FCMOVU', 'DA /3', 'p'],
    ['FCMOVNB', 'DB /0', 'ae'],
    ['FCMOVNE', 'DB /1', 'ne'],
    ['FCMOVNBE', 'DB /2', 'a'],
    ['FCMOVNU', 'DB /3', 'np'],
  ] as const satisfies readonly (readonly [string, string, ConditionCode])[]
).map(([mnemonic, form, condition]) =>
  x87Instruction(mnemonic, [`${form}: ST, STi`], (unit, context) => {
    const source = stackOperand(context, 1);
    if (unit.isEmpty(0) || unit.isEmpty(source)) {
      if (unit.underflows()) unit.set(0, F80.indefinite);
    } else if (context.ops.condition(condition)) unit.set(0, unit.bits(source));
    unit.keepC1();
  }),
);

export const X87_MOVE_INSTRUCTIONS: readonly Instruction[] = [
  FLD,
  FILD,
  FBLD,
  ...CONSTANTS,
  ...STORES,
  FXCH,
  ...CONDITIONAL_MOVES,
  x87Instruction('FFREE', ['DD /0: STi'], (unit, context) => unit.free(stackOperand(context, 0))),
  x87Instruction('FFREEP', ['DF /0: STi'], (unit, context) => {
    unit.free(stackOperand(context, 0));
    unit.pop();
  }),
  x87Instruction('FSTPNCE', ['D9 /3: STi'], (unit, context) => {
    if (!unit.isEmpty(0)) unit.set(stackOperand(context, 0), unit.bits(0));
    unit.pop();
  }),
  x87Instruction('FINCSTP', ['D9 F7:'], (unit) => unit.rotate(1)),
  x87Instruction('FDECSTP', ['D9 F6:'], (unit) => unit.rotate(-1)),
  x87Instruction('FNOP', ['D9 D0:'], () => {}),
];

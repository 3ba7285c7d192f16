/**
 * x87 arithmetic and comparison. Source: APM vol.1 §6.4.3 Arithmetic, §6.4.5 Comparison and Test; APM vol.5.
 *
 * Integer operands are converted exactly, so FIADD and its kin are FADD with another operand. Codes and flags that the
 * manual leaves undefined stay as they were; C1 is cleared by what does not set it. DC /2, DC /3 and DE /2 with registers
 * are reserved there; AMD processors execute them as FCOM and FCOMP.
 */
import type { SystemContext } from '../cpu/system-context.js';
import type { MemoryOperand } from '../decode/decoded.js';
import { F32, F64, F80, type Unpacked } from '../fp/format.js';
import type { Relation } from '../fp/sse.js';
import {
  add,
  compare,
  divide,
  extract,
  integerOperand,
  multiply,
  registerOperand,
  remainder,
  roundToIntegral,
  scale,
  squareRoot,
  subtract,
  widen,
  type X87Binary,
} from '../fp/x87.js';
import { Flag, R } from '../layout/cpu-state.js';
import type { Instruction } from './instruction.js';
import { CONDITION_CODES, Status, stackOperand, type X87Unit, x87Instruction } from './x87-unit.js';

/** A single, double or integer in memory. */
function memoryOperand(unit: X87Unit, memory: MemoryOperand, isInteger: boolean): Unpacked {
  const bits = unit.load(memory);
  if (isInteger) return integerOperand(BigInt.asIntN(memory.width, bits));
  return widen(memory.width === 32 ? F32 : F64, bits);
}

/** ST(destination) becomes `compute(a, b)`, an operand being undefined when its register is empty. */
function replace(
  unit: X87Unit,
  destination: number,
  [a, b]: readonly [Unpacked | undefined, Unpacked | undefined],
  compute: X87Binary,
): void {
  if (a === undefined || b === undefined) {
    if (unit.underflows()) unit.set(destination, F80.indefinite);
    return;
  }
  const result = compute(a, b, unit.env);
  if (!unit.isStopped) unit.set(destination, result);
}

const operandOrEmpty = (unit: X87Unit, index: number): Unpacked | undefined =>
  unit.isEmpty(index) ? undefined : unit.operand(index);

const reversed =
  (compute: X87Binary): X87Binary =>
  (x, y, env) =>
    compute(y, x, env);

/** ST(0) and an operand in memory or in a register; the destination is the first operand. */
const basic = (mnemonic: string, forms: readonly string[], isInteger: boolean, compute: X87Binary): Instruction =>
  x87Instruction(mnemonic, forms, (unit, context) => {
    const { memory } = unit;
    if (memory !== undefined) {
      const source = memoryOperand(unit, memory, isInteger);
      replace(unit, 0, [operandOrEmpty(unit, 0), source], compute);
      return;
    }
    binary(unit, context, compute);
  });

function binary(unit: X87Unit, context: SystemContext, compute: X87Binary): void {
  const destination = stackOperand(context, 0);
  const source = stackOperand(context, 1);
  replace(unit, destination, [operandOrEmpty(unit, destination), operandOrEmpty(unit, source)], compute);
}

const popping = (mnemonic: string, form: string, compute: X87Binary): Instruction =>
  x87Instruction(mnemonic, [form], (unit, context) => {
    binary(unit, context, compute);
    if (!unit.isStopped) unit.pop();
  });

/** [name, digit of the forms with ST(0) as destination, digit of those with ST(i), operation] */
const BASIC = (
  [
    ['ADD', 0, 0, add],
    ['MUL', 1, 1, multiply],
    ['SUB', 4, 5, subtract],
    ['SUBR', 5, 4, reversed(subtract)],
    ['DIV', 6, 7, divide],
    ['DIVR', 7, 6, reversed(divide)],
  ] as const
).flatMap(([name, digit, other, compute]) => [
  basic(
    `F${name}`,
    [`D8 /${digit}: Md`, `DC /${digit}: Mq`, `D8 /${digit}: ST, STi`, `DC /${other}: STi, ST`],
    false,
    compute,
  ),
  basic(`FI${name}`, [`DA /${digit}: Md`, `DE /${digit}: Mw`], true, compute),
  popping(`F${name}P`, `DE /${other}: STi, ST`, compute),
]);

/** ST(0) becomes `compute(ST(0))`. */
const unary = (mnemonic: string, form: string, compute: (x: Unpacked, env: X87Unit['env']) => bigint): Instruction =>
  x87Instruction(mnemonic, [form], (unit) => {
    const x = operandOrEmpty(unit, 0);
    replace(unit, 0, [x, x], (value, _same, env) => compute(value, env));
  });

const UNARY = [
  unary('FCHS', 'D9 E0:', ({ bits }) => bits ^ F80.signMask),
  unary('FABS', 'D9 E1:', ({ bits }) => bits & ~F80.signMask),
  unary('FSQRT', 'D9 FA:', squareRoot),
  unary('FRNDINT', 'D9 FC:', roundToIntegral),
];

const FSCALE = x87Instruction('FSCALE', ['D9 FD:'], (unit) =>
  replace(unit, 0, [operandOrEmpty(unit, 0), operandOrEmpty(unit, 1)], scale),
);

/** The quotient's low bits go to C0, C3, C1, from the highest; after an invalid operation C0 and C3 stay. */
const partialRemainder = (mnemonic: string, form: string, nearest: boolean): Instruction =>
  x87Instruction(mnemonic, [form], (unit) => {
    unit.setConditions(0n, Status.C2);
    replace(unit, 0, [operandOrEmpty(unit, 0), operandOrEmpty(unit, 1)], (x, y, env) => {
      const { bits, quotient } = remainder(x, y, nearest, env);
      if (quotient === 'partial') unit.setConditions(Status.C2);
      else if (quotient !== 'none') {
        unit.setConditions(((quotient & 4) !== 0 ? Status.C0 : 0n) | ((quotient & 2) !== 0 ? Status.C3 : 0n));
        unit.setC1((quotient & 1) !== 0);
      }
      return bits;
    });
  });

const FXTRACT = x87Instruction('FXTRACT', ['D9 F4:'], (unit) => {
  const isMissing = unit.isEmpty(0);
  if (isMissing || !unit.isEmpty(-1)) {
    const isMasked = isMissing ? unit.underflows() : unit.overflows();
    if (isMasked) pushBeside(unit, F80.indefinite, F80.indefinite);
    return;
  }
  const { exponent, significand } = extract(unit.operand(0), unit.env);
  if (!unit.isStopped) pushBeside(unit, exponent, significand);
});

/** Replaces ST(0) and pushes, whatever is there. */
export function pushBeside(unit: X87Unit, replaced: bigint, pushed: bigint): void {
  unit.set(0, replaced);
  unit.rotate(-1);
  unit.set(0, pushed);
}

// Comparison

/** C3, C2, C0: the codes are those that JB, JE, JP test after SAHF. */
const CODES: Readonly<Record<Relation, bigint>> = {
  greater: 0n,
  less: Status.C0,
  equal: Status.C3,
  unordered: CONDITION_CODES,
};
const FLAGS: Readonly<Record<Relation, bigint>> = {
  greater: 0n,
  less: Flag.CF,
  equal: Flag.ZF,
  unordered: Flag.ZF | Flag.PF | Flag.CF,
};

interface Comparison {
  readonly mnemonic: string;
  readonly forms: readonly string[];
  /** FUCOM and its kin take QNaNs for ordinary operands. */
  readonly signalsQNaN?: boolean;
  readonly isInteger?: boolean;
  readonly pops?: number;
  /** The result goes to RFLAGS instead of the condition codes. */
  readonly toFlags?: boolean;
  /** Compared with this instead of an operand. */
  readonly other?: (unit: X87Unit) => Unpacked | undefined;
}

function comparison(row: Comparison): Instruction {
  const { mnemonic, forms, signalsQNaN = true, isInteger = false, pops = 0, toFlags = false } = row;
  return x87Instruction(mnemonic, forms, (unit, context) => {
    const y = row.other === undefined ? comparand(unit, context, isInteger) : row.other(unit);
    const x = operandOrEmpty(unit, 0);
    let relation: Relation = 'unordered';
    if (x === undefined || y === undefined) unit.underflows();
    else relation = compare(x, y, signalsQNaN, unit.env);
    if (toFlags) {
      setFlags(context, relation);
      unit.keepC1();
    } else unit.setConditions(CODES[relation]);
    if (unit.isStopped) return;
    for (let count = 0; count < pops; count++) unit.pop();
  });
}

/** The last operand: a register, or in memory. */
function comparand(unit: X87Unit, context: SystemContext, isInteger: boolean): Unpacked | undefined {
  const { memory } = unit;
  if (memory !== undefined) return memoryOperand(unit, memory, isInteger);
  return operandOrEmpty(unit, stackOperand(context, context.insn.operands.length - 1));
}

/** OF, SF and AF are cleared, as in the SSE comparisons. */
function setFlags({ tx }: SystemContext, relation: Relation): void {
  const cleared = Flag.OF | Flag.SF | Flag.AF | FLAGS.unordered;
  tx.set(R.rflags, (tx.get(R.rflags) & ~cleared) | FLAGS[relation]);
}

const COMPARISONS = [
  comparison({ mnemonic: 'FCOM', forms: ['D8 /2: Md', 'DC /2: Mq', 'D8 /2: STi', 'DC /2: STi'] }),
  comparison({
    mnemonic: 'FCOMP',
    forms: ['D8 /3: Md', 'DC /3: Mq', 'D8 /3: STi', 'DC /3: STi', 'DE /2: STi'],
    pops: 1,
  }),
  comparison({ mnemonic: 'FCOMPP', forms: ['DE D9:'], pops: 2, other: (unit) => operandOrEmpty(unit, 1) }),
  comparison({ mnemonic: 'FICOM', forms: ['DA /2: Md', 'DE /2: Mw'], isInteger: true }),
  comparison({ mnemonic: 'FICOMP', forms: ['DA /3: Md', 'DE /3: Mw'], isInteger: true, pops: 1 }),
  comparison({ mnemonic: 'FUCOM', forms: ['DD /4: STi'], signalsQNaN: false }),
  comparison({ mnemonic: 'FUCOMP', forms: ['DD /5: STi'], signalsQNaN: false, pops: 1 }),
  comparison({
    mnemonic: 'FUCOMPP',
    forms: ['DA E9:'],
    signalsQNaN: false,
    pops: 2,
    other: (unit) => operandOrEmpty(unit, 1),
  }),
  comparison({ mnemonic: 'FCOMI', forms: ['DB /6: ST, STi'], toFlags: true }),
  comparison({ mnemonic: 'FCOMIP', forms: ['DF /6: ST, STi'], toFlags: true, pops: 1 }),
  comparison({ mnemonic: 'FUCOMI', forms: ['DB /5: ST, STi'], signalsQNaN: false, toFlags: true }),
  comparison({ mnemonic: 'FUCOMIP', forms: ['DF /5: ST, STi'], signalsQNaN: false, toFlags: true, pops: 1 }),
  comparison({ mnemonic: 'FTST', forms: ['D9 E4:'], other: () => registerOperand(0n) }),
];

/** C3, C2, C0 by class; C1 is the sign, of an empty register too. */
const FXAM = x87Instruction('FXAM', ['D9 E5:'], (unit) => {
  const { kind, negative } = unit.operand(0);
  const codes = {
    unsupported: 0n,
    qnan: Status.C0,
    snan: Status.C0,
    normal: Status.C2,
    infinity: Status.C2 | Status.C0,
    zero: Status.C3,
    denormal: Status.C3 | Status.C2,
  }[kind];
  unit.setConditions(unit.isEmpty(0) ? Status.C3 | Status.C0 : codes);
  unit.setC1(negative);
});

export const X87_ARITHMETIC_INSTRUCTIONS: readonly Instruction[] = [
  ...BASIC,
  ...UNARY,
  FSCALE,
  partialRemainder('FPREM', 'D9 F8:', false),
  partialRemainder('FPREM1', 'D9 F5:', true),
  FXTRACT,
  ...COMPARISONS,
  FXAM,
];

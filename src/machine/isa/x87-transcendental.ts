/**
 * The transcendental instructions. Source: APM vol.1 §6.4.4 Transcendental Functions; APM vol.5. What they compute, and
 * how exactly, stands in `fp/x87-transcendental.ts`.
 */
import { F80, type Unpacked } from '../fp/format.js';
import { exactBits, type X87Binary } from '../fp/x87.js';
import type { X87Environment } from '../fp/x87-rounding.js';
import {
  arctangentOf,
  cosine,
  isAngleTooLarge,
  logarithmOfSumTimes,
  logarithmTimes,
  powerOfTwoLessOne,
  sine,
  tangent,
} from '../fp/x87-transcendental.js';
import type { Instruction } from './instruction.js';
import { pushBeside } from './x87-arith.js';
import { Status, type X87Unit, x87Instruction } from './x87-unit.js';

type Unary = (x: Unpacked, env: X87Environment) => bigint;

/** ST(0) becomes `compute(ST(0))`. */
function unary(unit: X87Unit, compute: Unary): void {
  if (unit.isEmpty(0)) {
    if (unit.underflows()) unit.set(0, F80.indefinite);
    return;
  }
  const result = compute(unit.operand(0), unit.env);
  if (!unit.isStopped) unit.set(0, result);
}

/** C2 says whether the operand is too large, which leaves it as it is. @returns whether it is. */
function refusesAngle(unit: X87Unit): boolean {
  const isTooLarge = !unit.isEmpty(0) && isAngleTooLarge(unit.operand(0));
  unit.setConditions(isTooLarge ? Status.C2 : 0n, Status.C2);
  return isTooLarge;
}

const trigonometric = (mnemonic: string, form: string, compute: Unary): Instruction =>
  x87Instruction(mnemonic, [form], (unit) => {
    if (!refusesAngle(unit)) unary(unit, compute);
  });

/** ST(0) is replaced, and a second result is pushed. */
const pushing = (mnemonic: string, form: string, replaced: Unary, pushed: Unary): Instruction =>
  x87Instruction(mnemonic, [form], (unit) => {
    const isMissing = unit.isEmpty(0);
    if (isMissing || !unit.isEmpty(-1)) {
      unit.setConditions(0n, Status.C2);
      const isMasked = isMissing ? unit.underflows() : unit.overflows();
      if (isMasked) pushBeside(unit, F80.indefinite, F80.indefinite);
      return;
    }
    if (refusesAngle(unit)) return;
    const x = unit.operand(0);
    const first = replaced(x, unit.env);
    const second = pushed(x, unit.env);
    if (!unit.isStopped) pushBeside(unit, first, second);
  });

/** ST(1) becomes `compute(ST(1), ST(0))`, then ST(0) is popped. */
const popping = (mnemonic: string, form: string, compute: X87Binary): Instruction =>
  x87Instruction(mnemonic, [form], (unit) => {
    if (unit.isEmpty(0) || unit.isEmpty(1)) {
      if (!unit.underflows()) return;
      unit.set(1, F80.indefinite);
    } else {
      const result = compute(unit.operand(1), unit.operand(0), unit.env);
      if (unit.isStopped) return;
      unit.set(1, result);
    }
    unit.pop();
  });

/** FPTAN pushes 1.0, but a NaN that came in or a NaN for an infinite angle twice. */
const oneBeside: Unary = (x, env) =>
  x.kind === 'zero' || x.kind === 'normal' || x.kind === 'denormal' ? exactBits(false, 0, 1n) : tangent(x, env);

export const X87_TRANSCENDENTAL_INSTRUCTIONS: readonly Instruction[] = [
  x87Instruction('F2XM1', ['D9 F0:'], (unit) => unary(unit, powerOfTwoLessOne)),
  popping('FYL2X', 'D9 F1:', logarithmTimes),
  pushing('FPTAN', 'D9 F2:', tangent, oneBeside),
  popping('FPATAN', 'D9 F3:', arctangentOf),
  popping('FYL2XP1', 'D9 F9:', logarithmOfSumTimes),
  pushing('FSINCOS', 'D9 FB:', sine, cosine),
  trigonometric('FSIN', 'D9 FE:', sine),
  trigonometric('FCOS', 'D9 FF:', cosine),
];

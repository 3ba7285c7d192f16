/**
 * AVX instructions about registers as a whole, and the VEX forms of LDMXCSR and STMXCSR.
 * Source: APM vol.4, VZEROALL, VZEROUPPER, VLDMXCSR, VSTMXCSR.
 */
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { requireAvx } from '../cpu/xstate.js';
import { R } from '../layout/cpu-state.js';
import { loadMxcsr } from './fpu-control.js';
import { type Instruction, instruction } from './instruction.js';
import { operandAt } from './system-operands.js';

/** Registers that the mode does not have keep their values. */
const clearing = (mnemonic: string, form: string, part: 'all' | 'upper'): Instruction =>
  instruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [form],
    feature: 'avx',
    semantics: (ops) => ops.clearVectors(part),
  });

const control = (mnemonic: string, form: string, execute: (context: SystemContext) => void): Instruction =>
  systemInstruction({
    mnemonic,
    source: `APM vol.4, ${mnemonic}`,
    forms: [form],
    feature: 'avx',
    system(context) {
      requireAvx(context.tx);
      execute(context);
      context.plain();
    },
  });

export const AVX_STATE_INSTRUCTIONS: readonly Instruction[] = [
  clearing('VZEROUPPER', 'VEX.L0 0F 77:', 'upper'),
  clearing('VZEROALL', 'VEX.L1 0F 77:', 'all'),
  control('VLDMXCSR', 'VEX.L0 0F AE /2: Md', loadMxcsr),
  control('VSTMXCSR', 'VEX.L0 0F AE /3: Md', (context) =>
    context.ops.write(operandAt(context, 0), context.tx.get(R.mxcsr)),
  ),
];

/**
 * AVX instructions about registers as a whole, and the VEX forms of LDMXCSR and STMXCSR.
 * Source: APM vol.4, VZEROALL, VZEROUPPER, VLDMXCSR, VSTMXCSR.
 */
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { highHalf, requireAvx, vectorCount } from '../cpu/xstate.js';
import { R, xmmSlot, ymmSlot } from '../layout/cpu-state.js';
import { loadMxcsr } from './fpu-control.js';
import type { Instruction } from './instruction.js';
import { operandAt } from './system-operands.js';

const avx = (mnemonic: string, form: string, execute: (context: SystemContext) => void): Instruction =>
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

/** Registers that the mode does not have keep their values. */
function clear({ tx }: SystemContext, lower: boolean): void {
  for (let number = 0; number < vectorCount(tx); number++) {
    for (const slot of lower ? [xmmSlot(number), ymmSlot(number)] : [ymmSlot(number)]) {
      tx.set(slot, 0n);
      tx.set(highHalf(slot), 0n);
    }
  }
}

export const AVX_STATE_INSTRUCTIONS: readonly Instruction[] = [
  avx('VZEROUPPER', 'VEX.L0 0F 77:', (context) => clear(context, false)),
  avx('VZEROALL', 'VEX.L1 0F 77:', (context) => clear(context, true)),
  avx('VLDMXCSR', 'VEX.L0 0F AE /2: Md', loadMxcsr),
  avx('VSTMXCSR', 'VEX.L0 0F AE /3: Md', (context) =>
    context.ops.write(operandAt(context, 0), context.tx.get(R.mxcsr)),
  ),
];

/**
 * What programs may read of the processor, and the segment bases that they may read and write.
 * Source: APM vol.3, RDPID, RDPRU, RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE.
 */
import { cplOf } from '../cpu/mode.js';
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { generalProtection, invalidOpcode } from '../faults.js';
import { CR4, R } from '../layout/cpu-state.js';
import { isCanonical, uN } from '../units.js';
import { Gpr, type Instruction } from './instruction.js';
import { operandAt } from './system-operands.js';

const RDPID = systemInstruction({
  mnemonic: 'RDPID',
  source: 'APM vol.3, RDPID',
  forms: ['F3 0F C7 /7: Ry [d64]'],
  feature: 'rdpid',
  system(context) {
    context.ops.write(operandAt(context, 0), uN(32, context.tx.get(R.tscAux)));
    context.plain();
  },
});

/** MPERF and APERF are the only registers that it reads (CPUID Fn8000_0008_EDX[31:16]); any other number reads 0. */
const PERFORMANCE_REGISTERS = 2n;

/** The core always runs at its nominal clock: both count with the time-stamp counter. */
const RDPRU = systemInstruction({
  mnemonic: 'RDPRU',
  source: 'APM vol.3, RDPRU',
  forms: ['0F 01 FD:'],
  feature: 'rdpru',
  system(context) {
    const { tx, ops } = context;
    if ((tx.get(R.cr4) & CR4.TSD) !== 0n && cplOf(tx) !== 0) throw invalidOpcode();
    context.intercept('RDPRU');
    const value = ops.readGpr(Gpr.RCX, 32) < PERFORMANCE_REGISTERS ? context.readTsc() : 0n;
    ops.writeGpr(Gpr.RAX, 32, uN(32, value));
    ops.writeGpr(Gpr.RDX, 32, value >> 32n);
    context.plain();
  },
});

function requireBaseAccess({ tx }: SystemContext): void {
  if ((tx.get(R.cr4) & CR4.FSGSBASE) === 0n) throw invalidOpcode();
}

const readBase = (mnemonic: string, digit: number, slot: typeof R.fsBase): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, RDFSBASE, RDGSBASE',
    forms: [`F3 0F AE /${digit}: Ry [o64]`],
    feature: 'fsgsbase',
    system(context) {
      requireBaseAccess(context);
      const destination = operandAt(context, 0);
      context.ops.write(destination, uN(destination.width, context.tx.get(slot)));
      context.plain();
    },
  });

const writeBase = (mnemonic: string, digit: number, slot: typeof R.fsBase): Instruction =>
  systemInstruction({
    mnemonic,
    source: 'APM vol.3, WRFSBASE, WRGSBASE',
    forms: [`F3 0F AE /${digit}: Ry [o64]`],
    feature: 'fsgsbase',
    system(context) {
      requireBaseAccess(context);
      const base = context.ops.read(operandAt(context, 0));
      if (!isCanonical(base)) throw generalProtection();
      context.tx.set(slot, base);
      context.plain();
    },
  });

export const PROCESSOR_VALUE_INSTRUCTIONS: readonly Instruction[] = [
  RDPID,
  RDPRU,
  readBase('RDFSBASE', 0, R.fsBase),
  readBase('RDGSBASE', 1, R.gsBase),
  writeBase('WRFSBASE', 2, R.fsBase),
  writeBase('WRGSBASE', 3, R.gsBase),
];

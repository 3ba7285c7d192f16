/**
 * Conversions between MMX registers and floating-point numbers in XMM registers.
 * Source: APM vol.1 §5.6.4 Data Conversion (64-bit media), APM vol.5 and vol.4, CVTPI2PS and its kin.
 *
 * They are checked as SSE instructions first, then as MMX ones; those that read memory and write an XMM register have
 * nothing to do with MMX registers, as AMD processors see it. The lanes that an operation of `Ops.float` has too many are
 * zeros, which raise nothing.
 */
import { type SystemContext, systemInstruction } from '../cpu/system-context.js';
import { requireSse } from './fpu-control.js';
import type { Feature, FloatOperation, Instruction } from './instruction.js';
import { enterMmx, readOperand, requireMmx, writeOperand } from './mmx-unit.js';
import { operandAt } from './system-operands.js';

interface Conversion {
  readonly mnemonic: string;
  readonly form: string;
  readonly feature: Feature;
  readonly operation: FloatOperation;
}

const conversion = ({ mnemonic, form, feature, operation }: Conversion): Instruction =>
  systemInstruction({
    mnemonic,
    source: `APM vol.5, ${mnemonic}`,
    forms: [form],
    feature,
    system(context) {
      requireSse(context.tx);
      const isMmx = context.insn.operands.some(({ kind }) => kind === 'mmx');
      if (isMmx) requireMmx(context.tx);
      writeOperand(context, 0, context.ops.float(operation, readSource(context), 0n));
      if (isMmx) enterMmx(context.tx);
      context.plain();
    },
  });

/** Two doubles in memory must be aligned. */
function readSource(context: SystemContext): bigint {
  const source = operandAt(context, 1);
  return source.kind === 'mem' && source.width === 128
    ? context.ops.readVectorAligned(source)
    : readOperand(context, 1);
}

export const MMX_CONVERSION_INSTRUCTIONS: readonly Instruction[] = [
  conversion({
    mnemonic: 'CVTPI2PS',
    form: 'NP 0F 2A /r: Vq, Qq',
    feature: 'sse',
    operation: 'f32x4.convert_i32x4',
  }),
  conversion({
    mnemonic: 'CVTTPS2PI',
    form: 'NP 0F 2C /r: Pq, Wq',
    feature: 'sse',
    operation: 'i32x4.truncate_f32x4',
  }),
  conversion({
    mnemonic: 'CVTPS2PI',
    form: 'NP 0F 2D /r: Pq, Wq',
    feature: 'sse',
    operation: 'i32x4.toInt_f32x4',
  }),
  conversion({
    mnemonic: 'CVTPI2PD',
    form: '66 0F 2A /r: Vdq, Qq',
    feature: 'sse2',
    operation: 'f64x2.convert_low_i32x4',
  }),
  conversion({
    mnemonic: 'CVTTPD2PI',
    form: '66 0F 2C /r: Pq, Wdq',
    feature: 'sse2',
    operation: 'i32x4.truncate_f64x2',
  }),
  conversion({
    mnemonic: 'CVTPD2PI',
    form: '66 0F 2D /r: Pq, Wdq',
    feature: 'sse2',
    operation: 'i32x4.toInt_f64x2',
  }),
];

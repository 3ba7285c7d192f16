import { describe, expect, it } from 'vitest';
import { Boundary, Flag, R, type RegisterName, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { IntControl } from '../../../src/machine/layout/vmcb.js';
import { interruptBlock } from '../../../src/machine/svm/interrupt-block.js';
import { MANUAL_RULES } from '../../../src/machine/svm/interrupt-rules.js';

const { GUEST, GIF, HOST_IF } = SvmMode;
const masking = IntControl.V_INTR_MASKING;

type Values = Partial<Record<RegisterName, bigint>>;
const cpu = (values: Values) => {
  const slots = new Map(Object.entries(values).map(([name, value]) => [R[name as RegisterName], value]));
  return { get: (slot: number) => slots.get(slot as never) ?? 0n };
};

describe('what holds an interrupt back (APM vol.2 §15.21.1 Physical (INTR) Interrupt Masking in EFLAGS)', () => {
  it.each([
    ['host, IF', { svmMode: GIF, rflags: Flag.IF }, undefined],
    ['host, no IF', { svmMode: GIF }, 'if'],
    ['host, GIF clear', { rflags: Flag.IF }, 'gif'],
    ['host, in a shadow', { svmMode: GIF, rflags: Flag.IF, boundary: Boundary.INTERRUPT_SHADOW }, 'shadow'],
    ['guest, its IF', { svmMode: GUEST | GIF, rflags: Flag.IF }, undefined],
    ['guest, no IF, host had it', { svmMode: GUEST | GIF | HOST_IF }, 'if'],
    ['masking guest, no IF, host had it', { svmMode: GUEST | GIF | HOST_IF, intControl: masking }, undefined],
    ['masking guest, its IF alone', { svmMode: GUEST | GIF, rflags: Flag.IF, intControl: masking }, 'host-if'],
  ] as const)('%s', (_what, values, block) => {
    expect(interruptBlock(cpu(values), 'intr', MANUAL_RULES)).toBe(block);
  });
});

describe('NMI, SMI and INIT (APM vol.2 §15.17 Global Interrupt Flag, table 15-10)', () => {
  const GUEST_IN_SHADOW = { svmMode: GUEST | GIF, boundary: Boundary.INTERRUPT_SHADOW };
  it.each([
    ['GIF clear', {}, ['gif', 'gif', 'gif']],
    ['GIF set', { svmMode: GIF }, [undefined, undefined, undefined]],
    ['while an NMI is handled', { svmMode: GIF, boundary: Boundary.NMI_BLOCKED }, ['nmi', undefined, undefined]],
    ['in a shadow', GUEST_IN_SHADOW, ['shadow', undefined, undefined]],
    ['in SMM', { svmMode: GIF, boundary: Boundary.IN_SMM }, [undefined, 'smm', 'smm']],
  ] as const)('%s', (_what, values, blocks) => {
    const found = (['nmi', 'smi', 'init'] as const).map((event) => interruptBlock(cpu(values), event, MANUAL_RULES));
    expect(found).toEqual(blocks);
  });

  it('an NMI waits for the host’s IF where a deviation says so', () => {
    const guest = cpu({ svmMode: GUEST | GIF, intControl: masking });
    expect(interruptBlock(guest, 'nmi', { ...MANUAL_RULES, nmiWaitsForHostIf: true })).toBe('host-if');
  });
});

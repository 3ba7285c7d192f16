/**
 * Differences that are known, and which side has the manual on it: what a report says of the first true difference. Each was found
 * in lockstep and looked up; docs/lockstep.md tells how to leave them out.
 */
import { type EventOf, exitName, vmcbFieldsOfWord } from '../../src/machine/index.js';
import type { TraceStep } from '../../src/replay/index.js';
import type { FieldDifference } from './compare.js';

interface Known {
  /** Of the other machine's name. */
  readonly machine: RegExp;
  /** Of the step as `stepName` calls it. */
  readonly step: RegExp;
  /** Registers and fields of the VMCB that may differ. */
  readonly fields: ReadonlySet<string>;
  readonly why: string;
}

const KNOWN: readonly Known[] = [
  {
    machine: /^QEMU/,
    step: /^cpu\.exception$/,
    fields: new Set(['ssSelector']),
    why:
      'QEMU makes SS null whenever a gate names an interrupt stack; the manual, and vmtape, only when the privilege level ' +
      'changes (APM vol.2 §8.9 Long-Mode Interrupt Control Transfers)',
  },
  {
    machine: /^QEMU/,
    step: /^svm\.vmexit invalid$/,
    fields: new Set(['exitCode']),
    why:
      'QEMU writes EXITCODE of a VMRUN that it refuses in 32 bits (deviation invalid-exit-code-32-bit); the manual has 64 ' +
      '(APM vol.2 appendix C SVM Intercept Exit Codes)',
  },
  {
    machine: /^QEMU/,
    step: /^svm\.vmexit ioio$/,
    fields: new Set(['exitInfo1', 'nRIP']),
    why:
      'QEMU leaves the address size of IN and OUT, bits 9:7 of EXITINFO1, clear (APM vol.2 §15.10.2 IN and OUT Behavior), ' +
      'and nRIP, which its CPUID does not report',
  },
  {
    machine: /^QEMU/,
    step: /^svm\.vmexit /,
    fields: new Set(['exitInfo1', 'exitInfo2', 'nRIP', 'instructionLength', 'instructionBytes']),
    why:
      'QEMU reports neither nRIP nor what decode assists add, and its CPUID does not offer them: record with a profile ' +
      'without nrips and decode-assists (--cpu vmtape-base,-nrips,-decode-assists)',
  },
];

/** RAM that differs, as fields of the VMCB where a world switch wrote there. */
function vmcbFields(step: TraceStep, addresses: readonly number[]): readonly string[] {
  const event = step.event?.event;
  if (event?.type !== 'svm.vmexit' && event?.type !== 'svm.vmrun') return [];
  return [...new Set(addresses.flatMap((address) => vmcbFieldsOfWord((address - event.vmcb) >> 3)))];
}

/** The instruction's text, or the event's type, with its exit. */
function stepName(step: TraceStep): string {
  const event = step.event?.event;
  if (event?.type === 'svm.vmexit') return `svm.vmexit ${exitName((event as EventOf<'svm.vmexit'>).code)}`;
  return step.kind === 'instruction' ? step.text : step.event.event.type;
}

/** Why two machines differ after a step, where that is known; else what differs. @param addresses of RAM that differs. */
export function explained(
  machine: string,
  step: TraceStep,
  fields: readonly FieldDifference[],
  addresses: readonly number[],
): string {
  const what = stepName(step);
  const inVmcb = vmcbFields(step, addresses);
  const names = [...fields.map(({ register }) => register), ...inVmcb];
  const elsewhere = addresses.length > 0 && inVmcb.length === 0;
  const known = KNOWN.find(
    (each) => each.machine.test(machine) && each.step.test(what) && names.every((name) => each.fields.has(name)),
  );
  if (known !== undefined && names.length > 0 && !elsewhere) return known.why;
  const differ = [...names, ...(elsewhere ? ['RAM'] : [])].join(', ');
  return `not known; after ${what}, ${differ} ${names.length + Number(elsewhere) === 1 ? 'differs' : 'differ'}`;
}

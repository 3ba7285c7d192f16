/**
 * Holds what L0 did with each nested exit of a log against what the model would have decided from the intercepts that the log
 * shows: give it to L1, or handle it in L0.
 *
 * A log does not show all that a decision rests on. Where more than the shown bits decides (permission maps, L1's nested page
 * tables, what L0 wants for itself), the exit is *open*: either way may be right, and the reason is counted.
 */
import {
  type DeviationName,
  type ExitByControls,
  ExitCode,
  exitByControls,
  exitCodeNamed,
  exitName,
  INTERCEPTS,
  type Intercept,
} from '../../src/machine/index.js';
import type { GivenEvent, NestedExit } from './nested-exits.js';

export type Verdict =
  | { readonly kind: 'agrees' }
  | { readonly kind: 'differs'; readonly row: Intercept | undefined; readonly did: string; readonly model: string }
  | { readonly kind: 'open'; readonly why: string };

const AGREES: Verdict = { kind: 'agrees' };
const open = (why: string): Verdict => ({ kind: 'open', why });

type Deviations = ReadonlySet<DeviationName>;

/**
 * Exceptions that L0 may intercept for itself, and why; what it then finds to be its own is no affair of L1's. An exception
 * that is L1's after all is given to it.
 */
const OWN_EXCEPTIONS: ReadonlyMap<bigint | undefined, string> = new Map([
  [exitCodeNamed('excp-db'), 'L0 may have been single-stepping or watching (#DB, #BP)'],
  [exitCodeNamed('excp-bp'), 'L0 may have been single-stepping or watching (#DB, #BP)'],
  [exitCodeNamed('excp-nm'), 'L0 may have been switching the FPU lazily (#NM)'],
  [exitCodeNamed('excp-pf'), 'L0 may have been shadowing page tables (#PF)'],
  [exitCodeNamed('excp-ac'), 'L0 may have been detecting split locks (#AC)'],
  [exitCodeNamed('excp-mc'), 'a machine check is the host’s first (#MC)'],
]);

/** What physical events L0's own host takes first; L1 gets one of its own when it is due. */
const HOST_EVENTS: ReadonlySet<bigint> = new Set([ExitCode.INTR, ExitCode.NMI, ExitCode.SMI, ExitCode.INIT]);

/** Whose exit it is, before it is known what L0 did. */
export function judgeExit(deviations: Deviations, nested: NestedExit): Verdict {
  const { exit, outcome, controls, meanwhile } = nested;
  const { code } = exit.reason;
  if (code === undefined) return open(`${exit.reason.text}: no exit of SVM is called so`);
  if (outcome === 'unknown') return open('the log ends or has a gap before it shows what L0 did');
  const reflected = outcome === 'reflected';
  const shown = exitByControls(deviations, controls ?? [], code, meanwhile.msr);
  if (controls === undefined && shown.kind === 'unknown-bit') return open('the log does not show L1’s intercepts');
  switch (shown.kind) {
    case 'always':
      return reflected ? AGREES : differs(nested, undefined, 'L1 gets this one whatever its VMCB says');
    case 'no-bit':
      return withoutBit(nested, code);
    case 'unknown-bit':
      return open(`${exitName(code)}: this form of kvm_nested_intercepts does not show ${wordText(shown.row)}`);
    case 'not-requested':
      return reflected
        ? differs(nested, shown.row, `${rowText(shown.row)} is clear`)
        : (selective(nested, controls) ?? AGREES);
    case 'requested-in-part':
      return reflected ? AGREES : open(partText(shown));
    case 'requested':
      return reflected ? AGREES : handledThough(nested, shown.row);
  }
}

/** L0 handled what L1's bit asks for. */
function handledThough(nested: NestedExit, row: Intercept): Verdict {
  const { exitCode } = row;
  const { meanwhile } = nested;
  if (HOST_EVENTS.has(exitCode)) return AGREES;
  const own = OWN_EXCEPTIONS.get(exitCode);
  if (own !== undefined) return open(own);
  if (row.kind === 'exception' && meanwhile.emulated) {
    return open('L0 executed the instruction of an exception that it intercepts for itself');
  }
  if (exitCode === ExitCode.VMMCALL && meanwhile.hypercall) return open('L0 serves this hypercall of L2 itself');
  return differs(nested, row, `${rowText(row)} is set`);
}

/** Nested page faults, and what AVIC leaves to software. */
function withoutBit({ outcome, nestedPaging, ...nested }: NestedExit, code: bigint): Verdict {
  if (code !== ExitCode.NPF) return open(`${exitName(code)}: no intercept bit decides it`);
  if (outcome === 'reflected' && nestedPaging === false) {
    return differs({ outcome, nestedPaging, ...nested }, undefined, 'L1 gives L2 no nested page tables');
  }
  if (outcome === 'handled' && nestedPaging === false) return AGREES;
  return open('npf: L1’s nested page tables decide');
}

/** L0 sees more writes to CR0 than L1 asks for; which of them are selective, the old value of CR0 decides. */
function selective({ exit }: NestedExit, controls: NestedExit['controls']): Verdict | undefined {
  if (exit.reason.code !== INTERCEPTS.CR0_WRITE.exitCode) return undefined;
  const { offset, bit } = INTERCEPTS.CR0_SEL_WRITE;
  const { value = 0 } = controls?.[offset / 4] ?? {};
  return ((value >>> bit) & 1) === 0
    ? undefined
    : open('cr0-write: its old value decides whether it is a selective one');
}

const partText = ({ row, by }: Extract<ExitByControls, { readonly kind: 'requested-in-part' }>): string =>
  `${exitName(row.exitCode)}: L1’s ${by} decides`;

/** L0 delivered an event to L2 that L1 may have asked for. */
export function judgeGiven(deviations: Deviations, given: GivenEvent): Verdict {
  const { controls, what, code = ExitCode.INTR } = given;
  if (controls === undefined) return open('the log does not show L1’s intercepts');
  const shown = exitByControls(deviations, controls, code);
  if (shown.kind !== 'requested') return AGREES;
  const { row } = shown;
  const did = what === 'interrupt' ? `delivered interrupt ${given.vector} to L2` : `delivered ${exitName(code)} to L2`;
  return { kind: 'differs', row, did, model: `${rowText(row)} is set: L1 gets it` };
}

function differs({ outcome, initiative }: NestedExit, row: Intercept | undefined, because: string): Verdict {
  if (outcome === 'handled') return { kind: 'differs', row, did: 'handled in L0', model: `${because}: L1 gets it` };
  const did = initiative ? 'given to L1 of L0’s own accord' : 'given to L1';
  return { kind: 'differs', row, did, model: `${because}: L1 does not get it` };
}

const offsetText = (offset: number): string => `${offset.toString(16).padStart(3, '0')}h`;
const wordText = ({ offset }: Intercept): string => `the word at ${offsetText(offset)}`;
const rowText = ({ name, offset, bit }: Intercept): string => `${name} (bit ${bit} at ${offsetText(offset)})`;

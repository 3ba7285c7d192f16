/**
 * Whether a guest's exit belongs to its hypervisor, where only the control words of the VMCB are known and no machine is:
 * what a log shows of another hypervisor's guest. The rows are those that the machine itself goes by; nothing here is asked by it.
 * Source: APM vol.2 §15.7 Intercept Operation, appendix B (table B-1).
 */
import { type DeviationSet, interceptMasks } from '../policy/catalogue.js';
import { ExitCode } from './exit-code.js';
import { interceptOfExit, isInvalidExit } from './explain-intercept.js';
import { INTERCEPTS, type Intercept } from './intercepts.js';
import { msrMapBit } from './permission-maps.js';

/** One of the six control words of a VMCB, as far as it is known. */
export interface ControlWord {
  readonly value: number;
  /** Bits that are known; those of a word that nobody shows are 0. */
  readonly known: number;
}

export type ExitByControls =
  /** The hypervisor gets it, whatever its VMCB says. */
  | { readonly kind: 'always' }
  /** Its bit decides, alone. */
  | { readonly kind: 'requested' | 'not-requested'; readonly row: Intercept }
  /** Its bit is set, and something else decides that control words do not say. */
  | { readonly kind: 'requested-in-part'; readonly row: Intercept; readonly by: 'permission map' | 'pause filter' }
  /** Its bit is not known. */
  | { readonly kind: 'unknown-bit'; readonly row: Intercept }
  /** No bit asks for it: nested page faults, what AVIC leaves to software. */
  | { readonly kind: 'no-bit' };

/**
 * @param controls the words at 000h to 014h of the VMCB, in order; missing ones are not known.
 * @param msr of an exit by MSR access, where it is known: the map does not cover all of them.
 */
export function exitByControls(
  deviations: DeviationSet,
  controls: readonly ControlWord[],
  code: bigint,
  msr?: number,
): ExitByControls {
  if (isInvalidExit(code)) return { kind: 'always' };
  const row = interceptOfExit(code);
  if (row === undefined) return { kind: 'no-bit' };
  if (row === INTERCEPTS.VMMCALL && deviations.has('vmmcall-always-exits')) return { kind: 'always' };
  const word = row.offset / 4;
  const bit = 1 << row.bit;
  const looked = (interceptMasks(deviations)[word] as number) & bit;
  if (looked === 0) return { kind: 'not-requested', row };
  const { value, known } = controls[word] ?? { value: 0, known: 0 };
  if ((known & bit) === 0) return { kind: 'unknown-bit', row };
  if ((value & bit) === 0) return { kind: 'not-requested', row };
  if (code === ExitCode.IOIO) return { kind: 'requested-in-part', row, by: 'permission map' };
  if (code === ExitCode.MSR && (msr === undefined || msrMapBit(msr, false) !== undefined)) {
    return { kind: 'requested-in-part', row, by: 'permission map' };
  }
  if (code === ExitCode.PAUSE) return { kind: 'requested-in-part', row, by: 'pause filter' };
  return { kind: 'requested', row };
}

/**
 * Where interrupts that meet a guest are recognised other than the manual says (`policy/delivery.ts`), and the masks that
 * are latches then: set when RFLAGS.IF or CR8 change, and not looked at again in between.
 * Source of the rule: APM vol.2 §15.13 Interrupt Intercepts, §15.21 Interrupt and Local APIC Support.
 */
import type { CpuProfile } from '../cpu/profile.js';
import type { Transaction } from '../cpu/transaction.js';
import { Flag, R, SvmMode } from '../layout/cpu-state.js';
import { IntControl } from '../layout/vmcb.js';

export interface InterruptRules {
  /** `intr-mask-latched`: SvmMode.HOST_IF is a latch. */
  readonly intrLatched: boolean;
  /** `virq-mask-latched`: SvmMode.VIRQ_OPEN counts. */
  readonly virqLatched: boolean;
  /** `intr-exits-whatever-if`. */
  readonly intrExitsAnyway: boolean;
  /** `nmi-waits-for-host-if`. */
  readonly nmiWaitsForHostIf: boolean;
  /** Matches of breakpoint registers are discarded while GIF is clear; not with the quirk, and the deviation, of that name. */
  readonly discardsBreakpoints: boolean;
}

export const interruptRules = ({ deviations, quirks }: Pick<CpuProfile, 'deviations' | 'quirks'>): InterruptRules => ({
  intrLatched: deviations.has('intr-mask-latched'),
  virqLatched: deviations.has('virq-mask-latched'),
  intrExitsAnyway: deviations.has('intr-exits-whatever-if'),
  nmiWaitsForHostIf: deviations.has('nmi-waits-for-host-if'),
  discardsBreakpoints: !quirks.has('breakpoints-ignore-gif') && !deviations.has('breakpoints-ignore-gif'),
});

/** Whether an instruction of a guest that changes IF does more than that. */
export const latchesMasks = ({ intrLatched, virqLatched }: InterruptRules): boolean => intrLatched || virqLatched;

/** As the manual says. */
export const MANUAL_RULES = interruptRules({ deviations: new Set(), quirks: new Set() });

/** V_TPR lets the virtual interrupt through. */
export function priorityPasses(intControl: bigint): boolean {
  if ((intControl & IntControl.V_IGN_TPR) !== 0n) return true;
  return (intControl & IntControl.V_INTR_PRIO) >> 16n > (intControl & 0xfn);
}

/**
 * Sets the latches of a guest whose IF may have changed: INTR opens to what the host's IF was, virtual interrupts open to
 * what passes V_TPR now, and close.
 * @param before RFLAGS when the instruction or the event began, in the same guest.
 */
export function relatch(tx: Transaction, before: bigint): void {
  const rflags = tx.get(R.rflags);
  if (((before ^ rflags) & Flag.IF) === 0n) return;
  const mode = tx.get(R.svmMode);
  if ((rflags & Flag.IF) === 0n) tx.set(R.svmMode, mode & ~SvmMode.VIRQ_OPEN);
  else {
    const hostIf = (tx.get(R.hostRflags) & Flag.IF) === 0n ? 0n : SvmMode.HOST_IF;
    tx.set(R.svmMode, mode | hostIf);
    openVirtual(tx);
  }
}

/** The mask of virtual interrupts opens when V_TPR lets the pending one through; a V_TPR that rises does not close it. */
export function openVirtual(tx: Transaction): void {
  const open = (tx.get(R.rflags) & Flag.IF) !== 0n && priorityPasses(tx.get(R.intControl));
  if (open) tx.set(R.svmMode, tx.get(R.svmMode) | SvmMode.VIRQ_OPEN);
}

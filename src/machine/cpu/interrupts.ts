/**
 * What is due at an instruction boundary, by priority, and what a running guest's hypervisor intercepts of it. Only a
 * decision: nothing is changed here.
 * Source: APM vol.2 §8.5 Priorities (table 8-8), §15.13 Interrupt Intercepts, §15.17 Global Interrupt Flag, §15.21
 * Interrupt and Local APIC Support; RFLAGS.RF and the shadow of MOV SS: §13.1.3 Using Breakpoints.
 */
import { invariant } from '../errors.js';
import { Vector } from '../faults.js';
import { Activity, Boundary, Flag, R } from '../layout/cpu-state.js';
import { EventType, type PendingInjection, pendingInjection } from '../svm/injection.js';
import type { InterceptName } from '../svm/intercepts.js';
import { u64, uN } from '../units.js';
import { HWCR_SMM_LOCK } from './control-registers.js';
import { breakpointsEnabled, DR6, executionHits } from './debug.js';
import type { GuestEvent } from './exceptions.js';
import { is64Bit, lowReader, type SlotReader } from './mode.js';
import type { BlockableEvent, NestedVirtualization } from './nested-virtualization.js';

export interface BoundaryInputs {
  /** An interrupt controller asserts INTR. */
  readonly externalPending: boolean;
  /** NMIs wait, as external interrupts do: chaos delays them. */
  readonly held?: boolean;
  readonly nested: NestedVirtualization;
  /** Whether an intercept is taken; without it, what the running guest's VMCB asks for. */
  readonly intercepted?: (name: InterceptName) => boolean;
}

export type Due =
  /** The event that VMRUN took from EVENTINJ; `pendingInjection` has it. It comes before everything else. */
  | { readonly kind: 'injection' }
  /** An intercepted event: #VMEXIT with the code of this row, and the event stays pending. */
  | { readonly kind: 'exit'; readonly intercept: InterceptName }
  | { readonly kind: 'smi' }
  /** The start-up interrupt that an application processor waits for. */
  | { readonly kind: 'startup' }
  | { readonly kind: 'init' }
  /** INIT that VM_CR.R_INIT turns into #SX; it is then no longer pending (APM vol.2 §15.30.1 VM_CR MSR). */
  | { readonly kind: 'redirected-init' }
  /** #DB: a trap after the last instruction, or a breakpoint before the next one. */
  | { readonly kind: 'debug'; readonly dr6: bigint }
  | { readonly kind: 'nmi' }
  /** INTR: acknowledge it and deliver its vector. */
  | { readonly kind: 'external' }
  /** V_NMI: clear it, set V_NMI_MASK and deliver an NMI. */
  | { readonly kind: 'virtual-nmi' }
  /** V_IRQ: clear it and deliver V_INTR_VECTOR. */
  | { readonly kind: 'virtual' };

/** VM_CR.R_INIT. */
const REDIRECT_INIT = 1n << 1n;

/** @returns the event to take before the next instruction, or undefined. */
export function decideBoundary(cpu: SlotReader, inputs: BoundaryInputs): Due | undefined {
  const { nested } = inputs;
  const intercepted = inputs.intercepted ?? ((name) => nested.isIntercepted(lowReader(cpu), name));
  const unless = (intercept: InterceptName, due: Due): Due =>
    intercepted(intercept) ? { kind: 'exit', intercept } : due;
  const passes = (event: BlockableEvent): boolean => nested.interruptBlocked(cpu, event) === undefined;
  const boundary = cpu.get(R.boundary);

  if (pendingInjection(cpu) !== undefined) return { kind: 'injection' };
  if ((boundary & Boundary.SMI_PENDING) !== 0n && passes('smi')) {
    // Under HWCR.SmmLock the intercept is ignored (APM vol.2 §15.13.3 SMI Intercept, §15.32 SMM-Lock).
    return (cpu.get(R.hwcr) & HWCR_SMM_LOCK) === 0n ? unless('SMI', { kind: 'smi' }) : { kind: 'smi' };
  }
  if ((boundary & Boundary.INIT_PENDING) !== 0n && passes('init')) {
    const redirected = (cpu.get(R.vmCr) & REDIRECT_INIT) !== 0n;
    return unless('INIT', { kind: redirected ? 'redirected-init' : 'init' });
  }
  const activity = cpu.get(R.activity);
  if (activity === Activity.WAIT_FOR_SIPI) {
    return (boundary & Boundary.SIPI_PENDING) === 0n ? undefined : { kind: 'startup' };
  }
  const discard = nested.breakpointsDiscarded(cpu);
  const traps = debugTraps(cpu, discard);
  if (traps !== 0n) return { kind: 'debug', dr6: traps };
  const nmi = (boundary & Boundary.NMI_PENDING) !== 0n && inputs.held !== true;
  if (nmi && passes('nmi')) return unless('NMI', { kind: 'nmi' });
  if (activity === Activity.SHUTDOWN) return undefined;
  if (inputs.externalPending && passes('intr')) return unless('INTR', { kind: 'external' });
  const virtual = nested.virtualEventDue(cpu);
  if (virtual === 'virtual-nmi') return { kind: virtual };
  if (virtual === 'virtual') return unless('VINTR', { kind: virtual });
  const hits = activity === Activity.RUNNING && !discard ? instructionBreakpoints(cpu) : 0n;
  return hits === 0n ? undefined : { kind: 'debug', dr6: hits };
}

/** Whether an INIT that came now would initialise the processor: nothing holds, intercepts or redirects it. */
export const takesInit = (cpu: SlotReader, nested: NestedVirtualization): boolean =>
  nested.interruptBlocked(cpu, 'init') === undefined &&
  !nested.isIntercepted(lowReader(cpu), 'INIT') &&
  (cpu.get(R.vmCr) & REDIRECT_INIT) === 0n;

/** Traps of the last instruction, as DR6 bits. They wait in the shadow of MOV SS. */
function debugTraps(cpu: SlotReader, discard: boolean): bigint {
  const boundary = cpu.get(R.boundary);
  if ((boundary & Boundary.DEBUG_SHADOW) !== 0n) return 0n;
  const step = (boundary & Boundary.SINGLE_STEP) !== 0n ? DR6.BS : 0n;
  const locked = (boundary & Boundary.BUS_LOCK) !== 0n ? DR6.BLD : 0n;
  const hits = (boundary >> Boundary.BREAKPOINTS_SHIFT) & DR6.BREAKPOINTS;
  return step | locked | (discard ? 0n : hits);
}

/**
 * Breakpoints on the next instruction, as DR6 bits; RFLAGS.RF suppresses them for one instruction. The shadow of MOV SS
 * does not, on AMD processors (kvm-unit-tests, emulator).
 */
function instructionBreakpoints(cpu: SlotReader): bigint {
  if (!breakpointsEnabled(cpu) || (cpu.get(R.rflags) & Flag.RF) !== 0n) return 0n;
  const rip = cpu.get(R.rip);
  const linear = is64Bit(cpu) ? u64(rip) : uN(32, cpu.get(R.csBase) + rip);
  return executionHits(cpu, linear);
}

const TYPE_OF_INJECTION: Readonly<Record<number, GuestEvent['type']>> = {
  [EventType.INTERRUPT]: 'external',
  [EventType.NMI]: 'nmi',
  [EventType.EXCEPTION]: 'exception',
  [EventType.SOFTWARE]: 'software',
};

/**
 * An event of EVENTINJ as it is delivered. CR2 and DR6 are the hypervisor's to set (APM vol.2 §15.20).
 * @param rip what vectors 3 and 4 return to when nRIP does not say: they are INT3 and INTO, which the gate's DPL is for.
 */
export function eventOfInjection({ type, vector, errorCode, nextRip }: PendingInjection, rip: bigint): GuestEvent {
  const kind = TYPE_OF_INJECTION[type];
  invariant(kind !== undefined, 'VMRUN let an event of a reserved type pass');
  const trap = kind === 'exception' && (vector === Vector.BP || vector === Vector.OF);
  const returnTo = trap ? (nextRip ?? rip) : nextRip;
  return { type: kind, vector, errorCode, nextRip: returnTo, ...(kind === 'nmi' ? { unblocking: true } : {}) };
}

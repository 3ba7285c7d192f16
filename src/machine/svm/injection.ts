/**
 * Events that cross the world switch: EVENTINJ and EXITINTINFO, and interrupts that the guest has virtually (V_IRQ,
 * V_TPR, V_INTR_MASKING, V_NMI, V_GIF). All functions only look at register slots.
 * Source: APM vol.2 §15.7.2 Intercepts During IDT Interrupt Delivery, §15.20 Event Injection, §15.21 Interrupt and Local
 * APIC Support, §15.21.10 NMI Virtualization, §15.33.2 Virtual GIF.
 */
import type { SlotReader } from '../cpu/mode.js';
import { Vector } from '../faults.js';
import { Boundary, Flag, R, SvmMode } from '../layout/cpu-state.js';
import { IntControl } from '../layout/vmcb.js';
import { hasVirtualApic } from './avic.js';
import { gifSet } from './gif.js';
import { type InterruptRules, priorityPasses } from './interrupt-rules.js';

/** TYPE of an event (table 15-1, table 15-11). 1, 5, 6 and 7 are reserved. */
export const EventType = {
  /** External or virtual interrupt. */
  INTERRUPT: 0,
  NMI: 2,
  EXCEPTION: 3,
  /** INTn. */
  SOFTWARE: 4,
} as const;

export interface VectoringEvent {
  /** `EventType`, or a reserved value. */
  readonly type: number;
  /** An NMI's is always 2. */
  readonly vector: number;
  /** Undefined when none is pushed. */
  readonly errorCode: number | undefined;
}

const ERROR_CODE_VALID = 1n << 11n;
/** V: there is an event. */
export const EVENT_VALID = 1n << 31n;

/** @returns undefined when V is clear. */
export function decodeEvent(word: bigint): VectoringEvent | undefined {
  if ((word & EVENT_VALID) === 0n) return undefined;
  const type = Number((word >> 8n) & 7n);
  return {
    type,
    vector: type === EventType.NMI ? Vector.NMI : Number(word & 0xffn),
    errorCode: (word & ERROR_CODE_VALID) === 0n ? undefined : Number((word >> 32n) & 0xffff_ffffn),
  };
}

export function encodeEvent({ type, vector, errorCode }: VectoringEvent): bigint {
  const event = EVENT_VALID | (BigInt(type) << 8n) | BigInt(vector);
  return errorCode === undefined ? event : event | ERROR_CODE_VALID | (BigInt(errorCode >>> 0) << 32n);
}

/** Vectors that are exceptions: 2 is an NMI; 9, 15, 20 to 27, 29 and 31 are reserved here or need absent features. */
const EXCEPTION_VECTORS: ReadonlySet<number> = new Set([
  0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 28, 30,
]);

/**
 * False when EVENTINJ makes VMRUN fail: a reserved type, an exception vector that is none, or an exception that the
 * guest's mode cannot raise. Bits 30:12 are not looked at, and EV is free for all exceptions.
 * @param in64Bit the guest starts in 64-bit mode, where BOUND and INTO do not exist.
 * @param reservedToo the deviation `reserved-exceptions-injected`: any vector below 31 but an NMI's, in every mode.
 */
export function eventInjectionValid(word: bigint, in64Bit: boolean, reservedToo = false): boolean {
  const event = decodeEvent(word);
  if (event === undefined) return true;
  switch (event.type) {
    case EventType.INTERRUPT:
    case EventType.NMI:
    case EventType.SOFTWARE:
      return true;
    case EventType.EXCEPTION:
      if (reservedToo) return event.vector !== Vector.NMI && event.vector < 31;
      if (in64Bit && (event.vector === Vector.BR || event.vector === Vector.OF)) return false;
      return EXCEPTION_VECTORS.has(event.vector);
    default:
      return false;
  }
}

export interface PendingInjection extends VectoringEvent {
  /** The return address when it is not RIP: of INTn, INT3 and INTO, with NRIPS. */
  readonly nextRip: bigint | undefined;
}

/**
 * The event that VMRUN took from EVENTINJ and that is still to be delivered, before the guest's first instruction and
 * past every intercept. Whoever delivers it clears the slot `eventInjection`.
 */
export function pendingInjection(cpu: SlotReader): PendingInjection | undefined {
  const event = decodeEvent(cpu.get(R.eventInjection));
  if (event === undefined) return undefined;
  const trap = event.type === EventType.EXCEPTION && (event.vector === Vector.BP || event.vector === Vector.OF);
  const nextRip = cpu.get(R.eventNextRip);
  return {
    type: event.type,
    vector: event.vector,
    errorCode: event.errorCode,
    nextRip: (event.type === EventType.SOFTWARE || trap) && nextRip !== 0n ? nextRip : undefined,
  };
}

/** Between VMRUN and #VMEXIT. */
export const inGuest = (cpu: SlotReader): boolean => (cpu.get(R.svmMode) & SvmMode.GUEST) !== 0n;

/** A guest runs whose STGI and CLGI act on V_GIF. */
export const hasVirtualGif = (cpu: SlotReader): boolean =>
  inGuest(cpu) && (cpu.get(R.intControl) & IntControl.V_GIF_ENABLE) !== 0n;

/** `intControl` after STGI or CLGI of a guest with a virtual GIF. */
export const withVirtualGif = (intControl: bigint, set: boolean): bigint =>
  set ? intControl | IntControl.V_GIF : intControl & ~IntControl.V_GIF;

/** GIF, and V_GIF where the guest has one: what holds virtual events back. */
const virtuallyEnabled = (cpu: SlotReader): boolean =>
  gifSet(cpu) && (!hasVirtualGif(cpu) || (cpu.get(R.intControl) & IntControl.V_GIF) !== 0n);
export const inShadow = (cpu: SlotReader): boolean => (cpu.get(R.boundary) & Boundary.INTERRUPT_SHADOW) !== 0n;

/** A guest runs whose IF and CR8 are virtual (V_INTR_MASKING). */
export const masksVirtually = (cpu: SlotReader): boolean =>
  inGuest(cpu) && (cpu.get(R.intControl) & IntControl.V_INTR_MASKING) !== 0n;

/**
 * True when the guest's virtual interrupt is recognised now, physical ones aside: #VMEXIT(VINTR), or delivery.
 * Source: APM vol.2 §15.21.4 Injecting Virtual (INTR) Interrupts.
 */
export function virtualInterruptDue(cpu: SlotReader, rules: InterruptRules): boolean {
  if (!virtualInterruptPending(cpu) || !virtuallyEnabled(cpu) || inShadow(cpu)) return false;
  if ((cpu.get(R.rflags) & Flag.IF) === 0n) return false;
  return rules.virqLatched ? (cpu.get(R.svmMode) & SvmMode.VIRQ_OPEN) !== 0n : priorityPasses(cpu.get(R.intControl));
}

const virtualInterruptPending = (cpu: SlotReader): boolean =>
  inGuest(cpu) && (cpu.get(R.intControl) & IntControl.V_IRQ) !== 0n;

/** The guest's NMIs are virtual: the processor keeps V_NMI and V_NMI_MASK for it. */
export const hasVirtualNmis = (cpu: SlotReader): boolean =>
  inGuest(cpu) && (cpu.get(R.intControl) & IntControl.V_NMI_ENABLE) !== 0n;

const virtualNmiPending = (cpu: SlotReader): boolean =>
  hasVirtualNmis(cpu) && (cpu.get(R.intControl) & IntControl.V_NMI) !== 0n;

/** True when the guest's virtual NMI is recognised now, physical ones aside. No intercept concerns it. */
export function virtualNmiDue(cpu: SlotReader): boolean {
  if (!virtualNmiPending(cpu) || !virtuallyEnabled(cpu) || inShadow(cpu)) return false;
  return (cpu.get(R.intControl) & IntControl.V_NMI_MASK) === 0n;
}

/** `intControl` once the virtual NMI is taken, before the IDT is read. */
export const withVirtualNmiTaken = (intControl: bigint): bigint =>
  (intControl & ~IntControl.V_NMI) | IntControl.V_NMI_MASK;

/** A virtual event waits, whether or not it could be taken: HLT is then not idle (APM vol.2 §15.9, IDLE HLT). */
export const virtualEventPending = (cpu: SlotReader): boolean => virtualInterruptPending(cpu) || virtualNmiPending(cpu);

export const virtualInterruptVector = (cpu: SlotReader): number =>
  Number((cpu.get(R.intControl) & IntControl.V_INTR_VECTOR) >> 32n);

/** `intControl` once the virtual interrupt is taken, before the IDT is read. */
export const withoutVirtualInterrupt = (intControl: bigint): bigint => intControl & ~IntControl.V_IRQ;

/**
 * What a guest reads from CR8; undefined when that is the local APIC's TPR (APM vol.2 §15.21.2 Virtualizing APIC.TPR).
 * With AVIC it is V_TPR in any case (§15.29.4.1 VMCB Virtual Interrupt Control Word).
 * @param always the deviation `cr8-always-virtual`: the VMCB need not ask for it.
 */
export const virtualTaskPriority = (cpu: SlotReader, always = false): bigint | undefined =>
  masksVirtually(cpu) || hasVirtualApic(cpu) || (always && inGuest(cpu)) ? cpu.get(R.intControl) & 0xfn : undefined;

/**
 * What a write of CR8 does in guest mode: V_TPR always takes the value; `physical` says whether the local APIC's TPR
 * does, too. In host mode `intControl` is undefined.
 * @param always as above.
 */
export function taskPriorityWrite(
  cpu: SlotReader,
  value: bigint,
  always = false,
): { readonly physical: boolean; readonly intControl: bigint | undefined } {
  if (!inGuest(cpu)) return { physical: true, intControl: undefined };
  const intControl = (cpu.get(R.intControl) & ~IntControl.V_TPR) | (value & 0xfn);
  return { physical: !masksVirtually(cpu) && !hasVirtualApic(cpu) && !always, intControl };
}

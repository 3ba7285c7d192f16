/**
 * The wires and the message bus between devices, interrupt controllers and vCPUs.
 *
 * A device's interrupt line goes to the 8259 pair and to the I/O APIC input of the same number, but the timer's IRQ 0 to
 * input 2; INTR of the 8259 pair goes to LINT0 of every local APIC. Messages are taken in the decision that sends them.
 *
 * Source: MultiProcessor Specification 1.4, §3.6.2 Interrupt Modes; APM vol.2 §16.6 Local APIC Handling of Interrupts.
 */
import { unreachable } from '../errors.js';
import type { Nanoseconds } from '../units.js';
import {
  type AcknowledgeDecision,
  type CpuSignal,
  type Decision,
  type DeviceEvent,
  type DevicesState,
  decision,
  localApic,
  NO_DECISION,
} from './device-set.js';
import * as ioapic from './io-apic.js';
import { IOAPIC_PINS } from './io-apic.js';
import type { LocalApicDecision } from './local-apic.js';
import * as lapic from './local-apic.js';
import { type ApicMessage, DELIVERY, type LocalApicState } from './local-apic-state.js';
import * as pic from './pic-8259.js';
import { PIT_8254 } from './pit-8254.js';
import { RTC_MC146818 } from './rtc-mc146818.js';
import { UART } from './uart-16550.js';

/** Collects what a message leads to at its destinations. */
export interface Delivery {
  readonly events: DeviceEvent[];
  readonly signals: CpuSignal[];
}

const SIGNAL_KINDS = new Map<number, CpuSignal['kind']>([
  [DELIVERY.SMI, 'smi'],
  [DELIVERY.NMI, 'nmi'],
  [DELIVERY.INIT, 'init'],
  [DELIVERY.STARTUP, 'sipi'],
]);

/** The local APICs that a message is for. @param sender index of the sending vCPU, or -1. */
function destinations(state: DevicesState, sender: number, message: ApicMessage): LocalApicState[] {
  switch (message.shorthand) {
    case 'none':
      return state.localApics.filter((it) => lapic.matchesDestination(it, message));
    case 'self':
      return [localApic(state, sender)];
    case 'all':
      return state.localApics.filter((it) => it.enabled);
    case 'others':
      return state.localApics.filter((it) => it.enabled && it.id !== sender);
    default:
      return unreachable(message.shorthand);
  }
}

/** Of those that accept, the one with the lowest processor priority; among equals the lowest index. */
function lowestPriority(candidates: readonly LocalApicState[]): LocalApicState[] {
  let chosen: LocalApicState | undefined;
  for (const it of candidates) {
    if (!lapic.acceptsFixed(it)) continue;
    if (chosen === undefined || lapic.processorPriority(it) < lapic.processorPriority(chosen)) chosen = it;
  }
  return chosen === undefined ? [] : [chosen];
}

/** Brings a message to its destinations. @returns whether one took it. */
function deliver(state: DevicesState, sender: number, message: ApicMessage, into: Delivery): boolean {
  const matching = destinations(state, sender, message);
  const targets = message.mode === DELIVERY.LOWEST_PRIORITY ? lowestPriority(matching) : matching;
  let accepted = false;
  for (const it of targets) accepted = deliverTo(it, message, into) || accepted;
  return accepted;
}

/** Brings a message to one local APIC. @returns whether it took it. */
function deliverTo(it: LocalApicState, { mode, vector, level }: DirectMessage, into: Delivery): boolean {
  const kind = SIGNAL_KINDS.get(mode);
  if (kind !== undefined) {
    into.signals.push({ vcpu: it.id, kind, vector: kind === 'sipi' ? vector : 0 });
    return true;
  }
  if (mode === DELIVERY.EXTINT) {
    into.events.push(...lapic.decideExtInt(it, true));
    return true;
  }
  if (mode === DELIVERY.REMOTE_READ) return false;
  into.events.push(...lapic.decideAccept(it, vector, level));
  return lapic.acceptsFixed(it);
}

/** What a message says once it is known whom it is for. */
type DirectMessage = Pick<ApicMessage, 'mode' | 'vector' | 'level'>;

/** A message from L0 to single vCPUs, by none of the buses. @returns also how many took it. */
export function decideMessages(
  state: DevicesState,
  vcpus: readonly number[],
  message: DirectMessage,
): { readonly decision: Decision; readonly accepted: number } {
  const into: Delivery = { events: [], signals: [] };
  const accepted = vcpus.filter((vcpu) => deliverTo(localApic(state, vcpu), message, into)).length;
  return { decision: decision(into.events, into.signals), accepted };
}

/** L0 ends the interrupt that a vCPU has in service, as a write to EOI would. */
export const decideEndOfInterrupt = (state: DevicesState, vcpu: number): Decision =>
  localApicDecision(state, vcpu, lapic.decideEnd(localApic(state, vcpu)));

/** A local APIC's own events, then those of its IPIs and of its EOI broadcast. */
export function localApicDecision(state: DevicesState, vcpu: number, written: LocalApicDecision): Decision {
  if (written.ipis.length === 0 && written.ended === null) return decision(written.events);
  const into: Delivery = { events: [...written.events], signals: [] };
  for (const ipi of written.ipis) deliver(state, vcpu, ipi, into);
  if (written.ended !== null) into.events.push(...ioapic.decideEnd(state.ioApic, written.ended));
  return decision(into.events, into.signals);
}

const IRQ_TIMER = 0;
const IRQ_UART = 4;
const IRQ_RTC = 8;
/** The timer's input at the I/O APIC, as ACPI's interrupt source override tells. */
const PIN_TIMER = 2;

/** Levels of all interrupt lines, as a mask: 0–15 those of the ISA bus, 16–23 the I/O APIC's own. */
function interruptLines(state: DevicesState, now: Nanoseconds): number {
  let lines = state.testdev.lines;
  if (PIT_8254.interruptLine(state.pit, now)) lines |= 1 << IRQ_TIMER;
  if (UART.interruptLine(state.uart, now)) lines |= 1 << IRQ_UART;
  if (RTC_MC146818.interruptLine(state.rtc, now)) lines |= 1 << IRQ_RTC;
  return lines;
}

const atPIC = (lines: number): number => lines & 0xffff & ~(1 << pic.CASCADE);

/** ISA line 2 does not exist; its input is the timer's. */
const atIOAPIC = (lines: number): number =>
  (lines & ((1 << IOAPIC_PINS) - 1) & ~((1 << IRQ_TIMER) | (1 << PIN_TIMER))) |
  ((lines & (1 << IRQ_TIMER)) !== 0 ? 1 << PIN_TIMER : 0);

/** Whether a local APIC hears INTR as an interrupt of its own, or has last seen it high. */
const hearsIntr = (it: LocalApicState): boolean => it.lint[0] === true || lapic.lintMode(it, 0) !== undefined;

/** INTR of the 8259 pair at LINT0 of APICs where it is neither ExtINT (asked when needed) nor masked (not heard). */
function settleLint0(state: DevicesState, into: Delivery): void {
  let intr: boolean | undefined;
  for (const it of state.localApics) {
    const mode = lapic.lintMode(it, 0);
    if (mode === undefined && it.lint[0] !== true) continue;
    intr ??= pic.intrOutput(state.pic);
    if (it.lint[0] === intr || (mode === undefined && intr)) continue;
    into.events.push(...lapic.decideLint(it, 0, intr));
    const kind = intr && mode !== undefined ? SIGNAL_KINDS.get(mode) : undefined;
    if (kind !== undefined) into.signals.push({ vcpu: it.id, kind, vector: 0 });
  }
}

/**
 * Carries the interrupt lines to the controllers, and waiting level-triggered inputs to local APICs. To be asked after
 * device events were applied, and again after its own, until it answers NO_DECISION.
 */
export function settle(state: DevicesState, now: Nanoseconds): Decision {
  const lines = interruptLines(state, now);
  const changedPIC = pic.seenLines(state.pic) ^ atPIC(lines);
  const changedIOAPIC = state.ioApic.lines ^ atIOAPIC(lines);
  const waiting = ioapic.pendingLevels(state.ioApic) & ~changedIOAPIC;
  const changes = changedPIC | changedIOAPIC | waiting;
  if (changes === 0 && !state.localApics.some(hearsIntr)) return NO_DECISION;
  const into: Delivery = { events: [], signals: [] };
  if (changes !== 0) {
    for (let line = 0; line < IOAPIC_PINS; line += 1) {
      const bit = 1 << line;
      if ((changedPIC & bit) !== 0) into.events.push(...pic.decideLine(state.pic, line, (lines & bit) !== 0));
      if ((changedIOAPIC & bit) !== 0) settlePin(state, line, (atIOAPIC(lines) & bit) !== 0, into);
      if ((waiting & bit) !== 0 && deliver(state, -1, ioapic.messageOf(state.ioApic, line), into)) {
        into.events.push({ type: 'ioapic.sent', pin: line });
      }
    }
  }
  settleLint0(state, into);
  return decision(into.events, into.signals);
}

function settlePin(state: DevicesState, pin: number, level: boolean, into: Delivery): void {
  into.events.push(...ioapic.decideLine(state.ioApic, pin, level));
  if (level && ioapic.sendsEdge(state.ioApic, pin)) deliver(state, -1, ioapic.messageOf(state.ioApic, pin), into);
}

/** The interrupt that a vCPU would take if RFLAGS.IF, the interrupt shadow and GIF let it. */
export type PendingInterrupt = { readonly kind: 'apic'; readonly vector: number } | { readonly kind: 'extint' };

const PENDING_VECTORS: readonly PendingInterrupt[] = Array.from({ length: 256 }, (_, vector) => ({
  kind: 'apic',
  vector,
}));
const PENDING_EXTINT: PendingInterrupt = { kind: 'extint' };

/** Whether an interrupt line may reach a vCPU as an NMI: an open I/O APIC input or LINT0 says so (the NMI watchdog). */
export function nmiRouted(state: DevicesState): boolean {
  for (let pin = 0; pin < IOAPIC_PINS; pin += 1) {
    if (!ioapic.isMasked(state.ioApic, pin) && ioapic.messageOf(state.ioApic, pin).mode === DELIVERY.NMI) return true;
  }
  return state.localApics.some((it) => lapic.lintMode(it, 0) === DELIVERY.NMI);
}

/** The interrupt that waits for a vCPU, if any; the 8259's before the local APIC's. */
export function cpuInterruptPending(state: DevicesState, vcpu: number): PendingInterrupt | undefined {
  const it = localApic(state, vcpu);
  if (it.extIntPending || (lapic.acceptsExtInt(it) && pic.intrOutput(state.pic))) return PENDING_EXTINT;
  const vector = lapic.pendingVector(it);
  return vector === undefined ? undefined : PENDING_VECTORS[vector];
}

/** The vCPU takes the interrupt that `cpuInterruptPending` tells. */
export function decideAcknowledge(state: DevicesState, vcpu: number): AcknowledgeDecision {
  const it = localApic(state, vcpu);
  if (cpuInterruptPending(state, vcpu)?.kind !== 'extint') return lapic.decideAcknowledge(it);
  const { vector, events } = pic.decideAcknowledge(state.pic);
  return { vector, events: it.extIntPending ? [...lapic.decideExtInt(it, false), ...events] : events };
}

/** The vCPU processes an INIT: its local APIC is reset with it (APM vol.2 §14.1.3 Processor Initialization State). */
export const decideInit = (_state: DevicesState, vcpu: number): Decision =>
  decision([{ type: 'lapic.reset', apic: vcpu }]);

/** A rising edge of the timer's output in a mode whose low phase is not told. */
export function pulseTimer(state: DevicesState, into: Delivery): void {
  into.events.push(...pic.decidePulse(state.pic, IRQ_TIMER));
  if (ioapic.sendsEdge(state.ioApic, PIN_TIMER)) {
    deliver(state, -1, ioapic.messageOf(state.ioApic, PIN_TIMER), into);
  }
}

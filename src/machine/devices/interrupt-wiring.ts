/**
 * The wires between devices, interrupt controllers and vCPUs.
 *
 * A device's interrupt line goes to the 8259 pair and to the I/O APIC input of the same number, but the timer's IRQ 0 to
 * input 2. INTR of the 8259 pair goes to LINT0 of every local APIC, the PC's NMI to LINT1. While the HPET replaces the
 * legacy timers, the 8254 and the clock are cut off from theirs.
 *
 * Source: MultiProcessor Specification 1.4, §3.6.2 Interrupt Modes; APM vol.2 §16.4.2 Local Interrupts LINT0 and LINT1;
 * IA-PC HPET Specification 1.0a, §2.4.2 Interrupt Mapping.
 */
import type { Nanoseconds } from '../units.js';
import { ACPI_PM, decideAlarm } from './acpi-pm-timer.js';
import { type Delivery, deliver, NOBODY, signalKind } from './apic-bus.js';
import { NO_EVENTS } from './device.js';
import {
  type AcknowledgeDecision,
  type Decision,
  type DeviceEvent,
  type DevicesState,
  decision,
  localApic,
  NO_DECISION,
} from './device-set.js';
import { type HpetRoute, hpetLines, hpetMessages, replacesLegacy } from './hpet.js';
import * as ioapic from './io-apic.js';
import { IOAPIC_PINS } from './io-apic.js';
import * as lapic from './local-apic-acceptance.js';
import { DELIVERY, type LocalApicState } from './local-apic-state.js';
import { messageOfWrite } from './msi.js';
import * as pic from './pic-8259.js';
import { outputPulses, PIT_8254 } from './pit-8254.js';
import { alarmInterrupts, RTC_MC146818 } from './rtc-mc146818.js';
import { UART } from './uart-16550.js';
import { VIRTIO_NAMES, VIRTIO_PLACES } from './virtio-mmio.js';

// --- lines -----------------------------------------------------------------------------------------------------------

const IRQ_TIMER = 0;
const IRQ_UART = 4;
const IRQ_RTC = 8;
/** System control interrupt. */
const IRQ_SCI = 9;
const IRQ_COPROCESSOR = 13;
/** Lines below are those of the ISA bus, which the 8259 pair hears too. */
const ISA_LINES = 16;
/** The timer's input at the I/O APIC, as ACPI's interrupt source override tells. */
const PIN_TIMER = 2;
const pinOf = (line: number): number => (line === IRQ_TIMER ? PIN_TIMER : line);

/** Levels of all interrupt lines, as a mask: 0–15 those of the ISA bus, 16–23 the I/O APIC's own. */
function interruptLines(state: DevicesState, now: Nanoseconds): number {
  let lines = state.testdev.lines | hpetLines(state.hpet);
  if (UART.interruptLine(state.uart, now)) lines |= 1 << IRQ_UART;
  if (ACPI_PM.interruptLine(state.acpi, now)) lines |= 1 << IRQ_SCI;
  for (const name of VIRTIO_NAMES) {
    if ((state[name]?.interruptStatus ?? 0) !== 0) lines |= 1 << VIRTIO_PLACES[name].line;
  }
  if (state.coprocessor.latched) lines |= 1 << IRQ_COPROCESSOR;
  if (replacesLegacy(state.hpet)) return lines;
  if (PIT_8254.interruptLine(state.pit, now)) lines |= 1 << IRQ_TIMER;
  if (RTC_MC146818.interruptLine(state.rtc, now)) lines |= 1 << IRQ_RTC;
  return lines;
}

const atPIC = (lines: number): number => lines & 0xffff & ~(1 << pic.CASCADE);

/** ISA line 2 does not exist; its input is the timer's. */
const atIOAPIC = (lines: number): number =>
  (lines & ((1 << IOAPIC_PINS) - 1) & ~((1 << IRQ_TIMER) | (1 << PIN_TIMER))) |
  ((lines & (1 << IRQ_TIMER)) !== 0 ? 1 << PIN_TIMER : 0);

/** The PC's NMI: the I/O channel check, unless port 70h masks it. */
const nmiLine = (state: DevicesState): boolean => state.pit.channelCheck && !state.rtc.nmiMasked;

/** A line rises and falls, or falls and rises, faster than anyone could see: one edge. */
function pulseLine(state: DevicesState, line: number, now: number, into: Delivery): void {
  if (line < ISA_LINES) into.events.push(...pic.decidePulse(state.pic, line));
  const pin = pinOf(line);
  if (ioapic.sendsEdge(state.ioApic, pin)) deliver(state, NOBODY, ioapic.messageOf(state.ioApic, pin), now, into);
}

/** A rising edge of the 8254's output in a mode whose low phase is not told. */
export function pulseTimer(state: DevicesState, now: number, into: Delivery): void {
  if (!replacesLegacy(state.hpet)) pulseLine(state, IRQ_TIMER, now, into);
}

/**
 * Whether an edge of the 8254's output would do anything. A pulse does not while the 8259 has one latched already and the
 * I/O APIC's input is masked: a timer that nobody listens to is no deadline, however fast it runs.
 */
export function timerIsHeard(state: DevicesState): boolean {
  if (!outputPulses(state.pit)) return true;
  if (replacesLegacy(state.hpet)) return false;
  return pic.hearsEdge(state.pic, IRQ_TIMER) || ioapic.sendsEdge(state.ioApic, PIN_TIMER);
}

/** The last of the edges that passed unheard, once someone listens again: it tells of no interrupt. */
const unheardEdge = (state: DevicesState, now: Nanoseconds): readonly DeviceEvent[] =>
  timerIsHeard(state) ? PIT_8254.decideDeadline(state.pit, now) : NO_EVENTS;

/** An edge of an HPET timer: on a line, or a message. */
export function sendHpetEdge(state: DevicesState, route: HpetRoute, now: number, into: Delivery): void {
  if ('line' in route) {
    pulseLine(state, route.line, now, into);
    return;
  }
  const message = messageOfWrite(route.address, route.data);
  if (message !== undefined) deliver(state, NOBODY, message, now, into);
}

// --- LINT0 and LINT1 -------------------------------------------------------------------------------------------------

const LINT_INTR = 0;
const LINT_NMI = 1;

/**
 * INTR of the 8259 pair at LINT0 where it is an interrupt of its own, neither ExtINT (asked when needed) nor masked (not
 * heard), or was last seen high.
 */
const hearsIntr = (it: LocalApicState): boolean =>
  it.lint[LINT_INTR] === true || lapic.lintMode(it, LINT_INTR) !== undefined;

/** Whether a local APIC's pins or its requests to the core may want something. */
const wantsSettling = (it: LocalApicState, nmi: boolean): boolean =>
  it.requests !== 0 || it.lint[LINT_NMI] !== nmi || hearsIntr(it);

function settlePins(state: DevicesState, it: LocalApicState, nmi: boolean, into: Delivery): void {
  if (hearsIntr(it)) {
    const intr = pic.intrOutput(state.pic);
    const heard = lapic.lintMode(it, LINT_INTR) !== undefined;
    if (heard || !intr) into.events.push(...lapic.decideLint(it, LINT_INTR, intr));
  }
  const events = lapic.decideLint(it, LINT_NMI, nmi);
  into.events.push(...events);
  // While the APIC is off, LINT1 is the processor's NMI pin.
  if (nmi && !it.enabled && events.length > 0) into.signals.push({ vcpu: it.id, kind: 'nmi', vector: 0 });
}

/** Hands the core what local vector table entries asked for. */
function settleRequests(it: LocalApicState, into: Delivery): void {
  if (it.requests === 0) return;
  into.events.push({ type: 'lapic.signalled', apic: it.id });
  for (const mode of [DELIVERY.SMI, DELIVERY.INIT, DELIVERY.NMI]) {
    const kind = (it.requests & (1 << mode)) === 0 ? undefined : signalKind(mode);
    if (kind !== undefined) into.signals.push({ vcpu: it.id, kind, vector: 0 });
  }
}

// --- settling --------------------------------------------------------------------------------------------------------

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
  const alarm = decideAlarm(state.acpi, alarmInterrupts(state.rtc));
  const unheard = unheardEdge(state, now);
  const nmi = nmiLine(state);
  const unsettled = state.localApics.some((it) => wantsSettling(it, nmi));
  if (changes === 0 && alarm.length === 0 && unheard.length === 0 && !unsettled) return NO_DECISION;
  const into: Delivery = { events: [...unheard, ...alarm], signals: [] };
  if (changes !== 0) {
    for (let line = 0; line < IOAPIC_PINS; line += 1) {
      const bit = 1 << line;
      if ((changedPIC & bit) !== 0) into.events.push(...pic.decideLine(state.pic, line, (lines & bit) !== 0));
      if ((changedIOAPIC & bit) !== 0) settlePin(state, line, (atIOAPIC(lines) & bit) !== 0, now, into);
      if ((waiting & bit) !== 0 && deliver(state, NOBODY, ioapic.messageOf(state.ioApic, line), now, into)) {
        into.events.push({ type: 'ioapic.sent', pin: line });
      }
    }
  }
  if (unsettled) {
    for (const it of state.localApics) {
      settlePins(state, it, nmi, into);
      settleRequests(it, into);
    }
  }
  return decision(into.events, into.signals);
}

function settlePin(state: DevicesState, pin: number, level: boolean, now: number, into: Delivery): void {
  into.events.push(...ioapic.decideLine(state.ioApic, pin, level));
  if (level && ioapic.sendsEdge(state.ioApic, pin)) {
    deliver(state, NOBODY, ioapic.messageOf(state.ioApic, pin), now, into);
  }
}

// --- the vCPUs -------------------------------------------------------------------------------------------------------

/** The interrupt that a vCPU would take if RFLAGS.IF, the interrupt shadow and GIF let it. */
export type PendingInterrupt = { readonly kind: 'apic'; readonly vector: number } | { readonly kind: 'extint' };

const PENDING_VECTORS: readonly PendingInterrupt[] = Array.from({ length: 256 }, (_, vector) => ({
  kind: 'apic',
  vector,
}));
const PENDING_EXTINT: PendingInterrupt = { kind: 'extint' };

const isSignal = (mode: number | undefined): boolean => mode !== undefined && signalKind(mode) !== undefined;

/**
 * Whether a device may reach a vCPU past RFLAGS.IF: an open I/O APIC input, LINT0 (the NMI watchdog), LINT1 or an HPET's
 * message is an NMI, SMI or INIT.
 */
export function signalsRouted(state: DevicesState): boolean {
  for (let pin = 0; pin < IOAPIC_PINS; pin += 1) {
    if (!ioapic.isMasked(state.ioApic, pin) && isSignal(ioapic.messageOf(state.ioApic, pin).mode)) return true;
  }
  if (hpetMessages(state.hpet).some(({ address, data }) => isSignal(messageOfWrite(address, data)?.mode))) return true;
  return state.localApics.some((it) => isSignal(lapic.lintMode(it, LINT_INTR)));
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
  decision([{ type: 'lapic.reset', apic: vcpu }] satisfies DeviceEvent[]);

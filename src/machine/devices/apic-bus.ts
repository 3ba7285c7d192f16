/**
 * The bus between the local APICs: which of them a message is for, who of those takes it, and what becomes of it there.
 *
 * A message is taken in the decision that sends it; it never waits on the bus. Senders are a vCPU's local APIC, an I/O
 * APIC or a device (`NOBODY`).
 *
 * Source: APM vol.2 §16.5 Interprocessor Interrupts, §16.6 Local APIC Handling of Interrupts.
 */
import { unreachable } from '../errors.js';
import {
  type CpuSignal,
  type Decision,
  type DeviceEvent,
  type DevicesState,
  decision,
  localApic,
} from './device-set.js';
import * as ioapic from './io-apic.js';
import * as lapic from './local-apic-acceptance.js';
import { type LocalApicDecision, readRegister } from './local-apic-registers.js';
import {
  type ApicMessage,
  DELIVERY,
  decideError,
  ERROR_RECEIVED_UNACCEPTED,
  ERROR_SENT_UNACCEPTED,
  type LocalApicState,
} from './local-apic-state.js';

/** Collects what messages lead to. */
export interface Delivery {
  readonly events: DeviceEvent[];
  readonly signals: CpuSignal[];
}

/** The sender of a message that comes from no local APIC. */
export const NOBODY = -1;

/** Messages that reach the core past IRR, also while the APIC is disabled by software. */
const SIGNAL_KINDS: ReadonlyMap<number, CpuSignal['kind']> = new Map([
  [DELIVERY.SMI, 'smi'],
  [DELIVERY.NMI, 'nmi'],
  [DELIVERY.INIT, 'init'],
  [DELIVERY.STARTUP, 'sipi'],
]);

/** The kind of signal that a message of this mode is to a core; undefined for interrupts. */
export const signalKind = (mode: number): CpuSignal['kind'] | undefined => SIGNAL_KINDS.get(mode);

/** The local APICs that a message is for. @param sender index of the sending vCPU, or NOBODY. */
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

/**
 * Of those that take interrupts, the one that serves this one already, or else that with the lowest arbitration
 * priority; among equals that with the highest ID (§16.6.2 Lowest Priority Messages and Arbitration).
 */
function arbitrate(candidates: readonly LocalApicState[], vector: number): LocalApicState | undefined {
  const taking = candidates.filter(lapic.acceptsInterrupts);
  const rank = (it: LocalApicState): number =>
    lapic.isFocus(it, vector)
      ? Number.NEGATIVE_INFINITY
      : lapic.arbitrationPriority(it) * 2 ** 32 - lapic.physicalID(it);
  let chosen: LocalApicState | undefined;
  for (const it of taking) if (chosen === undefined || rank(it) < rank(chosen)) chosen = it;
  return chosen;
}

/** One local APIC gets a message. @returns whether it took it. */
function receive(it: LocalApicState, { mode, vector, level }: ApicMessage, into: Delivery): boolean {
  const kind = signalKind(mode);
  if (kind !== undefined) {
    into.signals.push({ vcpu: it.id, kind, vector: kind === 'sipi' ? vector : 0 });
    return true;
  }
  if (!lapic.acceptsInterrupts(it)) return false;
  into.events.push(
    ...(mode === DELIVERY.EXTINT ? lapic.decideExtInt(it, true) : lapic.decideAccept(it, vector, level)),
  );
  return true;
}

/** A remote read is answered from the one local APIC that it is for; the vector is the register's offset / 16. */
function answerRead(
  state: DevicesState,
  sender: number,
  targets: readonly LocalApicState[],
  register: number,
  now: number,
  into: Delivery,
): void {
  const [target] = targets;
  const value = target === undefined || targets.length > 1 ? undefined : readRegister(target, register, now);
  into.events.push({ type: 'lapic.remote-read', apic: localApic(state, sender).id, value: value ?? null });
}

/** Brings a message to its destinations. @param sender index of the sending vCPU, or NOBODY. @returns whether one took it. */
export function deliver(
  state: DevicesState,
  sender: number,
  message: ApicMessage,
  now: number,
  into: Delivery,
): boolean {
  const matching = destinations(state, sender, message);
  let accepted = false;
  if (message.mode === DELIVERY.REMOTE_READ) {
    if (sender !== NOBODY) answerRead(state, sender, matching, message.vector << 4, now, into);
    accepted = matching.length > 0;
  } else if (message.mode === DELIVERY.LOWEST_PRIORITY) {
    const chosen = arbitrate(matching, message.vector);
    accepted = chosen !== undefined && receive(chosen, message, into);
  } else {
    for (const it of matching) accepted = receive(it, message, into) || accepted;
  }
  if (!accepted && message.shorthand === 'none') refused(state, sender, matching, into);
  return accepted;
}

/** Nobody took a message: its sender notes that, and those it was for (§16.4.6 APIC Error Interrupts). */
function refused(state: DevicesState, sender: number, matching: readonly LocalApicState[], into: Delivery): void {
  if (sender !== NOBODY) into.events.push(...decideError(localApic(state, sender), ERROR_SENT_UNACCEPTED));
  for (const it of matching) into.events.push(...decideError(it, ERROR_RECEIVED_UNACCEPTED));
}

/** A local APIC's own events, then those of its IPIs and of its EOI broadcast. */
export function localApicDecision(
  state: DevicesState,
  vcpu: number,
  written: LocalApicDecision,
  now: number,
): Decision {
  if (written.ipis.length === 0 && written.ended === null) return decision(written.events);
  const into: Delivery = { events: [...written.events], signals: [] };
  for (const ipi of written.ipis) deliver(state, vcpu, ipi, now, into);
  if (written.ended !== null) into.events.push(...ioapic.decideEnd(state.ioApic, written.ended));
  return decision(into.events, into.signals);
}

/**
 * Which messages a local APIC takes, and which of its interrupts comes next: destinations, priorities, acceptance.
 *
 * Source: APM vol.2 §16.6 Local APIC Handling of Interrupts; x2APIC destinations: §16.14 Logical Destination Register.
 */
import { NO_EVENTS } from './device.js';
import {
  type ApicMessage,
  DELIVERY,
  DFR_FLAT,
  decideError,
  deliveryMode,
  ENTRY_LINT0,
  ERROR_RECEIVED_ILLEGAL_VECTOR,
  FIRST_LEGAL_VECTOR,
  hasVector,
  highestCommonVector,
  highestVector,
  isMasked,
  type LocalApicEvent,
  type LocalApicState,
  LVT_LEVEL,
  LVT_REMOTE_IRR,
  lvt,
  SVR_NO_FOCUS,
  softwareEnabled,
} from './local-apic-state.js';

// --- priorities ------------------------------------------------------------------------------------------------------

/** PPR: TPR or the class in service, whichever is higher (§16.6.4 Selecting and Handling Interrupts). */
export function processorPriority(state: LocalApicState): number {
  const served = highestVector(state.isr);
  return state.tpr >> 4 >= served >> 4 ? state.tpr : served & 0xf0;
}

/** APR: TPR, or the highest class in service or requested (§16.6.2 Lowest Priority Messages and Arbitration). */
export function arbitrationPriority(state: LocalApicState): number {
  const others = Math.max(highestVector(state.isr) >> 4, highestVector(state.irr) >> 4);
  return state.tpr >> 4 >= others ? state.tpr : others << 4;
}

/** The interrupt that the processor would take if it could: the highest in IRR, of a class above the priority's. */
export function pendingVector(state: LocalApicState): number | undefined {
  if (!state.enabled) return undefined;
  const { features, irr, interruptEnable } = state;
  const vector = features.extended ? highestCommonVector(irr, interruptEnable) : highestVector(irr);
  if (vector < 0) return undefined;
  return vector >> 4 > processorPriority(state) >> 4 ? vector : undefined;
}

/** The processor's acknowledge: the pending vector goes into service; the spurious one when it is gone. */
export function decideAcknowledge(state: LocalApicState): {
  readonly vector: number;
  readonly events: readonly LocalApicEvent[];
} {
  const vector = pendingVector(state);
  if (vector === undefined) return { vector: state.svr & 0xff, events: NO_EVENTS };
  return { vector, events: [{ type: 'lapic.acknowledged', apic: state.id, vector }] };
}

// --- destinations ----------------------------------------------------------------------------------------------------

/** LDR: in x2APIC mode it follows from the ID (§16.14). */
export const logicalID = (state: LocalApicState): number =>
  state.x2apic ? (((state.id >> 4) << 16) | (1 << (state.id & 15))) >>> 0 : state.ldr;

/** The ID that physical destinations are compared with. */
export const physicalID = (state: LocalApicState): number => (state.x2apic ? state.id : state.apicId);

/** Whether a message with no shorthand is for this APIC (§16.6.1 Receiving System and IPI Interrupts). */
export function matchesDestination(state: LocalApicState, message: ApicMessage): boolean {
  if (!state.enabled) return false;
  if (message.broadcast) return true;
  const { destination } = message;
  if (!message.logical) return destination === physicalID(state);
  const own = logicalID(state);
  if (state.x2apic) return destination >>> 16 === own >>> 16 && (destination & own & 0xffff) !== 0;
  if (state.dfr >>> 28 === DFR_FLAT) return ((own >>> 24) & destination) !== 0;
  return own >>> 28 === (destination >> 4) % 16 && ((own >>> 24) & destination & 0xf) !== 0;
}

/** The processor serves this interrupt already, or is about to: it may always take it (§16.6.2, focus). */
export const isFocus = (state: LocalApicState, vector: number): boolean =>
  (state.svr & SVR_NO_FOCUS) === 0 && (hasVector(state.isr, vector) || hasVector(state.irr, vector));

// --- acceptance ------------------------------------------------------------------------------------------------------

/**
 * Whether messages for IRR and ExtINT get in: not while the APIC is disabled by software (§16.4.7, APIC Software Enable).
 */
export const acceptsInterrupts = (state: LocalApicState): boolean => softwareEnabled(state);

/** An interrupt arrives for IRR. A vector that waits there already collapses with it. */
export function decideAccept(state: LocalApicState, vector: number, level: boolean): readonly LocalApicEvent[] {
  if (!acceptsInterrupts(state)) return NO_EVENTS;
  if (vector < FIRST_LEGAL_VECTOR) return decideError(state, ERROR_RECEIVED_ILLEGAL_VECTOR);
  if (hasVector(state.irr, vector) && hasVector(state.tmr, vector) === level) return NO_EVENTS;
  return [{ type: 'lapic.accepted', apic: state.id, vector, level }];
}

/** An ExtINT message arrives, or is served: the processor asks the 8259 for the vector. */
export function decideExtInt(state: LocalApicState, pending: boolean): readonly LocalApicEvent[] {
  return state.extIntPending === pending ? NO_EVENTS : [{ type: 'lapic.extint', apic: state.id, pending }];
}

/** INTR of the 8259 passes: LINT0 is an open ExtINT input, or the APIC is off and LINT0 is the processor's INTR pin. */
export function acceptsExtInt(state: LocalApicState): boolean {
  if (!state.enabled) return state.bootstrap;
  const entry = lvt(state, ENTRY_LINT0);
  return !isMasked(entry) && deliveryMode(entry) === DELIVERY.EXTINT;
}

// --- the two pins ----------------------------------------------------------------------------------------------------

/** The delivery mode of an open LINT pin that is not ExtINT, or undefined. */
export function lintMode(state: LocalApicState, pin: 0 | 1): number | undefined {
  const entry = lvt(state, ENTRY_LINT0 + pin);
  const mode = deliveryMode(entry);
  return !state.enabled || isMasked(entry) || mode === DELIVERY.EXTINT ? undefined : mode;
}

/** A pin that is still active asks for its level-triggered interrupt again: its last one has ended (§16.4.2). */
function asksAgain(state: LocalApicState, pin: 0 | 1): boolean {
  const entry = lvt(state, ENTRY_LINT0 + pin);
  const triggered = (entry & (LVT_LEVEL | LVT_REMOTE_IRR)) === LVT_LEVEL;
  return triggered && lintMode(state, pin) === DELIVERY.FIXED && (entry & 0xff) >= FIRST_LEGAL_VECTOR;
}

/** The level at a LINT pin. What it brings about comes with the event: into IRR, or to the core as a request. */
export function decideLint(state: LocalApicState, pin: 0 | 1, level: boolean): readonly LocalApicEvent[] {
  const changed = state.lint[pin] !== level;
  return changed || (level && asksAgain(state, pin)) ? [{ type: 'lapic.lint', apic: state.id, pin, level }] : NO_EVENTS;
}

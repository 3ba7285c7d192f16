/**
 * The local APIC of one vCPU: priorities, messages, and the register page (FEE00000h unless moved).
 *
 * IPIs and EOI broadcasts leave as data in a decision; `interrupt-wiring.ts` delivers them. Beside this file stand the
 * state (`local-apic-state.ts`), the timer (`local-apic-timer.ts`) and the MSRs (`local-apic-msr.ts`).
 *
 * Left out: remote read, AMD's extended register space (400h and up), lowest-priority arbitration by focus, level-
 * triggered LINT inputs in fixed mode (they act on the rising edge).
 *
 * Source: APM vol.2 chapter 16 Advanced Programmable Interrupt Controller (APIC).
 */
import { unreachable } from '../errors.js';
import { type Nanoseconds, nanoseconds } from '../units.js';
import type { Device, ReadDecision } from './device.js';
import { NO_EVENTS } from './device.js';
import {
  APIC_DEFAULT_BASE,
  type ApicMessage,
  DELIVERY,
  DFR_FLAT,
  decideError,
  deliveryMode,
  ENTRY_ERROR,
  ENTRY_LINT0,
  ENTRY_LINT1,
  ENTRY_TIMER,
  ERROR_ILLEGAL_REGISTER,
  ERROR_RECEIVED_ILLEGAL_VECTOR,
  ERROR_SENT_ILLEGAL_VECTOR,
  eightWords,
  FIRST_LEGAL_VECTOR,
  hasVector,
  highestVector,
  ICR_WRITABLE,
  intoIRR,
  isLVT,
  isMasked,
  LAPIC,
  type LocalApicEvent,
  type LocalApicState,
  LVT_MASKED,
  LVT_WRITABLE,
  lvt,
  raiseLocal,
  SHORTHANDS,
  SVR_ENABLED,
  SVR_WRITABLE,
  setVector,
  softwareEnabled,
  TIMER_TSC_DEADLINE,
  VERSION,
  written,
} from './local-apic-state.js';
import { decideDivide, decideInitialCount, decideTimerEntry, fire, timerCount, timerMode } from './local-apic-timer.js';

/** What a write to a local APIC leads to. */
export interface LocalApicDecision {
  readonly events: readonly LocalApicEvent[];
  readonly ipis: readonly ApicMessage[];
  /** The level-triggered vector whose end I/O APICs must hear, or null. */
  readonly ended: number | null;
}

const NOTHING: LocalApicDecision = { events: NO_EVENTS, ipis: [], ended: null };
/** A decision of events alone. */
export const only = (events: readonly LocalApicEvent[]): LocalApicDecision =>
  events.length === 0 ? NOTHING : { events, ipis: [], ended: null };

/** The processor priority: TPR or the class in service, whichever is higher (APM vol.2 §16.6.4 Spurious…, PPR). */
export function processorPriority(state: LocalApicState): number {
  const served = highestVector(state.isr);
  return state.tpr >> 4 >= served >> 4 ? state.tpr : served & 0xf0;
}

/** The interrupt that the processor would take if it could: the highest in IRR, of a class above the priority's. */
export function pendingVector(state: LocalApicState): number | undefined {
  const vector = highestVector(state.irr);
  if (vector < 0 || !state.enabled) return undefined;
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

// --- messages --------------------------------------------------------------------------------------------------------

/** LDR: in x2APIC mode it follows from the ID (APM vol.2 §16.14 x2APIC, logical destination). */
const logicalID = (state: LocalApicState): number =>
  state.x2apic ? (((state.id >> 4) << 16) | (1 << (state.id & 15))) >>> 0 : state.ldr;

/** Whether a message with no shorthand is for this APIC (APM vol.2 §16.6.1 Receiving System and IPI Interrupts). */
export function matchesDestination(state: LocalApicState, message: ApicMessage): boolean {
  if (!state.enabled) return false;
  if (message.broadcast) return true;
  const { destination } = message;
  if (!message.logical) return state.id === destination;
  const own = logicalID(state);
  if (state.x2apic) return destination >>> 16 === own >>> 16 && (destination & own & 0xffff) !== 0;
  if (state.dfr >>> 28 === DFR_FLAT) return ((own >>> 24) & destination) !== 0;
  return own >>> 28 === (destination >> 4) % 16 && ((own >>> 24) & destination & 0xf) !== 0;
}

/** Whether fixed and lowest-priority messages get in: not while the APIC is disabled by software (§16.4.2). */
export const acceptsFixed = (state: LocalApicState): boolean => softwareEnabled(state);

/** An interrupt arrives for IRR. A vector that waits there already collapses with it. */
export function decideAccept(state: LocalApicState, vector: number, level: boolean): readonly LocalApicEvent[] {
  if (!softwareEnabled(state)) return NO_EVENTS;
  if (vector < FIRST_LEGAL_VECTOR) return decideError(state, ERROR_RECEIVED_ILLEGAL_VECTOR);
  if (hasVector(state.irr, vector) && hasVector(state.tmr, vector) === level) return NO_EVENTS;
  return [{ type: 'lapic.accepted', apic: state.id, vector, level }];
}

/** An ExtINT message arrives: the processor will ask the 8259 for the vector. */
export function decideExtInt(state: LocalApicState, pending: boolean): readonly LocalApicEvent[] {
  return state.extIntPending === pending ? NO_EVENTS : [{ type: 'lapic.extint', apic: state.id, pending }];
}

/** INTR of the 8259 passes: LINT0 is an open ExtINT input, or the APIC is off and LINT0 is the processor's INTR pin. */
export function acceptsExtInt(state: LocalApicState): boolean {
  if (!state.enabled) return state.bootstrap;
  const entry = lvt(state, ENTRY_LINT0);
  return !isMasked(entry) && deliveryMode(entry) === DELIVERY.EXTINT;
}

/** The delivery mode of an open LINT pin that is not ExtINT, or undefined. */
export function lintMode(state: LocalApicState, pin: 0 | 1): number | undefined {
  const entry = lvt(state, ENTRY_LINT0 + pin);
  const mode = deliveryMode(entry);
  return !state.enabled || isMasked(entry) || mode === DELIVERY.EXTINT ? undefined : mode;
}

/**
 * The level at a LINT pin changed. A rising edge in fixed mode reaches IRR with the event; NMI and SMI are the
 * caller's.
 */
export function decideLint(state: LocalApicState, pin: 0 | 1, level: boolean): readonly LocalApicEvent[] {
  return state.lint[pin] === level ? NO_EVENTS : [{ type: 'lapic.lint', apic: state.id, pin, level }];
}

// --- registers -------------------------------------------------------------------------------------------------------

/** A register's value, or undefined where there is none. */
export function readRegister(state: LocalApicState, register: number, now: number): number | undefined {
  if (register >= LAPIC.ISR && register < LAPIC.ESR) {
    const words = register < LAPIC.TMR ? state.isr : register < LAPIC.IRR ? state.tmr : state.irr;
    return words[(register >> 4) & 7];
  }
  if (isLVT(register)) return state.lvt[(register - LAPIC.LVT_TIMER) >> 4];
  switch (register) {
    case LAPIC.ID:
      return state.x2apic ? state.id : (state.id << 24) >>> 0;
    case LAPIC.VERSION:
      return VERSION;
    case LAPIC.TPR:
      return state.tpr;
    case LAPIC.APR:
      return Math.max(state.tpr, highestVector(state.irr) & 0xf0, highestVector(state.isr) & 0xf0, 0) & 0xff;
    case LAPIC.PPR:
      return processorPriority(state);
    case LAPIC.EOI:
    case LAPIC.REMOTE_READ:
      return 0;
    case LAPIC.LDR:
      return logicalID(state);
    case LAPIC.DFR:
      return state.dfr;
    case LAPIC.SVR:
      return state.svr;
    case LAPIC.ESR:
      return state.esr;
    case LAPIC.ICR_LOW:
      return state.icrLow;
    case LAPIC.ICR_HIGH:
      return state.icrHigh;
    case LAPIC.TIMER_INITIAL:
      return state.timerInitial;
    case LAPIC.TIMER_CURRENT:
      return timerCount(state, now);
    case LAPIC.TIMER_DIVIDE:
      return state.timerDivide;
    default:
      return undefined;
  }
}

export function writeRegister(
  state: LocalApicState,
  register: number,
  value: number,
  now: Nanoseconds,
): LocalApicDecision {
  if (isLVT(register)) return only(decideEntry(state, register, value, now));
  switch (register) {
    case LAPIC.TPR:
      return only(decideTaskPriority(state, value & 0xff));
    case LAPIC.EOI:
      return decideEnd(state);
    case LAPIC.LDR:
      return only([written(state, register, (value & 0xff00_0000) >>> 0)]);
    case LAPIC.DFR:
      return only([written(state, register, (value | 0x0fff_ffff) >>> 0)]);
    case LAPIC.SVR:
      return only([written(state, register, value & SVR_WRITABLE)]);
    case LAPIC.ESR:
      return only(state.esr === 0 && state.errors === 0 ? NO_EVENTS : [written(state, register, 0)]);
    case LAPIC.ICR_LOW:
      return decideCommand(state, state.icrHigh, value);
    case LAPIC.ICR_HIGH:
      return only(state.icrHigh === value ? NO_EVENTS : [written(state, register, value)]);
    case LAPIC.TIMER_INITIAL:
      return only(decideInitialCount(state, value, now));
    case LAPIC.TIMER_DIVIDE:
      return only(decideDivide(state, value & 0x0b, now));
    case LAPIC.ID:
    case LAPIC.VERSION:
    case LAPIC.TIMER_CURRENT:
      return NOTHING;
    default:
      return readRegister(state, register, now) === undefined
        ? only(decideError(state, ERROR_ILLEGAL_REGISTER))
        : NOTHING;
  }
}

/** While the APIC is disabled by software, LVT entries cannot be unmasked (APM vol.2 §16.4.2). */
function decideEntry(state: LocalApicState, register: number, value: number, now: number): readonly LocalApicEvent[] {
  const index = (register - LAPIC.LVT_TIMER) >> 4;
  const forced = (state.svr & SVR_ENABLED) === 0 ? LVT_MASKED : 0;
  const entry = (value & (LVT_WRITABLE[index] ?? 0)) | forced;
  return index === ENTRY_TIMER ? decideTimerEntry(state, entry, now) : [written(state, register, entry)];
}

/** TPR, from its register, its MSR or CR8. */
export const decideTaskPriority = (state: LocalApicState, tpr: number): readonly LocalApicEvent[] =>
  state.tpr === tpr ? NO_EVENTS : [written(state, LAPIC.TPR, tpr)];

/** EOI: the highest vector in service is done; I/O APICs hear of it when it was level-triggered. */
export function decideEnd(state: LocalApicState): LocalApicDecision {
  const vector = highestVector(state.isr);
  if (vector < 0) return NOTHING;
  const ended = hasVector(state.tmr, vector) ? vector : null;
  return { events: [{ type: 'lapic.ended', apic: state.id, vector }], ipis: [], ended };
}

/** A write to ICR sends an IPI (APM vol.2 §16.5 Interprocessor Interrupts). */
export function decideCommand(state: LocalApicState, high: number, low: number): LocalApicDecision {
  const command = low & ICR_WRITABLE;
  const events: LocalApicEvent[] = [];
  if (state.icrHigh !== high) events.push(written(state, LAPIC.ICR_HIGH, high));
  if (state.icrLow !== command) events.push(written(state, LAPIC.ICR_LOW, command));
  const vector = command & 0xff;
  const mode = deliveryMode(command);
  const level = (command & 0x8000) !== 0;
  const asserted = (command & 0x4000) !== 0;
  if (mode === DELIVERY.INIT && level && !asserted) return { events, ipis: [], ended: null }; // INIT level de-assert
  if (mode <= DELIVERY.LOWEST_PRIORITY && vector < FIRST_LEGAL_VECTOR) {
    return { events: [...events, ...decideError(state, ERROR_SENT_ILLEGAL_VECTOR)], ipis: [], ended: null };
  }
  const destination = state.x2apic ? high : high >>> 24;
  const ipi: ApicMessage = {
    vector,
    mode,
    level: false, // only INIT heeds the trigger mode; an IPI in IRR is an edge
    logical: (command & 0x800) !== 0,
    destination,
    broadcast: destination === (state.x2apic ? 0xffff_ffff : 0xff),
    shorthand: SHORTHANDS[(command >> 18) & 3] ?? 'none',
  };
  return { events, ipis: [ipi], ended: null };
}

/** A read from the register page. Registers are 32 bits at multiples of 16; narrower reads take bytes of them. */
export function decidePageRead(
  state: LocalApicState,
  offset: number,
  size: number,
  now: Nanoseconds,
): ReadDecision<LocalApicEvent> {
  if ((offset & 0xc) !== 0) return { value: 0, events: NO_EVENTS };
  const register = offset & 0xff0;
  const value = readRegister(state, register, now);
  if (value === undefined) return { value: 0, events: decideError(state, ERROR_ILLEGAL_REGISTER) };
  if (size === 4) return { value, events: NO_EVENTS };
  return { value: (value >>> ((offset & 3) * 8)) & (size === 1 ? 0xff : 0xffff), events: NO_EVENTS };
}

/**
 * A write to the register page; one that is not 32 bits at a multiple of 16 is lost (APM vol.2 §16.3.2 APIC Registers).
 */
export function decidePageWrite(
  state: LocalApicState,
  offset: number,
  value: number,
  size: number,
  now: Nanoseconds,
): LocalApicDecision {
  if ((offset & 0xf) !== 0 || size !== 4) return NOTHING;
  return writeRegister(state, offset & 0xff0, value >>> 0, now);
}

// --- reducer ---------------------------------------------------------------------------------------------------------

/** Registers after a reset (APM vol.2 §16.3.2 APIC Registers, reset values). */
const resetRegisters = () => ({
  tpr: 0,
  ldr: 0,
  dfr: 0xffff_ffff,
  svr: 0xff,
  esr: 0,
  errors: 0,
  icrLow: 0,
  icrHigh: 0,
  lvt: [LVT_MASKED, LVT_MASKED, LVT_MASKED, LVT_MASKED, LVT_MASKED, LVT_MASKED],
  irr: eightWords(),
  isr: eightWords(),
  tmr: eightWords(),
  extIntPending: false,
  timerInitial: 0,
  timerDivide: 0,
  timerStart: null,
  timerDeadline: null,
  tscDeadlineLow: 0,
  tscDeadlineHigh: 0,
});

/** The local APIC of a vCPU at power-on; vCPU 0 is the bootstrap processor. */
export const initialLocalApic = (id: number): LocalApicState => ({
  id,
  enabled: true,
  x2apic: false,
  bootstrap: id === 0,
  base: APIC_DEFAULT_BASE,
  lint: [false, false],
  ...resetRegisters(),
});

/**
 * Virtual wire mode, as a BIOS leaves the bootstrap processor: 8259 at LINT0, NMI at LINT1 (MP Specification §3.6.2).
 */
export function enterVirtualWireMode(state: LocalApicState): void {
  state.svr |= SVR_ENABLED;
  state.lvt[ENTRY_LINT0] = DELIVERY.EXTINT << 8;
  state.lvt[ENTRY_LINT1] = DELIVERY.NMI << 8;
}

function store(state: LocalApicState, register: number, value: number): void {
  if (isLVT(register)) {
    state.lvt[(register - LAPIC.LVT_TIMER) >> 4] = value;
    return;
  }
  switch (register) {
    case LAPIC.TPR:
      state.tpr = value;
      return;
    case LAPIC.LDR:
      state.ldr = value;
      return;
    case LAPIC.DFR:
      state.dfr = value;
      return;
    case LAPIC.SVR:
      state.svr = value;
      if ((value & SVR_ENABLED) === 0) {
        for (const [index, entry] of state.lvt.entries()) state.lvt[index] = entry | LVT_MASKED;
        if (timerMode(lvt(state, ENTRY_TIMER)) !== TIMER_TSC_DEADLINE) state.timerDeadline = null;
      }
      return;
    case LAPIC.ESR:
      state.esr = state.errors;
      state.errors = 0;
      return;
    case LAPIC.ICR_LOW:
      state.icrLow = value;
      return;
    case LAPIC.ICR_HIGH:
      state.icrHigh = value;
      return;
    case LAPIC.TIMER_INITIAL:
      state.timerInitial = value;
      return;
    case LAPIC.TIMER_DIVIDE:
      state.timerDivide = value;
      return;
  }
}

export const LOCAL_APIC: Device<LocalApicState, LocalApicEvent> = {
  initial: () => initialLocalApic(0),

  reduce(state, event) {
    switch (event.type) {
      case 'lapic.written':
        store(state, event.register, event.value);
        return;
      case 'lapic.based':
        if (!event.enabled) Object.assign(state, resetRegisters());
        state.base = event.address;
        state.enabled = event.enabled;
        state.x2apic = event.x2apic;
        return;
      case 'lapic.accepted':
        intoIRR(state, event.vector, event.level);
        return;
      case 'lapic.acknowledged':
        setVector(state.irr, event.vector, false);
        setVector(state.isr, event.vector, true);
        return;
      case 'lapic.ended':
        setVector(state.isr, event.vector, false);
        return;
      case 'lapic.extint':
        state.extIntPending = event.pending;
        return;
      case 'lapic.lint':
        state.lint[event.pin] = event.level;
        if (event.level) raiseLocal(state, ENTRY_LINT0 + event.pin);
        return;
      case 'lapic.error':
        state.errors |= event.errors;
        raiseLocal(state, ENTRY_ERROR);
        return;
      case 'lapic.timer-set':
        state.timerStart = event.start;
        state.timerDeadline = event.deadline;
        return;
      case 'lapic.tsc-deadline-set':
        state.tscDeadlineLow = event.low;
        state.tscDeadlineHigh = event.high;
        state.timerDeadline = event.deadline;
        return;
      case 'lapic.timer-fired':
        fire(state, event.at);
        return;
      case 'lapic.reset':
        Object.assign(state, resetRegisters());
        return;
      default:
        unreachable(event);
    }
  },

  decideRead: (state, register, size, now) => decidePageRead(state, register, size, now),
  decideWrite: (state, register, value, size, now) => decidePageWrite(state, register, value, size, now).events,

  nextDeadline: (state) => (state.timerDeadline === null ? undefined : nanoseconds(state.timerDeadline)),

  decideDeadline(state, now) {
    if (state.timerDeadline === null || state.timerDeadline > now) return NO_EVENTS;
    return [{ type: 'lapic.timer-fired', apic: state.id, at: now }];
  },

  interruptLine: (state) => pendingVector(state) !== undefined,
};

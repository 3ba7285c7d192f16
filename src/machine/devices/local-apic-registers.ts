/**
 * The registers of a local APIC and its page in memory (FEE00000h unless moved).
 *
 * IPIs and EOI broadcasts leave as data in a decision; `apic-bus.ts` delivers them.
 *
 * Source: APM vol.2 §16.3.2 APIC Registers, §16.4 Local Interrupts, §16.5 Interprocessor Interrupts, §16.7 SVM Support
 * for Interrupts and the Local APIC.
 */
import type { Nanoseconds } from '../units.js';
import type { ReadDecision } from './device.js';
import { NO_EVENTS } from './device.js';
import { arbitrationPriority, logicalID, processorPriority } from './local-apic-acceptance.js';
import {
  type ApicMessage,
  DELIVERY,
  decideError,
  deliveryMode,
  ENTRY_TIMER,
  ERROR_ILLEGAL_REGISTER,
  ERROR_SENT_ILLEGAL_VECTOR,
  EXTENDED_INTERRUPT_ENABLE,
  EXTENDED_SPECIFIC_EOI,
  FIRST_LEGAL_VECTOR,
  hasVector,
  highestVector,
  ICR_READ_STATUS,
  ICR_WRITABLE,
  isLint,
  isLVT,
  LAPIC,
  type LocalApicEvent,
  type LocalApicState,
  LVT_LEVEL,
  LVT_MASKED,
  LVT_REMOTE_IRR,
  LVT_TSC_DEADLINE,
  lvt,
  SHORTHANDS,
  SVR_ENABLED,
  SVR_WRITABLE,
  VERSION,
  VERSION_EXTENDED,
  written,
} from './local-apic-state.js';
import { decideDivide, decideInitialCount, decideTimerEntry, timerCount } from './local-apic-timer.js';

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

/** Writable bits of the LVT entries: timer, thermal, performance, LINT0, LINT1, error. */
const LVT_WRITABLE: readonly number[] = [0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x107ff];
const EXTENDED_LVT_WRITABLE = 0x107ff;
/** Four extended LVT entries, specific EOI and interrupt enables; IDs have eight bits anyway (§16.3.5). */
const EXTENDED_FEATURES = 0x0004_0007;
const EXTENDED_CONTROL_WRITABLE = 0x7;
const EXTENDED_ENTRIES = 4;

export function lvtWritable(state: LocalApicState, index: number): number {
  const writable = LVT_WRITABLE[index] ?? 0;
  return index === ENTRY_TIMER && !state.features.tscDeadline ? writable & ~LVT_TSC_DEADLINE : writable;
}

// --- reads -----------------------------------------------------------------------------------------------------------

/** A register's value, or undefined where there is none. */
export function readRegister(state: LocalApicState, register: number, now: number): number | undefined {
  if (register >= LAPIC.ISR && register < LAPIC.ESR) {
    const words = register < LAPIC.TMR ? state.isr : register < LAPIC.IRR ? state.tmr : state.irr;
    return words[(register >> 4) & 7];
  }
  if (isLVT(register)) return state.lvt[(register - LAPIC.LVT_TIMER) >> 4];
  if (register >= LAPIC.EXTENDED_FEATURE) return readExtended(state, register);
  switch (register) {
    case LAPIC.ID:
      return state.x2apic ? state.id : (state.apicId << 24) >>> 0;
    case LAPIC.VERSION:
      return (VERSION | (state.features.extended ? VERSION_EXTENDED : 0)) >>> 0;
    case LAPIC.TPR:
      return state.tpr;
    case LAPIC.APR:
      return arbitrationPriority(state);
    case LAPIC.PPR:
      return processorPriority(state);
    case LAPIC.EOI:
      return 0;
    case LAPIC.REMOTE_READ:
      return state.remoteRead;
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

/** The extended register space (§16.3.5, §16.3.6, §16.7). */
function readExtended(state: LocalApicState, register: number): number | undefined {
  if (!state.features.extended) return undefined;
  if (register === LAPIC.EXTENDED_FEATURE) return EXTENDED_FEATURES;
  if (register === LAPIC.EXTENDED_CONTROL) return state.extendedControl;
  if (register === LAPIC.SPECIFIC_EOI) return 0;
  const enable = interruptEnableIndex(register);
  return enable !== undefined ? state.interruptEnable[enable] : state.extendedLvt[(register - LAPIC.EXTENDED_LVT) >> 4];
}

const interruptEnableIndex = (register: number): number | undefined =>
  register >= LAPIC.INTERRUPT_ENABLE && register < LAPIC.EXTENDED_LVT
    ? (register - LAPIC.INTERRUPT_ENABLE) >> 4
    : undefined;

// --- writes ----------------------------------------------------------------------------------------------------------

export function writeRegister(
  state: LocalApicState,
  register: number,
  value: number,
  now: Nanoseconds,
): LocalApicDecision {
  if (isLVT(register)) return only(decideEntry(state, register, value, now));
  if (register >= LAPIC.EXTENDED_CONTROL && state.features.extended) return writeExtended(state, register, value, now);
  switch (register) {
    case LAPIC.ID:
      return only(state.apicId === value >>> 24 ? NO_EVENTS : [written(state, register, (value & 0xff00_0000) >>> 0)]);
    case LAPIC.TPR:
      return only(decideTaskPriority(state, value & 0xff));
    case LAPIC.EOI:
      return decideEnd(state, highestVector(state.isr));
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
    case LAPIC.ICR_HIGH: {
      const destination = (value & 0xff00_0000) >>> 0;
      return only(state.icrHigh === destination ? NO_EVENTS : [written(state, register, destination)]);
    }
    case LAPIC.TIMER_INITIAL:
      return only(decideInitialCount(state, value, now));
    case LAPIC.TIMER_DIVIDE:
      return only(decideDivide(state, value & 0x0b, now));
    case LAPIC.VERSION:
    case LAPIC.TIMER_CURRENT:
      return NOTHING;
    default:
      return unlessUnknown(state, register, now);
  }
}

/** A read-only register keeps its value; one that does not exist is an error. */
const unlessUnknown = (state: LocalApicState, register: number, now: number): LocalApicDecision =>
  readRegister(state, register, now) === undefined ? only(decideError(state, ERROR_ILLEGAL_REGISTER)) : NOTHING;

function writeExtended(state: LocalApicState, register: number, value: number, now: number): LocalApicDecision {
  const set = (stored: number): LocalApicDecision =>
    only(readExtended(state, register) === stored ? NO_EVENTS : [written(state, register, stored >>> 0)]);
  if (register === LAPIC.EXTENDED_CONTROL) return set(value & EXTENDED_CONTROL_WRITABLE);
  if (register === LAPIC.SPECIFIC_EOI) {
    const vector = value & 0xff;
    const enabled = (state.extendedControl & EXTENDED_SPECIFIC_EOI) !== 0;
    return enabled && hasVector(state.isr, vector) ? decideEnd(state, vector) : NOTHING;
  }
  const enable = interruptEnableIndex(register);
  if (enable !== undefined) {
    if ((state.extendedControl & EXTENDED_INTERRUPT_ENABLE) === 0) return NOTHING;
    return set((enable === 0 ? value & ~0xffff : value) >>> 0); // vectors 0 to 15 are reserved
  }
  const entry = (register - LAPIC.EXTENDED_LVT) >> 4;
  if (entry >= 0 && entry < EXTENDED_ENTRIES) return set(value & EXTENDED_LVT_WRITABLE);
  return unlessUnknown(state, register, now);
}

/** While the APIC is disabled by software, LVT entries cannot be unmasked (§16.3.1 Local APIC Enable). */
function decideEntry(state: LocalApicState, register: number, value: number, now: number): readonly LocalApicEvent[] {
  const index = (register - LAPIC.LVT_TIMER) >> 4;
  const forced = (state.svr & SVR_ENABLED) === 0 ? LVT_MASKED : 0;
  let entry = (value & lvtWritable(state, index)) | forced;
  if (isLint(index) && (entry & LVT_LEVEL) !== 0) entry |= lvt(state, index) & LVT_REMOTE_IRR;
  return index === ENTRY_TIMER ? decideTimerEntry(state, entry, now) : [written(state, register, entry)];
}

/** TPR, from its register, its MSR or CR8. */
export const decideTaskPriority = (state: LocalApicState, tpr: number): readonly LocalApicEvent[] =>
  state.tpr === tpr ? NO_EVENTS : [written(state, LAPIC.TPR, tpr)];

/** EOI of a vector in service, -1 for none; I/O APICs hear of it when it was level-triggered. */
function decideEnd(state: LocalApicState, vector: number): LocalApicDecision {
  if (vector < 0) return NOTHING;
  const ended = hasVector(state.tmr, vector) ? vector : null;
  return { events: [{ type: 'lapic.ended', apic: state.id, vector }], ipis: [], ended };
}

/** A write to ICR sends an IPI (§16.5 Interprocessor Interrupts). */
export function decideCommand(state: LocalApicState, high: number, low: number): LocalApicDecision {
  const command = low & ICR_WRITABLE;
  const events: LocalApicEvent[] = [];
  if (state.icrHigh !== high) events.push(written(state, LAPIC.ICR_HIGH, high));
  if ((state.icrLow & ~ICR_READ_STATUS) !== command) events.push(written(state, LAPIC.ICR_LOW, command));
  const vector = command & 0xff;
  const mode = deliveryMode(command);
  const level = (command & 0x8000) !== 0;
  const asserted = (command & 0x4000) !== 0;
  // Level-triggered messages are asserted (table 16-4); a remote read is none of x2APIC mode's (§16.13).
  if ((level && !asserted && mode !== DELIVERY.STARTUP) || (state.x2apic && mode === DELIVERY.REMOTE_READ)) {
    return { events, ipis: [], ended: null };
  }
  if (mode <= DELIVERY.LOWEST_PRIORITY && vector < FIRST_LEGAL_VECTOR) {
    return { events: [...events, ...decideError(state, ERROR_SENT_ILLEGAL_VECTOR)], ipis: [], ended: null };
  }
  const destination = state.x2apic ? high : high >>> 24;
  const ipi: ApicMessage = {
    vector,
    mode,
    level: level && mode <= DELIVERY.LOWEST_PRIORITY,
    logical: (command & 0x800) !== 0,
    destination,
    broadcast: destination === (state.x2apic ? 0xffff_ffff : 0xff),
    shorthand: SHORTHANDS[(command >> 18) & 3] ?? 'none',
  };
  return { events, ipis: [ipi], ended: null };
}

// --- the page --------------------------------------------------------------------------------------------------------

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

/** A write to the register page; one that is not 32 bits at a multiple of 16 is lost (§16.3.2 APIC Registers). */
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

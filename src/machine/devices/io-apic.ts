/**
 * The I/O APIC at FEC00000h: 24 inputs, each with a redirection entry that tells which message an active input sends.
 *
 * An edge-triggered input sends at its rising edge; while it is masked the edge is lost. A level-triggered input sends
 * while it is active, unmasked and not waiting for an EOI (remote IRR). Messages are data; `devices.ts` delivers them
 * and states `ioapic.sent` when a local APIC took one. Version 20h, for its EOI register.
 *
 * Delivery status is set while an active level finds nobody to take its message; otherwise a message takes no time. The
 * board drives each input in the polarity that its entry asks for: inputs are told as active or not.
 *
 * Source: Intel 82093AA I/O Advanced Programmable Interrupt Controller, data sheet 290566; EOI register: Intel ICH9
 * data sheet 316972, §13.5.4 EOIR.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';
import type { ApicMessage } from './local-apic-state.js';
import { DELIVERY } from './local-apic-state.js';

export interface RedirectionEntry {
  /** Bits 31:0, remote IRR included. */
  low: number;
  /** Bits 63:32. */
  high: number;
}

export interface IoApicState {
  index: number;
  /** The ID register: bits 27:24. */
  id: number;
  /** Active inputs, as a mask. */
  lines: number;
  entries: RedirectionEntry[];
}

export type IoApicEvent =
  | { readonly type: 'ioapic.selected'; readonly index: number }
  /** A register took a value: 0 the ID, 10h and up the halves of the entries. */
  | { readonly type: 'ioapic.written'; readonly register: number; readonly value: number }
  | { readonly type: 'ioapic.line'; readonly pin: number; readonly level: boolean }
  /** A level-triggered message was accepted: the input waits for its EOI. */
  | { readonly type: 'ioapic.sent'; readonly pin: number }
  /** An EOI for a vector arrived. */
  | { readonly type: 'ioapic.ended'; readonly vector: number };

export const IOAPIC_EVENT_FIELDS = {
  'ioapic.selected': ['index'],
  'ioapic.written': ['register', 'value'],
  'ioapic.line': ['pin', 'level'],
  'ioapic.sent': ['pin'],
  'ioapic.ended': ['vector'],
} as const satisfies FieldTable<IoApicEvent>;

export const IOAPIC_BASE = 0xfec0_0000;
export const IOAPIC_PINS = 24;

/** Offsets in the register window. */
export const IOAPIC = { SELECT: 0x00, DATA: 0x10, EOI: 0x40 };

const REGISTER_ID = 0x00;
const REGISTER_VERSION = 0x01;
const REGISTER_ARBITRATION = 0x02;
const REGISTER_ENTRIES = 0x10;
const VERSION = 0x20 | ((IOAPIC_PINS - 1) << 16);

const ENTRY_LOGICAL = 0x800;
const ENTRY_SEND_PENDING = 0x1000;
const ENTRY_REMOTE_IRR = 0x4000;
const ENTRY_LEVEL = 0x8000;
const ENTRY_MASKED = 0x1_0000;
/** Writable bits of an entry's low half: all but delivery status, remote IRR and the reserved ones. */
const ENTRY_WRITABLE = 0x1_afff;
const BROADCAST = 0xff;

const entryAt = (state: IoApicState, pin: number): RedirectionEntry => state.entries[pin] as RedirectionEntry;
const isLevel = (entry: RedirectionEntry): boolean => (entry.low & ENTRY_LEVEL) !== 0;
const mode = (entry: RedirectionEntry): number => (entry.low >> 8) & 7;
/** Level triggering is for fixed and lowest-priority messages; NMI, SMI, INIT and ExtINT count as edges. */
const waitsForEOI = (entry: RedirectionEntry): boolean => isLevel(entry) && mode(entry) <= DELIVERY.LOWEST_PRIORITY;

/** The message that a pin sends. */
export function messageOf(state: IoApicState, pin: number): ApicMessage {
  const entry = entryAt(state, pin);
  const destination = entry.high >>> 24;
  return {
    vector: entry.low & 0xff,
    mode: mode(entry),
    level: waitsForEOI(entry),
    logical: (entry.low & ENTRY_LOGICAL) !== 0,
    destination,
    broadcast: destination === BROADCAST,
    shorthand: 'none',
  };
}

/** Whether a rising edge at the pin sends its message now. */
export function sendsEdge(state: IoApicState, pin: number): boolean {
  const entry = entryAt(state, pin);
  return !waitsForEOI(entry) && (entry.low & ENTRY_MASKED) === 0;
}

/** Pins whose active level wants to send: unmasked, not waiting for an EOI. A mask. */
export function pendingLevels(state: IoApicState): number {
  let pending = 0;
  for (let lines = state.lines; lines !== 0; lines &= lines - 1) {
    const pin = 31 - Math.clz32(lines & -lines);
    const entry = entryAt(state, pin);
    if (waitsForEOI(entry) && (entry.low & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) === 0) pending |= 1 << pin;
  }
  return pending;
}

/** Whether an input is masked. */
export const isMasked = (state: IoApicState, pin: number): boolean => (entryAt(state, pin).low & ENTRY_MASKED) !== 0;

/** An input changed. When it rose and `sendsEdge`, the caller delivers `messageOf` it. */
export function decideLine(state: IoApicState, pin: number, level: boolean): readonly IoApicEvent[] {
  return ((state.lines >>> pin) & 1) === (level ? 1 : 0) ? NO_EVENTS : [{ type: 'ioapic.line', pin, level }];
}

/** A local APIC ended a level-triggered vector. */
export function decideEnd(state: IoApicState, vector: number): readonly IoApicEvent[] {
  const waits = state.entries.some((entry) => (entry.low & 0xff) === vector && (entry.low & ENTRY_REMOTE_IRR) !== 0);
  return waits ? [{ type: 'ioapic.ended', vector }] : NO_EVENTS;
}

function readRegister(state: IoApicState): number {
  const { index } = state;
  if (index === REGISTER_ID || index === REGISTER_ARBITRATION) return state.id;
  if (index === REGISTER_VERSION) return VERSION;
  const pin = (index - REGISTER_ENTRIES) >> 1;
  const entry = state.entries[pin];
  if (index < REGISTER_ENTRIES || entry === undefined) return 0;
  if ((index & 1) !== 0) return entry.high;
  return entry.low | (((pendingLevels(state) >>> pin) & 1) !== 0 ? ENTRY_SEND_PENDING : 0);
}

/** A switch to edge triggering clears remote IRR, which no EOI could clear any more. */
function writeEntry(entry: RedirectionEntry, high: boolean, value: number): void {
  if (high) {
    entry.high = (value & 0xff00_0000) >>> 0;
    return;
  }
  entry.low = (value & ENTRY_WRITABLE) | (entry.low & ENTRY_REMOTE_IRR);
  if (!isLevel(entry)) entry.low &= ~ENTRY_REMOTE_IRR;
}

const isWritable = (index: number): boolean =>
  index === REGISTER_ID || (index >= REGISTER_ENTRIES && index < REGISTER_ENTRIES + 2 * IOAPIC_PINS);

export const IO_APIC: Device<IoApicState, IoApicEvent> = {
  initial: () => ({
    index: 0,
    id: 0,
    lines: 0,
    entries: Array.from({ length: IOAPIC_PINS }, () => ({ low: ENTRY_MASKED, high: 0 })),
  }),

  reduce(state, event) {
    switch (event.type) {
      case 'ioapic.selected':
        state.index = event.index;
        return;
      case 'ioapic.written':
        if (event.register === REGISTER_ID) state.id = event.value;
        else {
          const entry = entryAt(state, (event.register - REGISTER_ENTRIES) >> 1);
          writeEntry(entry, (event.register & 1) !== 0, event.value);
        }
        return;
      case 'ioapic.line':
        state.lines = event.level ? state.lines | (1 << event.pin) : state.lines & ~(1 << event.pin);
        return;
      case 'ioapic.sent':
        entryAt(state, event.pin).low |= ENTRY_REMOTE_IRR;
        return;
      case 'ioapic.ended':
        for (const entry of state.entries) {
          if ((entry.low & 0xff) === event.vector) entry.low &= ~ENTRY_REMOTE_IRR;
        }
        return;
      default:
        unreachable(event);
    }
  },

  /** Registers are 32 bits at multiples of 16 (§3.1); narrower reads take bytes of them. */
  decideRead(state, register, size) {
    const at = register & ~3;
    const word = at === IOAPIC.SELECT ? state.index : at === IOAPIC.DATA ? readRegister(state) : 0;
    if (size === 4) return { value: word >>> 0, events: NO_EVENTS };
    return { value: (word >>> ((register & 3) * 8)) & (size === 1 ? 0xff : 0xffff), events: NO_EVENTS };
  },

  decideWrite(state, register, value, size) {
    if (register === IOAPIC.SELECT) {
      const index = value & 0xff;
      return state.index === index ? NO_EVENTS : [{ type: 'ioapic.selected', index }];
    }
    if (register === IOAPIC.EOI) return decideEnd(state, value & 0xff);
    if (register !== IOAPIC.DATA || size !== 4 || !isWritable(state.index)) return NO_EVENTS;
    const stored = state.index === REGISTER_ID ? value & 0x0f00_0000 : value >>> 0;
    return [{ type: 'ioapic.written', register: state.index, value: stored }];
  },

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: () => false,
};

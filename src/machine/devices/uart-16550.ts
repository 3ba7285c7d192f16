/**
 * The serial port: a National PC16550D at 3F8h, IRQ 4.
 *
 * Transmission takes no time: a byte written to THR leaves at once as `uart.transmitted`, so THR and the shift register
 * are always empty. Bytes arrive through `decideReceive`. The receiver's time-out is immediate: what lies in the FIFO
 * below the trigger level is reported as a character time-out. The baud rate and the frame format are kept, not used.
 *
 * Source: PC16550D Universal Asynchronous Receiver/Transmitter with FIFOs, data sheet, §8 Registers.
 * Invariant: `received` holds at most 16 bytes with FIFOs enabled, else at most 1.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable, ReadDecision } from './device.js';
import { NO_EVENTS } from './device.js';

export interface UartState {
  received: number[];
  ier: number;
  /** FCR as written, its self-clearing reset bits gone. */
  fcr: number;
  lcr: number;
  mcr: number;
  scr: number;
  /** Divisor latch, DLM:DLL. */
  divisor: number;
  /** Error bits of LSR that wait to be read (OE). */
  lineErrors: number;
  /** Delta bits of MSR that wait to be read. */
  modemDeltas: number;
  /** THR ran empty and neither IIR was read nor THR written since. */
  transmitterEmptyPending: boolean;
}

export type UartRegister = 'IER' | 'FCR' | 'LCR' | 'MCR' | 'SCR' | 'DLL' | 'DLM';

export type UartEvent =
  | { readonly type: 'uart.transmitted'; readonly byte: number }
  /** A byte went from THR to RBR inside the chip (MCR bit 4, loopback). */
  | { readonly type: 'uart.looped'; readonly byte: number }
  | { readonly type: 'uart.received'; readonly data: readonly number[] }
  /** RBR was read: the oldest byte left the receiver. */
  | { readonly type: 'uart.taken'; readonly byte: number }
  | { readonly type: 'uart.written'; readonly register: UartRegister; readonly value: number }
  /** IIR was read while it told that THR is empty: that interrupt is done. */
  | { readonly type: 'uart.transmitter-acknowledged' }
  /** LSR was read while it held errors: they are gone. */
  | { readonly type: 'uart.errors-read' }
  /** MSR was read while it held deltas: they are gone. */
  | { readonly type: 'uart.modem-read' };

export const UART_EVENT_FIELDS = {
  'uart.transmitted': ['byte'],
  'uart.looped': ['byte'],
  'uart.received': ['data'],
  'uart.taken': ['byte'],
  'uart.written': ['register', 'value'],
  'uart.transmitter-acknowledged': [],
  'uart.errors-read': [],
  'uart.modem-read': [],
} as const satisfies FieldTable<UartEvent>;

const FIFO_BYTES = 16;

const IER_RECEIVED = 0x01;
const IER_TRANSMITTER_EMPTY = 0x02;
const IER_LINE_STATUS = 0x04;
const IER_MODEM_STATUS = 0x08;

const IIR_MODEM_STATUS = 0x00;
const IIR_NONE = 0x01;
const IIR_TRANSMITTER_EMPTY = 0x02;
const IIR_RECEIVED = 0x04;
const IIR_LINE_STATUS = 0x06;
const IIR_TIME_OUT = 0x0c;
const IIR_FIFOS_ENABLED = 0xc0;

const FCR_ENABLE = 0x01;
const FCR_RESET_RECEIVER = 0x02;
const FCR_RESETS = 0x06;
/** Bytes in the FIFO at which received data is reported, by FCR bits 7:6. */
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;

const LCR_DIVISOR_LATCH = 0x80;

const MCR_DTR = 0x01;
const MCR_RTS = 0x02;
const MCR_OUT1 = 0x04;
const MCR_OUT2 = 0x08;
const MCR_LOOPBACK = 0x10;

const LSR_DATA_READY = 0x01;
const LSR_OVERRUN = 0x02;
const LSR_TRANSMITTER_EMPTY = 0x60; // THRE and TEMT

/** What the line's other end holds: CTS, DSR and DCD asserted, RI not. */
const MSR_CONNECTED = 0xb0;
const MSR_RI = 0x40;
const MSR_TRAILING_EDGE_RI = 0x04;

const fifosEnabled = (state: UartState): boolean => (state.fcr & FCR_ENABLE) !== 0;
const capacity = (state: UartState): number => (fifosEnabled(state) ? FIFO_BYTES : 1);
const divisorLatchOpen = (state: UartState): boolean => (state.lcr & LCR_DIVISOR_LATCH) !== 0;

/** How many bytes the receiver can take without an overrun. */
export const uartRoom = (state: UartState): number => capacity(state) - state.received.length;

/** Bytes arrive on the line. In loopback the serial input is disconnected, and nothing happens. */
export function decideReceive(state: UartState, data: readonly number[]): readonly UartEvent[] {
  if (data.length === 0 || (state.mcr & MCR_LOOPBACK) !== 0) return NO_EVENTS;
  return [{ type: 'uart.received', data: data.map((byte) => byte & 0xff) }];
}

/** The interrupt with the highest priority (§8.5 Interrupt Identification Register, table III). */
function interruptIdentification(state: UartState): number {
  if ((state.ier & IER_LINE_STATUS) !== 0 && state.lineErrors !== 0) return IIR_LINE_STATUS;
  if ((state.ier & IER_RECEIVED) !== 0 && state.received.length > 0) {
    if (!fifosEnabled(state)) return IIR_RECEIVED;
    const trigger = TRIGGER_LEVELS[(state.fcr >> 6) as 0 | 1 | 2 | 3];
    return state.received.length >= trigger ? IIR_RECEIVED : IIR_TIME_OUT;
  }
  if ((state.ier & IER_TRANSMITTER_EMPTY) !== 0 && state.transmitterEmptyPending) return IIR_TRANSMITTER_EMPTY;
  if ((state.ier & IER_MODEM_STATUS) !== 0 && state.modemDeltas !== 0) return IIR_MODEM_STATUS;
  return IIR_NONE;
}

const lineStatus = (state: UartState): number =>
  LSR_TRANSMITTER_EMPTY | state.lineErrors | (state.received.length > 0 ? LSR_DATA_READY : 0);

/** Bits 7:4 of MSR: the other end's signals, or in loopback our own outputs (§8.7 Modem Control Register, bit 4). */
function modemSignals(mcr: number): number {
  if ((mcr & MCR_LOOPBACK) === 0) return MSR_CONNECTED;
  return (
    ((mcr & MCR_RTS) !== 0 ? 0x10 : 0) |
    ((mcr & MCR_DTR) !== 0 ? 0x20 : 0) |
    ((mcr & MCR_OUT1) !== 0 ? 0x40 : 0) |
    ((mcr & MCR_OUT2) !== 0 ? 0x80 : 0)
  );
}

/** Bits 3:0 of MSR that a change of signals sets; RI counts only when it falls. */
function modemDeltas(before: number, after: number): number {
  const changed = (before ^ after) >> 4;
  const fallenRI = (before & ~after & MSR_RI) !== 0 ? MSR_TRAILING_EDGE_RI : 0;
  return (changed & ~MSR_TRAILING_EDGE_RI) | fallenRI;
}

/**
 * A byte reaches the receiver. Overrun: without FIFOs the new byte replaces the unread one, with them the FIFO keeps
 * what it has and the new byte is lost (§8.4 Line Status Register, bit 1).
 */
function shiftIn(state: UartState, byte: number): void {
  if (state.received.length < capacity(state)) {
    state.received.push(byte);
    return;
  }
  state.lineErrors |= LSR_OVERRUN;
  if (!fifosEnabled(state)) state.received[0] = byte;
}

function writeRegister(state: UartState, register: UartRegister, value: number): void {
  switch (register) {
    case 'IER':
      // Enabling the interrupt while THR is empty reports it at once.
      if ((value & ~state.ier & IER_TRANSMITTER_EMPTY) !== 0) state.transmitterEmptyPending = true;
      state.ier = value & 0x0f;
      return;
    case 'FCR':
      // Switching FIFOs on or off clears them; bit 1 clears the receiver's.
      if (((value ^ state.fcr) & FCR_ENABLE) !== 0 || (value & FCR_RESET_RECEIVER) !== 0) state.received.length = 0;
      state.fcr = (value & FCR_ENABLE) === 0 ? 0 : value & ~FCR_RESETS;
      return;
    case 'LCR':
      state.lcr = value;
      return;
    case 'MCR':
      state.modemDeltas |= modemDeltas(modemSignals(state.mcr), modemSignals(value));
      state.mcr = value & 0x1f;
      return;
    case 'SCR':
      state.scr = value;
      return;
    case 'DLL':
      state.divisor = (state.divisor & 0xff00) | value;
      return;
    case 'DLM':
      state.divisor = (state.divisor & 0x00ff) | (value << 8);
      return;
    default:
      unreachable(register);
  }
}

/** The value of a register without side effects; also what a repeated write would store. */
function peek(state: UartState, register: number): number {
  switch (register) {
    case 0:
      return divisorLatchOpen(state) ? state.divisor & 0xff : (state.received[0] ?? 0);
    case 1:
      return divisorLatchOpen(state) ? state.divisor >> 8 : state.ier;
    case 2:
      return interruptIdentification(state) | (fifosEnabled(state) ? IIR_FIFOS_ENABLED : 0);
    case 3:
      return state.lcr;
    case 4:
      return state.mcr;
    case 5:
      return lineStatus(state);
    case 6:
      return modemSignals(state.mcr) | state.modemDeltas;
    default:
      return state.scr;
  }
}

function sideEffects(state: UartState, register: number): readonly UartEvent[] {
  switch (register) {
    case 0: {
      const byte = state.received[0];
      return byte === undefined || divisorLatchOpen(state) ? NO_EVENTS : [{ type: 'uart.taken', byte }];
    }
    case 2:
      return interruptIdentification(state) === IIR_TRANSMITTER_EMPTY
        ? [{ type: 'uart.transmitter-acknowledged' }]
        : NO_EVENTS;
    case 5:
      return state.lineErrors === 0 ? NO_EVENTS : [{ type: 'uart.errors-read' }];
    case 6:
      return state.modemDeltas === 0 ? NO_EVENTS : [{ type: 'uart.modem-read' }];
    default:
      return NO_EVENTS;
  }
}

/** The register that a write reaches; LSR and MSR are not writable, RBR's place is THR. */
function writtenRegister(state: UartState, register: number): UartRegister | undefined {
  switch (register) {
    case 0:
      return divisorLatchOpen(state) ? 'DLL' : undefined;
    case 1:
      return divisorLatchOpen(state) ? 'DLM' : 'IER';
    case 2:
      return 'FCR';
    case 3:
      return 'LCR';
    case 4:
      return 'MCR';
    case 7:
      return 'SCR';
    default:
      return undefined;
  }
}

export const UART: Device<UartState, UartEvent> = {
  initial: () => ({
    received: [],
    ier: 0,
    fcr: 0,
    lcr: 0,
    mcr: 0,
    scr: 0,
    divisor: 12, // 9600 baud; undefined on hardware
    lineErrors: 0,
    modemDeltas: 0,
    transmitterEmptyPending: false,
  }),

  reduce(state, event) {
    switch (event.type) {
      case 'uart.transmitted':
        state.transmitterEmptyPending = true;
        return;
      case 'uart.looped':
        state.transmitterEmptyPending = true;
        shiftIn(state, event.byte);
        return;
      case 'uart.received':
        for (const byte of event.data) shiftIn(state, byte);
        return;
      case 'uart.taken':
        state.received.shift();
        return;
      case 'uart.written':
        writeRegister(state, event.register, event.value);
        return;
      case 'uart.transmitter-acknowledged':
        state.transmitterEmptyPending = false;
        return;
      case 'uart.errors-read':
        state.lineErrors = 0;
        return;
      case 'uart.modem-read':
        state.modemDeltas = 0;
        return;
      default:
        unreachable(event);
    }
  },

  decideRead(state, register): ReadDecision<UartEvent> {
    return { value: peek(state, register), events: sideEffects(state, register) };
  },

  decideWrite(state, register, value) {
    const byte = value & 0xff;
    if (register === 0 && !divisorLatchOpen(state)) {
      return [{ type: (state.mcr & MCR_LOOPBACK) !== 0 ? 'uart.looped' : 'uart.transmitted', byte }];
    }
    const name = writtenRegister(state, register);
    if (name === undefined) return NO_EVENTS;
    if (name !== 'FCR' && peek(state, register) === byte) return NO_EVENTS;
    return [{ type: 'uart.written', register: name, value: byte }];
  },

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,

  /**
   * INTR, through the buffer that OUT2 opens on a PC's serial card (IBM PC Technical Reference, Asynchronous Adapter).
   */
  interruptLine: (state) => (state.mcr & MCR_OUT2) !== 0 && interruptIdentification(state) !== IIR_NONE,
};

/**
 * The two old ways to reset a PC: the reset control register CF9h, and the keyboard controller at 60h and 64h, whose
 * output port resets too. The controller's reset line leads to INIT of the processors, as does CF9h when it is told to
 * reset the processor alone; with the system reset bit it resets everything. There is no keyboard: the controller is idle and empty, takes every command, and answers none
 * but the read of its output port.
 *
 * Source: 82371AB (PIIX4) data sheet, RC Reset Control Register; Intel 8042 as in the IBM AT Technical Reference,
 * Keyboard Controller Commands D0h, D1h, F0h–FFh.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';

export interface ResetPortState {
  /** CF9h as written. */
  control: number;
  /** The 8042's command that waits for its data byte, or 0. */
  command: number;
  outputPort: number;
  /** A byte waits in the 8042's output buffer. */
  output: number | null;
}

export type ResetPortEvent =
  | { readonly type: 'reset.controlled'; readonly value: number }
  /** A command or data byte for the 8042: port 64h or 60h. */
  | { readonly type: 'reset.keyboard-written'; readonly port: number; readonly value: number }
  | { readonly type: 'reset.keyboard-read' }
  /** RESET, of processors and devices. */
  | { readonly type: 'reset.requested'; readonly port: number }
  /** INIT, of the processors alone. */
  | { readonly type: 'reset.init-requested'; readonly port: number };

export const RESET_EVENT_FIELDS = {
  'reset.controlled': ['value'],
  'reset.keyboard-written': ['port', 'value'],
  'reset.keyboard-read': [],
  'reset.requested': ['port'],
  'reset.init-requested': ['port'],
} as const satisfies FieldTable<ResetPortEvent>;

/** Registers of the device, as `devices.ts` numbers its ports. */
export const RESET = { CONTROL: 0, KEYBOARD_DATA: 1, KEYBOARD_COMMAND: 2 };

const CONTROL_PORT = 0xcf9;
const DATA_PORT = 0x60;
const COMMAND_PORT = 0x64;

const CONTROL_SYSTEM_RESET = 0x02;
const CONTROL_RESET_CPU = 0x04;
const CONTROL_WRITABLE = 0x0e;
const READ_OUTPUT_PORT = 0xd0;
const WRITE_OUTPUT_PORT = 0xd1;
const PULSE_OUTPUT = 0xf0;
const OUTPUT_NOT_RESET = 0x01;
const OUTPUT_A20 = 0x02;
const STATUS_OUTPUT_FULL = 0x01;
const STATUS_NOT_LOCKED = 0x10;

function decideKeyboardWrite(state: ResetPortState, port: number, value: number): readonly ResetPortEvent[] {
  const written: ResetPortEvent = { type: 'reset.keyboard-written', port, value };
  const resets =
    port === COMMAND_PORT
      ? value >= PULSE_OUTPUT && (value & OUTPUT_NOT_RESET) === 0 // pulses the lines whose bits are clear
      : state.command === WRITE_OUTPUT_PORT && (value & OUTPUT_NOT_RESET) === 0;
  return resets ? [written, { type: 'reset.init-requested', port }] : [written];
}

export const RESET_PORT: Device<ResetPortState, ResetPortEvent> = {
  initial: () => ({ control: 0, command: 0, outputPort: OUTPUT_NOT_RESET | OUTPUT_A20, output: null }),

  reduce(state, event) {
    switch (event.type) {
      case 'reset.controlled':
        state.control = event.value;
        return;
      case 'reset.keyboard-written':
        if (event.port === COMMAND_PORT) {
          state.command = event.value;
          if (event.value === READ_OUTPUT_PORT) state.output = state.outputPort;
        } else {
          if (state.command === WRITE_OUTPUT_PORT) state.outputPort = event.value;
          state.command = 0;
        }
        return;
      case 'reset.keyboard-read':
        state.output = null;
        return;
      case 'reset.requested':
      case 'reset.init-requested':
        return;
      default:
        unreachable(event);
    }
  },

  decideRead(state, register) {
    if (register === RESET.CONTROL) return { value: state.control, events: NO_EVENTS };
    if (register === RESET.KEYBOARD_COMMAND) {
      const full = state.output === null ? 0 : STATUS_OUTPUT_FULL;
      return { value: full === 0 ? 0 : full | STATUS_NOT_LOCKED, events: NO_EVENTS };
    }
    if (state.output === null) return { value: 0, events: NO_EVENTS };
    return { value: state.output, events: [{ type: 'reset.keyboard-read' }] };
  },

  decideWrite(state, register, value) {
    const byte = value & 0xff;
    if (register === RESET.KEYBOARD_DATA) return decideKeyboardWrite(state, DATA_PORT, byte);
    if (register === RESET.KEYBOARD_COMMAND) return decideKeyboardWrite(state, COMMAND_PORT, byte);
    const control = byte & CONTROL_WRITABLE;
    const rises = (control & ~state.control & CONTROL_RESET_CPU) !== 0;
    const controlled: ResetPortEvent = { type: 'reset.controlled', value: control };
    if (rises) {
      const type = (control & CONTROL_SYSTEM_RESET) !== 0 ? 'reset.requested' : 'reset.init-requested';
      return [controlled, { type, port: CONTROL_PORT }];
    }
    return control === state.control ? NO_EVENTS : [controlled];
  },

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: () => false,
};

/**
 * System control port A, 92h: bit 1 opens the A20 gate, bit 0 gives INIT to the processors when it rises. A20 is kept and told, not applied:
 * this machine's address line 20 is always open, as after any boot loader.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, System Control Port A; 82371AB (PIIX4) data sheet, port 92h.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';

export interface Port92State {
  value: number;
}

export type Port92Event = {
  readonly type: 'port92.written';
  readonly value: number;
  /** Bit 0 rose. */
  readonly reset: boolean;
};

export const PORT92_EVENT_FIELDS = {
  'port92.written': ['value', 'reset'],
} as const satisfies FieldTable<Port92Event>;

const RESET = 0x01;
const A20 = 0x02;

export const PORT_92: Device<Port92State, Port92Event> = {
  initial: () => ({ value: A20 }),

  reduce(state, event) {
    if (event.type !== 'port92.written') unreachable(event.type);
    state.value = event.value;
  },

  decideRead: (state) => ({ value: state.value, events: NO_EVENTS }),

  decideWrite(state, _register, value) {
    const byte = value & 0xff;
    if (byte === state.value) return NO_EVENTS;
    return [{ type: 'port92.written', value: byte, reset: (byte & ~state.value & RESET) !== 0 }];
  },

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: () => false,
};

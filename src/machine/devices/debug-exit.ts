/**
 * QEMU's isa-debug-exit at F4h–F7h: a write ends the machine, with the status (value << 1) | 1.
 *
 * Source: QEMU, device isa-debug-exit (iobase=0xf4, iosize=0x4).
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';

export interface DebugExitState {
  /** The last value written. */
  value: number | null;
}

export type DebugExitEvent = { readonly type: 'debug-exit.requested'; readonly value: number };

export const DEBUG_EXIT_EVENT_FIELDS = {
  'debug-exit.requested': ['value'],
} as const satisfies FieldTable<DebugExitEvent>;

/** The status with which the machine ends; a number beyond 2^32 when the value's top bit is set. */
export const debugExitStatus = (value: number): number => value * 2 + 1;

export const DEBUG_EXIT: Device<DebugExitState, DebugExitEvent> = {
  initial: () => ({ value: null }),
  reduce(state, event) {
    if (event.type !== 'debug-exit.requested') unreachable(event.type);
    state.value = event.value;
  },
  decideRead: () => ({ value: 0, events: NO_EVENTS }),
  decideWrite: (_state, _register, value) => [{ type: 'debug-exit.requested', value: value >>> 0 }],
  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: () => false,
};

/**
 * The wires of the numeric coprocessor as the PC/AT has them. FERR# of the processor sets a latch, which is interrupt
 * line 13; a write to port F0h clears the latch and, while FERR# is asserted, asserts IGNNE#, with which the handler's
 * own x87 instructions pass. IGNNE# falls with FERR#. Of several processors only the bootstrap processor is wired.
 *
 * Source: IBM AT Technical Reference, I/O Address Map (0F0h) and Math Coprocessor Control; 82371AB (PIIX4) data sheet,
 *  Coprocessor Error Register and FERR#; MultiProcessor Specification 1.4, §3.6.2.1 PIC Mode for whose legacy signals count.
 */
import { unreachable } from '../errors.js';
import type { Device, FieldTable } from './device.js';
import { NO_EVENTS } from './device.js';

export interface CoprocessorErrorState {
  /** FERR#, from the processor. */
  ferr: boolean;
  /** The latch: interrupt line 13. */
  latched: boolean;
  /** IGNNE#, to the processor. */
  ignne: boolean;
}

export type CoprocessorErrorEvent =
  /** The processor drives FERR#. */
  | { readonly type: 'coprocessor.ferr'; readonly asserted: boolean }
  /** Port F0h was written: the latch is clear, and IGNNE# as FERR# is. */
  | { readonly type: 'coprocessor.acknowledged' };

export const COPROCESSOR_EVENT_FIELDS = {
  'coprocessor.ferr': ['asserted'],
  'coprocessor.acknowledged': [],
} as const satisfies FieldTable<CoprocessorErrorEvent>;

/** FERR# changes, or stays. */
export const decideFerr = (state: CoprocessorErrorState, asserted: boolean): readonly CoprocessorErrorEvent[] =>
  state.ferr === asserted ? NO_EVENTS : [{ type: 'coprocessor.ferr', asserted }];

export const COPROCESSOR_ERROR: Device<CoprocessorErrorState, CoprocessorErrorEvent> = {
  initial: () => ({ ferr: false, latched: false, ignne: false }),

  reduce(state, event) {
    switch (event.type) {
      case 'coprocessor.ferr':
        state.ferr = event.asserted;
        if (event.asserted) state.latched = true;
        else state.ignne = false;
        return;
      case 'coprocessor.acknowledged':
        state.latched = false;
        state.ignne = state.ferr;
        return;
      default:
        unreachable(event);
    }
  },

  /** The register is written only. */
  decideRead: () => ({ value: 0xff, events: NO_EVENTS }),

  decideWrite: (state) =>
    state.latched || state.ignne !== state.ferr ? [{ type: 'coprocessor.acknowledged' }] : NO_EVENTS,

  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: (state) => state.latched,
};

/**
 * Ports that software writes for delay or out of habit: the POST code port 80h with the DMA page registers around it,
 * the delay port EDh, the coprocessor's reset port F1h. Writes are forgotten, reads float high; neither is an event.
 *
 * Source: IBM AT Technical Reference, I/O Address Map.
 */
import type { Device } from './device.js';
import { NO_EVENTS } from './device.js';

/** Nothing is kept. */
export type PostCodeState = Record<string, never>;

export const POST_CODE: Device<PostCodeState, never> = {
  initial: () => ({}),
  reduce: () => {},
  decideRead: (_state, _register, size) => ({ value: 2 ** (size * 8) - 1, events: NO_EVENTS }),
  decideWrite: () => NO_EVENTS,
  nextDeadline: () => undefined,
  decideDeadline: () => NO_EVENTS,
  interruptLine: () => false,
};

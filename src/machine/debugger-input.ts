/**
 * What a debugger changes in a machine: inputs, for no machine could have computed them. What was asked for is checked and
 * worked out before there is an event (`debugger-write.ts`), so that replay only puts values in their places.
 */
import type { EventOf } from './events.js';

export type DebuggerInput =
  | EventOf<'input.debugger-registers'>
  | EventOf<'input.debugger-msr'>
  | EventOf<'input.debugger-memory'>;

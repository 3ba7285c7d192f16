/**
 * What a debugger changes in a machine: inputs, for no machine could have computed them. What was asked for is checked and
 * worked out before there is an event (`debugger-write.ts`), so that replay only puts values in their places.
 */
import type { EventOf } from './events.js';
import { decodeDelta } from './layout/cpu-state.js';
import type { PhysicalMemory } from './mmu/memory.js';
import { sPA } from './units.js';
import type { Engine } from './wasm/engine.js';

export type DebuggerInput =
  | EventOf<'input.debugger-registers'>
  | EventOf<'input.debugger-msr'>
  | EventOf<'input.debugger-memory'>;

export const isDebuggerInput = (event: { readonly type: string }): event is DebuggerInput =>
  event.type.startsWith('input.debugger-');

/** Ahead of the event: memory holds it before anybody hears of it, as with an image that is booted. */
export function putInMemory(memory: PhysicalMemory, input: DebuggerInput): void {
  if (input.type === 'input.debugger-memory') memory.copyIn(sPA(input.address), input.data);
}

/** After it: the registers are no part of the next run, and any of them may be one that translations hang on. */
export function followRegisters(engine: Engine, vcpu: number, input: DebuggerInput): void {
  if (input.type !== 'input.debugger-registers') return;
  if (input.target === vcpu) for (const [slot] of decodeDelta(input.changes)) engine.syncShadow(slot);
  engine.stateChanged();
  engine.flush(undefined);
}

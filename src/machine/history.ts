/**
 * Past states as immutable values: the same reducer under Immer's `produce`, so that each state shares structure with
 * its neighbours.
 */
import { produce } from 'immer';
import type { MachineEvent } from './events.js';
import { type MachineState, reduce } from './reduce.js';

/** @returns the state after `event`; `state` stays as it is. */
export function stateAfter(state: MachineState, event: MachineEvent, vcpu: number): MachineState {
  return produce(state, (draft) => {
    reduce(draft as MachineState, event, vcpu);
  });
}

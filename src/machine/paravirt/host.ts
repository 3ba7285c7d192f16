/**
 * What KVM's interface needs of the machine around it. All that it does goes out as events, decisions of devices, and
 * writes to RAM.
 */
import type { Decision } from '../devices/devices.js';
import type { MachineEvent } from '../events.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { MachineState } from '../reduce.js';
import type { Nanoseconds } from '../units.js';
import type { Engine } from '../wasm/engine.js';
import type { ParavirtState } from './state.js';

export interface KvmHost {
  readonly state: MachineState;
  readonly memory: PhysicalMemory;
  readonly engine: Pick<Engine, 'flush' | 'isAbsent'>;
  readonly now: Nanoseconds;
  /** The TSC of a vCPU as L1 reads it. */
  readTsc(): bigint;
  /** Applies and states an event. */
  stateEvent(event: MachineEvent, retired: 0): void;
  /** Applies what devices decided. */
  apply(decision: Decision): void;
}

/** The state of the interface; only for machines that have it. */
export const paravirtOf = ({ state }: Pick<KvmHost, 'state'>): ParavirtState => state.paravirt as ParavirtState;

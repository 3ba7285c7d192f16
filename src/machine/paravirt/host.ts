/**
 * What KVM's interface needs of the machine around it. All that it does goes out as events, decisions of devices, and
 * writes to RAM.
 */
import type { Decision } from '../devices/devices.js';
import type { MachineEvent } from '../events.js';
import { Activity, encodeDelta, R, type Slot } from '../layout/cpu-state.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { MachineState } from '../reduce.js';
import { type Nanoseconds, u64 } from '../units.js';
import type { Engine } from '../wasm/engine.js';
import type { ParavirtState } from './state.js';

export interface KvmHost {
  readonly state: MachineState;
  readonly memory: PhysicalMemory;
  readonly engine: Pick<Engine, 'flush' | 'isAbsent'>;
  readonly now: Nanoseconds;
  /** The vCPU whose turn it is. */
  readonly vcpu: number;
  /** Applies and states an event. @param vcpu which one's it is, when not the current one's. */
  stateEvent(event: MachineEvent, retired: 0, vcpu?: number): void;
  /** Applies what devices decided. */
  apply(decision: Decision): void;
  /** Another vCPU should run soon. */
  favour(vcpu: number): void;
}

/** The state of the interface; only for machines that have it. */
export const paravirtOf = ({ state }: Pick<KvmHost, 'state'>): ParavirtState => state.paravirt as ParavirtState;

/** Of any vCPU, whether it is its turn or not. */
export const registerOf = ({ state }: Pick<KvmHost, 'state'>, vcpu: number, slot: Slot): bigint =>
  state.vcpus[vcpu]?.registers[slot] as bigint;

/** The TSC of a vCPU as L1 reads it. */
export const tscOf = (host: Pick<KvmHost, 'state' | 'now'>, vcpu: number): bigint =>
  u64(BigInt(host.now) + registerOf(host, vcpu, R.tscBase));

/** Ends a wait. */
export function wake(host: KvmHost, vcpu: number): void {
  host.stateEvent({ type: 'cpu.woke', registers: encodeDelta([[R.activity, Activity.RUNNING]]) }, 0, vcpu);
}

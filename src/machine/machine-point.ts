/**
 * A point of a session that a machine can be put back to: everything about it but RAM.
 *
 * It stands between two steps of the machine's loop: no instruction is half done, nothing that a device asked for waits.
 * A run may be under way there; then the point knows the registers at the last event, so that the run goes on as one.
 */
import { SLOT_COUNT } from './layout/cpu-state.js';
import type { MachineState, VcpuState } from './reduce.js';

export interface MachinePoint {
  /** A copy: registers are arrays of their own. */
  readonly state: MachineState;
  /** Instructions retired so far. */
  readonly retired: number;
  /** Those of them since the last event. */
  readonly unstated: number;
  /** The vCPU that the loop favours next, for an interrupt that it has just got. */
  readonly interrupted: number | undefined;
  /** Registers of the vCPU whose turn it is at the last event; undefined when they have not changed since. */
  readonly shadow: BigUint64Array | undefined;
}

type Loop = Pick<MachinePoint, 'retired' | 'unstated' | 'interrupted'>;

export function capturePoint(state: MachineState, shadow: BigUint64Array, loop: Loop): MachinePoint {
  const copy = copyState(state);
  const current = copy.vcpus[copy.schedule.vcpu]?.registers as unknown as BigUint64Array;
  const changed = loop.unstated > 0 || shadow.some((value, slot) => value !== current[slot]);
  return { state: copy, ...loop, shadow: changed ? shadow.slice() : undefined };
}

function copyState(state: MachineState): MachineState {
  const { vcpus, ...rest } = state;
  return {
    ...copyOf(rest),
    // Registers may lie in the machine's memory.
    vcpus: vcpus.map(({ registers, msrs }): VcpuState => {
      const copy = new BigUint64Array(SLOT_COUNT);
      for (let slot = 0; slot < SLOT_COUNT; slot++)
        copy[slot] = (registers as unknown as BigUint64Array)[slot] as bigint;
      return { registers: copy as unknown as VcpuState['registers'], msrs: { ...msrs } };
    }),
  };
}

/** State is a tree of plain values; here that is several times as fast as `structuredClone`. */
function copyOf<Value>(value: Value): Value {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(copyOf) as Value;
  if (ArrayBuffer.isView(value)) return structuredClone(value);
  const copy: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(value)) copy[name] = copyOf(field);
  return copy as Value;
}

/** Puts a point's state in the place of `state`, in whose hands it is the machine's own from then on. */
export function restoreState(state: MachineState, point: MachinePoint): void {
  Object.assign(state, copyState(point.state));
}

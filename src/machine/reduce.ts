/**
 * MachineState, and (state, event) → state by one exhaustive switch. `reduce` alone changes state and never refuses.
 *
 * It is written in Immer's mutating style: live it runs in place on the machine's own state, whose registers lie in the
 * WebAssembly memory; for history it runs under `produce`, where they are an array (`history.ts`). RAM is in no event.
 */
import { isDraft } from 'immer';
import { handedOverRegisters } from './boot/firmware.js';
import { type MachineConfig, machineProfile } from './config.js';
import type { CpuProfile } from './cpu/profile.js';
import { resetRegisters } from './cpu/reset.js';
import { isStoredMsr, type StoredMsrs } from './cpu/stored-msrs.js';
import {
  type DeviceEvent,
  type DevicesState,
  handOver,
  initialDevices,
  reduceClock,
  reduceDevices,
} from './devices/devices.js';
import type { ApicFeatures } from './devices/local-apic-state.js';
import { initializeDevices, resetDevices } from './devices/system-reset.js';
import { invariant } from './errors.js';
import type { EndReason, MachineEvent } from './events.js';
import { Activity, applyDelta, R, type Registers, SLOT_COUNT, type Slot } from './layout/cpu-state.js';
import { applyVmcbDelta, emptyVmcbWords, type VmcbWords } from './layout/vmcb.js';
import { initialParavirt, type ParavirtState, reduceParavirt } from './paravirt/state.js';
import { nanoseconds, u64 } from './units.js';

export interface VcpuState {
  readonly registers: Registers;
  /** Model-specific registers without a slot. */
  msrs: StoredMsrs;
}

/** What the machine booted, and boots again: its bytes are the host's to keep. */
export interface BootSource {
  readonly imageDigest: string;
  readonly commandLine: string;
}

export interface MachineState {
  readonly vcpus: VcpuState[];
  /** Whose turn it is, and until how many instructions have retired in all. */
  readonly schedule: { vcpu: number; until: number };
  readonly devices: DevicesState;
  /** Each VMCB as the processor last read or wrote it, by sPA in decimal. */
  readonly vmcbs: Record<string, VmcbWords>;
  /** For each vCPU the virtual time before which it takes no interrupt; 0 but under chaos. */
  readonly holds: number[];
  /** Nanoseconds of virtual time that passed while every vCPU waited. */
  skippedNanoseconds: number;
  /** State of the random numbers: the seed plus the draws. */
  entropy: bigint;
  ended: { readonly reason: EndReason; readonly status: number } | null;
  /** Virtual time of the last RESET: nanoseconds, 0 for power-on. */
  resetAt: number;
  /** Null before the first boot. */
  boot: BootSource | null;
  /** Null on bare hardware. */
  readonly paravirt: ParavirtState | null;
}

/** The machine at power-on, with registers as an array. */
export function initialState(config: MachineConfig): MachineState {
  const profile = machineProfile(config);
  invariant(profile !== undefined, 'checkConfig let an unknown CPU profile pass');
  const devices = initialDevices({ ...config, apic: apicFeatures(profile) });
  handOver(devices, nanoseconds(0));
  return {
    vcpus: Array.from({ length: config.vcpus }, (_, vcpu) => initialVcpu(profile, vcpu)),
    schedule: { vcpu: 0, until: config.quantumInstructions },
    holds: Array.from({ length: config.vcpus }, () => 0),
    devices,
    vmcbs: {},
    skippedNanoseconds: 0,
    entropy: 0n,
    ended: null,
    resetAt: 0,
    boot: null,
    paravirt: config.paravirt === 'kvm' ? initialParavirt(config.vcpus) : null,
  };
}

/** What a processor reports of its local APIC. */
export const apicFeatures = ({ system }: CpuProfile): ApicFeatures => ({
  x2apic: system.has('x2apic'),
  tscDeadline: system.has('tsc-deadline'),
  extended: system.has('extapic'),
});

const initialVcpu = (profile: CpuProfile, vcpu: number): VcpuState => ({
  registers: powerOnRegisters(profile, vcpu) as Registers,
  msrs: {},
});

/**
 * Every register, by slot: the bootstrap processor runs, the others wait for its start-up interrupts, as a BIOS leaves
 * them.
 */
export function powerOnRegisters(profile: CpuProfile, vcpu: number): readonly bigint[] {
  const reset = new Map([...resetRegisters(profile), ...handedOverRegisters(profile)]);
  if (vcpu !== 0) reset.set(R.activity, Activity.WAIT_FOR_SIPI);
  return Array.from({ length: SLOT_COUNT }, (_, slot) => reset.get(slot as Slot) ?? 0n);
}

/** Applies `event` of vCPU `vcpu` in place. */
export function reduce(state: MachineState, event: MachineEvent, vcpu: number): void {
  if ('registers' in event) applyDelta(registersOf(state, vcpu), event.registers);
  reduceBesideRegisters(state, event, vcpu);
}

/** What `event` changes besides the registers that it carries: live, the engine applies those (`Engine.applyDelta`). */
export function reduceBesideRegisters(state: MachineState, event: MachineEvent, vcpu: number): void {
  switch (event.type) {
    case 'svm.vmrun':
    case 'svm.vmexit':
    case 'svm.vmload':
    case 'svm.vmsave':
      reduceVmcb(state, event.vmcb, event.words);
      return;
    case 'cpu.ran':
    case 'cpu.exception':
    case 'cpu.interrupt':
    case 'cpu.system':
    case 'cpu.control':
    case 'cpu.halted':
    case 'cpu.woke':
    case 'cpu.pended':
    case 'cpu.shutdown':
    case 'cpu.task-switched':
    case 'svm.injected':
    case 'svm.gif':
    case 'svm.invlpga':
    case 'avic.written':
    case 'avic.doorbell':
    case 'avic.acknowledged':
    case 'paravirt.hypercall':
    case 'firmware.resumed':
    case 'firmware.booted':
      return;
    case 'input.boot':
      state.boot = { imageDigest: event.imageDigest, commandLine: event.commandLine };
      return;
    case 'cpu.reset':
      (state.vcpus[vcpu] as VcpuState).msrs = {};
      return;
    case 'machine.reset':
      resetDevices(state.devices, nanoseconds(event.at));
      state.resetAt = event.at;
      // No processor has a VMCB cached any more.
      for (const vmcb of Object.keys(state.vmcbs)) delete state.vmcbs[vmcb];
      return;
    case 'firmware.initialized':
      initializeDevices(state.devices, nanoseconds(event.at));
      return;
    case 'cpu.msr':
      if (isStoredMsr(event.msr)) (state.vcpus[vcpu] as VcpuState).msrs[event.msr] = event.value;
      return;
    case 'input.clock':
      reduceClock(state.devices, event.unixSeconds);
      if (state.paravirt !== null) state.paravirt.unixSeconds = event.unixSeconds;
      return;
    case 'input.entropy':
      state.entropy = event.seed;
      return;
    case 'entropy.drawn':
      state.entropy = u64(state.entropy + ENTROPY_STEP);
      return;
    case 'vcpu.scheduled':
      state.schedule.vcpu = vcpu;
      state.schedule.until = event.until;
      return;
    case 'input.turn':
      state.schedule.vcpu = event.to;
      state.schedule.until = event.until;
      return;
    case 'input.hold':
      state.holds[event.target] = event.until;
      return;
    case 'input.skew': {
      const registers = registersOf(state, event.target);
      registers[R.tscBase] = u64((registers[R.tscBase] as bigint) + event.ticks);
      return;
    }
    case 'input.debugger-registers':
      applyDelta(registersOf(state, event.target), event.changes);
      return;
    case 'input.debugger-msr':
      (state.vcpus[event.target] as VcpuState).msrs[event.msr] = event.value;
      return;
    case 'time.skipped':
      state.skippedNanoseconds += event.nanoseconds;
      return;
    case 'machine.ended':
      state.ended = { reason: event.reason, status: event.status };
      return;
    case 'input.stolen':
      state.skippedNanoseconds += event.nanoseconds;
      return;
    case 'input.pages':
    case 'input.paused':
    case 'paravirt.written':
    case 'paravirt.updated':
    case 'paravirt.eoi':
    case 'paravirt.preempted':
    case 'paravirt.stolen':
    case 'paravirt.kicked':
    case 'paravirt.page-missed':
    case 'paravirt.page-arrived':
    case 'paravirt.page-ready':
    case 'paravirt.reset':
      reduceParavirt(paravirtOf(state), event);
      return;
    case 'input.serial': // its bytes reach the receiver by the uart.received events that follow
    case 'input.console': // likewise by virtio.arrived
    case 'input.nmi': // likewise by pit.channel-check
    case 'input.debugger-memory': // RAM is no part of this state
    case 'bus.unclaimed':
    case 'cpu.msr-unknown':
    case 'svm.stale': // the copy of the VMCB stays as it is: that is the point
      return;
    default:
      reduceDevices(state.devices, event satisfies DeviceEvent);
  }
}

function paravirtOf({ paravirt }: MachineState): ParavirtState {
  invariant(paravirt !== null, 'bare hardware has no interface to change');
  return paravirt;
}

const registersOf = (state: MachineState, vcpu: number): Registers => (state.vcpus[vcpu] as VcpuState).registers;

/** Immer does not draft typed arrays: in a history the copy is replaced, for neighbouring states share it. */
function reduceVmcb(state: MachineState, vmcb: number, words: Uint8Array): void {
  if (words.length === 0) return;
  const known = state.vmcbs[vmcb];
  if (known !== undefined && !isDraft(state)) {
    applyVmcbDelta(known, words);
    return;
  }
  const copy = known?.slice() ?? emptyVmcbWords();
  applyVmcbDelta(copy, words);
  state.vmcbs[vmcb] = copy;
}

/** Increment of the SplitMix64 generator. */
export const ENTROPY_STEP = 0x9e37_79b9_7f4a_7c15n;

/** The value that a draw gives, SplitMix64 of the state after the step. */
export function entropyValue(state: bigint): bigint {
  let z = u64(state + ENTROPY_STEP);
  z = u64((z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
  z = u64((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
  return z ^ (z >> 31n);
}

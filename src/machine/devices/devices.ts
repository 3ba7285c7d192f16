/**
 * The device set: one state, one event union, one reducer over all devices of the machine, and the wires between them.
 *
 * How the machine uses it:
 *
 * 1. ask a decision (`decidePortWrite`, `decideDeadline`, …), which changes nothing;
 * 2. apply its events in order with `reduceDevices`, act on its signals and its request;
 * 3. ask `settle` and apply what it says until it says nothing: interrupt lines have then reached the controllers;
 * 4. look at `cpuInterruptPending` of each vCPU.
 *
 * Wires are those of `interrupt-wiring.ts`. Messages of the I/O APIC, IPIs and message-signalled interrupts are taken in
 * the same decision that sends them (`apic-bus.ts`).
 *
 * Accesses that no device claims are answered with undefined: the machine states `bus.unclaimed` (law 8).
 */
import { type Nanoseconds, nanoseconds } from '../units.js';
import { ACPI_PM } from './acpi-pm-timer.js';
import { type Delivery, localApicDecision } from './apic-bus.js';
import { memoryClaim, portClaim } from './bus.js';
import { decideFerr } from './coprocessor-error.js';
import type { Device, ReadDecision } from './device.js';
import { type Decision, type DeviceEvent, type DevicesState, decision, localApic, NO_DECISION } from './device-set.js';
import { HPET_TIMERS, hpetEdges } from './hpet.js';
import type { HpetEvent } from './hpet-state.js';
import { pulseTimer, sendHpetEdge, timerIsHeard } from './interrupt-wiring.js';
import { LOCAL_APIC } from './local-apic.js';
import * as msrs from './local-apic-msr.js';
import * as registers from './local-apic-registers.js';
import * as timer from './local-apic-timer.js';
import { decideChannelCheck, outputPulses, PIT_8254 } from './pit-8254.js';
import { RTC_MC146818 } from './rtc-mc146818.js';
import { decideReceive, uartRoom } from './uart-16550.js';
import { decideArrival, VIRTIO_NAMES, virtioRoom } from './virtio-mmio.js';

export { decideEndOfInterrupt, decideMessages } from './apic-bus.js';
export type {
  CpuSignal,
  Decision,
  DeviceEvent,
  DevicesState,
  MachineRequest,
} from './device-set.js';
export {
  DEVICE_EVENT_FIELDS,
  handOver,
  initialDevices,
  NO_DECISION,
  reduceClock,
  reduceDevices,
} from './device-set.js';
export { cpuInterruptPending, decideAcknowledge, decideInit, settle, signalsRouted } from './interrupt-wiring.js';
export { physicalID } from './local-apic-acceptance.js';
export { decideService } from './virtio-service.js';

// --- ports -----------------------------------------------------------------------------------------------------------

/** IN. @param size 1, 2 or 4. @returns undefined where no device answers. */
export function decidePortRead(
  state: DevicesState,
  port: number,
  size: number,
  now: Nanoseconds,
): ReadDecision<DeviceEvent> | undefined {
  const claim = portClaim(port, size);
  return claim?.slot.read(state, claim.register, size, now);
}

/** OUT. @param size 1, 2 or 4. @returns undefined where no device listens. */
export function decidePortWrite(
  state: DevicesState,
  port: number,
  value: number,
  size: number,
  now: Nanoseconds,
): Decision | undefined {
  const claim = portClaim(port, size);
  return claim && decision(claim.slot.write(state, claim.register, value, size, now));
}

// --- the memory map --------------------------------------------------------------------------------------------------

const PAGE = 4096;

/** The vCPU's own register page, which hides whatever else lies at that address. */
function inLocalApic(state: DevicesState, vcpu: number, address: number): boolean {
  const it = localApic(state, vcpu);
  return it.enabled && !it.x2apic && address >= it.base && address < it.base + PAGE;
}

/** Whether an access of this vCPU to this system-physical address reaches a device rather than RAM. */
export const isDeviceMemory = (state: DevicesState, vcpu: number, address: number): boolean =>
  inLocalApic(state, vcpu, address) || memoryClaim(state, address) !== undefined;

/** A read from device memory. @param size 1, 2 or 4: the machine splits wider ones. @returns undefined: unclaimed. */
export function decideMmioRead(
  state: DevicesState,
  vcpu: number,
  address: number,
  size: number,
  now: Nanoseconds,
): ReadDecision<DeviceEvent> | undefined {
  const it = localApic(state, vcpu);
  if (inLocalApic(state, vcpu, address)) return registers.decidePageRead(it, address - it.base, size, now);
  const claim = memoryClaim(state, address);
  return claim?.slot.read(state, claim.register, size, now);
}

/** A write to device memory. @param size 1, 2 or 4: the machine splits wider ones. @returns undefined: unclaimed. */
export function decideMmioWrite(
  state: DevicesState,
  vcpu: number,
  address: number,
  value: number,
  size: number,
  now: Nanoseconds,
): Decision | undefined {
  const it = localApic(state, vcpu);
  if (inLocalApic(state, vcpu, address)) {
    return localApicDecision(state, vcpu, registers.decidePageWrite(it, address - it.base, value, size, now), now);
  }
  const claim = memoryClaim(state, address);
  return claim && decision(claim.slot.write(state, claim.register, value, size, now));
}

/**
 * A write of 64 bits to device memory that its device takes as one.
 * @returns undefined: nobody does, and it is two of 32 bits.
 */
export function decideWideMmioWrite(
  state: DevicesState,
  vcpu: number,
  address: number,
  low: number,
  high: number,
  now: Nanoseconds,
): Decision | undefined {
  if (inLocalApic(state, vcpu, address)) return undefined;
  const claim = memoryClaim(state, address);
  if (claim?.slot.writeWide === undefined || claim.register % 8 !== 0) return undefined;
  return decision(claim.slot.writeWide(state, claim.register, low, high, now));
}

// --- MSRs and CR8 ----------------------------------------------------------------------------------------------------

/** What the devices need to know of the vCPU and its profile. */
export interface CpuContext {
  /** TSC = virtual nanoseconds + offset, modulo 2^64. */
  readonly tscOffset: bigint;
  readonly physicalAddressBits: number;
}

const isX2apicMsr = (msr: number): boolean => msr >= msrs.MSR_X2APIC_FIRST && msr <= msrs.MSR_X2APIC_LAST;

/** RDMSR of the local APIC's MSRs. @returns 'fault' for #GP(0), undefined for an MSR that is not a device's. */
export function readMsr(
  state: DevicesState,
  vcpu: number,
  msr: number,
  now: Nanoseconds,
): bigint | 'fault' | undefined {
  const it = localApic(state, vcpu);
  if (msr === msrs.MSR_APIC_BASE) return msrs.readApicBase(it);
  if (msr === msrs.MSR_TSC_DEADLINE && it.features.tscDeadline) return timer.tscDeadline(it);
  return isX2apicMsr(msr) ? (msrs.readX2apic(it, msr, now) ?? 'fault') : undefined;
}

/** WRMSR of the local APIC's MSRs. @returns 'fault' for #GP(0), undefined for an MSR that is not a device's. */
export function decideMsrWrite(
  state: DevicesState,
  vcpu: number,
  msr: number,
  value: bigint,
  now: Nanoseconds,
  context: CpuContext,
): Decision | 'fault' | undefined {
  const it = localApic(state, vcpu);
  if (msr === msrs.MSR_APIC_BASE) {
    const events = msrs.decideApicBase(it, value, context.physicalAddressBits);
    return events === undefined ? 'fault' : decision(events);
  }
  if (msr === msrs.MSR_TSC_DEADLINE && it.features.tscDeadline) {
    return decision(timer.decideTscDeadline(it, value, context.tscOffset, now));
  }
  if (!isX2apicMsr(msr)) return undefined;
  const written = msrs.decideX2apicWrite(it, msr, value, now);
  return written === undefined ? 'fault' : localApicDecision(state, vcpu, written, now);
}

/** Software moved a vCPU's TSC: an armed TSC deadline falls at another time. @param tscOffset the new one. */
export const decideTscMoved = (state: DevicesState, vcpu: number, tscOffset: bigint, now: Nanoseconds): Decision =>
  decision(timer.decideTscMoved(localApic(state, vcpu), tscOffset, now));

/** CR8: bits 7:4 of TPR (APM vol.2 §8.5.1 External Interrupts, Task Priority Register). */
export const readCR8 = (state: DevicesState, vcpu: number): number => localApic(state, vcpu).tpr >> 4;

export const decideCR8Write = (state: DevicesState, vcpu: number, value: number): Decision =>
  decision(registers.decideTaskPriority(localApic(state, vcpu), (value & 0xf) << 4));

/** The processor drives FERR#. */
export const decideNumericError = (state: DevicesState, asserted: boolean): Decision =>
  decision(decideFerr(state.coprocessor, asserted));

// --- inputs and deadlines --------------------------------------------------------------------------------------------

/** What an input from outside is to the devices; most are not theirs. */
export function decideInput(
  state: DevicesState,
  input: { readonly type: string; readonly data?: Uint8Array },
  now: Nanoseconds,
): Decision {
  if (input.type === 'input.nmi') return decideNmiButton(state);
  const data = [...(input.data ?? [])];
  if (input.type === 'input.serial') return decideSerialInput(state, data);
  return input.type === 'input.console' ? decideConsoleInput(state, data, now) : NO_DECISION;
}

/** Bytes that the serial port and the virtio console can take without loss. */
export const inputRoom = (state: DevicesState): { readonly serial: number; readonly console: number } => ({
  serial: serialRoom(state),
  console: consoleRoom(state),
});

/** Bytes arrive at the serial port (`input.serial`). More than `serialRoom` overrun the receiver, as on hardware. */
export const decideSerialInput = (state: DevicesState, data: readonly number[]): Decision =>
  decision(decideReceive(state.uart, data));

/** Bytes arrive at the virtio console (`input.console`). */
export const decideConsoleInput = (_state: DevicesState, data: readonly number[], now: Nanoseconds): Decision =>
  decision(decideArrival(data, now));

/** How many bytes the virtio console can take; none where there is none. */
export const consoleRoom = ({ virtioConsole }: DevicesState): number =>
  virtioConsole === undefined ? 0 : virtioRoom(virtioConsole);

/** Someone presses the NMI button: an I/O channel check. */
export const decideNmiButton = (state: DevicesState): Decision => decision(decideChannelCheck(state.pit));

/** How many bytes the serial port can take without loss. */
export const serialRoom = (state: DevicesState): number => uartRoom(state.uart);

/** A device that acts by itself, and what it does to the wires when it does. */
interface Timed {
  readonly nextDeadline: (state: DevicesState) => Nanoseconds | undefined;
  readonly act: (state: DevicesState, now: Nanoseconds, into: Delivery) => void;
}

const timed = <State, Event extends DeviceEvent>(
  select: (state: DevicesState) => State,
  device: Device<State, Event>,
  after: (state: DevicesState, events: readonly Event[], now: Nanoseconds, into: Delivery) => void = () => {},
): Timed => ({
  nextDeadline: (state) => device.nextDeadline(select(state)),
  act(state, now, into) {
    const events = device.decideDeadline(select(state), now);
    into.events.push(...events);
    after(state, events, now, into);
  },
});

const TIMER: Timed = timed(
  (state) => state.pit,
  PIT_8254,
  (state, _events, now, into) => {
    if (outputPulses(state.pit)) pulseTimer(state, now, into);
  },
);

/** All but the local APICs, in the order in which they act at the same time. */
const TIMED: readonly Timed[] = [
  { ...TIMER, nextDeadline: (state) => (timerIsHeard(state) ? TIMER.nextDeadline(state) : undefined) },
  timed((state) => state.rtc, RTC_MC146818),
  timed((state) => state.acpi, ACPI_PM),
  timed((state) => state.hpet, HPET_TIMERS, sendHpetEdges),
];

function sendHpetEdges(state: DevicesState, events: readonly HpetEvent[], now: Nanoseconds, into: Delivery): void {
  for (const event of events) {
    if (event.type !== 'hpet.fired') continue;
    for (const route of hpetEdges(state.hpet, event.timers)) sendHpetEdge(state, route, now, into);
  }
}

/** When a device next acts by itself: the head of the one queue of deadlines. */
export function nextDeadline(state: DevicesState): Nanoseconds | undefined {
  let next = Number.POSITIVE_INFINITY;
  for (const device of TIMED) next = Math.min(next, device.nextDeadline(state) ?? next);
  for (const it of state.localApics) next = Math.min(next, LOCAL_APIC.nextDeadline(it) ?? next);
  for (const name of VIRTIO_NAMES) next = Math.min(next, state[name]?.due ?? next);
  return next === Number.POSITIVE_INFINITY ? undefined : nanoseconds(next);
}

/** What the devices do whose deadlines have come; those that do it in RAM are asked by `decideService`. */
export function decideDeadline(state: DevicesState, now: Nanoseconds): Decision {
  const into: Delivery = { events: [], signals: [] };
  for (const device of TIMED) {
    const deadline = device.nextDeadline(state);
    if (deadline !== undefined && deadline <= now) device.act(state, now, into);
  }
  for (const it of state.localApics) into.events.push(...LOCAL_APIC.decideDeadline(it, now));
  return decision(into.events, into.signals);
}

/**
 * kvmclock: how a guest turns ticks of its TSC into nanoseconds since power-on, and those into wall-clock time.
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW.
 */
import type { View } from '../layout/layout.js';
import type { Nanoseconds } from '../units.js';
import { type CLOCK_PAIRING, ClockFlag, nextVersion, type VCPU_TIME, type WALL_CLOCK } from './structures.js';

const NANOSECONDS_IN_SECOND = 1_000_000_000n;
const FRACTION_BITS = 32n;

/** nanoseconds = ((ticks << shift) · multiplier) >> 32, where a negative shift is one to the right. */
export interface TimeScale {
  /** From 2^31 on, so that it has all its 32 bits. */
  readonly multiplier: number;
  readonly shift: number;
}

/** @param hertz of the TSC, at least 1. The result is never ahead of time, and behind by less than 2^-31 of it. */
export function timeScale(hertz: bigint): TimeScale {
  let nanoseconds = NANOSECONDS_IN_SECOND;
  let ticks = hertz;
  let shift = 0;
  for (; nanoseconds >= ticks; shift++) ticks *= 2n;
  for (; 2n * nanoseconds < ticks; shift--) nanoseconds *= 2n;
  return { multiplier: Number((nanoseconds << FRACTION_BITS) / ticks), shift };
}

export interface ClockReading {
  readonly tsc: bigint;
  readonly now: Nanoseconds;
  readonly scale: TimeScale;
  readonly isStable: boolean;
  /** The host has stopped the guest; what the guest has not yet cleared stays. */
  readonly wasStopped: boolean;
}

export function fillVcpuTime(fields: View<typeof VCPU_TIME.fields>, reading: ClockReading): void {
  const stopped = reading.wasStopped ? ClockFlag.GUEST_STOPPED : fields.flags & ClockFlag.GUEST_STOPPED;
  fields.version = nextVersion(fields.version);
  fields.pad0 = 0;
  fields.tscTimestamp = reading.tsc;
  fields.systemTime = BigInt(reading.now);
  fields.tscToSystemMul = reading.scale.multiplier;
  fields.tscShift = reading.scale.shift & 0xff;
  fields.flags = (reading.isStable ? ClockFlag.TSC_STABLE : 0) | stopped;
  fields.pad = 0;
}

/** @param unixSeconds at power-on, when system time was 0. */
export function fillWallClock(fields: View<typeof WALL_CLOCK.fields>, unixSeconds: number): void {
  fields.version = nextVersion(fields.version);
  fields.seconds = unixSeconds;
  fields.nanoseconds = 0;
}

export function fillClockPairing(
  fields: View<typeof CLOCK_PAIRING.fields>,
  { unixSeconds, now, tsc }: { readonly unixSeconds: number; readonly now: Nanoseconds; readonly tsc: bigint },
): void {
  fields.seconds = BigInt(unixSeconds) + BigInt(now) / NANOSECONDS_IN_SECOND;
  fields.nanoseconds = BigInt(now) % NANOSECONDS_IN_SECOND;
  fields.tsc = tsc;
  fields.flags = 0;
  fields.pad.fill(0);
}

/**
 * The structures that KVM keeps in guest RAM.
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst, KVM-specific MSRs; hypercalls.rst, KVM_HC_CLOCK_PAIRING.
 */
import { bytes, layout, u8, u16, u32, u64 } from '../layout/layout.js';

/**
 * What follows a version: it is odd while a structure is written, and even after. Guests may leave an odd one there.
 * @returns the even version after an update.
 */
export const nextVersion = (version: number): number => (version + 2 + (version & 1)) >>> 0;

export const WALL_CLOCK = layout('pvclock_wall_clock', 12, {
  version: u32(0, 'changes with each update; odd while one is under way'),
  seconds: u32(4, 'wall-clock time at power-on, since 1970'),
  nanoseconds: u32(8, 'the rest of it'),
});

export const VCPU_TIME = layout('pvclock_vcpu_time_info', 32, {
  version: u32(0, 'changes with each update; odd while one is under way'),
  pad0: u32(4, 'zero'),
  tscTimestamp: u64(8, 'TSC at the update'),
  systemTime: u64(16, 'nanoseconds at the update'),
  tscToSystemMul: u32(24, 'factor from shifted ticks to nanoseconds, as a fraction of 2^32'),
  tscShift: u8(28, 'left shift of ticks before the factor; signed'),
  flags: u8(29, 'PVCLOCK_TSC_STABLE, PVCLOCK_GUEST_STOPPED'),
  pad: u16(30, 'zero'),
});

/** Bits of `flags`. */
export const ClockFlag = {
  /** Times that vCPUs read follow each other as the readings do. */
  TSC_STABLE: 1,
  /** The host has stopped the guest since the guest last cleared this. */
  GUEST_STOPPED: 2,
} as const;

export const STEAL_TIME = layout('kvm_steal_time', 64, {
  steal: u64(0, 'nanoseconds in which the vCPU was ready but did not run'),
  version: u32(8, 'changes with each update; odd while one is under way'),
  flags: u32(12, 'zero'),
  preempted: u8(16, 'bits of Preempted'),
  pad: bytes(17, 47, 'the rest of 64 bytes'),
});

/** Bits of `preempted`. */
export const Preempted = {
  /** The vCPU could run, but does not. */
  PREEMPTED: 1,
  /** Another one asks that its translations are dropped before it runs. */
  FLUSH_TLB: 2,
} as const;

export const ASYNC_PF_DATA = layout('kvm_vcpu_pv_apf_data', 8, {
  flags: u32(0, 'bit 0: the #PF that comes now is "page not present"'),
  token: u32(4, 'of the page that is ready; the guest clears it'),
});
/** KVM_PV_REASON_PAGE_NOT_PRESENT. */
export const PAGE_NOT_PRESENT = 1;

export const CLOCK_PAIRING = layout('kvm_clock_pairing', 64, {
  seconds: u64(0, 'wall-clock time, since 1970'),
  nanoseconds: u64(8, 'the rest of it'),
  tsc: u64(16, 'TSC at that time'),
  flags: u32(24, 'zero'),
  pad: bytes(28, 36, 'zero'),
});

/**
 * KVM's model-specific registers: their numbers, and which values a write refuses.
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst, KVM-specific MSRs.
 */
export const KvmMsr = {
  /** The old pair, outside KVM's range. */
  WALL_CLOCK: 0x11,
  SYSTEM_TIME: 0x12,
  WALL_CLOCK_NEW: 0x4b56_4d00,
  SYSTEM_TIME_NEW: 0x4b56_4d01,
  ASYNC_PF_EN: 0x4b56_4d02,
  STEAL_TIME: 0x4b56_4d03,
  EOI_EN: 0x4b56_4d04,
  POLL_CONTROL: 0x4b56_4d05,
  ASYNC_PF_INT: 0x4b56_4d06,
  ASYNC_PF_ACK: 0x4b56_4d07,
  MIGRATION_CONTROL: 0x4b56_4d08,
} as const;

/** Bit 0 of the registers that hold an address. */
export const ENABLED = 1n;

/** Bits of ASYNC_PF_EN. */
export const AsyncPf = {
  ENABLED: 1n,
  /** At privilege level 0, too. */
  SEND_ALWAYS: 1n << 1n,
  /** L1 takes #VMEXITs for the pages that L2 misses. */
  AS_VMEXIT: 1n << 2n,
  /** Pages that are ready are told by an interrupt. */
  AS_INTERRUPT: 1n << 3n,
  RESERVED: 3n << 4n,
  ADDRESS: ~0x3fn,
} as const;

/** Nothing is delivered without the interrupt: "page ready" exceptions are gone from KVM. */
const ASYNC_PF_WORKS = AsyncPf.ENABLED | AsyncPf.AS_INTERRUPT;
export const asyncPfWorks = (value: bigint): boolean => (value & ASYNC_PF_WORKS) === ASYNC_PF_WORKS;
/** Bytes of the area at its address that are used: flags and token. */
const ASYNC_PF_BYTES = 8;

/** Bits 5:1: the structure lies at a multiple of 64. */
const STEAL_TIME_RESERVED = 0x3en;
const EOI_RESERVED = 2n;
const EOI_BYTES = 4;

/** @param isRam whether so many bytes there are RAM. @returns false for #GP(0). */
export function acceptsKvmMsr(
  msr: number,
  value: bigint,
  isRam: (address: bigint, length: number) => boolean,
): boolean {
  switch (msr) {
    case KvmMsr.ASYNC_PF_EN:
      if ((value & AsyncPf.RESERVED) !== 0n) return false;
      return !asyncPfWorks(value) || isRam(value & AsyncPf.ADDRESS, ASYNC_PF_BYTES);
    case KvmMsr.STEAL_TIME:
      return (value & STEAL_TIME_RESERVED) === 0n;
    case KvmMsr.EOI_EN:
      if ((value & EOI_RESERVED) !== 0n) return false;
      return (value & ENABLED) === 0n || isRam(value & ~ENABLED, EOI_BYTES);
    case KvmMsr.POLL_CONTROL:
    case KvmMsr.MIGRATION_CONTROL:
      return value <= 1n;
    case KvmMsr.ASYNC_PF_INT:
      return value <= 0xffn;
    default: // clocks take any address, and leave one that is not RAM alone; ASYNC_PF_ACK looks at bit 0
      return true;
  }
}

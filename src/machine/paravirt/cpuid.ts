/**
 * KVM's CPUID leaves: who the hypervisor is, and what of its interface there is here.
 * Source: Linux, Documentation/virt/kvm/x86/cpuid.rst, KVM CPUID bits.
 */
import type { CpuidLeaf } from '../cpu/cpuid.js';

const KVM_SIGNATURE_LEAF = 0x4000_0000;
const KVM_FEATURES_LEAF = 0x4000_0001;

/** Bits of EAX. All that KVM has, but for MMU_OP (2), which is gone, and MSI_EXT_DEST_ID (15), as there are no MSIs. */
export const KvmFeature = {
  CLOCKSOURCE: 0,
  NOP_IO_DELAY: 1,
  CLOCKSOURCE2: 3,
  ASYNC_PF: 4,
  STEAL_TIME: 5,
  PV_EOI: 6,
  PV_UNHALT: 7,
  PV_TLB_FLUSH: 9,
  ASYNC_PF_VMEXIT: 10,
  PV_SEND_IPI: 11,
  POLL_CONTROL: 12,
  PV_SCHED_YIELD: 13,
  ASYNC_PF_INT: 14,
  HC_MAP_GPA_RANGE: 16,
  MIGRATION_CONTROL: 17,
  CLOCKSOURCE_STABLE: 24,
} as const;

const FEATURES = Object.values(KvmFeature).reduce<number>((word, bit) => word + 2 ** bit, 0);
/** EDX: vCPUs are never preempted for an unlimited time. Several of them share one processor, and should not spin. */
const HINTS_REALTIME = 1;

/** "KVMKVMKVM\0\0\0" in EBX, ECX and EDX. */
const SIGNATURE = { ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d };
const ZERO: CpuidLeaf = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

export function kvmLeaf(leaf: number, vcpus: number): CpuidLeaf {
  switch (leaf >>> 0) {
    case KVM_SIGNATURE_LEAF:
      return { eax: KVM_FEATURES_LEAF, ...SIGNATURE };
    case KVM_FEATURES_LEAF:
      return { eax: FEATURES, ebx: 0, ecx: 0, edx: vcpus === 1 ? HINTS_REALTIME : 0 };
    default:
      return ZERO;
  }
}

/**
 * The rows of the MSR table that an L0 answers. On bare hardware they are unknown.
 * Source: Linux, Documentation/virt/kvm/x86/msr.rst, KVM-specific MSRs.
 */
import type { MsrRow } from '../cpu/msr-row.js';
import { generalProtection } from '../faults.js';
import { KvmMsr } from './msr.js';

const row = (msr: number, count: number, name: string): MsrRow => ({
  msr,
  count,
  name,
  source: 'Linux, Documentation/virt/kvm/x86/msr.rst, KVM-specific MSRs',
  read: ({ paravirt, vcpu }, index) => paravirt?.readMsr(vcpu, msr + index),
  write({ paravirt, vcpu }, value, index) {
    if (paravirt === undefined) return false;
    if (!paravirt.writeMsr(vcpu, msr + index, value)) throw generalProtection();
    return true;
  },
});

export const KVM_MSR_ROWS: readonly MsrRow[] = [
  row(KvmMsr.WALL_CLOCK, 2, 'KVM_WALL_CLOCK, KVM_SYSTEM_TIME'),
  row(
    KvmMsr.WALL_CLOCK_NEW,
    KvmMsr.MIGRATION_CONTROL - KvmMsr.WALL_CLOCK_NEW + 1,
    'KVM_WALL_CLOCK_NEW to KVM_MIGRATION_CONTROL',
  ),
];

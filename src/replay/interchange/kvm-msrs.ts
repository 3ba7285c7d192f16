/**
 * kvm_msrs of a vCPU: the model-specific registers that the machine keeps, by number. Those that are part of other structures
 * (EFER, FS.base, GS.base, the APIC's) stand there.
 * Source: APM vol.2 appendix A MSR Cross-Reference; Linux, Documentation/virt/kvm/api.rst, KVM_GET_MSRS.
 */
import { InputError, isStoredMsr, R, type RegisterName, type Slot, tscDeadline } from '../../machine/index.js';
import type { MsrEntry } from './kvm-structs.js';
import type { VcpuPlace, VcpuState } from './kvm-vcpu.js';

const SLOTS: readonly (readonly [index: number, name: RegisterName])[] = [
  ...([
    [0x48, 'specCtrl'],
    [0x9e, 'smBase'],
  ] as const),
  ...([
    [0x174, 'sysenterCs'],
    [0x175, 'sysenterEsp'],
    [0x176, 'sysenterEip'],
  ] as const),
  ...([
    [0x17a, 'mcgStatus'],
    [0x17b, 'mcgCtl'],
    [0x1a0, 'miscEnable'],
    [0x1d9, 'debugCtl'],
  ] as const),
  ...([
    [0x1db, 'lastBranchFrom'],
    [0x1dc, 'lastBranchTo'],
    [0x1dd, 'lastIntFrom'],
    [0x1de, 'lastIntTo'],
  ] as const),
  ...Array.from({ length: 8 }, (_, range) => [
    [0x200 + 2 * range, `mtrrBase${range}` as RegisterName] as const,
    [0x201 + 2 * range, `mtrrMask${range}` as RegisterName] as const,
  ]).flat(),
  ...([
    [0x250, 'mtrrFix64K0'],
    [0x258, 'mtrrFix16K0'],
    [0x259, 'mtrrFix16K1'],
  ] as const),
  ...Array.from({ length: 8 }, (_, index) => [0x268 + index, `mtrrFix4K${index}` as RegisterName] as const),
  ...([
    [0x277, 'pat'],
    [0x2ff, 'mtrrDefType'],
    [0xda0, 'xss'],
  ] as const),
  ...([
    [0xc000_0081, 'star'],
    [0xc000_0082, 'lstar'],
    [0xc000_0083, 'cstar'],
    [0xc000_0084, 'sfmask'],
  ] as const),
  ...([
    [0xc000_0102, 'kernelGsBase'],
    [0xc000_0103, 'tscAux'],
    [0xc000_0104, 'tscRatio'],
  ] as const),
  ...([
    [0xc001_0010, 'syscfg'],
    [0xc001_0015, 'hwcr'],
  ] as const),
  ...([
    [0xc001_0114, 'vmCr'],
    [0xc001_0117, 'vmHsavePA'],
  ] as const),
];
const BY_INDEX: ReadonlyMap<number, Slot> = new Map(SLOTS.map(([index, name]) => [index, R[name]]));
const TSC = 0x10;
const TSC_DEADLINE = 0x6e0;

/** In ascending order. */
export function readMsrs({ registers, msrs, apic }: VcpuState, { now }: VcpuPlace): readonly MsrEntry[] {
  const entries: MsrEntry[] = [
    [TSC, BigInt.asUintN(64, (registers[R.tscBase] as bigint) + BigInt(now))],
    [TSC_DEADLINE, tscDeadline(apic)],
    ...SLOTS.map(([index, name]): MsrEntry => [index, registers[R[name]] as bigint]),
    ...Object.entries(msrs).map(([index, value]): MsrEntry => [Number(index), value]),
  ];
  return entries.sort(([a], [b]) => a - b);
}

/**
 * @returns the TSC deadline, which belongs to the APIC.
 * @throws InputError for an MSR that the machine does not keep, or that is there twice.
 */
export function writeMsrs(vcpu: VcpuState, entries: readonly MsrEntry[], { now }: VcpuPlace, name: string): bigint {
  const seen = new Set<number>();
  let deadline = 0n;
  vcpu.msrs = {};
  for (const [index, data] of entries) {
    const number = `MSR ${index.toString(16)}h`;
    if (seen.has(index)) throw new InputError(name, `${number} is there twice`, 'Leave one out.');
    seen.add(index);
    const slot = BY_INDEX.get(index);
    if (index === TSC) vcpu.registers[R.tscBase] = BigInt.asUintN(64, data - BigInt(now));
    else if (index === TSC_DEADLINE) deadline = data;
    else if (slot !== undefined) vcpu.registers[slot] = data;
    else if (isStoredMsr(index)) vcpu.msrs[String(index)] = data;
    else throw new InputError(name, `this machine keeps no ${number}`, 'Leave it out, and note that it is.');
  }
  return deadline;
}

/**
 * KVM's nested state for SVM: the header, and while an L2 runs a VMCB whose control area is what the processor took over at
 * VMRUN, and whose save area holds L1's registers, not L2's.
 *
 * Source: Linux, Documentation/virt/kvm/api.rst, KVM_GET_NESTED_STATE, and arch/x86/kvm/svm/nested.c for what of the VMCB KVM
 * fills and reads; APM vol.2 §15.5.1 Basic Operation, appendix B VMCB Layout.
 */
import { Boundary, NestedControl, R, type RegisterName, type Slot, SvmMode, VMCB } from '../../machine/index.js';
import {
  decodeStruct,
  encodeStruct,
  KVM_NESTED_STATE,
  NESTED_FORMAT_SVM,
  NESTED_VMCB_BYTES,
  NestedFlag,
  type StructValues,
} from './kvm-structs.js';
import type { VcpuState } from './kvm-vcpu.js';

type VmcbField = keyof typeof VMCB.fields;

/** Control fields that the processor has a copy of, under the same meaning: field, and slot. */
const CONTROLS: readonly (readonly [field: VmcbField, slot: RegisterName])[] = [
  ...([
    ['interceptCr', 'interceptCr'],
    ['interceptDr', 'interceptDr'],
  ] as const),
  ...([
    ['interceptExceptions', 'interceptExceptions'],
    ['intercept3', 'intercept3'],
  ] as const),
  ...([
    ['intercept4', 'intercept4'],
    ['intercept5', 'intercept5'],
  ] as const),
  ...([
    ['iopmBasePA', 'iopmBase'],
    ['msrpmBasePA', 'msrpmBase'],
    ['tscOffset', 'tscOffset'],
  ] as const),
  ...([
    ['guestASID', 'guestAsid'],
    ['intControl', 'intControl'],
    ['exitIntInfo', 'exitIntInfo'],
  ] as const),
  ...([
    ['nestedControl', 'nestedControl'],
    ['eventInj', 'eventInjection'],
    ['nCR3', 'nestedCr3'],
  ] as const),
  ...([
    ['virtExt', 'virtExt'],
    ['nRIP', 'eventNextRip'],
    ['busLockCounter', 'busLocks'],
  ] as const),
  ...([
    ['avicApicBar', 'avicApicBar'],
    ['avicBackingPage', 'avicBackingPage'],
  ] as const),
  ...([
    ['avicLogicalTable', 'avicLogicalTable'],
    ['avicPhysicalTable', 'avicPhysicalTable'],
  ] as const),
];

/** L1's registers in the save area. */
const SAVED: readonly (readonly [field: VmcbField, slot: RegisterName])[] = [
  ...([
    ['es', 'hostEs'],
    ['esBase', 'hostEsBase'],
    ['cs', 'hostCs'],
    ['csBase', 'hostCsBase'],
  ] as const),
  ...([
    ['ss', 'hostSs'],
    ['ssBase', 'hostSsBase'],
    ['ds', 'hostDs'],
    ['dsBase', 'hostDsBase'],
  ] as const),
  ...([
    ['gdtrLimit', 'hostGdtrLimit'],
    ['gdtrBase', 'hostGdtrBase'],
  ] as const),
  ...([
    ['idtrLimit', 'hostIdtrLimit'],
    ['idtrBase', 'hostIdtrBase'],
  ] as const),
  ...([
    ['efer', 'hostEfer'],
    ['cr0', 'hostCr0'],
    ['cr3', 'hostCr3'],
    ['cr4', 'hostCr4'],
  ] as const),
  ...([
    ['rip', 'hostRip'],
    ['rsp', 'hostRsp'],
    ['rax', 'hostRax'],
  ] as const),
  ...([
    ['debugCtl', 'hostDebugCtl'],
    ['lastBranchFrom', 'hostLastBranchFrom'],
  ] as const),
  ...([
    ['lastBranchTo', 'hostLastBranchTo'],
    ['lastIntFrom', 'hostLastIntFrom'],
    ['lastIntTo', 'hostLastIntTo'],
  ] as const),
];

const LOW = 0xffff_ffffn;
const EVENT_VALID = 1n << 31n;
const DR6_RESET = 0xffff_0ff0n;
const DR7_RESET = 0x400n;
const IF = 1n << 9n;

const viewOf = (bytes: Uint8Array) =>
  VMCB.at(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), KVM_NESTED_STATE.bytes);

/** 128 bytes while L1 runs, 4224 while an L2 does. */
export function readNested({ registers }: VcpuState): Uint8Array {
  const of = (slot: Slot): bigint => registers[slot] as bigint;
  const mode = of(R.svmMode);
  const inGuest = (mode & SvmMode.GUEST) !== 0n;
  const pending = inGuest && (of(R.eventInjection) & EVENT_VALID) !== 0n;
  const size = KVM_NESTED_STATE.bytes + (inGuest ? NESTED_VMCB_BYTES : 0);
  const bytes = new Uint8Array(size);
  const header = {
    flags:
      (inGuest ? NestedFlag.GUEST_MODE : 0n) |
      (pending ? NestedFlag.RUN_PENDING : 0n) |
      ((mode & SvmMode.GIF) === 0n ? 0n : NestedFlag.GIF_SET),
    format: NESTED_FORMAT_SVM,
    size: BigInt(size),
    vmcb_pa: inGuest ? of(R.vmcb) : 0n,
    gpat: inGuest && (of(R.nestedControl) & NestedControl.NP_ENABLE) !== 0n ? of(R.guestPat) : 0n,
  };
  bytes.set(encodeStruct(KVM_NESTED_STATE, header));
  if (!inGuest) return bytes;
  const vmcb = viewOf(bytes) as unknown as Record<string, bigint | number>;
  const put = (field: VmcbField, value: bigint): void => {
    const { kind, bytes: width } = VMCB.fields[field];
    vmcb[field] = kind === 'u64' ? value : Number(BigInt.asUintN(8 * width, value));
  };
  for (const [field, slot] of [...CONTROLS, ...SAVED]) put(field, of(R[slot]));
  // The remaining count stands below what it is reloaded from.
  put('pauseFilterCount', of(R.pauseFilter) >> 48n);
  put('pauseFilterThreshold', (of(R.pauseFilter) >> 32n) & 0xffffn);
  put('intShadow', (of(R.boundary) & Boundary.INTERRUPT_SHADOW) === 0n ? 0n : 1n);
  put('rflags', of(R.hostRflags) & LOW);
  put('dr6', DR6_RESET);
  put('dr7', DR7_RESET);
  return bytes;
}

/** Fields of the VMCB behind the header, as far as it is there and they are numbers. */
export function nestedVmcbFields(bytes: Uint8Array): StructValues {
  if (bytes.length < KVM_NESTED_STATE.bytes + NESTED_VMCB_BYTES) return {};
  const vmcb = viewOf(bytes) as unknown as Readonly<Record<string, bigint | number>>;
  return Object.fromEntries(
    Object.entries(VMCB.fields)
      .filter(([, { kind }]) => kind !== 'bytes')
      .map(([name]) => [`vmcb.${name}`, BigInt(vmcb[name] as bigint | number)]),
  );
}

/** @param bytes 128 or 4224, as `lintNestedState` lets pass. */
export function writeNested({ registers }: VcpuState, bytes: Uint8Array): void {
  const { flags = 0n, vmcb_pa = 0n, gpat = 0n } = decodeStruct(KVM_NESTED_STATE, bytes);
  const inGuest = (flags & NestedFlag.GUEST_MODE) !== 0n;
  let mode = (flags & NestedFlag.GIF_SET) === 0n ? 0n : SvmMode.GIF;
  if (inGuest) {
    mode |= SvmMode.GUEST;
    const vmcb = viewOf(bytes) as unknown as Readonly<Record<string, bigint | number>>;
    const of = (field: VmcbField): bigint => BigInt(vmcb[field] as bigint | number);
    for (const [field, slot] of [...CONTROLS, ...SAVED]) registers[R[slot]] = of(field);
    const count = of('pauseFilterCount');
    registers[R.pauseFilter] = count | (of('pauseFilterThreshold') << 32n) | (count << 48n);
    registers[R.hostRflags] = of('rflags');
    registers[R.vmcb] = vmcb_pa;
    registers[R.guestPat] = gpat;
    if ((of('rflags') & IF) !== 0n) mode |= SvmMode.HOST_IF;
    if ((of('eventInj') & EVENT_VALID) === 0n) {
      registers[R.eventInjection] = 0n;
      registers[R.eventNextRip] = 0n;
    }
  }
  registers[R.svmMode] = mode;
}

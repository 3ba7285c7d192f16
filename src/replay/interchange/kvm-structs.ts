/**
 * The structures in which Linux's KVM gives and takes the state of an x86 vCPU: field by field, little-endian.
 * Source: Linux, Documentation/virt/kvm/api.rst, and arch/x86/include/uapi/asm/kvm.h for order and padding.
 */

interface StructField {
  readonly name: string;
  readonly offset: number;
  readonly bytes: number;
}

export interface Struct {
  readonly name: string;
  readonly bytes: number;
  readonly fields: readonly StructField[];
}

/** Fields by name. */
export type StructValues = Readonly<Record<string, bigint>>;

type Sized = readonly [name: string, bytes: number];

/** Fields one after another; `_` is padding. */
function struct(name: string, fields: readonly Sized[]): Struct {
  let offset = 0;
  const placed: StructField[] = [];
  for (const [field, bytes] of fields) {
    if (field !== '_') placed.push({ name: field, offset, bytes });
    offset += bytes;
  }
  return { name, bytes: offset, fields: placed };
}

const all = (bytes: number, ...names: readonly string[]): readonly Sized[] => names.map((name) => [name, bytes]);
const within = (name: string, fields: readonly Sized[]): readonly Sized[] =>
  fields.map(([field, bytes]) => [field === '_' ? '_' : `${name}.${field}`, bytes]);
const numbered = (name: string, count: number, bytes: number): readonly Sized[] =>
  Array.from({ length: count }, (_, index) => [`${name}${index}`, bytes]);

const SEGMENT: readonly Sized[] = [
  ...all(8, 'base'),
  ...all(4, 'limit'),
  ...all(2, 'selector'),
  ...all(1, 'type', 'present', 'dpl', 'db', 's', 'l', 'g', 'avl', 'unusable', '_'),
];
const TABLE: readonly Sized[] = [...all(8, 'base'), ...all(2, 'limit'), ['_', 6]];
const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;
const SREGS: readonly Sized[] = [
  ...SEGMENTS.flatMap((name) => within(name, SEGMENT)),
  ...['gdt', 'idt'].flatMap((name) => within(name, TABLE)),
  ...all(8, 'cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'apic_base'),
];

export const KVM_REGS = struct('kvm_regs', [
  ...all(8, 'rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp'),
  ...all(8, 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'),
]);

export const KVM_SREGS = struct('kvm_sregs', [...SREGS, ...numbered('interrupt_bitmap', 4, 8)]);

/** flags: bit 0, the PDPTEs count. */
export const KVM_SREGS2 = struct('kvm_sregs2', [...SREGS, ['flags', 8], ...numbered('pdptr', 4, 8)]);

export const KVM_DEBUGREGS = struct('kvm_debugregs', [
  ...numbered('db', 4, 8),
  ...all(8, 'dr6', 'dr7', 'flags'),
  ['_', 72],
]);

/** One register, XCR0, of the sixteen that there is room for. */
export const KVM_XCRS = struct('kvm_xcrs', [
  ...all(4, 'nr_xcrs', 'flags', 'xcr', '_'),
  ['value', 8],
  ['_', 15 * 16 + 16 * 8],
]);

export const KVM_VCPU_EVENTS = struct('kvm_vcpu_events', [
  ...within('exception', [...all(1, 'injected', 'nr', 'has_error_code', 'pending'), ['error_code', 4]]),
  ...within('interrupt', all(1, 'injected', 'nr', 'soft', 'shadow')),
  ...within('nmi', all(1, 'injected', 'pending', 'masked', '_')),
  ...all(4, 'sipi_vector', 'flags'),
  ...within('smi', all(1, 'smm', 'pending', 'smm_inside_nmi', 'latched_init')),
  ...within('triple_fault', all(1, 'pending')),
  ['_', 26],
  ...all(1, 'exception_has_payload'),
  ...all(8, 'exception_payload'),
]);

export const KVM_MP_STATE = struct('kvm_mp_state', [['mp_state', 4]]);

/** The header; a VMCB follows it while a guest runs. `gpat` is younger than the rest. */
export const KVM_NESTED_STATE = struct('kvm_nested_state', [
  ...all(2, 'flags', 'format'),
  ...all(4, 'size'),
  ...all(8, 'vmcb_pa', 'gpat'),
  ['_', 104],
]);

export const KVM_LAPIC_BYTES = 0x400;
export const KVM_XSAVE_BYTES = 4096;
export const NESTED_VMCB_BYTES = 4096;

/** Flags of kvm_nested_state. */
export const NestedFlag = { GUEST_MODE: 1n, RUN_PENDING: 2n, EVMCS: 4n, MTF_PENDING: 8n, GIF_SET: 0x100n } as const;
export const NESTED_FORMAT_SVM = 1n;

/** Flags of kvm_vcpu_events: which of its fields count. */
export const EventFlag = {
  NMI_PENDING: 1n,
  SIPI: 2n,
  SHADOW: 4n,
  SMM: 8n,
  PAYLOAD: 0x10n,
  TRIPLE_FAULT: 0x20n,
} as const;

export const MpState = { RUNNABLE: 0n, UNINITIALIZED: 1n, INIT_RECEIVED: 2n, HALTED: 3n, SIPI_RECEIVED: 4n } as const;

/** Padding, and fields without a value, are zero. */
export function encodeStruct({ bytes: length, fields }: Struct, values: StructValues): Uint8Array {
  const bytes = new Uint8Array(length);
  for (const { name, offset, bytes: width } of fields) {
    const value = values[name] ?? 0n;
    for (let at = 0; at < width; at++) bytes[offset + at] = Number((value >> BigInt(8 * at)) & 0xffn);
  }
  return bytes;
}

/** @param bytes at least as many as the structure has. */
export function decodeStruct({ fields }: Struct, bytes: Uint8Array): Record<string, bigint> {
  const values: Record<string, bigint> = {};
  for (const { name, offset, bytes: width } of fields) {
    let value = 0n;
    for (let at = width - 1; at >= 0; at--) value = (value << 8n) | BigInt(bytes[offset + at] as number);
    values[name] = value;
  }
  return values;
}

/** An entry of kvm_msrs. */
export type MsrEntry = readonly [index: number, data: bigint];
const MSRS_HEADER = 8;
const MSR_ENTRY = 16;

export function encodeMsrs(entries: readonly MsrEntry[]): Uint8Array {
  const bytes = new Uint8Array(MSRS_HEADER + MSR_ENTRY * entries.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, entries.length, true);
  for (const [number, [index, data]] of entries.entries()) {
    view.setUint32(MSRS_HEADER + MSR_ENTRY * number, index, true);
    view.setBigUint64(MSRS_HEADER + MSR_ENTRY * number + 8, data, true);
  }
  return bytes;
}

/** @returns undefined when the number of entries is not that of the bytes. */
export function decodeMsrs(bytes: Uint8Array): readonly MsrEntry[] | undefined {
  if (bytes.length < MSRS_HEADER) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const count = view.getUint32(0, true);
  if (bytes.length !== MSRS_HEADER + MSR_ENTRY * count) return undefined;
  return Array.from({ length: count }, (_, number) => {
    const at = MSRS_HEADER + MSR_ENTRY * number;
    return [view.getUint32(at, true), view.getBigUint64(at + 8, true)];
  });
}

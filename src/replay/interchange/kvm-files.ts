/**
 * The files of a vCPU: which structure each has, how it is made from the vCPU's state, and how all of them together make a
 * vCPU again. What contradicts itself or what this machine cannot have is refused by name.
 */
import { apicPage, apicWithPage, cr4Mask, EFER, eferMask, InputError, R, xcr0Mask } from '../../machine/index.js';
import { readMsrs, writeMsrs } from './kvm-msrs.js';
import { nestedVmcbFields, readNested, writeNested } from './kvm-nested.js';
import {
  decodeMsrs,
  decodeStruct,
  encodeMsrs,
  encodeStruct,
  KVM_DEBUGREGS,
  KVM_LAPIC_BYTES,
  KVM_MP_STATE,
  KVM_NESTED_STATE,
  KVM_REGS,
  KVM_SREGS,
  KVM_SREGS2,
  KVM_VCPU_EVENTS,
  KVM_XCRS,
  KVM_XSAVE_BYTES,
  type MsrEntry,
  NESTED_VMCB_BYTES,
  type Struct,
  type StructValues,
} from './kvm-structs.js';
import {
  readDebugregs,
  readEvents,
  readMpState,
  readRegs,
  readSregs,
  type VcpuPlace,
  type VcpuState,
  writeDebugregs,
  writeEvents,
  writeMpState,
  writeRegs,
  writeSregs,
} from './kvm-vcpu.js';
import { lintNestedState } from './lint-nested-state.js';
import { registersOfXsave, xsaveArea, xsaveFields } from './xsave-area.js';

/** In an order in which KVM takes them: nested state behind sregs, events and the MP state last. */
export const STRUCTS = [
  ...(['kvm_sregs', 'kvm_sregs2', 'kvm_regs', 'kvm_xcrs', 'kvm_xsave', 'kvm_debugregs', 'kvm_lapic_state'] as const),
  ...(['kvm_msrs', 'kvm_nested_state', 'kvm_vcpu_events', 'kvm_mp_state'] as const),
] as const;
export type StructName = (typeof STRUCTS)[number];

/** Structures with a table of fields and one length. */
const TABLES: Readonly<Partial<Record<StructName, Struct>>> = {
  kvm_regs: KVM_REGS,
  kvm_sregs: KVM_SREGS,
  kvm_sregs2: KVM_SREGS2,
  kvm_xcrs: KVM_XCRS,
  kvm_debugregs: KVM_DEBUGREGS,
  kvm_vcpu_events: KVM_VCPU_EVENTS,
  kvm_mp_state: KVM_MP_STATE,
};

/** Of those that have no such table; several lengths where a structure has several. */
const LENGTHS: Readonly<Partial<Record<StructName, readonly number[]>>> = {
  kvm_xsave: [KVM_XSAVE_BYTES],
  kvm_lapic_state: [KVM_LAPIC_BYTES],
  kvm_nested_state: [KVM_NESTED_STATE.bytes, KVM_NESTED_STATE.bytes + NESTED_VMCB_BYTES],
};

export function structBytes(name: StructName, vcpu: VcpuState, place: VcpuPlace): Uint8Array {
  switch (name) {
    case 'kvm_regs':
      return encodeStruct(KVM_REGS, readRegs(vcpu));
    case 'kvm_sregs':
      return encodeStruct(KVM_SREGS, readSregs(vcpu));
    case 'kvm_sregs2':
      return encodeStruct(KVM_SREGS2, readSregs(vcpu));
    case 'kvm_xcrs':
      return encodeStruct(KVM_XCRS, { nr_xcrs: 1n, value: vcpu.registers[R.xcr0] as bigint });
    case 'kvm_xsave':
      return xsaveArea(vcpu.registers, xcr0Mask(place.profile), KVM_XSAVE_BYTES);
    case 'kvm_debugregs':
      return encodeStruct(KVM_DEBUGREGS, readDebugregs(vcpu));
    case 'kvm_lapic_state':
      return apicPage(vcpu.apic, place.now);
    case 'kvm_msrs':
      return encodeMsrs(readMsrs(vcpu, place));
    case 'kvm_nested_state':
      return readNested(vcpu);
    case 'kvm_vcpu_events':
      return encodeStruct(KVM_VCPU_EVENTS, readEvents(vcpu));
    case 'kvm_mp_state':
      return encodeStruct(KVM_MP_STATE, readMpState(vcpu));
  }
}

/** Values by field; of MSRs by number, of the APIC by offset. @param bytes of a length that fits. */
export function structFields(name: StructName, bytes: Uint8Array): StructValues {
  const table = TABLES[name];
  if (table !== undefined) return decodeStruct(table, bytes);
  if (name === 'kvm_nested_state') return { ...decodeStruct(KVM_NESTED_STATE, bytes), ...nestedVmcbFields(bytes) };
  if (name === 'kvm_xsave') return xsaveFields(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const entries: readonly MsrEntry[] =
    name === 'kvm_msrs'
      ? (decodeMsrs(bytes) ?? [])
      : Array.from({ length: bytes.length / 16 }, (_, at) => [16 * at, BigInt(view.getUint32(16 * at, true))]);
  return Object.fromEntries(entries.map(([index, data]) => [`0x${index.toString(16).padStart(3, '0')}`, data]));
}

/** @returns what is wrong with a file's length. */
export function lengthProblem(name: StructName, bytes: Uint8Array): string | undefined {
  if (name === 'kvm_msrs') {
    return decodeMsrs(bytes) === undefined
      ? `its ${bytes.length} bytes do not hold the entries that nmsrs counts`
      : undefined;
  }
  const lengths = LENGTHS[name] ?? [TABLES[name]?.bytes ?? 0];
  return lengths.includes(bytes.length)
    ? undefined
    : `it has ${bytes.length} bytes, and ${name} has ${lengths.join(' or ')}`;
}

const REMEDY = 'Take both from the same moment.';

/**
 * Makes a vCPU what the structures say. What they do not say stays as it is.
 * @param contents of lengths that fit; kvm_sregs or kvm_sregs2 may be missing, nothing else. @param name for errors.
 * @throws InputError for what is missing, contradicts something else, or cannot be on this machine.
 */
export function writeVcpu(
  vcpu: VcpuState,
  contents: ReadonlyMap<StructName, Uint8Array>,
  place: VcpuPlace,
  name: string,
): void {
  const bytesOf = (struct: StructName): Uint8Array => {
    const bytes = contents.get(struct);
    if (bytes !== undefined) return bytes;
    throw new InputError(`${name} ${struct}`, 'it is missing', 'All structures of a vCPU are needed.');
  };
  const valuesOf = (struct: StructName): StructValues => structFields(struct, bytesOf(struct));
  const sregs = sregsOf(contents, name);
  const events = valuesOf('kvm_vcpu_events');
  requirePossible(sregs, place, name);
  writeRegs(vcpu, valuesOf('kvm_regs'));
  writeSregs(vcpu, sregs, `${name} sregs`);
  writeDebugregs(vcpu, valuesOf('kvm_debugregs'));
  vcpu.registers[R.xcr0] = xcr0Of(valuesOf('kvm_xcrs'), place, name);
  const xsave = registersOfXsave(bytesOf('kvm_xsave'), xcr0Mask(place.profile), `${name} kvm_xsave`);
  for (const [slot, value] of xsave) vcpu.registers[slot] = value;
  writeEvents(vcpu, events, `${name} kvm_vcpu_events`);
  writeMpState(vcpu, valuesOf('kvm_mp_state'), events, `${name} kvm_mp_state`);
  writeNested(vcpu, bytesOf('kvm_nested_state'));
  const entries = decodeMsrs(bytesOf('kvm_msrs')) ?? [];
  const deadline = writeMsrs(vcpu, entries, place, `${name} kvm_msrs`);
  vcpu.apic = apicWithPage(vcpu.apic, {
    ...{ page: bytesOf('kvm_lapic_state'), base: sregs.apic_base as bigint, deadline, now: place.now },
    tscOffset: vcpu.registers[R.tscBase] as bigint,
  });
  if (BigInt(vcpu.apic.tpr >> 4) !== sregs.cr8) {
    const problem = `CR8 is ${sregs.cr8} in sregs, and the task priority is ${vcpu.apic.tpr.toString(16)}h in kvm_lapic_state`;
    throw new InputError(name, problem, REMEDY);
  }
}

/** Of kvm_sregs2 where there is one; both must say the same. */
function sregsOf(contents: ReadonlyMap<StructName, Uint8Array>, name: string): StructValues {
  const [old, young] = (['kvm_sregs', 'kvm_sregs2'] as const).map((struct) => {
    const bytes = contents.get(struct);
    return bytes && structFields(struct, bytes);
  });
  const sregs = young ?? old;
  if (sregs === undefined) {
    throw new InputError(`${name} kvm_sregs2`, 'it is missing, and so is kvm_sregs', 'One of them is needed.');
  }
  for (const [field, value] of Object.entries(old ?? {})) {
    const other = sregs[field];
    if (field.startsWith('interrupt_bitmap')) {
      if (value === 0n) continue;
      const problem = 'an interrupt is being delivered, and this machine delivers one within a step';
      throw new InputError(`${name} kvm_sregs ${field}`, problem, 'Take the state when it has been delivered.');
    }
    if (other === undefined || other === value) continue;
    const problem = `it is ${hex(value)} in kvm_sregs and ${hex(other)} in kvm_sregs2`;
    throw new InputError(`${name} ${field}`, problem, REMEDY);
  }
  return sregs;
}

const hex = (value: bigint): string => `${value.toString(16)}h`;

function requirePossible(sregs: StructValues, { profile }: VcpuPlace, name: string): void {
  const masks = [
    ['cr4', cr4Mask(profile)],
    ['efer', eferMask(profile) | EFER.LMA],
  ] as const;
  for (const [register, mask] of masks) {
    const more = (sregs[register] as bigint) & ~mask;
    if (more === 0n) continue;
    const problem = `it has bits ${hex(more)}, which CPU profile ${profile.name} does not have`;
    throw new InputError(`${name} ${register}`, problem, 'Use a base with another CPU profile.');
  }
}

/** Rules of KVM that are not the processor's: a hypervisor may be unpaged, have SMM contained, or its guest clear SVME. */
const RULES_OF_KVM: ReadonlySet<string> = new Set(['l1-cr0-pg', 'smm', 'svme']);

/** @throws InputError when KVM would not take the nested state, but for what it alone refuses. */
export function requireNestedState(
  contents: ReadonlyMap<StructName, Uint8Array>,
  { profile }: VcpuPlace,
  name: string,
): void {
  const nested = contents.get('kvm_nested_state');
  if (nested === undefined) return;
  const { refusals } = lintNestedState(nested, name, { sregs: sregsOf(contents, name), profile });
  const problems = refusals.filter(({ rule }) => !RULES_OF_KVM.has(rule)).map(({ text }) => text);
  if (problems.length === 0) return;
  const problem = `KVM_SET_NESTED_STATE would refuse it: ${problems.join('; ')}`;
  throw new InputError(`${name} kvm_nested_state`, problem, 'vmtape lint-nested-state tells more.');
}

function xcr0Of(xcrs: StructValues, { profile }: VcpuPlace, name: string): bigint {
  const { nr_xcrs: count, xcr, value = 0n } = xcrs;
  if (count !== 1n || xcr !== 0n) {
    throw new InputError(
      `${name} kvm_xcrs`,
      `XCR0 alone is expected there, and ${count} registers are`,
      'KVM has no other.',
    );
  }
  const more = value & ~xcr0Mask(profile);
  if (more === 0n) return value;
  throw new InputError(
    `${name} XCR0`,
    `it has bits ${hex(more)}, which CPU profile ${profile.name} does not have`,
    'Use a base with another CPU profile.',
  );
}

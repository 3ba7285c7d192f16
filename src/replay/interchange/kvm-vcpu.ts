/**
 * A vCPU ↔ KVM's structures, one pair of functions for each. While an L2 runs, KVM's registers are L2's, as the machine's are;
 * L1's stand in the nested state (`kvm-nested.ts`).
 * Source: Linux, Documentation/virt/kvm/api.rst; APM vol.2 §4.7 and §4.8 for segment attributes, §15.5.1 for their packed form.
 */
import {
  Boundary,
  type CpuProfile,
  CR0,
  CR4,
  EFER,
  InputError,
  type LocalApicState,
  R,
  type RegisterName,
  type Registers,
  readApicBase,
  type Slot,
} from '../../machine/index.js';
import { EventFlag, MpState, type StructValues } from './kvm-structs.js';

/** A vCPU with its local APIC, in the hands of whoever reads or fills it. */
export interface VcpuState {
  readonly registers: Registers;
  /** Those without a slot, by number in decimal. */
  msrs: Record<string, bigint>;
  apic: LocalApicState;
}

/** What it is read or filled at. */
export interface VcpuPlace {
  readonly profile: CpuProfile;
  /** Virtual nanoseconds. */
  readonly now: number;
}

const get = ({ registers }: VcpuState, slot: Slot): bigint => registers[slot] as bigint;

// regs

const GENERAL = [
  ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip', 'rflags'] as const),
] satisfies readonly RegisterName[];

export const readRegs = (vcpu: VcpuState): StructValues =>
  Object.fromEntries(GENERAL.map((name) => [name, get(vcpu, R[name])]));

export function writeRegs({ registers }: VcpuState, values: StructValues): void {
  for (const name of GENERAL) registers[R[name]] = values[name] as bigint;
}

// sregs

/** KVM's name, and ours. */
const SEGMENTS = [
  ...([
    ['cs', 'cs'],
    ['ds', 'ds'],
    ['es', 'es'],
    ['fs', 'fs'],
    ['gs', 'gs'],
    ['ss', 'ss'],
  ] as const),
  ...([
    ['tr', 'tr'],
    ['ldt', 'ldtr'],
  ] as const),
] as const;
const TABLES = [
  ['gdt', 'gdtr'],
  ['idt', 'idtr'],
] as const;
const CONTROLS = ['cr0', 'cr2', 'cr3', 'cr4', 'efer'] as const;
/** Attributes of a segment word, from bit 16 on: KVM's name, first bit, bits. */
const ATTRIBUTES = [
  ...([
    ['type', 0, 4],
    ['s', 4, 1],
    ['dpl', 5, 2],
    ['present', 7, 1],
  ] as const),
  ...([
    ['avl', 8, 1],
    ['l', 9, 1],
    ['db', 10, 1],
    ['g', 11, 1],
  ] as const),
] as const;

/** With the PDPTEs of kvm_sregs2; kvm_sregs has no room for them. */
export function readSregs(vcpu: VcpuState): StructValues {
  const values: Record<string, bigint> = {};
  for (const [name, ours] of SEGMENTS) {
    const word = get(vcpu, R[ours]);
    values[`${name}.base`] = get(vcpu, R[`${ours}Base`]);
    values[`${name}.limit`] = word >> 32n;
    values[`${name}.selector`] = word & 0xffffn;
    for (const [attribute, first, bits] of ATTRIBUTES) {
      values[`${name}.${attribute}`] = BigInt.asUintN(bits, word >> BigInt(16 + first));
    }
    values[`${name}.unusable`] = values[`${name}.present`] === 0n ? 1n : 0n;
  }
  for (const [name, ours] of TABLES) {
    values[`${name}.base`] = get(vcpu, R[`${ours}Base`]);
    values[`${name}.limit`] = get(vcpu, R[`${ours}Limit`]);
  }
  for (const name of CONTROLS) values[name] = get(vcpu, R[name]);
  values.cr8 = BigInt(vcpu.apic.tpr >> 4);
  values.apic_base = readApicBase(vcpu.apic);
  values.flags = usesPdptes(values) ? 1n : 0n;
  for (let entry = 0; entry < 4; entry++) values[`pdptr${entry}`] = get(vcpu, (R.pdpte0 + entry) as Slot);
  return values;
}

const usesPdptes = ({ cr0 = 0n, cr4 = 0n, efer = 0n }: StructValues): boolean =>
  (cr0 & CR0.PG) !== 0n && (cr4 & CR4.PAE) !== 0n && (efer & EFER.LMA) === 0n;

/**
 * CPL is SS.DPL, as it is to KVM. CR8 and the APIC's base come with the APIC.
 * @param values of kvm_sregs2, or of kvm_sregs; in PAE mode the PDPTEs are needed.
 */
export function writeSregs({ registers }: VcpuState, values: StructValues, name: string): void {
  for (const [segment, ours] of SEGMENTS) {
    const of = (field: string): bigint => values[`${segment}.${field}`] as bigint;
    let attributes = 0n;
    for (const [attribute, first, bits] of ATTRIBUTES) {
      if (of(attribute) >> BigInt(bits) !== 0n) {
        const problem = `${segment}.${attribute} is ${of(attribute)}, which does not fit ${bits} bits`;
        throw new InputError(name, problem, 'KVM_GET_SREGS never gives that.');
      }
      const value = attribute === 'present' && of('unusable') !== 0n ? 0n : of(attribute);
      attributes |= value << BigInt(first);
    }
    registers[R[ours]] = of('selector') | (attributes << 16n) | (of('limit') << 32n);
    registers[R[`${ours}Base`]] = of('base');
  }
  for (const [table, ours] of TABLES) {
    registers[R[`${ours}Base`]] = values[`${table}.base`] as bigint;
    registers[R[`${ours}Limit`]] = values[`${table}.limit`] as bigint;
  }
  for (const control of CONTROLS) registers[R[control]] = values[control] as bigint;
  registers[R.cpl] = values['ss.dpl'] as bigint;
  if (values.flags === undefined && usesPdptes(values)) {
    throw new InputError(name, 'kvm_sregs has no room for the PDPTEs of PAE mode', 'Give kvm_sregs2 as well.');
  }
  for (let entry = 0; entry < 4; entry++) registers[(R.pdpte0 + entry) as Slot] = values[`pdptr${entry}`] ?? 0n;
}

// debugregs

const DEBUG = [
  ['db0', 'dr0'],
  ['db1', 'dr1'],
  ['db2', 'dr2'],
  ['db3', 'dr3'],
  ['dr6', 'dr6'],
  ['dr7', 'dr7'],
] as const;

export const readDebugregs = (vcpu: VcpuState): StructValues =>
  Object.fromEntries(DEBUG.map(([name, ours]) => [name, get(vcpu, R[ours])]));

export function writeDebugregs({ registers }: VcpuState, values: StructValues): void {
  for (const [name, ours] of DEBUG) registers[R[ours]] = values[name] as bigint;
}

// vcpu_events and mp_state

/** Activities of a vCPU (layout/cpu-state.ts, `activity`) and what KVM calls them. */
const RUNNING = 0n;
const HALTED = 1n;
const SHUTDOWN = 2n;
const WAIT_FOR_SIPI = 3n;

/** Of kvm_vcpu_events: interrupt.shadow. */
const SHADOW_MOV_SS = 1n;
const SHADOW_STI = 2n;
const DEBUG_VECTOR = 1n;
/** Of a pending #DB, as DR6 would show it: B0 to B3, BLD (active high here), BS. */
const PAYLOAD_BREAKPOINTS = 0xfn;
const PAYLOAD_BUS_LOCK = 1n << 11n;
const PAYLOAD_STEP = 1n << 14n;

const bit = (value: bigint, mask: bigint): bigint => ((value & mask) === 0n ? 0n : 1n);
const NMI_BLOCKED_BEFORE_SMM = Boundary.NMI_BLOCKED << Boundary.SMM_SHIFT;

export function readEvents(vcpu: VcpuState): StructValues {
  const boundary = get(vcpu, R.boundary);
  const breakpoints = (boundary >> Boundary.BREAKPOINTS_SHIFT) & PAYLOAD_BREAKPOINTS;
  const payload =
    breakpoints |
    ((boundary & Boundary.BUS_LOCK) === 0n ? 0n : PAYLOAD_BUS_LOCK) |
    ((boundary & Boundary.SINGLE_STEP) === 0n ? 0n : PAYLOAD_STEP);
  const shadow = (boundary & Boundary.DEBUG_SHADOW) !== 0n ? SHADOW_MOV_SS : SHADOW_STI;
  const sipi = bit(boundary, Boundary.SIPI_PENDING);
  const { NMI_PENDING, SHADOW, SMM, PAYLOAD, TRIPLE_FAULT } = EventFlag;
  return {
    'exception.pending': payload === 0n ? 0n : 1n,
    'exception.nr': payload === 0n ? 0n : DEBUG_VECTOR,
    exception_has_payload: payload === 0n ? 0n : 1n,
    exception_payload: payload,
    'interrupt.shadow': (boundary & (Boundary.INTERRUPT_SHADOW | Boundary.DEBUG_SHADOW)) === 0n ? 0n : shadow,
    'nmi.pending': bit(boundary, Boundary.NMI_PENDING),
    'nmi.masked': bit(boundary, Boundary.NMI_BLOCKED),
    sipi_vector: sipi === 0n ? 0n : (boundary >> Boundary.SIPI_VECTOR_SHIFT) & 0xffn,
    'smi.smm': bit(boundary, Boundary.IN_SMM),
    'smi.pending': bit(boundary, Boundary.SMI_PENDING),
    'smi.smm_inside_nmi': bit(boundary, NMI_BLOCKED_BEFORE_SMM),
    'smi.latched_init': bit(boundary, Boundary.INIT_PENDING),
    'triple_fault.pending': get(vcpu, R.activity) === SHUTDOWN ? 1n : 0n,
    flags: NMI_PENDING | SHADOW | SMM | PAYLOAD | TRIPLE_FAULT | (sipi === 0n ? 0n : EventFlag.SIPI),
  };
}

/** @throws InputError for events that this machine never has between two instructions. */
export function writeEvents({ registers }: VcpuState, values: StructValues, name: string): void {
  const of = (field: string): bigint => values[field] as bigint;
  for (const [field, what] of [
    ['exception.injected', 'an exception'],
    ['interrupt.injected', 'an interrupt'],
    ['nmi.injected', 'an NMI'],
  ] as const) {
    if (of(field) === 0n) continue;
    const problem = `${what} is being delivered (${field}), and this machine delivers one within a step`;
    throw new InputError(name, problem, 'Take the state when it has been delivered.');
  }
  const pending = of('exception.pending') !== 0n;
  const payload = pending && (of('flags') & EventFlag.PAYLOAD) !== 0n ? of('exception_payload') : 0n;
  const known = PAYLOAD_BREAKPOINTS | PAYLOAD_BUS_LOCK | PAYLOAD_STEP;
  if (pending && (of('exception.nr') !== DEBUG_VECTOR || payload === 0n || (payload & ~known) !== 0n)) {
    const problem = `exception ${of('exception.nr')} is pending, and only debug exceptions can be, with their payload`;
    throw new InputError(name, problem, 'Take the state when it has been delivered.');
  }
  const counts = (flag: bigint, field: string): boolean => (of('flags') & flag) !== 0n && of(field) !== 0n;
  const shadow = counts(EventFlag.SHADOW, 'interrupt.shadow') ? of('interrupt.shadow') : 0n;
  const sets: readonly (readonly [boolean, bigint])[] = [
    [shadow !== 0n, Boundary.INTERRUPT_SHADOW],
    // KVM on AMD processors reports both causes, for it cannot tell them apart: the weaker one then.
    [shadow === SHADOW_MOV_SS, Boundary.DEBUG_SHADOW],
    [counts(EventFlag.NMI_PENDING, 'nmi.pending'), Boundary.NMI_PENDING],
    [of('nmi.masked') !== 0n, Boundary.NMI_BLOCKED],
    [counts(EventFlag.SMM, 'smi.smm'), Boundary.IN_SMM],
    [counts(EventFlag.SMM, 'smi.pending'), Boundary.SMI_PENDING],
    [counts(EventFlag.SMM, 'smi.smm_inside_nmi'), NMI_BLOCKED_BEFORE_SMM],
    [counts(EventFlag.SMM, 'smi.latched_init'), Boundary.INIT_PENDING],
    [(payload & PAYLOAD_STEP) !== 0n, Boundary.SINGLE_STEP],
    [(payload & PAYLOAD_BUS_LOCK) !== 0n, Boundary.BUS_LOCK],
  ];
  let boundary = (payload & PAYLOAD_BREAKPOINTS) << Boundary.BREAKPOINTS_SHIFT;
  for (const [set, mask] of sets) boundary |= set ? mask : 0n;
  if ((of('flags') & EventFlag.SIPI) !== 0n) {
    boundary |= Boundary.SIPI_PENDING | ((of('sipi_vector') & 0xffn) << Boundary.SIPI_VECTOR_SHIFT);
  }
  registers[R.boundary] = boundary;
}

export function readMpState(vcpu: VcpuState): StructValues {
  const activity = get(vcpu, R.activity);
  const sipi = (get(vcpu, R.boundary) & Boundary.SIPI_PENDING) !== 0n;
  if (activity === HALTED) return { mp_state: MpState.HALTED };
  if (activity !== WAIT_FOR_SIPI) return { mp_state: MpState.RUNNABLE };
  return { mp_state: sipi ? MpState.SIPI_RECEIVED : MpState.INIT_RECEIVED };
}

/** @param events of the same vCPU. @throws InputError for a state that x86 does not have. */
export function writeMpState(
  { registers }: VcpuState,
  { mp_state: state }: StructValues,
  events: StructValues,
  name: string,
): void {
  const activities: Readonly<Record<string, bigint>> = {
    [String(MpState.RUNNABLE)]: RUNNING,
    [String(MpState.UNINITIALIZED)]: WAIT_FOR_SIPI,
    [String(MpState.INIT_RECEIVED)]: WAIT_FOR_SIPI,
    [String(MpState.HALTED)]: HALTED,
    [String(MpState.SIPI_RECEIVED)]: WAIT_FOR_SIPI,
  };
  const activity = activities[String(state)];
  if (activity === undefined)
    throw new InputError(name, `${state} is no state of an x86 vCPU`, 'KVM has 0 to 4 there.');
  const flags = events.flags as bigint;
  const shutDown = (flags & EventFlag.TRIPLE_FAULT) !== 0n && events['triple_fault.pending'] !== 0n;
  registers[R.activity] = shutDown ? SHUTDOWN : activity;
}

/**
 * What runs on the machine, as a debugger sees it: the hypervisor's vCPUs (L1), and the vCPUs of its guests (L2), which are
 * VMCBs. One of them runs on each vCPU of the machine; of the others only what the world switch has kept is known.
 *
 * Where it is kept: while L2 runs, L1's registers wait behind it; while L1 runs, L2's are in its VMCB. What VMRUN does not
 * switch belongs to whoever runs, and nobody knows it of the other.
 * Source: APM vol.2 §15.5.1 Basic Operation, §15.5.2 VMSAVE and VMLOAD Instructions, appendix B VMCB Layout.
 */
import {
  explainWalk,
  type Machine,
  type MachineState,
  PAGE_BYTES,
  pagingFeatures,
  peekLinear,
  R,
  REGISTER_NAMES,
  type RegisterName,
  type Registers,
  type Slot,
  SvmMode,
  VMCB,
  type WatchedRange,
} from '../../src/machine/index.js';
import { type VmcbFields, vmcbFields } from '../cli/machine-view.js';

/** Something that has registers and an address space. */
export type Subject =
  /** A vCPU of the machine, as the hypervisor has it. */
  | { readonly level: 1; readonly vcpu: number }
  /** A guest's vCPU, by the sPA of its VMCB. */
  | { readonly level: 2; readonly vmcb: number };

export interface View {
  readonly subject: Subject;
  /** It runs; it waits behind its guest; it is saved in its VMCB; or its VMCB was never used until now. */
  readonly state: 'runs' | 'waits' | 'saved' | 'absent';
  /** The vCPU that it runs on, or ran on last as far as is known. */
  readonly vcpu: number;
  /** All slots; those that are not known have no meaning. */
  readonly registers: Registers;
  knows(slot: Slot): boolean;
  /** The VMCB that goes with it: an L2's own, or that of the guest that L1 ran last. */
  readonly vmcb: number | undefined;
}

type Vcpus = MachineState['vcpus'];

const registersOfVcpu = (vcpus: Vcpus, vcpu: number): Registers => {
  const found = vcpus[vcpu];
  if (found === undefined) throw new RangeError(`the machine has no vCPU ${vcpu}`);
  return found.registers;
};

const runsGuest = (registers: Registers): boolean => ((registers[R.svmMode] ?? 0n) & SvmMode.GUEST) !== 0n;

/** What runs on a vCPU. */
export function runningOn({ state: { vcpus } }: Machine, vcpu: number): Subject {
  const registers = registersOfVcpu(vcpus, vcpu);
  return runsGuest(registers) ? { level: 2, vmcb: Number(registers[R.vmcb]) } : { level: 1, vcpu };
}

export const sameSubject = (a: Subject, b: Subject): boolean =>
  a.level === 1 ? b.level === 1 && a.vcpu === b.vcpu : b.level === 2 && a.vmcb === b.vmcb;

export function viewOf(machine: Machine, subject: Subject): View {
  return subject.level === 1 ? hostView(machine, subject) : guestView(machine, subject);
}

const always = (): boolean => true;
const capitalized = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);
const slotNamed = (name: string): Slot | undefined => (R as Readonly<Record<string, Slot>>)[name];

/** Slots that VMRUN keeps for the host, and where. */
export const HOST_SLOTS: readonly (readonly [slot: Slot, kept: Slot])[] = REGISTER_NAMES.flatMap((name) => {
  const kept = slotNamed(`host${capitalized(name)}`);
  return kept === undefined ? [] : [[R[name], kept] as const];
});

function hostView({ state: { vcpus } }: Machine, subject: Subject & { level: 1 }): View {
  const { vcpu } = subject;
  const registers = registersOfVcpu(vcpus, vcpu);
  const last = Number(registers[R.vmcb] ?? 0n);
  const vmcb = last === 0 ? undefined : last;
  if (!runsGuest(registers)) return { subject, state: 'runs', vcpu, registers, knows: always, vmcb };
  const mode = (registers[R.svmMode] as bigint) & ~SvmMode.GUEST;
  const copy = changed(registers, [
    ...HOST_SLOTS.map(([slot, kept]) => [slot, registers[kept] as bigint] as const),
    // Deviations keep DR7 in the high half.
    [R.rflags, (registers[R.hostRflags] as bigint) & 0xffff_ffffn],
    [R.svmMode, mode],
    [R.cpl, 0n],
  ]);
  const known = new Set<Slot>([...HOST_SLOTS.map(([slot]) => slot), R.svmMode, R.cpl, R.vmcb, R.vmHsavePA]);
  return { subject, state: 'waits', vcpu, registers: copy, knows: (slot) => known.has(slot), vmcb };
}

/** Registers that a VMCB holds in the form of a slot, by the same name. */
const VMCB_SLOTS: readonly RegisterName[] = REGISTER_NAMES.filter((name) => name in VMCB.fields);

function guestView(machine: Machine, subject: Subject & { level: 2 }): View {
  const { state } = machine;
  const { vmcb } = subject;
  const vcpu = vcpuOfGuest(state, vmcb);
  const registers = registersOfVcpu(state.vcpus, vcpu);
  if (runsGuest(registers) && registers[R.vmcb] === BigInt(vmcb)) {
    return { subject, state: 'runs', vcpu, registers, knows: always, vmcb };
  }
  const fields = vmcbFieldsAt(machine, vmcb);
  if (fields === undefined) {
    return { subject, state: 'absent', vcpu, registers, knows: () => false, vmcb: undefined };
  }
  const number = (name: string): bigint => {
    const value = fields.get(name);
    return typeof value === 'bigint' ? value : 0n;
  };
  const copy = changed(registers, [
    ...VMCB_SLOTS.map((name) => [R[name], number(name)] as const),
    [R.svmMode, (registers[R.svmMode] as bigint) | SvmMode.GUEST],
    [R.vmcb, BigInt(vmcb)],
    [R.guestAsid, number('guestASID')],
    [R.nestedControl, number('nestedControl')],
    [R.nestedCr3, number('nCR3')],
    // The nested tables are walked in the mode that the hypervisor has.
    [R.hostEfer, registers[R.efer] as bigint],
    [R.hostCr4, registers[R.cr4] as bigint],
    [R.hostCr0, registers[R.cr0] as bigint],
    [R.hostCr3, registers[R.cr3] as bigint],
  ]);
  const known = new Set<Slot>([
    ...VMCB_SLOTS.map((name) => R[name]),
    ...[R.svmMode, R.vmcb, R.guestAsid, R.nestedControl, R.nestedCr3],
  ]);
  return { subject, state: 'saved', vcpu, registers: copy, knows: (slot) => known.has(slot), vmcb };
}

/** The vCPU that has a VMCB as the one that it ran last, or the first. */
const vcpuOfGuest = ({ vcpus }: MachineState, vmcb: number): number =>
  Math.max(
    0,
    vcpus.findIndex(({ registers }) => registers[R.vmcb] === BigInt(vmcb)),
  );

function changed(registers: Registers, changes: Iterable<readonly [Slot, bigint]>): Registers {
  const copy: bigint[] = Array.from({ length: REGISTER_NAMES.length }, (_, slot) => registers[slot as Slot] ?? 0n);
  for (const [slot, value] of changes) copy[slot] = value;
  return copy as Registers;
}

// VMCBs

/** A VMCB as it stands in RAM now; undefined when the processor has not used one there yet. */
export function vmcbFieldsAt({ state, memory }: Machine, vmcb: number): VmcbFields | undefined {
  if (state.vmcbs[vmcb] === undefined || !memory.isRam(vmcb, VMCB.bytes)) return undefined;
  return vmcbFields(new Uint32Array(memory.window(vmcb, VMCB.bytes).slice().buffer));
}

/** The same as the processor last saw it. */
export function knownVmcbFields({ state }: Machine, vmcb: number): VmcbFields | undefined {
  const words = state.vmcbs[vmcb];
  return words && vmcbFields(words);
}

// Memory

/** As many bytes as are mapped to RAM from `linear` on, through the tables of a view. */
export const readMemory = (machine: Machine, view: View, linear: bigint, length: number): Uint8Array =>
  view.state === 'absent'
    ? new Uint8Array(0)
    : peekLinear(machine.memory, view.registers, pagingFeatures(machine.profile), linear, length);

/** Where `length` bytes from `linear` on lie in RAM now, through the tables of a view; undefined when some are not mapped. */
export function watchedRanges(
  machine: Machine,
  view: View,
  linear: bigint,
  length: number,
): readonly WatchedRange[] | undefined {
  if (view.state === 'absent') return undefined;
  const ranges: WatchedRange[] = [];
  for (let at = 0; at < length; ) {
    const address = BigInt.asUintN(64, linear + BigInt(at));
    const bytes = Math.min(length - at, PAGE_BYTES - Number(address % BigInt(PAGE_BYTES)));
    const { sPA: place } = explainWalk(machine.memory, view.registers, pagingFeatures(machine.profile), address);
    if (place === undefined || !machine.memory.isRam(place, bytes)) return undefined;
    ranges.push({ address: place, length: bytes });
    at += bytes;
  }
  return ranges;
}

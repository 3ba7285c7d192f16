/**
 * The components of a machine: the register groups of each vCPU as hypervisors' save interfaces divide them, the processor's
 * copies of VMCBs, each device, and what the loop knows. A component is a record of fields by name.
 *
 * Invariant: every field of a `MachinePoint` is in exactly one component. So they can be put back in any order, and what is
 * missing then is known by name.
 */
import {
  DEFAULT_CONFIG,
  InputError,
  initialState,
  invariant,
  type MachineConfig,
  type MachinePoint,
  type MachineState,
  REGISTER_NAMES,
  type RegisterName,
  type Registers,
  SECTOR_BYTES,
  SLOT_COUNT,
  type Slot,
  VMCB,
  type VmcbWords,
} from '../../machine/index.js';
import { requireShape } from './shape.js';

export type Fields = Readonly<Record<string, unknown>>;

/** What components of different vCPUs have in common: `vcpu.regs` for `vcpu.0.regs`. */
export const familyOf = (component: string): string => component.replace(/\.\d+\./, '.');

/** By name: `vcpu.0.nested`, `device.pit`. */
export type Components = ReadonlyMap<string, Fields>;

const REMEDY = 'Use the vmtape that it is from.';

// Registers by group

const between = (first: RegisterName, last: RegisterName): readonly RegisterName[] =>
  REGISTER_NAMES.slice(REGISTER_NAMES.indexOf(first), REGISTER_NAMES.indexOf(last) + 1);

/** The groups that Linux's KVM has an ioctl each for. `events` is also its MP state; `msrs` has more fields than slots. */
const REGISTER_GROUPS: Readonly<Record<string, readonly RegisterName[]>> = {
  regs: between('rax', 'rflags'),
  sregs: [...between('es', 'efer'), ...between('pdpte0', 'pdpte3')],
  xsave: ['xcr0', 'xss', ...between('fcw', 'ymm15High')],
  debugregs: between('dr0', 'dr7'),
  msrs: [...between('star', 'mtrrFix4K7'), 'specCtrl', 'smBase'],
  events: [...between('activity', 'monitorAddress'), 'monitorDigest'],
  nested: [...between('svmMode', 'hostLastIntTo'), ...between('busLocks', 'avicPhysicalTable')],
};

const grouped = Object.values(REGISTER_GROUPS).flat();
invariant(
  grouped.length === SLOT_COUNT && new Set(grouped).size === SLOT_COUNT,
  'every register is in exactly one group',
);

const SLOTS = new Map(REGISTER_NAMES.map((name, slot) => [name as string, slot as Slot]));

const registerFields = (registers: Registers, names: readonly RegisterName[]): Record<string, bigint> =>
  Object.fromEntries(names.map((name) => [name, registers[SLOTS.get(name) as Slot] as bigint]));

// Components of the whole machine

type Writable<Data> = { -readonly [Key in keyof Data]: Data[Key] };
/** A point in the making. */
type Draft = Writable<MachinePoint>;

interface MachineComponent {
  readonly read: (point: MachinePoint) => Fields;
  readonly write: (draft: Draft, fields: Fields) => void;
}

const MACHINE_COMPONENTS: Readonly<Record<string, MachineComponent>> = {
  'machine.time': {
    read: ({ retired, state: { skippedNanoseconds, resetAt } }) => ({ retired, skippedNanoseconds, resetAt }),
    write: (draft, { retired, ...rest }) => {
      draft.retired = retired as number;
      Object.assign(draft.state, rest);
    },
  },
  'machine.schedule': {
    read: ({ interrupted = null, state: { schedule, holds } }) => ({ ...schedule, holds, interrupted }),
    write: (draft, { holds, interrupted, ...schedule }) => {
      Object.assign(draft.state.schedule, schedule);
      Object.assign(draft.state.holds, holds as number[]);
      draft.interrupted = (interrupted as number | null) ?? undefined;
    },
  },
  'machine.session': {
    read: ({ state: { boot, ended, entropy } }) => ({ boot, ended, entropy }),
    write: ({ state }, fields) => {
      Object.assign(state, structuredClone(fields));
    },
  },
  'machine.run': {
    read: ({ unstated, shadow }) => ({
      unstated,
      stated: shadow === undefined ? null : registerFields(shadow as unknown as Registers, REGISTER_NAMES),
    }),
    write: (draft, { unstated, stated }) => {
      draft.unstated = unstated as number;
      draft.shadow = stated === null ? undefined : registerFile(stated as Fields, 'machine.run.stated');
    },
  },
  'svm.vmcbs': {
    read: ({ state: { vmcbs } }) =>
      Object.fromEntries(Object.entries(vmcbs).map(([at, words]) => [at, new Uint8Array(words.slice().buffer)])),
    write: ({ state }, fields) => {
      for (const [at, bytes] of Object.entries(fields)) state.vmcbs[at] = vmcbWords(at, bytes);
    },
  },
};

function vmcbWords(address: string, bytes: unknown): VmcbWords {
  const isAddress = /^\d{1,15}$/.test(address) && Number(address) % VMCB.bytes === 0;
  if (isAddress && bytes instanceof Uint8Array && bytes.length === VMCB.bytes) {
    return new Uint32Array(bytes.slice().buffer);
  }
  throw new InputError(`svm.vmcbs.${address}`, 'that is no copy of a VMCB', REMEDY);
}

function registerFile(fields: Fields, path: string): BigUint64Array {
  const registers = new BigUint64Array(SLOT_COUNT);
  for (const [slot, name] of REGISTER_NAMES.entries()) {
    const value = fields[name];
    if (typeof value !== 'bigint') throw new InputError(`${path}.${name}`, 'it is missing', REMEDY);
    registers[slot] = value;
  }
  return registers;
}

/** What a point consists of, in the order in which snapshots have it. */
export function componentsOf(point: MachinePoint): Components {
  const { vcpus, devices, paravirt } = point.state;
  const components = new Map<string, Fields>();
  for (const [name, { read }] of Object.entries(MACHINE_COMPONENTS)) components.set(name, read(point));
  for (const [vcpu, { registers, msrs }] of vcpus.entries()) {
    for (const [group, names] of Object.entries(REGISTER_GROUPS)) {
      const fields = registerFields(registers, names);
      components.set(`vcpu.${vcpu}.${group}`, group === 'msrs' ? { ...fields, stored: msrs } : fields);
    }
  }
  // Some devices are lists: the local APICs.
  for (const [device, state] of Object.entries(devices)) components.set(`device.${device}`, { ...state });
  if (paravirt !== null) components.set('paravirt', { ...paravirt });
  return components;
}

/** Fields of the components of a machine with one vCPU, by family, and what each holds: for the page of them. */
export function componentFields(): ReadonlyMap<string, readonly (readonly [field: string, kind: string])[]> {
  const components = componentsOf(
    freshPoint({ ...DEFAULT_CONFIG, paravirt: 'kvm', diskBytes: SECTOR_BYTES, virtioConsole: true }),
  );
  return new Map([...components].map(([name, fields]) => [familyOf(name), fieldKinds(fields)]));
}

const fieldKinds = (fields: Fields): readonly (readonly [string, string])[] =>
  Object.entries(fields).map(([name, value]) => [name, kindOf(value)]);

function kindOf(value: unknown): string {
  if (value === null) return 'anything, or nothing';
  if (typeof value === 'bigint') return 'u64';
  if (typeof value !== 'object') return typeof value;
  if (Array.isArray(value)) return value.length === 0 ? 'list' : `${value.length} × ${kindOf(value[0])}`;
  const fields = fieldKinds(value as Fields);
  return fields.length === 0 ? 'record' : `{ ${fields.map(([name, kind]) => `${name}: ${kind}`).join(', ')} }`;
}

/**
 * Puts components into the state of a machine that has just been made, in any order. Each is held against what a fresh
 * machine has there.
 */
export class Restoration {
  private readonly draft: Draft;
  private readonly template: Components;
  private readonly missing: Set<string>;

  constructor(config: MachineConfig) {
    this.draft = freshPoint(config);
    this.template = freshComponents(config);
    this.missing = new Set(this.template.keys());
  }

  knows(name: string): boolean {
    return this.template.has(name);
  }

  /** @throws InputError when this machine has no such component, or the fields are not what it has. */
  put(name: string, fields: Fields): void {
    const template = this.template.get(name);
    if (template === undefined) throw new InputError(name, 'this machine has no such component', REMEDY);
    requireShape(template, fields, name);
    this.write(name, fields);
    this.missing.delete(name);
  }

  /** @throws InputError when components are missing. */
  finish(): MachinePoint {
    if (this.missing.size === 0) return this.draft;
    throw new InputError([...this.missing].join(', '), 'nothing was put there', REMEDY);
  }

  private write(name: string, fields: Fields): void {
    const { draft } = this;
    const { vcpus, devices, paravirt } = draft.state;
    const [family, member] = name.split('.') as [string, string];
    if (family === 'device') Object.assign(devices[member as keyof typeof devices] as object, structuredClone(fields));
    else if (family === 'paravirt') Object.assign(paravirt as object, structuredClone(fields));
    else if (family === 'vcpu') writeRegisters(vcpus[Number(member)] as MachineState['vcpus'][number], fields);
    else MACHINE_COMPONENTS[name]?.write(draft, fields);
  }
}

function writeRegisters(vcpu: MachineState['vcpus'][number], { stored, ...values }: Fields): void {
  for (const [name, value] of Object.entries(values)) vcpu.registers[SLOTS.get(name) as Slot] = value as bigint;
  if (stored !== undefined) vcpu.msrs = { ...(stored as typeof vcpu.msrs) };
}

interface Fresh {
  readonly point: MachinePoint;
  readonly components: Components;
}
const freshMachines = new WeakMap<MachineConfig, Fresh>();

/** What a machine that has just been made consists of. */
export const freshComponents = (config: MachineConfig): Components => freshMachine(config).components;

function freshMachine(config: MachineConfig): Fresh {
  const known = freshMachines.get(config);
  if (known !== undefined) return known;
  const { vcpus, ...rest } = initialState(config);
  const state: MachineState = {
    ...rest,
    vcpus: vcpus.map(({ registers, msrs }) => ({
      registers: BigUint64Array.from(registers as unknown as ArrayLike<bigint>) as unknown as Registers,
      msrs,
    })),
  };
  const point = { state, retired: 0, unstated: 0, interrupted: undefined, shadow: undefined };
  const fresh = { point, components: componentsOf(point) };
  freshMachines.set(config, fresh);
  return fresh;
}

const freshPoint = (config: MachineConfig): Draft => structuredClone(freshMachine(config).point) as Draft;

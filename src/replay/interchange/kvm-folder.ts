/**
 * A snapshot's vCPUs as KVM's structures, one file each, with a manifest in JSON that says which is which and has every field
 * in readable form. Pure functions: who writes and reads files is outside.
 *
 * What the structures have no room for is found by putting them into a fresh vCPU and comparing: nothing can be left out
 * without being named.
 */
import { createHash } from 'node:crypto';
import { formatPosition, type TapeDescription } from '../../journal/index.js';
import {
  type CpuProfile,
  InputError,
  initialState,
  type MachineConfig,
  type MachinePoint,
  type MachineState,
  machineProfile,
  NestedControl,
  R,
  REGISTER_NAMES,
  type RegisterName,
  type Registers,
  type Slot,
  SvmMode,
  VirtExt,
} from '../../machine/index.js';
import { type StateDifference, stateDifferences } from '../fold.js';
import { sessionConfig } from '../session.js';
import { componentsOf } from '../snapshot/components.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { STRUCTS, type StructName, structBytes, structFields, writeVcpu } from './kvm-files.js';
import type { VcpuState } from './kvm-vcpu.js';
import { lintNestedState, type NotKept } from './lint-nested-state.js';

export const MANIFEST_FORMAT = 'vmtape-kvm';
export const MANIFEST_VERSION = 1;

export interface ManifestStruct {
  readonly struct: StructName;
  /** Below the folder. */
  readonly file: string;
  readonly bytes?: number;
  readonly sha256?: string;
  /** Values by field, hexadecimal after 0x; for people, and held against the file. */
  readonly fields?: Readonly<Record<string, string>>;
}

/** State of a vCPU that no structure carries. */
export interface Lost {
  readonly state: string;
  readonly value: string;
}

export interface KvmManifest {
  readonly format: typeof MANIFEST_FORMAT;
  readonly version: number;
  readonly vmtapeVersion?: string;
  /** Where in its session the machine is. */
  readonly position?: string;
  /** What the machine is made of: how a vmtape builds one without a base. */
  readonly configuration?: TapeDescription['configuration'];
  /** In the order in which KVM takes them. */
  readonly vcpus: readonly {
    readonly vcpu: number;
    readonly level?: 1 | 2;
    readonly structs: readonly ManifestStruct[];
  }[];
  readonly ram?: { readonly file: string; readonly bytes: number };
  readonly notCarried?: {
    /** Of vCPUs: a machine that goes on from the structures is another one. */
    readonly lost: readonly Lost[];
    /** Of vCPUs: copies that the processor makes anew, and values that mean nothing now. */
    readonly copies: readonly string[];
    /** Parts of the machine that are no vCPU, by the names that snapshots have for them. */
    readonly outside: readonly string[];
  };
  /** By vCPU: what KVM does not keep of what the structures carry. */
  readonly notKept?: readonly { readonly vcpu: number; readonly states: readonly NotKept[] }[];
}

export interface KvmExport {
  readonly manifest: KvmManifest;
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/** Virtual nanoseconds since the machine began. */
export const nanosecondsAt = ({ nanosecondsPerInstruction }: MachineConfig, { retired, state }: MachinePoint): number =>
  retired * nanosecondsPerInstruction + state.skippedNanoseconds;

/** @throws InputError for a profile that this vmtape does not have. */
export function profileOf(config: MachineConfig): CpuProfile {
  const profile = machineProfile(config);
  if (profile !== undefined) return profile;
  throw new InputError(`CPU profile ${JSON.stringify(config.cpu)}`, 'there is none such', 'See vmtape profiles.');
}

/** @param ram whether RAM goes with it, as `ram.bin`: it is not among the files. */
export function exportKvm(snapshot: Snapshot, ram: boolean): KvmExport {
  const { description, point, position } = snapshot;
  const { machine: config } = sessionConfig(description);
  const place = { profile: profileOf(config), now: nanosecondsAt(config, point) };
  const files = new Map<string, Uint8Array>();
  const fresh = freshVcpus(config);
  const notKept: { vcpu: number; states: readonly NotKept[] }[] = [];
  const refused: Lost[] = [];
  const vcpus = vcpusOf(point.state).map((vcpu, index) => {
    const structs = STRUCTS.map((struct): ManifestStruct => {
      const file = `vcpu${index}/${struct.replace('kvm_', '')}.bin`;
      const bytes = structBytes(struct, vcpu, place);
      files.set(file, bytes);
      return { struct, file, bytes: bytes.length, sha256: sha256(bytes), fields: readable(struct, bytes) };
    });
    const contents = new Map(structs.map(({ struct, file }) => [struct, files.get(file) as Uint8Array]));
    writeVcpu(fresh[index] as VcpuState, contents, place, `vCPU ${index}`);
    const nested = contents.get('kvm_nested_state') as Uint8Array;
    const [sregs, events] = (['kvm_sregs2', 'kvm_vcpu_events'] as const).map((struct) =>
      structFields(struct, contents.get(struct) as Uint8Array),
    );
    const lint = lintNestedState(nested, `vCPU ${index}`, { sregs, events, profile: place.profile });
    if (lint.notKept.length > 0) notKept.push({ vcpu: index, states: lint.notKept });
    for (const { text: value } of lint.refusals) {
      refused.push({ state: `vcpu ${index} kvm_nested_state`, value: `KVM would refuse it: ${value}` });
    }
    return { vcpu: index, level: runsGuest(vcpu.registers) ? (2 as const) : (1 as const), structs };
  });
  const missing = missingIn(point.state, fresh);
  const isCopy = ({ path }: StateDifference): boolean => {
    const [, vcpu, name] = /^vcpu (\d+) (\w+)$/.exec(path) ?? [];
    return name !== undefined && isDead(name as RegisterName, point.state.vcpus[Number(vcpu)]?.registers as Registers);
  };
  const manifest: KvmManifest = {
    ...{ format: MANIFEST_FORMAT, version: MANIFEST_VERSION, vmtapeVersion: description.vmtapeVersion },
    ...{ position: formatPosition(position), configuration: description.configuration, vcpus },
    ...(ram ? { ram: { file: 'ram.bin', bytes: config.ramBytes } } : {}),
    notCarried: {
      lost: [
        ...missing.filter((each) => !isCopy(each)).map(({ path, first }) => ({ state: path, value: first })),
        ...refused,
      ],
      copies: missing.filter(isCopy).map(({ path }) => path),
      outside: outsideOf(point, config),
    },
    ...(notKept.length === 0 ? {} : { notKept }),
  };
  return { manifest, files };
}

const runsGuest = (registers: Registers): boolean => ((registers[R.svmMode] as bigint) & SvmMode.GUEST) !== 0n;

export const vcpusOf = ({ vcpus, devices }: MachineState): readonly VcpuState[] =>
  vcpus.map(({ registers, msrs }, index) => ({
    registers,
    msrs,
    apic: devices.localApics[index] as VcpuState['apic'],
  }));

/** vCPUs as at power-on. */
export function freshVcpus(config: MachineConfig): readonly VcpuState[] {
  return vcpusOf(initialState(config)).map(({ registers, msrs, apic }) => ({
    registers: REGISTER_NAMES.map((_, slot) => registers[slot as Slot] as bigint) as unknown as Registers,
    msrs: { ...msrs },
    apic: structuredClone(apic),
  }));
}

/** The state with these vCPUs in place of its own. */
export const withVcpus = (state: MachineState, vcpus: readonly VcpuState[]): MachineState => ({
  ...state,
  vcpus: vcpus.map(({ registers, msrs }) => ({ registers, msrs })),
  devices: { ...state.devices, localApics: vcpus.map(({ apic }) => apic) },
});

const missingIn = (state: MachineState, vcpus: readonly VcpuState[]): readonly StateDifference[] =>
  stateDifferences(state, withVcpus(state, vcpus));

// What is no state of its own

const range = (first: RegisterName, last: RegisterName): readonly RegisterName[] =>
  REGISTER_NAMES.slice(R[first], R[last] + 1);
/** Copies of the controls of the guest that runs, or ran last; and what of the host waits behind it. */
const GUEST_COPIES: ReadonlySet<string> = new Set([
  ...range('vmcb', 'exitIntInfo'),
  ...range('eventInjection', 'lastPause'),
  ...range('hostEs', 'hostLastIntTo'),
  ...range('busLocks', 'avicPhysicalTable'),
]);
const HOST_BRANCHES: ReadonlySet<string> = new Set(range('hostDebugCtl', 'hostLastIntTo'));
const has = (value: bigint | undefined, mask: bigint): boolean => ((value ?? 0n) & mask) !== 0n;

/** Whether nothing follows from the register's value, as the others are. */
function isDead(name: RegisterName, registers: Registers): boolean {
  if (name === 'monitorDigest') return registers[R.monitorAddress] === 0n;
  if (!GUEST_COPIES.has(name)) return false;
  if (!runsGuest(registers)) return true;
  if (HOST_BRANCHES.has(name)) return !has(registers[R.virtExt], VirtExt.LBR_VIRTUALIZATION);
  if (name === 'nestedCr3' || name === 'guestPat') return !has(registers[R.nestedControl], NestedControl.NP_ENABLE);
  if (name === 'eventInjection' || name === 'eventNextRip') return !has(registers[R.eventInjection], 1n << 31n);
  return name === 'lastPause' && registers[R.pauseFilter] === 0n;
}

/** Components that are no vCPU's and not as in a fresh machine. */
function outsideOf(point: MachinePoint, config: MachineConfig): readonly string[] {
  const fresh = componentsOf({
    ...{ state: initialState(config), retired: 0, unstated: 0, interrupted: undefined, shadow: undefined },
  });
  return [...componentsOf(point)]
    .filter(([name]) => !name.startsWith('vcpu.') && name !== 'device.localApics')
    .filter(([name, fields]) => text(fields) !== text(fresh.get(name)))
    .map(([name]) => name);
}

const text = (value: unknown): string =>
  JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? `${item}n` : item));

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Fields as the manifest has them. */
export const readable = (struct: StructName, bytes: Uint8Array): Record<string, string> =>
  Object.fromEntries(
    Object.entries(structFields(struct, bytes)).map(([name, value]) => [name, `0x${value.toString(16)}`]),
  );

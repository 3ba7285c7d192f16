/** A snapshot from a folder of KVM's structures (`kvm-folder.ts`), on the base of another one or of a fresh machine. */
import { PageIndex, PageTree, pageDigest, sameBytes } from '../../journal/index.js';
import {
  InputError,
  initialState,
  keptBytes,
  MACHINE_MODEL_VERSION,
  type MachineConfig,
  type MachinePoint,
  PAGE_BYTES,
  R,
  REGISTER_NAMES,
  type Registers,
  type Slot,
  SvmMode,
} from '../../machine/index.js';
import { stateDifferences } from '../fold.js';
import { sessionConfig } from '../session.js';
import type { RamContents, Snapshot } from '../snapshot/snapshot.js';
import { digestsWithoutRam } from '../state-digest.js';
import { lengthProblem, requireNestedState, STRUCTS, type StructName, writeVcpu } from './kvm-files.js';
import {
  freshVcpus,
  type KvmManifest,
  MANIFEST_FORMAT,
  MANIFEST_VERSION,
  type ManifestStruct,
  nanosecondsAt,
  profileOf,
  readable,
  sha256,
  vcpusOf,
  withVcpus,
} from './kvm-folder.js';
import type { VcpuState } from './kvm-vcpu.js';

/** RAM as pages, in ascending order; those that are missing are zeros. */
export interface GivenRam {
  readonly bytes: number;
  pages(): Iterable<readonly [page: number, content: Uint8Array]>;
}

export interface KvmImport {
  readonly manifest: KvmManifest;
  /** A file of the folder. @throws where there is none. */
  readonly read: (file: string) => Uint8Array;
  /** What the structures do not carry: devices, time, copies. A fresh machine of the manifest's configuration when absent. */
  readonly base: Snapshot | undefined;
  /** That of the base when absent. */
  readonly ram: GivenRam | undefined;
  readonly vmtapeVersion: string;
}

/** A file is not what the manifest says that it was. */
export class FolderDamagedError extends Error {
  override name = 'FolderDamagedError';
}

/** @param file its name, for errors. @throws InputError when it is no manifest, or of a newer vmtape. */
export function parseManifest(text: string, file: string): KvmManifest {
  const refuse = (problem: string): never => {
    throw new InputError(file, problem, 'vmtape export --kvm writes one; docs/interchange.md tells its form.');
  };
  let manifest: Partial<KvmManifest>;
  try {
    manifest = JSON.parse(text) as Partial<KvmManifest>;
  } catch (error) {
    return refuse(`it is no JSON: ${(error as Error).message}`);
  }
  if (manifest === null || typeof manifest !== 'object' || manifest.format !== MANIFEST_FORMAT) {
    return refuse(`its format is not ${JSON.stringify(MANIFEST_FORMAT)}`);
  }
  const { version } = manifest;
  if (version !== MANIFEST_VERSION)
    refuse(`it is of version ${version}, and this vmtape reads version ${MANIFEST_VERSION}`);
  const { vcpus } = manifest;
  if (!Array.isArray(vcpus) || vcpus.length === 0) return refuse('it lists no vCPUs');
  for (const [index, entry] of vcpus.entries()) {
    if (entry?.vcpu !== index) refuse(`entry ${index} of vcpus is of vCPU ${entry?.vcpu}: they stand in order, from 0`);
    if (!Array.isArray(entry.structs)) refuse(`vCPU ${index} lists no structs`);
    const seen = new Set<string>();
    for (const { struct, file: name } of entry.structs as readonly Partial<ManifestStruct>[]) {
      if (!STRUCTS.includes(struct as StructName)) refuse(`vCPU ${index} has a struct ${JSON.stringify(struct)}`);
      if (seen.has(struct as string)) refuse(`vCPU ${index} has ${struct} twice`);
      if (typeof name !== 'string' || name.startsWith('/') || name.split('/').includes('..')) {
        refuse(`${struct} of vCPU ${index} has no file inside the folder`);
      }
      seen.add(struct as string);
    }
  }
  return manifest as KvmManifest;
}

/** @throws InputError for what is missing, contradictory, or not on this machine; FolderDamagedError. */
export function importKvm({ manifest, read, base, ram, vmtapeVersion }: KvmImport): Snapshot {
  const description = base?.description ?? {
    ...{ vmtapeVersion, machineVersion: String(MACHINE_MODEL_VERSION) },
    configuration: manifest.configuration ?? refuseWithoutMachine(),
  };
  const { machine: config } = sessionConfig(description);
  if (manifest.vcpus.length !== config.vcpus) {
    const problem = `the machine has ${config.vcpus}, and the manifest ${manifest.vcpus.length}`;
    throw new InputError('vCPUs', problem, 'Use a base with as many.');
  }
  const start: MachinePoint = base?.point ?? {
    ...{ state: initialState(config), retired: 0, unstated: 0, interrupted: undefined, shadow: undefined },
  };
  const place = { profile: profileOf(config), now: nanosecondsAt(config, start) };
  const fresh = freshVcpus(config);
  const vcpus = manifest.vcpus.map(({ structs, vcpu }) => {
    const contents = new Map(structs.map((entry) => [entry.struct, checked(entry, read)]));
    const filled = begun(vcpusOf(start.state)[vcpu] as VcpuState, fresh[vcpu] as VcpuState, contents);
    requireNestedState(contents, place, `vCPU ${vcpu}`);
    writeVcpu(filled, contents, place, `vCPU ${vcpu}`);
    return filled;
  });
  const state = withVcpus(structuredState(start), vcpus);
  const { contents, digest } = ram === undefined ? ramOf(base) : ramOfPages(ram, config, base?.ram);
  const same =
    base !== undefined && stateDifferences(base.point.state, state).length === 0 && sameBytes(base.digests.ram, digest);
  const point: MachinePoint = same ? base.point : { ...start, state, unstated: 0, shadow: undefined };
  return {
    description,
    position: base?.position ?? { icount: BigInt(start.retired), seq: 0n },
    // What comes now was on no tape, unless it is the base itself.
    parent: same ? base.parent : undefined,
    ...{ point, ram: contents, image: base?.image },
    digests: { ...digestsWithoutRam({ state: point.state, retired: point.retired as never }), ram: digest },
  };
}

function refuseWithoutMachine(): never {
  throw new InputError('manifest', 'it has no configuration of a machine', 'Give a base: --base SNAP.');
}

/** The file of a structure. */
function checked({ struct, file, bytes, sha256: digest, fields }: ManifestStruct, read: KvmImport['read']): Uint8Array {
  const content = read(file);
  if (bytes !== undefined && content.length !== bytes) {
    throw new FolderDamagedError(`${file}: damaged: it has ${content.length} of ${bytes} bytes`);
  }
  if (digest !== undefined && sha256(content) !== digest) {
    throw new FolderDamagedError(`${file}: damaged: its SHA-256 digest is not that of the manifest`);
  }
  const problem = lengthProblem(struct, content);
  if (problem !== undefined) throw new InputError(file, problem, 'Take it again.');
  for (const [name, value] of Object.entries(readable(struct, content))) {
    const told = fields?.[name];
    if (told === undefined || told === value) continue;
    throw new InputError(
      file,
      `${name} is ${value} there and ${told} in the manifest`,
      'Leave fields out to go by files.',
    );
  }
  return content;
}

/**
 * What a vCPU is before the structures are put in: the base, for the copies that they do not carry. Copies of another mode
 * would be of another guest: then it is a fresh vCPU.
 */
function begun(base: VcpuState, fresh: VcpuState, contents: ReadonlyMap<StructName, Uint8Array>): VcpuState {
  const flags = contents.get('kvm_nested_state')?.[0] ?? 0;
  const inGuest = ((base.registers[R.svmMode] as bigint) & SvmMode.GUEST) !== 0n;
  if (inGuest !== ((flags & 1) !== 0)) return { ...fresh, apic: structuredClone(base.apic) };
  return {
    registers: REGISTER_NAMES.map((_, slot) => base.registers[slot as Slot] as bigint) as unknown as Registers,
    msrs: { ...base.msrs },
    apic: structuredClone(base.apic),
  };
}

/** A copy without the vCPUs' registers, which come in their place. */
function structuredState({ state }: MachinePoint): MachinePoint['state'] {
  const { vcpus, ...rest } = state;
  return { ...structuredClone(rest), vcpus };
}

interface DigestedRam {
  readonly contents: RamContents;
  readonly digest: Uint8Array;
}

function ramOf(base: Snapshot | undefined): DigestedRam {
  if (base !== undefined) return { contents: base.ram, digest: base.digests.ram };
  throw new InputError(
    'RAM',
    'there is none: neither a file in the folder nor a base',
    'Export with --ram, or give a base.',
  );
}

/** The disk's, which stand behind RAM, and which KVM has no part in. @throws InputError without a base that has them. */
function* diskPages(config: MachineConfig, base: RamContents | undefined): Generator<readonly [number, Uint8Array]> {
  if (config.diskBytes === 0) return;
  if (base === undefined) {
    throw new InputError('disk', 'what it holds is not in the folder', 'Give a base that has the disk.');
  }
  for (let page = config.ramBytes / PAGE_BYTES; page < base.pages.length; page++) {
    const number = base.pages[page] as number;
    if (number !== 0) yield [page, base.contents[number - 1] as Uint8Array];
  }
}

function ramOfPages(ram: GivenRam, config: MachineConfig, base: RamContents | undefined): DigestedRam {
  const { ramBytes } = config;
  if (ram.bytes !== ramBytes) {
    throw new InputError(
      'RAM',
      `its file has ${ram.bytes} bytes, and the machine ${ramBytes}`,
      'Use a base with as much.',
    );
  }
  const pages = new Uint32Array(keptBytes(config) / PAGE_BYTES);
  const tree = new PageTree(pages.length);
  const index = new PageIndex();
  const contents: Uint8Array[] = [];
  for (const [page, content] of [...ram.pages(), ...diskPages(config, base)]) {
    const digest = pageDigest(content);
    tree.set(page, digest);
    if (digest === undefined) continue;
    const known = index.find(digest);
    if (known === undefined) index.add(digest, contents.push(content));
    pages[page] = known ?? contents.length;
  }
  return { contents: { pages, contents }, digest: tree.root() };
}

/**
 * Digests of the guest-visible state at a boundary, one for each part: replay compares them with the tape's.
 *
 * Every part is written in one canonical form, whatever holds it (a live machine or a fold): integers little-endian,
 * device state with its keys in order. RAM is the journal's tree of digests over pages. The host save area needs no mask:
 * this machine keeps the host's state in registers of its own and never writes there.
 */
import { createHash } from 'node:crypto';
import { PageTree, pageDigest } from '../journal/index.js';
import {
  FIRST_EPOCH,
  type InstructionCount,
  invariant,
  type MachineState,
  PAGE_BYTES,
  type PhysicalMemory,
  REGISTER_NAMES,
  type Registers,
  type Slot,
} from '../machine/index.js';

/** Parts of the state, in the order in which the tape has their digests. */
export const STATE_PARTS = ['cpu', 'vmcb', 'devices', 'machine', 'ram'] as const;
export type StatePart = (typeof STATE_PARTS)[number];

export type StateDigests = Record<StatePart, Uint8Array>;

/** What has a state to digest: a live machine. */
export interface DigestedMachine {
  readonly state: MachineState;
  readonly retired: InstructionCount;
  readonly memory: Pick<PhysicalMemory, 'keptBytes' | 'window' | 'pagesWrittenSince' | 'newEpoch'>;
}

export function stateDigests(machine: DigestedMachine, ram = new RamDigester(machine.memory)): StateDigests {
  return { ...digestsWithoutRam(machine), ram: ram.digest() };
}

export function digestsWithoutRam({
  state,
  retired,
}: Pick<DigestedMachine, 'state' | 'retired'>): Omit<StateDigests, 'ram'> {
  return {
    cpu: cpuDigest(state),
    vmcb: vmcbDigest(state),
    devices: sha256(canonicalBytes(state.devices)),
    machine: machineDigest(state, retired),
  };
}

function cpuDigest({ vcpus }: MachineState): Uint8Array {
  const hash = createHash('sha256');
  for (const { registers, msrs } of vcpus) hash.update(registerBytes(registers)).update(canonicalBytes(msrs));
  return plain(hash.digest());
}

function registerBytes(registers: Registers): Uint8Array {
  const bytes = new Uint8Array(REGISTER_NAMES.length * 8);
  const view = new DataView(bytes.buffer);
  for (let slot = 0; slot < REGISTER_NAMES.length; slot++) {
    view.setBigUint64(slot * 8, registers[slot as Slot] as bigint, true);
  }
  return bytes;
}

function vmcbDigest({ vmcbs }: MachineState): Uint8Array {
  const hash = createHash('sha256');
  const addresses = Object.keys(vmcbs).map(Number);
  for (const address of addresses.sort((a, b) => a - b)) {
    const words = vmcbs[address];
    if (words === undefined) continue;
    hash.update(canonicalBytes(address));
    const bytes = new Uint8Array(words.length * 4);
    const view = new DataView(bytes.buffer);
    for (const [index, word] of words.entries()) view.setUint32(index * 4, word, true);
    hash.update(bytes);
  }
  return plain(hash.digest());
}

function machineDigest(state: MachineState, retired: InstructionCount): Uint8Array {
  const { schedule, holds, skippedNanoseconds, entropy, ended, resetAt, boot, paravirt } = state;
  const fields = { schedule, holds, skippedNanoseconds, entropy, ended, resetAt, boot, retired: Number(retired) };
  // Bare hardware has nothing of L0's to digest.
  return sha256(canonicalBytes(paravirt === null ? fields : { ...fields, paravirt }));
}

// RAM

/** Follows the digest of a machine's RAM: only pages written to since the last time are digested again. */
export class RamDigester {
  private readonly tree: PageTree;
  private epoch = FIRST_EPOCH;

  constructor(private readonly memory: DigestedMachine['memory']) {
    this.tree = new PageTree(memory.keptBytes / PAGE_BYTES);
  }

  digest(): Uint8Array {
    const { memory, tree } = this;
    const written = memory.pagesWrittenSince(this.epoch);
    this.epoch = memory.newEpoch();
    for (const page of written) tree.set(page, pageDigest(memory.window(page * PAGE_BYTES, PAGE_BYTES)));
    return tree.root();
  }
}

// Canonical form of plain data

const Tag = { NULL: 0, FALSE: 1, TRUE: 2, NUMBER: 3, BIGINT: 4, STRING: 5, BYTES: 6, ARRAY: 7, OBJECT: 8 } as const;

/** One value, one encoding: a tag and the value, lengths ahead, keys in order of their code units; -0 is 0. */
export function canonicalBytes(value: unknown): Uint8Array {
  const writer = new CanonicalWriter();
  writer.value(value);
  return writer.taken();
}

class CanonicalWriter {
  private bytes = new Uint8Array(4096);
  private view = new DataView(this.bytes.buffer);
  private length = 0;

  taken(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  value(value: unknown): void {
    switch (typeof value) {
      case 'boolean':
        this.tag(value ? Tag.TRUE : Tag.FALSE);
        return;
      case 'number':
        this.tag(Tag.NUMBER);
        this.view.setFloat64(this.length, value + 0, true);
        this.length += 8;
        return;
      case 'bigint':
        invariant(value >= 0n && value < 1n << 64n, 'state holds unsigned 64-bit values');
        this.tag(Tag.BIGINT);
        this.view.setBigUint64(this.length, value, true);
        this.length += 8;
        return;
      case 'string':
        this.text(value);
        return;
      case 'object':
        this.object(value);
        return;
      default:
        invariant(false, `state holds plain data, not a ${typeof value}`);
    }
  }

  private object(value: object | null): void {
    if (value === null) {
      this.tag(Tag.NULL);
    } else if (value instanceof Uint8Array) {
      this.counted(Tag.BYTES, value.length);
      this.append(value);
    } else if (Array.isArray(value)) {
      this.counted(Tag.ARRAY, value.length);
      for (const item of value) this.value(item);
    } else {
      invariant(Object.getPrototypeOf(value) === Object.prototype, 'state holds plain objects');
      const entries = Object.entries(value).filter(([, item]) => item !== undefined);
      entries.sort(([a], [b]) => (a < b ? -1 : 1));
      this.counted(Tag.OBJECT, entries.length);
      for (const [key, item] of entries) {
        this.text(key);
        this.value(item);
      }
    }
  }

  private text(text: string): void {
    const encoded = new TextEncoder().encode(text);
    this.counted(Tag.STRING, encoded.length);
    this.append(encoded);
  }

  private tag(tag: number): void {
    this.reserve(16);
    this.bytes[this.length++] = tag;
  }

  private counted(tag: number, count: number): void {
    this.tag(tag);
    this.view.setUint32(this.length, count, true);
    this.length += 4;
  }

  private append(data: Uint8Array): void {
    this.reserve(data.length);
    this.bytes.set(data, this.length);
    this.length += data.length;
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.bytes.length) return;
    const old = this.bytes;
    this.bytes = new Uint8Array(Math.max(2 * old.length, this.length + bytes));
    this.bytes.set(old);
    this.view = new DataView(this.bytes.buffer);
  }
}

const sha256 = (data: Uint8Array): Uint8Array => plain(createHash('sha256').update(data).digest());

/** The same bytes as a plain Uint8Array. */
const plain = ({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/**
 * What a machine is made of. Together with the boot image and the inputs it determines a session (law 2); it stands in
 * the tape's header as plain data.
 */
import type { CpuProfile } from './cpu/profile.js';
import { cpuProfile } from './cpu/profiles.js';
import { SECTOR_BYTES } from './devices/virtio-mmio.js';
import { InputError } from './errors.js';
import { MAX_RAM_BYTES, WASM_PAGE_BYTES } from './layout/linear-memory.js';
import { PARAVIRT_NAMES, type ParavirtName } from './paravirt/interface.js';
import { DEVIATION_NAMES, type DeviationName } from './policy/catalogue.js';

/** What becomes of a session that the guest resets, or that shuts down: it ends, or the machine boots its image again. */
export const RESET_NAMES = ['end', 'boot'] as const;
export type ResetName = (typeof RESET_NAMES)[number];

export interface MachineConfig {
  /** Guest RAM from sPA 0. */
  readonly ramBytes: number;
  readonly vcpus: number;
  /** Instructions that a vCPU runs before the next one's turn. */
  readonly quantumInstructions: number;
  /** Name of the CPU profile (`cpu/profiles.ts`). */
  readonly cpu: string;
  /** Where the processor does as another program does, in the order of the catalogue (`policy/catalogue.ts`). */
  readonly deviations: readonly DeviationName[];
  /** Virtual nanoseconds that pass with each retired instruction (docs/adr/0004-virtual-time.md). */
  readonly nanosecondsPerInstruction: number;
  /** What L0 offers its guest beyond hardware (docs/paravirt.md). */
  readonly paravirt: ParavirtName;
  /** See docs/devices.md, Resets. */
  readonly reset: ResetName;
  /** Of the medium of the virtio block device, whole sectors; 0 for no such device. */
  readonly diskBytes: number;
  /** Whether there is a virtio console. */
  readonly virtioConsole: boolean;
  /** Whether firmware leaves ACPI tables; MP tables are there either way. */
  readonly acpiTables: boolean;
}

export const DEFAULT_CONFIG: MachineConfig = {
  ramBytes: 128 * 1024 * 1024,
  vcpus: 1,
  quantumInstructions: 50_000,
  cpu: 'vmtape-base',
  deviations: [],
  nanosecondsPerInstruction: 10,
  paravirt: 'none',
  reset: 'end',
  diskBytes: 0,
  virtioConsole: false,
  acpiTables: true,
};

/** What the machine keeps page by page: RAM, and behind it the medium, in whole WebAssembly pages. */
export const keptBytes = ({ ramBytes, diskBytes }: MachineConfig): number =>
  ramBytes + Math.ceil(diskBytes / WASM_PAGE_BYTES) * WASM_PAGE_BYTES;

/** Raised whenever a session recorded before would replay differently. */
export const MACHINE_MODEL_VERSION = 13;

/** APIC ids are a byte wide, and the highest is the broadcast. */
const MAX_VCPUS = 255;
const MIN_RAM_BYTES = 1024 * 1024;

/** The processor that `config` names; undefined when there is no such profile. */
export function machineProfile({ cpu, deviations }: MachineConfig): CpuProfile | undefined {
  const profile = cpuProfile(cpu);
  return profile === undefined || deviations.length === 0 ? profile : { ...profile, deviations: new Set(deviations) };
}

/** @throws InputError for a medium that is not made of sectors, or does not fit behind RAM. */
function checkDisk(config: MachineConfig): void {
  const { diskBytes, virtioConsole } = config;
  if (!Number.isSafeInteger(diskBytes) || diskBytes < 0 || diskBytes % SECTOR_BYTES !== 0) {
    const problem = `it must be a multiple of ${SECTOR_BYTES}, the length of a sector`;
    throw new InputError(`a disk of ${diskBytes} bytes`, problem, 'Pad the file of --disk, as truncate -s does.');
  }
  if (keptBytes(config) > MAX_RAM_BYTES) {
    const problem = 'with RAM it takes more than 3584M, which the machine keeps in memory';
    throw new InputError(`a disk of ${diskBytes} bytes`, problem, 'Give a smaller one, or less --memory.');
  }
  if (typeof virtioConsole !== 'boolean') {
    throw new InputError(
      `virtioConsole ${JSON.stringify(virtioConsole)}`,
      'it is neither true nor false',
      'Give --console.',
    );
  }
}

/** @throws InputError */
function checkTables({ acpiTables }: MachineConfig): void {
  if (typeof acpiTables === 'boolean') return;
  const problem = 'it is neither true nor false';
  throw new InputError(`acpiTables ${JSON.stringify(acpiTables)}`, problem, 'Give --acpi on or --acpi off.');
}

/** @throws InputError naming the value that no machine can be made of. */
export function checkConfig(config: MachineConfig): void {
  const { ramBytes, vcpus, quantumInstructions, cpu, deviations, nanosecondsPerInstruction, paravirt, reset } = config;
  if (!Number.isSafeInteger(ramBytes) || ramBytes < MIN_RAM_BYTES || ramBytes > MAX_RAM_BYTES) {
    throw new InputError(`memory of ${ramBytes} bytes`, 'RAM must be between 1M and 3584M', 'Choose another --memory.');
  }
  if (ramBytes % WASM_PAGE_BYTES !== 0) {
    throw new InputError(`memory of ${ramBytes} bytes`, 'RAM must be a multiple of 64K', 'Choose another --memory.');
  }
  checkDisk(config);
  checkTables(config);
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS) {
    throw new InputError(`${vcpus} vCPUs`, `there may be 1 to ${MAX_VCPUS}`, 'Choose another --smp.');
  }
  if (!Number.isSafeInteger(quantumInstructions) || quantumInstructions < 1) {
    throw new InputError(
      `a quantum of ${quantumInstructions} instructions`,
      'it must be at least 1',
      'Choose another --quantum.',
    );
  }
  if (cpuProfile(cpu) === undefined) {
    throw new InputError(`CPU profile ${JSON.stringify(cpu)}`, 'there is none of that name', 'See vmtape profiles.');
  }
  const inOrder = DEVIATION_NAMES.filter((name) => deviations.includes(name));
  const stranger = deviations.find((name, index) => inOrder[index] !== name);
  if (stranger !== undefined) {
    const problem = 'it is unknown, named twice, or out of order';
    throw new InputError(`deviation ${JSON.stringify(stranger)}`, problem, 'See vmtape policies.');
  }
  if (
    !Number.isInteger(nanosecondsPerInstruction) ||
    nanosecondsPerInstruction < 1 ||
    nanosecondsPerInstruction > 1000
  ) {
    throw new InputError(
      `${nanosecondsPerInstruction} ns per instruction`,
      'virtual time must be a whole number of nanoseconds from 1 to 1000',
      'Choose another --time-per-instruction.',
    );
  }
  if (!PARAVIRT_NAMES.includes(paravirt)) {
    throw new InputError(
      `paravirtual interface ${JSON.stringify(paravirt)}`,
      'there is none of that name',
      `Choose one of ${PARAVIRT_NAMES.join(', ')} for --paravirt.`,
    );
  }
  if (!RESET_NAMES.includes(reset)) {
    throw new InputError(
      `reset ${JSON.stringify(reset)}`,
      'there is no such way to take one',
      `Choose one of ${RESET_NAMES.join(', ')} for --reset.`,
    );
  }
}

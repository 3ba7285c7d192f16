/**
 * What a machine is made of. Together with the boot image and the inputs it determines a session (law 2); it stands in
 * the tape's header as plain data.
 */
import { cpuProfile } from './cpu/profiles.js';
import { InputError } from './errors.js';
import { MAX_RAM_BYTES, WASM_PAGE_BYTES } from './layout/linear-memory.js';

export interface MachineConfig {
  /** Guest RAM from sPA 0. */
  readonly ramBytes: number;
  readonly vcpus: number;
  /** Name of the CPU profile (`cpu/profiles.ts`). */
  readonly cpu: string;
  /** Virtual nanoseconds that pass with each retired instruction (docs/adr/0004-virtual-time.md). */
  readonly nanosecondsPerInstruction: number;
}

export const DEFAULT_CONFIG: MachineConfig = {
  ramBytes: 128 * 1024 * 1024,
  vcpus: 1,
  cpu: 'vmtape-base',
  nanosecondsPerInstruction: 10,
};

/** Raised whenever a session recorded before would replay differently. */
export const MACHINE_MODEL_VERSION = 3;

const MIN_RAM_BYTES = 1024 * 1024;

/** @throws InputError naming the value that no machine can be made of. */
export function checkConfig(config: MachineConfig): void {
  const { ramBytes, vcpus, cpu, nanosecondsPerInstruction } = config;
  if (!Number.isSafeInteger(ramBytes) || ramBytes < MIN_RAM_BYTES || ramBytes > MAX_RAM_BYTES) {
    throw new InputError(`memory of ${ramBytes} bytes`, 'RAM must be between 1M and 3584M', 'Choose another --memory.');
  }
  if (ramBytes % WASM_PAGE_BYTES !== 0) {
    throw new InputError(`memory of ${ramBytes} bytes`, 'RAM must be a multiple of 64K', 'Choose another --memory.');
  }
  if (vcpus !== 1) {
    throw new InputError(`${vcpus} vCPUs`, 'this version runs one vCPU', 'Leave --smp out or set it to 1.');
  }
  if (cpuProfile(cpu) === undefined) {
    throw new InputError(`CPU profile ${JSON.stringify(cpu)}`, 'there is none of that name', 'See vmtape profiles.');
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
}

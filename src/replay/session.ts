/**
 * What a recorder and a replayer must do alike: the configuration on the tape, and where an uninterrupted run is cut.
 *
 * A run ends at the latest where a slice does, at a multiple of `sliceInstructions`: there the machine comes back to its
 * host, takes inputs and can be stopped. The length of a slice is on the tape, for it shows in the events; nothing else
 * about the host's loop does.
 */

import type { TapeDescription, TapeHeader } from '../journal/index.js';
import {
  checkConfig,
  DEFAULT_CONFIG,
  InputError,
  MACHINE_MODEL_VERSION,
  type MachineConfig,
} from '../machine/index.js';

export const SLICE_INSTRUCTIONS = 100_000;

export interface SessionConfig {
  readonly machine: MachineConfig;
  readonly sliceInstructions: number;
}

/** The end of the slice that runs when `retired` instructions have retired. */
export const sliceEnd = ({ sliceInstructions }: SessionConfig, retired: number): number =>
  (Math.floor(retired / sliceInstructions) + 1) * sliceInstructions;

export function describeSession(config: SessionConfig, vmtapeVersion: string): TapeDescription {
  const { machine } = config;
  const { ramBytes, vcpus, quantumInstructions, cpu, deviations, nanosecondsPerInstruction, paravirt, reset } = machine;
  const { diskBytes, virtioConsole, acpiTables } = machine;
  return {
    vmtapeVersion,
    machineVersion: String(MACHINE_MODEL_VERSION),
    configuration: {
      machine: {
        ramBytes,
        vcpus,
        quantumInstructions,
        cpu,
        deviations: [...deviations],
        nanosecondsPerInstruction,
        paravirt,
        reset,
        // Only where it differs: other tapes are as they were before there was such a choice.
        ...(diskBytes === 0 ? {} : { diskBytes }),
        ...(virtioConsole ? { virtioConsole } : {}),
        ...(acpiTables ? {} : { acpiTables }),
      },
      sliceInstructions: config.sliceInstructions,
    },
  };
}

/** @throws InputError when this vmtape cannot make the machine that the tape was recorded on. */
export function sessionConfig({ configuration }: Pick<TapeHeader, 'configuration'>): SessionConfig {
  const { machine: described, sliceInstructions } = configuration as unknown as Partial<SessionConfig>;
  if (described === undefined || described === null || typeof described !== 'object') {
    throw new InputError('tape header', 'its configuration describes no machine', 'Use the vmtape that recorded it.');
  }
  // A tape from before a field existed has what every machine had then.
  const machine: MachineConfig = { ...DEFAULT_CONFIG, ...described };
  checkConfig(machine);
  if (typeof sliceInstructions !== 'number' || !Number.isSafeInteger(sliceInstructions) || sliceInstructions < 1) {
    const problem = `a slice of ${JSON.stringify(sliceInstructions)} instructions is none`;
    throw new InputError('tape header', problem, 'Use the vmtape that recorded it.');
  }
  return { machine, sliceInstructions };
}

/** @throws InputError when the tape was recorded on another machine model: it would replay differently. */
export function requireSameModel({ machineVersion, vmtapeVersion }: TapeHeader): void {
  if (machineVersion === String(MACHINE_MODEL_VERSION)) return;
  throw new InputError(
    'tape header',
    `recorded on machine model ${machineVersion}, and this vmtape has model ${MACHINE_MODEL_VERSION}`,
    `Replay it with vmtape ${vmtapeVersion}.`,
  );
}

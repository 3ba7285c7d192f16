/** `vmtape resume SNAP`: goes on from a snapshot, on a tape of its own if one is asked for. */
import type { Command } from 'commander';
import { sqliteStore } from '../../../src/journal/index.js';
import { decodeSnapshot, LiveSession, Recorder, withProfile } from '../../../src/replay/index.js';
import { command } from '../command.js';
import { recordLive, runLive } from '../live.js';
import { addHostFlags, type HostFlags, readInputFile } from '../machine-flags.js';

interface ResumeOptions extends HostFlags {
  readonly output?: string;
  readonly cpu?: string;
}

export function resumeCommand(program: Command): void {
  addHostFlags(
    command(
      program,
      'resume',
      'goes on from a snapshot, recording if -o is given',
      'vmtape resume guest.vmsnap -o rest.vmtape',
      'vmtape replay guest.vmtape rest.vmtape',
    ),
  )
    .argument('<snap>')
    .option('-o, --output <tape>', 'the tape to make, which begins there; there must be none of that name')
    .option('--cpu <profile>', 'another CPU profile, which must have all that is in use')
    .action(async (file: string, options: ResumeOptions, self: Command) => {
      process.exitCode = await resume(file, options, self);
    });
}

async function resume(file: string, options: ResumeOptions, self: Command): Promise<number> {
  const { output, cpu } = options;
  const taken = decodeSnapshot(readInputFile(file, 'the snapshot'), file);
  const snapshot = cpu === undefined ? taken : withProfile(taken, cpu);
  if (output === undefined) return await runLive((sink) => LiveSession.resume(snapshot, {}, sink), options, self);
  return await recordLive((tape) => Recorder.resume(sqliteStore(output), snapshot, tape), { ...options, output }, self);
}

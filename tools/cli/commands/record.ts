/** `vmtape record IMAGE -o TAPE`: runs and records. */
import type { Command } from 'commander';
import { sqliteStore } from '../../../src/journal/index.js';
import { Recorder, type SessionOptions, type TapeOptions } from '../../../src/replay/index.js';
import { findFailure, type SearchOptions } from '../chaos-search.js';
import { command, terminalOf } from '../command.js';
import { recordLive } from '../live.js';
import { addMachineFlags, chaosPlan, sessionOptions } from '../machine-flags.js';

interface RecordOptions extends SearchOptions {
  readonly output: string;
  readonly untilFail?: boolean;
}

export function recordCommand(program: Command): void {
  addMachineFlags(
    command(program, 'record', 'runs an image and records it', 'vmtape record guest.elf -o guest.vmtape --seed 1'),
  )
    .argument('<image>', 'Multiboot 1 image: ELF, or flat with load addresses')
    .requiredOption('-o, --output <tape>', 'the tape to make; there must be none of that name')
    .option('--until-fail', 'try the seeds of --chaos until the guest comes out otherwise, and record that')
    .option('--fail-pattern <regex>', 'with --until-fail: what the console says counts, too')
    .action(async (image: string, options: RecordOptions, self: Command) => {
      const prepared = sessionOptions(image, options);
      if (options.untilFail === true) process.exitCode = await recordFailure(prepared, image, options, self);
      else {
        const chaos = chaosPlan(options, prepared.config.vcpus);
        process.exitCode = await record({ ...prepared, chaos }, image, options, self);
      }
    });
}

/** @returns 1 when a seed was found and its tape recorded, 0 when none was. */
async function recordFailure(
  prepared: SessionOptions,
  image: string,
  options: RecordOptions,
  self: Command,
): Promise<number> {
  const finding = await findFailure(prepared, options, terminalOf(self));
  if (finding === undefined) return 0;
  await record({ ...prepared, chaos: finding.shrunk }, image, { ...options, guestStatus: false }, self);
  return 1;
}

async function record(prepared: SessionOptions, image: string, options: RecordOptions, self: Command): Promise<number> {
  // A session that was searched for had no more input than its file.
  const input = options.untilFail === true ? (options.input ?? 'none') : options.input;
  const make = (tape: TapeOptions): Recorder => Recorder.boot(sqliteStore(options.output), { ...prepared, ...tape });
  return await recordLive(make, { ...options, ...(input === undefined ? {} : { input }) }, self, { imageFile: image });
}

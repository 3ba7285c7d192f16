/** `vmtape record IMAGE -o TAPE`: runs and records. */
import type { Command } from 'commander';
import { JournalError, sqliteStore } from '../../../src/journal/index.js';
import { Recorder, type SessionOptions } from '../../../src/replay/index.js';
import { VMTAPE_VERSION } from '../../version.js';
import { findFailure, type SearchOptions } from '../chaos-search.js';
import { command, terminalOf } from '../command.js';
import { type Counters, describeOutcome, drive, figures, type Outcome, outcomeStatus, Stopwatch } from '../drive.js';
import { byteSize, plural, shortCount } from '../format.js';
import { addMachineFlags, chaosPlan, sessionOptions } from '../machine-flags.js';
import { SerialInput, SerialOutput, serialInputFile } from '../serial-line.js';
import { jsonText } from '../terminal.js';

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
      if (options.untilFail === true) process.exitCode = await recordFailure(prepared, options, self);
      else {
        const chaos = chaosPlan(options, prepared.config.vcpus);
        process.exitCode = await record({ ...prepared, chaos }, options, self);
      }
    });
}

/** @returns 1 when a seed was found and its tape recorded, 0 when none was. */
async function recordFailure(prepared: SessionOptions, options: RecordOptions, self: Command): Promise<number> {
  const finding = await findFailure(prepared, options, terminalOf(self));
  if (finding === undefined) return 0;
  await record({ ...prepared, chaos: finding.shrunk }, { ...options, guestStatus: false }, self);
  return 1;
}

async function record(prepared: SessionOptions, options: RecordOptions, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const received = serialInputFile(options);
  const output = new SerialOutput(options.serial, terminal);
  const recorder = Recorder.boot(sqliteStore(options.output), {
    ...prepared,
    vmtapeVersion: VMTAPE_VERSION,
    checkpointEvery: options.checkpointEvery === 0 ? undefined : (options.checkpointEvery ?? 'adaptive'),
    observe: ({ event }) => {
      if (event.type === 'uart.transmitted') output.push(event.byte);
    },
  });
  const counters: Counters = {
    events: () => recorder.stats.events,
    exits: () => recorder.stats.exits,
    tapeBytes: () => recorder.stats.tapeBytes,
    checkpoints: () => recorder.stats.checkpoints,
  };
  // A session that was searched for had no more input than its file.
  const fromFile = options.untilFail === true ? (options.input ?? 'none') : options.input;
  const input = new SerialInput(
    { serial: options.serial, ...(fromFile === undefined ? {} : { input: fromFile }) },
    recorder,
    received,
  );
  const watch = new Stopwatch();
  let outcome: Outcome;
  try {
    outcome = await drive({
      ...{ session: recorder, counters, input, output, terminal },
      maxInstructions: options.maxInstructions,
    });
    recorder.finish();
  } catch (error) {
    giveUp(recorder);
    throw error;
  } finally {
    output.close();
  }
  const sums = figures(recorder, counters, watch.seconds);
  terminal.say(
    `vmtape: ${describeOutcome(outcome)}; ${shortCount(sums.instructions)} instructions, ${sums.mips.toFixed(1)} MIPS, ` +
      `${plural(sums.events, 'event')}, ${plural(sums.exits, 'exit')}, ${options.output}: ${byteSize(sums.tapeBytes)}`,
  );
  if (options.stats === true) process.stderr.write(`${jsonText(sums)}\n`);
  if (terminal.json) await terminal.document({ tape: options.output, outcome, ...sums });
  return outcomeStatus(outcome, options.guestStatus);
}

/** After an error: what is stored stays; that closing fails too says nothing new. */
function giveUp(recorder: Recorder): void {
  try {
    recorder.abandon();
  } catch (error) {
    if (!(error instanceof JournalError)) throw error;
  }
}

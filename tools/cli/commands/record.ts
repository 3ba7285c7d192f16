/** `vmtape record IMAGE -o TAPE`: runs and records. */
import type { Command } from 'commander';
import { JournalError, sqliteStore } from '../../../src/journal/index.js';
import { Recorder } from '../../../src/replay/index.js';
import { VMTAPE_VERSION } from '../../version.js';
import { command, terminalOf } from '../command.js';
import { type Counters, describeOutcome, drive, figures, type Outcome, outcomeStatus, Stopwatch } from '../drive.js';
import { byteSize, plural, shortCount } from '../format.js';
import { addMachineFlags, type MachineOptions, sessionOptions } from '../machine-flags.js';
import { SerialInput, SerialOutput, serialInputFile } from '../serial-line.js';
import { jsonText } from '../terminal.js';

interface RecordOptions extends MachineOptions {
  readonly output: string;
}

/** Instructions between two digests of the whole state: some seconds of integer code. */
const DIGEST_EVERY = 1_000_000_000;

export function recordCommand(program: Command): void {
  addMachineFlags(
    command(program, 'record', 'runs an image and records it', 'vmtape record guest.elf -o guest.vmtape --seed 1'),
  )
    .argument('<image>', 'Multiboot 1 image: ELF, or flat with load addresses')
    .requiredOption('-o, --output <tape>', 'the tape to make; there must be none of that name')
    .action(async (image: string, options: RecordOptions, self: Command) => {
      process.exitCode = await record(image, options, self);
    });
}

async function record(image: string, options: RecordOptions, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const prepared = sessionOptions(image, options);
  const received = serialInputFile(options);
  const output = new SerialOutput(options.serial, terminal);
  const recorder = new Recorder(sqliteStore(options.output), {
    ...prepared,
    vmtapeVersion: VMTAPE_VERSION,
    digestEvery: DIGEST_EVERY,
    observe: ({ event }) => {
      if (event.type === 'uart.transmitted') output.push(event.byte);
    },
  });
  const counters: Counters = {
    events: () => recorder.stats.events,
    exits: () => recorder.stats.exits,
    tapeBytes: () => recorder.stats.tapeBytes,
  };
  const input = new SerialInput(options, recorder, received);
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

/** `vmtape run IMAGE`: runs without a tape. */
import type { Command } from 'commander';
import type { StatedEvent } from '../../../src/machine/index.js';
import { LiveSession } from '../../../src/replay/index.js';
import { command, terminalOf } from '../command.js';
import { describeOutcome, drive, figures, outcomeStatus, Stopwatch } from '../drive.js';
import { shortCount } from '../format.js';
import { addMachineFlags, chaosPlan, type MachineOptions, sessionOptions } from '../machine-flags.js';
import { SerialInput, SerialOutput, serialInputFile } from '../serial-line.js';
import { jsonText } from '../terminal.js';

export function runCommand(program: Command): void {
  addMachineFlags(command(program, 'run', 'runs an image without a tape', 'vmtape run guest.elf --memory 64M'))
    .argument('<image>', 'Multiboot 1 image: ELF, or flat with load addresses')
    .action(async (image: string, options: MachineOptions, self: Command) => {
      process.exitCode = await run(image, options, self);
    });
}

async function run(image: string, options: MachineOptions, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const prepared = sessionOptions(image, options);
  const received = serialInputFile(options);
  const output = new SerialOutput(options.serial, terminal);
  let events = 0n;
  let exits = 0;
  const chaos = chaosPlan(options, prepared.config.vcpus);
  const session = LiveSession.boot({ ...prepared, chaos }, ({ event }: StatedEvent) => {
    events++;
    if (event.type === 'svm.vmexit') exits++;
    else if (event.type === 'uart.transmitted') output.push(event.byte);
  });
  const counters = { events: () => events, exits: () => exits, tapeBytes: () => undefined, checkpoints: () => 0 };
  const input = new SerialInput(options, session, received);
  const watch = new Stopwatch();
  const outcome = await drive({
    ...{ session, counters, input, output, terminal },
    maxInstructions: options.maxInstructions,
  });
  const { seconds } = watch;
  output.close();

  const sums = figures(session, counters, seconds);
  terminal.say(
    `vmtape: ${describeOutcome(outcome)}; ${shortCount(sums.instructions)} instructions, ` +
      `${sums.mips.toFixed(1)} MIPS, ${exits} exits`,
  );
  if (options.stats === true) process.stderr.write(`${jsonText(sums)}\n`);
  if (terminal.json) await terminal.document({ outcome, ...sums });
  return outcomeStatus(outcome, options.guestStatus);
}

/** `vmtape replay TAPE`: re-executes, compares every event and digest, reports the first difference. */
import type { Command } from 'commander';
import {
  comparePositions,
  formatPosition,
  type Position,
  sqliteStore,
  type TapeState,
} from '../../../src/journal/index.js';
import { Replayer, type ReplayOutcome, resolvePosition } from '../../../src/replay/index.js';
import { command, terminalOf } from '../command.js';
import { Stopwatch } from '../drive.js';
import { Status, UsageError } from '../failure.js';
import { plural, shortCount } from '../format.js';

import { SerialOutput } from '../serial-line.js';
import { jsonText, type Terminal } from '../terminal.js';

interface ReplayOptions {
  readonly to?: string;
  readonly from?: string;
  readonly serial?: boolean;
  readonly stats?: boolean;
}

const PROGRESS_SECONDS = 0.25;

export function replayCommand(program: Command): void {
  command(
    program,
    'replay',
    're-executes a tape, compares every event and digest, reports the first difference',
    'vmtape replay guest.vmtape',
    "vmtape replay guest.vmtape --to 'vmexit:cpuid[3]' --serial",
  )
    .argument('<tape>')
    .option('--to <pos>', 'stop there')
    .option('--from <pos>', 'start at the last checkpoint at or before it')
    .option('--serial', 'what the guest sends goes to stdout, as it did when it was recorded')
    .option('--stats', 'at the end one JSON line of figures on stderr')
    .action(async (tape: string, options: ReplayOptions, self: Command) => {
      process.exitCode = await replay(tape, options, self);
    });
}

async function replay(tape: string, options: ReplayOptions, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const reader = sqliteStore(tape).read();
  try {
    const to = options.to === undefined ? undefined : resolvePosition(reader, options.to);
    const from = options.from === undefined ? undefined : resolvePosition(reader, options.from);
    if (from !== undefined && to !== undefined && comparePositions(from, to) > 0) {
      throw new UsageError(`--from ${options.from} lies behind --to ${options.to}. Swap them.`);
    }
    const output = new SerialOutput({ kind: options.serial === true ? 'stdio' : 'null' }, terminal);
    const watch = new Stopwatch();
    const replayer = new Replayer(reader, {
      from,
      to,
      observe: ({ event }) => {
        if (event.type === 'uart.transmitted') output.push(event.byte);
      },
    });
    const outcome = await runToOutcome(replayer, output, terminal, watch);
    output.close();
    const { seconds } = watch;
    const { start } = replayer;
    const instructions = replayer.machine.retired - Number(start.icount);
    const events = replayer.compared - Number(start.seq);
    const sums = { start, instructions, events, seconds, mips: instructions / seconds / 1e6 };
    if (options.stats === true) process.stderr.write(`${jsonText({ ...sums, start: formatPosition(start) })}\n`);
    await report(tape, outcome, sums, options.serial === true, terminal);
    return outcome.kind === 'diverged' ? Status.NO : Status.DONE;
  } finally {
    reader.close();
  }
}

async function runToOutcome(
  replayer: Replayer,
  output: SerialOutput,
  terminal: Terminal,
  watch: Stopwatch,
): Promise<ReplayOutcome> {
  let told = 0;
  for (;;) {
    const outcome = replayer.step();
    output.flush();
    if (outcome !== undefined) {
      terminal.clearStatus();
      return outcome;
    }
    if (!terminal.showsStatus || watch.seconds - told < PROGRESS_SECONDS) continue;
    told = watch.seconds;
    const { retired } = replayer.machine;
    terminal.status(
      `replayed ${shortCount(retired)} instructions, ${shortCount(replayer.compared)} events, all the same`,
    );
    await new Promise((resolve) => setImmediate(resolve));
  }
}

interface Sums {
  /** Where the replay began. */
  readonly start: Position;
  readonly instructions: number;
  readonly events: number;
  readonly seconds: number;
}

async function report(
  tape: string,
  outcome: ReplayOutcome,
  sums: Sums,
  busy: boolean,
  terminal: Terminal,
): Promise<void> {
  if (terminal.json) {
    await terminal.document({ tape, ...outcomeJson(outcome), ...sums, start: formatPosition(sums.start) });
    return;
  }
  const text = outcomeText(tape, outcome, sums);
  if (outcome.kind !== 'diverged' && terminal.quiet) return;
  // stdout is the guest's when --serial is given.
  if (busy) process.stderr.write(`${text}\n`);
  else await terminal.print([text]);
}

const ENDINGS: Readonly<Record<TapeState, string>> = {
  complete: '',
  recording: ' The tape is still being recorded: this is how far it was when it was opened.',
  cut: ' The tape was cut there: its recording was killed or failed.',
};

function outcomeText(tape: string, outcome: ReplayOutcome, { start, instructions, events, seconds }: Sums): string {
  const rate = `${shortCount(instructions)} instructions in ${seconds.toFixed(2)} s`;
  const from = start.seq === 0n ? '' : ` from ${formatPosition(start)} on`;
  switch (outcome.kind) {
    case 'identical':
      return `${tape}: identical${from}: ${plural(events, 'event')} and ${plural(outcome.digests, 'state digest')}, ${rate}.${ENDINGS[outcome.tape]}`;
    case 'reached':
      return `${tape}: identical${from} up to ${formatPosition(outcome.at)}: ${plural(events, 'event')}, ${rate}.`;
    case 'diverged':
      return outcome.divergence.report();
  }
}

function outcomeJson(outcome: ReplayOutcome): object {
  switch (outcome.kind) {
    case 'identical':
      return { outcome: 'identical', end: formatPosition(outcome.end), state: outcome.tape, digests: outcome.digests };
    case 'reached':
      return { outcome: 'identical', end: formatPosition(outcome.at) };
    case 'diverged':
      return {
        outcome: 'diverged',
        at: formatPosition(outcome.divergence.position),
        report: outcome.divergence.report(),
      };
  }
}

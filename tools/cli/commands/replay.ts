/** `vmtape replay TAPE`: re-executes, compares every event and digest, reports the first difference. */
import type { Command } from 'commander';
import {
  comparePositions,
  formatPosition,
  type JournalReader,
  type Position,
  sameBytes,
  sqliteStore,
  type TapeState,
} from '../../../src/journal/index.js';
import { Replayer, type ReplayOutcome, resolvePosition, stateDigests } from '../../../src/replay/index.js';
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
    .argument('<tapes...>', 'one, or several of one session that each go on from the one before')
    .option('--to <pos>', 'stop there')
    .option('--from <pos>', 'start at the last checkpoint at or before it')
    .option('--serial', 'what the guest sends goes to stdout, as it did when it was recorded')
    .option('--stats', 'at the end one JSON line of figures on stderr')
    .action(async (tapes: readonly string[], options: ReplayOptions, self: Command) => {
      if (tapes.length > 1 && (options.to ?? options.from) !== undefined) {
        throw new UsageError('--from and --to are for one tape. Leave them out, or give one tape.');
      }
      process.exitCode = await replayAll(tapes, options, self);
    });
}

/** @returns the first status that is not that of a session found the same. */
async function replayAll(tapes: readonly string[], options: ReplayOptions, self: Command): Promise<number> {
  for (const [index, tape] of tapes.entries()) {
    const status = await replay(tape, tapes[index + 1], options, self);
    if (status !== Status.DONE) return status;
  }
  return Status.DONE;
}

/** @param next the tape that goes on from this one: it is replayed up to there. */
async function replay(tape: string, next: string | undefined, options: ReplayOptions, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const reader = sqliteStore(tape).read();
  const following = next === undefined ? undefined : sqliteStore(next).read();
  try {
    if (following !== undefined) requireParent(tape, reader, next as string, following);
    const to = following?.start ?? (options.to === undefined ? undefined : resolvePosition(reader, options.to));
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
    if (outcome.kind === 'diverged') return Status.NO;
    const parts = following === undefined ? [] : differingParts(replayer, following);
    if (parts.length === 0) return Status.DONE;
    process.stderr.write(`vmtape: ${next} begins with another state than ${tape} leads to: ${parts.join(', ')}.\n`);
    return Status.NO;
  } finally {
    reader.close();
    following?.close();
  }
}

/** @throws UsageError when a tape does not go on from the other. */
function requireParent(tape: string, reader: JournalReader, next: string, { header, start }: JournalReader): void {
  const { end } = reader;
  const isBehind = start.seq <= end.seq && start.seq >= reader.start.seq;
  if (header.origin !== undefined && isBehind && reader.historyDigest(start.seq) === header.origin.parent) return;
  const problem = header.origin === undefined ? 'it begins with a session' : `what it goes on from is another`;
  throw new UsageError(`${next} does not go on from ${tape}: ${problem}. Give the tapes in their order.`);
}

/** Parts of the state in which a tape does not begin as the replay ended. */
function differingParts({ machine }: Replayer, following: JournalReader): readonly string[] {
  const reached: Readonly<Record<string, Uint8Array>> = stateDigests(machine);
  return [...following.digests()]
    .filter(({ position }) => comparePositions(position, following.start) === 0)
    .filter(({ kind, value }) => !sameBytes(reached[kind] ?? new Uint8Array(), value))
    .map(({ kind }) => kind);
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

/** `vmtape replay TAPE`: re-executes, compares every event and digest, reports the first difference. */
import type { Command } from 'commander';
import {
  comparePositions,
  formatPosition,
  type JournalReader,
  type Position,
  sqliteStore,
  type TapeState,
  toHex,
} from '../../../src/journal/index.js';
import {
  checkpointBefore,
  type IntervalStart,
  Replayer,
  type ReplayOutcome,
  type ReplaySums,
  resolvePosition,
  stateDigests,
} from '../../../src/replay/index.js';
import { type ParallelResult, placesOf, replayInParallel } from '../../replay/parallel.js';
import { parseCount } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Stopwatch } from '../drive.js';
import { useUsualEngine } from '../engine.js';
import { Status, UsageError } from '../failure.js';
import { plural, shortCount } from '../format.js';
import { engineFlag } from '../machine-flags.js';
import { SerialOutput } from '../serial-line.js';
import { jsonText, type Terminal } from '../terminal.js';

interface ReplayOptions {
  readonly to?: string;
  readonly from?: string;
  readonly serial?: boolean;
  readonly stats?: boolean;
  readonly jobs?: number;
  readonly engine?: string;
}

interface Extent {
  readonly from: Position | undefined;
  readonly to: Position | undefined;
}

/** What one replay came to, by however many processes. */
interface Replayed extends Pick<ParallelResult, 'outcome'> {
  readonly start: Position;
  readonly instructions: number;
  readonly events: number;
  /** Digests of the state at its end, by part. */
  readonly reached: () => Readonly<Record<string, string>>;
  readonly jobs: number;
}

const PROGRESS_SECONDS = 0.25;

export function replayCommand(program: Command): void {
  command(
    program,
    'replay',
    're-executes a tape, compares every event and digest, reports the first difference',
    'vmtape replay guest.vmtape',
    "vmtape replay guest.vmtape --to 'vmexit:cpuid[3]' --serial",
    'vmtape replay guest.vmtape --jobs 4',
  )
    .argument('<tapes...>', 'one, or several of one session that each go on from the one before')
    .option('--to <pos>', 'stop there')
    .option('--from <pos>', 'start at the last checkpoint at or before it')
    .option('--serial', 'what the guest sends goes to stdout, as it did when it was recorded')
    .option('--jobs <n>', 'processes that replay parts of the tape at the same time, from its checkpoints', (text) =>
      parseCount(text, '--jobs', 1),
    )
    .addOption(engineFlag())
    .option('--stats', 'at the end one JSON line of figures on stderr')
    .action(async (tapes: readonly string[], options: ReplayOptions, self: Command) => {
      if (tapes.length > 1 && (options.to ?? options.from) !== undefined) {
        throw new UsageError('--from and --to are for one tape. Leave them out, or give one tape.');
      }
      if (options.serial === true && (options.jobs ?? 1) > 1) {
        throw new UsageError('--serial needs the session in its order. Leave out --jobs, or --serial.');
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
    const watch = new Stopwatch();
    const replayed = await replayPart(tape, reader, { from, to }, options, terminal, watch);
    const { outcome, start, instructions, events } = replayed;
    const { seconds } = watch;
    const sums = { start, instructions, events, seconds, mips: instructions / seconds / 1e6, jobs: replayed.jobs };
    if (options.stats === true) process.stderr.write(`${jsonText({ ...sums, start: formatPosition(start) })}\n`);
    await report(tape, outcome, sums, options.serial === true, terminal);
    if (outcome.kind === 'diverged') return Status.NO;
    const parts = following === undefined ? [] : differingParts(replayed.reached(), following);
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

async function replayPart(
  tape: string,
  reader: JournalReader,
  { from, to }: Extent,
  options: ReplayOptions,
  terminal: Terminal,
  watch: Stopwatch,
): Promise<Replayed> {
  const near = from && checkpointBefore(reader, from);
  const start: IntervalStart = { position: near?.position ?? reader.start, checkpoint: near?.id, isJoint: false };
  const extent = { tape, reader, from: start, to };
  const places = placesOf(extent);
  // What is recorded still has another end in each process.
  if ((options.jobs ?? 1) === 1 || places.length === 2 || reader.state === 'recording') {
    return await replayAlone(reader, { from, to }, options.serial === true, terminal, watch);
  }
  const jobs = Math.min(options.jobs ?? 1, places.length - 1);
  const progress = new ProgressLine(terminal, watch);
  const { outcome, instructions, events, reached } = await replayInParallel(
    { ...extent, jobs, engine: options.engine ?? useUsualEngine() },
    places,
    (sums) => progress.tell(sums, ` by ${jobs} processes`),
  ).finally(() => terminal.clearStatus());
  return { outcome, start: start.position, instructions, events, reached: () => reached ?? {}, jobs };
}

async function replayAlone(
  reader: JournalReader,
  { from, to }: Extent,
  serial: boolean,
  terminal: Terminal,
  watch: Stopwatch,
): Promise<Replayed> {
  const output = new SerialOutput({ kind: serial ? 'stdio' : 'null' }, terminal);
  const replayer = new Replayer(reader, {
    from,
    to,
    observe: ({ event }) => {
      if (event.type === 'uart.transmitted') output.push(event.byte);
    },
  });
  const outcome = await runToOutcome(replayer, output, new ProgressLine(terminal, watch));
  terminal.clearStatus();
  output.close();
  const { start, machine } = replayer;
  return {
    outcome:
      outcome.kind === 'diverged'
        ? { kind: 'diverged', position: outcome.divergence.position, report: outcome.divergence.report() }
        : outcome,
    start,
    instructions: machine.retired - Number(start.icount),
    events: replayer.compared - Number(start.seq),
    reached: () =>
      Object.fromEntries(Object.entries(stateDigests(machine)).map(([part, digest]) => [part, toHex(digest)])),
    jobs: 1,
  };
}

/** Parts of the state in which a tape does not begin as the replay ended. */
const differingParts = (reached: Readonly<Record<string, string>>, following: JournalReader): readonly string[] =>
  [...following.digests()]
    .filter(({ position }) => comparePositions(position, following.start) === 0)
    .filter(({ kind, value }) => reached[kind] !== toHex(value))
    .map(({ kind }) => kind);

async function runToOutcome(replayer: Replayer, output: SerialOutput, progress: ProgressLine): Promise<ReplayOutcome> {
  for (;;) {
    const outcome = replayer.step();
    output.flush();
    if (outcome !== undefined) return outcome;
    const told = progress.tell({ instructions: replayer.machine.retired, events: replayer.compared });
    if (told) await new Promise((resolve) => setImmediate(resolve));
  }
}

class ProgressLine {
  private told = 0;

  constructor(
    private readonly terminal: Terminal,
    private readonly watch: Stopwatch,
  ) {}

  /** @returns whether it was time to. */
  tell({ instructions, events }: Pick<ReplaySums, 'instructions' | 'events'>, by = ''): boolean {
    const { terminal, watch } = this;
    if (!terminal.showsStatus || watch.seconds - this.told < PROGRESS_SECONDS) return false;
    this.told = watch.seconds;
    terminal.status(
      `replayed ${shortCount(instructions)} instructions, ${shortCount(events)} events${by}, all the same`,
    );
    return true;
  }
}

interface Sums {
  /** Where the replay began. */
  readonly start: Position;
  readonly instructions: number;
  readonly events: number;
  readonly seconds: number;
  readonly jobs: number;
}

type Outcome = Replayed['outcome'];

async function report(tape: string, outcome: Outcome, sums: Sums, busy: boolean, terminal: Terminal): Promise<void> {
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

function outcomeText(tape: string, outcome: Outcome, { start, instructions, events, seconds, jobs }: Sums): string {
  const rate = `${shortCount(instructions)} instructions in ${seconds.toFixed(2)} s${jobs === 1 ? '' : ` by ${jobs} processes`}`;
  const from = start.seq === 0n ? '' : ` from ${formatPosition(start)} on`;
  switch (outcome.kind) {
    case 'identical':
      return `${tape}: identical${from}: ${plural(events, 'event')} and ${plural(outcome.digests, 'state digest')}, ${rate}.${ENDINGS[outcome.tape]}`;
    case 'reached':
      return `${tape}: identical${from} up to ${formatPosition(outcome.at)}: ${plural(events, 'event')}, ${rate}.`;
    case 'diverged':
      return outcome.report;
  }
}

function outcomeJson(outcome: Outcome): object {
  switch (outcome.kind) {
    case 'identical':
      return { outcome: 'identical', end: formatPosition(outcome.end), state: outcome.tape, digests: outcome.digests };
    case 'reached':
      return { outcome: 'identical', end: formatPosition(outcome.at) };
    case 'diverged':
      return {
        outcome: 'diverged',
        at: formatPosition(outcome.position),
        report: outcome.report,
      };
  }
}

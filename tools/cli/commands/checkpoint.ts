/** `vmtape checkpoint TAPE`: makes, thins and drops the checkpoints of a tape that is no longer recorded. */
import { statSync } from 'node:fs';
import type { Command } from 'commander';
import { DerivedDataFile, formatPosition, type JournalReader, sqliteStore } from '../../../src/journal/index.js';
import { type CheckpointInterval, CheckpointTaker, Replayer, thinned } from '../../../src/replay/index.js';
import { parseCount } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Stopwatch } from '../drive.js';
import { Status, UsageError } from '../failure.js';
import { byteSize, plural, shortCount } from '../format.js';
import type { Terminal } from '../terminal.js';

interface CheckpointOptions {
  readonly every?: number;
  readonly thin?: boolean;
  readonly drop?: boolean;
}

const PROGRESS_SECONDS = 0.25;

export function checkpointCommand(program: Command): void {
  command(
    program,
    'checkpoint',
    'makes the checkpoints of a tape anew, thins them or drops them',
    'vmtape checkpoint guest.vmtape --every 50000000',
    'vmtape checkpoint guest.vmtape --thin',
  )
    .argument('<tape>')
    .option('--every <n>', 'instructions between two of them (default: as the session goes)', (text) =>
      parseCount(text, '--every', 1),
    )
    .option('--thin', 'keep those there are, but fewer the older they are')
    .option('--drop', 'drop all: they can be made again')
    .action(async (tape: string, options: CheckpointOptions, self: Command) => {
      const chosen = [options.every !== undefined, options.thin === true, options.drop === true].filter(Boolean);
      if (chosen.length > 1) throw new UsageError('--every, --thin and --drop exclude each other. Choose one.');
      process.exitCode = await checkpoint(tape, options, terminalOf(self));
    });
}

async function checkpoint(tape: string, options: CheckpointOptions, terminal: Terminal): Promise<number> {
  const reader = sqliteStore(tape).read();
  const before = { count: reader.checkpoints().length, bytes: statSync(tape).size };
  const file = DerivedDataFile.open(tape);
  try {
    if (options.drop === true) file.drop(reader.checkpoints().map(({ id }) => id));
    else if (options.thin === true) file.drop(thinned(reader.checkpoints(), reader.end).map(({ id }) => id));
    else if (!(await remake(tape, reader, file, options.every ?? 'adaptive', terminal))) return Status.NO;
  } finally {
    reader.close();
    file.close();
  }
  await report(tape, before, terminal);
  return Status.DONE;
}

/** Replays the tape and takes checkpoints on the way; then drops those that there were. @returns false when it diverged. */
async function remake(
  tape: string,
  reader: JournalReader,
  file: DerivedDataFile,
  interval: CheckpointInterval,
  terminal: Terminal,
): Promise<boolean> {
  const old = reader.checkpoints().map(({ id }) => id);
  const replayer = new Replayer(reader);
  const taker = new CheckpointTaker(replayer.machine, interval);
  const take = (): void => {
    const position = { icount: BigInt(replayer.machine.retired), seq: BigInt(replayer.compared) };
    file.put(taker.take(position));
  };
  const watch = new Stopwatch();
  let told = 0;
  for (;;) {
    const outcome = replayer.step();
    if (outcome !== undefined) {
      terminal.clearStatus();
      if (outcome.kind === 'diverged') {
        process.stderr.write(
          `vmtape: ${tape}: the replay diverged, so it has only the checkpoints before that.\n${outcome.divergence.report()}\n`,
        );
        return false;
      }
      break;
    }
    if (taker.isDue(BigInt(replayer.compared))) take();
    if (!terminal.showsStatus || watch.seconds - told < PROGRESS_SECONDS) continue;
    told = watch.seconds;
    terminal.status(
      `${shortCount(replayer.machine.retired)} of ${shortCount(Number(reader.end.icount))} instructions, ${plural(taker.taken, 'checkpoint')}`,
    );
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (reader.state === 'complete') take();
  file.drop(old);
  return true;
}

async function report(
  tape: string,
  before: { readonly count: number; readonly bytes: number },
  terminal: Terminal,
): Promise<void> {
  const reader = sqliteStore(tape).read();
  const entries = reader.checkpoints();
  reader.close();
  const bytes = statSync(tape).size;
  if (terminal.json) {
    const checkpoints = entries.map(({ position, bytes: own }) => ({ position: formatPosition(position), bytes: own }));
    await terminal.document({
      tape,
      tapeBytes: { before: before.bytes, after: bytes },
      before: before.count,
      checkpoints,
    });
  } else if (!terminal.quiet) {
    const was = before.count === entries.length ? '' : ` (${before.count} before)`;
    await terminal.print([
      `${tape}: ${plural(entries.length, 'checkpoint')}${was}, ${byteSize(bytes)} (${byteSize(before.bytes)} before)`,
    ]);
  }
}

#!/usr/bin/env node
/** The command line: parses arguments, picks a command, turns errors into messages and exit statuses (docs/cli.md). */
import { Command, CommanderError } from 'commander';
import { VMTAPE_VERSION } from '../version.js';
import { alignCommand } from './commands/align.js';
import { bisectCommand } from './commands/bisect.js';
import { checkpointCommand } from './commands/checkpoint.js';
import { conformCommand } from './commands/conform.js';
import { dapCommand } from './commands/dap.js';
import { debugCommand } from './commands/debug.js';
import { diffCommand } from './commands/diff.js';
import { exportCommand } from './commands/export.js';
import { importCommand } from './commands/import.js';
import { infoCommand } from './commands/info.js';
import { lintNestedStateCommand } from './commands/lint-nested-state.js';
import { lockstepCommand } from './commands/lockstep.js';
import { logCommand } from './commands/log.js';
import { migrateCommand } from './commands/migrate.js';
import { policiesCommand } from './commands/policies.js';
import { profilesCommand } from './commands/profiles.js';
import { receiveCommand } from './commands/receive.js';
import { recordCommand } from './commands/record.js';
import { replayCommand } from './commands/replay.js';
import { resumeCommand } from './commands/resume.js';
import { runCommand } from './commands/run.js';
import { showCommand } from './commands/show.js';
import { snapshotCommand } from './commands/snapshot.js';
import { sqlCommand } from './commands/sql.js';
import { timelineCommand } from './commands/timeline.js';
import { tortureCommand } from './commands/torture.js';
import { traceCommand } from './commands/trace.js';
import { verifyCommand } from './commands/verify.js';
import { whoWroteCommand } from './commands/who-wrote.js';
import { readBranchHints } from './engine.js';
import { failureOf, Status } from './failure.js';
import { errorColors, ReaderGone } from './terminal.js';

readBranchHints();

function program(): Command {
  const root = new Command('vmtape')
    .description(
      'An AMD64 computer with SVM that can be rewound: records sessions on tapes and replays them bit for bit',
    )
    .version(VMTAPE_VERSION, '-V, --version', 'the version of vmtape')
    .helpOption('-h, --help', 'this page, or that of a command')
    .helpCommand('help [command]', 'the page of a command')
    .showSuggestionAfterError()
    .exitOverride()
    .addHelpText(
      'after',
      '\nExit status: 0 as asked, 1 the answer is no, 2 wrong usage or bad input, 3 the tape is damaged, 4 an operating error.',
    );
  for (const add of [
    ...[runCommand, recordCommand, replayCommand, verifyCommand, infoCommand, logCommand, showCommand],
    ...[traceCommand, whoWroteCommand, sqlCommand, timelineCommand, exportCommand, checkpointCommand],
    ...[snapshotCommand, resumeCommand, diffCommand, migrateCommand, receiveCommand, debugCommand, dapCommand],
    ...[
      importCommand,
      lintNestedStateCommand,
      tortureCommand,
      bisectCommand,
      conformCommand,
      alignCommand,
      lockstepCommand,
    ],
    ...[profilesCommand, policiesCommand],
  ]) {
    add(root);
  }
  for (const each of root.commands) each.exitOverride().showSuggestionAfterError();
  return root;
}

async function main(): Promise<void> {
  try {
    await program().parseAsync();
  } catch (error) {
    if (error instanceof ReaderGone) return;
    // Commander has said what is wrong; help and --version end here too.
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? Status.DONE : Status.USAGE;
    else tell(error);
  }
}

function tell(error: unknown): void {
  const { status, message } = failureOf(error);
  const { red } = errorColors();
  process.stderr.write(`${red('vmtape:')} ${message}\n`);
  if (process.env.VMTAPE_DEBUG === '1' && error instanceof Error) process.stderr.write(`${causes(error)}\n`);
  process.exitCode = status;
}

const causes = (error: Error): string =>
  `${error.stack ?? error}${error.cause instanceof Error ? `\ncaused by ${causes(error.cause)}` : ''}`;

await main();

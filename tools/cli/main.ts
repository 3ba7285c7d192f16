#!/usr/bin/env node
/** The command line: parses arguments, picks a command, turns errors into messages and exit statuses (docs/cli.md). */
import { Command, CommanderError } from 'commander';
import { VMTAPE_VERSION } from '../version.js';
import { tuneV8, useUsualEngine } from './engine.js';
import { failureOf, Status } from './failure.js';
import { errorColors, ReaderGone } from './terminal.js';

tuneV8();

// Help pages are written past the terminal of a command. Who stops reading them wants no more.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}

type AddCommand = (program: Command) => void;

/** Where each command is, in the order of the help page. Only what is asked for is loaded: that is most of a short command's time. */
const COMMANDS: Readonly<Record<string, () => Promise<AddCommand>>> = {
  run: async () => (await import('./commands/run.js')).runCommand,
  record: async () => (await import('./commands/record.js')).recordCommand,
  replay: async () => (await import('./commands/replay.js')).replayCommand,
  verify: async () => (await import('./commands/verify.js')).verifyCommand,
  info: async () => (await import('./commands/info.js')).infoCommand,
  log: async () => (await import('./commands/log.js')).logCommand,
  show: async () => (await import('./commands/show.js')).showCommand,
  trace: async () => (await import('./commands/trace.js')).traceCommand,
  symbols: async () => (await import('./commands/symbols.js')).symbolsCommand,
  'who-wrote': async () => (await import('./commands/who-wrote.js')).whoWroteCommand,
  sql: async () => (await import('./commands/sql.js')).sqlCommand,
  timeline: async () => (await import('./commands/timeline.js')).timelineCommand,
  export: async () => (await import('./commands/export.js')).exportCommand,
  checkpoint: async () => (await import('./commands/checkpoint.js')).checkpointCommand,
  snapshot: async () => (await import('./commands/snapshot.js')).snapshotCommand,
  resume: async () => (await import('./commands/resume.js')).resumeCommand,
  diff: async () => (await import('./commands/diff.js')).diffCommand,
  migrate: async () => (await import('./commands/migrate.js')).migrateCommand,
  receive: async () => (await import('./commands/receive.js')).receiveCommand,
  debug: async () => (await import('./commands/debug.js')).debugCommand,
  dap: async () => (await import('./commands/dap.js')).dapCommand,
  import: async () => (await import('./commands/import.js')).importCommand,
  'lint-nested-state': async () => (await import('./commands/lint-nested-state.js')).lintNestedStateCommand,
  torture: async () => (await import('./commands/torture.js')).tortureCommand,
  bisect: async () => (await import('./commands/bisect.js')).bisectCommand,
  conform: async () => (await import('./commands/conform.js')).conformCommand,
  align: async () => (await import('./commands/align.js')).alignCommand,
  lockstep: async () => (await import('./commands/lockstep.js')).lockstepCommand,
  profiles: async () => (await import('./commands/profiles.js')).profilesCommand,
  policies: async () => (await import('./commands/policies.js')).policiesCommand,
};

/** @param asked the first word; every command is there when it is none, for the help page and for suggestions. */
async function program(asked: string | undefined): Promise<Command> {
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
  const one = asked !== undefined && Object.hasOwn(COMMANDS, asked) ? COMMANDS[asked] : undefined;
  for (const load of one === undefined ? Object.values(COMMANDS) : [one]) (await load())(root);
  for (const each of root.commands) each.exitOverride().showSuggestionAfterError();
  return root;
}

async function main(): Promise<void> {
  try {
    useUsualEngine();
    const root = await program(process.argv[2]);
    await root.parseAsync();
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

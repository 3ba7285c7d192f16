/** Sessions that run now, from wherever they begin: to their end, with the console and the figures that people ask for. */
import type { Command } from 'commander';
import { JournalError } from '../../src/journal/index.js';
import type { EventSink, StatedEvent } from '../../src/machine/index.js';
import type { LiveSession, Recorder, TapeOptions } from '../../src/replay/index.js';
import { Profile, type TierCounts, tierCounts } from '../profile/profile.js';
import { symbolsOfSession } from '../profile/read-symbols.js';
import type { LevelSymbols } from '../symbols/level-symbols.js';
import { VMTAPE_VERSION } from '../version.js';
import { terminalOf } from './command.js';
import {
  type Counters,
  type Drive,
  type DrivenSession,
  describeOutcome,
  drive,
  figures,
  type Outcome,
  outcomeStatus,
  Stopwatch,
} from './drive.js';
import { UsageError } from './failure.js';
import { byteSize, plural, shortCount } from './format.js';
import type { HostFlags } from './machine-flags.js';
import { consoleInputFile, GuestOutput, SerialInput, serialInputFile } from './serial-line.js';
import { jsonText } from './terminal.js';

export interface LiveHooks extends Pick<Drive, 'between' | 'holdsOutput'> {
  /** The file of the image that was booted. */
  readonly imageFile?: string;
}

/** Runs without a tape. @param begin makes the session. @returns the exit status. */
export async function runLive(
  begin: (sink: EventSink) => LiveSession,
  options: HostFlags,
  self: Command,
  hooks: LiveHooks = {},
): Promise<number> {
  const terminal = terminalOf(self);
  const received = serialInputFile(options);
  const toConsole = consoleInputFile(options);
  const output = new GuestOutput(options, terminal);
  const symbols = symbolsFor(options, hooks);
  let profile: Profile | undefined;
  let events = 0;
  let exits = 0;
  const session = begin((stated: StatedEvent) => {
    const { event } = stated;
    events++;
    profile?.take(stated);
    if (event.type === 'svm.vmexit') exits++;
    else output.take(event);
  });
  const counters = {
    events: () => BigInt(events),
    exits: () => exits,
    tapeBytes: () => undefined,
    checkpoints: () => 0,
  };
  session.feedConsole(toConsole);
  const input = new SerialInput(options, session, received);
  const first = session.machine.retired;
  profile = profileOf(session, symbols);
  const watch = new Stopwatch();
  const outcome = await drive({
    ...{ session, counters, input, output, terminal, ...hooks },
    maxInstructions: options.maxInstructions,
  });
  const { seconds } = watch;
  output.close();

  const sums = { ...figures(session, counters, seconds, first), tiers: tiersOf(session, first) };
  terminal.say(
    `vmtape: ${describeOutcome(outcome)}; ${shortCount(sums.instructions)} instructions, ` +
      `${sums.mips.toFixed(1)} MIPS, ${exits} exits`,
  );
  if (options.stats === true) process.stderr.write(`${jsonText(sums)}\n`);
  if (terminal.json) await terminal.document({ outcome, ...sums, profile: profile?.document() });
  else tellProfile(profile);
  return outcomeStatus(outcome, options.guestStatus);
}

/** Runs and records. @param begin makes the recorder. @returns the exit status. */
export async function recordLive(
  begin: (tape: TapeOptions) => Recorder,
  options: HostFlags & { readonly output: string },
  self: Command,
  hooks: LiveHooks = {},
): Promise<number> {
  const terminal = terminalOf(self);
  const received = serialInputFile(options);
  const toConsole = consoleInputFile(options);
  const output = new GuestOutput(options, terminal);
  const symbols = symbolsFor(options, hooks);
  let profile: Profile | undefined;
  const recorder = begin({
    vmtapeVersion: VMTAPE_VERSION,
    checkpointEvery: options.checkpointEvery === 0 ? undefined : (options.checkpointEvery ?? 'adaptive'),
    observe: (stated) => {
      profile?.take(stated);
      output.take(stated.event);
    },
  });
  const counters: Counters = {
    events: () => recorder.stats.events,
    exits: () => recorder.stats.exits,
    tapeBytes: () => recorder.stats.tapeBytes,
    checkpoints: () => recorder.stats.checkpoints,
  };
  recorder.feedConsole(toConsole);
  const input = new SerialInput(options, recorder, received);
  const first = recorder.machine.retired;
  profile = profileOf(recorder, symbols);
  const watch = new Stopwatch();
  let outcome: Outcome;
  try {
    outcome = await drive({
      ...{ session: recorder, counters, input, output, terminal, ...hooks },
      maxInstructions: options.maxInstructions,
    });
    recorder.finish();
  } catch (error) {
    if (hooks.holdsOutput?.() === true) output.discard();
    giveUp(recorder);
    throw error;
  } finally {
    output.close();
  }
  const { seconds } = watch;
  const sums = { ...figures(recorder, counters, seconds, first), tiers: tiersOf(recorder, first) };
  terminal.say(
    `vmtape: ${describeOutcome(outcome)}; ${shortCount(sums.instructions)} instructions, ${sums.mips.toFixed(1)} MIPS, ` +
      `${plural(sums.events, 'event')}, ${plural(sums.exits, 'exit')}, ${options.output}: ${byteSize(sums.tapeBytes)}`,
  );
  if (options.stats === true) process.stderr.write(`${jsonText(sums)}\n`);
  if (terminal.json) await terminal.document({ tape: options.output, outcome, ...sums, profile: profile?.document() });
  else tellProfile(profile);
  return outcomeStatus(outcome, options.guestStatus);
}

const symbolsFor = ({ profile, symbols }: HostFlags, { imageFile }: LiveHooks): LevelSymbols | undefined => {
  if (profile === true) return symbolsOfSession(symbols ?? [], imageFile);
  if (symbols !== undefined) throw new UsageError('--symbols is for --profile. Add that, or leave it out.');
  return undefined;
};

function profileOf(session: DrivenSession, symbols: LevelSymbols | undefined): Profile | undefined {
  if (symbols === undefined) return undefined;
  const profile = new Profile(session.machine, symbols, () => performance.now() / 1000);
  session.sampler = profile.sampler;
  return profile;
}

const tiersOf = ({ machine }: DrivenSession, first: number): TierCounts => tierCounts(machine, machine.retired - first);

function tellProfile(profile: Profile | undefined): void {
  if (profile !== undefined) process.stderr.write(`${profile.page().join('\n')}\n`);
}

/** After an error: what is stored stays; that closing fails too says nothing new. */
function giveUp(recorder: Recorder): void {
  try {
    recorder.abandon();
  } catch (error) {
    if (!(error instanceof JournalError)) throw error;
  }
}

/** `vmtape receive --listen HOST:PORT -o TAPE`: waits for a session from another host, then goes on with it. */
import { existsSync, rmSync } from 'node:fs';
import type { Command } from 'commander';
import { formatPosition, sqliteStore } from '../../../src/journal/index.js';
import { invariant } from '../../../src/machine/index.js';
import { type Arrival, IncomingMigration, Peer, Recorder } from '../../../src/replay/index.js';
import { ListeningThread, type ThreadChannel } from '../../net/listening-thread.js';
import { type Endpoint, parseEndpoint } from '../../net/secure.js';
import { VMTAPE_VERSION } from '../../version.js';
import { parseSize } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { StoppedTooEarly, StopSignals } from '../drive.js';
import { failureOf, Status, UsageError } from '../failure.js';
import { plural } from '../format.js';
import { recordLive } from '../live.js';
import { addHostFlags, type HostFlags } from '../machine-flags.js';
import { addConnectionFlags, type ConnectionFlags, silenceOf } from '../migration-flags.js';
import type { Terminal } from '../terminal.js';

interface ReceiveOptions extends HostFlags, ConnectionFlags {
  readonly listen: Endpoint;
  readonly output: string;
  readonly memory?: number;
  readonly cpu?: string;
}

/** Each has a copy of the pages that were written to. */
const MOST_CHECKPOINTS_HELD = 4;

/** A session that has come and runs here, for as long as its source has not let go. */
interface Incoming {
  readonly channel: ThreadChannel;
  readonly migration: IncomingMigration;
  readonly arrival: Arrival;
}

export function receiveCommand(program: Command): void {
  const receive = command(
    program,
    'receive',
    'waits for a session from another host, then goes on with it',
    'vmtape receive --listen 127.0.0.1:7070 -o here.vmtape',
  );
  addConnectionFlags(addHostFlags(receive))
    .requiredOption('--listen <host:port>', 'where to wait', (text) => parseEndpoint(text, '--listen'))
    .requiredOption('-o, --output <tape>', 'the tape to make, which begins where the session came')
    .option('--memory <size>', 'take no session with more RAM', (text) => parseSize(text, '--memory'))
    .option('--cpu <profile>', 'take no session with another CPU profile')
    .action(async (options: ReceiveOptions, self: Command) => {
      process.exitCode = await receiveAndRun(options, self);
    });
}

async function receiveAndRun(options: ReceiveOptions, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  if (existsSync(options.output)) {
    throw new UsageError(`${options.output}: there is such a file already. Give another name, or move it away.`);
  }
  const waiting = new Waiting(options, terminal);
  await waiting.listen();
  for (;;) {
    const incoming = await waiting.next();
    if (incoming === undefined) return Status.DONE;
    const ended = await runOn(incoming, options, self);
    if (typeof ended === 'number') {
      waiting.close();
      return ended;
    }
    waiting.gaveUp(ended);
    if (ended instanceof StoppedTooEarly) {
      waiting.close();
      return Status.DONE;
    }
  }
}

/** Goes on with a session. @returns the exit status, or why the session is not ours. */
async function runOn(incoming: Incoming, options: ReceiveOptions, self: Command): Promise<number | Error> {
  const { channel, migration, arrival } = incoming;
  let isOurs = false;
  let taking: Promise<void> | undefined;
  let failure: Error | undefined;
  let recorder: Recorder | undefined;
  const takeOver = async (): Promise<void> => {
    try {
      await migration.takeOver();
      isOurs = true;
    } catch (error) {
      failure = error as Error;
    }
  };
  try {
    return await recordLive(
      (tape) => {
        recorder = Recorder.adopt(sqliteStore(options.output), arrival, (sink) => migration.direct(sink), tape);
        migration.running(formatPosition(arrival.snapshot.position));
        return recorder;
      },
      options,
      self,
      {
        holdsOutput: () => !isOurs,
        between: async (status) => {
          if (isOurs) return undefined;
          await takePages(migration, made(recorder), status !== 'running');
          // A session that has come to a stop must not end before it is ours.
          while (status !== 'running' && made(recorder).storesNow() === false) await turn();
          if (made(recorder).storesNow()) taking ??= takeOver();
          if (status !== 'running') await taking;
          if (failure !== undefined) throw failure;
          return undefined;
        },
      },
    );
  } catch (error) {
    if (isOurs) throw error;
    migrationFailed(migration, error);
    for (const suffix of ['', '-wal', '-shm', '-lock']) rmSync(options.output + suffix, { force: true });
    return error as Error;
  } finally {
    await channel.close();
  }
}

function made(recorder: Recorder | undefined): Recorder {
  invariant(recorder !== undefined, 'a session that runs has its recorder');
  return recorder;
}

/** Takes pages that have come after the session. @param all it can do no more until it is ours. */
async function takePages(migration: IncomingMigration, recorder: Recorder, all: boolean): Promise<void> {
  if (recorder.checkpointsHeld === 0) return;
  migration.takeLater();
  if (all || recorder.checkpointsHeld > MOST_CHECKPOINTS_HELD) await migration.arriveLater();
  if (migration.isWhole) recorder.originIsWhole();
}

function migrationFailed(migration: IncomingMigration, error: unknown): void {
  try {
    migration.refuse(failureOf(error).message);
  } catch {
    // It has gone.
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Listens, and lets one peer in at a time. */
class Waiting {
  private thread: ListeningThread | undefined;
  private readonly arrived: Incoming[] = [];
  private busy = false;
  private wake: () => void = () => {};
  private readonly signals = new StopSignals(() => this.wake());

  constructor(
    private readonly options: ReceiveOptions,
    private readonly terminal: Terminal,
  ) {}

  async listen(): Promise<void> {
    const { options, terminal } = this;
    const { host } = options.listen;
    this.thread = await ListeningThread.listen(options.listen, options, silenceOf(options), {
      onConnection: (channel, from) => void this.admit(channel, from),
      onFailure: (problem) => terminal.say(`vmtape: a peer was not let in: ${problem}`),
    });
    const { port } = this.thread;
    if (terminal.json) {
      await terminal.line(JSON.stringify({ listening: { host, port } }));
      await terminal.flush();
    } else terminal.say(`vmtape: waits at ${host}:${port}: vmtape migrate IMAGE --to ${host}:${port}`);
  }

  /** The next session that has come; undefined when the user has had enough. */
  async next(): Promise<Incoming | undefined> {
    for (;;) {
      const next = this.arrived.shift();
      if (next !== undefined) {
        // The session hears of signals itself.
        this.signals.release();
        return next;
      }
      if (this.signals.cause !== undefined) {
        this.close();
        return undefined;
      }
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  /** The session that came is not ours: another may come. */
  gaveUp(error: Error): void {
    this.busy = false;
    this.terminal.say(`vmtape: the session stays where it was: ${error.message}`);
  }

  close(): void {
    this.signals.release();
    this.thread?.close();
  }

  private async admit(channel: ThreadChannel, from: string): Promise<void> {
    const { options, terminal } = this;
    const peer = new Peer(channel);
    const migration = new IncomingMigration(peer, { memory: options.memory, cpu: options.cpu });
    if (this.busy) {
      migration.refuse('another session is on its way here');
      await channel.close();
      return;
    }
    this.busy = true;
    try {
      await peer.greet(VMTAPE_VERSION);
      const arrival = await migration.arrive();
      const at = formatPosition(arrival.snapshot.position);
      terminal.say(
        `vmtape: a session came from ${from}, at ${at}, ${plural(migration.pages, 'page')} in ${plural(migration.round, 'round')}`,
      );
      this.arrived.push({ channel, migration, arrival });
      this.wake();
    } catch (error) {
      this.busy = false;
      const { message } = failureOf(error);
      terminal.say(`vmtape: ${from}: ${message}`);
      migrationFailed(migration, error);
      await channel.close();
    }
  }
}

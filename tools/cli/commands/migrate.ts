/** `vmtape migrate TAPE|IMAGE --to HOST:PORT`: runs here, moves there, live. */
import { closeSync, openSync, readSync } from 'node:fs';
import type { Command } from 'commander';
import { formatPosition, START, sqliteStore } from '../../../src/journal/index.js';
import type { BootImage, EventSink } from '../../../src/machine/index.js';
import {
  DEFAULT_SETTINGS,
  describeSession,
  LiveSession,
  OutgoingMigration,
  Peer,
  Recorder,
  resolvePosition,
  type SessionStatus,
  type Snapshot,
  sha256Hex,
  snapshotWithoutRam,
  Timeline,
  takeSnapshot,
} from '../../../src/replay/index.js';
import { connectTo, type Endpoint, parseEndpoint } from '../../net/secure.js';
import { SocketChannel } from '../../net/socket-channel.js';
import { VMTAPE_VERSION } from '../../version.js';
import { parseCount, parseDuration, parseSize } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { type Outcome, Stopwatch } from '../drive.js';
import { failureOf, Status, UsageError } from '../failure.js';
import { byteSize, plural } from '../format.js';
import { recordLive, runLive } from '../live.js';
import { addMachineFlags, type MachineOptions, sessionOptions } from '../machine-flags.js';
import { addConnectionFlags, type ConnectionFlags, silenceOf } from '../migration-flags.js';
import type { Terminal } from '../terminal.js';

interface MigrateOptions extends MachineOptions, ConnectionFlags {
  readonly to: Endpoint;
  readonly at?: string;
  readonly output?: string;
  /** Nanoseconds. */
  readonly downtime?: number;
  readonly bandwidth?: number;
  readonly rounds?: number;
  readonly postCopy?: boolean;
}

export function migrateCommand(program: Command): void {
  const migrate = command(
    program,
    'migrate',
    'runs an image, or goes on with a tape, and moves the session to another host while it runs',
    'vmtape migrate guest.elf -o here.vmtape --to 127.0.0.1:7070 --at 5000000',
    'vmtape migrate here.vmtape --to 127.0.0.1:7070',
  );
  addConnectionFlags(addMachineFlags(migrate))
    .argument('<source>', 'a tape, or an image as for record')
    .requiredOption('--to <host:port>', 'where vmtape receive waits', (text) => parseEndpoint(text, '--to'))
    .option('--at <pos>', 'begin to move there: a position of the tape (default: end), or instructions of an image')
    .option('-o, --output <tape>', 'record what runs here')
    .option('--downtime <time>', 'how long the session should stand still (default: 100ms)', (text) =>
      parseDuration(text, '--downtime'),
    )
    .option('--bandwidth <bytes>', 'bytes a second (default: as much as goes)', (text) =>
      parseSize(text, '--bandwidth'),
    )
    .option(
      '--rounds <n>',
      'copy RAM at most so often before it stands still (default: 30; with --post-copy 1)',
      (text) => parseCount(text, '--rounds'),
    )
    .option('--post-copy', 'after the rounds hand over at once: the rest of RAM follows while the session runs there')
    .action(async (source: string, options: MigrateOptions, self: Command) => {
      if (options.rounds === 0 && options.postCopy !== true) {
        throw new UsageError('--rounds 0 leaves all of RAM behind. Give --post-copy with it, or at least 1.');
      }
      process.exitCode = isTape(source)
        ? await migrateTape(source, options, self)
        : await migrateImage(source, options, self);
    });
}

/** Pages that are never written to again had better go while the session runs here. */
const POST_COPY_ROUNDS = 1;

const SQLITE = 'SQLite format 3';

function isTape(file: string): boolean {
  let descriptor: number;
  try {
    descriptor = openSync(file, 'r');
  } catch {
    return false;
  }
  try {
    const head = new Uint8Array(SQLITE.length);
    readSync(descriptor, head);
    return new TextDecoder('latin1').decode(head) === SQLITE;
  } finally {
    closeSync(descriptor);
  }
}

async function migrateImage(source: string, options: MigrateOptions, self: Command): Promise<number> {
  const prepared = sessionOptions(source, options);
  if (prepared.hostInputs !== undefined || options.chaos !== undefined) {
    throw new UsageError('--host-events and --chaos do not move with a session. Leave them out.');
  }
  const { output } = options;
  const { image, commandLine } = prepared;
  const booted = { bytes: image, digest: sha256Hex(image), commandLine };
  const from = options.at === undefined ? 0 : parseCount(options.at, '--at');
  const mover = new Mover(options, from, booted, terminalOf(self));
  const status =
    output === undefined
      ? await runLive(
          (sink) => mover.followUnrecorded((sunk) => LiveSession.boot(prepared, sunk), sink),
          options,
          self,
          mover,
        )
      : await recordLive(
          (tape) => mover.follow(Recorder.boot(sqliteStore(output), { ...prepared, ...tape })),
          { ...options, output },
          self,
          mover,
        );
  return mover.failed ? Status.OPERATING : status;
}

/** Goes on with a tape. Without `-o` it stands where it is until it has moved: what leads there is then all on the tape. */
async function migrateTape(source: string, options: MigrateOptions, self: Command): Promise<number> {
  const snapshot = snapshotOf(source, options.at ?? 'end');
  const { image, position, point } = snapshot;
  if (point.state.ended !== null) {
    throw new UsageError(`${source}: the session is over at ${formatPosition(position)}. Choose an earlier --at.`);
  }
  const { output } = options;
  const mover = new Mover(options, Number(position.icount), image, terminalOf(self));
  if (output === undefined) {
    await mover.moveStanding(snapshot);
    return Status.DONE;
  }
  const status = await recordLive(
    (tape) => mover.follow(Recorder.resume(sqliteStore(output), snapshot, tape)),
    { ...options, output },
    self,
    mover,
  );
  return mover.failed ? Status.OPERATING : status;
}

function snapshotOf(source: string, place: string): Snapshot {
  const reader = sqliteStore(source).read();
  try {
    const timeline = new Timeline(reader);
    const at = timeline.seek(resolvePosition(reader, place));
    const snapshot = takeSnapshot(timeline.machine, reader, at);
    timeline.close();
    return snapshot;
  } finally {
    reader.close();
  }
}

/** Where a session stands, with `historyDigest` of what leads there. */
type Place = Pick<Snapshot, 'position' | 'parent'>;

/** Moves a session between its stretches. After a failure the session stays. */
class Mover {
  failed = false;
  private live: Recorder | LiveSession | undefined;
  private place: () => Place = () => ({ position: START, parent: undefined });
  private channel: SocketChannel | undefined;
  private migration: OutgoingMigration | undefined;
  private readonly watch = new Stopwatch();

  /** @param from instructions that must have retired before. */
  constructor(
    private readonly options: MigrateOptions,
    private readonly from: number,
    private readonly image: BootImage | undefined,
    private readonly terminal: Terminal,
  ) {}

  follow(recorder: Recorder): Recorder {
    this.live = recorder;
    this.place = () => ({ position: recorder.position, parent: recorder.historyDigest() });
    return recorder;
  }

  /** Of a session without a tape nobody can say what led to where it stands. */
  followUnrecorded(begin: (sink: EventSink) => LiveSession, sink: EventSink): LiveSession {
    let events = 0n;
    const live = begin((stated) => {
      events++;
      sink(stated);
    });
    this.live = live;
    this.place = () => ({ position: { icount: BigInt(live.machine.retired), seq: events }, parent: undefined });
    return live;
  }

  /** Moves a session that does not run. @throws when it cannot. */
  async moveStanding(snapshot: Snapshot): Promise<void> {
    const live = LiveSession.resume(snapshot, {}, () => {});
    const { position, parent } = snapshot;
    this.live = live;
    this.place = () => ({ position, parent });
    try {
      await this.connect(live);
      await this.copyAll();
      await this.handOver(live);
    } finally {
      await this.channel?.close();
    }
  }

  readonly between = async (status: SessionStatus): Promise<Outcome | undefined> => {
    const { live } = this;
    if (live === undefined || this.failed || live.machine.retired < this.from) return undefined;
    try {
      if (status === 'ended') throw new UsageError('the session came to its end before it had moved');
      if (this.migration === undefined) await this.connect(live);
      // While it waits for input, nobody else has a turn.
      if (status === 'waiting') await this.copyAll();
      if (status !== 'waiting' && this.migration?.turn() !== true) {
        this.tellProgress();
        return undefined;
      }
      await this.handOver(live);
      await this.channel?.close();
      const { host, port } = this.options.to;
      return { kind: 'moved', to: `${host}:${port}` };
    } catch (error) {
      this.failed = true;
      this.channel?.destroy();
      this.terminal.clearStatus();
      this.terminal.say(`vmtape: the session stays here: ${failureOf(error).message}`);
      return undefined;
    }
  };

  private async connect({ machine, session }: Recorder | LiveSession): Promise<void> {
    const { to, downtime, bandwidth, postCopy } = this.options;
    const { rounds = postCopy === true ? POST_COPY_ROUNDS : DEFAULT_SETTINGS.rounds } = this.options;
    const channel = new SocketChannel(await connectTo(to, this.options), silenceOf(this.options));
    this.channel = channel;
    const peer = new Peer(channel);
    await peer.greet(VMTAPE_VERSION);
    const settings = {
      downtime: downtime === undefined ? DEFAULT_SETTINGS.downtime : downtime / 1e6,
      ...{ bandwidth, rounds, postCopy },
    };
    const migration = new OutgoingMigration(machine, peer, settings, () => this.watch.seconds * 1000);
    await migration.offer(session);
    this.migration = migration;
  }

  private async copyAll(): Promise<void> {
    while (this.migration?.turn() === false) {
      this.tellProgress();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  private async handOver({ machine, session, queuedInput }: Recorder | LiveSession): Promise<void> {
    const { migration, terminal } = this;
    if (migration === undefined) return;
    const stood = this.watch.seconds * 1000;
    const description = describeSession(session, VMTAPE_VERSION);
    const place = { ...this.place(), image: this.image };
    migration.sendRest(snapshotWithoutRam(machine, description, place), queuedInput);
    while (!migration.sendLater()) {
      this.tellProgress();
      await this.channel?.stirred();
    }
    const { running } = await migration.handOver();
    const { pagesLater } = migration;
    const { round, bytes } = migration.progress;
    const at = formatPosition(place.position);
    const downtime = Math.round((running - stood) * 10) / 10;
    terminal.clearStatus();
    terminal.say(
      `vmtape: moved at ${at}: ${byteSize(bytes)} in ${plural(round, 'round')}, stood still for ${downtime.toFixed(1)} ms` +
        (pagesLater === 0 ? '' : `, ${plural(pagesLater, 'page')} followed`),
    );
    if (terminal.json) {
      await terminal.line(JSON.stringify({ moved: { at, bytes, rounds: round, downtime, pagesLater } }));
      await terminal.flush();
    }
  }

  private tellProgress(): void {
    if (!this.terminal.showsStatus || this.migration === undefined) return;
    const { round, sent, pages, bytes } = this.migration.progress;
    this.terminal.status(`moving: round ${round}, ${sent} of ${plural(pages, 'page')}, ${byteSize(bytes)} sent`);
  }
}

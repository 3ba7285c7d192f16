/** Moves recorded sessions between two machines of one process, through a channel that may be tampered with. */

import { createHash } from 'node:crypto';
import { type JournalStore, memoryStore } from '../../src/journal/index.js';
import {
  type Channel,
  DEFAULT_SETTINGS,
  describeSession,
  IncomingMigration,
  OutgoingMigration,
  Peer,
  PeerGone,
  Recorder,
  snapshotWithoutRam,
  type Terms,
} from '../../src/replay/index.js';
import { guestImage } from './sessions.js';

/** What becomes of bytes on their way; undefined is where the connection breaks. */
export type Tamper = (bytes: Uint8Array) => readonly (Uint8Array | undefined)[];

class End implements Channel {
  readonly waiting = 0;
  other: End | undefined;
  private readonly received: Uint8Array[] = [];
  private ended = false;
  private wake: () => void = () => {};

  constructor(private readonly tamper: Tamper) {}

  send(bytes: Uint8Array): void {
    if (this.ended) throw new PeerGone('the peer has closed the connection');
    for (const each of this.tamper(bytes.slice())) {
      if (each === undefined) this.break();
      else this.other?.take(each);
    }
  }

  async receive(): Promise<Uint8Array | undefined> {
    while (this.received.length === 0 && !this.ended) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    return this.received.shift();
  }

  break(): void {
    this.end();
    this.other?.end();
  }

  private take(bytes: Uint8Array): void {
    this.received.push(bytes);
    this.wake();
  }

  private end(): void {
    this.ended = true;
    this.wake();
  }
}

const untouched: Tamper = (bytes) => [bytes];

export interface Move {
  readonly toDestination?: Tamper;
  readonly toSource?: Tamper;
  readonly terms?: Terms;
  readonly store?: JournalStore;
}

export interface Moved {
  readonly recorder: Recorder;
  readonly store: JournalStore;
  readonly rounds: number;
}

const imageOf = (file: string) => {
  const bytes = guestImage(file);
  return { bytes, digest: createHash('sha256').update(bytes).digest('hex'), commandLine: file };
};

/** Moves a session while it runs. @throws what either side says; the source is then as it was, and runs. */
export async function move(source: Recorder, file: string, how: Move = {}): Promise<Moved> {
  const { toDestination = untouched, toSource = untouched, terms = {}, store = memoryStore() } = how;
  const [here, there] = [new End(toDestination), new End(toSource)];
  here.other = there;
  there.other = here;
  const failures: unknown[] = [];
  const arriving = receive(there, terms, store).catch((error: unknown) => {
    failures.push(error);
    there.break();
    return undefined;
  });
  try {
    const rounds = await send(here, source, file);
    const recorder = await arriving;
    if (recorder === undefined) throw failures[0];
    return { recorder, store, rounds };
  } catch (error) {
    here.break();
    await arriving;
    throw failures.length > 0 && error instanceof PeerGone ? failures[0] : error;
  }
}

async function send(channel: Channel, source: Recorder, file: string): Promise<number> {
  const { machine, session } = source;
  const peer = new Peer(channel);
  await peer.greet('test');
  let now = 0;
  const migration = new OutgoingMigration(machine, peer, DEFAULT_SETTINGS, () => now++);
  const description = describeSession(session, 'test');
  await migration.offer(session);
  while (!migration.turn()) {
    if (source.step() === 'ended') throw new Error('the session ended before it had moved');
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  const { commandLine = file } = machine.state.boot ?? {};
  const place = {
    position: source.position,
    parent: source.historyDigest(),
    image: { ...imageOf(file), commandLine },
  };
  migration.sendRest(snapshotWithoutRam(machine, description, place), source.queuedInput);
  await migration.handOver();
  return migration.progress.round;
}

async function receive(channel: Channel, terms: Terms, store: JournalStore): Promise<Recorder> {
  const peer = new Peer(channel);
  const incoming = new IncomingMigration(peer, terms);
  try {
    await peer.greet('test');
    const arrival = await incoming.arrive();
    const recorder = Recorder.adopt(store, arrival, (sink) => incoming.direct(sink), { vmtapeVersion: 'test' });
    recorder.endInput();
    incoming.running('');
    while (!recorder.storesNow());
    await incoming.takeOver();
    return recorder;
  } catch (error) {
    try {
      incoming.refuse((error as Error).message);
    } catch {
      // It has gone.
    }
    throw error;
  }
}

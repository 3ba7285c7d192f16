/** Moves recorded sessions between two machines of one process, through a channel that may be tampered with. */

import { createHash } from 'node:crypto';
import { type JournalRecord, type JournalStore, memoryStore } from '../../src/journal/index.js';
import { ArrivingMemory, PAGE_BYTES, type PhysicalMemory, RAM_BASE } from '../../src/machine/index.js';
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
import { KINDS } from '../../src/replay/migration/messages.js';
import { guestImage } from './sessions.js';

/** What becomes of bytes on their way; undefined is where the connection breaks. */
export type Tamper = (bytes: Uint8Array) => readonly (Uint8Array | undefined)[];

class End implements Channel {
  waiting = 0;
  other: End | undefined;
  private readonly received: Uint8Array[] = [];
  private ended = false;
  private wake: () => void = () => {};
  /** What the other side does while this one waits, and does nothing else; it can wait only then. */
  wait?: () => void;

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

  poll(): Uint8Array | undefined {
    const next = this.received.shift();
    if (next === undefined && this.ended) throw new PeerGone('the peer has closed the connection');
    return next;
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
  readonly postCopy?: PostCopy;
}

export interface PostCopy {
  readonly rounds: number;
  /** Stretches that the session runs at the destination before all pages are there; the source sends some at each. */
  readonly stretches: number;
  /** Whether pages come that nobody waits for. */
  readonly background: boolean;
}

export interface Moved {
  readonly recorder: Recorder;
  readonly store: JournalStore;
  readonly rounds: number;
  /** Pages that the destination waited for. */
  readonly needed: number;
}

const imageOf = (file: string) => {
  const bytes = guestImage(file);
  return { bytes, digest: createHash('sha256').update(bytes).digest('hex'), commandLine: file };
};

/** Moves a session while it runs. @throws what either side says; the source is then as it was, and runs. */
export async function move(source: Recorder, file: string, how: Move = {}): Promise<Moved> {
  const { toDestination = untouched, toSource = untouched, store = memoryStore() } = how;
  let needed = 0;
  const counting: Tamper = (bytes) => {
    if (bytes[4] === KINDS.need.code) needed++;
    return toSource(bytes);
  };
  const [here, there] = [new End(toDestination), new End(counting)];
  here.other = there;
  there.other = here;
  const failures: unknown[] = [];
  const arriving = receive(there, here, how, store).catch((error: unknown) => {
    failures.push(error);
    there.break();
    return undefined;
  });
  try {
    const rounds = await send(here, there, source, file, how);
    const recorder = await arriving;
    if (recorder === undefined) throw failures[0];
    return { recorder, store, rounds, needed };
  } catch (error) {
    here.break();
    await arriving;
    throw failures.length > 0 && error instanceof PeerGone ? failures[0] : error;
  }
}

/** Rounds without an answer after which a side that waits gives up. */
const PATIENCE = 1000;

async function send(here: End, there: End, source: Recorder, file: string, { postCopy }: Move): Promise<number> {
  const { machine, session } = source;
  const peer = new Peer(here);
  await peer.greet('test');
  let now = 0;
  const settings = postCopy === undefined ? DEFAULT_SETTINGS : { ...DEFAULT_SETTINGS, ...postCopy, postCopy: true };
  const migration = new OutgoingMigration(machine, peer, settings, () => now++);
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
  let failure: unknown;
  let idle = 0;
  there.wait = () => {
    try {
      migration.sendLater();
      if (++idle > PATIENCE) here.break();
    } catch (error) {
      failure ??= error;
      here.break();
    }
  };
  if (postCopy?.background === false) here.waiting = Number.POSITIVE_INFINITY;
  migration.sendRest(snapshotWithoutRam(machine, description, place), source.queuedInput);
  try {
    for (idle = 0; !migration.sendLater(); idle++) {
      if (idle > PATIENCE) here.break();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await migration.handOver();
  } catch (error) {
    throw failure ?? error;
  }
  return migration.progress.round;
}

async function receive(there: End, here: End, how: Move, store: JournalStore): Promise<Recorder> {
  const { terms = {}, postCopy } = how;
  const peer = new Peer(there);
  const incoming = new IncomingMigration(peer, terms);
  // What holds up everything is there once the source has pages to send.
  if (postCopy !== undefined) there.wait = () => {};
  try {
    await peer.greet('test');
    const arrival = await incoming.arrive();
    poison(arrival.machine.memory);
    const recorder = Recorder.adopt(store, arrival, (sink) => incoming.direct(sink), {
      vmtapeVersion: 'test',
      checkpointEvery: postCopy === undefined ? undefined : 2000,
    });
    recorder.endInput();
    incoming.running('');
    for (let stretch = 0; stretch < (postCopy?.stretches ?? 0); stretch++) {
      if (recorder.step() === 'ended') break;
      incoming.takeLater();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    here.waiting = 0;
    await incoming.arriveLater();
    recorder.originIsWhole();
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

/** Whoever reads a page that is not there reads this, and the tape tells. */
function poison(memory: PhysicalMemory): void {
  if (!(memory instanceof ArrivingMemory)) return;
  for (let page = 0; page * PAGE_BYTES < memory.ramBytes; page++) {
    if (memory.isAway(page)) memory.bytes.fill(0xcc, RAM_BASE + page * PAGE_BYTES, RAM_BASE + (page + 1) * PAGE_BYTES);
  }
}

/** A record as text, to be compared. */
export const recordText = (record: JournalRecord): string =>
  JSON.stringify(record, (_, value) =>
    typeof value === 'bigint' ? `${value}n` : value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
  );

/** A small pseudo-random generator, so that a failure comes again. */
export function* numbers(seed: number): Generator<number, never, void> {
  for (let state = seed; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

/**
 * The side that a session leaves. It goes on running while its RAM is copied in rounds, each of what was written to since the
 * one before; then it stands still while the rest goes. With post-copy it leaves pages here instead, which follow while the
 * destination runs. Either way it stays runnable until the destination has said that its tape has all it began with.
 */
import { compress, joined, PageTree, pageDigest } from '../../journal/index.js';
import { FIRST_EPOCH, MACHINE_MODEL_VERSION, type Machine, PAGE_BYTES, R } from '../../machine/index.js';
import { describeSession, type SessionConfig } from '../session.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { encodeSnapshot } from '../snapshot/snapshot-file.js';
import { LaterPages } from './later-pages.js';
import { type Message, numbersToBytes, ProtocolError } from './messages.js';
import type { Peer } from './peer.js';
import { rehearse } from './rehearsal.js';

export interface MigrationSettings {
  /** Milliseconds for which the session should stand still. */
  readonly downtime: number;
  /** Bytes a second; undefined for as much as goes. */
  readonly bandwidth?: number | undefined;
  /** Rounds after which it stands still however much is left. */
  readonly rounds: number;
  /** After the rounds it stands still at once, and what is left of RAM follows. */
  readonly postCopy?: boolean | undefined;
}

export const DEFAULT_SETTINGS: MigrationSettings = { downtime: 100, rounds: 30 };

/** Pages in a message. */
const BATCH = 64;
/** Bytes on their way before the session gets its turn again. */
const WINDOW = 4 << 20;
/** The same while the destination runs: a page that it waits for comes behind them. */
const LATER_WINDOW = 256 << 10;
/** Pages that come with one that the destination waits for. */
const NEIGHBOURS = 8;
const PAGE_QUALITY = 1;
/** Bytes a second until there is something to go by. */
const FIRST_GUESS = 100e6;

/** How far it is: for a progress line. */
export interface MigrationProgress {
  readonly round: number;
  /** Pages of this round, or of those that follow the session, that were sent, and all of them. */
  readonly sent: number;
  readonly pages: number;
  readonly bytes: number;
}

export class OutgoingMigration {
  private readonly tree: PageTree;
  private epoch: number = FIRST_EPOCH;
  private round = 0;
  private left: Uint32Array = new Uint32Array(0);
  private next = 0;
  private roundEnded = true;
  private readonly started: number;
  /** Pages that are left for later, with their digests as `tree` has them. */
  private readonly owed = new Set<number>();
  private later = LaterPages.NONE;
  /** When the destination said that it runs. */
  private running: number | undefined;
  private safe = false;

  /** @param clock milliseconds, from anywhere. */
  constructor(
    private readonly machine: Machine,
    private readonly peer: Peer,
    private readonly settings: MigrationSettings,
    private readonly clock: () => number,
  ) {
    this.tree = new PageTree(machine.memory.keptBytes / PAGE_BYTES);
    this.started = clock();
  }

  get progress(): MigrationProgress {
    const { round, peer, later } = this;
    if (later.pages.length > 0) return { round, sent: later.sent, pages: later.pages.length, bytes: peer.sent };
    return { round, sent: this.next, pages: this.left.length, bytes: peer.sent };
  }

  /** @throws Refused with what differs. */
  async offer(session: SessionConfig): Promise<void> {
    this.peer.send('offer', {
      machineVersion: String(MACHINE_MODEL_VERSION),
      configuration: JSON.stringify(describeSession(session, '').configuration),
      ramPages: this.tree.pages,
      postCopy: this.settings.postCopy === true,
    });
    await this.peer.expect('accept');
    rehearse(this.machine, session);
  }

  /**
   * Sends some pages, between two stretches of the session. The machine must stand between two steps.
   * @returns true when so little is left that the session should stand still for it. @throws what the destination said.
   */
  turn(): boolean {
    const said = this.peer.poll();
    if (said !== undefined) throw new ProtocolError(`a ${said.kind} message came while pages are sent`);
    if (this.mustWait(WINDOW)) return false;
    if (this.roundEnded) this.beginRound();
    if (this.isLast) return true;
    this.sendBatch();
    if (this.next < this.left.length) return false;
    this.peer.send('round', { round: this.round });
    this.roundEnded = true;
    return false;
  }

  /**
   * Sends what is left, and all but RAM.
   * @param snapshot of the machine as it stands, without RAM. @param input bytes for the serial port that it has not got.
   */
  sendRest(snapshot: Snapshot, input: Uint8Array): void {
    this.beginRound();
    while (this.next < this.left.length) this.sendBatch();
    this.sendPages(this.kept(snapshot));
    const { tree } = this;
    this.later = new LaterPages(this.owed);
    const { pages } = this.later;
    this.peer.send('state', {
      ...{ snapshot: joined(encodeSnapshot(snapshot)), ram: tree.root(), input },
      ...{ later: numbersToBytes(pages), laterDigests: joined([...pages].map((page) => tree.get(page))) },
    });
  }

  /** Pages that go after the state. */
  get pagesLater(): number {
    return this.later.pages.length;
  }

  /**
   * Sends pages that were left here: those that the destination waits for, and once it runs some of the others.
   * @returns true when all have been sent. @throws what the destination said.
   */
  sendLater(): boolean {
    for (let said = this.peer.poll(); said !== undefined; said = this.peer.poll()) this.hear(said);
    if (this.running !== undefined && !this.later.done && !this.mustWait(LATER_WINDOW)) {
      this.sendPages(this.later.take(BATCH));
    }
    return this.later.done;
  }

  /** The destination runs, and has all pages; it is given the session once its tape has what it began with. */
  async handOver(): Promise<{ readonly running: number }> {
    while (!this.safe) this.hear(await this.peer.next());
    this.peer.send('yours', {});
    return { running: this.running as number };
  }

  /** What the destination says from the state on. */
  private hear(said: Message): void {
    const { later } = this;
    if (said.kind === 'need') {
      if (!later.has(said.page)) throw new ProtocolError(`page ${said.page} was asked for, which was not left here`);
      this.sendPages(later.take(NEIGHBOURS, said.page));
    } else if (said.kind === 'running' && this.running === undefined) this.running = this.clock();
    else if (said.kind === 'safe' && this.running !== undefined && later.done) this.safe = true;
    else throw new ProtocolError(`a ${said.kind} message came where another was due`);
  }

  /** Pages which the destination needs to begin: VMCBs of guests, which world switches find by their place alone. */
  private kept({ point }: Snapshot): readonly number[] {
    const running = point.state.vcpus.map(({ registers }) => Number(registers[R.vmcb]));
    const addresses = [...running, ...Object.keys(point.state.vmcbs).map(Number)];
    return [...new Set(addresses.map((address) => Math.floor(address / PAGE_BYTES)))].filter((page) =>
      this.owed.delete(page),
    );
  }

  /** Network and bandwidth have enough for now. @param window bytes that may be on their way. */
  private mustWait(window: number): boolean {
    const { bandwidth } = this.settings;
    const { waiting, sent } = this.peer;
    if (waiting > window) return true;
    return bandwidth !== undefined && sent > (bandwidth * (this.clock() - this.started)) / 1000 + BATCH * PAGE_BYTES;
  }

  /** What is to be sent is what was written to since the last round began, and what that had left over. */
  private beginRound(): void {
    const { memory } = this.machine;
    const written = memory.pagesWrittenSince(this.epoch);
    const over = this.left.subarray(this.next);
    this.left = over.length === 0 ? written : Uint32Array.from(new Set([...over, ...written])).sort();
    this.epoch = memory.newEpoch();
    this.round++;
    this.next = 0;
    this.roundEnded = false;
  }

  private get isLast(): boolean {
    const { downtime, rounds, postCopy } = this.settings;
    // A round more, of digests alone: they are what the session would stand still for.
    if (postCopy === true) return this.next === 0 && this.round > rounds + 1;
    if (this.next > 0 || this.round === 1) return false;
    if (this.round > rounds) return true;
    const milliseconds = this.clock() - this.started;
    const rate = milliseconds > 0 ? Math.max(this.peer.sent, 1) / milliseconds : FIRST_GUESS / 1000;
    const raw = this.left.length * PAGE_BYTES;
    // Half of the time is for the state, digests and the way.
    return raw <= (rate * downtime) / 2 || this.left.length <= BATCH;
  }

  /** The next pages of the round, or their digests when it is one of those. */
  private sendBatch(): void {
    const { settings, owed, round } = this;
    const batch = this.left.subarray(this.next, this.next + BATCH);
    this.next += batch.length;
    this.sendPages(batch, settings.postCopy === true && round > settings.rounds ? owed : undefined);
  }

  /** @param owed takes pages that are not all zeros; without it they are sent. */
  private sendPages(pages: Iterable<number>, owed?: Set<number>): void {
    const { memory } = this.machine;
    const zeros: number[] = [];
    const numbers: number[] = [];
    const contents: Uint8Array[] = [];
    for (const page of pages) {
      const content = memory.window(page * PAGE_BYTES, PAGE_BYTES);
      const digest = pageDigest(content);
      this.tree.set(page, digest);
      if (digest !== undefined && owed !== undefined) {
        owed.add(page);
        continue;
      }
      this.owed.delete(page);
      if (digest === undefined) zeros.push(page);
      else {
        numbers.push(page);
        contents.push(content);
      }
    }
    if (zeros.length + numbers.length === 0) return;
    const raw = joined(contents);
    const data = compress(raw, PAGE_QUALITY);
    this.peer.send('pages', { zeros: numbersToBytes(zeros), numbers: numbersToBytes(numbers), data });
  }
}

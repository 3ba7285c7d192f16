/**
 * The side that a session leaves. It goes on running while its RAM is copied in rounds, each of what was written to since the
 * one before; then it stands still while the rest goes. It stays runnable until the destination has said that it runs.
 */
import { compress, joined, PageTree, pageDigest } from '../../journal/index.js';
import { FIRST_EPOCH, MACHINE_MODEL_VERSION, type Machine, PAGE_BYTES } from '../../machine/index.js';
import { describeSession, type SessionConfig } from '../session.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { encodeSnapshot } from '../snapshot/snapshot-file.js';
import { numbersToBytes } from './messages.js';
import type { Peer } from './peer.js';
import { rehearse } from './rehearsal.js';

export interface MigrationSettings {
  /** Milliseconds for which the session should stand still. */
  readonly downtime: number;
  /** Bytes a second; undefined for as much as goes. */
  readonly bandwidth?: number | undefined;
  /** Rounds after which it stands still however much is left. */
  readonly rounds: number;
}

export const DEFAULT_SETTINGS: MigrationSettings = { downtime: 100, rounds: 30 };

/** Pages in a message. */
const BATCH = 64;
/** Bytes on their way before the session gets its turn again. */
const WINDOW = 4 << 20;
const PAGE_QUALITY = 1;
/** Bytes a second until there is something to go by. */
const FIRST_GUESS = 100e6;

/** How far it is: for a progress line. */
export interface MigrationProgress {
  readonly round: number;
  /** Pages of this round that were sent, and all of them. */
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
  /** The destination speaks only to say that it runs, or why it does not; whenever that is. */
  private running: Promise<unknown> = Promise.resolve();
  private failure: unknown;

  /** @param clock milliseconds, from anywhere. */
  constructor(
    private readonly machine: Machine,
    private readonly peer: Peer,
    private readonly settings: MigrationSettings,
    private readonly clock: () => number,
  ) {
    this.tree = new PageTree(machine.memory.ramBytes / PAGE_BYTES);
    this.started = clock();
  }

  get progress(): MigrationProgress {
    return { round: this.round, sent: this.next, pages: this.left.length, bytes: this.peer.sent };
  }

  /** @throws Refused with what differs. */
  async offer(session: SessionConfig): Promise<void> {
    this.peer.send('offer', {
      machineVersion: String(MACHINE_MODEL_VERSION),
      configuration: JSON.stringify(describeSession(session, '').configuration),
      ramPages: this.tree.pages,
    });
    await this.peer.expect('accept');
    rehearse(this.machine, session);
    this.running = this.peer.expect('running');
    this.running.catch((error: unknown) => {
      this.failure = error;
    });
  }

  /**
   * Sends some pages, between two stretches of the session. The machine must stand between two steps.
   * @returns true when so little is left that the session should stand still for it. @throws what the destination said.
   */
  turn(): boolean {
    if (this.failure !== undefined) throw this.failure;
    if (this.mustWait) return false;
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
    const ram = this.tree.root();
    this.peer.send('state', { snapshot: joined(encodeSnapshot(snapshot)), ram, input });
  }

  /** The destination runs; it is given the session once its tape has what it began with. */
  async handOver(): Promise<{ readonly running: number }> {
    await this.running;
    const running = this.clock();
    await this.peer.expect('safe');
    this.peer.send('yours', {});
    return { running };
  }

  /** Network and bandwidth have enough for now. */
  private get mustWait(): boolean {
    const { bandwidth } = this.settings;
    const { waiting, sent } = this.peer;
    if (waiting > WINDOW) return true;
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
    const { downtime, rounds } = this.settings;
    if (this.next > 0 || this.round === 1) return false;
    if (this.round > rounds) return true;
    const milliseconds = this.clock() - this.started;
    const rate = milliseconds > 0 ? Math.max(this.peer.sent, 1) / milliseconds : FIRST_GUESS / 1000;
    const raw = this.left.length * PAGE_BYTES;
    // Half of the time is for the state, digests and the way.
    return raw <= (rate * downtime) / 2 || this.left.length <= BATCH;
  }

  private sendBatch(): void {
    const { memory } = this.machine;
    const zeros: number[] = [];
    const numbers: number[] = [];
    const batch = this.left.subarray(this.next, this.next + BATCH);
    this.next += batch.length;
    const raw = new Uint8Array(batch.length * PAGE_BYTES);
    for (const page of batch) {
      const content = memory.window(page * PAGE_BYTES, PAGE_BYTES);
      const digest = pageDigest(content);
      this.tree.set(page, digest);
      if (digest === undefined) zeros.push(page);
      else raw.set(content, PAGE_BYTES * (numbers.push(page) - 1));
    }
    const data = compress(raw.subarray(0, numbers.length * PAGE_BYTES), PAGE_QUALITY);
    this.peer.send('pages', { zeros: numbersToBytes(zeros), numbers: numbersToBytes(numbers), data });
  }
}

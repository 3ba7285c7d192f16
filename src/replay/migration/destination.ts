/**
 * The side that a session comes to. It takes pages as they come; once it has the rest it holds the machine against the digests
 * of the source, and only then runs. With post-copy pages are missing then, whose digests are known: what touches one of them
 * waits for it, and no content is taken but that of the digest.
 */
import { DIGEST_BYTES, decompress, PageTree, pageDigest, sameBytes } from '../../journal/index.js';
import {
  ArrivingMemory,
  type EventSink,
  InputError,
  keptBytes,
  MACHINE_MODEL_VERSION,
  Machine,
  PAGE_BYTES,
  R,
  sPA,
} from '../../machine/index.js';
import { describeSession, type SessionConfig, sessionConfig } from '../session.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { decodeSnapshot } from '../snapshot/snapshot-file.js';
import { digestsWithoutRam, type StateDigests } from '../state-digest.js';
import { type Message, numbersFromBytes, type Offer, type Pages, ProtocolError, type State } from './messages.js';
import { OriginRam } from './origin-ram.js';
import type { Peer } from './peer.js';
import { rehearse } from './rehearsal.js';

/** What this side asks of a session. */
export interface Terms {
  /** Most bytes of RAM. */
  readonly memory?: number | undefined;
  /** The only CPU profile. */
  readonly cpu?: string | undefined;
}

/** A session that has come: its machine stands where the source's does. */
export interface Arrival {
  readonly machine: Machine;
  readonly session: SessionConfig;
  readonly snapshot: Snapshot;
  /** For the serial port. */
  readonly input: Uint8Array;
  /** RAM as it was there. */
  readonly ram: OriginRam;
  /** All of RAM is here. */
  readonly isWhole: boolean;
}

export class IncomingMigration {
  private sink: EventSink = () => {};
  private memory: ArrivingMemory | undefined;
  private ram = new OriginRam(0);
  /** Digests of the pages that are still to come. */
  private readonly later = new Map<number, Uint8Array>();
  /** Pages that came, for a progress line. */
  pages = 0;
  round = 0;

  constructor(
    private readonly peer: Peer,
    private readonly terms: Terms,
  ) {}

  /** Where the machine's events go from now on. */
  direct(sink: EventSink): void {
    this.sink = sink;
  }

  /** @throws InputError for an offer that this side refuses, having told the peer; Refused, PeerGone, ProtocolError. */
  async arrive(): Promise<Arrival> {
    const offer = await this.peer.expect('offer');
    const session = this.accepted(offer);
    if (offer.postCopy) this.memory = new ArrivingMemory(session.machine.ramBytes, keptBytes(session.machine));
    const machine = new Machine(session.machine, (stated) => this.sink(stated), undefined, this.memory);
    this.ram = new OriginRam(offer.ramPages);
    const tree = new PageTree(offer.ramPages);
    rehearse(machine, session);
    this.peer.send('accept', {});
    for (;;) {
      const message = await this.peer.next();
      if (message.kind === 'pages') this.takePages(machine, tree, message);
      else if (message.kind === 'round') this.round = message.round;
      else if (message.kind === 'state') {
        const snapshot = decodeSnapshot(message.snapshot, 'the state of the source');
        this.leave(message, tree);
        this.enter(machine, tree, snapshot, message.ram);
        const { ram, isWhole } = this;
        return { machine, session, snapshot, input: message.input, ram, isWhole };
      } else throw new ProtocolError(`a ${message.kind} message came where pages were due`);
    }
  }

  /** The machine runs. */
  running(position: string): void {
    this.peer.send('running', { position });
  }

  /** No page is to come any more. */
  get isWhole(): boolean {
    return this.later.size === 0;
  }

  /** Takes pages that have come, between two stretches of the session. @throws as `arrive`. */
  takeLater(): void {
    while (!this.isWhole) {
      const message = this.peer.poll();
      if (message === undefined) return;
      this.takePagesLater(message);
    }
  }

  /** Takes pages until all are there. @throws as `arrive`. */
  async arriveLater(): Promise<void> {
    while (!this.isWhole) this.takePagesLater(await this.peer.next());
  }

  /** The tape has what it began with: the source may let go. @throws when it does not. */
  async takeOver(): Promise<void> {
    this.peer.send('safe', {});
    await this.peer.expect('yours');
  }

  /** Tells the peer why it goes no further. */
  refuse(why: string): void {
    this.peer.send('refuse', { why });
  }

  private accepted(offer: Offer): SessionConfig {
    const { memory, cpu } = this.terms;
    if (offer.machineVersion !== String(MACHINE_MODEL_VERSION)) {
      const problem = `the session is of machine model ${offer.machineVersion}, and this vmtape has model ${MACHINE_MODEL_VERSION}`;
      throw new InputError('offer', problem, 'Use equal versions, or a snapshot.');
    }
    const session = sessionConfig({ configuration: JSON.parse(offer.configuration) });
    if (JSON.stringify(describeSession(session, '').configuration) !== offer.configuration) {
      throw new ProtocolError('the configuration of the session has something that this vmtape does not know');
    }
    const { machine } = session;
    if (offer.ramPages * PAGE_BYTES !== keptBytes(machine)) {
      throw new ProtocolError(`${offer.ramPages} pages are not the ${keptBytes(machine)} bytes of RAM of the session`);
    }
    if (memory !== undefined && keptBytes(machine) > memory) {
      const problem = `the session has ${keptBytes(machine)} bytes of RAM, and there is room for ${memory}`;
      throw new InputError('offer', problem, 'Give receive a larger --memory.');
    }
    if (cpu !== undefined && machine.cpu !== cpu) {
      const problem = `the session's CPU is ${machine.cpu}, and this side takes ${cpu} only`;
      throw new InputError('offer', problem, 'Start receive with another --cpu, or without.');
    }
    if (offer.postCopy && !this.peer.canWait) {
      throw new InputError('offer', 'this side cannot wait for pages', 'Leave out --post-copy.');
    }
    return session;
  }

  private takePages({ memory }: Machine, tree: PageTree, { zeros, numbers, data }: Pages): void {
    const there = numbersFromBytes(numbers, tree.pages);
    const contents = unpacked(data, there.length * PAGE_BYTES);
    for (const page of numbersFromBytes(zeros, tree.pages)) {
      memory.clear(sPA(page * PAGE_BYTES), PAGE_BYTES);
      this.ram.clear(page);
      tree.set(page, undefined);
    }
    for (const [index, page] of there.entries()) {
      const content = contents.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
      memory.copyIn(sPA(page * PAGE_BYTES), content);
      this.ram.put(page, content);
      tree.set(page, pageDigest(content));
    }
    this.pages += there.length;
  }

  /** Notes which pages come later: RAM's digest is that of what they will hold. */
  private leave({ later, laterDigests }: State, tree: PageTree): void {
    const { memory } = this;
    const pages = numbersFromBytes(later, tree.pages);
    if (pages.length > 0 && memory === undefined) throw new ProtocolError('pages are left for later without an offer');
    if (laterDigests.length !== pages.length * DIGEST_BYTES) throw new ProtocolError('pages for later lack digests');
    for (const [index, page] of pages.entries()) {
      if (page <= (pages[index - 1] ?? -1)) throw new ProtocolError('pages for later are not in order');
      const digest = laterDigests.slice(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES);
      this.later.set(page, digest);
      tree.set(page, digest);
    }
    if (memory === undefined) return;
    memory.leave(pages);
    memory.fetch = (page) => this.fetch(page);
  }

  /** Brings a page that the machine has touched. */
  private fetch(page: number): void {
    this.peer.send('need', { page });
    while (this.later.has(page)) this.takePagesLater(this.peer.nextNow());
  }

  private takePagesLater(message: Message): void {
    const { memory, later } = this;
    if (message.kind !== 'pages') throw new ProtocolError(`a ${message.kind} message came where pages were due`);
    const numbers = numbersFromBytes(message.numbers, Number.POSITIVE_INFINITY);
    const contents = unpacked(message.data, numbers.length * PAGE_BYTES);
    if (message.zeros.length > 0) throw new ProtocolError('pages of zeros came after the state');
    for (const [index, page] of numbers.entries()) {
      const content = contents.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
      const expected = later.get(page);
      if (expected === undefined) throw new ProtocolError(`page ${page} came, which is not due`);
      const digest = pageDigest(content);
      if (digest === undefined || !sameBytes(digest, expected)) {
        throw new ProtocolError(`page ${page} does not hold what its digest says`);
      }
      later.delete(page);
      memory?.arrive(page, content);
      this.ram.put(page, content);
    }
    this.pages += numbers.length;
  }

  private enter(machine: Machine, tree: PageTree, { point, image, digests }: Snapshot, ram: Uint8Array): void {
    machine.restore(point);
    if (image !== undefined) machine.keepImage(image);
    const here: StateDigests = { ...digestsWithoutRam(machine), ram: tree.root() };
    const there: StateDigests = { ...digests, ram };
    const different = Object.entries(here).filter(
      ([part, value]) => !sameBytes(value, there[part as keyof StateDigests]),
    );
    if (different.length === 0) {
      // World switches find the VMCB of a guest by its place.
      for (const { registers } of machine.state.vcpus) machine.memory.touch(Number(registers[R.vmcb]), PAGE_BYTES);
      return;
    }
    throw new ProtocolError(`the ${different.map(([part]) => part).join(' and ')} state is not that of the source`);
  }
}

function unpacked(data: Uint8Array, bytes: number): Uint8Array {
  let contents: Uint8Array | undefined;
  try {
    contents = decompress(data, bytes);
  } catch (cause) {
    throw new ProtocolError('pages cannot be unpacked', { cause });
  }
  if (contents.length === bytes) return contents;
  throw new ProtocolError(`${contents.length} bytes of pages came instead of ${bytes}`);
}

/**
 * A gdb server on a recording: one client at a time, any number one after the other. A client that vanishes, sends garbage or
 * more than it may leaves it answering the next one.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { RecordedGuest } from '../../src/replay/index.js';
import type { Debuggee } from '../debug/debuggee.js';
import { framed, PacketReader } from './packet.js';
import { GdbSession } from './session.js';

/** Packets of a client that wait to be answered. gdb has one on the way at a time. */
const MOST_WAITING = 64;
/** Bytes that a client has not read yet, after which it is let go. */
const MOST_UNREAD = 16 * 1024 * 1024;
const PROGRESS_MILLISECONDS = 3000;
const GRACE_MILLISECONDS = 200;

export interface ListenAddress {
  readonly host: string;
  /** 0 for any that is free. */
  readonly port: number;
}

export class GdbServer {
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private client: Client | undefined;
  /** The last session may still be giving up what it was at. */
  private before: Promise<void> = Promise.resolve();

  /** @param say takes words for the server's own console. */
  constructor(
    private readonly debuggee: Debuggee,
    private readonly guests: readonly RecordedGuest[],
    private readonly say: (text: string) => void,
  ) {
    this.server = createServer((socket) => this.connected(socket));
  }

  /** @returns where it listens. @throws the host's error when it cannot. */
  async listen({ host, port }: ListenAddress): Promise<ListenAddress> {
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(port, host, () => {
        this.server.off('error', reject);
        resolve();
      });
    });
    const address = this.server.address() as AddressInfo;
    return { host: address.address, port: address.port };
  }

  /** Returns once every client is gone and nothing is under way. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    for (const socket of this.sockets) socket.destroy();
    await closed;
    await this.before;
  }

  private connected(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    socket.on('error', (error) => this.say(`client: ${error.message}`));
    socket.setNoDelay(true);
    if (this.client?.isOpen !== true) this.accept(socket);
    else setTimeout(() => this.acceptOrRefuse(socket), GRACE_MILLISECONDS);
  }

  /** The client before may just have gone: that is heard a little later. */
  private acceptOrRefuse(socket: Socket): void {
    if (socket.destroyed || !this.server.listening) return;
    if (this.client?.isOpen !== true) {
      this.accept(socket);
      return;
    }
    this.say('refused a second client');
    socket.end(framed('E.another debugger is connected'));
  }

  private accept(socket: Socket): void {
    const peer = `${socket.remoteAddress}:${socket.remotePort}`;
    this.say(`${peer} is connected`);
    const client = new Client(socket, this.debuggee, this.guests, this.say);
    this.client = client;
    this.before = this.before
      .then(() => client.serve())
      .catch((error: unknown) =>
        this.say(`session: ${error instanceof Error ? (error.stack ?? error.message) : error}`),
      )
      .then(() => {
        client.drop();
        this.say(`${peer} is gone`);
      });
  }
}

/** A connection: takes packets in, answers them in order. */
class Client {
  private readonly reader = new PacketReader();
  private readonly session: GdbSession;
  private readonly waiting: Uint8Array[] = [];
  private wake: (() => void) | undefined;
  private open = true;
  /** Since the last packet. */
  private interrupted = false;
  private acknowledges = true;
  private last: Uint8Array | undefined;
  private told = performance.now();

  constructor(
    private readonly socket: Socket,
    private readonly debuggee: Debuggee,
    guests: readonly RecordedGuest[],
    private readonly say: (text: string) => void,
  ) {
    this.session = new GdbSession(debuggee, guests, { send: (data) => this.send(data), say });
    socket.on('data', (chunk) => this.take(chunk));
    socket.on('close', () => this.drop());
  }

  get isOpen(): boolean {
    return this.open;
  }

  /** Returns when the session is over. */
  async serve(): Promise<void> {
    const { debuggee, session } = this;
    debuggee.givesUp = () => this.interrupted || !this.open;
    while (this.open) {
      const packet = this.waiting.shift();
      if (packet === undefined) {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
        continue;
      }
      this.told = performance.now();
      debuggee.onProgress = (at) => {
        if (performance.now() - this.told < PROGRESS_MILLISECONDS) return;
        this.told = performance.now();
        session.tellProgress(at);
      };
      const { data, ends, quiet } = await session.answer(packet);
      this.send(data);
      if (quiet === true) this.acknowledges = false;
      if (ends === true) this.finish();
    }
    debuggee.onProgress = undefined;
    debuggee.givesUp = undefined;
    session.end();
  }

  /** The connection is of no more use. What was sent still goes out after `finish`. */
  drop(): void {
    if (!this.socket.writableEnded) this.socket.destroy();
    this.over();
  }

  private finish(): void {
    this.socket.end();
    this.socket.resume();
    this.over();
  }

  private over(): void {
    if (!this.open) return;
    this.open = false;
    this.wake?.();
  }

  private take(chunk: Uint8Array): void {
    for (const incoming of this.reader.read(chunk)) {
      if (!this.open) return;
      switch (incoming.kind) {
        case 'packet':
          this.acknowledge('+');
          this.queue(incoming.data);
          break;
        case 'bad':
          this.acknowledge('-');
          break;
        case 'nak':
          if (this.last !== undefined) this.write(this.last);
          break;
        case 'interrupt':
          this.interrupted = true;
          break;
        case 'nonsense':
          this.say('the client does not speak the remote protocol');
          this.drop();
          break;
        default:
      }
    }
  }

  private queue(packet: Uint8Array): void {
    if (this.waiting.length >= MOST_WAITING) {
      this.say('the client does not wait for answers');
      this.drop();
      return;
    }
    this.waiting.push(packet);
    // Whoever asks again while this one is answered does not mean what was said before it.
    this.last = undefined;
    this.interrupted = false;
    this.wake?.();
  }

  private acknowledge(sign: '+' | '-'): void {
    if (this.acknowledges) this.write(Buffer.from(sign));
  }

  private send(data: string): void {
    this.last = framed(data);
    this.write(this.last);
  }

  private write(bytes: Uint8Array): void {
    if (this.socket.destroyed) return;
    this.socket.write(bytes);
    if (this.socket.writableLength > MOST_UNREAD) this.drop();
  }
}

/**
 * Listens in a thread of its own, so that a machine, which waits for nothing but what its own thread does, can wait for a page
 * that comes over the network.
 */
import { type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { type Channel, PeerGone } from '../../src/replay/index.js';
import { OperatingError, UsageError } from '../cli/failure.js';
import type { FromNetwork, FromPeer, NetworkSetup, ToPeer } from './network-protocol.js';
import type { Endpoint, SecurityFlags } from './secure.js';

/** By how much longer than the peer's silence the network's thread may be silent itself. */
const PATIENCE_MILLISECONDS = 10_000;

export interface Listener {
  /** A peer has come. */
  readonly onConnection: (channel: ThreadChannel, from: string) => void;
  /** One could not be let in. */
  readonly onFailure: (problem: string) => void;
}

export class ListeningThread {
  private constructor(
    readonly port: number,
    private readonly worker: Worker,
  ) {}

  /** @param silence milliseconds. @throws UsageError, OperatingError as `listenAt`. */
  static async listen(
    endpoint: Endpoint,
    { tlsCert, tlsKey, tlsCa, pskFile, insecure }: SecurityFlags,
    silence: number,
    { onConnection, onFailure }: Listener,
  ): Promise<ListeningThread> {
    const given = Object.entries({ tlsCert, tlsKey, tlsCa, pskFile, insecure }).filter(
      ([, flag]) => flag !== undefined,
    );
    const activity = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    const workerData: NetworkSetup = { endpoint, flags: Object.fromEntries(given), silence, activity };
    const worker = new Worker(new URL('./network-worker.js', import.meta.url), { workerData, execArgv: [] });
    const open = new Set<ThreadChannel>();
    const port = await new Promise<number>((resolve, reject) => {
      worker.on('message', (message: FromNetwork) => {
        if (message.type === 'listening') resolve(message.port);
        else if (message.type === 'failed') reject(failureOf(message));
        else if (message.type === 'not-let-in') onFailure(message.problem);
        else {
          const channel = new ThreadChannel(message.port, activity, silence);
          open.add(channel);
          onConnection(channel, message.from);
        }
      });
      worker.on('error', (cause) => {
        for (const channel of open) channel.lose(`the network's thread failed: ${cause.message}`);
        reject(new OperatingError(`the network's thread failed: ${cause.message}`, { cause }));
      });
    });
    return new ListeningThread(port, worker);
  }

  /** Whatever is still connected is cut off. The thread ends by itself; nobody waits for it. */
  close(): void {
    this.worker.postMessage('stop');
    this.worker.unref();
  }
}

const failureOf = ({ isUsage, message }: Extract<FromNetwork, { type: 'failed' }>): Error =>
  isUsage ? new UsageError(message) : new OperatingError(message);

/** A connection of the network's thread. */
export class ThreadChannel implements Channel {
  /** What was sent is the other thread's. */
  readonly waiting = 0;
  private readonly received: Uint8Array[] = [];
  private ended = false;
  private closed = false;
  private failure: PeerGone | undefined;
  private wake: () => void = () => {};

  /** @param activity as the network's thread counts it. @param silence milliseconds. */
  constructor(
    private readonly port: MessagePort,
    private readonly activity: Int32Array,
    private readonly silence: number,
  ) {
    port.on('message', (message: FromPeer) => this.take(message));
  }

  send(bytes: Uint8Array): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.ended) throw new PeerGone('the peer has closed the connection');
    this.post({ type: 'send', bytes });
  }

  async receive(): Promise<Uint8Array | undefined> {
    for (;;) {
      const next = this.next();
      if (next !== undefined) return next;
      if (this.failure !== undefined) throw this.failure;
      if (this.ended) return undefined;
      await this.stirred();
    }
  }

  poll(): Uint8Array | undefined {
    this.drain();
    const next = this.next();
    if (next !== undefined) return next;
    if (this.failure !== undefined) throw this.failure;
    if (this.ended) throw new PeerGone('the peer has closed the connection');
    return undefined;
  }

  wait(): void {
    for (;;) {
      const seen = Atomics.load(this.activity, 0);
      this.drain();
      if (this.received.length > 0 || this.ended || this.failure !== undefined) return;
      if (Atomics.wait(this.activity, 0, seen, this.silence + PATIENCE_MILLISECONDS) === 'timed-out') {
        this.lose("the network's thread does not answer");
      }
    }
  }

  /** Sends what was written, and closes. */
  async close(): Promise<void> {
    this.post({ type: 'close' });
    while (!this.closed && this.failure === undefined) await this.stirred();
    this.port.close();
  }

  /** @param why the peer is taken for gone. */
  lose(why: string): void {
    this.failure ??= new PeerGone(why);
    this.wake();
  }

  private stirred(): Promise<void> {
    return new Promise<void>((resolve) => {
      this.wake = resolve;
    });
  }

  private next(): Uint8Array | undefined {
    const next = this.received.shift();
    if (next !== undefined) this.post({ type: 'used', bytes: next.length });
    return next;
  }

  /** Takes what has come, without the event loop. */
  private drain(): void {
    for (let next = receiveMessageOnPort(this.port); next !== undefined; next = receiveMessageOnPort(this.port)) {
      this.take(next.message as FromPeer);
    }
  }

  private take(message: FromPeer): void {
    if (message.type === 'bytes') this.received.push(message.bytes);
    else if (message.type === 'ended') this.ended = true;
    else if (message.type === 'closed') this.closed = true;
    else this.failure ??= new PeerGone(message.message);
    this.wake();
  }

  private post(message: ToPeer): void {
    this.port.postMessage(message);
  }
}

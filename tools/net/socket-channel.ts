/** A channel between two vmtapes over a TCP or TLS connection. A peer that is silent for too long is taken for gone. */
import type { Socket } from 'node:net';
import { type Channel, PeerGone } from '../../src/replay/index.js';

/** What came and was not asked for yet; more than that is not read from the network. */
const MOST_UNREAD = 16 << 20;

const MOMENT_MILLISECONDS = 1;

export class SocketChannel implements Channel {
  private readonly received: Uint8Array[] = [];
  private unread = 0;
  private ended = false;
  private failure: Error | undefined;
  private wake: () => void = () => {};

  /** @param silence milliseconds. */
  constructor(
    private readonly socket: Socket,
    silence: number,
  ) {
    socket.setNoDelay(true);
    socket.setTimeout(silence);
    socket.on('data', (bytes) => this.take(bytes));
    socket.on('end', () => this.over());
    socket.on('close', () => this.over());
    socket.on('error', (cause) => this.over(new PeerGone(`the connection is lost: ${cause.message}`, { cause })));
    socket.on('timeout', () => {
      this.over(new PeerGone(`the peer has said nothing for ${silence / 1000} seconds`));
      socket.destroy();
    });
  }

  get waiting(): number {
    return this.socket.writableLength;
  }

  send(bytes: Uint8Array): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.ended || this.socket.destroyed) throw new PeerGone('the peer has closed the connection');
    this.socket.write(bytes, () => this.wake());
  }

  async receive(): Promise<Uint8Array | undefined> {
    for (;;) {
      const next = this.taken();
      if (next !== undefined) return next;
      if (this.failure !== undefined) throw this.failure;
      if (this.ended) return undefined;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  poll(): Uint8Array | undefined {
    const next = this.taken();
    if (next !== undefined) return next;
    if (this.failure !== undefined) throw this.failure;
    if (this.ended) throw new PeerGone('the peer has closed the connection');
    return undefined;
  }

  /** Resolves when something has come or has left, and after a moment in any case. */
  async stirred(): Promise<void> {
    if (this.received.length > 0 || this.ended) return;
    await new Promise<void>((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, MOMENT_MILLISECONDS);
    });
  }

  /** Sends what was written, and closes. */
  async close(): Promise<void> {
    if (this.socket.destroyed) return;
    await new Promise<void>((resolve) => {
      this.socket.once('close', () => resolve());
      this.socket.end(() => this.socket.destroySoon());
    });
  }

  /** At once, whatever was written. */
  destroy(): void {
    this.socket.destroy();
  }

  private taken(): Uint8Array | undefined {
    const next = this.received.shift();
    if (next === undefined) return undefined;
    this.unread -= next.length;
    if (this.unread < MOST_UNREAD) this.socket.resume();
    return next;
  }

  private take(bytes: Uint8Array): void {
    this.received.push(bytes);
    this.unread += bytes.length;
    if (this.unread >= MOST_UNREAD) this.socket.pause();
    this.wake();
  }

  private over(failure?: Error): void {
    this.ended = true;
    this.failure ??= failure;
    this.wake();
  }
}

/**
 * The thread that `receive` has its network in: connections live on while the machine's thread runs, or waits for a page. It
 * passes bytes on, and knows nothing of what they mean.
 */
import type { Socket } from 'node:net';
import { MessageChannel, type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { UsageError } from '../cli/failure.js';
import type { FromNetwork, FromPeer, NetworkSetup, ToPeer } from './network-protocol.js';
import { listenAt } from './secure.js';
import { SocketChannel } from './socket-channel.js';

const { endpoint, flags, silence, activity } = workerData as NetworkSetup;

/** Bytes that may wait for the machine's thread. */
const MOST_UNUSED = 16 << 20;

/** Wakes the machine's thread if it waits. */
function announce(): void {
  Atomics.add(activity, 0, 1);
  Atomics.notify(activity, 0);
}

class Connection {
  private readonly channel: SocketChannel;
  private unused = 0;
  private resume: () => void = () => {};

  constructor(
    socket: Socket,
    private readonly port: MessagePort,
  ) {
    this.channel = new SocketChannel(socket, silence);
    port.on('message', (message: ToPeer) => this.handle(message));
    // The machine's thread has ended.
    port.on('close', () => this.channel.destroy());
  }

  /** Passes on what comes, for as long as something does. */
  async passOn(): Promise<void> {
    try {
      for (;;) {
        const bytes = await this.channel.receive();
        if (bytes === undefined) {
          this.post({ type: 'ended' });
          return;
        }
        this.unused += bytes.length;
        // Node keeps several pieces in one block of memory: what goes is a copy.
        this.post({ type: 'bytes', bytes: new Uint8Array(bytes) });
        while (this.unused > MOST_UNUSED) {
          await new Promise<void>((resolve) => {
            this.resume = resolve;
          });
        }
      }
    } catch (error) {
      this.post({ type: 'lost', message: (error as Error).message });
    }
  }

  destroy(): void {
    this.channel.destroy();
    this.port.close();
  }

  private handle(message: ToPeer): void {
    switch (message.type) {
      case 'send':
        try {
          this.channel.send(message.bytes);
        } catch {
          // `passOn` says why.
        }
        break;
      case 'used':
        this.unused -= message.bytes;
        this.resume();
        break;
      case 'close':
        void this.channel.close().then(() => this.post({ type: 'closed' }));
        break;
    }
  }

  private post(message: FromPeer): void {
    this.port.postMessage(message);
    announce();
  }
}

function say(message: FromNetwork, ports: readonly MessagePort[] = []): void {
  parentPort?.postMessage(message, [...ports]);
}

const connections = new Set<Connection>();

try {
  const server = await listenAt(
    endpoint,
    flags,
    (socket) => {
      const { port1, port2 } = new MessageChannel();
      const connection = new Connection(socket, port1);
      say({ type: 'connected', from: `${socket.remoteAddress}:${socket.remotePort}`, port: port2 }, [port2]);
      connections.add(connection);
      void connection.passOn();
      socket.once('close', () => connections.delete(connection));
    },
    (problem) => say({ type: 'not-let-in', problem }),
  );
  // The only word that comes: it ends the thread.
  parentPort?.once('message', () => {
    server.close();
    for (const connection of connections) connection.destroy();
    parentPort?.close();
  });
  const address = server.address();
  say({ type: 'listening', port: typeof address === 'object' && address !== null ? address.port : endpoint.port });
} catch (error) {
  say({ type: 'failed', isUsage: error instanceof UsageError, message: (error as Error).message });
}

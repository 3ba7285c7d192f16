/** A client of the remote serial protocol, as plain as it can be, and a server on a recorded guest for it. */
import { connect, type Socket } from 'node:net';
import { recordedGuests } from '../../../src/replay/index.js';
import { Debuggee } from '../../../tools/debug/debuggee.js';
import { GdbServer, type ListenAddress } from '../../../tools/gdb/server.js';
import type { RecordedSession } from '../../support/sessions.js';

export interface Served {
  readonly debuggee: Debuggee;
  readonly server: GdbServer;
  readonly address: ListenAddress;
  /** What the server said on its console. */
  readonly said: string[];
  close(): Promise<void>;
}

export async function serve({ store }: RecordedSession): Promise<Served> {
  const reader = store.read();
  const debuggee = new Debuggee(reader);
  const said: string[] = [];
  const guests = await debuggee.work(recordedGuests(reader));
  const server = new GdbServer(debuggee, guests, (text) => said.push(text));
  const address = await server.listen({ host: '127.0.0.1', port: 0 });
  const close = async (): Promise<void> => {
    await server.close();
    debuggee.close();
    reader.close();
  };
  return { debuggee, server, address, said, close };
}

export const checksum = (text: string): string =>
  (Buffer.from(text, 'latin1').reduce((sum, byte) => sum + byte, 0) & 0xff).toString(16).padStart(2, '0');

export class RemoteClient {
  /** Console output of the target. */
  console = '';
  /** Everything that came, in order. */
  private received = '';
  private ended = false;
  private waiting: (() => void) | undefined;

  private constructor(readonly socket: Socket) {
    socket.setEncoding('latin1');
    socket.on('data', (chunk) => {
      this.received += String(chunk);
      this.waiting?.();
    });
    for (const event of ['close', 'error'] as const) {
      socket.on(event, () => {
        this.ended = true;
        this.waiting?.();
      });
    }
  }

  static async to({ host, port }: ListenAddress): Promise<RemoteClient> {
    const socket = connect(port, host);
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    return new RemoteClient(socket);
  }

  /** As gdb begins. */
  static async attached(address: ListenAddress): Promise<RemoteClient> {
    const client = await RemoteClient.to(address);
    await client.ask('qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+');
    await client.ask('QStartNoAckMode');
    return client;
  }

  send(raw: string | Uint8Array): void {
    this.socket.write(typeof raw === 'string' ? Buffer.from(raw, 'latin1') : raw);
  }

  sendPacket(data: string): void {
    this.send(`$${data}#${checksum(data)}`);
  }

  /** Sends a packet and waits for its answer. */
  async ask(data: string): Promise<string> {
    this.sendPacket(data);
    return await this.answer();
  }

  /** The next packet that is no console output. */
  async answer(): Promise<string> {
    for (;;) {
      const match = /\$([^#]*)#([0-9a-f]{2})/.exec(this.received);
      if (match !== null) {
        const [whole, data = '', sum] = match;
        this.received = this.received.slice(match.index + whole.length);
        if (checksum(data) !== sum) throw new Error(`wrong checksum: ${whole}`);
        if (!/^O([0-9a-f]{2})+$/.test(data))
          return data.replace(/}(.)/gs, (_, escaped: string) => String.fromCharCode(escaped.charCodeAt(0) ^ 0x20));
        this.console += Buffer.from(data.slice(1), 'hex').toString('utf8');
        continue;
      }
      if (this.ended) throw new Error('the server has closed the connection');
      await this.more();
    }
  }

  /** `monitor …`. */
  async monitor(command: string): Promise<string> {
    this.console = '';
    const answer = await this.ask(`qRcmd,${Buffer.from(command).toString('hex')}`);
    if (answer !== 'OK') throw new Error(answer);
    return this.console.trimEnd();
  }

  /** What came that is no packet: acknowledgements. */
  async raw(length: number): Promise<string> {
    while (this.received.length < length && !this.ended) await this.more();
    const found = this.received.slice(0, length);
    this.received = this.received.slice(length);
    return found;
  }

  async untilClosed(): Promise<void> {
    while (!this.ended) await this.more();
  }

  close(): void {
    this.socket.destroy();
  }

  private async more(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.waiting = resolve;
    });
  }
}

/** The other end: bytes out, messages in, one at a time and of the kind that is due. */
import { InputError, invariant } from '../../machine/index.js';
import {
  FrameReader,
  FrameWriter,
  type Hello,
  type Kind,
  type Message,
  type Payloads,
  PROTOCOL_VERSION,
  ProtocolError,
} from './messages.js';

/** A connection, whatever it goes through. */
export interface Channel {
  send(bytes: Uint8Array): void;
  /** Bytes that were sent and have not left yet. */
  readonly waiting: number;
  /** More bytes; undefined once the peer has ended. @throws when the connection is lost, or silent for too long. */
  receive(): Promise<Uint8Array | undefined>;
  /** Bytes that have come already; undefined when there are none, or the peer has ended. @throws as `receive`. */
  poll(): Uint8Array | undefined;
  /** Holds up everything until there are more bytes, or there will be none. Not every channel can. @throws as `receive`. */
  readonly wait?: () => void;
}

/** The peer has said that it goes no further, and why. */
export class Refused extends Error {
  override name = 'Refused';
}

/** The peer has gone. */
export class PeerGone extends Error {
  override name = 'PeerGone';
}

export class Peer {
  private readonly writer = new FrameWriter();
  private readonly reader = new FrameReader();
  private readonly messages: Message[] = [];
  /** Bytes sent so far. */
  sent = 0;

  constructor(private readonly channel: Channel) {}

  /** Bytes that were sent and have not left yet. */
  get waiting(): number {
    return this.channel.waiting;
  }

  send<Name extends Kind>(kind: Name, payload: Payloads[Name]): void {
    const frame = this.writer.frame(kind, payload);
    this.sent += frame.length;
    this.channel.send(frame);
  }

  /** @throws Refused, PeerGone; ProtocolError for a message of another kind. */
  async expect<Name extends Kind>(kind: Name): Promise<Payloads[Name]> {
    const message = await this.next();
    if (message.kind === kind) return message as unknown as Payloads[Name];
    throw new ProtocolError(`a ${message.kind} message came where a ${kind} message was due`);
  }

  /** @throws Refused, PeerGone, ProtocolError */
  async next(): Promise<Message> {
    for (;;) {
      const message = this.take();
      if (message !== undefined) return message;
      this.read(await this.channel.receive());
    }
  }

  /** A message that has come already. @throws Refused, PeerGone, ProtocolError */
  poll(): Message | undefined {
    for (;;) {
      const message = this.take();
      if (message !== undefined) return message;
      const bytes = this.channel.poll();
      if (bytes === undefined) return undefined;
      this.read(bytes);
    }
  }

  /** Whether `nextNow` can be asked for. */
  get canWait(): boolean {
    return this.channel.wait !== undefined;
  }

  /** The next message, while everything waits for it. @throws Refused, PeerGone, ProtocolError */
  nextNow(): Message {
    for (;;) {
      const message = this.poll();
      if (message !== undefined) return message;
      invariant(this.channel.wait !== undefined, 'this channel can wait');
      this.channel.wait();
    }
  }

  private read(bytes: Uint8Array | undefined): void {
    if (bytes === undefined) throw new PeerGone('the peer has closed the connection');
    this.messages.push(...this.reader.take(bytes));
  }

  private take(): Message | undefined {
    const message = this.messages.shift();
    if (message === undefined) return undefined;
    if (message.kind === 'refuse') throw new Refused(printable(message.why));
    return message;
  }

  /** Says who speaks, and hears who answers. @throws InputError for another protocol. */
  async greet(vmtapeVersion: string): Promise<Hello> {
    this.send('hello', { magic: 'vmtape migration', protocol: PROTOCOL_VERSION, vmtapeVersion });
    const hello = await this.expect('hello');
    if (hello.magic !== 'vmtape migration') throw new ProtocolError('the peer is no vmtape');
    if (hello.protocol === PROTOCOL_VERSION) return hello;
    const problem = `it speaks migration protocol ${hello.protocol}, and this vmtape ${PROTOCOL_VERSION}`;
    throw new InputError(`peer (vmtape ${printable(hello.vmtapeVersion)})`, problem, 'Use equal versions.');
  }
}

/** What a peer says goes to terminals. */
const printable = (text: string): string => text.slice(0, 2000).replace(/[^\x20-\x7e]/g, '?');

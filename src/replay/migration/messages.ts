/**
 * What two hosts say to each other while a session moves (docs/migration.md): frames of a kind, a number, and a payload.
 *
 * Whatever a peer claims is bounded before anything is allocated for it, and comes in the only order in which it makes sense.
 */
import { Packr } from 'msgpackr';

export const PROTOCOL_VERSION = 2;

/** Kinds of messages, with the most bytes that each may have. */
export const KINDS = {
  /** Both, first: who speaks, and which protocol. */
  hello: { code: 1, most: 4 << 10 },
  /** Source: what would come. */
  offer: { code: 2, most: 1 << 20 },
  /** Destination: it may come. */
  accept: { code: 3, most: 4 << 10 },
  /** Pages of RAM. */
  pages: { code: 4, most: 4 << 20 },
  /** Source: a round is over. Destination: it has everything of it. */
  round: { code: 5, most: 4 << 10 },
  /** Source, which stands still now: everything but RAM. */
  state: { code: 6, most: 256 << 20 },
  /** Destination: it runs from there on. */
  running: { code: 7, most: 4 << 10 },
  /** Destination: its tape has what it began with. */
  safe: { code: 8, most: 4 << 10 },
  /** Source: the session is the destination's. */
  yours: { code: 9, most: 4 << 10 },
  /** Either: why it goes no further. */
  refuse: { code: 10, most: 64 << 10 },
  /** Destination, which runs already: a page that it waits for. */
  need: { code: 11, most: 4 << 10 },
} as const;
export type Kind = keyof typeof KINDS;

export interface Hello {
  readonly magic: 'vmtape migration';
  readonly protocol: number;
  readonly vmtapeVersion: string;
}

export interface Offer {
  readonly machineVersion: string;
  /** As in a tape's header. */
  readonly configuration: string;
  readonly ramPages: number;
  /** Pages may come after the state. */
  readonly postCopy: boolean;
}

export interface Pages {
  /** Numbers of pages that are all zeros. */
  readonly zeros: Uint8Array;
  /** Numbers of the others, as u32; and their contents one after the other, compressed. */
  readonly numbers: Uint8Array;
  readonly data: Uint8Array;
}

export interface Round {
  readonly round: number;
}

export interface State {
  /** A snapshot without RAM. */
  readonly snapshot: Uint8Array;
  /** The digest of RAM there. */
  readonly ram: Uint8Array;
  /** Bytes for the serial port that have not been delivered. */
  readonly input: Uint8Array;
  /** Numbers of the pages that come later, ascending, as u32; and the SHA-256 of each. */
  readonly later: Uint8Array;
  readonly laterDigests: Uint8Array;
}

export interface Running {
  /** `icount:seq`. */
  readonly position: string;
}

export interface Need {
  readonly page: number;
}

export interface Refuse {
  readonly why: string;
}

/** What each kind carries. */
export interface Payloads {
  readonly hello: Hello;
  readonly offer: Offer;
  readonly accept: object;
  readonly pages: Pages;
  readonly round: Round;
  readonly state: State;
  readonly running: Running;
  readonly safe: object;
  readonly yours: object;
  readonly refuse: Refuse;
  readonly need: Need;
}

export type Message = { readonly [Name in Kind]: { readonly kind: Name } & Payloads[Name] }[Kind];

/** The peer says what makes no sense here. */
export class ProtocolError extends Error {
  override name = 'ProtocolError';
}

/** Length of what follows, kind, number of the message on its way: little-endian. */
export const FRAME_HEAD_BYTES = 4 + 1 + 4;

const packr = new Packr({ useRecords: false, moreTypes: true, mapsAsObjects: true, variableMapSize: true });

/** Numbers messages, and makes frames of them. */
export class FrameWriter {
  private number = 0;

  frame<Name extends Kind>(kind: Name, payload: Payloads[Name]): Uint8Array {
    const packed = packr.pack(payload);
    const frame = new Uint8Array(FRAME_HEAD_BYTES + packed.length);
    const view = new DataView(frame.buffer);
    view.setUint32(0, packed.length, true);
    view.setUint8(4, KINDS[kind].code);
    view.setUint32(5, this.number++, true);
    frame.set(packed, FRAME_HEAD_BYTES);
    return frame;
  }
}

const NAMES = new Map<number, Kind>(Object.entries(KINDS).map(([name, { code }]) => [code, name as Kind]));

/** Takes frames out of bytes as they come. */
export class FrameReader {
  private number = 0;
  private pieces: Uint8Array[] = [];
  private length = 0;

  /** @returns the messages that are whole now. @throws ProtocolError */
  take(bytes: Uint8Array): readonly Message[] {
    this.pieces.push(bytes);
    this.length += bytes.length;
    const messages: Message[] = [];
    for (let message = this.next(); message !== undefined; message = this.next()) messages.push(message);
    return messages;
  }

  private next(): Message | undefined {
    if (this.length < FRAME_HEAD_BYTES) return undefined;
    const head = this.joined(FRAME_HEAD_BYTES);
    const view = new DataView(head.buffer, head.byteOffset, head.length);
    const [length, code, number] = [view.getUint32(0, true), view.getUint8(4), view.getUint32(5, true)];
    const kind = NAMES.get(code);
    if (kind === undefined) throw new ProtocolError(`a message of kind ${code} is none`);
    if (number !== this.number) throw new ProtocolError(`message ${number} came in the place of ${this.number}`);
    if (length > KINDS[kind].most) throw new ProtocolError(`a ${kind} message of ${length} bytes is too long`);
    if (this.length < FRAME_HEAD_BYTES + length) return undefined;
    const frame = this.joined(FRAME_HEAD_BYTES + length);
    this.pieces = frame.length === this.length ? [] : [this.whole().subarray(FRAME_HEAD_BYTES + length)];
    this.length -= FRAME_HEAD_BYTES + length;
    this.number++;
    return { kind, ...payloadOf(kind, frame.subarray(FRAME_HEAD_BYTES)) } as Message;
  }

  /** The first bytes in one piece. */
  private joined(length: number): Uint8Array {
    const [first] = this.pieces as [Uint8Array];
    return (first.length >= length ? first : this.whole()).subarray(0, length);
  }

  private whole(): Uint8Array {
    if (this.pieces.length > 1) {
      const whole = new Uint8Array(this.length);
      let at = 0;
      for (const piece of this.pieces) {
        whole.set(piece, at);
        at += piece.length;
      }
      this.pieces = [whole];
    }
    return this.pieces[0] as Uint8Array;
  }
}

/** Fields of each kind with the type that each must have. */
const FIELDS: {
  readonly [Name in Kind]: Readonly<Record<keyof Payloads[Name], 'string' | 'number' | 'boolean' | 'bytes'>>;
} = {
  hello: { magic: 'string', protocol: 'number', vmtapeVersion: 'string' },
  offer: { machineVersion: 'string', configuration: 'string', ramPages: 'number', postCopy: 'boolean' },
  accept: {},
  pages: { zeros: 'bytes', numbers: 'bytes', data: 'bytes' },
  round: { round: 'number' },
  state: { snapshot: 'bytes', ram: 'bytes', input: 'bytes', later: 'bytes', laterDigests: 'bytes' },
  running: { position: 'string' },
  safe: {},
  yours: {},
  refuse: { why: 'string' },
  need: { page: 'number' },
};

function payloadOf(kind: Kind, packed: Uint8Array): object {
  let payload: unknown;
  try {
    payload = packr.unpack(packed);
  } catch (cause) {
    throw new ProtocolError(`a ${kind} message cannot be read`, { cause });
  }
  if (typeof payload !== 'object' || payload === null) throw new ProtocolError(`a ${kind} message holds nothing`);
  for (const [field, type] of Object.entries(FIELDS[kind])) {
    const value = (payload as Readonly<Record<string, unknown>>)[field];
    const found = value instanceof Uint8Array ? 'bytes' : typeof value;
    if (found !== type) throw new ProtocolError(`a ${kind} message has no ${field}`);
  }
  return payload;
}

/** Numbers of pages as bytes, whose place in memory may be odd. */
export const numbersToBytes = (numbers: Iterable<number>): Uint8Array =>
  new Uint8Array(Uint32Array.from(numbers).buffer);
/** @throws ProtocolError */
export function numbersFromBytes(bytes: Uint8Array, pages: number): Uint32Array {
  if (bytes.length % 4 !== 0) throw new ProtocolError('the numbers of pages end amid one');
  const numbers = new Uint32Array(bytes.slice().buffer);
  const wrong = numbers.find((number) => number >= pages);
  if (wrong !== undefined) throw new ProtocolError(`page ${wrong} is beyond RAM`);
  return numbers;
}

/**
 * The framing of gdb's remote serial protocol: `$data#checksum`, escapes, acknowledgements, and the interrupt byte between
 * packets. Whatever else arrives is skipped; sizes are bounded before anything is kept.
 * Source: GDB manual, appendix E.1 Overview of the Remote Protocol, E.9 Interrupts, E.14 Packet Acknowledgment.
 */

/** What a client may send in one packet, its frame apart. */
export const PACKET_BYTES = 0x4000;
/** Bytes between packets after which a client speaks no such protocol. */
const MOST_GARBAGE = 0x1_0000;

const DOLLAR = 0x24;
const HASH = 0x23;
const PLUS = 0x2b;
const MINUS = 0x2d;
const STAR = 0x2a;
const ESCAPE = 0x7d;
const INTERRUPT = 0x03;

export type Incoming =
  | { readonly kind: 'packet'; readonly data: Uint8Array }
  /** A packet whose checksum is wrong, or which is longer than it may be. */
  | { readonly kind: 'bad' }
  | { readonly kind: 'ack' | 'nak' | 'interrupt' }
  /** Nobody who means this protocol sends so much that is none. */
  | { readonly kind: 'nonsense' };

/** Takes a stream apart, however it is cut. */
export class PacketReader {
  private state: 'between' | 'data' | 'first-digit' | 'second-digit' = 'between';
  private readonly buffer = new Uint8Array(PACKET_BYTES);
  private length = 0;
  private tooLong = false;
  private sum = 0;
  private digit = 0;
  private garbage = 0;

  *read(chunk: Uint8Array): Generator<Incoming, void, void> {
    for (const byte of chunk) {
      const found = this.take(byte);
      if (found !== undefined) yield found;
    }
  }

  private take(byte: number): Incoming | undefined {
    switch (this.state) {
      case 'between':
        return this.between(byte);
      case 'data':
        return this.data(byte);
      case 'first-digit':
        this.digit = byte;
        this.state = 'second-digit';
        return undefined;
      default:
        this.state = 'between';
        return this.complete(this.digit, byte);
    }
  }

  private between(byte: number): Incoming | undefined {
    switch (byte) {
      case DOLLAR:
        this.begin();
        return undefined;
      case PLUS:
        return { kind: 'ack' };
      case MINUS:
        return { kind: 'nak' };
      case INTERRUPT:
        return { kind: 'interrupt' };
      default:
        return ++this.garbage > MOST_GARBAGE ? { kind: 'nonsense' } : undefined;
    }
  }

  private begin(): void {
    this.state = 'data';
    this.length = 0;
    this.tooLong = false;
    this.sum = 0;
  }

  private data(byte: number): Incoming | undefined {
    if (byte === HASH) this.state = 'first-digit';
    // A packet that breaks off, and another one: the first is lost.
    else if (byte === DOLLAR) this.begin();
    else if (this.length === PACKET_BYTES) {
      this.tooLong = true;
      if (++this.garbage > MOST_GARBAGE) return { kind: 'nonsense' };
    } else {
      this.sum = (this.sum + byte) & 0xff;
      this.buffer[this.length++] = byte;
    }
    return undefined;
  }

  private complete(first: number, second: number): Incoming {
    const text = String.fromCharCode(first, second);
    if (this.tooLong || !/^[0-9a-f]{2}$/i.test(text) || Number.parseInt(text, 16) !== this.sum) return { kind: 'bad' };
    this.garbage = 0;
    return { kind: 'packet', data: unescaped(this.buffer.slice(0, this.length)) };
  }
}

/** What an escape stands for. Only answers have run lengths. */
function unescaped(data: Uint8Array): Uint8Array {
  let length = 0;
  for (let at = 0; at < data.length; at++) {
    const byte = data[at] as number;
    data[length++] = byte === ESCAPE && at + 1 < data.length ? (data[++at] as number) ^ 0x20 : byte;
  }
  return data.subarray(0, length);
}

/** A packet with its frame. */
export function framed(data: string | Uint8Array): Uint8Array {
  const plain = typeof data === 'string' ? Buffer.from(data, 'utf8') : data;
  const out: number[] = [DOLLAR];
  let sum = 0;
  const put = (byte: number): void => {
    out.push(byte);
    sum = (sum + byte) & 0xff;
  };
  for (const byte of plain) {
    if (byte === DOLLAR || byte === HASH || byte === ESCAPE || byte === STAR) {
      put(ESCAPE);
      put(byte ^ 0x20);
    } else put(byte);
  }
  out.push(HASH, ...Buffer.from(sum.toString(16).padStart(2, '0')));
  return Uint8Array.from(out);
}

export const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
export const hexText = (text: string): string => Buffer.from(text, 'utf8').toString('hex');

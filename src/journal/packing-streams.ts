/** Bytes that are written and read in order: the streams of a packed chunk. */

const INITIAL_BYTES = 4096;

export class ByteSink {
  private memory = new Uint8Array(INITIAL_BYTES);
  length = 0;

  /** Streams one after the other, each with its length before it. */
  static joined(streams: readonly ByteSink[]): Uint8Array {
    const whole = new ByteSink();
    for (const { memory, length } of streams) {
      whole.integer(length);
      whole.bytes(memory.subarray(0, length));
    }
    return whole.memory.subarray(0, whole.length);
  }

  byte(value: number): void {
    this.reserve(1);
    this.memory[this.length++] = value;
  }

  short(value: number): void {
    this.byte(value & 0xff);
    this.byte(value >>> 8);
  }

  /** Seven bits a byte, the lowest first; all but the last have bit 7 set. @param value below 2^31. */
  integer(value: number): void {
    this.reserve(5);
    let left = value;
    for (; left >= 0x80; left >>>= 7) this.memory[this.length++] = (left & 0x7f) | 0x80;
    this.memory[this.length++] = left;
  }

  /** The lowest bytes of 64 bits, little-endian. */
  low(low: number, high: number, count: number): void {
    this.reserve(8);
    for (let index = 0; index < count; index++) {
      this.memory[this.length++] = index < 4 ? low >>> (8 * index) : high >>> (8 * (index - 4));
    }
  }

  bytes(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.memory.set(bytes, this.length);
    this.length += bytes.length;
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.memory.length) return;
    const grown = new Uint8Array(2 * (this.length + bytes));
    grown.set(this.memory);
    this.memory = grown;
  }
}

/** Reads what a sink was given. @throws RangeError at the end. */
export class ByteSource {
  private at = 0;

  constructor(private readonly memory: Uint8Array) {}

  /** The streams that `ByteSink.joined` put together. */
  static split(joined: Uint8Array, count: number): readonly ByteSource[] {
    const whole = new ByteSource(joined);
    return Array.from({ length: count }, () => new ByteSource(whole.bytes(whole.integer())));
  }

  get isAtEnd(): boolean {
    return this.at === this.memory.length;
  }

  byte(): number {
    const byte = this.memory[this.at++];
    if (byte === undefined) throw new RangeError('the packed bytes end too early');
    return byte;
  }

  short(): number {
    const low = this.byte();
    return low | (this.byte() << 8);
  }

  integer(): number {
    let value = 0;
    for (let shift = 0; shift < 32; shift += 7) {
      const byte = this.byte();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new RangeError('a packed integer is too large');
  }

  bytes(count: number): Uint8Array {
    if (this.at + count > this.memory.length) throw new RangeError('the packed bytes end too early');
    this.at += count;
    return this.memory.subarray(this.at - count, this.at);
  }
}

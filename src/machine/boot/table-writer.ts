/**
 * Little-endian bytes of a firmware table, field after field, and the checksum that firmware tables share: a byte that
 * makes the sum of all bytes zero.
 */
export class TableWriter {
  private readonly bytes: number[] = [];

  get length(): number {
    return this.bytes.length;
  }

  /** A number of `size` bytes; the least significant comes first. */
  number(size: 1 | 2 | 4 | 8, value: number): this {
    let rest = value;
    for (let byte = 0; byte < size; byte++) {
      this.bytes.push(rest % 256);
      rest = Math.floor(rest / 256);
    }
    return this;
  }

  /** `size` ASCII characters, filled up with `fill`. */
  text(size: number, text: string, fill = ' '): this {
    for (const character of text.padEnd(size, fill)) this.bytes.push(character.charCodeAt(0));
    return this;
  }

  raw(bytes: Iterable<number>): this {
    this.bytes.push(...bytes);
    return this;
  }

  zeros(size: number): this {
    return this.raw(new Uint8Array(size));
  }

  /** Overwrites a number, for lengths that are known at the end. */
  set(offset: number, size: 1 | 2 | 4, value: number): this {
    for (let byte = 0; byte < size; byte++) this.bytes[offset + byte] = Math.floor(value / 256 ** byte) % 256;
    return this;
  }

  /** Sets the byte at `offset` so that bytes `from` to `to` sum to zero. */
  checksum(offset: number, from = 0, to = this.length): this {
    this.bytes[offset] = 0;
    const sum = this.bytes.slice(from, to).reduce((total, byte) => total + byte, 0);
    this.bytes[offset] = -sum & 0xff;
    return this;
  }

  finish(): Uint8Array {
    return Uint8Array.from(this.bytes);
  }
}

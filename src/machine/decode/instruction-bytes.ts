/** The bytes of the instruction that is being decoded, one after the other, and the numbers that they make. */
import { kept } from '../layout/slab.js';
import { MAX_INSTRUCTION_BYTES } from './decoded.js';

/** Thrown inside one decode. */
export const INCOMPLETE = Symbol('incomplete');
export const TOO_LONG = Symbol('too long');

export class InstructionBytes {
  private bytes: Uint8Array = new Uint8Array(0);
  private start = 0;
  private at = 0;
  /** Of them, how many were read when `endHead` was called last. */
  headLength = 0;

  /** An instruction begins at `start`. @param bytes to the end of what could be fetched. */
  begin(bytes: Uint8Array, start: number): void {
    this.bytes = bytes;
    this.start = start;
    this.at = start;
  }

  /** What was read are prefixes, opcode, ModRM and SIB; a SIB byte may follow. */
  endHead(): void {
    this.headLength = this.at - this.start;
  }

  /** Bytes that were read. */
  get length(): number {
    return this.at - this.start;
  }

  /** A copy of them. */
  get read(): Uint8Array {
    return kept(this.bytes, this.start, this.at);
  }

  /** @throws TOO_LONG, INCOMPLETE; so do all that read. */
  next8(): number {
    const byte = this.peek8();
    this.at++;
    return byte;
  }

  /** The next byte, which is not read by that. */
  peek8(): number {
    if (this.at - this.start >= MAX_INSTRUCTION_BYTES) throw TOO_LONG;
    if (this.at >= this.bytes.length) throw INCOMPLETE;
    return this.bytes[this.at] as number;
  }

  /** @param bytes of the number, 1 to 8, little-endian. */
  little(bytes: number): bigint {
    if (bytes <= 4) return BigInt(this.unsigned(bytes));
    return BigInt(this.unsigned(4)) | (BigInt(this.unsigned(bytes - 4)) << 32n);
  }

  /** @param bytes 1, 2 or 4. */
  unsigned(bytes: number): number {
    return this.word(bytes) >>> 0;
  }

  /** The same as two's complement. */
  signed(bytes: number): number {
    const unused = 32 - 8 * bytes;
    return (this.word(bytes) << unused) >> unused;
  }

  word(bytes: number): number {
    let value = 0;
    for (let shift = 0; shift < 8 * bytes; shift += 8) value |= this.next8() << shift;
    return value;
  }
}

/**
 * Little-endian fields of an image file, and the errors that say what is wrong with it.
 */
import { InputError } from '../errors.js';

const IMAGE = 'boot image';

/** @throws InputError; never returns. */
export function refuseImage(where: string, problem: string, remedy: string): never {
  throw new InputError(where === '' ? IMAGE : `${IMAGE}, ${where}`, problem, remedy);
}

export const hexadecimal = (value: number | bigint): string => `${value.toString(16).toUpperCase()}h`;

/** Reads fields at file offsets. The caller checks that they lie in the file. */
export class ImageReader {
  private readonly view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.bytes.length;
  }

  has(offset: number, length: number): boolean {
    return offset + length <= this.bytes.length;
  }

  u8(offset: number): number {
    return this.view.getUint8(offset);
  }

  u16(offset: number): number {
    return this.view.getUint16(offset, true);
  }

  u32(offset: number): number {
    return this.view.getUint32(offset, true);
  }

  /** As a number: exact below 2^53, and beyond that still larger than any address or file. */
  u64(offset: number): number {
    return Number(this.view.getBigUint64(offset, true));
  }
}

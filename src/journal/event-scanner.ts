/**
 * Steps over encoded events without building them: for whoever looks for a few among many. Kind, retired instructions,
 * vCPU and level are read; fields are only measured, by the lengths that msgpack gives them.
 *
 * Source: the MessagePack specification, Formats. It knows every form of it, not only those that the codec writes.
 */
import type { Level } from '../machine/events.js';
import { EncodingError } from './codec.js';

/** Bytes after the code of a form of fixed length, by code from 0xc0 on; -1 where more must be read, -2 for none such. */
const FIXED: readonly number[] = [
  // nil, (never used), false, true, bin 8/16/32, ext 8/16/32, float 32/64
  ...[0, -2, 0, 0, -1, -1, -1, -1, -1, -1, 4, 8],
  // uint 8/16/32/64, int 8/16/32/64, fixext 1/2/4/8/16
  ...[1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17],
  // str 8/16/32, array 16/32, map 16/32
  ...[-1, -1, -1, -1, -1, -1, -1],
];
/** Kind, retired, vCPU and level. */
const ENVELOPE_ITEMS = 3;

export class EventScanner {
  /** Place of the event's type in the tape's event table. */
  kind = 0;
  retired = 0;
  vcpu = 0;
  level: Level = 1;
  /** The event's bytes: from `start` to `end`. */
  start = 0;
  end = 0;
  private readonly view: DataView;
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Goes to the next event. @returns false when there is none. @throws EncodingError when the bytes are no events. */
  next(): boolean {
    if (this.end >= this.bytes.length) return false;
    this.start = this.end;
    this.at = this.start;
    try {
      const items = this.arrayLength();
      if (items < ENVELOPE_ITEMS) throw new EncodingError(`an event has ${items} items`);
      this.kind = this.count();
      this.retired = this.count();
      const vcpuAndLevel = this.count();
      this.vcpu = Math.floor(vcpuAndLevel / 2);
      this.level = ((vcpuAndLevel % 2) + 1) as Level;
      this.skip(items - ENVELOPE_ITEMS);
    } catch (cause) {
      if (cause instanceof RangeError) throw new EncodingError('the bytes end amid an event', { cause });
      throw cause;
    }
    if (this.at > this.bytes.length) throw new EncodingError('the bytes end amid an event');
    this.end = this.at;
    return true;
  }

  private arrayLength(): number {
    const code = this.view.getUint8(this.at++);
    if ((code & 0xf0) === 0x90) return code & 0xf;
    if (code === 0xdc) return this.length(2);
    if (code === 0xdd) return this.length(4);
    throw new EncodingError('the bytes are no events');
  }

  /** An unsigned length of so many bytes. */
  private length(bytes: number): number {
    const { view, at } = this;
    this.at += bytes;
    return bytes === 1 ? view.getUint8(at) : bytes === 2 ? view.getUint16(at) : view.getUint32(at);
  }

  /** A whole number from 0 on, in whatever form. */
  private count(): number {
    const code = this.view.getUint8(this.at++);
    if (code < 0x80) return code;
    if (code === 0xcc) return this.length(1);
    if (code === 0xcd) return this.length(2);
    if (code === 0xce) return this.length(4);
    if (code !== 0xcb && code !== 0xcf) throw new EncodingError('the envelope of an event is none');
    const value = code === 0xcb ? this.view.getFloat64(this.at) : Number(this.view.getBigUint64(this.at));
    this.at += 8;
    if (!Number.isSafeInteger(value) || value < 0) throw new EncodingError('the envelope of an event is none');
    return value;
  }

  /** Passes over so many items and what they hold. */
  private skip(items: number): void {
    const { bytes } = this;
    let left = items;
    while (left > 0) {
      left--;
      const code = bytes[this.at++];
      if (code === undefined) throw new EncodingError('the bytes end amid an event');
      if (code < 0x80 || code >= 0xe0) continue;
      if (code < 0x90) left += 2 * (code & 0xf);
      else if (code < 0xa0) left += code & 0xf;
      else if (code < 0xc0) this.at += code & 0x1f;
      else left += this.skipForm(code);
    }
  }

  /** Passes over a form whose code is from 0xc0 to 0xdf. @returns how many items it holds. */
  private skipForm(code: number): number {
    const fixed = FIXED[code - 0xc0] as number;
    if (fixed >= 0) {
      this.at += fixed;
      return 0;
    }
    if (fixed === -2) throw new EncodingError('the bytes are no events');
    if (code >= 0xde) return 2 * this.length(code === 0xde ? 2 : 4);
    if (code >= 0xdc) return this.length(code === 0xdc ? 2 : 4);
    const first = code >= 0xd9 ? 0xd9 : code >= 0xc7 ? 0xc7 : 0xc4;
    const length = this.length(1 << (code - first));
    // The type of an extension is one byte more.
    this.at += length + (first === 0xc7 ? 1 : 0);
    return 0;
  }
}

/** Takes events apart for the packer: where their fields stand, and numbers as halves. */
import { TYPE } from './packing-model.js';

/** Bytes that are no events as an encoder writes them. */
export class NotCanonical extends Error {
  override name = 'NotCanonical';
}

/** A field of the event at hand, `retired` being the first. */
export interface ParsedField {
  type: number;
  /** A number's halves. */
  low: number;
  high: number;
  /** Where its encoding begins, where the bytes in it do, and where both end. */
  start: number;
  body: number;
  end: number;
}

export class EventParser {
  kind = 0;
  where = 0;
  /** Fields of the event at hand; there may be more in `fields`. */
  count = 0;
  readonly fields: ParsedField[] = [];
  private readonly view: DataView;
  private at = 0;
  private type: number = TYPE.NONE;
  private low = 0;
  private high = 0;
  private body = 0;

  constructor(private readonly raw: Uint8Array) {
    this.view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  }

  /** @returns false at the end. @throws NotCanonical, RangeError when the bytes are no event as an encoder writes it. */
  next(): boolean {
    if (this.at === this.raw.length) return false;
    this.count = this.arrayLength() - 2;
    this.kind = this.small();
    this.field(0);
    this.where = this.small();
    for (let index = 1; index < this.count; index++) this.field(index);
    return true;
  }

  private field(index: number): void {
    let field = this.fields[index];
    if (field === undefined) {
      field = { type: 0, low: 0, high: 0, start: 0, body: 0, end: 0 };
      this.fields[index] = field;
    }
    field.start = this.at;
    this.value();
    field.type = this.type;
    field.low = this.low;
    field.high = this.high;
    field.body = this.body;
    field.end = this.at;
  }

  /** Reads the value at `at`: a number, or where its bytes begin. */
  private value(): void {
    const { raw, at } = this;
    const code = raw[at] as number;
    if (code < 0x80) this.number(code, 1);
    else if (code >= 0xe0) this.number(code - 0x100, 1);
    else if (code === 0xcf) this.unsigned();
    else if (code >= 0xca && code < 0xd3) this.longNumber(code);
    else if (code < 0xa0) this.array();
    else this.bytes(code);
  }

  private longNumber(code: number): void {
    const { view, at } = this;
    if (code === 0xcc) this.number(view.getUint8(at + 1), 2);
    else if (code === 0xcd) this.number(view.getUint16(at + 1), 3);
    else if (code === 0xce) this.number(view.getUint32(at + 1), 5);
    else if (code === 0xd0) this.number(view.getInt8(at + 1), 2);
    else if (code === 0xd1) this.number(view.getInt16(at + 1), 3);
    else if (code === 0xd2) this.number(view.getInt32(at + 1), 5);
    else if (code === 0xcb) this.number(view.getFloat64(at + 1), 9);
    else throw new NotCanonical();
  }

  private number(value: number, bytes: number): void {
    if (integerBytes(value) !== bytes || Object.is(value, -0)) throw new NotCanonical();
    this.type = TYPE.INTEGER;
    this.high = Math.floor(value / 0x1_0000_0000);
    this.low = (value - this.high * 0x1_0000_0000) | 0;
    this.at += bytes;
  }

  private unsigned(): void {
    this.type = TYPE.UNSIGNED;
    this.high = this.view.getInt32(this.at + 1);
    this.low = this.view.getInt32(this.at + 5);
    this.at += 9;
  }

  /** A text, bytes, true, false or null. */
  private bytes(code: number): void {
    const { view, at } = this;
    let header = 1;
    let length = 0;
    if (code < 0xc0) length = code & 0x1f;
    else if (code === 0xc4 || code === 0xd9) [header, length] = [2, view.getUint8(at + 1)];
    else if (code === 0xc5 || code === 0xda) [header, length] = [3, view.getUint16(at + 1)];
    else if (code === 0xc6 || code === 0xdb) [header, length] = [5, view.getUint32(at + 1)];
    else if (code !== 0xc0 && code !== 0xc2 && code !== 0xc3) throw new NotCanonical();
    this.type = TYPE.OTHER;
    this.body = at + header;
    this.at = this.body + length;
    if (this.at > this.raw.length) throw new NotCanonical();
  }

  private array(): void {
    const start = this.at;
    for (let left = this.arrayLength(); left > 0; left--) this.value();
    this.type = TYPE.OTHER;
    this.body = start;
  }

  private arrayLength(): number {
    const code = this.raw[this.at++] as number;
    if ((code & 0xf0) !== 0x90) throw new NotCanonical();
    return code & 0x0f;
  }

  /** An integer from 0 to 2^31 - 1. */
  private small(): number {
    this.value();
    if (this.type !== TYPE.INTEGER || this.high !== 0 || this.low < 0) throw new NotCanonical();
    return this.low;
  }
}

/** Bytes of the one encoding of a number. */
function integerBytes(value: number): number {
  if (!Number.isSafeInteger(value)) return 0;
  if (value >= -0x20 && value < 0x80) return 1;
  if (value >= -0x80 && value <= 0xff) return 2;
  if (value >= -0x8000 && value <= 0xffff) return 3;
  return value >= -0x8000_0000 && value <= 0xffff_ffff ? 5 : 9;
}

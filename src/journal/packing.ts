/**
 * Packing: the events of a chunk told by what is new in them, before they are compressed. What is packed unpacks to the same
 * bytes; digests, replay and readers know those alone. docs/tape-format.md has the coding, docs/adr/0040 what it saves.
 *
 * Events repeat: at an instruction that comes round again the same registers change, to the same values, to values that are
 * as far from the last ones, or to what another register holds. So each *place* (what event came before, RIP, which kind of
 * event this is) keeps a prediction for each value, and only what differs is written down.
 *
 * Invariant: packer and unpacker change their model by the same steps in the same order; a chunk needs no other chunk.
 */
import type { EventTable } from './codec.js';
import { END, NEW, ownerOf, STREAMS, type Streams, shapesOf } from './packing-format.js';
import {
  beginAgain,
  CODE,
  type Field,
  idAt,
  lastHighAt,
  lastLowAt,
  locationOfField,
  locationOfItem,
  Model,
  type Place,
  PREDICTION,
  setTypeAt,
  shadowOfItem,
  TYPE,
  typeAt,
} from './packing-model.js';
import { ByteSink } from './packing-streams.js';

/** Bytes that are no events as an encoder writes them. */
export class NotCanonical extends Error {
  override name = 'NotCanonical';
}

/** @returns undefined when the bytes are no events as an encoder writes them. */
export function pack(raw: Uint8Array, table: EventTable): Uint8Array | undefined {
  try {
    return new Packer(raw, table).pack();
  } catch (error) {
    if (error instanceof NotCanonical) return undefined;
    throw error;
  }
}

class Packer {
  private readonly model = new Model();
  private readonly shapes;
  private readonly to: Streams<ByteSink> = {
    flags: new ByteSink(),
    heads: new ByteSink(),
    codes: new ByteSink(),
    values: new ByteSink(),
  };
  private readonly view: DataView;
  private at = 0;
  /** What the value at `at` was read as. */
  private type: number = TYPE.NONE;
  private low = 0;
  private high = 0;
  private start = 0;
  private readonly starts: number[] = [];
  /** Values as expected since the last code of this event. */
  private expected = 0;
  private coded = false;

  constructor(
    private readonly raw: Uint8Array,
    table: EventTable,
  ) {
    this.shapes = shapesOf(table);
    this.view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  }

  pack(): Uint8Array {
    while (this.at < this.raw.length) this.event();
    return ByteSink.joined(STREAMS.map((name) => this.to[name]));
  }

  private event(): void {
    const { model, to, shapes } = this;
    const fields = this.arrayLength() - 3;
    const kind = this.small();
    const retired = this.at;
    this.value();
    const where = this.small();
    const shape = shapes[kind];
    if (shape === undefined || shape.length !== fields + 1 || where >= 4096) throw new NotCanonical();
    this.starts[0] = retired;
    for (let field = 1; field < shape.length; field++) {
      this.starts[field] = this.at;
      this.value();
    }
    const end = this.at;
    const expected = model.expected();
    let flags = 0;
    if (expected.kind !== kind || expected.where !== where) {
      flags = NEW.PLACE;
      to.heads.integer(kind);
      to.heads.integer(where);
    }
    const place = model.enter(kind, where, shape.length);
    if (this.newItems(place, shape)) flags |= NEW.ITEMS;
    this.expected = 0;
    this.coded = false;
    for (let field = 0; field < shape.length; field++) {
      const idBytes = shape[field] as number;
      this.at = this.starts[field] as number;
      this.value();
      if (idBytes === 0) this.scalar(place, field);
      else this.list(place, field, idBytes);
    }
    if (this.coded) {
      to.codes.integer(END);
      flags |= NEW.VALUES;
    }
    to.flags.byte(flags);
    this.at = end;
  }

  /** Announces items that lists have not had at this place. */
  private newItems(place: Place, shape: readonly number[]): boolean {
    let any = false;
    const { heads } = this.to;
    for (let number = 1; number < shape.length; number++) {
      const idBytes = shape[number] as number;
      if (idBytes === 0) continue;
      this.at = this.starts[number] as number;
      this.value();
      const { start, at: end } = this;
      if (!this.isList(this.starts[number] as number, start, end, idBytes + 8)) throw new NotCanonical();
      const field = place.fields[number] as Field;
      let index = 0;
      let before = -1;
      for (let item = start; item < end; item += idBytes + 8) {
        const id = this.idAt(item, idBytes);
        if (id <= before) throw new NotCanonical();
        before = id;
        while (index < field.count && idAt(field.predictions, index * PREDICTION) < id) index++;
        if (index < field.count && idAt(field.predictions, index * PREDICTION) === id) continue;
        any = true;
        heads.integer(number);
        heads.integer(id);
        this.model.addItem(field, id, locationOfItem(ownerOf(place, idBytes), id));
      }
    }
    if (any) heads.integer(0);
    return any;
  }

  /** Bytes as an encoder writes them, that are whole items. */
  private isList(header: number, start: number, end: number, itemBytes: number): boolean {
    const length = end - start;
    const code = length <= 0xff ? 0xc4 : length <= 0xffff ? 0xc5 : 0xc6;
    return this.raw[header] === code && length % itemBytes === 0;
  }

  private idAt(item: number, idBytes: number): number {
    return idBytes === 1 ? (this.raw[item] as number) : this.view.getUint16(item, true);
  }

  private scalar(place: Place, number: number): void {
    const { model, to } = this;
    const field = place.fields[number] as Field;
    const { predictions } = field;
    if (typeAt(predictions, 0) !== this.type) {
      this.code(CODE.TYPE);
      to.values.byte(this.type);
      setTypeAt(predictions, 0, this.type);
      if (this.type === TYPE.OTHER) field.other = undefined;
      else this.difference(predictions, 0, this.low, this.high, true);
    }
    if (this.type === TYPE.OTHER) {
      this.other(field, this.raw.subarray(this.starts[number] as number, this.at));
      return;
    }
    const { low, high } = this;
    const location = locationOfField(place.kind, number);
    model.expect(predictions, 0);
    if (model.low === low && model.high === high) this.expected++;
    else this.told(predictions, 0, low, high);
    model.settle(predictions, 0, location, low, high);
  }

  private other(field: Field, bytes: Uint8Array): void {
    const { other } = field;
    if (other !== undefined && other.length === bytes.length && other.every((byte, index) => byte === bytes[index])) {
      this.expected++;
      return;
    }
    this.code(CODE.DIFFERENCE);
    this.to.heads.integer(bytes.length);
    this.to.heads.bytes(bytes);
    field.other = bytes.slice();
  }

  private list(place: Place, number: number, idBytes: number): void {
    const { model, view } = this;
    const { predictions, count } = place.fields[number] as Field;
    const owner = ownerOf(place, idBytes);
    const end = this.at;
    let item = this.start;
    let id = item < end ? this.idAt(item, idBytes) : -1;
    for (let at = 0; at < count * PREDICTION; at += PREDICTION) {
      const expectedId = idAt(predictions, at);
      const location = locationOfItem(owner, expectedId);
      model.expectItem(predictions, at, location);
      if (expectedId !== id) {
        if (model.absent) this.expected++;
        else this.code(CODE.ABSENT);
        model.settleAbsent(predictions, at, location);
        continue;
      }
      const low = view.getInt32(item + idBytes, true);
      const high = view.getInt32(item + idBytes + 4, true);
      if (!model.absent && model.low === low && model.high === high) this.expected++;
      else this.told(predictions, at, low, high);
      model.settle(predictions, at, location, low, high, idBytes === 1 ? shadowOfItem(place.where, id) : location);
      item += idBytes + 8;
      id = item < end ? this.idAt(item, idBytes) : -1;
    }
  }

  /** A value that is not as it was expected. */
  private told(predictions: Int32Array, at: number, low: number, high: number): void {
    const { model, to } = this;
    const code = model.codeOf(predictions, at, low, high);
    if (code === CODE.DIFFERENCE) {
      this.difference(predictions, at, low, high, false);
      model.takeNew(predictions, at, low, high);
      return;
    }
    const operand = model.low;
    this.code(code);
    if (code === CODE.LOCATION) to.values.short(operand);
    else if (code === CODE.RECENT) to.values.byte(operand - 1);
    model.take(code, operand, predictions, at);
  }

  /** Zigzag: small differences of both signs are short. @param bare the value follows another code, with its length before it. */
  private difference(predictions: Int32Array, at: number, low: number, high: number, bare: boolean): void {
    const lastLow = lastLowAt(predictions, at);
    const borrow = low >>> 0 < lastLow >>> 0 ? 1 : 0;
    let differenceLow = (low - lastLow) | 0;
    let differenceHigh = (high - lastHighAt(predictions, at) - borrow) | 0;
    const sign = differenceHigh >> 31;
    differenceHigh = ((differenceHigh << 1) | (differenceLow >>> 31)) ^ sign;
    differenceLow = (differenceLow << 1) ^ sign;
    const bytes = bytesIn(differenceLow, differenceHigh);
    if (bare) this.to.values.byte(bytes);
    else this.code(CODE.DIFFERENCE + bytes);
    this.to.values.low(differenceLow, differenceHigh, bytes);
    if (bare) beginAgain(predictions, at, low, high);
  }

  private code(code: number): void {
    const { codes } = this.to;
    codes.integer(this.expected + 1);
    codes.byte(code);
    this.expected = 0;
    this.coded = true;
  }

  // Reading msgpack as an encoder writes it

  private arrayLength(): number {
    const code = this.raw[this.at++] as number;
    if ((code & 0xf0) === 0x90) return code & 0x0f;
    throw new NotCanonical();
  }

  /** An integer that fits into an int32 and is not negative. */
  private small(): number {
    this.value();
    if (this.type !== TYPE.INTEGER || this.high !== 0 || this.low < 0) throw new NotCanonical();
    return this.low;
  }

  /** Reads the value that begins at `at`: a number, or where its bytes begin. */
  private value(): void {
    const { raw, view } = this;
    const at = this.at;
    const code = raw[at] as number;
    if (code < 0x80) this.number(code, 1);
    else if (code >= 0xe0) this.number(code - 0x100, 1);
    else if (code >= 0xa0 && code < 0xc0) this.bytes(1, code & 0x1f);
    else {
      switch (code) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
          return this.bytes(1, 0);
        case 0xc4:
        case 0xd9:
          return this.bytes(2, view.getUint8(at + 1));
        case 0xc5:
        case 0xda:
          return this.bytes(3, view.getUint16(at + 1));
        case 0xc6:
        case 0xdb:
          return this.bytes(5, view.getUint32(at + 1));
        case 0xcb:
          return this.number(view.getFloat64(at + 1), 9);
        case 0xcc:
          return this.number(view.getUint8(at + 1), 2);
        case 0xcd:
          return this.number(view.getUint16(at + 1), 3);
        case 0xce:
          return this.number(view.getUint32(at + 1), 5);
        case 0xcf:
          this.type = TYPE.UNSIGNED;
          this.high = view.getInt32(at + 1);
          this.low = view.getInt32(at + 5);
          this.at = at + 9;
          return;
        case 0xd0:
          return this.number(view.getInt8(at + 1), 2);
        case 0xd1:
          return this.number(view.getInt16(at + 1), 3);
        case 0xd2:
          return this.number(view.getInt32(at + 1), 5);
        default:
          return this.array();
      }
    }
  }

  private number(value: number, bytes: number): void {
    if (integerBytes(value) !== bytes || Object.is(value, -0)) throw new NotCanonical();
    this.type = TYPE.INTEGER;
    this.low = value | 0;
    this.high = Math.floor(value / 0x1_0000_0000);
    if (bytes === 9) this.low = Number(BigInt.asIntN(32, BigInt(value)));
    this.at += bytes;
  }

  private bytes(header: number, length: number): void {
    if (this.at + header + length > this.raw.length) throw new NotCanonical();
    this.type = TYPE.OTHER;
    this.start = this.at + header;
    this.at = this.start + length;
  }

  /** A list of values as it is. */
  private array(): void {
    const start = this.at;
    for (let left = this.arrayLength(); left > 0; left--) this.value();
    this.type = TYPE.OTHER;
    this.start = start;
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

const bytesIn = (low: number, high: number): number =>
  high === 0 ? (32 - Math.clz32(low) + 7) >> 3 : 4 + ((32 - Math.clz32(high) + 7) >> 3);

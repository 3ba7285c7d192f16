/** Packed events → their encoding: the other half of packing.ts, step for step. */
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
  MOST_WHERE,
  Model,
  type Place,
  PREDICTION,
  setTypeAt,
  shadowOfItem,
  TYPE,
  typeAt,
} from './packing-model.js';
import { ByteSource } from './packing-streams.js';

/** A list may get a shorter header than there was room for. */
const SLACK = 8;

/**
 * @param length of the events' encoding. @param kinds gets the places in the table of those that come.
 * @throws RangeError when the bytes are not what `pack` gives for so much.
 */
export const unpack = (packed: Uint8Array, length: number, table: EventTable, kinds?: Set<number>): Uint8Array =>
  new Unpacker(packed, length, table, kinds).unpack();

class Unpacker {
  private readonly model = new Model();
  private readonly shapes;
  private readonly from: Streams<ByteSource>;
  private readonly raw: Uint8Array;
  private readonly view: DataView;
  private length = 0;
  /** Values as expected before the next code of this event, one more; `END` when there is none. */
  private distance = END;

  constructor(
    packed: Uint8Array,
    private readonly size: number,
    table: EventTable,
    private readonly kinds: Set<number> | undefined,
  ) {
    this.shapes = shapesOf(table);
    const sources = ByteSource.split(packed, STREAMS.length);
    this.from = Object.fromEntries(
      STREAMS.map((name, index) => [name, sources[index]]),
    ) as unknown as Streams<ByteSource>;
    this.raw = new Uint8Array(size + SLACK);
    this.view = new DataView(this.raw.buffer);
  }

  unpack(): Uint8Array {
    while (!this.from.flags.isAtEnd) this.event();
    const { raw, length, size } = this;
    if (length !== size) throw new RangeError(`${length} bytes were packed, not ${size}`);
    return raw.subarray(0, size);
  }

  private event(): void {
    const { model, from } = this;
    const flags = from.flags.byte();
    const expected = model.expected();
    const isNew = (flags & NEW.PLACE) !== 0;
    const kind = isNew ? from.heads.integer() : expected.kind;
    const where = isNew ? from.heads.integer() : expected.where;
    const shape = this.shapes[kind];
    if (shape === undefined || where >= MOST_WHERE)
      throw new RangeError('a packed event is of a kind that the tape does not name');
    // What is expected has come before.
    if (isNew) this.kinds?.add(kind);
    const place = model.enter(kind, where, shape.length);
    if ((flags & NEW.ITEMS) !== 0) this.newItems(place, shape);
    this.distance = (flags & NEW.VALUES) === 0 ? END : from.codes.integer();
    this.putByte(0x90 | (shape.length + 2));
    this.putInteger(kind);
    this.scalar(place, 0);
    this.putInteger(where);
    for (let field = 1; field < shape.length; field++) {
      const idBytes = shape[field] as number;
      if (idBytes === 0) this.scalar(place, field);
      else this.list(place, field, idBytes);
    }
    if (this.distance !== END) throw new RangeError('a packed event has more values than its type');
  }

  private newItems(place: Place, shape: readonly number[]): void {
    const { heads } = this.from;
    for (let number = heads.integer(); number !== END; number = heads.integer()) {
      const idBytes = shape[number];
      const id = heads.integer();
      if (idBytes === undefined || idBytes === 0 || id >= 256 ** idBytes) {
        throw new RangeError('a packed item is in no list');
      }
      this.model.addItem(place.fields[number] as Field, id, locationOfItem(ownerOf(place, idBytes), id));
    }
  }

  /** @returns the code of the next value. */
  private code(): number {
    if (this.distance === END) return CODE.EXPECTED;
    if (--this.distance > 0) return CODE.EXPECTED;
    const code = this.from.codes.byte();
    this.distance = this.from.codes.integer();
    return code;
  }

  private scalar(place: Place, number: number): void {
    const { model } = this;
    const field = place.fields[number] as Field;
    const { predictions } = field;
    let code = this.code();
    if (code === CODE.TYPE) {
      const type = this.from.values.byte();
      setTypeAt(predictions, 0, type);
      if (type === TYPE.OTHER) field.other = undefined;
      else {
        this.difference(predictions, 0, this.from.values.byte());
        beginAgain(predictions, 0, model.low, model.high);
      }
      // The value that follows has a code of its own when it is not as expected.
      code = this.code();
    }
    const type = typeAt(predictions, 0);
    if (type === TYPE.OTHER) {
      this.other(field, code);
      return;
    }
    this.valueOf(code, predictions, 0);
    const { low, high } = model;
    if (type === TYPE.UNSIGNED) this.putUnsigned(low, high);
    else this.putInteger(high * 0x1_0000_0000 + (low >>> 0));
    model.settle(predictions, 0, locationOfField(place.kind, number), low, high);
  }

  private other(field: Field, code: number): void {
    if (code !== CODE.EXPECTED) {
      const { heads } = this.from;
      field.other = heads.bytes(heads.integer()).slice();
    }
    if (field.other === undefined) throw new RangeError('a packed value is missing');
    this.put(field.other);
  }

  private list(place: Place, number: number, idBytes: number): void {
    const { model } = this;
    const { predictions, count } = place.fields[number] as Field;
    const owner = ownerOf(place, idBytes);
    const header = this.beginBinary(count * (idBytes + 8));
    const start = this.length;
    for (let at = 0; at < count * PREDICTION; at += PREDICTION) {
      const id = idAt(predictions, at);
      const location = locationOfItem(owner, id);
      model.expectItem(predictions, at, location);
      const code = this.code();
      if (code === CODE.ABSENT || (code === CODE.EXPECTED && model.absent)) {
        model.settleAbsent(predictions, at, location);
        continue;
      }
      this.valueOf(code, predictions, at);
      const { low, high } = model;
      this.putItem(id, idBytes, low, high);
      model.settle(predictions, at, location, low, high, idBytes === 1 ? shadowOfItem(place.where, id) : location);
    }
    this.endBinary(header, start);
  }

  /** The value that a code says, in the model's `low` and `high`. */
  private valueOf(code: number, predictions: Int32Array, at: number): void {
    const { model, from } = this;
    if (code === CODE.EXPECTED) model.expect(predictions, at);
    else if (code >= CODE.DIFFERENCE) {
      this.difference(predictions, at, code - CODE.DIFFERENCE);
      model.takeNew(predictions, at, model.low, model.high);
    } else if (code === CODE.LOCATION) model.take(code, from.values.short(), predictions, at);
    else if (code === CODE.RECENT) model.take(code, from.values.byte() + 1, predictions, at);
    else model.take(code, 0, predictions, at);
  }

  private difference(predictions: Int32Array, at: number, bytes: number): void {
    const { values } = this.from;
    if (bytes > 8) throw new RangeError('a packed difference is too long');
    let low = 0;
    let high = 0;
    for (let index = 0; index < bytes; index++) {
      if (index < 4) low |= values.byte() << (8 * index);
      else high |= values.byte() << (8 * (index - 4));
    }
    const sign = -(low & 1);
    const differenceLow = ((low >>> 1) | (high << 31)) ^ sign;
    const differenceHigh = (high >>> 1) ^ sign;
    const sum = (differenceLow >>> 0) + (lastLowAt(predictions, at) >>> 0);
    this.model.low = sum | 0;
    this.model.high = (differenceHigh + lastHighAt(predictions, at) + (sum > 0xffff_ffff ? 1 : 0)) | 0;
  }

  // Writing msgpack as an encoder does

  private putByte(value: number): void {
    this.reserve(1);
    this.raw[this.length++] = value;
  }

  private put(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.raw.set(bytes, this.length);
    this.length += bytes.length;
  }

  private reserve(bytes: number): void {
    if (this.length + bytes > this.raw.length) throw new RangeError('more bytes were packed than there were');
  }

  private putInteger(value: number): void {
    if (value >= -0x20 && value < 0x80) {
      this.putByte(value & 0xff);
      return;
    }
    this.reserve(value >= -0x80 && value <= 0xff ? 2 : value >= -0x8000 && value <= 0xffff ? 3 : 5);
    const at = this.length;
    const { view } = this;
    if (value >= 0 && value <= 0xff) this.header(0xcc, 2).setUint8(at + 1, value);
    else if (value >= 0 && value <= 0xffff) this.header(0xcd, 3).setUint16(at + 1, value);
    else if (value >= 0 && value <= 0xffff_ffff) this.header(0xce, 5).setUint32(at + 1, value);
    else if (value < 0 && value >= -0x80) this.header(0xd0, 2).setInt8(at + 1, value);
    else if (value < 0 && value >= -0x8000) this.header(0xd1, 3).setInt16(at + 1, value);
    else if (value < 0 && value >= -0x8000_0000) this.header(0xd2, 5).setInt32(at + 1, value);
    else {
      this.reserve(9);
      this.header(0xcb, 9);
      view.setFloat64(at + 1, value);
    }
  }

  private header(code: number, bytes: number): DataView {
    this.raw[this.length] = code;
    this.length += bytes;
    return this.view;
  }

  private putUnsigned(low: number, high: number): void {
    this.reserve(9);
    const at = this.length;
    this.header(0xcf, 9).setInt32(at + 1, high);
    this.view.setInt32(at + 5, low);
  }

  private putItem(id: number, idBytes: number, low: number, high: number): void {
    this.reserve(idBytes + 8);
    const { view } = this;
    if (idBytes === 1) this.raw[this.length] = id;
    else view.setUint16(this.length, id, true);
    view.setInt32(this.length + idBytes, low, true);
    view.setInt32(this.length + idBytes + 4, high, true);
    this.length += idBytes + 8;
  }

  /** Leaves room for the header of as many bytes as there may be. @returns where it begins. */
  private beginBinary(most: number): number {
    const header = this.length;
    this.length += binaryHeaderBytes(most);
    return header;
  }

  /** Writes the header, and moves the bytes up to it when they are fewer than there might have been. */
  private endBinary(header: number, start: number): void {
    const { raw, view } = this;
    const bytes = this.length - start;
    const headerBytes = binaryHeaderBytes(bytes);
    if (header + headerBytes < start) raw.copyWithin(header + headerBytes, start, this.length);
    this.length = header + headerBytes + bytes;
    if (this.length > raw.length) throw new RangeError('more bytes were packed than there were');
    raw[header] = 0xc4 + (headerBytes === 2 ? 0 : headerBytes === 3 ? 1 : 2);
    if (headerBytes === 2) view.setUint8(header + 1, bytes);
    else if (headerBytes === 3) view.setUint16(header + 1, bytes);
    else view.setUint32(header + 1, bytes);
  }
}

const binaryHeaderBytes = (length: number): number => (length <= 0xff ? 2 : length <= 0xffff ? 3 : 5);

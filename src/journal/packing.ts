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
  MOST_WHERE,
  Model,
  type Place,
  PREDICTION,
  setTypeAt,
  shadowOfItem,
  TYPE,
  typeAt,
} from './packing-model.js';
import { EventParser, NotCanonical, type ParsedField } from './packing-parser.js';
import { ByteSink } from './packing-streams.js';

/** @returns undefined when the bytes are no events as an encoder writes them. */
export function pack(raw: Uint8Array, table: EventTable): Uint8Array | undefined {
  try {
    return new Packer(raw, table).pack();
  } catch (error) {
    if (error instanceof NotCanonical || error instanceof RangeError) return undefined;
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
  private readonly parser: EventParser;
  /** Values as expected since the last code of this event. */
  private expected = 0;
  private coded = false;

  constructor(
    private readonly raw: Uint8Array,
    table: EventTable,
  ) {
    this.shapes = shapesOf(table);
    this.view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
    this.parser = new EventParser(raw);
  }

  pack(): Uint8Array {
    while (this.parser.next()) this.event();
    return ByteSink.joined(STREAMS.map((name) => this.to[name]));
  }

  private event(): void {
    const { model, to, parser } = this;
    const { kind, where } = parser;
    const shape = this.shapes[kind];
    if (shape === undefined || shape.length !== parser.count || where >= MOST_WHERE) throw new NotCanonical();
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
      const parsed = parser.fields[field] as ParsedField;
      if (idBytes === 0) this.scalar(place, field, parsed);
      else this.list(place, field, parsed, idBytes);
    }
    if (this.coded) {
      to.codes.integer(END);
      flags |= NEW.VALUES;
    }
    to.flags.byte(flags);
  }

  /** Announces items that lists have not had at this place. */
  private newItems(place: Place, shape: readonly number[]): boolean {
    let any = false;
    const { heads } = this.to;
    for (let number = 1; number < shape.length; number++) {
      const idBytes = shape[number] as number;
      if (idBytes === 0) continue;
      const parsed = this.parser.fields[number] as ParsedField;
      if (!this.isList(parsed, idBytes + 8)) throw new NotCanonical();
      const { body, end } = parsed;
      const field = place.fields[number] as Field;
      let index = 0;
      let before = -1;
      for (let item = body; item < end; item += idBytes + 8) {
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
  private isList({ start, body, end }: ParsedField, itemBytes: number): boolean {
    const length = end - body;
    const code = length <= 0xff ? 0xc4 : length <= 0xffff ? 0xc5 : 0xc6;
    return this.raw[start] === code && length % itemBytes === 0;
  }

  private idAt(item: number, idBytes: number): number {
    return idBytes === 1 ? (this.raw[item] as number) : this.view.getUint16(item, true);
  }

  private scalar(place: Place, number: number, { type, low, high, start, end }: ParsedField): void {
    const { model, to } = this;
    const field = place.fields[number] as Field;
    const { predictions } = field;
    if (typeAt(predictions, 0) !== type) {
      this.code(CODE.TYPE);
      to.values.byte(type);
      setTypeAt(predictions, 0, type);
      if (type === TYPE.OTHER) field.other = undefined;
      else this.difference(predictions, 0, low, high, true);
    }
    if (type === TYPE.OTHER) {
      this.other(field, this.raw.subarray(start, end));
      return;
    }
    model.expect(predictions, 0);
    if (model.low === low && model.high === high) this.expected++;
    else this.told(predictions, 0, low, high);
    model.settle(predictions, 0, locationOfField(place.kind, number), low, high);
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

  private list(place: Place, number: number, { body, end }: ParsedField, idBytes: number): void {
    const { model, view } = this;
    const { predictions, count } = place.fields[number] as Field;
    const owner = ownerOf(place, idBytes);
    let item = body;
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
}

const bytesIn = (low: number, high: number): number =>
  high === 0 ? (32 - Math.clz32(low) + 7) >> 3 : 4 + ((32 - Math.clz32(high) + 7) >> 3);

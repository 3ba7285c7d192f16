/**
 * Event ↔ canonical msgpack tuple. One event, one array:
 *
 *     [kind, retired, vcpu << 1 | level - 1, ...fields]
 *
 * `kind` is the place of the event's type in the tape's event table, the fields stand in the table's order. Any msgpack
 * reader reads it; here msgpackr does. Writing is by hand, for that is what the machine waits for (docs/adr/0010).
 *
 * Invariant: one event has one encoding. Integers take the shortest form; a `number` beyond 32 bits is a float64 and a
 * `bigint` always a uint64, so the two come back as what they were. Nothing depends on what was packed before.
 */
import { Unpackr } from 'msgpackr';
import {
  EVENT_FIELDS,
  type EventOf,
  type EventType,
  type Level,
  type MachineEvent,
  type StatedEvent,
} from '../machine/events.js';
import { type RawEvent, upcastersFrom } from './upcast.js';

/** Event types with their fields in order; a type's place is its number on the tape. Each tape carries its own. */
export type EventTable = Readonly<Record<string, readonly string[]>>;

/** What a field of an event may hold. Numbers are integers (-0 is 0), bigints are unsigned 64-bit values. */
export type FieldValue = null | boolean | number | bigint | string | Uint8Array | readonly FieldValue[];

/** An event that the tape cannot keep: a bug in what states it. */
export class EncodingError extends Error {
  override name = 'EncodingError';
}

interface Kind {
  readonly number: number;
  readonly fields: readonly string[];
  /** Writes the fields of this very type, when the table has them as this vmtape does. */
  readonly write: ((to: EventEncoder, event: MachineEvent) => void) | undefined;
}

/** Kind, retired, vCPU and level stand before the fields. */
const ENVELOPE_FIELDS = 3;
/** Longest encoding of a value of fixed length, and of the header of one of variable length. */
const SCALAR_BYTES = 9;
/** Array header, kind, retired, vCPU and level. */
const ENVELOPE_BYTES = 4 * SCALAR_BYTES;
/** Strings below this many bytes have their length in the code. */
const SHORT_STRING = 0x20;
/** Up to this length a loop copies faster than the call of `set`. */
const COPY_BY_LOOP = 48;
const INITIAL_BYTES = 64 * 1024;

/** How the encoder gets its bytes: a plain array, or memory that it shares with the writer thread. */
export type Allocate = (bytes: number) => ArrayBufferLike;

/** Appends encoded events to one buffer, which grows as needed. */
export class EventEncoder {
  /**
   * What a nested session is made of, field by field in the table's order: reading a property whose name is known costs a
   * fraction of reading one whose name is a variable.
   */
  private static readonly writers: { readonly [Type in EventType]?: (to: EventEncoder, event: EventOf<Type>) => void } =
    {
      'cpu.ran': (to, { registers }) => to.value(registers),
      'svm.vmrun': (to, { vmcb, asid, words, registers }) => {
        to.value(vmcb);
        to.value(asid);
        to.value(words);
        to.value(registers);
      },
      'svm.vmexit': (to, { vmcb, code, info1, info2, intInfo, words, registers }) => {
        to.value(vmcb);
        to.value(code);
        to.value(info1);
        to.value(info2);
        to.value(intInfo);
        to.value(words);
        to.value(registers);
      },
      'svm.vmload': (to, event) => to.moved(event),
      'svm.vmsave': (to, event) => to.moved(event),
      'svm.gif': (to, { set, registers }) => {
        to.value(set);
        to.value(registers);
      },
      'cpu.system': (to, { mnemonic, registers }) => {
        to.value(mnemonic);
        to.value(registers);
      },
    };

  private static readonly kindsOfTables = new WeakMap<EventTable, ReadonlyMap<string, Kind>>();

  /** Bytes used. */
  length = 0;
  /** The memory that the encoder writes to now; growing replaces it. */
  buffer: ArrayBufferLike;
  private memory: Uint8Array;
  private view: DataView;
  private readonly kinds: ReadonlyMap<string, Kind>;

  constructor(
    events: EventTable = EVENT_FIELDS,
    private readonly allocate: Allocate = (bytes) => new ArrayBuffer(bytes),
  ) {
    this.kinds = EventEncoder.kindsOf(events);
    this.buffer = allocate(INITIAL_BYTES);
    this.memory = new Uint8Array(this.buffer);
    this.view = new DataView(this.buffer);
  }

  private static kindsOf(events: EventTable): ReadonlyMap<string, Kind> {
    const known = EventEncoder.kindsOfTables.get(events);
    if (known !== undefined) return known;
    const kinds = new Map(
      Object.entries(events).map(([type, fields], number) => [
        type,
        { number, fields, write: EventEncoder.writerOf(type, fields) },
      ]),
    );
    EventEncoder.kindsOfTables.set(events, kinds);
    return kinds;
  }

  private static writerOf(type: string, fields: readonly string[]): Kind['write'] {
    const sameFields = String(EVENT_FIELDS[type as EventType]) === String(fields);
    return sameFields ? (EventEncoder.writers[type as EventType] as Kind['write']) : undefined;
  }

  /** The bytes encoded so far; a view, overwritten after `reset` or `use`. */
  get bytes(): Uint8Array {
    return this.memory.subarray(0, this.length);
  }

  /** Goes on in other memory, from its start. */
  use(buffer: ArrayBufferLike): void {
    this.buffer = buffer;
    this.memory = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.length = 0;
  }

  reset(): void {
    this.length = 0;
  }

  /** Appends bytes that an encoder made before. */
  restore(encoded: Uint8Array): void {
    this.reserve(encoded.length);
    this.memory.set(encoded, this.length);
    this.length += encoded.length;
  }

  /** Appends one event. When it throws, nothing was appended. */
  encode({ retired, vcpu, level, event }: StatedEvent): void {
    const start = this.length;
    const kind = this.kinds.get(event.type);
    if (kind === undefined) throw new EncodingError(`the event table has no ${event.type}`);
    if (!(retired >= 0)) throw new EncodingError(`${event.type} cannot retire ${retired} instructions`);
    const { number, fields, write } = kind;
    this.reserve(ENVELOPE_BYTES);
    this.arrayHeader(ENVELOPE_FIELDS + fields.length);
    this.integer(number);
    this.integer(retired);
    this.integer(vcpu * 2 + level - 1);
    try {
      if (write !== undefined) {
        write(this, event);
        return;
      }
      const values = event as unknown as Record<string, FieldValue>;
      for (let field = 0; field < fields.length; field++) this.value(values[fields[field] as string]);
    } catch (error) {
      this.length = start;
      throw error;
    }
  }

  /** State that went from a VMCB or to one. */
  private moved({ vmcb, words, registers }: EventOf<'svm.vmload' | 'svm.vmsave'>): void {
    this.value(vmcb);
    this.value(words);
    this.value(registers);
  }

  private value(value: FieldValue | undefined): void {
    this.reserve(SCALAR_BYTES);
    if (typeof value === 'number') this.integer(value);
    else if (typeof value === 'bigint') this.bigint(value);
    else if (value instanceof Uint8Array) this.binary(value);
    else if (typeof value === 'string') this.string(value);
    else if (typeof value === 'boolean') this.memory[this.length++] = value ? 0xc3 : 0xc2;
    else if (value === null) this.memory[this.length++] = 0xc0;
    else if (Array.isArray(value)) this.array(value as readonly FieldValue[]);
    else throw new EncodingError(`an event field cannot hold ${String(value)}`);
  }

  private integer(value: number): void {
    const { memory, view } = this;
    const at = this.length;
    if (value >= 0 && value < 0x80 && value === (value | 0)) {
      memory[at] = value;
      this.length = at + 1;
    } else if (!Number.isSafeInteger(value)) {
      throw new EncodingError(`an event field cannot hold ${value}: it is no exact integer`);
    } else if (value >= 0 && value <= 0xff) {
      memory[at] = 0xcc;
      memory[at + 1] = value;
      this.length = at + 2;
    } else if (value >= 0 && value <= 0xffff) {
      memory[at] = 0xcd;
      view.setUint16(at + 1, value);
      this.length = at + 3;
    } else if (value >= 0 && value <= 0xffff_ffff) {
      memory[at] = 0xce;
      view.setUint32(at + 1, value);
      this.length = at + 5;
    } else if (value < 0 && value >= -0x8000_0000) {
      this.negative(value);
    } else {
      memory[at] = 0xcb;
      view.setFloat64(at + 1, value);
      this.length = at + 9;
    }
  }

  private negative(value: number): void {
    const { memory, view } = this;
    const at = this.length;
    if (value >= -0x20) {
      memory[at] = value;
      this.length = at + 1;
    } else if (value >= -0x80) {
      memory[at] = 0xd0;
      view.setInt8(at + 1, value);
      this.length = at + 2;
    } else if (value >= -0x8000) {
      memory[at] = 0xd1;
      view.setInt16(at + 1, value);
      this.length = at + 3;
    } else {
      memory[at] = 0xd2;
      view.setInt32(at + 1, value);
      this.length = at + 5;
    }
  }

  private bigint(value: bigint): void {
    if (value < 0n || value > 0xffff_ffff_ffff_ffffn) {
      throw new EncodingError(`an event field cannot hold ${value}: bigints are unsigned 64-bit values`);
    }
    this.memory[this.length] = 0xcf;
    this.view.setBigUint64(this.length + 1, value);
    this.length += 9;
  }

  private binary(value: Uint8Array): void {
    this.reserve(SCALAR_BYTES + value.length);
    this.lengthHeader(value.length, 0xc4);
    this.copy(value);
  }

  private string(value: string): void {
    // At most three bytes of UTF-8 for each UTF-16 unit.
    this.reserve(SCALAR_BYTES + value.length * 3);
    if (value.length >= SHORT_STRING || !this.asciiString(value)) this.longString(value);
  }

  /** Most strings are short names: no need to ask for their UTF-8. @returns false when this one is not ASCII. */
  private asciiString(value: string): boolean {
    const { memory } = this;
    let at = this.length + 1;
    for (let index = 0; index < value.length; index++) {
      const unit = value.charCodeAt(index);
      if (unit > 0x7f) return false;
      memory[at++] = unit;
    }
    memory[this.length] = 0xa0 | value.length;
    this.length = at;
    return true;
  }

  private longString(value: string): void {
    const encoded = Buffer.from(value, 'utf8');
    if (encoded.toString('utf8') !== value) throw new EncodingError('an event field holds a string that is no Unicode');
    if (encoded.length < SHORT_STRING) this.memory[this.length++] = 0xa0 | encoded.length;
    else this.lengthHeader(encoded.length, 0xd9);
    this.copy(encoded);
  }

  private array(values: readonly FieldValue[]): void {
    this.arrayHeader(values.length);
    for (const value of values) this.value(value);
  }

  private arrayHeader(count: number): void {
    if (count < 0x10) {
      this.memory[this.length++] = 0x90 | count;
    } else if (count <= 0xffff) {
      this.memory[this.length] = 0xdc;
      this.view.setUint16(this.length + 1, count);
      this.length += 3;
    } else {
      this.memory[this.length] = 0xdd;
      this.view.setUint32(this.length + 1, count);
      this.length += 5;
    }
  }

  /** Header of a string or binary: `first` is the code for an 8-bit length; those for 16 and 32 bits follow it. */
  private lengthHeader(length: number, first: number): void {
    const { memory, view } = this;
    const at = this.length;
    if (length <= 0xff) {
      memory[at] = first;
      memory[at + 1] = length;
      this.length = at + 2;
    } else if (length <= 0xffff) {
      memory[at] = first + 1;
      view.setUint16(at + 1, length);
      this.length = at + 3;
    } else {
      memory[at] = first + 2;
      view.setUint32(at + 1, length);
      this.length = at + 5;
    }
  }

  private copy(source: Uint8Array): void {
    const { memory } = this;
    const at = this.length;
    if (source.length <= COPY_BY_LOOP) {
      for (let index = 0; index < source.length; index++) memory[at + index] = source[index] as number;
    } else {
      memory.set(source, at);
    }
    this.length = at + source.length;
  }

  private reserve(bytes: number): void {
    const needed = this.length + bytes;
    if (needed <= this.memory.length) return;
    const { bytes: old, length } = this;
    this.use(this.allocate(Math.max(needed, 2 * this.memory.length)));
    this.memory.set(old);
    this.length = length;
  }
}

/** The canonical bytes of one event, a fresh array. For more than a few, use an `EventEncoder`. */
export function encodeEvent(stated: StatedEvent, events: EventTable = EVENT_FIELDS): Uint8Array {
  const encoder = new EventEncoder(events);
  encoder.encode(stated);
  return encoder.bytes.slice();
}

/** Where each event of what `encoded` holds ends. @throws EncodingError when the bytes are no events. */
export function encodedEnds(encoded: Uint8Array): readonly number[] {
  const ends: number[] = [];
  if (encoded.length === 0) return ends;
  try {
    new Unpackr({ useRecords: false, mapsAsObjects: false }).unpackMultiple(encoded, (_tuple, _start, end) => {
      ends.push(end as number);
    });
  } catch (cause) {
    throw new EncodingError('the bytes are no events', { cause });
  }
  return ends;
}

/** Reads tuples with the event table and codec version of the tape they stand on. */
export class EventDecoder {
  private readonly unpackr = new Unpackr({ useRecords: false, mapsAsObjects: false });
  private readonly kinds: readonly (readonly [string, readonly string[]])[];
  private readonly upcasters;

  constructor(events: EventTable, codecVersion: number) {
    this.kinds = Object.entries(events);
    this.upcasters = upcastersFrom(codecVersion);
  }

  /** @param encoded any number of events, one after the other. @throws EncodingError when they are none. */
  decode(encoded: Uint8Array): StatedEvent[] {
    const stated: StatedEvent[] = [];
    if (encoded.length === 0) return stated;
    // msgpackr gives a Buffer for the binaries in a Buffer; events hold plain arrays.
    const source = new Uint8Array(encoded.buffer, encoded.byteOffset, encoded.byteLength);
    try {
      this.unpackr.unpackMultiple(source, (tuple: unknown) => {
        stated.push(this.fromTuple(tuple));
      });
    } catch (cause) {
      throw cause instanceof EncodingError ? cause : new EncodingError('the bytes are no events', { cause });
    }
    return stated;
  }

  private fromTuple(tuple: unknown): StatedEvent {
    const kind = Array.isArray(tuple) ? this.kinds[tuple[0] as number] : undefined;
    if (kind === undefined) throw new EncodingError('an event is of a kind that the tape does not name');
    const [type, fields] = kind;
    const values = tuple as number[];
    if (values.length !== ENVELOPE_FIELDS + fields.length) {
      throw new EncodingError(`an event ${type} has ${values.length - ENVELOPE_FIELDS} fields`);
    }
    let event: RawEvent = { type };
    for (let field = 0; field < fields.length; field++) {
      event[fields[field] as string] = values[ENVELOPE_FIELDS + field];
    }
    for (const upcast of this.upcasters) event = upcast(event);
    const [, retired, vcpuAndLevel] = values as [number, number, number];
    return {
      retired,
      vcpu: Math.floor(vcpuAndLevel / 2),
      level: ((vcpuAndLevel % 2) + 1) as Level,
      event: event as unknown as MachineEvent,
    };
  }
}

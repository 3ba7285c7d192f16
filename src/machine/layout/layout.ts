/**
 * Describes a structure in memory once. From one table come typed accessors, the offsets that the WebAssembly emitter
 * needs, snapshot fields, debugger registers and the generated documentation.
 *
 * Invariant, asserted when the table is loaded: fields are in order, do not overlap, and lie inside the structure.
 */
import { invariant } from '../errors.js';

export type FieldKind = 'u8' | 'u16' | 'u32' | 'u64' | 'bytes';

export interface Field<Kind extends FieldKind = FieldKind> {
  readonly kind: Kind;
  readonly offset: number;
  readonly bytes: number;
  readonly meaning: string;
}

const field =
  <Kind extends FieldKind>(kind: Kind, bytes: number) =>
  (offset: number, meaning: string): Field<Kind> => ({ kind, offset, bytes, meaning });

export const u8 = field('u8', 1);
export const u16 = field('u16', 2);
export const u32 = field('u32', 4);
export const u64 = field('u64', 8);
export const bytes = (offset: number, length: number, meaning: string): Field<'bytes'> => ({
  kind: 'bytes',
  offset,
  bytes: length,
  meaning,
});

export type Fields = Readonly<Record<string, Field>>;

/** u64 fields are `bigint`, smaller ones `number`, byte fields a window onto the memory. */
export type View<F extends Fields> = {
  -readonly [Name in keyof F]: F[Name]['kind'] extends 'u64'
    ? bigint
    : F[Name]['kind'] extends 'bytes'
      ? Uint8Array
      : number;
};

export interface Layout<F extends Fields> {
  readonly name: string;
  readonly bytes: number;
  readonly fields: F;
  /** Accessors onto `memory` at byte `base`; reads and writes go straight to the memory. */
  at(memory: DataView, base: number): View<F>;
}

/**
 * @param name the structure's name, for messages.
 * @param size its size in bytes.
 * @param fields in ascending order of offset.
 * @throws InvariantError when a field is out of order, overlaps its predecessor or passes the end.
 */
export function layout<F extends Fields>(name: string, size: number, fields: F): Layout<F> {
  let end = 0;
  for (const [fieldName, { offset, bytes: length }] of Object.entries(fields)) {
    invariant(offset >= end, `${name}.${fieldName} at ${offset} overlaps the field before it, which ends at ${end}`);
    end = offset + length;
  }
  invariant(end <= size, `${name} has fields up to ${end}, past its ${size} bytes`);
  const Accessors = accessorClass(fields);
  return { name, bytes: size, fields, at: (memory, base) => new Accessors(memory, base) as unknown as View<F> };
}

function accessorClass(fields: Fields) {
  class Accessors {
    constructor(
      readonly memory: DataView,
      readonly base: number,
    ) {}
  }
  for (const [name, { kind, offset, bytes: length }] of Object.entries(fields)) {
    Object.defineProperty(Accessors.prototype, name, accessor(kind, offset, length));
  }
  return Accessors;
}

function accessor(kind: FieldKind, offset: number, length: number): PropertyDescriptor & ThisType<Accessors> {
  switch (kind) {
    case 'u8':
      return {
        get() {
          return this.memory.getUint8(this.base + offset);
        },
        set(value: number) {
          this.memory.setUint8(this.base + offset, value);
        },
      };
    case 'u16':
      return {
        get() {
          return this.memory.getUint16(this.base + offset, true);
        },
        set(value: number) {
          this.memory.setUint16(this.base + offset, value, true);
        },
      };
    case 'u32':
      return {
        get() {
          return this.memory.getUint32(this.base + offset, true);
        },
        set(value: number) {
          this.memory.setUint32(this.base + offset, value, true);
        },
      };
    case 'u64':
      return {
        get() {
          return this.memory.getBigUint64(this.base + offset, true);
        },
        set(value: bigint) {
          this.memory.setBigUint64(this.base + offset, value, true);
        },
      };
    case 'bytes':
      return {
        get() {
          return new Uint8Array(this.memory.buffer, this.memory.byteOffset + this.base + offset, length);
        },
      };
  }
}

interface Accessors {
  readonly memory: DataView;
  readonly base: number;
}

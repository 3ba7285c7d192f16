/** What packer and unpacker have in common beside their model. */
import type { EventTable } from './codec.js';
import { type Field, lastLowAt, type Place } from './packing-model.js';

/** What an event has beside values as they were expected. */
export const NEW = { PLACE: 1, ITEMS: 2, VALUES: 4 } as const;
/** The codes of an event end with this in place of a distance. */
export const END = 0;

/** Fields that are lists: bytes of an item's id. Those of a VMCB's words belong to the VMCB that the field before names. */
const LISTS: Readonly<Record<string, number>> = { registers: 1, changes: 1, words: 2, ignored: 2 };

/** Bytes of ids for each field of each kind, 0 for a field that is no list. `retired` is the first. */
export function shapesOf(table: EventTable): Shapes {
  const known = shapesOfTables.get(table);
  if (known !== undefined) return known;
  const shapes = Object.values(table).map((fields) => [0, ...fields.map((name) => LISTS[name] ?? 0)]);
  shapesOfTables.set(table, shapes);
  return shapes;
}

type Shapes = readonly (readonly number[])[];
const shapesOfTables = new WeakMap<EventTable, Shapes>();

/** Streams of a packed chunk, in their order: like stands by like. */
export const STREAMS = ['flags', 'heads', 'codes', 'values'] as const;
export type Streams<Stream> = Readonly<Record<(typeof STREAMS)[number], Stream>>;

/** Owners of words have numbers from here on, those of registers smaller ones. */
const OWNERS_OF_WORDS = 0x20;

/** Whose items a list has: the vCPU, or the VMCB that the event's first field names, by the number of its page. */
export function ownerOf({ where, fields }: Place, idBytes: number): number {
  if (idBytes === 1) return where >> 1;
  return OWNERS_OF_WORDS + (lastLowAt((fields[1] as Field).predictions, 0) >>> 12);
}

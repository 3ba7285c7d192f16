/**
 * Typed questions to a tape: records by kind, level and range; and the same as SQL, over virtual tables that decode
 * chunks as they are read.
 *
 * In SQL, 64-bit values are signed integers, for SQLite has no other: VMEXIT_INVALID is -1. Payloads are JSON objects in
 * which such values are strings (`"0x7b"`), for JSON has no exact ones, and bytes are hex.
 */
import Database from 'better-sqlite3';
import type { MachineEvent } from '../machine/events.js';
import { isInput } from '../machine/events.js';
import type { JournalRecord } from './record.js';
import { isRecordOf, type JournalReader } from './store.js';

export interface RecordFilter {
  /** Event type with `*` and `?`: `svm.*`. */
  readonly kind?: string | undefined;
  readonly level?: 1 | 2 | undefined;
  /** First event number. */
  readonly fromSeq?: bigint | undefined;
  /** Event number to stop before. */
  readonly toSeq?: bigint | undefined;
}

/** The records that a filter lets through, in order. */
export function* selectRecords(
  reader: JournalReader,
  { kind, level, fromSeq = 0n, toSeq }: RecordFilter = {},
): Generator<JournalRecord, void, void> {
  const matches = kind === undefined ? () => true : globMatcher(kind);
  for (const record of reader.records(fromSeq)) {
    if (toSeq !== undefined && record.position.seq >= toSeq) return;
    if ((level === undefined || record.level === level) && matches(record.event.type)) yield record;
  }
}

/** A test of whole texts against a pattern in which `*` is any run of characters and `?` any one. */
export function globMatcher(glob: string): (text: string) => boolean {
  const escaped = glob.replace(/[.+^${}()|[\]\\]/g, String.raw`\$&`);
  const pattern = new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`, 's');
  return (text) => pattern.test(text);
}

/** A VMCB word that changed. */
export interface VmcbWrite {
  /** Byte offset within the VMCB. */
  readonly offset: number;
  readonly value: bigint;
}

const VMCB_WORD_BYTES = 8;
const VMCB_DELTA_ENTRY_BYTES = 2 + VMCB_WORD_BYTES;

export function* vmcbWrites(words: Uint8Array): Generator<VmcbWrite, void, void> {
  const view = new DataView(words.buffer, words.byteOffset, words.byteLength);
  for (let at = 0; at < words.length; at += VMCB_DELTA_ENTRY_BYTES) {
    yield { offset: view.getUint16(at, true) * VMCB_WORD_BYTES, value: view.getBigUint64(at + 2, true) };
  }
}

/** The fields of an event as JSON. */
export function payloadJson({ type: _, ...fields }: MachineEvent): string {
  return JSON.stringify(fields, (_key, value: unknown) => {
    if (typeof value === 'bigint') return `0x${value.toString(16)}`;
    return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value;
  });
}

type SqlValue = null | number | bigint | string;
type SqlRow = readonly SqlValue[];

interface View {
  readonly columns: readonly string[];
  /** The rows that a record gives. */
  readonly rows: (record: JournalRecord) => Iterable<SqlRow>;
}

const signed = (value: bigint): bigint => BigInt.asIntN(64, value);
const place = ({ position, vcpu }: JournalRecord): SqlRow => [position.seq, position.icount, vcpu];
const PLACE_COLUMNS = ['seq', 'icount', 'vcpu'] as const;

const VIEWS: Readonly<Record<string, View>> = {
  events: {
    columns: [...PLACE_COLUMNS, 'level', 'retired', 'kind', 'payload'],
    *rows(record) {
      const { level, retired, event } = record;
      yield [...place(record), level, retired, event.type, payloadJson(event)];
    },
  },
  exits: {
    columns: [...PLACE_COLUMNS, 'vmcb', 'code', 'info1', 'info2', 'int_info'],
    *rows(record) {
      if (!isRecordOf(record, 'svm.vmexit')) return;
      const { vmcb, code, info1, info2, intInfo } = record.event;
      yield [...place(record), vmcb, ...[code, info1, info2, intInfo].map(signed)];
    },
  },
  injections: {
    columns: [...PLACE_COLUMNS, 'kind', 'vector', 'error_code'],
    *rows(record) {
      if (!isRecordOf(record, 'svm.injected')) return;
      const { kind, vector, errorCode } = record.event;
      yield [...place(record), kind, vector, errorCode];
    },
  },
  inputs: {
    columns: [...PLACE_COLUMNS, 'kind', 'payload'],
    *rows(record) {
      if (isInput(record.event)) yield [...place(record), record.event.type, payloadJson(record.event)];
    },
  },
  vmcb_writes: {
    columns: [...PLACE_COLUMNS, 'kind', 'vmcb', 'offset', 'value'],
    *rows(record) {
      const { event } = record;
      if (!('words' in event)) return;
      for (const { offset, value } of vmcbWrites(event.words)) {
        yield [...place(record), event.type, event.vmcb, offset, signed(value)];
      }
    },
  },
};

/**
 * A database that holds nothing but the views of a tape: `events`, `exits`, `injections`, `inputs`, `vmcb_writes`.
 * `SELECT … FROM events(100, 200)` reads only the events from number 100 to 199. Close it when done.
 */
export function openViews(reader: JournalReader): Database.Database {
  const database = new Database(':memory:');
  for (const [name, { columns, rows }] of Object.entries(VIEWS)) {
    database.table(name, {
      columns: [...columns],
      parameters: ['from_seq', 'to_seq'],
      *rows(from: unknown, to: unknown) {
        const filter = { fromSeq: sequence(from), toSeq: sequence(to) };
        for (const record of selectRecords(reader, filter)) {
          for (const row of rows(record)) yield [...row];
        }
      },
    });
  }
  return database;
}

/** Names and columns of the views, for whoever lists them. */
export const VIEW_COLUMNS: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  Object.entries(VIEWS).map(([name, { columns }]) => [name, columns]),
);

const sequence = (value: unknown): bigint | undefined =>
  typeof value === 'number' || typeof value === 'bigint' ? BigInt(value) : undefined;

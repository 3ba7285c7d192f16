/**
 * What SQL sees of a tape: views with typed columns, each made from the records of some kinds of event. The same
 * definitions serve the virtual tables of `vmtape sql` and the plain tables of `vmtape export --sqlite`.
 *
 * 64-bit values are signed integers, for SQLite has no other: VMEXIT_INVALID is -1.
 */
import { type ChunkScan, formatPosition, type JournalReader } from '../../src/journal/index.js';
import {
  decodeDelta,
  decodeVmcbDelta,
  EVENT_FIELDS,
  type EventOf,
  type EventType,
  exitName,
  isInput,
  type MachineEvent,
  R,
  REGISTER_NAMES,
  VECTOR_NAMES,
  vmcbFieldsOfWord,
} from '../../src/machine/index.js';
import { INJECTED_KINDS } from '../../src/replay/index.js';

/** Integers are bigints: better-sqlite3 takes numbers for reals. */
export type SqlValue = null | bigint | string;

export interface Column {
  readonly name: string;
  readonly type: 'INTEGER' | 'TEXT';
  readonly meaning: string;
}

export interface View {
  readonly summary: string;
  /** A query that shows what it is good for. */
  readonly example: string;
  /** Kinds of event that give rows. */
  readonly kinds: readonly string[];
  /** Columns of its own, after those that all views have. */
  readonly columns: readonly Column[];
  /** Columns that cost much and are made only where a query asks for them. */
  readonly lazy: readonly LazyColumn['name'][];
  /**
   * The values of its own columns, for each row that an event of these kinds gives.
   * @param codes EXITCODEs that are asked for, where the query names any.
   */
  readonly rows: (scan: ChunkScan, codes: ReadonlySet<bigint> | undefined) => Iterable<readonly SqlValue[]>;
  /** Columns that a plain table has an index on. */
  readonly indexed: readonly string[];
}

/** A column that is a function of the event. */
export interface LazyColumn extends Column {
  readonly name: 'text' | 'payload';
}

export const LAZY_COLUMNS: readonly LazyColumn[] = [
  { name: 'text', type: 'TEXT', meaning: 'the event in words, as `vmtape log` prints it' },
  { name: 'payload', type: 'TEXT', meaning: 'its fields as JSON; bytes and 64-bit values are hexadecimal' },
];

/** Where an event stands: columns that every view of events begins with. */
export const PLACE_COLUMNS: readonly Column[] = [
  { name: 'position', type: 'TEXT', meaning: 'the boundary before the event, icount:seq; every command takes it' },
  { name: 'seq', type: 'INTEGER', meaning: 'number of the event, from 0' },
  { name: 'icount', type: 'INTEGER', meaning: 'instructions retired when it has happened' },
  { name: 'vcpu', type: 'INTEGER', meaning: 'vCPU that it belongs to' },
  { name: 'level', type: 'INTEGER', meaning: '1 for the hypervisor, 2 for its guest' },
];

const integer = (name: string, meaning: string): Column => ({ name, type: 'INTEGER', meaning });
const text = (name: string, meaning: string): Column => ({ name, type: 'TEXT', meaning });
const SMALL = Array.from({ length: 256 }, (_, value) => BigInt(value));
/** Most are small, and making a bigint costs more than fetching one. */
export const whole = (value: number): bigint => SMALL[value] ?? BigInt(value);
const wholeOrNull = (value: number | null): bigint | null => (value === null ? null : whole(value));
const signed = (value: bigint): bigint => BigInt.asIntN(64, value);

const ALL_KINDS = Object.keys(EVENT_FIELDS);
const kindsWith = (field: string): readonly string[] =>
  ALL_KINDS.filter((kind) => (EVENT_FIELDS[kind as EventType] as readonly string[]).includes(field));

const VMCB_WORD_BYTES = 8;
/** Kinds whose VMCB words the processor wrote; in others it read what software had written. */
const WRITTEN_BY_PROCESSOR: ReadonlySet<string> = new Set(['svm.vmexit', 'svm.vmsave']);

export const VIEWS: Readonly<Record<string, View>> = {
  events: {
    summary: 'every event',
    example: "SELECT position, text FROM events WHERE seq >= at('vmexit:npf[0]') LIMIT 5",
    kinds: ALL_KINDS,
    columns: [
      integer('retired', 'instructions that retired with it'),
      text('kind', 'its type, such as svm.vmexit; the catalogue is docs/generated/events.md'),
    ],
    lazy: ['text', 'payload'],
    *rows({ retired, type }) {
      yield [whole(retired), type];
    },
    indexed: ['icount', 'kind'],
  },
  exits: {
    summary: '#VMEXITs',
    example: 'SELECT exit, count(*) AS n FROM exits GROUP BY exit ORDER BY n DESC LIMIT 5',
    kinds: ['svm.vmexit'],
    columns: [
      text('exit', 'its name, such as npf or cr3-write'),
      integer('code', 'EXITCODE'),
      integer('info1', 'EXITINFO1'),
      integer('info2', 'EXITINFO2'),
      integer('int_info', 'EXITINTINFO'),
      integer('vmcb', 'address of the VMCB'),
    ],
    lazy: [],
    *rows(scan, codes) {
      const { vmcb, code, info1, info2, intInfo } = scan.event as EventOf<'svm.vmexit'>;
      if (codes !== undefined && !codes.has(code)) return;
      yield [exitName(code), signed(code), signed(info1), signed(info2), signed(intInfo), whole(vmcb)];
    },
    indexed: ['icount', 'code', 'vmcb'],
  },
  entries: {
    summary: 'VMRUNs',
    example: 'SELECT vmcb, asid, count(*) AS n FROM entries GROUP BY vmcb, asid',
    kinds: ['svm.vmrun'],
    columns: [integer('vmcb', 'address of the VMCB'), integer('asid', 'address space of the guest')],
    lazy: [],
    *rows(scan) {
      const { vmcb, asid } = scan.event as EventOf<'svm.vmrun'>;
      yield [whole(vmcb), whole(asid)];
    },
    indexed: ['icount', 'vmcb'],
  },
  injections: {
    summary: 'events that L1 injected by EVENTINJ and the guest got',
    example: 'SELECT type, vector, count(*) AS n FROM injections GROUP BY type, vector',
    kinds: ['svm.injected'],
    columns: [
      text('type', 'interrupt, NMI, exception or software interrupt'),
      integer('vector', 'its vector'),
      integer('error_code', 'its error code, or NULL'),
    ],
    lazy: [],
    *rows(scan) {
      const { kind, vector, errorCode } = scan.event as EventOf<'svm.injected'>;
      yield [INJECTED_KINDS[kind] ?? String(kind), whole(vector), wholeOrNull(errorCode)];
    },
    indexed: ['icount', 'vector'],
  },
  exceptions: {
    summary: 'exceptions that were delivered',
    example: 'SELECT level, name, count(*) AS n FROM exceptions GROUP BY level, name',
    kinds: ['cpu.exception'],
    columns: [
      integer('vector', 'its vector'),
      text('name', 'its mnemonic, such as #PF'),
      integer('error_code', 'its error code, or NULL'),
    ],
    lazy: [],
    *rows(scan) {
      const { vector, errorCode } = scan.event as EventOf<'cpu.exception'>;
      yield [whole(vector), VECTOR_NAMES[vector] ?? null, wholeOrNull(errorCode)];
    },
    indexed: ['icount', 'vector'],
  },
  interrupts: {
    summary: 'interrupts that were delivered',
    example: 'SELECT level, source, vector, count(*) AS n FROM interrupts GROUP BY 1, 2, 3',
    kinds: ['cpu.interrupt'],
    columns: [integer('vector', 'its vector'), text('source', 'external, nmi, software or virtual')],
    lazy: [],
    *rows(scan) {
      const { vector, source } = scan.event as EventOf<'cpu.interrupt'>;
      yield [whole(vector), source];
    },
    indexed: ['icount', 'vector'],
  },
  runs: {
    summary: 'stretches of plain instructions',
    example: 'SELECT level, sum(instructions) AS n FROM runs GROUP BY level',
    kinds: ['cpu.ran'],
    columns: [
      integer('instructions', 'how many retired'),
      integer('rip', 'RIP after the last, or NULL when it is as before'),
    ],
    lazy: [],
    *rows(scan) {
      const { registers } = scan.event as EventOf<'cpu.ran'>;
      const rip = [...decodeDelta(registers)].find(([slot]) => slot === R.rip)?.[1];
      yield [whole(scan.retired), rip === undefined ? null : signed(rip)];
    },
    indexed: ['icount'],
  },
  inputs: {
    summary: 'what came from outside',
    example: 'SELECT position, text FROM inputs',
    kinds: ALL_KINDS.filter((type) => isInput({ type } as MachineEvent)),
    columns: [text('kind', 'its type, such as input.serial')],
    lazy: ['text', 'payload'],
    *rows({ type }) {
      yield [type];
    },
    indexed: ['icount'],
  },
  vmcb_writes: {
    summary: 'words of VMCBs that changed, as the processor came to know of it',
    example: "SELECT position, field, hex64(value) AS value FROM vmcb_writes WHERE writer = 'software' LIMIT 5",
    kinds: kindsWith('words'),
    columns: [
      text('kind', 'event by which it is known'),
      text('writer', 'processor, or software before the event'),
      integer('vmcb', 'address of the VMCB'),
      integer('offset', 'of the 8-byte word in the VMCB'),
      text('field', 'fields that lie in the word'),
      integer('value', 'the new word'),
    ],
    lazy: [],
    *rows({ event }) {
      if (!('words' in event)) return;
      const writer = WRITTEN_BY_PROCESSOR.has(event.type) ? 'processor' : 'software';
      for (const [word, value] of decodeVmcbDelta(event.words)) {
        const field = vmcbFieldsOfWord(word).join('+');
        yield [event.type, writer, whole(event.vmcb), whole(VMCB_WORD_BYTES * word), field, signed(value)];
      }
    },
    indexed: ['seq', 'icount', 'offset'],
  },
  register_writes: {
    summary: 'registers that an event changed; of a run the last value of each',
    example: "SELECT position, hex64(value) AS cr3 FROM register_writes WHERE register = 'cr3' LIMIT 5",
    kinds: kindsWith('registers'),
    columns: [
      text('kind', 'the event'),
      text('register', 'its name, such as rax, cr3 or efer'),
      integer('value', 'its new value, 64 bits'),
    ],
    lazy: [],
    *rows({ event }) {
      if (!('registers' in event)) return;
      for (const [slot, value] of decodeDelta(event.registers)) {
        yield [event.type, REGISTER_NAMES[slot] ?? `slot ${slot}`, signed(value)];
      }
    },
    indexed: ['seq', 'icount', 'register'],
  },
  msr_writes: {
    summary: 'MSRs that were written',
    example: "SELECT position, printf('%x', msr) AS msr, hex64(value) AS value FROM msr_writes",
    kinds: ['cpu.msr'],
    columns: [integer('msr', 'its number'), integer('value', 'what was written')],
    lazy: [],
    *rows(scan) {
      const { msr, value } = scan.event as EventOf<'cpu.msr'>;
      yield [whole(msr), signed(value)];
    },
    indexed: ['icount', 'msr'],
  },
};

/** Views that are not made of events; each row holds all columns. */
export interface PlainView {
  readonly summary: string;
  readonly example: string;
  readonly columns: readonly Column[];
  readonly rows: (reader: JournalReader) => Iterable<readonly SqlValue[]>;
}

const BOUNDARY_COLUMNS: readonly Column[] = [
  text('position', 'the boundary, icount:seq'),
  integer('seq', 'events before it'),
  integer('icount', 'instructions before it'),
];

export const PLAIN_VIEWS: Readonly<Record<string, PlainView>> = {
  checkpoints: {
    summary: 'boundaries at which the tape has the whole state: where seeking begins',
    example: 'SELECT position, bytes FROM checkpoints ORDER BY seq DESC LIMIT 1',
    columns: [
      ...BOUNDARY_COLUMNS,
      integer('id', 'its number on the tape'),
      integer('bytes', 'of its state and page map, compressed; pages of RAM are shared'),
    ],
    rows: checkpointRows,
  },
  digests: {
    summary: 'digests of parts of the state, which replay compares with',
    example: 'SELECT position, part FROM digests',
    columns: [
      ...BOUNDARY_COLUMNS,
      text('part', 'cpu, vmcb, devices, machine or ram'),
      text('digest', 'in hexadecimal'),
    ],
    rows: digestRows,
  },
};

function* checkpointRows(reader: JournalReader): Generator<readonly SqlValue[], void, void> {
  for (const { id, position, bytes } of reader.checkpoints()) {
    const { icount, seq } = position;
    yield [formatPosition(position), seq, icount, whole(id), whole(bytes)];
  }
}

/** Digests stand together at their boundaries. */
function* digestRows(reader: JournalReader): Generator<readonly SqlValue[], void, void> {
  for (const { position, kind, value } of reader.digests()) {
    const { icount, seq } = position;
    yield [formatPosition(position), seq, icount, kind, Buffer.from(value).toString('hex')];
  }
}

import { afterAll, describe, expect, it } from 'vitest';
import { formatPosition, isRecordOf, payloadJson } from '../../../src/journal/index.js';
import { decodeDelta, decodeVmcbDelta, exitName } from '../../../src/machine/index.js';
import { eventText } from '../../../src/replay/index.js';
import { NoQuery, TapeDatabase } from '../../../tools/sql/tape-database.js';
import { LAZY_COLUMNS, PLACE_COLUMNS, PLAIN_VIEWS, VIEWS } from '../../../tools/sql/views.js';
import { EVENTS, variedTape } from './support.js';

const reader = variedTape();
const records = [...reader.records()];
const database = new TapeDatabase(reader);
afterAll(() => database.close());

const rows = (sql: string, of = database): readonly (readonly unknown[])[] => [...of.query(sql).rows];
const column = (sql: string): readonly unknown[] => rows(sql).map(([value]) => value);
const signed = (value: bigint) => BigInt.asIntN(64, value);

describe('the views', () => {
  it.each(Object.entries(VIEWS))('%s has the columns it lists, and its example gives rows or none', (name, view) => {
    const names = [...PLACE_COLUMNS, ...view.columns, ...LAZY_COLUMNS.filter((lazy) => view.lazy.includes(lazy.name))];
    expect(database.query(`SELECT * FROM ${name} LIMIT 0`).columns).toEqual(names.map((each) => each.name));
    for (const row of rows(`SELECT * FROM ${name} LIMIT 50`)) {
      row.forEach((value, index) => {
        if (value !== null) expect(typeof value).toBe(names[index]?.type === 'TEXT' ? 'string' : 'bigint');
      });
    }
    if (!view.example.includes('vmexit:npf')) expect(() => rows(view.example)).not.toThrow();
  });

  it.each(Object.entries(PLAIN_VIEWS))('%s has the columns it lists', (name, { columns, example }) => {
    expect(database.query(`SELECT * FROM ${name} LIMIT 0`).columns).toEqual(columns.map((each) => each.name));
    expect(() => rows(example)).not.toThrow();
  });

  it('of all events holds every record, its position as commands take it', () => {
    const expected = records.map(({ position: { icount, seq }, retired, vcpu, level, event }) => [
      ...[`${icount - BigInt(retired)}:${seq}`, seq, icount, BigInt(vcpu), BigInt(level), BigInt(retired), event.type],
      ...[eventText({ retired, vcpu, level, event }), payloadJson(event)],
    ]);
    expect(rows('SELECT * FROM events')).toEqual(expected);
  });

  it('of exits, writes and registers hold what is in the events', () => {
    const exits = records.flatMap((record) =>
      isRecordOf(record, 'svm.vmexit')
        ? [[record.position.seq, exitName(record.event.code), ...[record.event.code, record.event.info1].map(signed)]]
        : [],
    );
    expect(rows('SELECT seq, exit, code, info1 FROM exits')).toEqual(exits);
    expect(exits.some(([, , code]) => code === -1n)).toBe(true);
    const words = records.flatMap(({ position, event }) =>
      'words' in event
        ? [...decodeVmcbDelta(event.words)].map(([word, value]) => [position.seq, BigInt(8 * word), signed(value)])
        : [],
    );
    expect(rows('SELECT seq, "offset", value FROM vmcb_writes')).toEqual(words);
    const registers = records.flatMap(({ position, event }) =>
      'registers' in event ? [...decodeDelta(event.registers)].map(([, value]) => [position.seq, signed(value)]) : [],
    );
    expect(rows('SELECT seq, value FROM register_writes')).toEqual(registers);
  });

  it('of checkpoints and digests hold the boundaries of which the tape knows the state', () => {
    const ends = `${reader.end.icount}:${EVENTS}`;
    expect(rows('SELECT position, part FROM digests ORDER BY seq DESC LIMIT 2')).toEqual([
      [ends, 'cpu'],
      [ends, 'ram'],
    ]);
    expect(rows('SELECT position, seq, id, bytes > 0 FROM checkpoints')).toEqual(
      reader.checkpoints().map(({ id, position }) => [formatPosition(position), position.seq, BigInt(id), 1n]),
    );
    expect(reader.checkpoints()).toHaveLength(1);
  });
});

describe('queries', () => {
  it('join views with each other, and a table with parameters for each row', () => {
    const joined = 'SELECT e.seq, w."offset" FROM exits e JOIN vmcb_writes w USING (seq) ORDER BY 1, 2';
    const lateral = 'SELECT e.seq, w."offset" FROM exits e, vmcb_writes_in(e.seq, e.seq + 1) w ORDER BY 1, 2';
    const expected = rows(joined);
    expect(expected.length).toBe(2 * records.filter((record) => isRecordOf(record, 'svm.vmexit')).length);
    expect(rows(lateral)).toEqual(expected);
  });

  it('take what is to be read as parameters, by place or by name', () => {
    const seqs = (keep: (record: (typeof records)[number]) => boolean) =>
      records.filter(keep).map(({ position }) => position.seq);
    expect(column('SELECT seq FROM events_in(100, 200)')).toEqual(
      seqs(({ position: { seq } }) => seq >= 100n && seq < 200n),
    );
    expect(column("SELECT seq FROM events_in(0, 5000, 'svm.*', 2)")).toEqual(
      seqs(({ position: { seq }, level, event }) => seq < 5000n && level === 2 && event.type.startsWith('svm.')),
    );
    expect(column('SELECT seq FROM events_in WHERE from_icount = 300000 AND to_icount = 310000')).toEqual(
      seqs(({ position: { icount } }) => icount >= 300_000n && icount < 310_000n),
    );
  });

  it('know positions, 64-bit values and exit codes', () => {
    expect(rows("SELECT at('#7'), at('vmexit[-1]'), hex64(-1), exit_name(0x400), hex64(NULL)")).toEqual([
      [
        7n,
        records.findLast(({ event }) => event.type === 'svm.vmexit')?.position.seq,
        '0xffffffffffffffff',
        'npf',
        null,
      ],
    ]);
    expect(rows('SELECT event_text(4097), event_payload(123456)')).toEqual([
      [eventText(records[4097] as (typeof records)[number]), null],
    ]);
  });

  it('read nothing outside of where they are held', () => {
    const part = new TapeDatabase(reader, { fromSeq: 4000n, toSeq: 4200n });
    expect(rows('SELECT min(seq), max(seq) FROM events', part)).toEqual([[4000n, 4199n]]);
    expect(rows('SELECT count(*) FROM exits WHERE seq < 4000', part)).toEqual([[0n]]);
    part.close();
  });

  it('read only the chunks that can hold what they ask for', () => {
    const read: number[] = [];
    const counting = Object.create(reader, {
      scanChunk: {
        value: (chunk: Parameters<typeof reader.scanChunk>[0]) => read.push(chunk.index) && reader.scanChunk(chunk),
      },
    }) as typeof reader;
    const counted = new TapeDatabase(counting);
    const chunks = (sql: string) => {
      read.length = 0;
      rows(sql, counted);
      return [...read];
    };
    expect(chunks('SELECT count(*) FROM events')).toEqual([0, 1, 2]);
    expect(chunks('SELECT count(*) FROM events WHERE seq BETWEEN 5000 AND 5010')).toEqual([1]);
    const middle = records[5000]?.position.icount ?? 0n;
    expect(chunks(`SELECT count(*) FROM exits WHERE icount > ${middle} AND icount < ${middle + 100n}`)).toEqual([1]);
    expect(chunks('SELECT seq FROM exits LIMIT 3')).toEqual([0]);
    counted.close();
  });

  it('may not change anything', () => {
    for (const sql of ['CREATE TABLE t (a)', "ATTACH 'x' AS y", 'DROP VIEW events', "VACUUM INTO '/tmp/no'"]) {
      expect(() => rows(sql)).toThrow(NoQuery);
    }
  });
});

/** Reads a tape by docs/tape-format.md alone: SQLite, Brotli, msgpack, packing and SHA-256, with nothing of the journal's. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import Database from 'better-sqlite3';
import { Unpackr } from 'msgpackr';
import { expect, it } from 'vitest';
import { sqliteStore } from '../../src/journal/sqlite-store.js';
import { unpackPlainly } from './plain-unpacker.js';
import { checkpointOf, DESCRIPTION, delta, expectSame, nestedEvents, pageOf, temporaryDirectory } from './support.js';

type Field = bigint | string | Buffer;
type Row = Record<string, Field>;

function H(...fields: Field[]): Buffer {
  const hash = createHash('sha256');
  const integer = (value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    hash.update(bytes);
  };
  for (const field of fields) {
    if (typeof field === 'bigint') {
      integer(field);
    } else {
      const bytes = Buffer.from(field as string);
      integer(BigInt(bytes.length));
      hash.update(bytes);
    }
  }
  return hash.digest();
}

it('a tape is what docs/tape-format.md says', () => {
  const file = join(temporaryDirectory(), 'a.vmtape');
  const events = [...nestedEvents(9000)];
  const writer = sqliteStore(file).create(DESCRIPTION);
  const image = Buffer.from('an image');
  writer.putBlob(image);
  writer.appendDigest('cpu', delta(1, 1));
  for (const stated of events) writer.append(stated);
  writer.appendDigest('cpu', delta(1, 2));
  writer.putCheckpoint(checkpointOf(writer.end, [0, 0, 4, 5, 0, 4]));
  writer.finish();

  const database = new Database(file, { readonly: true });
  const rows = (table: string) =>
    database.prepare(`SELECT * FROM ${table} ORDER BY 1`).safeIntegers(true).all() as Row[];
  const field = <Type extends Field>(row: Row, name: string): Type => row[name] as Type;
  const pick = (row: Row, ...names: string[]): Field[] => names.map((name) => field(row, name));

  const [tape] = rows('tape') as [Row];
  const genesis = field<Buffer>(tape, 'digest');
  const versions = pick(tape, 'format_version', 'codec_version', 'vmtape_version', 'machine_version');
  expect(H('vmtape header', ...versions, ...pick(tape, 'configuration', 'events'))).toEqual(genesis);

  const table = Object.entries(JSON.parse(field(tape, 'events')) as Record<string, string[]>);
  const unpackr = new Unpackr({ useRecords: false });
  const read: unknown[] = [];
  let [chain, icount] = [genesis, 0n];
  const chunks = rows('chunks');
  for (const row of chunks) {
    const coded = brotliDecompressSync(field<Buffer>(row, 'data'));
    const raw = coded[0] === 0 ? coded.subarray(1) : unpackPlainly(coded.subarray(1), table);
    expect(BigInt(raw.length)).toBe(row.length);
    expect(row.first_icount).toBe(icount);
    const header = pick(row, 'id', 'first_seq', 'end_seq', 'first_icount', 'end_icount', 'codec_version');
    const digest = H('vmtape chunk', ...header, raw);
    chain = H('vmtape chain', chain, digest);
    expect([row.digest, row.chain]).toEqual([digest, chain]);
    for (const tuple of unpackr.unpackMultiple(new Uint8Array(raw)) as [number, number, number, ...unknown[]][]) {
      const [kind, retired, where, ...values] = tuple;
      const [type, fields] = table[kind] as [string, string[]];
      icount += BigInt(retired);
      const event = { type, ...Object.fromEntries(fields.map((name, index) => [name, values[index]])) };
      read.push({ retired, vcpu: where >> 1, level: (where & 1) + 1, event });
    }
    expect(row.end_icount).toBe(icount);
    expect(row.end_seq).toBe(BigInt(read.length));
  }
  expectSame(read, events);

  let digestChain = genesis;
  const digests = rows('digests');
  for (const row of digests) {
    const digest = H('vmtape digest', ...pick(row, 'id', 'seq', 'icount', 'kind', 'value'));
    digestChain = H('vmtape chain', digestChain, digest);
    expect(row.chain).toEqual(digestChain);
  }
  const [blob] = rows('blobs') as [Row];
  expect(brotliDecompressSync(field<Buffer>(blob, 'data'))).toEqual(image);
  expect(blob.digest).toEqual(createHash('sha256').update(image).digest());

  const [group] = rows('pages') as [Row];
  expect(H('vmtape pages', genesis, ...pick(group, 'id', 'digests', 'data'))).toEqual(group.seal);
  const contents = brotliDecompressSync(field<Buffer>(group, 'data'));
  expect(contents).toEqual(Buffer.concat([pageOf(4), pageOf(5)]));
  const [checkpoint] = rows('checkpoints') as [Row];
  const place = pick(checkpoint, 'id', 'seq', 'icount', 'ram_pages');
  const parts = pick(checkpoint, 'state_length', 'map_length', 'state', 'map');
  expect(H('vmtape checkpoint', genesis, ...place, ...parts)).toEqual(checkpoint.seal);
  expect(place).toEqual([1n, BigInt(events.length), icount, 300n]);
  // Two pages of zeros, two with contents 16 and 17; one of zeros, one with content 16.
  expect([...brotliDecompressSync(field<Buffer>(checkpoint, 'map'))]).toEqual([2, 2, 2 * 15, 1, 1, 3]);

  const [progress] = rows('progress') as [Row];
  const counts = pick(progress, 'complete', 'events', 'icount', 'chunks', 'chunk_chain');
  const others = pick(progress, 'digests', 'digest_chain', 'blobs');
  expect(counts).toEqual([1n, BigInt(events.length), icount, BigInt(chunks.length), chain]);
  expect(others).toEqual([3n, digestChain, 1n]);
  expect(H('vmtape progress', genesis, ...counts, ...others)).toEqual(progress.seal);
  database.close();
});

import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { boundsOf } from '../../../tools/sql/bounds.js';
import { TapeDatabase } from '../../../tools/sql/tape-database.js';
import { variedTape } from './support.js';

const seqOf = (pattern: string): bigint => BigInt(pattern.slice(1));

describe('what is read off a query', () => {
  const of = (where: string) => boundsOf(`SELECT * FROM exits e WHERE ${where}`, seqOf)?.bounds;

  it.each<[string, object]>([
    ['seq >= 5 AND seq < 10', { fromSeq: 5n, toSeq: 10n }],
    ['seq between 5 and 10 and level = 2', { fromSeq: 5n, toSeq: 11n, level: 2 }],
    ['5 <= e.seq AND 0x0a > "seq"', { fromSeq: 5n, toSeq: 10n }],
    ['(seq > 5 AND (exits.icount = 7)) -- and seq > 9', { fromSeq: 6n, fromIcount: 7n, toIcount: 8n }],
    ["exit IN ('npf', 'cpuid') AND seq >= 1", { fromSeq: 1n, codes: [0x400n, 0x72n] }],
    ["code = 0x72 AND position = '12:34'", { fromSeq: 34n, toSeq: 35n, codes: [0x72n] }],
    ["kind GLOB 'svm.*'", { kind: 'svm.*' }],
    ["kind = 'cpu.ran' AND kind IN ('cpu.ran','x')", { kinds: ['cpu.ran'] }],
    ["seq >= at('#77') AND info1 > 3 ORDER BY seq", { fromSeq: 77n }],
  ])('%s', (where, bounds) => {
    expect(of(where)).toMatchObject(bounds);
  });

  it.each([
    'seq > 5 OR 1',
    'NOT seq > 5',
    'NOT (seq > 5)',
    'CASE WHEN x AND seq > 5 AND y THEN 1 END',
    'seq > -5',
    'seq > 5 + 1',
    'seq + 1 > 5',
    "seq > '5'",
    'seq > 5.5',
    'seq > 9223372036854775808',
    'seq < 5 < 3',
    '1 < 5 < seq',
    'seq NOT BETWEEN 5 AND 9',
    "kind = 'CPU.RAN' COLLATE NOCASE",
    "kind GLOB 'svm.[a-z]*'",
    "exit = 'no-such'",
    'other.seq > 5',
    'seq IN (SELECT seq FROM exits)',
  ])('nothing from %s', (where) => {
    expect(Object.values(of(where) ?? {}).filter((bound) => bound !== undefined)).toEqual([]);
  });

  it.each([
    'SELECT * FROM exits, events WHERE seq > 5',
    'SELECT * FROM exits JOIN events USING (seq) WHERE seq > 5',
    'SELECT * FROM exits NATURAL JOIN events WHERE seq > 5',
    'SELECT * FROM exits_in(3) WHERE seq > 5',
    'SELECT * FROM exits WHERE seq > 5 UNION SELECT * FROM exits',
    'WITH x AS (SELECT 1) SELECT * FROM exits WHERE seq > 5',
    'SELECT (SELECT count(*) FROM events) FROM exits WHERE seq > 5',
    "SELECT 'x FROM exits WHERE seq > 5",
    'SELECT * FROM exits WHERE seq > 5)',
    'SELECT * FROM exits WHERE seq > ?1',
  ])('nothing at all from %s', (sql) => {
    expect(boundsOf(sql, seqOf)).toBeUndefined();
  });
});

const reader = variedTape();
const database = new TapeDatabase(reader);
afterAll(() => database.close());

const number = fc.oneof(fc.nat(12_000), fc.constantFrom(0, 4095, 4096, 8192, 9999));
const term: fc.Arbitrary<string> = fc.oneof(
  fc.tuple(fc.constantFrom('seq', 'icount', 'e.seq', '"icount"'), fc.constantFrom('<', '<=', '>', '>=', '=', '<>'), number).map((parts) => parts.join(' ')),
  fc.tuple(number, fc.constantFrom('<', '<=', '>', '>=', '='), fc.constantFrom('seq', 'icount')).map((parts) => parts.join(' ')),
  fc.tuple(fc.constantFrom('seq', 'icount'), fc.constantFrom('BETWEEN', 'NOT BETWEEN'), number, number).map(([column, between, a, b]) => `${column} ${between} ${a} AND ${b}`),
  fc.constantFrom('level = 1', 'level = 2', '2 = level', 'level <> 1', 'NOT level = 1', 'vcpu = 1', 'retired > 3'),
  fc.constantFrom("kind = 'cpu.ran'", "kind IN ('svm.vmexit', 'svm.vmrun')", "kind GLOB 'svm.*'", "kind LIKE 'SVM.%'", "kind NOT IN ('cpu.ran')", "kind GLOB 'cpu.?an'", "'cpu.msr' = kind"),
  fc.constantFrom("at('#5000') <= seq", "position = '0:1'", 'seq IS NOT 7', "seq || '' = '42'"),
); // biome-ignore format: a table of terms
const condition = fc.letrec<{ all: string }>((tie) => ({
  all: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    term,
    fc.tuple(tie('all'), fc.constantFrom('AND', 'AND', 'and', 'OR'), tie('all')).map(([a, joined, b]) => `${a} ${joined} ${b}`),
    tie('all').map((inner) => `(${inner})`),
    tie('all').map((inner) => `NOT (${inner})`),
    tie('all').map((inner) => `CASE WHEN ${inner} THEN 1 ELSE 0 END`),
  ),
})).all; // biome-ignore format: a grammar

describe('a query with bounds', () => {
  it('gives what it gives when everything is read', () => {
    // The same SELECT twice over is one that nothing is read off.
    fc.assert(
      fc.property(condition, (where) => {
        const select = `SELECT seq FROM events AS e WHERE ${where}`;
        const unbounded = `SELECT seq FROM (SELECT * FROM events) AS e WHERE ${where}`;
        expect(boundsOf(unbounded, seqOf)).toBeUndefined();
        expect([...database.query(select).rows]).toEqual([...database.query(unbounded).rows]);
      }),
      { numRuns: 150 },
    );
  });
});

/**
 * Checks the file of a tape, all of it and alone: SQLite's structure, every row of every table against its digests, the
 * chains, the counts, and what events refer to. Goes on after the first damage, so that the report says what is left.
 */
import type Database from 'better-sqlite3';
import { GROUP_PAGES, PAGE_BYTES, ZERO_PAGE } from './checkpoint.js';
import { matchesDigests } from './checkpoint-rows.js';
import { JournalError, TapeDamagedError } from './errors.js';
import { boundaryAfter, comparePositions, type Position } from './record.js';
import { reading } from './sqlite-errors.js';
import { SqliteReader } from './sqlite-reader.js';
import { isRecordOf, type TapeState } from './store.js';

export interface VerifyReport {
  readonly state: TapeState;
  /** The boundary at which the tape says that it ends. */
  readonly end: Position;
  readonly chunks: number;
  readonly digests: number;
  readonly blobs: number;
  readonly checkpoints: number;
  /** What is wrong; empty when the tape is whole. */
  readonly damage: readonly TapeDamagedError[];
  /** The boundary up to which the events can be read from the start. */
  readonly readableTo: Position;
}

/** SQLite lists this many problems with its structure. */
const STRUCTURE_PROBLEMS = 10;

/** @throws TapeInputError, TapeReadError when there is no tape to check; TapeDamagedError when it cannot be opened. */
export function verifyTape(file: string): VerifyReport {
  const reader = SqliteReader.open(file);
  try {
    return new Verification(file, reader).run();
  } finally {
    reader.close();
  }
}

class Verification {
  private readonly damage: TapeDamagedError[] = [];
  private readonly referredImages = new Map<string, bigint>();
  private readableTo: Position;
  private digests = 0;
  private checkpoints = 0;

  constructor(
    private readonly file: string,
    private readonly reader: SqliteReader,
  ) {
    this.readableTo = reader.end;
  }

  run(): VerifyReport {
    const { state, end, chunkCount } = this.reader;
    this.checkStructure();
    for (let index = 0; index < chunkCount; index++) this.attempt(() => this.checkChunk(index));
    this.attempt(() => this.checkDigests());
    const blobs = this.attempt(() => this.reader.blobDigests()) ?? [];
    for (const digest of blobs) this.attempt(() => this.reader.blob(digest));
    this.checkReferences(blobs);
    this.checkCheckpoints();
    this.attempt(() => this.reader.origin());
    this.attempt(() => this.reader.writeIndex());
    // A tape that grows has more rows than when it was opened.
    if (state !== 'recording') this.attempt(() => this.checkCounts(blobs.length));
    const { damage, digests, checkpoints, readableTo } = this;
    return { state, end, chunks: chunkCount, digests, blobs: blobs.length, checkpoints, damage, readableTo };
  }

  private checkStructure(): void {
    const problems = this.attempt(() =>
      reading(this.file, {}, () => this.reader.connection.pragma(`integrity_check(${STRUCTURE_PROBLEMS})`)),
    ) as { readonly integrity_check: string }[] | undefined;
    for (const { integrity_check: problem } of problems ?? []) {
      if (problem !== 'ok') this.note(new TapeDamagedError(this.file, `SQLite finds: ${problem}`));
    }
  }

  private checkChunk(index: number): void {
    const chunk = this.reader.chunkByIndex(index);
    let boundary = chunk.start;
    for (const record of this.reader.recordsOfChunk(chunk)) {
      boundary = boundaryAfter(record);
      if (isRecordOf(record, 'input.boot')) this.referredImages.set(record.event.imageDigest, record.position.seq);
    }
    if (boundary.seq !== chunk.end.seq || boundary.icount !== chunk.end.icount) {
      throw new TapeDamagedError(this.file, 'the events do not end where the chunk says', {
        table: 'chunks',
        row: String(index),
        seqs: { first: chunk.start.seq, last: chunk.end.seq - 1n },
        readableTo: chunk.start,
      });
    }
  }

  private checkDigests(): void {
    for (const { position } of this.reader.digests()) {
      this.digests++;
      const { start, end } = this.reader;
      // At its origin the machine may stand amid a run that the tape has not ended yet.
      if (position.seq > end.seq || (position.icount > end.icount && position.seq > start.seq)) {
        const place = { table: 'digests', row: String(this.digests), readableTo: this.reader.end };
        throw new TapeDamagedError(this.file, 'the digest stands after the end of the tape', place);
      }
    }
  }

  private checkReferences(blobs: readonly string[]): void {
    for (const [digest, seq] of this.referredImages) {
      if (blobs.includes(digest)) continue;
      const place = { table: 'blobs', row: digest, readableTo: this.readableTo };
      this.note(new TapeDamagedError(this.file, `the image that event ${seq} boots is missing`, place));
    }
  }

  private checkCheckpoints(): void {
    const { reader } = this;
    const contents = new Map<number, number>();
    for (const id of this.attempt(() => reader.pageGroups()) ?? []) {
      this.attempt(() => {
        const group = reader.pageGroup(id);
        contents.set(id, group.contents.length / PAGE_BYTES);
        if (matchesDigests(group.row, group.contents)) return;
        const place = { table: 'pages', row: String(id), readableTo: this.readableTo };
        throw new TapeDamagedError(this.file, 'a page does not match its digest', place);
      });
    }
    for (const { id } of this.attempt(() => reader.checkpoints()) ?? []) {
      this.checkpoints++;
      this.attempt(() => {
        const missing = reader
          .checkpoint(id)
          ?.pages.find(
            (page) => page !== ZERO_PAGE && page % GROUP_PAGES >= (contents.get(Math.floor(page / GROUP_PAGES)) ?? 0),
          );
        if (missing === undefined) return;
        const place = { table: 'checkpoints', row: String(id), readableTo: this.readableTo };
        throw new TapeDamagedError(this.file, `page ${missing}, which it refers to, is missing`, place);
      });
    }
  }

  private checkCounts(blobs: number): void {
    const { progress } = this.reader;
    const expected = {
      tape: 1n,
      progress: 1n,
      chunks: progress.chunks,
      digests: progress.digests,
      blobs: progress.blobs,
    };
    for (const [table, rows] of Object.entries(expected)) {
      const found = table === 'blobs' ? BigInt(blobs) : this.count(this.reader.connection, table);
      if (found === rows) continue;
      const place = { table, readableTo: this.readableTo };
      throw new TapeDamagedError(this.file, `the table has ${found} rows instead of ${rows}`, place);
    }
  }

  private count(connection: Database.Database, table: string): bigint {
    return reading(this.file, { table }, () =>
      connection.prepare(`SELECT count(*) FROM ${table}`).pluck().safeIntegers(true).get(),
    ) as bigint;
  }

  private attempt<Result>(check: () => Result): Result | undefined {
    try {
      return check();
    } catch (error) {
      if (!(error instanceof JournalError)) throw error;
      this.note(error instanceof TapeDamagedError ? error : new TapeDamagedError(this.file, error.message));
      return undefined;
    }
  }

  private note(error: TapeDamagedError): void {
    this.damage.push(error);
    const { table, readableTo } = error.place;
    if (table !== 'chunks') return;
    const { start } = this.reader;
    if (comparePositions(readableTo ?? start, this.readableTo) < 0) this.readableTo = readableTo ?? start;
  }
}

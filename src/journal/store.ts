/**
 * JournalStore: a place that holds one tape. A writer appends to it, one at a time; readers read what is committed,
 * also while it is being written. `sqlite-store.ts` keeps the tape in a file, `memory-store.ts` in memory; one contract
 * suite runs over both.
 *
 * Everything is synchronous: the machine's loop is, and it must not outrun its tape.
 */
import type { EventType, StatedEvent } from '../machine/events.js';
import type { Checkpoint, CheckpointEntry, CheckpointInput } from './checkpoint.js';
import type { Chunk, ChunkLink } from './chunk.js';
import type { ChunkScan } from './chunk-scan.js';
import type { EventTable } from './codec.js';
import { type JournalRecord, type Position, START } from './record.js';
import type { WriteStretch } from './write-stretch.js';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/**
 * Where a tape goes on with a session that began elsewhere. Its first checkpoint is the machine there, and no derived data:
 * it stays.
 */
export interface TapeOrigin {
  /** Where the machine stood. */
  readonly position: Position;
  /** Instructions of the run that was under way there: they are part of the first event. */
  readonly unstated: number;
  /** `historyDigest` of the tape that has what came before; undefined when nobody recorded it. */
  readonly parent?: string | undefined;
}

/** What the recorder says about the session when it begins a tape. */
export interface TapeDescription {
  /** Version of the vmtape that records. */
  readonly vmtapeVersion: string;
  /** Version of the machine model: two models with equal versions behave alike. */
  readonly machineVersion: string;
  /** Everything that the machine is built from, besides inputs: RAM size, CPU profile, policy, devices … */
  readonly configuration: { readonly [key: string]: Json };
  /** Undefined when the session begins with this tape. */
  readonly origin?: TapeOrigin | undefined;
}

/** The header of a tape: readable alone, with any SQLite. */
export interface TapeHeader extends TapeDescription {
  readonly formatVersion: number;
  readonly codecVersion: number;
  /** The event table of the vmtape that recorded. */
  readonly events: EventTable;
}

/**
 * - `complete`: the writer ended the tape;
 * - `recording`: somebody is writing it now; readers see the last committed group;
 * - `cut`: the writer was killed or its disk was full; what is there is good and can be continued.
 */
export type TapeState = 'complete' | 'recording' | 'cut';

/** A state digest that stands at a boundary, for replay to compare with. */
export interface StateDigest {
  readonly position: Position;
  /** What it is a digest of, and how: `cpu`, `vmcb`, `devices`, `ram` … */
  readonly kind: string;
  readonly value: Uint8Array;
}

export interface JournalReader {
  readonly header: TapeHeader;
  readonly state: TapeState;
  /** The first place of the tape: `START`, or its origin, which may lie amid a run. */
  readonly start: Position;
  /** The boundary after the last event; its seq is the number of the session's events. */
  readonly end: Position;
  /** Number of chunks. */
  readonly chunkCount: number;
  /** Records from event number `fromSeq` on, decoded chunk by chunk as they are asked for. */
  records(fromSeq?: bigint): Generator<JournalRecord, void, void>;
  /**
   * Chunks from the one that holds event number `fromSeq` on, not decoded yet. The last chunk of a tape that grows may
   * by now hold more than `end` says.
   */
  chunks(fromSeq?: bigint): Generator<Chunk, void, void>;
  /** As `chunks()`, read ahead by a thread where that pays: for whoever goes through a whole tape. */
  chunksAhead(): Generator<Chunk, void, void>;
  /** A chunk by its number, 0 … chunkCount - 1. */
  chunkByIndex(index: number): Chunk;
  /** What the tape says of a chunk, which is not read. Nothing of it is checked: whoever finds something reads the chunk. */
  chunkLink(index: number): ChunkLink;
  /** The records of a chunk; a replayer asks when its own chunk is not the same. */
  recordsOfChunk(chunk: Chunk): Generator<JournalRecord, void, void>;
  /** Steps over the events of a chunk, before the first at first; decodes those that are asked for. */
  scanChunk(chunk: Chunk): ChunkScan;
  /** The chunk that holds event number `seq`, or undefined past the end. */
  chunkAt(seq: bigint): Chunk | undefined;
  /** The first chunk that ends at or after `icount`, or undefined past the end. */
  chunkAtIcount(icount: bigint): Chunk | undefined;
  /** All state digests in order, or those of one kind. */
  digests(kind?: string): Generator<StateDigest, void, void>;
  /** What the machine was at `start`, when the session began elsewhere. */
  origin(): Checkpoint | undefined;
  /** A digest in hex of the header and all events up to boundary `seq`: equal ones stand for equal beginnings. */
  historyDigest(seq: bigint): string;
  /** Content by its SHA-256 digest, in hex; undefined when the tape has none such. */
  blob(digest: string): Uint8Array | undefined;
  blobDigests(): readonly string[];
  /** The checkpoints, by position. Another process may add some, and take some away. */
  checkpoints(): readonly CheckpointEntry[];
  /** One of them; undefined when it is gone. */
  checkpoint(id: number): Checkpoint | undefined;
  /** The content of a page of RAM by the number that checkpoints have for it. Not to be changed. */
  page(content: number): Uint8Array;
  /** The index of writes, from the start of the tape on; undefined when there is none. */
  writeIndex(): readonly WriteStretch[] | undefined;
  close(): void;
}

export interface JournalWriter {
  /** The boundary after the last event that was appended. */
  readonly end: Position;
  /** The boundary up to which a kill would not lose anything, as far as the caller's thread knows. */
  readonly storedTo: Position;
  /** Bytes of the tape so far, as far as the caller's thread knows. */
  readonly tapeBytes: number;
  /** Checkpoints that were put and are not in the writer's hands yet: how long a `flush` would take. */
  readonly checkpointsInFlight: number;
  /** Flushes. @returns `JournalReader.historyDigest` of all that is on the tape. */
  historyDigest(): string;
  /** Appends one event. It is on the tape at the latest when the group commits: after a second, or at `flush`. */
  append(stated: StatedEvent): void;
  /** Keeps a digest of the state at the boundary reached, or at the origin amid a run. */
  appendDigest(kind: string, value: Uint8Array, position?: Position): void;
  /** Keeps content once. @param digest for whoever knows it already; it is checked. @returns its SHA-256 digest in hex. */
  putBlob(content: Uint8Array, digest?: string): string;
  /**
   * Keeps a checkpoint, and the digest of RAM there as the state digest `ram`. Its bytes are the writer's from now on. The
   * position must be on the tape, or have been reached by `append`.
   */
  putCheckpoint(checkpoint: CheckpointInput): void;
  /** Returns when everything appended so far is on the tape. */
  flush(): void;
  /** Flushes, marks the tape as complete, and closes. */
  finish(): void;
  /** Flushes and closes, but leaves the tape cut: it waits to be continued. Does nothing on a writer that has ended. */
  close(): void;
}

export interface JournalStore {
  /** Begins a tape. Refuses to overwrite one. */
  create(description: TapeDescription): JournalWriter;
  /** Opens the tape for appending after its last event. Refuses while another writer has it. */
  continue(): JournalWriter;
  read(): JournalReader;
}

/** The boundary before a tape's first event. */
export function firstBoundary({ origin }: Pick<TapeDescription, 'origin'>): Position {
  if (origin === undefined) return START;
  const { position, unstated } = origin;
  return { icount: position.icount - BigInt(unstated), seq: position.seq };
}

/** Narrows a record to one event type. */
export const isRecordOf = <Type extends EventType>(
  record: JournalRecord,
  type: Type,
): record is JournalRecord & { readonly event: { readonly type: Type } } => record.event.type === type;

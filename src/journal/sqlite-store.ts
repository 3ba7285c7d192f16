/**
 * A JournalStore in a file: the tape. Each open writer holds the tape's lock, so there is one at a time.
 */
import { EVENT_FIELDS, type StatedEvent } from '../machine/events.js';
import type { CheckpointInput } from './checkpoint.js';
import { type Chunk, ChunkEncoder } from './chunk.js';
import { contentDigest, toHex } from './digest.js';
import { TapeInputError } from './errors.js';
import type { Position } from './record.js';
import { requireFile, requireNoFile } from './sqlite-errors.js';
import { SqliteReader } from './sqlite-reader.js';
import {
  firstBoundary,
  type JournalReader,
  type JournalStore,
  type JournalWriter,
  type TapeDescription,
} from './store.js';
import { TapeFile } from './tape-file.js';
import { ThreadedWriter } from './threaded-writer.js';
import { CODEC_VERSION } from './upcast.js';
import { WriterLock } from './writer-lock.js';

/** How often an appender in the caller's thread looks at the clock. */
const EVENTS_BETWEEN_CLOCKS = 256;

export interface SqliteStoreOptions {
  /**
   * Compress and write in a thread of its own (the default), or in the caller's: simpler, and enough for a tape that
   * nobody waits for.
   */
  readonly thread?: boolean;
}

export function sqliteStore(file: string, { thread = true }: SqliteStoreOptions = {}): JournalStore {
  const writer = (lock: WriterLock, start: Position, last?: Chunk): JournalWriter =>
    thread ? new ThreadedWriter(file, lock, start, last) : new InThreadWriter(file, lock, start, last);
  return {
    create(description: TapeDescription): JournalWriter {
      requireNoFile(file);
      return locked(file, (lock) => {
        TapeFile.create(file, description);
        return writer(lock, firstBoundary(description));
      });
    },
    continue(): JournalWriter {
      requireFile(file);
      return locked(file, (lock) => writer(lock, ...lastChunk(file)));
    },
    read: (): JournalReader => SqliteReader.open(file),
  };
}

function locked<Result>(file: string, use: (lock: WriterLock) => Result): Result {
  const lock = WriterLock.acquire(file);
  try {
    return use(lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

/**
 * The boundary before a tape's first event, and the chunk in which it goes on when it is continued.
 * @throws TapeInputError when this vmtape cannot write its like.
 */
function lastChunk(file: string): readonly [start: Position, last: Chunk | undefined] {
  const reader = SqliteReader.open(file);
  try {
    const { header, end } = reader;
    if (header.codecVersion !== CODEC_VERSION || JSON.stringify(header.events) !== JSON.stringify(EVENT_FIELDS)) {
      throw new TapeInputError(
        `was recorded by vmtape ${header.vmtapeVersion}, whose events are not those of this version. ` +
          'Continue it with that version, or take a snapshot at its end and begin a new tape',
        file,
      );
    }
    const start = firstBoundary(header);
    return [start, end.seq === start.seq ? undefined : reader.chunkAt(end.seq - 1n)];
  } finally {
    reader.close();
  }
}

/** Writes in the caller's thread. */
class InThreadWriter implements JournalWriter {
  private readonly tape: TapeFile;
  private readonly encoder: ChunkEncoder;
  private appended = 0;
  private closed = false;

  constructor(
    file: string,
    private readonly lock: WriterLock,
    start: Position,
    last: Chunk | undefined,
  ) {
    this.tape = TapeFile.open(file);
    this.encoder = ChunkEncoder.after(last, EVENT_FIELDS, start);
  }

  get end(): Position {
    return this.encoder.end;
  }

  get storedTo(): Position {
    return this.tape.storedTo;
  }

  get tapeBytes(): number {
    return this.tape.bytes;
  }

  get checkpointsInFlight(): number {
    return 0;
  }

  historyDigest(): string {
    this.flush();
    return toHex(this.tape.history);
  }

  append(stated: StatedEvent): void {
    this.tape.requireWorking();
    if (this.encoder.append(stated)) {
      this.tape.putChunk(this.encoder.chunk);
      this.encoder.next();
      if (this.tape.due) this.tape.commit();
    } else if (++this.appended % EVENTS_BETWEEN_CLOCKS === 0 && this.tape.due) {
      this.flush();
    }
  }

  appendDigest(kind: string, value: Uint8Array, position = this.end): void {
    this.tape.putDigest({ position, kind, value: value.slice() });
  }

  putCheckpoint(checkpoint: CheckpointInput): void {
    this.tape.putCheckpoint(checkpoint);
  }

  putBlob(content: Uint8Array, digest = contentDigest(content)): string {
    this.tape.putBlob(content, digest);
    return digest;
  }

  flush(): void {
    if (!this.encoder.empty) this.tape.putChunk(this.encoder.chunk);
    this.tape.commit();
  }

  finish(): void {
    this.leave(true);
  }

  close(): void {
    this.leave(false);
  }

  private leave(complete: boolean): void {
    if (this.closed) return;
    this.closed = true;
    try {
      this.flush();
      if (complete) this.tape.finish();
    } finally {
      try {
        this.tape.close();
      } finally {
        this.lock.release();
      }
    }
  }
}

/**
 * Reads a tape that is still being written, always up to its last event: a reader of the journal sees what was stored when it
 * was opened, and this one opens it again when there is more.
 */
import type {
  Checkpoint,
  CheckpointEntry,
  Chunk,
  JournalReader,
  JournalStore,
  JournalWriter,
  Position,
  StateDigest,
  TapeHeader,
} from '../../journal/index.js';

export class GrowingTape implements JournalReader {
  readonly header: TapeHeader;
  readonly start: Position;
  readonly state = 'recording';
  private opened: JournalReader;

  constructor(
    private readonly store: JournalStore,
    private readonly writer: JournalWriter,
  ) {
    writer.flush();
    this.opened = store.read();
    this.header = this.opened.header;
    this.start = this.opened.start;
  }

  /** With all that was appended. */
  private get reader(): JournalReader {
    if (this.opened.end.seq !== this.writer.end.seq) {
      this.writer.flush();
      this.opened.close();
      this.opened = this.store.read();
    }
    return this.opened;
  }

  get end(): Position {
    return this.writer.end;
  }
  get chunkCount(): number {
    return this.reader.chunkCount;
  }
  records(fromSeq?: bigint): ReturnType<JournalReader['records']> {
    return this.reader.records(fromSeq);
  }
  chunks(fromSeq?: bigint): ReturnType<JournalReader['chunks']> {
    return this.reader.chunks(fromSeq);
  }
  chunksAhead(): ReturnType<JournalReader['chunks']> {
    return this.reader.chunks();
  }
  recordsOfChunk(chunk: Chunk): ReturnType<JournalReader['recordsOfChunk']> {
    return this.reader.recordsOfChunk(chunk);
  }
  scanChunk(chunk: Chunk): ReturnType<JournalReader['scanChunk']> {
    return this.reader.scanChunk(chunk);
  }
  chunkAt(seq: bigint): Chunk | undefined {
    return this.reader.chunkAt(seq);
  }
  chunkAtIcount(icount: bigint): Chunk | undefined {
    return this.reader.chunkAtIcount(icount);
  }
  chunkByIndex(index: number): Chunk {
    return this.reader.chunkByIndex(index);
  }
  chunkLink(index: number): ReturnType<JournalReader['chunkLink']> {
    return this.reader.chunkLink(index);
  }
  digests(kind?: string): Generator<StateDigest, void, void> {
    return this.reader.digests(kind);
  }
  origin(): Checkpoint | undefined {
    return this.reader.origin();
  }
  historyDigest(seq: bigint): string {
    return this.reader.historyDigest(seq);
  }
  blob(digest: string): Uint8Array | undefined {
    return this.reader.blob(digest);
  }
  blobDigests(): readonly string[] {
    return this.reader.blobDigests();
  }
  checkpoints(): readonly CheckpointEntry[] {
    return this.reader.checkpoints();
  }
  checkpoint(id: number): Checkpoint | undefined {
    return this.reader.checkpoint(id);
  }
  page(content: number): Uint8Array {
    return this.reader.page(content);
  }
  writeIndex(): ReturnType<JournalReader['writeIndex']> {
    return this.reader.writeIndex();
  }
  close(): void {
    this.opened.close();
  }
}

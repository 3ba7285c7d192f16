/**
 * Writes a tape through a thread of its own: the machine's thread only encodes. See `writer-protocol.ts`.
 *
 * - The memory in flight is bounded: when all chunks of the ring are full, `append` waits for the writer.
 * - What goes wrong in the writer comes up as a TapeWriteError at the next call; what was stored before stays stored.
 * - The caller's event loop is not needed: waiting is by `Atomics.wait`, messages are fetched when they are wanted.
 * - Nothing is transferred: V8 takes all typed arrays of a thread for detachable as soon as one was, and the machine runs a
 *   seventh slower from then on (docs/adr/0013). What is large is shared.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { EVENT_FIELDS, type StatedEvent } from '../machine/events.js';
import type { CheckpointInput } from './checkpoint.js';
import { CHUNK_BYTES, type Chunk, ChunkEncoder } from './chunk.js';
import { contentDigest, toHex } from './digest.js';
import { TapeWriteError } from './errors.js';
import type { Position } from './record.js';
import { SharedCopies } from './shared-copies.js';
import type { JournalWriter } from './store.js';
import { workerFile } from './worker-file.js';
import type { WriterLock } from './writer-lock.js';
import {
  CONTROL_WORDS,
  Control,
  type FromWriter,
  RING_CHUNKS,
  type ToWriter,
  type WriterSetup,
} from './writer-protocol.js';

/** Room for a full chunk and the event that fills it, unless that event is very large. */
const SLOT_BYTES = CHUNK_BYTES + 64 * 1024;
/** A writer that does nothing for so long is taken for dead. A disk that syncs may take many seconds. */
const SILENCE_MILLISECONDS = 120_000;

/** Checkpoints that the writer may have before it; with them the pages that a slow disk can take. */
const CHECKPOINTS_IN_FLIGHT = 2;

const allocate = (bytes: number): SharedArrayBuffer => new SharedArrayBuffer(Math.max(bytes, SLOT_BYTES));

export class ThreadedWriter implements JournalWriter {
  private readonly control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * Int32Array.BYTES_PER_ELEMENT));
  private readonly encoder: ChunkEncoder;
  private readonly port: MessagePort;
  private readonly ring: SharedArrayBuffer[] = [];
  /** Chunks begun; the one that grows is the last of them. */
  private chunksBegun = 0;
  private requests = 0;
  private checkpoints = 0;
  /** Pages of checkpoints: those in flight, and of the one that is put. */
  private readonly pages = new SharedCopies(CHECKPOINTS_IN_FLIGHT + 1);
  private stored: Position;
  private bytes = 0;
  private history: Uint8Array = new Uint8Array(0);
  private failure: TapeWriteError | undefined;
  private closed = false;

  /** @param start boundary before the tape's first event. @param last the last chunk on the tape, if any. */
  constructor(
    private readonly file: string,
    private readonly lock: WriterLock,
    start: Position,
    last: Chunk | undefined,
  ) {
    this.stored = last?.end ?? start;
    this.encoder = ChunkEncoder.after(last, EVENT_FIELDS, start, allocate);
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    const workerData: WriterSetup = { file, control: this.control, port: port2 };
    const worker = new Worker(workerFile('writer-worker'), {
      workerData,
      transferList: [port2],
      execArgv: [],
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    worker.on('error', (cause) => this.fail(`the writer thread failed: ${cause.message}`, '', cause));
    // The thread lives until `finish` or `close`; a process that forgets both is not kept alive by it.
    worker.unref();
    this.begin();
    this.publish();
  }

  get end(): Position {
    return this.encoder.end;
  }

  get storedTo(): Position {
    this.receive();
    return this.stored;
  }

  get tapeBytes(): number {
    this.receive();
    return this.bytes;
  }

  get checkpointsInFlight(): number {
    return this.checkpoints - Atomics.load(this.control, Control.CHECKPOINTS);
  }

  historyDigest(): string {
    this.flush();
    return toHex(this.history);
  }

  append(stated: StatedEvent): void {
    this.requireWorking();
    const full = this.encoder.append(stated);
    if (full) this.endChunk();
    else if (this.encoder.buffer === this.ring[this.slot]) this.publish();
    else this.move();
  }

  appendDigest(kind: string, value: Uint8Array, position = this.end): void {
    this.requireWorking();
    this.post({ type: 'digest', digest: { position, kind, value: value.slice() } });
  }

  putCheckpoint(checkpoint: CheckpointInput): void {
    this.requireWorking();
    this.checkpoints++;
    this.post({ type: 'checkpoint', checkpoint: { ...checkpoint, contents: this.pages.copy(checkpoint.contents) } });
    this.waitUntil(() => this.checkpointsInFlight <= CHECKPOINTS_IN_FLIGHT);
  }

  putBlob(content: Uint8Array, digest = contentDigest(content)): string {
    this.requireWorking();
    this.post({ type: 'blob', content, digest });
    return digest;
  }

  flush(): void {
    this.request({ type: 'flush' });
    this.receive();
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
      this.request({ type: 'end', complete });
      this.receive();
    } finally {
      this.port.close();
      this.lock.release();
    }
  }

  private get slot(): number {
    return (this.chunksBegun - 1) % RING_CHUNKS;
  }

  /** Tells the writer of the chunk that begins in the encoder's memory. */
  private begin(): void {
    this.chunksBegun++;
    this.ring[this.slot] = this.encoder.buffer as SharedArrayBuffer;
    Atomics.store(this.control, Control.USED + this.slot, 0);
    this.post(this.beginMessage(false));
  }

  private beginMessage(reply: boolean): ToWriter {
    const { index, start } = this.encoder.chunk;
    return { type: 'begin', slot: this.slot, index, start, memory: this.encoder.buffer as SharedArrayBuffer, reply };
  }

  /** Says how much of the growing chunk is valid. */
  private publish(): void {
    Atomics.store(this.control, Control.USED + this.slot, this.encoder.length);
  }

  /** The chunk outgrew its memory: the writer must look into the new one before it hears of more bytes. */
  private move(): void {
    this.ring[this.slot] = this.encoder.buffer as SharedArrayBuffer;
    this.request(this.beginMessage(true));
    this.publish();
  }

  private endChunk(): void {
    if (this.encoder.buffer !== this.ring[this.slot]) this.move();
    this.post({ type: 'full', end: this.encoder.end, bytes: this.encoder.length });
    this.waitUntil(() => this.chunksBegun - Atomics.load(this.control, Control.CHUNKS) < RING_CHUNKS);
    const next = this.ring[this.chunksBegun % RING_CHUNKS] ?? allocate(SLOT_BYTES);
    this.encoder.next(next);
    this.begin();
    this.receive();
  }

  private post(message: ToWriter): void {
    this.port.postMessage(message);
  }

  /** Sends what the writer answers, and waits for the answer. */
  private request(message: ToWriter): void {
    this.requireWorking();
    this.requests++;
    this.post(message);
    this.waitUntil(() => Atomics.load(this.control, Control.REPLIES) === this.requests);
  }

  private waitUntil(reached: () => boolean): void {
    for (;;) {
      const activity = Atomics.load(this.control, Control.ACTIVITY);
      this.requireWorking();
      if (reached()) return;
      if (Atomics.wait(this.control, Control.ACTIVITY, activity, SILENCE_MILLISECONDS) === 'timed-out') {
        this.fail('the writer thread does not answer', 'Check the disk');
      }
    }
  }

  /** @throws what went wrong in the writer. */
  private requireWorking(): void {
    if (this.failure === undefined && Atomics.load(this.control, Control.FAILED) !== 0) this.receive();
    if (this.failure !== undefined) throw this.failure;
  }

  /** Takes the writer's messages. */
  private receive(): void {
    for (let next = receiveMessageOnPort(this.port); next !== undefined; next = receiveMessageOnPort(this.port)) {
      const message = next.message as FromWriter;
      if (message.type === 'failed') {
        this.fail(message.problem, message.remedy);
      } else {
        this.stored = message.storedTo;
        this.bytes = message.tapeBytes;
        this.history = message.history;
      }
    }
  }

  private fail(problem: string, remedy: string, cause?: unknown): void {
    this.failure ??= new TapeWriteError(this.file, problem, this.stored, remedy, { cause });
  }
}

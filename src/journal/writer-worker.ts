/**
 * The writer thread: digests, compresses and inserts chunks, and commits groups by size and by time.
 *
 * It runs in two places: compiled, beside `threaded-writer.js`; and under a test runner that executes the TypeScript
 * sources, from the compiled tree (`npm test` builds it first), for Node loads no TypeScript into a thread.
 */
import { workerData } from 'node:worker_threads';
import { type ChunkHeader, endOf } from './chunk.js';
import { TapeWriteError } from './errors.js';
import { giveWay } from './give-way.js';
import type { Position } from './record.js';
import { TapeFile } from './tape-file.js';
import { CODEC_VERSION } from './upcast.js';
import { Control, type FromWriter, type ToWriter, type WriterSetup } from './writer-protocol.js';

/** How often the age of a group is looked at. */
const TICK_MILLISECONDS = 100;

const { file, control, port } = workerData as WriterSetup;

/** The chunk that grows, and how much of it is stored. */
interface Growing extends Omit<ChunkHeader, 'end'> {
  readonly slot: number;
  readonly memory: SharedArrayBuffer;
  storedBytes: number;
}

class Writer {
  private readonly tape = TapeFile.open(file);
  private growing: Growing | undefined;
  private readonly ticking = setInterval(() => guarded(() => this.tick()), TICK_MILLISECONDS);

  handle(message: ToWriter): void {
    switch (message.type) {
      case 'begin': {
        const { slot, index, start, memory } = message;
        this.growing = { slot, index, start, memory, codecVersion: CODEC_VERSION, storedBytes: 0 };
        if (message.reply) answer();
        break;
      }
      case 'full':
        this.putFull(message.end, message.bytes);
        break;
      case 'digest':
        this.tape.putDigest(message.digest);
        break;
      case 'blob':
        this.tape.putBlob(message.content, message.digest);
        break;
      case 'checkpoint':
        this.tape.putCheckpoint(message.checkpoint);
        Atomics.add(control, Control.CHECKPOINTS, 1);
        announce();
        break;
      case 'flush':
        this.commit(true);
        answer();
        break;
      case 'end':
        this.commit();
        if (message.complete) this.tape.finish();
        this.close();
        port.close();
        answer();
        break;
    }
  }

  /** Closes the file as far as it was committed. */
  close(): void {
    clearInterval(this.ticking);
    this.tape.close();
  }

  private tick(): void {
    if (this.tape.due) this.commit();
  }

  private putFull(end: Position, bytes: number): void {
    const growing = this.growing as Growing;
    this.growing = undefined;
    this.tape.putChunk({ ...growing, end, raw: new Uint8Array(growing.memory, 0, bytes) });
    Atomics.add(control, Control.CHUNKS, 1);
    announce();
    this.tick();
  }

  /** @param tells even when nothing is new. */
  private commit(tells = false): void {
    this.putGrowing();
    const before = this.tape.storedTo.seq;
    this.tape.commit();
    const { storedTo, bytes, history } = this.tape;
    if (tells || storedTo.seq !== before) post({ type: 'stored', storedTo, tapeBytes: bytes, history });
  }

  /** Puts the chunk that grows as it is now. */
  private putGrowing(): void {
    const { growing } = this;
    if (growing === undefined) return;
    const used = Atomics.load(control, Control.USED + growing.slot);
    if (used === growing.storedBytes) return;
    const raw = new Uint8Array(growing.memory, 0, used).slice();
    this.tape.putChunk({ ...growing, end: endOf(growing.start, raw, this.tape.header.events), raw });
    growing.storedBytes = used;
  }
}

const post = (message: FromWriter): void => port.postMessage(message);

/** Wakes the machine's thread if it waits. */
function announce(): void {
  Atomics.add(control, Control.ACTIVITY, 1);
  Atomics.notify(control, Control.ACTIVITY);
}

function answer(): void {
  Atomics.add(control, Control.REPLIES, 1);
  announce();
}

let writer: Writer | undefined;
let failed = false;

/** After a failure nothing more is written: what was committed is a whole tape, and stays one. */
function guarded(work: () => void): void {
  if (failed) return;
  try {
    work();
  } catch (error) {
    failed = true;
    leaveFile();
    post({ type: 'failed', ...explain(error) });
    port.close();
    Atomics.store(control, Control.FAILED, 1);
    announce();
  }
}

/** Closes the file before the failure is told: who hears of it may end the process or let another writer in at once. */
function leaveFile(): void {
  try {
    writer?.close();
  } catch {
    // The first failure is the one to tell.
  }
}

function explain(error: unknown): Pick<TapeWriteError, 'problem' | 'remedy'> {
  if (error instanceof TapeWriteError) return error;
  return { problem: error instanceof Error ? (error.stack ?? error.message) : String(error), remedy: '' };
}

giveWay();
guarded(() => {
  writer = new Writer();
});
port.on('message', (message: ToWriter) => guarded(() => writer?.handle(message)));

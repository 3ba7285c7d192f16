/**
 * Reads a tape's chunks ahead of their use, on a thread of its own: decompressing and checking digests cost as much as a
 * third of what a replay of a nested session does with the events.
 *
 * The thread has a reader of its own and a window of chunks, then it waits. Whatever goes wrong there is not told:
 * the caller reads the chunk in question by itself, and meets the same error as itself.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { Chunk } from './chunk.js';
import { workerFile } from './worker-file.js';

/** Words of the control array. */
export const Ahead = {
  /** Chunks that the thread has sent. */
  SENT: 0,
  /** Chunks that were taken. */
  TAKEN: 1,
  /** Not zero when the thread will send no more: it failed, or the caller is done. */
  OVER: 2,
  /** Counts every change of the others; both sides sleep on it. Read it first, then the others: so no change is slept through. */
  ACTIVITY: 3,
} as const;
const CONTROL_WORDS = 4;

/** Changes one of the words and wakes whoever sleeps. */
export function change(control: Int32Array, word: number): void {
  Atomics.add(control, word, 1);
  Atomics.add(control, Ahead.ACTIVITY, 1);
  Atomics.notify(control, Ahead.ACTIVITY);
}

export interface ReadAheadSetup {
  readonly file: string;
  /** Number of the first chunk to send, and of the one behind the last. */
  readonly first: number;
  readonly end: number;
  readonly control: Int32Array;
  readonly port: MessagePort;
}

/** Chunks that the caller reads by itself while the thread starts. */
const HEAD_START = 12;
/** A thread that says nothing for so long is taken for dead: the caller then reads by itself. */
const SILENCE_MILLISECONDS = 60_000;

/**
 * The chunks of `file` in order.
 * @param end how many there are. @param direct reads a chunk on the caller's thread.
 */
export function* chunksAhead(
  file: string,
  end: number,
  direct: (index: number) => Chunk,
): Generator<Chunk, void, void> {
  const control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * Int32Array.BYTES_PER_ELEMENT));
  const { port1, port2 } = new MessageChannel();
  const first = Math.min(HEAD_START, end);
  const workerData: ReadAheadSetup = { file, first, end, control, port: port2 };
  const worker = new Worker(workerFile('read-ahead-worker'), { workerData, transferList: [port2], execArgv: [] });
  // Nobody listens: what a failure leaves unread is read directly. And it keeps no process alive.
  worker.on('error', () => {});
  worker.unref();
  try {
    for (let index = 0; index < first; index++) yield direct(index);
    for (let index = first; index < end; index++) {
      const message = isSent(control, index - first) ? receiveMessageOnPort(port1) : undefined;
      if (message === undefined) {
        for (let left = index; left < end; left++) yield direct(left);
        return;
      }
      change(control, Ahead.TAKEN);
      yield message.message as Chunk;
    }
  } finally {
    change(control, Ahead.OVER);
    port1.close();
  }
}

/** Waits for the chunk that is sent after `before` others. @returns false when it will not come. */
function isSent(control: Int32Array, before: number): boolean {
  for (;;) {
    const activity = Atomics.load(control, Ahead.ACTIVITY);
    if (Atomics.load(control, Ahead.SENT) > before) return true;
    if (Atomics.load(control, Ahead.OVER) !== 0) return false;
    if (Atomics.wait(control, Ahead.ACTIVITY, activity, SILENCE_MILLISECONDS) === 'timed-out') return false;
  }
}

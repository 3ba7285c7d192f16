/**
 * What the machine's thread and the writer thread say to each other.
 *
 * The encoder packs events straight into shared memory and, after each, says in `USED` how many bytes of the chunk are
 * valid. So the writer can commit a growing chunk whenever its time has come, without asking the machine, which may be
 * busy with one long stretch of instructions. Everything else goes through messages, in order.
 */
import type { MessagePort } from 'node:worker_threads';
import type { CheckpointInput } from './checkpoint.js';
import type { Position } from './record.js';
import type { StateDigest } from './store.js';

/** Chunks in flight; with them the memory that a slow disk can take. */
export const RING_CHUNKS = 32;

/** Words of the control array. */
export const Control = {
  /** Counts everything that the writer does; the machine's thread sleeps on it. */
  ACTIVITY: 0,
  /** Chunks that the writer has put; their memory is free again. */
  CHUNKS: 1,
  /** Requests that the writer has answered. */
  REPLIES: 2,
  /** Not zero when the writer failed; why is in a message. */
  FAILED: 3,
  /** Checkpoints that the writer has taken in. */
  CHECKPOINTS: 4,
  /** Valid bytes of the chunk in each slot of the ring. */
  USED: 5,
} as const;
export const CONTROL_WORDS = Control.USED + RING_CHUNKS;

export interface WriterSetup {
  readonly file: string;
  readonly control: Int32Array;
  readonly port: MessagePort;
}

export type ToWriter =
  /** A chunk begins in this memory, or moved to it; answered when `reply` is set. */
  | {
      readonly type: 'begin';
      readonly slot: number;
      readonly index: number;
      readonly start: Position;
      readonly memory: SharedArrayBuffer;
      readonly reply: boolean;
    }
  /** The chunk that was begun last is full. */
  | { readonly type: 'full'; readonly end: Position; readonly bytes: number }
  | { readonly type: 'digest'; readonly digest: StateDigest }
  | { readonly type: 'blob'; readonly content: Uint8Array; readonly digest: string }
  | { readonly type: 'checkpoint'; readonly checkpoint: CheckpointInput }
  /** Commit everything; answered. */
  | { readonly type: 'flush' }
  /** Commit everything, close the tape and end; answered. */
  | { readonly type: 'end'; readonly complete: boolean };

export type FromWriter =
  /** `history` is that of everything up to there. */
  | { readonly type: 'stored'; readonly storedTo: Position; readonly tapeBytes: number; readonly history: Uint8Array }
  | { readonly type: 'failed'; readonly problem: string; readonly remedy: string };

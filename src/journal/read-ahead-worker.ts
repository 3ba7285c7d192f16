/** The thread behind `read-ahead.ts`. It runs compiled, as `writer-worker.ts` does. */
import { workerData } from 'node:worker_threads';
import { giveWay } from './give-way.js';
import { Ahead, change, type ReadAheadSetup } from './read-ahead.js';
import { SqliteReader } from './sqlite-reader.js';

/** Chunks that wait to be taken, at most: a replay looks for inputs a slice ahead, which may be some dozens of chunks. */
const WINDOW = 64;

const { file, first, end, control, port } = workerData as ReadAheadSetup;

function send(): void {
  const reader = SqliteReader.open(file);
  try {
    for (let index = first; index < end; index++) {
      if (!isWanted(index - first)) return;
      const chunk = reader.chunkByIndex(index);
      const raw = chunk.raw.slice();
      // Copied: from the first transfer on all that this thread does with bytes would take longer (docs/adr/0013).
      port.postMessage({ ...chunk, raw });
      change(control, Ahead.SENT);
    }
  } finally {
    reader.close();
  }
}

/** Waits until the window has room for a chunk after `before` others. @returns false when nobody wants it any more. */
function isWanted(before: number): boolean {
  for (;;) {
    const activity = Atomics.load(control, Ahead.ACTIVITY);
    if (Atomics.load(control, Ahead.OVER) !== 0) return false;
    if (before - Atomics.load(control, Ahead.TAKEN) < WINDOW) return true;
    Atomics.wait(control, Ahead.ACTIVITY, activity);
  }
}

giveWay();
try {
  send();
} catch {
  // The caller reads the chunk that could not be sent, and meets the error there.
} finally {
  change(control, Ahead.OVER);
  port.close();
}

/** How a tape begins, and how a checkpoint is put on it: alike for whoever records. */
import type { JournalStore, JournalWriter, Position, TapeDescription } from '../journal/index.js';
import { invariant } from '../machine/index.js';
import type { CheckpointTaker } from './checkpoint-taker.js';
import { sha256Hex } from './live-session.js';
import { digestsWithoutRam } from './state-digest.js';

/** Puts a checkpoint of the machine on its tape, with digests of all its parts. @returns the bytes of pages in it. */
export function putCheckpoint(writer: JournalWriter, taker: CheckpointTaker, position = writer.end): number {
  for (const [kind, value] of Object.entries(digestsWithoutRam(taker.machine))) {
    writer.appendDigest(kind, value, position);
  }
  const checkpoint = taker.take(position);
  const pageBytes = checkpoint.contents.length;
  writer.putCheckpoint(checkpoint);
  return pageBytes;
}

/**
 * Begins a tape, with what the machine booted or may boot again on it, and at its origin, if it has one, the machine.
 * @throws TapeInputError, TapeWriteError; then the tape is closed.
 */
export function beginTape(
  store: JournalStore,
  description: TapeDescription,
  image: Uint8Array | undefined,
  putOrigin: (writer: JournalWriter, position: Position) => void,
): JournalWriter {
  const writer = store.create(description);
  try {
    if (image !== undefined) {
      const blob = writer.putBlob(image);
      invariant(blob === sha256Hex(image), 'the journal names content by its SHA-256 digest');
    }
    if (description.origin !== undefined) putOrigin(writer, description.origin.position);
    return writer;
  } catch (error) {
    writer.close();
    throw error;
  }
}

/** How a tape begins, and how a checkpoint is put on it: alike for whoever records. */
import type { CheckpointInput, JournalStore, JournalWriter, Position, TapeDescription } from '../journal/index.js';
import type { BootImage } from '../machine/index.js';
import type { CheckpointTaker } from './checkpoint-taker.js';
import type { OriginRam } from './migration/origin-ram.js';
import { digestsWithoutRam } from './state-digest.js';

/** Puts a checkpoint of the machine on its tape, with digests of all its parts. @returns the bytes of pages in it. */
export const putCheckpoint = (writer: JournalWriter, taker: CheckpointTaker, position = writer.end): number =>
  takeCheckpoint(taker, position)(writer);

/**
 * Takes one that is put on the tape later.
 * @param ram RAM as it is there, for whoever has it, or will have when the checkpoint is put.
 * @returns what puts it.
 */
export function takeCheckpoint(
  taker: CheckpointTaker,
  position: Position,
  ram?: OriginRam,
): (writer: JournalWriter) => number {
  const digests = Object.entries(digestsWithoutRam(taker.machine));
  const taken = ram === undefined ? taker.take(position) : { ...taker.takeWithoutRam(position), ram };
  return (writer) => {
    for (const [kind, value] of digests) writer.appendDigest(kind, value, position);
    const checkpoint = whole(taken);
    const pageBytes = checkpoint.contents.length;
    writer.putCheckpoint(checkpoint);
    return pageBytes;
  };
}

type WithoutRam = ReturnType<CheckpointTaker['takeWithoutRam']> & { readonly ram: OriginRam };

function whole(taken: CheckpointInput | WithoutRam): CheckpointInput {
  if (!('ram' in taken)) return taken;
  const { ram, ...rest } = taken;
  return { ...rest, ...ram.take() };
}

/**
 * Begins a tape, with what the machine booted or may boot again on it, and at its origin, if it has one, the machine.
 * @throws TapeInputError, TapeWriteError; then the tape is closed.
 */
export function beginTape(
  store: JournalStore,
  description: TapeDescription,
  image: Pick<BootImage, 'bytes' | 'digest'> | undefined,
  putOrigin: (writer: JournalWriter, position: Position) => void,
): JournalWriter {
  const writer = store.create(description);
  try {
    if (image !== undefined) writer.putBlob(image.bytes, image.digest);
    if (description.origin !== undefined) putOrigin(writer, description.origin.position);
    return writer;
  } catch (error) {
    writer.close();
    throw error;
  }
}

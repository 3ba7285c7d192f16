/** Gives a machine an input from a tape, and the image that it booted. */
import type { JournalReader, JournalRecord } from '../journal/index.js';
import { type BootImage, type BootSource, InputError, type Machine } from '../machine/index.js';

/** @throws InputError when the tape lacks what the input names, or the input is of a newer vmtape. */
export function feedInput(machine: Machine, reader: JournalReader, { event }: JournalRecord): void {
  switch (event.type) {
    case 'input.boot':
      machine.boot(imageOf(reader, event));
      return;
    case 'input.clock':
    case 'input.entropy':
    case 'input.serial':
    case 'input.console':
    case 'input.pages':
    case 'input.stolen':
    case 'input.paused':
    case 'input.turn':
    case 'input.hold':
    case 'input.skew':
    case 'input.nmi':
    case 'input.debugger-registers':
    case 'input.debugger-msr':
    case 'input.debugger-memory':
      machine.deliver(event);
      return;
    default:
      throw new InputError(
        'tape',
        `it has an input ${event.type}, which this version does not know`,
        'Use a newer one.',
      );
  }
}

/**
 * Gives a machine that was put to a place of the tape the image that it booted before: a reset may load it again.
 * @throws InputError when the tape lacks it.
 */
export function giveImage(machine: Machine, reader: JournalReader): void {
  const { boot } = machine.state;
  if (boot !== null) machine.keepImage(imageOf(reader, boot));
}

/** @throws InputError when the tape lacks it. */
export function imageOf(reader: JournalReader, { imageDigest, commandLine }: BootSource): BootImage {
  const bytes = reader.blob(imageDigest);
  if (bytes !== undefined) return { bytes, digest: imageDigest, commandLine };
  throw new InputError('tape', `it has no image ${imageDigest}, which it boots`, 'Run vmtape verify on it.');
}

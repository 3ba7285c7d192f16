/** Gives a machine an input from a tape. */
import type { JournalReader, JournalRecord } from '../journal/index.js';
import { InputError, type Machine } from '../machine/index.js';

/** @throws InputError when the tape lacks what the input names, or the input is of a newer vmtape. */
export function feedInput(machine: Machine, reader: JournalReader, { event }: JournalRecord): void {
  switch (event.type) {
    case 'input.boot': {
      const { imageDigest, commandLine } = event;
      const bytes = reader.blob(imageDigest);
      if (bytes === undefined) {
        throw new InputError('tape', `it has no image ${imageDigest}, which it boots`, 'Run vmtape verify on it.');
      }
      machine.boot({ bytes, digest: imageDigest, commandLine });
      return;
    }
    case 'input.clock':
    case 'input.entropy':
    case 'input.serial':
    case 'input.pages':
    case 'input.stolen':
    case 'input.paused':
    case 'input.turn':
    case 'input.hold':
    case 'input.skew':
    case 'input.nmi':
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

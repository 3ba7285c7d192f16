/**
 * Holds what a machine states against a tape, event by event: both in their encoded form, so that equal events cost a
 * comparison of some bytes and nothing is decoded.
 */
import { type Chunk, ChunkEncoder, EncodingError, type EventTable, type JournalReader } from '../journal/index.js';
import { InputError, type StatedEvent } from '../machine/index.js';
import type { TapeCursor } from './tape-cursor.js';

const NO_BYTES = new Uint8Array(0);

export class EventComparer {
  /** Events compared; equals the number of the next one. */
  compared = 0;
  private readonly encoder: ChunkEncoder;
  /** The encoder's memory, and the tape's bytes that belong there. */
  private own: Uint8Array = NO_BYTES;
  private expected: Chunk | undefined;

  constructor(
    private readonly cursor: TapeCursor,
    { header }: JournalReader,
  ) {
    const events: EventTable = header.events;
    this.encoder = new ChunkEncoder(events);
    this.expected = cursor.chunk;
    const tapeCodec = this.expected?.codecVersion ?? header.codecVersion;
    if (tapeCodec !== this.encoder.chunk.codecVersion) {
      const problem = `its events are of codec version ${tapeCodec}, and this vmtape states version ${this.encoder.chunk.codecVersion}`;
      throw new InputError('tape', problem, `Replay it with vmtape ${header.vmtapeVersion}.`);
    }
  }

  /** @returns true when `stated` is what the tape has next. After false the comparer is of no more use. */
  accept(stated: StatedEvent): boolean {
    const { encoder, expected } = this;
    if (expected === undefined) return false;
    const from = encoder.length;
    let full: boolean;
    try {
      full = encoder.append(stated);
    } catch (error) {
      // The tape's version had no such event.
      if (error instanceof EncodingError) return false;
      throw error;
    }
    if (encoder.buffer !== this.own.buffer) this.own = new Uint8Array(encoder.buffer);
    if (!sameRange(this.own, expected.raw, from, encoder.length)) return false;
    this.compared++;
    if (full) {
      encoder.next();
      this.cursor.nextChunk();
      this.expected = this.cursor.chunk;
    }
    return true;
  }
}

function sameRange(own: Uint8Array, tape: Uint8Array, from: number, to: number): boolean {
  if (to > tape.length) return false;
  for (let at = from; at < to; at++) if (own[at] !== tape[at]) return false;
  return true;
}

/**
 * Holds what a machine states against a tape, event by event: both in their encoded form, so that equal events cost a
 * comparison of some bytes and nothing is decoded.
 */
import {
  type Chunk,
  ChunkEncoder,
  EncodingError,
  type EventTable,
  type JournalReader,
  type Position,
} from '../journal/index.js';
import { InputError, type StatedEvent } from '../machine/index.js';
import type { TapeCursor } from './tape-cursor.js';

/** Encoded events, as bytes and as words. */
interface Side {
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
}

const sideOf = (bytes: Uint8Array): Side => ({
  bytes,
  words: new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2),
});
const NOTHING = sideOf(new Uint8Array(0));

/** The chunk's bytes where words can be taken from them. */
const sideOfChunk = (chunk: Chunk | undefined): Side | undefined =>
  chunk === undefined ? undefined : sideOf(chunk.raw.byteOffset % 4 === 0 ? chunk.raw : chunk.raw.slice());

export class EventComparer {
  /** The number of the next event: all before it were compared, or passed over. */
  compared: number;
  private readonly encoder: ChunkEncoder;
  /** The encoder's memory, and the tape's bytes that belong there. */
  private own = NOTHING;
  private expected: Side | undefined;

  /** @param from the boundary to begin at, where the cursor does. */
  constructor(
    private readonly cursor: TapeCursor,
    { header, start }: JournalReader,
    from: Position = start,
  ) {
    const events: EventTable = header.events;
    const { chunk } = cursor;
    this.compared = Number(from.seq);
    this.encoder = chunk === undefined ? new ChunkEncoder(events) : ChunkEncoder.within(chunk, from, events);
    this.expected = sideOfChunk(chunk);
    const tapeCodec = chunk?.codecVersion ?? header.codecVersion;
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
    if (encoder.buffer !== this.own.bytes.buffer) this.own = sideOf(new Uint8Array(encoder.buffer));
    if (!sameRange(this.own, expected, from, encoder.length)) return false;
    this.compared++;
    if (full) {
      encoder.next();
      this.cursor.nextChunk();
      this.expected = sideOfChunk(this.cursor.chunk);
    }
    return true;
  }
}

/** Compares bytes `from` to `to` of both, by whole words in the middle. */
function sameRange(own: Side, tape: Side, from: number, to: number): boolean {
  if (to > tape.bytes.length) return false;
  const firstWord = Math.ceil(from / 4);
  const endWord = Math.floor(to / 4);
  let at = from;
  if (firstWord < endWord) {
    for (; at < 4 * firstWord; at++) if (own.bytes[at] !== tape.bytes[at]) return false;
    for (let word = firstWord; word < endWord; word++) if (own.words[word] !== tape.words[word]) return false;
    at = 4 * endWord;
  }
  for (; at < to; at++) if (own.bytes[at] !== tape.bytes[at]) return false;
  return true;
}

/**
 * The events of a chunk one after the other, with their places; an event is decoded when it is asked for.
 */
import type { MachineEvent } from '../machine/events.js';
import type { Chunk } from './chunk.js';
import { EncodingError, EventDecoder, type EventTable } from './codec.js';
import { EventScanner } from './event-scanner.js';
import type { JournalRecord } from './record.js';

export class ChunkScan {
  private readonly scanner: EventScanner;
  private readonly types: readonly string[];
  private readonly decoder: EventDecoder;
  private before: bigint;
  /** Instructions since `before`: adding numbers costs less than adding bigints, and is exact up to 2^53. */
  private ran = 0;
  private index = -1;

  /** @param damaged refuses a chunk whose bytes are no events. */
  constructor(
    private readonly chunk: Chunk,
    table: EventTable,
    private readonly damaged: (cause: EncodingError) => never,
  ) {
    this.scanner = new EventScanner(chunk.raw);
    this.types = Object.keys(table);
    this.decoder = new EventDecoder(table, chunk.codecVersion);
    this.before = chunk.start.icount;
  }

  /** Goes to the next event; to the first one at first. @returns false when there is none. */
  next(): boolean {
    try {
      if (!this.scanner.next()) return false;
    } catch (error) {
      return this.refuse(error);
    }
    this.index++;
    const { retired } = this.scanner;
    if (this.ran + retired > Number.MAX_SAFE_INTEGER) {
      this.before += BigInt(this.ran);
      this.ran = 0;
    }
    this.ran += retired;
    return true;
  }

  /** Place of the event's type in the tape's event table. */
  get kind(): number {
    return this.scanner.kind;
  }
  get type(): string {
    return this.types[this.scanner.kind] ?? '';
  }
  get retired(): number {
    return this.scanner.retired;
  }
  get vcpu(): number {
    return this.scanner.vcpu;
  }
  get level(): 1 | 2 {
    return this.scanner.level;
  }
  get seq(): bigint {
    return this.chunk.start.seq + BigInt(this.index);
  }
  /** Instructions retired after the event. */
  get icount(): bigint {
    return this.before + BigInt(this.ran);
  }

  /** The event's encoding: a view. */
  get raw(): Uint8Array {
    return this.chunk.raw.subarray(this.scanner.start, this.scanner.end);
  }

  /** The event, decoded anew each time. */
  get event(): MachineEvent {
    return this.record.event;
  }

  get record(): JournalRecord {
    const { start, end } = this.scanner;
    try {
      const [stated] = this.decoder.decode(this.chunk.raw.subarray(start, end));
      if (stated === undefined) throw new EncodingError('the bytes are no event');
      return { position: { icount: this.icount, seq: this.seq }, ...stated };
    } catch (error) {
      return this.refuse(error);
    }
  }

  private refuse(error: unknown): never {
    if (error instanceof EncodingError) return this.damaged(error);
    throw error;
  }
}

/**
 * Reads a tape forwards for a replay: encoded chunks to compare with, and ahead of them the inputs to feed.
 *
 * Inputs are rare and chunks are many, so a chunk is decoded only when it holds the bytes with which the encoding of an
 * input begins; a chance match costs a decoding, nothing else.
 */
import {
  type Chunk,
  containsBytes,
  type EventTable,
  encodeEvent,
  type JournalReader,
  type JournalRecord,
  type Position,
  type StateDigest,
} from '../journal/index.js';
import { isInput, type Level, type MachineEvent } from '../machine/index.js';

export class TapeCursor {
  /** The boundary at which the replay is over: the end of the tape. */
  readonly end: Position;
  private readonly unread: Generator<Chunk, void, void>;
  private readonly chunks: Chunk[] = [];
  private readonly inputs: JournalRecord[] = [];
  private readonly inputStarts: InputStarts;
  private readonly digests: Generator<StateDigest, void, void>;
  /** Undefined until somebody asks, null past the last. */
  private aheadDigest: StateDigest | null | undefined;
  /** Everything up to this instruction has been looked through for inputs. */
  private knownTo = 0n;

  /** @param from number of the event to begin with. */
  constructor(
    private readonly reader: JournalReader,
    private readonly from = reader.start.seq,
  ) {
    this.end = reader.end;
    this.unread = from === reader.start.seq ? reader.chunksAhead() : reader.chunks(from);
    this.inputStarts = InputStarts.of(reader.header.events);
    this.digests = reader.digests();
  }

  /** Ends the reading ahead; the replay is over. */
  close(): void {
    this.unread.return();
  }

  /** The chunk that the replay is in; undefined past the end. */
  get chunk(): Chunk | undefined {
    if (this.chunks.length === 0) this.readChunk();
    return this.chunks[0];
  }

  /** Leaves the chunk behind. */
  nextChunk(): void {
    this.chunks.shift();
  }

  /** The next input that stands at or before instruction `icount`, or undefined. */
  inputUpTo(icount: bigint): JournalRecord | undefined {
    while (this.inputs.length === 0 && this.knownTo <= icount && this.readChunk());
    const [next] = this.inputs;
    return next !== undefined && next.position.icount <= icount ? next : undefined;
  }

  inputFed(): void {
    this.inputs.shift();
  }

  /** The next state digest that the replay has not reached. */
  get nextDigest(): StateDigest | undefined {
    if (this.aheadDigest === undefined) this.advanceDigest();
    return this.aheadDigest ?? undefined;
  }

  /** Takes all digests of the next boundary that has any. */
  takeDigests(): readonly StateDigest[] {
    const taken: StateDigest[] = [];
    const first = this.nextDigest;
    for (let next = first; next !== undefined && next.position.seq === first?.position.seq; next = this.nextDigest) {
      taken.push(next);
      this.advanceDigest();
    }
    return taken;
  }

  private advanceDigest(): void {
    let next = this.digests.next();
    while (next.done !== true && next.value.position.seq < this.from) next = this.digests.next();
    this.aheadDigest = next.done === true || next.value.position.seq > this.end.seq ? null : next.value;
  }

  /** @returns false when there is none left. */
  private readChunk(): boolean {
    const { done, value: chunk } = this.unread.next();
    if (done === true || chunk.start.seq >= this.end.seq) return false;
    this.chunks.push(chunk);
    this.knownTo = chunk.end.icount;
    for (const input of this.inputsOf(chunk)) {
      const { seq } = input.position;
      if (seq >= this.from && seq < this.end.seq) this.inputs.push(input);
    }
    return true;
  }

  private inputsOf(chunk: Chunk): readonly JournalRecord[] {
    const known = inputsOfChunks.get(chunk);
    if (known !== undefined) return known;
    const inputs = this.inputStarts.mayStandIn(chunk)
      ? [...this.reader.recordsOfChunk(chunk)].filter(({ event }) => isInput(event))
      : [];
    inputsOfChunks.set(chunk, inputs);
    return inputs;
  }
}

/** A reader may hold chunks for a while; then they are not looked through again. */
const inputsOfChunks = new WeakMap<Chunk, readonly JournalRecord[]>();

const START_BYTES = 4;

/** The first four bytes of every encoding that an input can have, and the kinds that inputs are of. */
class InputStarts {
  private static readonly known = new WeakMap<EventTable, InputStarts>();
  private readonly kinds: readonly number[];
  private readonly starts: readonly Uint8Array[];

  static of(events: EventTable): InputStarts {
    const starts = InputStarts.known.get(events) ?? new InputStarts(events);
    InputStarts.known.set(events, starts);
    return starts;
  }

  private constructor(events: EventTable) {
    const types = Object.keys(events);
    this.kinds = types.flatMap((type, kind) => (isInputType(type) ? [kind] : []));
    this.starts = Object.entries(events)
      .filter(([type]) => isInputType(type))
      .flatMap(([type, fields]) => {
        const blank = { type, ...Object.fromEntries(fields.map((name) => [name, 0])) } as unknown as MachineEvent;
        // Inputs retire nothing, and count as the first vCPU's, in whichever level it is.
        return ([1, 2] as readonly Level[]).map((level) =>
          encodeEvent({ retired: 0, vcpu: 0, level, event: blank }, events).subarray(0, START_BYTES),
        );
      });
  }

  mayStandIn({ raw, kinds }: Chunk): boolean {
    if (kinds !== undefined) return this.kinds.some((kind) => kinds.has(kind));
    return this.starts.some((start) => containsBytes(raw, start));
  }
}

const isInputType = (type: string): boolean => isInput({ type } as MachineEvent);

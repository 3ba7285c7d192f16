/**
 * Where restored machines stop to be compared, and what the unbroken session is there. Ends lie a window apart, so that many
 * places share one, and each place has at least a whole window before it.
 */
import {
  boundaryAfter,
  comparePositions,
  type JournalReader,
  type JournalRecord,
  type Position,
} from '../../journal/index.js';
import { type MachinePoint, PAGE_BYTES } from '../../machine/index.js';
import { type StateDigests, stateDigests } from '../state-digest.js';
import { Timeline } from '../timeline.js';

export interface WindowSize {
  readonly instructions: number;
  readonly events: number;
}

interface Window {
  readonly end: Position;
  /** The session there. */
  readonly point: MachinePoint;
  /** Pages of RAM that it may have written to since the place. */
  readonly pages: Uint32Array;
  readonly page: (page: number) => Uint8Array;
}

/** A place that it has passed, and the epoch of its RAM that began there. */
interface Passed {
  readonly position: Position;
  readonly epoch: number;
}

export class Windows {
  private readonly ahead: Timeline;
  private passed: Passed[] = [];
  private boundaries: Generator<JournalRecord, void, void> | undefined;
  private boundary: Position;
  private point: MachinePoint | undefined;

  constructor(
    private readonly reader: JournalReader,
    private readonly size: WindowSize,
  ) {
    this.ahead = new Timeline(reader);
    this.boundary = reader.start;
  }

  close(): void {
    this.ahead.close();
  }

  /** Places that are asked for from now on lie at or after this one. */
  begin(place: Position): void {
    this.ahead.seek(place);
    this.passed = [];
    this.point = undefined;
    this.boundary = place;
    this.boundaries = this.reader.records(place.seq);
    this.pass();
  }

  /** Digests of the session where the window of a place ends. */
  digestsFrom(place: Position): { readonly end: Position; readonly digests: StateDigests } {
    const { end } = this.from(place);
    return { end, digests: stateDigests(this.ahead.machine) };
  }

  /** The window of a place; none before the one asked for last. */
  from(place: Position): Window {
    const { ahead } = this;
    while (!this.isFarEnough(place)) this.advance();
    this.point ??= ahead.machine.capture();
    while (this.passed.length > 1 && comparePositions((this.passed[1] as Passed).position, place) <= 0)
      this.passed.shift();
    const { memory } = ahead.machine;
    return {
      end: ahead.position,
      point: this.point,
      pages: memory.pagesWrittenSince((this.passed[0] as Passed).epoch),
      page: (page) => memory.window(page * PAGE_BYTES, PAGE_BYTES),
    };
  }

  private pass(): void {
    this.passed.push({ position: this.ahead.position, epoch: this.ahead.machine.memory.newEpoch() });
  }

  private isFarEnough({ icount, seq }: Position): boolean {
    const { position, end } = this.ahead;
    if (comparePositions(position, end) >= 0) return true;
    return position.icount - icount >= BigInt(this.size.instructions) || position.seq - seq >= BigInt(this.size.events);
  }

  private advance(): void {
    const { ahead } = this;
    const { icount, seq } = ahead.position;
    const byInstructions = { icount: icount + BigInt(this.size.instructions), seq: 0n };
    const byEvents = this.boundaryAt(seq + BigInt(this.size.events));
    const nearer = comparePositions(byInstructions, byEvents) < 0 ? byInstructions : byEvents;
    ahead.reach(nearer);
    this.point = undefined;
    this.pass();
  }

  /** The boundary after so many events, or the last one; asked for in order. */
  private boundaryAt(seq: bigint): Position {
    while (this.boundary.seq < seq) {
      const next = this.boundaries?.next();
      if (next === undefined || next.done === true) break;
      this.boundary = boundaryAfter(next.value);
    }
    return this.boundary;
  }
}

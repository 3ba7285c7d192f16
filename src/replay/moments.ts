/**
 * The moments of a recording that can be gone to at once: the tape's checkpoints, and those that a timeline keeps in memory.
 * Memory is bounded: the moment that was of no use for longest goes first. The start always stays.
 */
import { type CheckpointEntry, comparePositions, formatPosition, type Position } from '../journal/index.js';
import type { MachinePoint } from '../machine/index.js';
import type { RamImage } from './ram-image.js';

export interface Moment {
  readonly position: Position;
  readonly point: MachinePoint;
  readonly image: RamImage;
}

interface Kept {
  readonly moment: Moment;
  readonly bytes: number;
}

/** What moments may take, pages that they share counted once. */
const MEMORY_BYTES = 256 * 1024 * 1024;
/** Registers, devices and VMCBs of a moment. */
const POINT_BYTES = 64 * 1024;

export class Moments {
  /** All places, in order. */
  private places: Position[];
  private readonly checkpoints: ReadonlyMap<string, number>;
  /** By position; the map remembers the order of use. */
  private readonly kept = new Map<string, Kept>();
  private bytes = 0;

  constructor(
    private readonly start: Moment,
    checkpoints: readonly CheckpointEntry[],
  ) {
    const later = checkpoints.filter(({ position }) => comparePositions(position, start.position) > 0);
    this.checkpoints = new Map(later.map(({ id, position }) => [formatPosition(position), id]));
    this.places = [start.position, ...later.map(({ position }) => position)];
  }

  /** The last place at or before a position. */
  atOrBefore(position: Position): Position {
    return this.places[this.indexAfter(position) - 1] as Position;
  }

  /** The last place before a position; the start has none, and is its own. */
  before(position: Position): Position {
    const at = this.indexAfter(position) - 1;
    const place = this.places[at] as Position;
    return at > 0 && comparePositions(place, position) === 0 ? (this.places[at - 1] as Position) : place;
  }

  has(position: Position): boolean {
    return comparePositions(this.atOrBefore(position), position) === 0;
  }

  /** The moment at a place. @param load gives that of a checkpoint by its number. */
  get(place: Position, load: (id: number) => Moment | undefined): Moment {
    if (comparePositions(place, this.start.position) === 0) return this.start;
    const key = formatPosition(place);
    const known = this.kept.get(key);
    if (known !== undefined) {
      this.kept.delete(key);
      this.kept.set(key, known);
      return known.moment;
    }
    const id = this.checkpoints.get(key);
    const moment = id === undefined ? undefined : load(id);
    if (moment !== undefined) {
      this.enter(key, { moment, bytes: POINT_BYTES });
      return moment;
    }
    // Another process has dropped the checkpoint.
    this.places = this.places.filter((each) => comparePositions(each, place) !== 0);
    return this.get(this.atOrBefore(place), load);
  }

  /** @param bytes that it adds to what is kept already. */
  keep(moment: Moment, bytes: number): void {
    const { position } = moment;
    if (!this.has(position)) this.places.splice(this.indexAfter(position), 0, position);
    this.enter(formatPosition(position), { moment, bytes: POINT_BYTES + bytes });
  }

  private enter(key: string, kept: Kept): void {
    this.kept.set(key, kept);
    this.bytes += kept.bytes;
    for (const [oldest, { bytes, moment }] of this.kept) {
      if (this.bytes <= MEMORY_BYTES || oldest === key) break;
      this.kept.delete(oldest);
      this.bytes -= bytes;
      if (this.checkpoints.has(oldest)) continue;
      this.places = this.places.filter((each) => comparePositions(each, moment.position) !== 0);
    }
  }

  /** How many places stand at or before a position. */
  private indexAfter(position: Position): number {
    let low = 0;
    let high = this.places.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (comparePositions(this.places[middle] as Position, position) <= 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

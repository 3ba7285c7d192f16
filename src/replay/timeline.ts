/**
 * A recording that can be entered anywhere, and gone through forwards and backwards.
 *
 * Forwards is running. Backwards is going to an earlier moment that is known whole, and running from there: to a checkpoint
 * on the tape, or to one of those that the timeline itself keeps in memory, ever denser towards where it was sent last.
 *
 * It stands between two steps of the machine. A position amid a step (between a #VMEXIT and what the same instruction states
 * after it) is none of its places: whoever asks for one gets the last place before it.
 */
import { comparePositions, formatPosition, type JournalReader, type Position, START } from '../journal/index.js';
import {
  type EventSink,
  FIRST_EPOCH,
  type Hit,
  type Machine,
  NO_STOP_POINTS,
  PAGE_BYTES,
  type StopPoints,
  sPA,
} from '../machine/index.js';
import { type Moment, Moments } from './moments.js';
import { decodePoint } from './point-codec.js';
import { type PageRef, RamImage } from './ram-image.js';
import { runCost } from './run-cost.js';
import { PastEnd, TapeFollower } from './tape-follower.js';

/** Nanoseconds of running below which moments are not worth their place. */
const DENSEST = 100_000;
/** Moments on a long way, where the tape has no checkpoints. */
const SPARSEST = 200_000_000;

/** What long work says and hears. */
export interface Control {
  /** Called every few milliseconds. @returns true to give up. */
  readonly tick?: (at: Position) => boolean;
}

/** Thrown when `Control.tick` gives up; the timeline stands where it was before. */
export class Cancelled extends Error {
  override name = 'Cancelled';
}

export interface HitPlace {
  readonly position: Position;
  readonly hit: Hit;
}

export type Stop =
  | { readonly kind: 'hit'; readonly hit: Hit }
  /** The end of the tape, or backwards its start. */
  | { readonly kind: 'end' };

export class Timeline {
  private readonly follower: TapeFollower;
  private readonly moments: Moments;
  /** RAM when the epoch began. */
  private image: RamImage;
  private epoch = FIRST_EPOCH;
  private last: Position | undefined;
  private points: StopPoints = NO_STOP_POINTS;
  private armed = false;
  /** Stretches of the tape without a hit of `points`, between moments. */
  private readonly searched = new Set<string>();

  /** Stands at the start. @throws InputError when this vmtape cannot make the machine of the tape. */
  constructor(private readonly reader: JournalReader) {
    this.follower = new TapeFollower(reader);
    this.image = RamImage.zeros(this.machine.memory.ramBytes / PAGE_BYTES);
    const start: Moment = { position: START, point: this.machine.capture(), image: this.image };
    this.moments = new Moments(start, reader.checkpoints());
  }

  /** It stands where the timeline does. Only to be looked at. */
  get machine(): Machine {
    return this.follower.machine;
  }

  get position(): Position {
    return this.follower.position;
  }

  /** The last place of the tape. */
  get end(): Position {
    this.last ??= this.reader.state === 'complete' ? this.reader.end : this.lastPlace();
    return this.last;
  }

  close(): void {
    this.follower.close();
  }

  /** Tells of every event of the way from now on, also of those that were told before. */
  observe(sink: EventSink): void {
    this.follower.observe = sink;
  }

  // Going somewhere

  /** @returns the place that it stands at: the last one at or before `to`, which may be where a run to there ends. */
  seek(to: Position, control: Control = {}): Position {
    this.disarm();
    const target = comparePositions(to, this.end) > 0 ? this.end : to;
    return this.orBack(() => {
      this.approach(target, control);
      if (comparePositions(this.position, target) > 0 && !this.endsRunAt(target)) {
        this.approach(this.placeBefore(this.position, control), control);
      }
      return this.position;
    });
  }

  /** @returns the place that it stands at: the first one at which so many instructions have retired, or the end. */
  seekInstruction(icount: bigint, control: Control = {}): Position {
    this.disarm();
    // No more than a lower bound for the number of events.
    const target = { icount, seq: this.reader.chunkAtIcount(icount)?.start.seq ?? 0n };
    return this.orBack(() => {
      this.approach(comparePositions(target, this.end) > 0 ? this.end : target, control);
      return this.position;
    });
  }

  /** Whether nothing has happened since `target` but that a run was stated. */
  private endsRunAt({ icount, seq }: Position): boolean {
    const { position } = this;
    if (position.icount !== icount || position.seq !== seq + 1n) return false;
    return this.reader.records(seq).next().value?.event.type === 'cpu.ran';
  }

  /** One step forwards. @returns false at the end. */
  step(): boolean {
    if (comparePositions(this.position, this.end) >= 0) return false;
    this.disarm();
    this.follower.step();
    return true;
  }

  /** One step backwards. @returns false at the start. */
  stepBack(control: Control = {}): boolean {
    const { position } = this;
    if (comparePositions(position, START) <= 0) return false;
    this.disarm();
    this.orBack(() => this.approach(this.placeBefore(position, control)));
    return true;
  }

  // Going on until something happens

  /** What `runForward` and `runBackward` stop at. */
  stopAt(points: StopPoints): void {
    this.points = points;
    this.disarm();
    this.searched.clear();
  }

  /** Runs to the next stop point after this place, or to `to`. */
  runForward(control: Control = {}, to: Position = this.end): Stop {
    return this.orBack(() => {
      this.arm();
      while (comparePositions(this.position, to) < 0) {
        this.check(control);
        const hit = this.follower.run(to);
        this.keepOnTheWay();
        if (hit !== undefined) return { kind: 'hit', hit };
      }
      return { kind: 'end' };
    });
  }

  /** Goes back to the last stop point before this place, or to the start. */
  runBackward(control: Control = {}): Stop {
    return this.orBack(() => {
      let to = this.position;
      while (comparePositions(to, START) > 0) {
        const from = this.moments.before(to);
        const found = this.lastHit(from, to, control);
        if (found !== undefined) {
          this.disarm();
          this.approach(found.position, control);
          return { kind: 'hit', hit: found.hit };
        }
        to = from;
      }
      this.approach(START, control);
      return { kind: 'end' };
    });
  }

  /**
   * The last stop point in a stretch, of which `from` is a place; its end is included when `inclusive`. The timeline stands
   * somewhere in it then.
   */
  lastHit(from: Position, to: Position, control: Control = {}, inclusive = false): HitPlace | undefined {
    const stretch = `${formatPosition(from)}-${formatPosition(to)}${inclusive}`;
    if (this.searched.has(stretch)) return undefined;
    this.disarm();
    this.approach(from, control);
    this.arm();
    let last: HitPlace | undefined;
    while (comparePositions(this.position, to) < 0) {
      this.check(control);
      const hit = this.follower.run(to);
      this.keepOnTheWay();
      const order = comparePositions(this.position, to);
      if (hit !== undefined && (order < 0 || (inclusive && order === 0))) last = { position: this.position, hit };
    }
    if (last === undefined) this.searched.add(stretch);
    return last;
  }

  private arm(): void {
    if (!this.armed) this.machine.stopAt(this.points);
    this.armed = true;
  }

  private disarm(): void {
    if (this.armed) this.machine.stopAt(NO_STOP_POINTS);
    this.armed = false;
  }

  // The way

  /**
   * Goes to the first place at or after `target`, and keeps moments on the way.
   * @param estimate about the same place, where its number of events is better known.
   */
  private approach(target: Position, control: Control = {}, estimate = target): void {
    const nearest = this.moments.atOrBefore(target);
    const here = this.position;
    const ahead = comparePositions(here, target) <= 0 && comparePositions(here, nearest) >= 0;
    if (!ahead) this.enter(this.load(nearest));
    const start = this.position;
    const cost = runCost(start, estimate);
    for (let left = cost / 2; left > DENSEST; left /= 2) {
      const stop = partOfWay(start, estimate, 1 - left / cost);
      this.runWhile(({ icount, seq }) => icount < stop.icount && seq < stop.seq, stop, control);
      this.keep();
    }
    this.runWhile((at) => comparePositions(at, target) < 0, target, control);
  }

  private runWhile(goesOn: (at: Position) => boolean, stop: Position, control: Control): void {
    while (goesOn(this.position)) {
      this.check(control);
      this.follower.run(stop);
      this.keepOnTheWay();
    }
  }

  /** The last place before `position`, which is one. */
  private placeBefore(position: Position, control: Control): Position {
    const earlier = { icount: position.icount > 0n ? position.icount - 1n : 0n, seq: 0n };
    // An instruction back and then step by step; a place where much happened without an instruction has many steps.
    const base = this.moments.before(position);
    const from = comparePositions(base, earlier) > 0 ? base : { icount: earlier.icount, seq: base.seq };
    this.approach(from, control, position);
    this.keep();
    let before = this.position;
    while (comparePositions(this.position, position) < 0) {
      this.check(control);
      before = this.position;
      this.keepOnTheWay();
      this.follower.step();
    }
    return before;
  }

  /** Of a tape that was cut, maybe amid a step. */
  private lastPlace(): Position {
    const { end } = this.reader;
    const here = this.position;
    this.enter(this.load(this.moments.atOrBefore(end)));
    let before = this.position;
    try {
      while (comparePositions(this.position, end) < 0) {
        before = this.position;
        this.follower.run(end);
        this.keepOnTheWay();
      }
      before = this.position;
    } catch (error) {
      if (!(error instanceof PastEnd)) throw error;
      before = this.lastStepFrom(before);
    }
    this.enter(this.load(this.moments.atOrBefore(here)));
    this.approach(here);
    return before;
  }

  /** Steps from a place until the tape ends. @returns the place before the step that it ends in. */
  private lastStepFrom(place: Position): Position {
    this.enter(this.load(this.moments.atOrBefore(place)));
    this.approach(place);
    let before = place;
    try {
      while (comparePositions(this.position, this.reader.end) < 0) {
        before = this.position;
        this.follower.step();
      }
    } catch (error) {
      if (!(error instanceof PastEnd)) throw error;
    }
    return before;
  }

  // Moments

  private load(position: Position): Moment {
    return this.moments.get(position, (id) => {
      const checkpoint = this.reader.checkpoint(id);
      return (
        checkpoint && {
          position: checkpoint.position,
          point: decodePoint(checkpoint.state),
          image: RamImage.of(checkpoint.pages),
        }
      );
    });
  }

  private enter({ position, point, image }: Moment): void {
    const { memory } = this.machine;
    const changed = new Set<number>(memory.pagesWrittenSince(this.epoch));
    for (const page of this.image.differences(image)) changed.add(page);
    for (const page of changed) memory.copyIn(sPA(page * PAGE_BYTES), this.contentOf(image.at(page)));
    this.image = image;
    this.epoch = memory.newEpoch();
    this.follower.enter(position, point);
  }

  private contentOf(ref: PageRef): Uint8Array {
    if (typeof ref !== 'number') return ref;
    return ref === 0 ? ZEROS : this.reader.page(ref);
  }

  /** Keeps this place, to come back to. */
  private keep(): void {
    const { memory } = this.machine;
    if (this.moments.has(this.position)) return;
    const written = memory.pagesWrittenSince(this.epoch);
    this.image = this.image.with(
      [...written].map((page) => [page, memory.window(page * PAGE_BYTES, PAGE_BYTES).slice()] as const),
    );
    this.epoch = memory.newEpoch();
    this.moments.keep(
      { position: this.position, point: this.machine.capture(), image: this.image },
      written.length * PAGE_BYTES,
    );
  }

  private keepOnTheWay(): void {
    const { position } = this;
    if (runCost(this.moments.atOrBefore(position), position) > SPARSEST) this.keep();
  }

  // Giving up

  private check({ tick }: Control): void {
    if (tick?.(this.position) === true) throw new Cancelled('the search was given up');
  }

  /** Does long work; when it is given up, all is as before. */
  private orBack<Result>(work: () => Result): Result {
    const { position } = this;
    try {
      return work();
    } catch (error) {
      if (!(error instanceof Cancelled)) throw error;
      this.disarm();
      this.approach(position);
      throw error;
    }
  }
}

const ZEROS = new Uint8Array(PAGE_BYTES);

/** The place that far between two, as far as one can tell from outside. */
function partOfWay(from: Position, to: Position, part: number): Position {
  const between = (a: bigint, b: bigint): bigint => a + BigInt(Math.floor(Number(b - a) * part));
  return { icount: between(from.icount, to.icount), seq: between(from.seq, to.seq) };
}

/**
 * A recording that can be entered anywhere, and gone through forwards and backwards.
 *
 * Forwards is running. Backwards is going to an earlier moment that is known whole, and running from there: to a checkpoint
 * on the tape, or to one of those that the timeline itself keeps in memory, ever denser towards where it was sent last.
 *
 * It stands between two steps of the machine. A position amid a step (between a #VMEXIT and what the same instruction states
 * after it) is none of its places: whoever asks for one gets the last place before it.
 */
import {
  type Chunk,
  comparePositions,
  formatPosition,
  type JournalReader,
  type Position,
  START,
} from '../journal/index.js';
import { type EventSink, FIRST_EPOCH, type Hit, type Machine, PAGE_BYTES, type StopPoints } from '../machine/index.js';
import { ArmedFollower, type Found } from './armed-follower.js';
import { type Moment, Moments } from './moments.js';
import { decodePoint } from './point-codec.js';
import { boundaryBefore } from './position-pattern.js';
import { type PageRef, putPage, RamImage } from './ram-image.js';
import { runCost } from './run-cost.js';
import { PastEnd, TapeFollower } from './tape-follower.js';
import type { WatchedValue } from './watched-value.js';
import { Cancelled, type Control, finish, type Work } from './work.js';

/** Nanoseconds of running below which moments are not worth their place. */
const DENSEST = 100_000;
/** Moments on a long way, where the tape has no checkpoints. */
const SPARSEST = 120_000_000;

/** Nanoseconds of running that are worth looking for another way. */
const WORTH_SKIPPING = 5_000_000;

/** Instructions of which all places are noted when one goes back among them. */
const TRAIL = 32n;

export interface HitPlace extends Found {
  readonly position: Position;
}

export type Stop =
  | ({ readonly kind: 'hit' } & Found)
  /** The end of the tape, or backwards its start. */
  | { readonly kind: 'end' };

export class Timeline {
  private readonly moments: Moments;
  /** RAM when the epoch began. */
  private image: RamImage;
  private epoch = FIRST_EPOCH;
  private last: Position | undefined;
  protected readonly search: ArmedFollower;
  /** Neighbouring places, each the next one of the one before. */
  private trail: readonly Position[] = [];
  /** Stretches of the tape without a hit of what is looked for, between moments. */
  private readonly searched = new Set<string>();

  /** Stands at the start. @throws InputError when this vmtape cannot make the machine of the tape. */
  constructor(
    protected readonly reader: JournalReader,
    private readonly follower: TapeFollower = new TapeFollower(reader),
  ) {
    this.search = new ArmedFollower(this.follower, reader);
    const origin = reader.origin();
    this.image = origin ? RamImage.of(origin.pages) : RamImage.zeros(this.machine.memory.keptBytes / PAGE_BYTES);
    if (origin !== undefined) this.epoch = this.machine.memory.newEpoch();
    const start: Moment = { position: this.position, point: this.machine.capture(), image: this.image };
    this.moments = new Moments(start, reader.checkpoints());
  }

  /** It stands where the timeline does. Only to be looked at. */
  get machine(): Machine {
    return this.follower.machine;
  }

  get position(): Position {
    return this.follower.position;
  }

  /** The first place of the tape. */
  get start(): Position {
    return this.reader.start;
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
    this.search.observe(sink);
  }

  // Going somewhere

  /** @returns the place that it stands at: the last one at or before `to`, which may be where a run to there ends. */
  seek(to: Position, control?: Control): Position {
    return finish(this.seeking(to), control);
  }

  /** `seek` as work. */
  *seeking(to: Position): Work<Position> {
    this.search.disarm();
    const target = comparePositions(to, this.end) > 0 ? this.end : to;
    return yield* this.orBack(this.settleAt(target));
  }

  private *settleAt(target: Position): Work<Position> {
    yield* this.approach(target);
    if (comparePositions(this.position, target) > 0 && !this.endsRunAt(target)) {
      const before = yield* this.placeBefore(this.position);
      yield* this.approach(before);
    }
    return this.position;
  }

  /** @returns the place that it stands at: the first one at which so many instructions have retired, or the end. */
  seekInstruction(icount: bigint, control?: Control): Position {
    return finish(this.seekingInstruction(icount), control);
  }

  /** `seekInstruction` as work. */
  *seekingInstruction(icount: bigint): Work<Position> {
    this.search.disarm();
    const chunk = this.reader.chunkAtIcount(icount);
    // No more than a lower bound for the number of events, and what is likely.
    const target = { icount, seq: chunk?.start.seq ?? 0n };
    const estimate = { icount, seq: chunk === undefined ? 0n : likelySeq(chunk, icount) };
    const isBeyond = comparePositions(target, this.end) > 0;
    yield* this.orBack(isBeyond ? this.approach(this.end) : this.approach(target, estimate));
    return this.position;
  }

  /** Whether nothing has happened since `target` but that a run was stated. */
  private endsRunAt({ icount, seq }: Position): boolean {
    const { position } = this;
    if (position.icount !== icount || position.seq !== seq + 1n) return false;
    return this.reader.records(seq).next().value?.event.type === 'cpu.ran';
  }

  /** @returns the place that it stands at: the first one at or after `to`, or the end. */
  reach(to: Position): Position {
    this.search.disarm();
    finish(this.orBack(this.approach(comparePositions(to, this.end) > 0 ? this.end : to)));
    return this.position;
  }

  /** One step forwards. @returns false at the end. */
  step(): boolean {
    if (comparePositions(this.position, this.end) >= 0) return false;
    this.search.disarm();
    this.follower.step();
    return true;
  }

  /** One step backwards. @returns false at the start. */
  stepBack(control?: Control): boolean {
    return finish(this.steppingBack(), control);
  }

  /** `stepBack` as work. */
  *steppingBack(): Work<boolean> {
    if (comparePositions(this.position, this.reader.start) <= 0) return false;
    this.search.disarm();
    yield* this.orBack(this.goBack());
    return true;
  }

  private *goBack(): Work<void> {
    const before = yield* this.placeBefore(this.position);
    yield* this.approach(before);
  }

  // Going on until something happens

  /** What `runForward` and `runBackward` stop at (`Stops`). */
  stopAt(points: StopPoints, values: readonly WatchedValue[] = [], accepts: (hit: Hit) => boolean = () => true): void {
    this.search.lookFor({ points, values, accepts });
    this.searched.clear();
  }

  /** Runs to the next stop point after this place, or to `to`. */
  runForward(control?: Control, to?: Position): Stop {
    return finish(this.runningForward(to), control);
  }

  /** `runForward` as work. @param to amid a step is the place before that step. */
  *runningForward(to: Position = this.end): Work<Stop> {
    return yield* this.orBack(this.findForward(to));
  }

  private *findForward(to: Position): Work<Stop> {
    let checked = this.position.seq;
    this.search.arm();
    this.machine.setOut();
    while (!this.isAtOrPast(to)) {
      yield this.position;
      if (this.search.onlyEventsHit && this.position.seq >= checked) checked = yield* this.skipTowards(to);
      this.search.arm();
      const found = this.search.run(to);
      this.keepOnTheWay();
      if (found !== undefined && !this.isPast(to)) return { kind: 'hit', ...found };
    }
    if (this.isPast(to)) {
      this.search.disarm();
      yield* this.settleAt(to);
    }
    return { kind: 'end' };
  }

  private isAtOrPast(to: Position): boolean {
    const { icount, seq } = this.position;
    if (comparePositions(this.position, to) >= 0) return true;
    // What ran until here is stated by the step that follows; at the end of the tape by none.
    const isAt = icount === to.icount && seq + 1n === to.seq && this.machine.hasPendingRun;
    return isAt && comparePositions(to, this.end) < 0;
  }

  private isPast(to: Position): boolean {
    return comparePositions(this.position, to) > 0 && !this.endsRunAt(to);
  }

  /** Goes ahead to before the next event that may be a hit, where that is far. @returns the number of that event. */
  private *skipTowards(to: Position): Work<bigint> {
    const next = yield* this.search.nextSuspect(this.position, to);
    const place = next === undefined ? to : boundaryBefore(next);
    if (runCost(this.position, place) > WORTH_SKIPPING) {
      this.search.disarm();
      yield* this.settleAt(place);
    }
    return (next?.position.seq ?? to.seq) + 1n;
  }

  /** Goes back to the last stop point before this place, or to the start. */
  runBackward(control?: Control): Stop {
    return finish(this.runningBackward(), control);
  }

  /**
   * `runBackward` as work. @param from where to stop when there was no stop point after it.
   * @param inclusive whether an access or a change counts that the last step before this place made.
   */
  *runningBackward(from: Position = this.reader.start, inclusive = false): Work<Stop> {
    return yield* this.orBack(this.findBackward(from, inclusive));
  }

  private *findBackward(first: Position, inclusive: boolean): Work<Stop> {
    let to = this.position;
    let includesEnd = inclusive;
    while (comparePositions(to, first) > 0) {
      const from = this.moments.before(to);
      const found = yield* this.lastHit(from, to, includesEnd);
      if (found !== undefined && comparePositions(found.position, first) > 0) {
        this.search.disarm();
        yield* this.approach(found.position);
        return { kind: 'hit', hits: found.hits, changes: found.changes };
      }
      to = from;
      includesEnd = true;
    }
    this.search.disarm();
    yield* this.settleAt(first);
    return { kind: 'end' };
  }

  /**
   * The last stop point in a stretch, of which `from` is a place; the timeline stands somewhere in it then.
   * @param inclusive whether an access or a change counts that ends there.
   */
  *lastHit(from: Position, to: Position, inclusive = false): Work<HitPlace | undefined> {
    const stretch = `${formatPosition(from)}-${formatPosition(to)}${inclusive}`;
    if (this.searched.has(stretch)) return undefined;
    this.search.disarm();
    const start = this.search.onlyEventsHit ? yield* this.firstSuspicion(from, to) : from;
    if (start !== undefined) {
      yield* this.settleAt(start);
      this.search.arm();
    }
    let last: HitPlace | undefined;
    while (start !== undefined && comparePositions(this.position, to) < 0) {
      yield this.position;
      const found = this.search.run(to);
      this.keepOnTheWay();
      const order = comparePositions(this.position, to);
      const isBreakpoint = found?.hits[0]?.kind === 'code';
      const counts = order < 0 || (inclusive && order === 0 && !isBreakpoint);
      if (found !== undefined && counts) last = { position: this.position, ...found };
    }
    if (last === undefined) this.searched.add(stretch);
    return last;
  }

  /** Where in a stretch to begin looking; undefined when no event of it may be a hit. */
  private *firstSuspicion(from: Position, to: Position): Work<Position | undefined> {
    const suspect = yield* this.search.nextSuspect(from, to);
    if (suspect === undefined) return undefined;
    const place = boundaryBefore(suspect);
    return comparePositions(place, from) > 0 ? place : from;
  }

  // The way

  /**
   * Goes to the first place at or after `target`, and keeps moments on the way.
   * @param estimate about the same place, where its number of events is better known.
   */
  private *approach(target: Position, estimate = target): Work<void> {
    const nearest = this.moments.atOrBefore(target);
    const here = this.position;
    const ahead = comparePositions(here, target) <= 0 && comparePositions(here, nearest) >= 0;
    if (!ahead) this.enter(this.load(nearest));
    if (comparePositions(this.position, START) === 0) yield* this.leaveStart(target);
    while (yield* this.goHalfWay(target, estimate)) this.keep();
    yield* this.runWhile((at) => comparePositions(at, target) < 0, target);
  }

  /** @returns false when the rest is so short that it is not worth a moment. */
  private *goHalfWay(target: Position, estimate: Position): Work<boolean> {
    const start = this.position;
    if (comparePositions(start, target) >= 0 || runCost(start, estimate) / 2 <= DENSEST) return false;
    const half = middle(start, estimate);
    // Where few events are expected, or none is known of, instructions alone tell how far it is; or the other way round.
    const byEvents = half.seq > start.seq;
    const byInstructions = half.icount > start.icount;
    yield* this.runWhile(
      (at) =>
        comparePositions(at, target) < 0 &&
        (!byInstructions || at.icount < half.icount) &&
        (!byEvents || at.seq < half.seq),
      { icount: byInstructions ? half.icount : target.icount, seq: byEvents ? half.seq : target.seq },
    );
    return true;
  }

  /** As `approach`, whatever the machine has done since it was at a place. */
  protected *reentering(target: Position): Work<void> {
    this.enter(this.load(this.moments.atOrBefore(target)));
    yield* this.approach(target);
  }

  /** Before the image is loaded there is no code; a way that begins after it finds what is decoded still there. */
  private *leaveStart(target: Position): Work<void> {
    const first = { icount: 1n, seq: target.seq };
    yield* this.runWhile((at) => at.icount === 0n && comparePositions(at, target) < 0, first);
    if (this.position.icount > 0n) this.keep();
  }

  private *runWhile(goesOn: (at: Position) => boolean, stop: Position): Work<void> {
    while (goesOn(this.position)) {
      yield this.position;
      this.follower.run(stop);
      this.keepOnTheWay();
    }
  }

  /** The last place before `position`, which is one. */
  private *placeBefore(position: Position): Work<Position> {
    const known = this.trail.findIndex((place) => comparePositions(place, position) === 0);
    if (known > 0) return this.trail[known - 1] as Position;
    // Some instructions back and then step by step; a place where much happened without an instruction has many steps.
    const earlier = { icount: position.icount > TRAIL ? position.icount - TRAIL : 0n, seq: 0n };
    const base = this.moments.before(position);
    const from = comparePositions(base, earlier) > 0 ? base : { icount: earlier.icount, seq: base.seq };
    yield* this.approach(from, position);
    this.keep();
    const trail = [this.position];
    while (comparePositions(this.position, position) < 0) {
      yield this.position;
      this.keepOnTheWay();
      this.follower.step();
      trail.push(this.position);
    }
    this.trail = trail;
    return trail.at(-2) as Position;
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
    finish(this.reentering(here));
    return before;
  }

  /** Steps from a place until the tape ends. @returns the place before the step that it ends in. */
  private lastStepFrom(place: Position): Position {
    finish(this.reentering(place));
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
          image: RamImage.of(checkpoint.pages, this.image),
        }
      );
    });
  }

  private enter({ position, point, image }: Moment): void {
    const { memory } = this.machine;
    const changed = new Set<number>(memory.pagesWrittenSince(this.epoch));
    for (const page of this.image.differences(image)) changed.add(page);
    for (const page of changed) putPage(memory, page, this.contentOf(image.at(page)));
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

  protected keepOnTheWay(): void {
    const { position } = this;
    if (runCost(this.moments.atOrBefore(position), position) > SPARSEST) this.keep();
  }

  // Giving up

  /** Does long work; when it is given up, all is as before. */
  protected *orBack<Result>(work: Work<Result>): Work<Result> {
    const { position } = this;
    try {
      return yield* work;
    } catch (error) {
      if (!(error instanceof Cancelled)) throw error;
      this.search.disarm();
      yield* this.approach(position);
      throw error;
    }
  }
}

const ZEROS = new Uint8Array(PAGE_BYTES);

/** The place half way between two, as far as one can tell from outside. */
const middle = (from: Position, to: Position): Position => ({
  icount: from.icount + (to.icount - from.icount) / 2n,
  seq: from.seq + (to.seq - from.seq) / 2n,
});

/** How many events there are before an instruction of a chunk, were they evenly spread. */
function likelySeq({ start, end }: Chunk, icount: bigint): bigint {
  const instructions = end.icount - start.icount;
  return instructions === 0n ? start.seq : start.seq + ((end.seq - start.seq) * (icount - start.icount)) / instructions;
}

/**
 * What a timeline looks for, and a follower that is made to stop there. Armed, the machine leaves what is looked for to the
 * control plane; else it runs at full speed, and nothing shows.
 */
import type { JournalReader, JournalRecord, Position } from '../journal/index.js';
import { type EventSink, type Hit, NO_STOP_POINTS, type StatedEvent, type StopPoints } from '../machine/index.js';
import { nextEvent } from './event-search.js';
import type { TapeFollower } from './tape-follower.js';
import { type Change, NO_CHANGES, ValueWatch } from './value-watch.js';
import type { WatchedValue } from './watched-value.js';
import type { Work } from './work.js';

/** What a run stops at: a breakpoint before its instruction, accesses and changes after the step that made them. */
export interface Found {
  readonly hits: readonly Hit[];
  readonly changes: readonly Change[];
}

/** What is looked for. */
export interface Stops {
  readonly points: StopPoints;
  /** Those whose changes stop; none that any instruction may change. */
  readonly values: readonly WatchedValue[];
  /** Says of each hit of `points`, with the machine where it is, whether it is one. */
  readonly accepts: (hit: Hit) => boolean;
}

const NO_STOPS: Stops = { points: NO_STOP_POINTS, values: [], accepts: () => true };

export class ArmedFollower {
  private stops = NO_STOPS;
  private armed = false;
  /** What looks at the values while they are armed. */
  private valueWatch: ValueWatch | undefined;
  private observer: EventSink | undefined;

  constructor(
    private readonly follower: TapeFollower,
    private readonly reader: JournalReader,
  ) {}

  /** From now on, and disarmed. */
  lookFor(stops: Stops): void {
    this.disarm();
    this.stops = stops;
  }

  observe(sink: EventSink): void {
    this.observer = sink;
    this.follower.observe = sink;
  }

  arm(): void {
    if (this.armed) return;
    this.armed = true;
    const { machine } = this.follower;
    const { points, values } = this.stops;
    const ranges = values.flatMap((value) => value.ranges);
    machine.stopAt(ranges.length === 0 ? points : { ...points, writes: [...points.writes, ...ranges] });
    if (values.length === 0) return;
    const watch = new ValueWatch(values, machine);
    this.valueWatch = watch;
    machine.watch(watch);
    this.follower.observe = (stated: StatedEvent) => {
      this.observer?.(stated);
      watch.stated(stated);
    };
  }

  disarm(): void {
    if (!this.armed) return;
    this.armed = false;
    const { machine } = this.follower;
    machine.stopAt(NO_STOP_POINTS);
    if (this.valueWatch === undefined) return;
    this.valueWatch = undefined;
    machine.watch(undefined);
    this.follower.observe = this.observer;
  }

  /** Runs on, as the follower does. @returns what it stopped at. */
  run(to: Position): Found | undefined {
    return this.found(this.follower.run(to));
  }

  /** What of a run's hits is looked for, and what has changed in it. */
  found(hits: readonly Hit[]): Found | undefined {
    const { valueWatch } = this;
    const { values, accepts } = this.stops;
    const own: Hit[] = [];
    for (const hit of hits) {
      if (hit.kind === 'write' && values.some(({ ranges }) => ranges.includes(hit.range))) valueWatch?.written();
      else if (accepts(hit)) own.push(hit);
    }
    const changes = valueWatch?.take() ?? NO_CHANGES;
    return own.length + changes.length > 0 ? { hits: own, changes } : undefined;
  }

  /** Whether reading the tape tells where there can be no hit. */
  get onlyEventsHit(): boolean {
    const { code, writes, reads } = this.stops.points;
    if (code.size + writes.length + reads.length > 0) return false;
    return this.stops.values.every(({ grain, ranges }) => grain === 'event' && ranges.length === 0);
  }

  /** The next event that may be a hit, in a stretch of the tape. */
  *nextSuspect(from: Position, to: Position): Work<JournalRecord | undefined> {
    const { values } = this.stops;
    const found = yield* nextEvent(
      this.reader,
      from.seq,
      (event, { position, vcpu }) => position.seq >= to.seq || values.some((value) => value.suspects(event, vcpu)),
    );
    return found !== undefined && found.position.seq < to.seq ? found : undefined;
  }
}

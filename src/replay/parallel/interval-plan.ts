/**
 * Which interval of a tape is replayed next, by whom. Places where a replay can begin cut the tape into stretches; each of the
 * jobs goes through one from its start, in intervals that become shorter towards its end. Who has come to the end of his takes
 * over the second half of what is left of the longest one. So all end at about the same time, however wrong the reckoning of
 * costs is.
 */
import type { Position } from '../../journal/index.js';
import { runCost } from '../run-cost.js';

/** From one place to a later one, by their numbers. */
export interface Interval {
  readonly from: number;
  readonly to: number;
}

interface Stretch {
  /** Where what nobody has begun with starts, and where it ends. */
  next: number;
  end: number;
  begun: boolean;
}

/** Nanoseconds that an interval should cost at least, and at most: what is under way cannot be taken over, and handing out takes time. */
const SHORTEST = 120_000_000;
const LONGEST = 1_000_000_000;
/** The part of what is left that is handed out at once. */
const SHARE = 1 / 4;

export class IntervalPlan {
  /** What it costs to run to each place. */
  private readonly costs: readonly number[];
  private readonly stretches: Stretch[] = [];

  /** @param places ascending: where a replay can begin, and the end. */
  constructor(places: readonly Position[], jobs: number) {
    const costs: number[] = [];
    for (const [index, place] of places.entries()) {
      costs.push((costs.at(-1) ?? 0) + (index === 0 ? 0 : runCost(places[index - 1] as Position, place)));
    }
    this.costs = costs;
    const last = places.length - 1;
    for (let job = 0, next = 0; job < jobs && next < last; job++) {
      const end = job === jobs - 1 ? last : this.nearest((this.cost(0, last) * (job + 1)) / jobs, next + 1, last);
      this.stretches.push({ next, end, begun: false });
      next = end;
    }
  }

  /** How many can be at work at first. */
  get begins(): number {
    return this.stretches.length;
  }

  /** @param at the place where who asks stands, if he does. @returns undefined when there is nothing for him to do. */
  next(at?: number): Interval | undefined {
    const left = this.stretches.filter(({ next, end }) => next < end);
    const own = left.find(({ next, begun }) => begun && next === at) ?? left.find(({ begun }) => !begun);
    const stretch = own ?? this.half(left);
    if (stretch === undefined) return undefined;
    stretch.begun = true;
    const from = stretch.next;
    const length = Math.min(LONGEST, Math.max(SHORTEST, SHARE * this.cost(from, stretch.end)));
    const to = this.nearest((this.costs[from] as number) + length, from + 1, stretch.end);
    // What is too short to be shared is no interval of its own.
    stretch.next = this.cost(to, stretch.end) < 2 * SHORTEST ? stretch.end : to;
    return { from, to: stretch.next };
  }

  /** Nothing that begins at this place or later is of interest any more. */
  cut(place: number): void {
    for (const stretch of this.stretches) stretch.end = Math.min(stretch.end, Math.max(stretch.next, place));
  }

  /** Takes the second half of the longest stretch, if it is worth the way there. */
  private half(left: readonly Stretch[]): Stretch | undefined {
    const longest = left.reduce<Stretch | undefined>(
      (best, each) => (best && this.cost(best.next, best.end) >= this.cost(each.next, each.end) ? best : each),
      undefined,
    );
    if (longest === undefined || longest.end - longest.next < 2) return undefined;
    const { next, end } = longest;
    if (this.cost(next, end) < 2 * SHORTEST) return undefined;
    const middle = this.nearest(((this.costs[next] as number) + (this.costs[end] as number)) / 2, next + 1, end - 1);
    longest.end = middle;
    const taken = { next: middle, end, begun: false };
    this.stretches.push(taken);
    return taken;
  }

  private cost(from: number, to: number): number {
    return (this.costs[to] as number) - (this.costs[from] as number);
  }

  /** The place whose cost is nearest to a sum, of those between two. */
  private nearest(cost: number, first: number, last: number): number {
    let best = first;
    for (let place = first + 1; place <= last; place++) {
      if (Math.abs((this.costs[place] as number) - cost) < Math.abs((this.costs[best] as number) - cost)) best = place;
    }
    return best;
  }
}

/** Work in pieces, so that whoever has it done stays awake and may give it up. */
import type { Position } from '../journal/index.js';

/** What long work says and hears. */
export interface Control {
  /** Called every few milliseconds. @returns true to give up. */
  readonly tick?: (at: Position) => boolean;
}

/**
 * Long work, in pieces of a few milliseconds: after each it says how far it is. Whoever drives it may throw `Cancelled` into
 * it, and drive it on to the end, which is where it began; or leave a run forwards where it is, by `return`. Nothing else may
 * be done with the timeline in between.
 */
export type Work<Result> = Generator<Position, Result, void>;

/** Thrown when `Control.tick` gives up; the timeline stands where it was before. */
export class Cancelled extends Error {
  override name = 'Cancelled';
}

/** Does work in one go. @throws Cancelled when `tick` gives up, once all is as before. */
export function finish<Result>(work: Work<Result>, { tick }: Control = {}): Result {
  let next = work.next();
  let asks = tick !== undefined;
  while (next.done !== true) {
    const givesUp = asks && tick?.(next.value) === true;
    if (givesUp) asks = false;
    next = givesUp ? work.throw(new Cancelled('the search was given up')) : work.next();
  }
  return next.value;
}

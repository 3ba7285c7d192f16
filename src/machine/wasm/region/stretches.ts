/**
 * Cuts runs of the engine into stretches, to see where the time goes: at the end of each the interpreter stands where it has
 * been running. It costs nothing in between, and a region that runs is seldom disturbed.
 */

import { MAX_BLOCK_INSTRUCTIONS } from '../uop.js';
import type { RegionPolicy } from './policy.js';

/** Instructions of the interpreter between two looks. */
const SHORT = 1 << 18;
/** The same while regions run. */
const LONG = 1 << 22;
/** A stretch is never so short that it would not be worth entering the engine. */
const LEAST = 1 << 12;
/** Instructions of the first stretches where whatever runs is compiled: more than a block has. */
const SHORTEST = 100;
const SHORTEST_STRETCHES = 4096;

export class Stretches {
  /** What of the budget comes after the stretch that runs. */
  reserve = 0;
  /** Instructions since the last look, before this run. */
  private since = 0;
  /** Of the run, before the stretch that runs; undefined in its first one. */
  private before: number | undefined;
  private taken = 0;
  private length: number;
  /** Stretches until they become longer. */
  private shortest: number;
  private lengths: { readonly short: number; readonly long: number; readonly least: number } | undefined;

  constructor(policy: RegionPolicy) {
    if (policy === 'hot') this.lengths = { short: SHORT, long: LONG, least: LEAST };
    else if (policy === 'always') this.lengths = { short: SHORTEST, long: SHORTEST, least: SHORTEST };
    else if (policy === 'at-once') this.lengths = { short: 0, long: 0, least: LEAST };
    this.shortest = policy === 'always' ? SHORTEST_STRETCHES : 0;
    this.length = this.lengths?.short ?? 0;
  }

  /** A stretch has ended by runs that were too short to be cut: the look is due before the next one. */
  get isDue(): boolean {
    return this.lengths !== undefined && this.since >= this.length;
  }

  /** @returns the budget of the first stretch of a run. */
  begin(budget: number): number {
    this.reserve = budget;
    this.before = undefined;
    if (this.isDue) this.renew(false);
    // Where nothing is compiled there is one stretch: runs are not looked at.
    return this.take(this.lengths === undefined ? budget : Math.max(this.length - this.since, this.lengths.least));
  }

  /** @param inRegion whether a region ran at its end. @returns the budget of the next stretch. */
  next(inRegion: boolean): number {
    this.before = (this.before ?? 0) + this.taken;
    this.renew(inRegion);
    return this.take(this.length);
  }

  private renew(inRegion: boolean): void {
    if (this.shortest > 0 && --this.shortest === 0) this.lengths = { short: LEAST, long: LEAST, least: LEAST };
    this.since = 0;
    this.length = (inRegion ? this.lengths?.long : this.lengths?.short) ?? 0;
  }

  /** What would be less than a block afterwards comes along. */
  private take(instructions: number): number {
    this.taken = this.reserve < instructions + MAX_BLOCK_INSTRUCTIONS ? this.reserve : instructions;
    this.reserve -= this.taken;
    return this.taken;
  }

  /** The run ended. */
  ran(instructions: number): void {
    this.since += instructions - (this.before ?? 0);
  }
}

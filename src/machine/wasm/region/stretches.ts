/**
 * Cuts runs of the engine into stretches, to see where the time goes: at the end of each the interpreter stands where it has
 * been running. It costs nothing in between, and a region that runs is seldom disturbed.
 */

/** Instructions of the interpreter between two looks. */
const SHORT = 1 << 18;
/** The same while regions run. */
const LONG = 1 << 22;
/** A stretch is never so short that it would not be worth entering the engine. */
const LEAST = 1 << 12;

export class Stretches {
  /** Off, there is one stretch: runs are not looked at. */
  enabled = true;
  /** What of the budget comes after the stretch that runs. */
  reserve = 0;
  /** Instructions to the next look. */
  private left = SHORT;
  private length = SHORT;

  /** @returns the budget of the first stretch of a run. */
  begin(budget: number): number {
    const first = this.enabled ? Math.min(budget, Math.max(this.left, LEAST)) : budget;
    this.reserve = budget - first;
    return first;
  }

  /** @param inRegion whether a region ran at its end. @returns the budget of the next stretch. */
  next(inRegion: boolean): number {
    this.length = inRegion ? LONG : SHORT;
    const budget = Math.min(this.reserve, this.length);
    this.reserve -= budget;
    return budget;
  }

  /** The run ended. */
  ran(instructions: number): void {
    this.left = (this.left > instructions ? this.left : this.left + this.length) - instructions;
    if (this.left < 0) this.left = this.length;
  }
}

/**
 * Watches values while a machine runs along a tape: looks at each of them after whatever may have changed it, and has the
 * machine stop at the end of the step that did. What a step changes and changes back is no change.
 */
import type { ExecutionWatcher, Machine, StatedEvent } from '../machine/index.js';
import type { WatchedValue } from './watched-value.js';

/** A value that a step has changed. */
export interface Change {
  readonly value: WatchedValue;
  readonly old: string;
  readonly new: string;
}

export const NO_CHANGES: readonly Change[] = [];

export class ValueWatch implements ExecutionWatcher {
  private readonly known: string[];
  /** Some value may be another than the one known. */
  private suspicious = false;
  private readonly amidRuns: readonly WatchedValue[];

  /** Begins with the values as they are. */
  constructor(
    private readonly values: readonly WatchedValue[],
    private readonly machine: Machine,
  ) {
    this.known = values.map((value) => value.read(machine));
    this.amidRuns = values.filter(({ grain }) => grain === 'control');
  }

  /** An event was applied. */
  stated({ event, vcpu }: StatedEvent): void {
    if (this.values.some((value) => value.suspects(event, vcpu))) this.suspect();
  }

  /** RAM that some value lies in was written to. */
  written(): void {
    this.suspicious = true;
  }

  private suspect(): void {
    this.suspicious = true;
    if (this.values.some((value, index) => value.read(this.machine) !== this.known[index])) this.machine.pause();
  }

  /** What has changed since the last call. */
  take(): readonly Change[] {
    if (!this.suspicious) return NO_CHANGES;
    this.suspicious = false;
    return this.values.flatMap((value, index): readonly Change[] => {
      const [old, now] = [this.known[index] as string, value.read(this.machine)];
      this.known[index] = now;
      return old === now ? [] : [{ value, old, new: now }];
    });
  }

  // ExecutionWatcher

  begins(): void {}
  completes(): void {}

  /** An instruction of the control plane retired as part of a run. */
  retired(): void {
    if (this.amidRuns.length > 0) this.suspect();
  }
}

/** What #VMEXITs cost, from the events of a session: how many instructions L1 runs from each to its next VMRUN, and how long that takes here. */
import type { Level, StatedEvent } from '../../src/machine/index.js';

export interface ExitCost {
  readonly code: bigint;
  count: number;
  /** Of L1, from the exits to the VMRUN after each. */
  instructions: number;
  /** Of the host, from one event to the other. */
  seconds: number;
}

export class ExitCosts {
  readonly instructions: Record<Level, number> = { 1: 0, 2: 0 };
  readonly seconds: Record<Level, number> = { 1: 0, 2: 0 };
  private readonly costs = new Map<bigint, ExitCost>();
  /** The exit of each vCPU that L1 has not answered yet. */
  private readonly open: (ExitCost | undefined)[] = [];
  private last: number;

  /** @param clock in seconds. */
  constructor(private readonly clock: () => number) {
    this.last = clock();
  }

  take({ retired, vcpu, level, event }: StatedEvent): void {
    const now = this.clock();
    const seconds = now - this.last;
    this.last = now;
    this.instructions[level] += retired;
    this.seconds[level] += seconds;
    const open = this.open[vcpu];
    if (open !== undefined) {
      open.instructions += retired;
      open.seconds += seconds;
    }
    if (event.type === 'svm.vmexit') this.open[vcpu] = this.exited(event.code);
    else if (event.type === 'svm.vmrun') this.open[vcpu] = undefined;
  }

  private exited(code: bigint): ExitCost {
    const known = this.costs.get(code);
    const cost = known ?? { code, count: 0, instructions: 0, seconds: 0 };
    if (known === undefined) this.costs.set(code, cost);
    cost.count++;
    return cost;
  }

  /** Those that took most of L1's instructions first. */
  get exits(): readonly ExitCost[] {
    return [...this.costs.values()].sort((a, b) => b.instructions - a.instructions || b.count - a.count);
  }
}

/**
 * Chaos: perturbs a session in what the architecture leaves open, and in nothing else: whose turn it is and for how long,
 * when an interrupt that may be taken is taken, by how much the time-stamp counters of several vCPUs differ.
 *
 * A *plan* says at which instruction counts something happens. Each perturbation that comes true is an input on the tape;
 * so a tape replays without the plan, and a plan can be cut down and tried again.
 */
import { type ChaosInput, type Machine, unreachable } from '../machine/index.js';
import { type Range, SplitMix64 } from './split-mix.js';

/** What happens when `at` instructions have retired in all. */
export type Perturbation =
  /** vCPU `vcpu` gets the turn if it can run, else the current one gets another, for so many instructions. */
  | { readonly at: number; readonly kind: 'turn'; readonly vcpu: number; readonly instructions: number }
  /** The vCPU takes no interrupts for so long. */
  | { readonly at: number; readonly kind: 'hold'; readonly vcpu: number; readonly nanoseconds: number }
  /** The vCPU's time-stamp counter is so many ticks ahead from now on, or behind. */
  | { readonly at: number; readonly kind: 'skew'; readonly vcpu: number; readonly ticks: number };

/** Perturbations in order of `at`, one instruction count each; may go on for ever. */
export type Plan = Iterable<Perturbation>;

/** Most that two time-stamp counters drift apart: what a system bus takes to tell one processor the other's time. */
const MOST_SKEW_TICKS = 500;

/** Instructions between two perturbations. Each plan has its own most: some crowd one critical section, some a session. */
const LEAST_GAP = 20;
const GAP_OCTAVES: Range = { least: 7, most: 16 };
const TURN_INSTRUCTIONS: Range = { least: 1, most: 100_000 };
const HOLD_NANOSECONDS: Range = { least: 50, most: 2_000_000 };

/**
 * The plan that a seed stands for.
 * @param seed 64 bits. @param vcpus how many the machine has: one vCPU has no turns, nor anyone to differ from.
 */
export function* randomPlan(seed: bigint, vcpus: number): Generator<Perturbation> {
  const random = new SplitMix64(seed);
  const octaves = GAP_OCTAVES.least + random.below(GAP_OCTAVES.most - GAP_OCTAVES.least);
  const gap: Range = { least: LEAST_GAP, most: LEAST_GAP * 2 ** octaves };
  for (let at = random.spread(gap); ; at += random.spread(gap)) {
    const vcpu = random.below(vcpus);
    const kind = vcpus === 1 ? 'hold' : (['turn', 'turn', 'hold', 'skew'] as const)[random.below(4)];
    switch (kind) {
      case 'turn':
        yield { at, kind, vcpu, instructions: random.spread(TURN_INSTRUCTIONS) };
        break;
      case 'skew':
        yield { at, kind, vcpu, ticks: random.below(2 * MOST_SKEW_TICKS + 1) - MOST_SKEW_TICKS };
        break;
      default:
        yield { at, kind: 'hold', vcpu, nanoseconds: random.spread(HOLD_NANOSECONDS) };
    }
  }
}

/** Carries a plan out. */
export class Chaos {
  private readonly plan: Iterator<Perturbation>;
  private next: Perturbation | undefined;
  private readonly skews: number[];
  /** What has come true. */
  readonly done: Perturbation[] = [];

  constructor(
    plan: Plan,
    private readonly machine: Machine,
  ) {
    this.plan = plan[Symbol.iterator]();
    this.skews = machine.state.vcpus.map(() => 0);
    this.take();
  }

  /** Where the machine must stop next; infinite when the plan is done. */
  get nextStop(): number {
    return this.next?.at ?? Number.POSITIVE_INFINITY;
  }

  /** Does what is due at the machine's instruction count. */
  perturb(): void {
    while (this.next !== undefined && this.next.at <= this.machine.retired) {
      // Each is an input, whatever comes of it: the machine has stopped for it, and must do so in a replay.
      this.machine.deliver(this.inputOf(this.next));
      this.done.push(this.next);
      this.take();
    }
  }

  private inputOf(perturbation: Perturbation): ChaosInput {
    const { machine } = this;
    switch (perturbation.kind) {
      case 'turn': {
        const { vcpu, instructions } = perturbation;
        const to = machine.canRun(vcpu) ? vcpu : machine.vcpu;
        return { type: 'input.turn', to, until: machine.retired + instructions };
      }
      case 'hold':
        return { type: 'input.hold', target: perturbation.vcpu, until: machine.now + perturbation.nanoseconds };
      case 'skew': {
        const { vcpu, ticks } = perturbation;
        const moved = ticks - (this.skews[vcpu] as number);
        this.skews[vcpu] = ticks;
        return { type: 'input.skew', target: vcpu, ticks: BigInt.asUintN(64, BigInt(moved)) };
      }
      default:
        return unreachable(perturbation);
    }
  }

  private take(): void {
    const { done, value } = this.plan.next();
    this.next = done === true ? undefined : value;
  }
}

/** Whether a session that these perturbations happen to still shows what is looked for. */
export type Trial = (plan: readonly Perturbation[]) => boolean;

/**
 * Leaves out perturbations as long as `trial` says yes, halves first, then ever smaller parts (Zeller and Hildebrandt's
 * delta debugging). The result is one-minimal: without any single one of them the trial says no.
 * @param tried called before each trial with how many perturbations are left, for progress.
 */
export function shrinkPlan(
  plan: readonly Perturbation[],
  trial: Trial,
  tried: (left: number) => void = () => {},
): readonly Perturbation[] {
  let left = plan;
  for (let parts = 2; left.length > 0; ) {
    const size = Math.ceil(left.length / parts);
    const kept = chunkStarts(left.length, size)
      .map((start) => [...left.slice(0, start), ...left.slice(start + size)])
      .find((shorter) => {
        tried(left.length);
        return trial(shorter);
      });
    if (kept !== undefined) {
      left = kept;
      parts = Math.max(2, parts - 1);
    } else if (size === 1) return left;
    else parts = Math.min(left.length, 2 * parts);
  }
  return left;
}

const chunkStarts = (length: number, size: number): readonly number[] =>
  Array.from({ length: Math.ceil(length / size) }, (_, index) => index * size);

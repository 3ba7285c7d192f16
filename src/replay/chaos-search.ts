/**
 * Looks for a seed of chaos under which a session comes out otherwise, and for the fewest perturbations that do it.
 *
 * How a session comes out is its *verdict*: how it ended, and whether its console has said what is looked for. Nothing is
 * recorded here: a session is a function of its options and its plan, so the caller records it again.
 */
import type { EndReason } from '../machine/index.js';
import { type Perturbation, type Plan, randomPlan, shrinkPlan } from './chaos.js';
import { LiveSession, type SessionOptions } from './live-session.js';

export interface Verdict {
  /** `limit`: it ran longer than it may. */
  readonly ended: EndReason | 'limit';
  /** The guest's own status; 0 without one. */
  readonly status: number;
  /** The console has shown the pattern. */
  readonly matched: boolean;
}

export interface TriedSession extends SessionOptions {
  /** What the serial port receives. */
  readonly input?: Uint8Array | undefined;
  /** What to look for on the console. */
  readonly pattern?: RegExp | undefined;
  /** Instructions after which it counts as one that never ends. */
  readonly limit: number;
}

const sameVerdict = (a: Verdict, b: Verdict): boolean =>
  a.ended === b.ended && a.status === b.status && a.matched === b.matched;

/** Runs the session to its verdict. */
export function tryPlan(
  { input, pattern, limit, ...session }: TriedSession,
  plan?: Plan,
): { readonly verdict: Verdict; readonly perturbations: readonly Perturbation[]; readonly instructions: number } {
  let said = '';
  const live = LiveSession.boot({ ...session, chaos: plan }, ({ event }) => {
    if (pattern !== undefined && event.type === 'uart.transmitted') said += String.fromCharCode(event.byte);
  });
  if (input !== undefined) live.feed(input);
  live.endInput();
  let status = live.step(limit);
  while (status === 'running') status = live.step(limit);
  const { ended } = live.machine.state;
  return {
    verdict: {
      ended: ended?.reason ?? 'limit',
      status: ended?.status ?? 0,
      matched: pattern?.test(said) ?? false,
    },
    perturbations: live.perturbations,
    instructions: live.machine.retired,
  };
}

export interface Finding {
  readonly seed: bigint;
  readonly verdict: Verdict;
  /** All that happened under the seed, and what is left of it. */
  readonly perturbations: readonly Perturbation[];
  readonly shrunk: readonly Perturbation[];
}

/** Told while it goes on. */
export interface SearchProgress {
  seed?(seed: bigint): void;
  /** A seed was found; its plan is cut down. @param left perturbations in the best plan so far. */
  shrinking?(seed: bigint, left: number): void;
}

/**
 * A plan that leaves no more is plain enough. Where the first finding leaves more, others are looked at: what is left
 * depends on where the seed happened to strike.
 */
const PLAIN_ENOUGH = 3;
const MOST_FINDINGS = 5;

/** @returns the plainest of the first few among `seeds` whose verdict is not `usual`; undefined when all have it. */
export function searchChaos(
  session: TriedSession,
  usual: Verdict,
  seeds: Iterable<bigint>,
  progress: SearchProgress = {},
): Finding | undefined {
  const { vcpus } = session.config;
  let best: Finding | undefined;
  let findings = 0;
  for (const seed of seeds) {
    progress.seed?.(seed);
    const { verdict, perturbations } = tryPlan(session, randomPlan(seed, vcpus));
    if (sameVerdict(verdict, usual)) continue;
    if (best !== undefined && !sameVerdict(verdict, best.verdict)) continue;
    const shrunk = shrinkPlan(
      perturbations,
      (plan) => sameVerdict(tryPlan(session, plan).verdict, verdict),
      (left) => progress.shrinking?.(seed, left),
    );
    if (best === undefined || shrunk.length < best.shrunk.length) best = { seed, verdict, perturbations, shrunk };
    if (best.shrunk.length <= PLAIN_ENOUGH || ++findings === MOST_FINDINGS) break;
  }
  return best;
}

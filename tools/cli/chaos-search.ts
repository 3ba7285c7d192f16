/** `record --chaos 1..200 --until-fail`: tries seeds, shows how it goes, and lists what is left of the plan that did it. */
import {
  type Finding,
  type Perturbation,
  type SessionOptions,
  searchChaos,
  type TriedSession,
  tryPlan,
  type Verdict,
} from '../../src/replay/index.js';
import { quote, type SeedRange } from './arguments.js';
import { UsageError } from './failure.js';
import { grouped, plural, table } from './format.js';
import type { MachineOptions } from './machine-flags.js';
import { serialInputFile } from './serial-line.js';
import type { Terminal } from './terminal.js';

export interface SearchOptions extends MachineOptions {
  readonly failPattern?: string;
}

/** A session under chaos counts as endless when it takes so many times the instructions of the one without, and so many. */
const PATIENCE = 20;
const LEAST_PATIENCE = 20_000_000;
/** For sessions that never end: what one of them may take when `--max-instructions` does not say. */
const LONGEST_SESSION = 1_000_000_000;

/** @returns undefined when every seed comes out as the session without chaos does. */
export async function findFailure(
  session: SessionOptions,
  options: SearchOptions,
  terminal: Terminal,
): Promise<Finding | undefined> {
  if (options.chaos === undefined) throw new UsageError('--until-fail tries seeds. Give them: --chaos 1..200.');
  const tried: TriedSession = {
    ...session,
    input: serialInputFile(options),
    pattern: options.failPattern === undefined ? undefined : parsePattern(options.failPattern),
    limit: options.maxInstructions ?? LONGEST_SESSION,
  };
  const usual = tryPlan(tried);
  terminal.say(`vmtape: without chaos ${verdictText(usual.verdict)} after ${grouped(usual.instructions)} instructions`);
  const limit =
    options.maxInstructions ?? Math.min(LONGEST_SESSION, Math.max(LEAST_PATIENCE, PATIENCE * usual.instructions));
  const finding = searchChaos({ ...tried, limit }, usual.verdict, seedsOf(options.chaos), {
    seed: (seed) => terminal.status(`seed ${seed} of ${options.chaos?.first} to ${options.chaos?.last}`),
    shrinking: (seed, left) => terminal.status(`seed ${seed}: ${plural(left, 'perturbation')} left`),
  });
  terminal.clearStatus();
  if (finding === undefined) {
    terminal.say('vmtape: no seed changes that; there is no tape');
    if (terminal.json) await terminal.document({ usual: usual.verdict, finding: null });
    return undefined;
  }
  terminal.say(
    [
      `vmtape: with seed ${finding.seed} ${verdictText(finding.verdict)}; of ` +
        `${plural(finding.perturbations.length, 'perturbation')} ${finding.shrunk.length} will do:`,
      ...table(finding.shrunk.map(perturbationCells), ['right'], '  '),
    ].join('\n'),
  );
  return finding;
}

function* seedsOf({ first, last }: SeedRange): Generator<bigint> {
  for (let seed = first; seed <= last; seed++) yield seed;
}

function parsePattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (cause) {
    throw new UsageError(`--fail-pattern ${quote(text)}: ${(cause as Error).message}.`, { cause });
  }
}

function verdictText({ ended, status, matched }: Verdict): string {
  const words = {
    'debug-exit': `the guest ends with status ${status}`,
    reset: 'the guest resets the machine',
    shutdown: 'the guest shuts down',
    'halted-forever': 'the guest halts for ever',
    limit: 'the guest does not end',
  };
  return matched ? `${words[ended]} and prints the pattern` : words[ended];
}

/** Position, and what happened there. */
function perturbationCells(perturbation: Perturbation): readonly string[] {
  const at = `at ${grouped(perturbation.at)}`;
  const vcpu = `vCPU ${perturbation.vcpu}`;
  switch (perturbation.kind) {
    case 'turn':
      return [at, vcpu, `has the turn for ${plural(perturbation.instructions, 'instruction')}`];
    case 'hold':
      return [at, vcpu, `takes no interrupts for ${grouped(perturbation.nanoseconds)} ns`];
    default:
      return [at, vcpu, `has its time-stamp counter moved by ${perturbation.ticks}`];
  }
}

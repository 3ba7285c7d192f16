/** A whole log, judged: how many exits, which differ, why others are open. */
import { type ControlWord, type DeviationName, exitName } from '../../src/machine/index.js';
import { judgeExit, judgeGiven, type Verdict } from './conform.js';
import type { LogReader } from './log-reader.js';
import { NestedExits, type NestedFact } from './nested-exits.js';

export interface Difference {
  readonly line: number;
  /** The vCPU where the log tells, else the thread or processor. */
  readonly subject: string;
  readonly rip: bigint | undefined;
  /** EXITCODE by its short name, or as the log writes it. */
  readonly exit: string;
  readonly did: string;
  readonly model: string;
  /** Row of the table of intercepts. */
  readonly intercept: string | undefined;
}

export interface Conformity {
  exits: number;
  agreeing: number;
  /** How many there are; `differences` has the first ones. */
  differing: number;
  readonly differences: Difference[];
  readonly open: Map<string, number>;
  readonly subjects: Set<string>;
}

export interface ConformOptions {
  readonly deviations: ReadonlySet<DeviationName>;
  /** What L1 asks for where the log does not tell. */
  readonly assumed?: readonly ControlWord[] | undefined;
  /** Differences to keep. */
  readonly most: number;
}

export function conformityOf(log: LogReader, options: ConformOptions, tick: () => void = () => {}): Conformity {
  const nested = new NestedExits(options.assumed);
  const found: Conformity = {
    ...{ exits: 0, agreeing: 0, differing: 0, differences: [], open: new Map(), subjects: new Set() },
  };
  const take = (fact: NestedFact): void => {
    if (fact.kind === 'own-exit') return;
    const { deviations } = options;
    const verdict = fact.kind === 'exit' ? judgeExit(deviations, fact) : judgeGiven(deviations, fact);
    if (fact.kind === 'exit') found.exits++;
    // An event that L0 may deliver is the rule, and no exit.
    else if (verdict.kind !== 'differs') return;
    found.subjects.add(fact.subject);
    count(found, fact, verdict, log, options.most);
  };
  for (const record of log.records(tick)) {
    for (const fact of nested.take(record)) take(fact);
  }
  for (const fact of nested.finish()) take(fact);
  return found;
}

function count(
  found: Conformity,
  fact: Exclude<NestedFact, { readonly kind: 'own-exit' }>,
  verdict: Verdict,
  log: LogReader,
  most: number,
): void {
  switch (verdict.kind) {
    case 'agrees':
      found.agreeing++;
      return;
    case 'open':
      found.open.set(verdict.why, (found.open.get(verdict.why) ?? 0) + 1);
      return;
    case 'differs': {
      found.differing++;
      if (found.differences.length >= most) return;
      const { line, subject } = fact;
      const vcpu = log.vcpuOf(subject);
      const code = fact.kind === 'exit' ? fact.exit.reason.code : fact.code;
      const exit = code === undefined ? (fact.kind === 'exit' ? fact.exit.reason.text : fact.what) : exitName(code);
      found.differences.push({
        ...{ line, subject: vcpu === undefined ? subject : `vCPU ${vcpu}`, exit },
        ...{ rip: fact.kind === 'exit' ? fact.exit.rip : undefined },
        ...{ did: verdict.did, model: verdict.model, intercept: verdict.row?.name },
      });
    }
  }
}

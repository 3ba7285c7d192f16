/**
 * A fuzz run: programs by number from a seed, on pairs of machines that serve for many programs, until enough instructions
 * have retired or enough programs ended differently on the two. Such a program is cut to little that still differs.
 */
import { CPU_PROFILES, type CpuProfile, Decoder, INSTRUCTIONS, invariant } from '../../src/machine/index.js';
import { repertoireOf } from './code.js';
import { Coverage } from './coverage.js';
import { Pair } from './pair.js';
import { Program, type Workshop } from './program.js';
import { Random } from './random.js';
import { fewestInstructions, Shrinker, type Shrunk } from './shrink.js';

/** Most instructions of one program. */
const PROGRAM_INSTRUCTIONS = 12_000;
/** Programs that one pair of machines runs. */
const PROGRAMS_OF_A_PAIR = 100;

export interface CampaignOptions {
  /** Ends when so many have retired. */
  readonly instructions: number;
  readonly firstProgram?: number;
  /** Ends after so many programs at the latest. */
  readonly programs?: number;
  /** Ends with so many findings; 1 without it. */
  readonly findings?: number;
  /** False leaves findings as they were seen; cutting one down takes a minute or two. */
  readonly shrinks?: boolean;
  /** Called after each program. */
  readonly progress?: (retired: number, program: number) => void;
}

/** A program that ended differently on engine and evaluator. */
export interface Finding {
  readonly program: number;
  readonly profile: string;
  /** Programs that ran before it on the same machines, and are needed; 0 for none. */
  readonly before: number;
  /** Instructions within which the two came to differ. */
  readonly instructions: number;
  readonly differences: readonly string[];
  /** Undefined where programs before it are needed, or it was not asked for. */
  readonly shrunk: Shrunk | undefined;
}

export interface CampaignResult {
  readonly retired: number;
  readonly programs: number;
  readonly coverage: Coverage;
  readonly findings: readonly Finding[];
}

export class Campaign {
  private readonly workshops = new Map<string, Workshop>();

  constructor(private readonly seed: number) {}

  run(options: CampaignOptions): CampaignResult {
    const { instructions, firstProgram = 0, programs = Number.POSITIVE_INFINITY } = options;
    const { findings: wanted = 1, shrinks = true } = options;
    const coverage = new Coverage(new Decoder(INSTRUCTIONS, new Set()).tables.forms);
    const findings: Finding[] = [];
    let retired = 0;
    let pair: Pair | undefined;
    let first = firstProgram;
    let number = firstProgram;
    for (; retired < instructions && number < firstProgram + programs && findings.length < wanted; number++) {
      if (pair === undefined || number % PROGRAMS_OF_A_PAIR === 0) {
        pair = new Pair(this.profileOf(number).name);
        coverage.watch(pair.evaluator.machine);
        coverage.watchAssists(pair.engine.machine);
        first = number;
      }
      const outcome = pair.run(this.program(number), PROGRAM_INSTRUCTIONS);
      retired += outcome.retired;
      coverage.count(pair.evaluator.stated);
      if (outcome.differences.length > 0) {
        const { differences } = outcome;
        const seen = { program: number, profile: this.profileOf(number).name, before: number - first, differences };
        const whole = { ...seen, instructions: PROGRAM_INSTRUCTIONS, shrunk: undefined };
        findings.push(shrinks ? this.shrunk(whole, first) : whole);
      }
      if (outcome.spent || outcome.differences.length > 0) pair = undefined;
      options.progress?.(retired, number);
    }
    return { retired, programs: number - firstProgram, coverage, findings };
  }

  program(number: number): Program {
    return new Program((BigInt(this.seed) << 32n) | BigInt(number), this.workshopOf(this.profileOf(number)));
  }

  /** Every other pair is of the base profile, which has all that the machine has. */
  profileOf(number: number): CpuProfile {
    const pair = Math.floor(number / PROGRAMS_OF_A_PAIR);
    const [base] = CPU_PROFILES;
    invariant(base !== undefined, 'there is a base profile');
    const random = new Random((BigInt(this.seed) << 32n) | BigInt(pair) | (1n << 63n));
    return pair % 2 === 0 ? base : random.pick(CPU_PROFILES);
  }

  private workshopOf(profile: CpuProfile): Workshop {
    const known = this.workshops.get(profile.name);
    if (known !== undefined) return known;
    const decoder = new Decoder(INSTRUCTIONS, profile.features);
    const made = { profile, decoder, repertoire: repertoireOf(decoder.tables.forms, profile.features) };
    this.workshops.set(profile.name, made);
    return made;
  }

  // Findings

  /** @param first the first program that ran on the same machines. */
  private shrunk(seen: Finding, first: number): Finding {
    const { program, profile } = seen;
    for (let before = 0; ; before = Math.max(1, 2 * before)) {
      const from = Math.max(first, program - before);
      const differ = (limit: number): boolean => this.differences(from, program, limit).length > 0;
      if (differ(PROGRAM_INSTRUCTIONS)) {
        const instructions = fewestInstructions(PROGRAM_INSTRUCTIONS, differ);
        const differences = this.differences(from, program, instructions);
        const fewest = { program, profile, before: program - from, instructions, differences };
        if (from < program) return { ...fewest, shrunk: undefined };
        return { ...fewest, shrunk: new Shrinker(profile).shrink(this.program(program), instructions) };
      }
      if (from > first) continue;
      const lost = 'not seen again on fresh machines: the run depends on something that is no part of it';
      return { ...seen, differences: [lost, ...seen.differences] };
    }
  }

  /** Programs `from` to `program` on fresh machines, the last of them for `limit` instructions. */
  private differences(from: number, program: number, limit: number): readonly string[] {
    const pair = new Pair(this.profileOf(program).name);
    for (let number = from; number < program; number++) pair.run(this.program(number), PROGRAM_INSTRUCTIONS);
    return pair.run(this.program(program), limit).differences;
  }
}

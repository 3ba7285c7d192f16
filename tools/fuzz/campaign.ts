/**
 * A fuzz run: programs by number from a seed, on pairs of machines that serve for many programs, until enough instructions
 * have retired or a program ends differently on the two. Such a program is cut to the fewest instructions that differ.
 */
import { CPU_PROFILES, type CpuProfile, Decoder, INSTRUCTIONS, invariant } from '../../src/machine/index.js';
import { disassemble } from '../../src/replay/index.js';
import { repertoireOf } from './code.js';
import { Coverage } from './coverage.js';
import { Pair } from './pair.js';
import { Program, type Workshop } from './program.js';
import { Random } from './random.js';

/** Most instructions of one program. */
const PROGRAM_INSTRUCTIONS = 12_000;
/** Programs that one pair of machines runs. */
const PROGRAMS_OF_A_PAIR = 100;

export interface CampaignOptions {
  /** Ends when so many have retired. */
  readonly instructions: number;
  readonly seed: number;
  readonly firstProgram?: number;
  /** Called after each program. */
  readonly progress?: (retired: number, program: number) => void;
}

export interface Failure {
  readonly program: number;
  readonly profile: string;
  /** Programs that ran before it on the same machines, and are needed; 0 for none. */
  readonly before: number;
  /** Instructions after which the two differ: the last of them is the one to look at. */
  readonly instructions: number;
  /** The instruction, as the evaluator is about to execute it. */
  readonly instruction: string;
  readonly differences: readonly string[];
}

export interface CampaignResult {
  readonly retired: number;
  readonly programs: number;
  readonly coverage: Coverage;
  readonly failure: Failure | undefined;
}

export class Campaign {
  private readonly workshops = new Map<string, Workshop>();

  constructor(private readonly seed: number) {}

  run({ instructions, firstProgram = 0, progress }: CampaignOptions): CampaignResult {
    const coverage = new Coverage(new Decoder(INSTRUCTIONS, new Set()).tables.forms);
    let retired = 0;
    let pair: Pair | undefined;
    let first = firstProgram;
    let number = firstProgram;
    for (; retired < instructions; number++) {
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
        return { retired, programs: number + 1 - firstProgram, coverage, failure: this.failureOf(number, first) };
      }
      if (outcome.spent) pair = undefined;
      progress?.(retired, number);
    }
    return { retired, programs: number - firstProgram, coverage, failure: undefined };
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

  // Failures

  /** @param first the first program that ran on the same machines. */
  private failureOf(program: number, first: number): Failure {
    for (let before = 0; ; before = Math.max(1, 2 * before)) {
      const from = Math.max(first, program - before);
      const { differences } = this.attempt(from, program, PROGRAM_INSTRUCTIONS);
      if (differences.length > 0) return this.shortest(from, program);
      if (from > first) continue;
      const profile = this.profileOf(program).name;
      const lost = 'not seen again on fresh machines: the run depends on something that is no part of it';
      return { program, profile, before: program - first, instructions: 0, instruction: '', differences: [lost] };
    }
  }

  private shortest(from: number, program: number): Failure {
    let [agreeing, disagreeing] = [0, PROGRAM_INSTRUCTIONS];
    while (disagreeing - agreeing > 1) {
      const middle = (agreeing + disagreeing) >> 1;
      if (this.attempt(from, program, middle).differences.length === 0) agreeing = middle;
      else disagreeing = middle;
    }
    const { pair } = this.attempt(from, program, agreeing);
    const { machine } = pair.evaluator;
    const features = { physicalAddressBits: 48, gigabytePages: true };
    const { memory, registers, engine } = machine;
    const place = { memory, registers, decoder: engine.decoder, features };
    const rip = registers[16 as Parameters<typeof engine.syncShadow>[0]] as bigint;
    const [next] = disassemble(place, rip, 1);
    const bytes = Buffer.from(next?.bytes ?? []).toString('hex');
    return {
      ...{ program, profile: this.profileOf(program).name, before: program - from, instructions: disagreeing },
      instruction: `${rip.toString(16)}: ${next?.text ?? '?'} [${bytes}]`,
      differences: this.attempt(from, program, disagreeing).differences,
    };
  }

  /** Programs `from` to `program` on fresh machines, the last of them for `limit` instructions. */
  private attempt(from: number, program: number, limit: number): { pair: Pair; differences: readonly string[] } {
    const pair = new Pair(this.profileOf(program).name);
    for (let number = from; number < program; number++) pair.run(this.program(number), PROGRAM_INSTRUCTIONS);
    return { pair, differences: pair.run(this.program(program), limit).differences };
  }
}

/**
 * Evaluator and engine, machine against machine, over random programs with faults and mode changes: event by event, and
 * register by register and byte by byte at the end.
 *
 * `FUZZ_INSTRUCTIONS=10000000 npx vitest run --project properties test/machine/fuzz` is the long run, `FUZZ_SEED` its start.
 */
import { describe, expect, it } from 'vitest';
import { REGISTER_NAMES } from '../../src/machine/layout/cpu-state.js';
import { encodedEvents, onTheEvaluator, runProgram, writeProgram } from '../support/fuzz.js';
import { LiveMachine } from '../support/live-machine.js';
import { Random } from '../support/random-instructions.js';

const INSTRUCTIONS = Number(process.env.FUZZ_INSTRUCTIONS ?? 300_000);
const FIRST_SEED = BigInt(process.env.FUZZ_SEED ?? 1);
/** Most that one program runs. */
const PROGRAM_INSTRUCTIONS = 10_000;

class Pair {
  readonly engine = new LiveMachine('');
  readonly evaluator = onTheEvaluator(new LiveMachine(''));

  /** @returns instructions retired, and what the two disagree in. */
  run(seed: bigint, count: number): { readonly retired: number; readonly differences: readonly string[] } {
    const [engine, evaluator] = [this.engine, this.evaluator];
    for (const live of [engine, evaluator]) {
      live.restart();
      const random = new Random(seed);
      writeProgram(live, random);
      runProgram(live, count, random);
    }
    const [found, expected] = [encodedEvents(engine.stated), encodedEvents(evaluator.stated)];
    const differences: string[] = [];
    const event = expected.findIndex((bytes, index) => bytes !== found[index]);
    if (event >= 0 || found.length !== expected.length) {
      const at = event < 0 ? Math.min(found.length, expected.length) : event;
      const shown = (live: LiveMachine): string => JSON.stringify(live.stated[at], hexadecimal);
      differences.push(`event ${at}: ${shown(evaluator)} and ${shown(engine)}`);
    }
    for (const name of REGISTER_NAMES) {
      if (engine.get(name) !== evaluator.get(name)) {
        differences.push(`${name}: ${evaluator.get(name).toString(16)} and ${engine.get(name).toString(16)}`);
      }
    }
    if (Buffer.compare(engine.ram, evaluator.ram) !== 0) {
      const at = engine.ram.findIndex((byte, index) => byte !== evaluator.ram[index]);
      differences.push(`RAM at ${at.toString(16)}`);
    }
    return { retired: engine.retired, differences };
  }

  /** The fewest instructions after which the two disagree: the last of them is the one to look at. */
  shortest(seed: bigint, count: number): number {
    let [agreeing, disagreeing] = [0, count];
    while (disagreeing - agreeing > 1) {
      const middle = (agreeing + disagreeing) >> 1;
      if (this.run(seed, middle).differences.length === 0) agreeing = middle;
      else disagreeing = middle;
    }
    return disagreeing;
  }
}

const hexadecimal = (_: string, value: unknown): unknown =>
  typeof value === 'bigint'
    ? value.toString(16)
    : value instanceof Uint8Array
      ? Buffer.from(value).toString('hex')
      : value;

describe('random programs', () => {
  it(`of ${INSTRUCTIONS.toLocaleString('en')} instructions in all run alike on the evaluator and on the engine`, {
    timeout: 0,
  }, () => {
    const pair = new Pair();
    let retired = 0;
    let programs = 0;
    for (let seed = FIRST_SEED; retired < INSTRUCTIONS; seed++, programs++) {
      const run = pair.run(seed, PROGRAM_INSTRUCTIONS);
      retired += run.retired;
      if (run.differences.length === 0) continue;
      const count = pair.shortest(seed, PROGRAM_INSTRUCTIONS);
      const { differences } = pair.run(seed, count);
      expect.fail(`seed ${seed}, instruction ${count}:\n${differences.join('\n')}`);
    }
    expect(programs).toBeGreaterThan(0);
    // Programs that end at once would test nothing.
    expect(retired / programs).toBeGreaterThan(500);
  });
});

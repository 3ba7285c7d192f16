/**
 * `npm run fuzz -- [--instructions N] [--seed S] [--program P] [--json]`: random programs on engine and evaluator, which
 * must agree on every event; a table of what they have covered at the end.
 *
 * Exit status: 0 when they agree and every form was executed often enough, 1 when not, 2 for wrong usage.
 */
import { parseArgs } from 'node:util';
import { parseCount } from '../cli/arguments.js';
import { grouped, shortCount } from '../cli/format.js';
import { Terminal } from '../cli/terminal.js';
import { Campaign } from './campaign.js';
import { coverageFloor, missedForms, reportJson, reportLines } from './report.js';

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      instructions: { type: 'string', default: '1000000' },
      seed: { type: 'string', default: '1' },
      program: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const instructions = parseCount(values.instructions, '--instructions', 1);
  const seed = parseCount(values.seed, '--seed', 0);
  const program = values.program === undefined ? undefined : parseCount(values.program, '--program', 0);
  const terminal = new Terminal({ json: values.json });
  const start = performance.now();
  const seconds = (): number => (performance.now() - start) / 1000;
  const result = new Campaign(seed).run({
    instructions: program === undefined ? instructions : 1,
    ...(program === undefined ? {} : { firstProgram: program }),
    seed,
    progress: (retired, number) => {
      const rate = shortCount(retired / seconds());
      terminal.status(
        `program ${number}: ${grouped(retired)} of ${grouped(instructions)} instructions, ${rate} a second`,
      );
    },
  });
  terminal.clearStatus();
  const told = { ...result, seed, seconds: seconds() };
  if (values.json) await terminal.document(reportJson(told));
  else await terminal.print(reportLines(told));
  const floor = program === undefined ? coverageFloor(result.retired) : 0;
  return result.failure === undefined && missedForms(result.coverage, floor).length === 0 ? 0 : 1;
}

process.exitCode = await main();

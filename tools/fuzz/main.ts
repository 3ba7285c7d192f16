/**
 * `npm run fuzz`: random programs on engine and evaluator, which must agree on every event; what they have covered at the
 * end. docs/fuzzing.md tells more.
 *
 * Exit status: 0 when they agree, 1 when they differ, or when a long run has left a form out, 2 for wrong usage.
 */
import { parseCount } from '../cli/arguments.js';
import { tuneV8, useEngine } from '../cli/engine.js';
import { Status, UsageError } from '../cli/failure.js';
import { grouped, shortCount } from '../cli/format.js';
import { Terminal } from '../cli/terminal.js';
import { parseWords, runTool } from '../cli/tool.js';
import { Campaign, type CampaignOptions } from './campaign.js';
import { coverageFloor, missedForms, reportJson, reportLines } from './report.js';

tuneV8();

const USAGE = `usage: npm run fuzz -- [options]
  --instructions N  ends when N instructions have retired (1000000)
  --seed S          what all programs follow from (1)
  --program P       begins with program P (0)
  --programs N      ends after N programs
  --engine TIER     interpreter, auto or jit: which code is compiled (auto)
  --findings N      goes on until N programs ended differently (1)
  --progress        a line to stderr every ten seconds
  --json            one document to stdout`;
const SECONDS_OF_PROGRESS = 10;
/** A program's generator starts from the seed and the program's number, 32 bits each. */
const LAST_SEED = 2 ** 31 - 1;

interface Arguments extends CampaignOptions {
  readonly seed: number;
  readonly progressLines: boolean;
  readonly json: boolean;
}

/** @throws UsageError */
function argumentsOf(args: string[]): Arguments {
  const { values } = parseWords({
    args,
    options: {
      instructions: { type: 'string', default: '1000000' },
      seed: { type: 'string', default: '1' },
      program: { type: 'string' },
      programs: { type: 'string' },
      findings: { type: 'string', default: '1' },
      engine: { type: 'string', default: 'auto' },
      progress: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const count = (name: 'program' | 'programs', least: number): Record<string, number> => {
    const text = values[name];
    return text === undefined
      ? {}
      : { [name === 'program' ? 'firstProgram' : name]: parseCount(text, `--${name}`, least) };
  };
  useEngine(values.engine);
  return {
    instructions: parseCount(values.instructions, '--instructions', 1),
    seed: seedOf(values.seed),
    findings: parseCount(values.findings, '--findings', 1),
    ...count('program', 0),
    ...count('programs', 1),
    progressLines: values.progress,
    json: values.json,
  };
}

function seedOf(text: string): number {
  const seed = parseCount(text, '--seed', 0);
  if (seed > LAST_SEED) throw new UsageError(`--seed ${text} is too large. Give a number up to ${LAST_SEED}.`);
  return seed;
}

async function run({ seed, progressLines, json, ...options }: Arguments): Promise<number> {
  const terminal = new Terminal({ json });
  const start = performance.now();
  const seconds = (): number => (performance.now() - start) / 1000;
  let told = 0;
  const progress = (retired: number, program: number): void => {
    const rate = shortCount(retired / seconds());
    const text = `program ${program}: ${grouped(retired)} of ${grouped(options.instructions)} instructions, ${rate} a second`;
    terminal.status(text);
    if (!progressLines || seconds() < told + SECONDS_OF_PROGRESS) return;
    told = seconds();
    terminal.say(text);
  };
  const result = new Campaign(seed).run({ ...options, progress });
  terminal.clearStatus();
  const report = { ...result, seed, seconds: seconds() };
  if (json) await terminal.document(reportJson(report));
  else await terminal.print(reportLines(report));
  const missed = missedForms(result.coverage, coverageFloor(result.retired));
  return result.findings.length === 0 && missed.length === 0 ? Status.DONE : Status.NO;
}

await runTool(USAGE, (words) => run(argumentsOf(words)));

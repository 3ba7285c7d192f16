/**
 * `npm run bench -- speed`: how fast guests of different character run, are recorded and replayed, beside QEMU and
 * Bochs where they are installed. docs/speed.md says what makes the pairs fair.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseCount, quote } from '../cli/arguments.js';
import { Stopwatch } from '../cli/drive.js';
import { UsageError } from '../cli/failure.js';
import { grouped, table } from '../cli/format.js';
import { Terminal } from '../cli/terminal.js';
import { parseWords } from '../cli/tool.js';
import { VMTAPE_VERSION } from '../version.js';
import { findBochs } from './bochs.js';
import {
  type ColumnOptions,
  columnsOf,
  type Recorded,
  type SpeedResult,
  TIERS,
  type TierName,
} from './speed-columns.js';
import { speedPlot } from './speed-plot.js';
import { type Guest, PATIENCE, parseScale, parseSubjects, qemuVersion, SUBJECTS, scaledOptions } from './subjects.js';

export const SPEED_USAGE = `usage: npm run bench -- speed [options]
  --guests A,B some of: ${SUBJECTS.map(({ name }) => name).join(', ')} (all)
  --scale F    the part of their full length, 2.5 thousand million instructions or 200,000 exits (1)
  --pairs N    rounds, of which the best of each counts (5)
  --tiers A,B  of ${TIERS.join(', ')} (interpreter,auto); the last one records and replays
  --jobs N     processes of the parallel replay (2)
  --patience N seconds that QEMU and Bochs may take (${PATIENCE}); a column that takes longer says so
  --plot FILE  writes a picture there, as SVG
  --json       one document to stdout`;

/** A guest that does nothing: what other machines take to start. */
const NOTHING: Guest = { name: 'hello64', image: 'hello64.elf', options: '' };

/** The ratio of two columns that has a goal. */
interface Goal {
  readonly name: string;
  readonly of: string;
  readonly to: string;
  /** At most. */
  readonly goal: (guest: SpeedResult) => number;
}

/** From so many on it is exits that a guest is about. */
const EXITS_OF_NESTED = 100_000;
const isNested = ({ exits }: SpeedResult): boolean => exits >= EXITS_OF_NESTED;

const goals = (jobs: number): readonly Goal[] => [
  { name: 'record / QEMU record', of: 'record', to: 'QEMU record', goal: (guest) => (isNested(guest) ? 0.2 : 0.4) },
  { name: 'replay / record', of: 'replay', to: 'record', goal: () => 1.05 },
  { name: `replay --jobs ${jobs} / record`, of: `replay --jobs ${jobs}`, to: 'record', goal: () => 0.6 },
  { name: 'record / run', of: 'record', to: 'run', goal: () => 1.15 },
];

export async function speedBench(args: string[]): Promise<number> {
  const { values } = parseWords({
    args,
    options: {
      ...{
        guests: { type: 'string' },
        scale: { type: 'string', default: '1' },
        pairs: { type: 'string', default: '5' },
      },
      ...{ tiers: { type: 'string', default: 'interpreter,auto' }, jobs: { type: 'string', default: '2' } },
      ...{
        patience: { type: 'string', default: String(PATIENCE) },
        plot: { type: 'string' },
        json: { type: 'boolean', default: false },
      },
    },
  });
  const subjects = values.guests === undefined ? SUBJECTS : parseSubjects(values.guests, '--guests');
  const scale = parseScale(values.scale);
  const pairs = parseCount(values.pairs, '--pairs', 1);
  const jobs = parseCount(values.jobs, '--jobs', 1);
  const patience = parseCount(values.patience, '--patience', 1);
  const tiers = parseTiers(values.tiers);
  const terminal = new Terminal({ json: values.json });
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-bench-'));
  try {
    const bochs = findBochs(NOTHING, folder);
    const host = {
      ...{ cpu: cpus()[0]?.model ?? 'unknown', processors: cpus().length, node: process.version },
      ...{ qemu: qemuVersion(), bochs: bochs?.version },
    };
    const results: SpeedResult[] = [];
    for (const subject of subjects) {
      const guest = { name: subject.name, image: subject.image, options: scaledOptions(subject.full, scale) };
      const result = measure(guest, { pairs, jobs, patience, tiers, bochs, folder, terminal });
      results.push(result);
      if (!values.json) await terminal.print([columnsLine(result)]);
    }
    terminal.clearStatus();
    const { cpu, processors, node, qemu } = host;
    const about = [
      `${cpu}, ${processors} processors`,
      `Node ${node}`,
      `best of ${pairs}`,
      ...[qemu, host.bochs].filter((version) => version !== undefined),
    ].join('; ');
    if (values.plot !== undefined) writeFileSync(values.plot, speedPlot(results, about));
    if (values.json) await terminal.document({ vmtape: VMTAPE_VERSION, host, pairs, scale, tiers, jobs, results });
    else await terminal.print(['', about, '', ...speedTables(results, jobs)]);
    return 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function parseTiers(text: string): readonly TierName[] {
  return text.split(',').map((name) => {
    const tier = TIERS.find((known) => known === name);
    if (tier === undefined) throw new UsageError(`--tiers names ${quote(name)}. There are ${TIERS.join(', ')}.`);
    return tier;
  });
}

interface Circumstances extends ColumnOptions {
  readonly pairs: number;
  readonly folder: string;
  readonly terminal: Terminal;
}

/** Of the time that a machine takes to start. */
const SHARE_OF_START = 0.1;

/** Times of one column. */
class Times {
  readonly guest: number[] = [];
  readonly start: number[] = [];
  problem: string | undefined;

  /** Undefined when there is none, or when the guest takes so little that it cannot be told from the start. */
  get best(): number | undefined {
    const start = this.start.length === 0 ? 0 : Math.min(...this.start);
    const best = Math.min(...this.guest) - start;
    return this.guest.length === 0 || best < SHARE_OF_START * start ? undefined : best;
  }
}

function measure(guest: Guest, circumstances: Circumstances): SpeedResult {
  const { pairs, jobs, folder, terminal } = circumstances;
  let recorded: Recorded | undefined;
  const columns = columnsOf(circumstances, (run) => {
    recorded = run;
  });
  const times = new Map(columns.map((column) => [column, new Times()]));
  const watch = new Stopwatch();
  for (let round = 0; round < pairs; round++) {
    for (const [column, time] of times) {
      if (time.problem !== undefined) continue;
      terminal.status(
        `${guest.name} ${guest.options}: round ${round + 1} of ${pairs}, ${column.name}, ${watch.seconds.toFixed(0)} s`,
      );
      try {
        if (column.hasStart) time.start.push(column.run(NOTHING, folder));
        time.guest.push(column.run(guest, folder));
      } catch (error) {
        if (column.program === 'vmtape') throw error;
        time.problem = error instanceof Error ? error.message : String(error);
      }
    }
  }
  if (recorded === undefined) throw new RangeError('no round was run');
  const { instructions, exits, tapeBytes, peakRssBytes } = recorded;
  const result: SpeedResult = {
    ...{ guest: `${guest.name} ${guest.options}`, instructions, exits, tapeBytes, peakRssBytes, ratios: [] },
    columns: [...times].map(([{ name, program }, { best, guest: rounds, problem }]) => ({
      ...{ name, program, seconds: best, rounds, problem },
    })),
    bytesPerExit: exits === 0 ? undefined : tapeBytes / exits,
    bytesPerThousand: (1000 * tapeBytes) / instructions,
  };
  return { ...result, ratios: ratiosOf(result, jobs) };
}

function ratiosOf(result: SpeedResult, jobs: number): SpeedResult['ratios'] {
  const seconds = (name: string): number | undefined => result.columns.find((column) => column.name === name)?.seconds;
  return goals(jobs).flatMap(({ name, of, to, goal }) => {
    const [a, b] = [seconds(of), seconds(to)];
    return a === undefined || b === undefined ? [] : [{ name, ratio: a / b, goal: goal(result) }];
  });
}

// For people

/** What is known of a guest as soon as it is through: the tables come when all are, which may be hours. */
const columnsLine = ({ guest, columns }: SpeedResult): string =>
  `${guest}: ${columns.map(({ name, seconds }) => `${name} ${secondsText(seconds)}`).join(', ')}`;

const secondsText = (seconds: number | undefined): string =>
  seconds === undefined ? 'none' : `${seconds.toFixed(2)} s`;

export function speedTables(results: readonly SpeedResult[], jobs: number): readonly string[] {
  const names = results[0]?.columns.map(({ name }) => name) ?? [];
  const times = results.map(({ guest, instructions, exits, columns }) => [
    ...[guest, grouped(instructions), grouped(exits)],
    ...columns.map(({ seconds }) => secondsText(seconds)),
  ]);
  const rates = results.map(({ guest, instructions, columns }) => [
    guest,
    ...columns.map(({ seconds }) => (seconds === undefined ? '' : (instructions / seconds / 1e6).toFixed(0))),
  ]);
  const ratioNames = goals(jobs).map(({ name }) => name);
  const ratios = results.map(({ guest, ratios: found, bytesPerExit, bytesPerThousand }) => [
    guest,
    ...ratioNames.map((name) => {
      const one = found.find((each) => each.name === name);
      return one === undefined ? '' : `${one.ratio.toFixed(2)}${one.ratio > one.goal ? ` > ${one.goal}` : ''}`;
    }),
    ...[bytesPerExit === undefined ? '' : bytesPerExit.toFixed(1), bytesPerThousand.toFixed(2)],
  ]);
  const right = (count: number): ('left' | 'right')[] => [
    'left',
    ...Array.from({ length: count }, () => 'right' as const),
  ];
  const problems = results.flatMap(({ guest, columns }) =>
    columns.flatMap(({ name, problem }) => (problem === undefined ? [] : [`${guest}, ${name}: ${problem}`])),
  );
  return [
    ...table([['', 'instructions', 'exits', ...names], ...times], right(names.length + 2)),
    ...['', 'million instructions a second'],
    ...table([['', ...names], ...rates], right(names.length)),
    ...['', 'ratios of times, with the goal where it is missed; bytes of the tape'],
    ...table([['', ...ratioNames, 'bytes/exit', 'bytes/1000'], ...ratios], right(ratioNames.length + 2)),
    ...(problems.length === 0 ? [] : ['', ...problems]),
  ];
}

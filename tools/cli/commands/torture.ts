/** `vmtape torture TAPE`: save and restore at each boundary in every order, run on, compare. */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { comparePositions, formatPosition, sqliteStore } from '../../../src/journal/index.js';
import {
  parseOrders,
  parsePlaces,
  placesIn,
  resolvePosition,
  sampled,
  type TortureFailure,
  type WindowSize,
} from '../../../src/replay/index.js';
import { failureJson, runCampaign, type Sums } from '../../torture/campaign.js';
import { parseCount, parseU64 } from '../arguments.js';
import { command, terminalOf } from '../command.js';
import { Stopwatch } from '../drive.js';
import { Status, UsageError } from '../failure.js';
import { plural } from '../format.js';
import { jsonText, type Terminal } from '../terminal.js';

interface TortureOptions {
  readonly at: string;
  readonly orders: string;
  readonly window: string;
  readonly sample: string;
  readonly seed: string;
  readonly workers?: string;
  readonly from?: string;
  readonly to?: string;
  readonly keepGoing?: boolean;
  readonly report?: string;
}

/** Events after which a window ends, however few instructions ran. */
const WINDOW_EVENTS = 200;
const TOLD_FAILURES = 10;
const APART_CASES = 4;

export function tortureCommand(program: Command): void {
  command(
    program,
    'torture',
    'saves and restores at each boundary in every order, runs on, and compares with the unbroken session',
    'vmtape torture guest.vmtape --at vmexit',
    'vmtape torture guest.vmtape --at all --sample 50000 --seed 7 --keep-going --report torture.json',
  )
    .argument('<tape>')
    .option(
      '--at <kind>',
      'vmexit, vmrun, injection, interrupt (commas between), every:N instructions, or all',
      'vmexit',
    )
    .option('--orders <names>', 'qemu, cloud-hypervisor, kvm-selftests, …, random:N (commas between), or all', 'all')
    .option('--window <n>', 'instructions that a restored machine runs on, or end', '2000')
    .option('--sample <n>', 'boundaries at most, drawn by the seed, or all', '20000')
    .option('--seed <n>', 'of the sample and of random orders', '1')
    .option('--workers <n>', 'processes; as many as there are processors')
    .option('--from <pos>', 'boundaries from there on')
    .option('--to <pos>', 'boundaries up to there')
    .option('--keep-going', 'go on after a failure')
    .option('--report <file>', 'writes the result there as JSON')
    .action(async (tape: string, options: TortureOptions, self: Command) => {
      process.exitCode = await torture(tape, options, self);
    });
}

async function torture(tape: string, options: TortureOptions, self: Command): Promise<number> {
  const terminal = terminalOf(self);
  const orders = parseOrders(options.orders);
  const choice = parsePlaces(options.at);
  const window = parseWindow(options.window);
  const most = options.sample === 'all' ? Number.POSITIVE_INFINITY : parseCount(options.sample, '--sample', 1);
  const seed = parseU64(options.seed, '--seed');
  const workers = options.workers === undefined ? availableParallelism() : parseCount(options.workers, '--workers', 1);
  const reader = sqliteStore(tape).read();
  const watch = new Stopwatch();
  try {
    const from = options.from === undefined ? reader.start : resolvePosition(reader, options.from);
    const to = options.to === undefined ? reader.end : resolvePosition(reader, options.to);
    if (comparePositions(from, to) > 0)
      throw new UsageError(`--from ${options.from} lies behind --to ${options.to}. Swap them.`);
    const { places, of } = sampled(placesIn(reader, choice, { from, to }), most, seed);
    const chosen =
      places.length < of
        ? `a sample of ${places.length} of ${of} boundaries, seed ${seed}`
        : `${of} boundaries, seed ${seed}`;
    terminal.say(`${tape}: ${chosen}; ${orders.known.length + orders.random} orders; ${plural(workers, 'worker')}`);
    const sums = await runCampaign(
      { tape: { tape, orders, window, seed }, places, workers, stops: options.keepGoing !== true, apart: APART_CASES },
      (now) => tell(terminal, now, places.length, watch.seconds),
    );
    terminal.clearStatus();
    const result = {
      tape,
      at: options.at,
      orders: options.orders,
      window: options.window,
      chosen: places.length,
      of,
      seed,
      ...resultJson(sums),
    };
    if (options.report !== undefined) writeFileSync(options.report, `${jsonText(result, 2)}\n`);
    if (terminal.json) await terminal.document({ ...result, seconds: watch.seconds });
    else await terminal.print(reportLines(tape, sums, watch.seconds));
    return sums.failures.length + sums.apartFailures.length > 0 ? Status.NO : Status.DONE;
  } finally {
    reader.close();
  }
}

const parseWindow = (text: string): WindowSize =>
  text === 'end'
    ? { instructions: Number.MAX_SAFE_INTEGER, events: Number.MAX_SAFE_INTEGER }
    : { instructions: parseCount(text, '--window', 1), events: WINDOW_EVENTS };

function tell(terminal: Terminal, { places, failures }: Sums, of: number, seconds: number): void {
  const left = places === 0 ? '' : `, ${Math.ceil((seconds / places) * (of - places))} s left`;
  terminal.status(`${places} of ${of} boundaries, ${plural(failures.length, 'failure')}${left}`);
}

const resultJson = ({ failures, apartFailures, ...counts }: Sums): object => ({
  ...counts,
  failures: failures.map(failureJson),
  apartFailures: apartFailures.map(({ saved, problem }) => ({ saved: formatPosition(saved), problem })),
});

function reportLines(tape: string, sums: Sums, seconds: number): readonly string[] {
  const { places, restores, windows, apart, failures, apartFailures } = sums;
  const count = failures.length + apartFailures.length;
  const verdict = count === 0 ? 'no difference' : plural(count, 'failure');
  return [
    `${tape}: ${verdict}: saved at ${plural(places, 'place')}, ${plural(restores, 'restore')}, ` +
      `${plural(windows, 'window')} run, ${apart} across processes, ${seconds.toFixed(1)} s`,
    ...failures.slice(0, TOLD_FAILURES).flatMap(failureLines),
    ...apartFailures.map(
      ({ saved, problem }) => `saved at ${formatPosition(saved)}, restored in another process: ${problem}`,
    ),
    ...(failures.length > TOLD_FAILURES ? [`and ${failures.length - TOLD_FAILURES} more; --report has them all`] : []),
  ];
}

function failureLines({ saved, around, orders, shown, at, differences, stopped }: TortureFailure): readonly string[] {
  const where = {
    saved: 'cannot be restored',
    restored: 'restored wrongly',
    running: `runs on otherwise, as of ${formatPosition(at)}`,
  }[shown];
  return [
    `saved at ${formatPosition(saved)}, ${orders.length === 1 ? 'order' : 'orders'} ${orders.join(', ')}: ${where}${stopped === undefined ? '' : `: ${stopped}`}`,
    ...around.map((event) => `    ${event}`),
    ...differences.map(
      ({ component, field, expected, found }) => `  ${component} ${field}: ${expected}, found ${found}`,
    ),
  ];
}

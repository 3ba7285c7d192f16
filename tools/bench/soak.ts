/**
 * `npm run bench -- soak`: whether a long session stays as fast and as small as it was. Each guest is recorded for its part of the
 * time, as one session; what it is near its start, once it has warmed up, is held against what it is at its end.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sqliteStore } from '../../src/journal/index.js';
import { DEFAULT_CONFIG } from '../../src/machine/index.js';
import { Recorder } from '../../src/replay/index.js';
import { parseCount } from '../cli/arguments.js';
import { Stopwatch } from '../cli/drive.js';
import { Status, UsageError } from '../cli/failure.js';
import { byteSize, shortCount, table } from '../cli/format.js';
import { Terminal } from '../cli/terminal.js';
import { parseWords } from '../cli/tool.js';
import { PACKAGE_FOLDER, VMTAPE_VERSION } from '../version.js';
import { parseSubjects, SUBJECTS, type Subject } from './subjects.js';

/** Code that is written while it runs; world switches; a guest with nested page tables. */
const USUAL_GUESTS = 'selfmod,tenant,nested';
const RAM_BYTES = 128 * 1024 * 1024;
/** How much longer than in the speed bench a guest may run: more than it will. */
const ENOUGH = 10_000;

export const SOAK_USAGE = `usage: npm run bench -- soak [options]
  --minutes N  for all guests together (10)
  --guests A,B some of: ${SUBJECTS.map(({ name }) => name).join(', ')} (${USUAL_GUESTS})
  --json       one document to stdout
  ends with status 1 when a limit is broken`;

/** What is seen of a session every now and then. */
export interface SoakSample {
  /** Since the sample before. */
  readonly instructions: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Of the process, all threads. */
  readonly rssBytes: number;
  readonly heapBytes: number;
  /** Regions in use, and places of the table of handlers and regions. */
  readonly regions: number;
  readonly tableUsed: number;
  readonly codeCacheBytes: number;
}

interface Finding {
  readonly what: string;
  readonly start: number;
  readonly end: number;
  /** What `end` may be. */
  readonly limit: number;
  readonly broken: boolean;
}

interface SoakResult {
  readonly guest: string;
  readonly instructions: number;
  readonly exits: number;
  readonly tapeBytes: number;
  readonly findings: readonly Finding[];
  readonly samples: readonly SoakSample[];
}

/** Parts of the samples: the first ones are warm-up; then as many on either side are compared. */
const WARM_UP = 0.2;
const COMPARED = 0.3;
const LEAST_SAMPLES = 10;
const SPEED_LOSS = 0.05;
const MEMORY_GROWTH = 0.05;
const MEMORY_NOISE = 8 * 1024 * 1024;
/** What is rare is seen often enough to be compiled only after a while; a session that leaks makes hundreds. */
const TABLE_NOISE = 64;

export async function soakBench(args: string[]): Promise<number> {
  const { values } = parseWords({
    args,
    options: {
      minutes: { type: 'string', default: '10' },
      guests: { type: 'string', default: USUAL_GUESTS },
      json: { type: 'boolean', default: false },
    },
  });
  const minutes = parseCount(values.minutes, '--minutes', 1);
  const subjects = parseSubjects(values.guests, '--guests');
  const terminal = new Terminal({ json: values.json });
  const seconds = (60 * minutes) / subjects.length;
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-bench-'));
  const results: SoakResult[] = [];
  try {
    for (const subject of subjects) results.push(await soak(subject, seconds, folder, terminal));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  terminal.clearStatus();
  if (values.json) await terminal.document({ vmtape: VMTAPE_VERSION, node: process.version, minutes, results });
  else await terminal.print(results.flatMap(soakLines));
  return results.some(({ findings }) => findings.some(({ broken }) => broken)) ? Status.NO : Status.DONE;
}

async function soak(
  { name, image, full, turn }: Subject,
  seconds: number,
  folder: string,
  terminal: Terminal,
): Promise<SoakResult> {
  const [option, count] = full.split('=');
  const options = `${option}=${Number(count) * ENOUGH}`;
  const tape = join(folder, `${name}.vmtape`);
  const recorder = Recorder.boot(sqliteStore(tape), {
    config: { ...DEFAULT_CONFIG, ramBytes: RAM_BYTES },
    image: readFileSync(join(PACKAGE_FOLDER, 'test/guests/images', image)),
    commandLine: `${image} ${options}`,
    unixSeconds: 1_767_225_600,
    entropySeed: 1n,
    vmtapeVersion: VMTAPE_VERSION,
    checkpointEvery: 'adaptive',
  });
  recorder.endInput();
  const sampler = new SoakSampler(recorder, turn);
  const samples: SoakSample[] = [];
  const every = seconds / 100;
  const watch = new Stopwatch();
  while (watch.seconds < seconds) {
    const status = recorder.step();
    if (status !== 'running')
      throw new UsageError(`${name} has ended after ${watch.seconds.toFixed(0)} s. Soak it for less.`);
    await new Promise((resolve) => setImmediate(resolve));
    if (!sampler.isDue(every)) continue;
    const sample = sampler.take();
    samples.push(sample);
    terminal.status(
      `${name}: ${watch.seconds.toFixed(0)} of ${seconds.toFixed(0)} s, ${shortCount(recorder.machine.retired)} instructions, ` +
        `${byteSize(sample.rssBytes)}, ${sample.regions} regions, tape ${byteSize(recorder.stats.tapeBytes)}`,
    );
  }
  const { instructions, exits, tapeBytes } = recorder.stats;
  recorder.abandon();
  rmSync(tape);
  return { guest: `${name} ${options}`, instructions, exits, tapeBytes, findings: findingsOf(samples), samples };
}

class SoakSampler {
  private watch = new Stopwatch();
  private cpu = process.cpuUsage();
  private retired: number;
  /** Instructions at which the guest has done all that it does once more. */
  private turnEnd: number;

  constructor(
    private readonly recorder: Recorder,
    private readonly turn: number,
  ) {
    this.retired = recorder.machine.retired;
    this.turnEnd = this.retired + turn;
  }

  /** Whether so much time has passed, and the guest has begun anew: parts of what it does are faster than others. */
  isDue(seconds: number): boolean {
    const { retired } = this.recorder.machine;
    if (retired < this.turnEnd) return false;
    this.turnEnd += Math.ceil((retired + 1 - this.turnEnd) / this.turn) * this.turn;
    return this.watch.seconds >= seconds;
  }

  take(): SoakSample {
    const { machine } = this.recorder;
    const { regionsMade, regionsDropped, tableUsed, codeCacheBytes } = machine.engine.counts;
    const { user, system } = process.cpuUsage(this.cpu);
    const { rss, heapUsed } = process.memoryUsage();
    const sample = {
      instructions: machine.retired - this.retired,
      seconds: this.watch.seconds,
      cpuSeconds: (user + system) / 1e6,
      ...{ rssBytes: rss, heapBytes: heapUsed, regions: regionsMade - regionsDropped, tableUsed, codeCacheBytes },
    };
    this.watch = new Stopwatch();
    this.cpu = process.cpuUsage();
    this.retired = machine.retired;
    return sample;
  }
}

/**
 * Start against end, each the median of several samples. Speed is by time of the processor: what else the host does is not the
 * session's; the time by the clock is told beside it.
 * @throws UsageError when there are too few.
 */
export function findingsOf(samples: readonly SoakSample[]): readonly Finding[] {
  if (samples.length < LEAST_SAMPLES) {
    throw new UsageError(`${samples.length} samples are too few to compare. Soak for more minutes, or fewer guests.`);
  }
  const from = Math.ceil(samples.length * WARM_UP);
  const count = Math.floor(samples.length * COMPARED);
  const [first, last] = [samples.slice(from, from + count), samples.slice(-count)];
  const compare = (what: string, value: (sample: SoakSample) => number, limit: (start: number) => number): Finding => {
    const [start, end] = [median(first.map(value)), median(last.map(value))];
    const most = limit(start);
    return { what, start, end, limit: most, broken: end > most };
  };
  const slower = (start: number): number => start / (1 - SPEED_LOSS);
  const larger = (start: number): number => start * (1 + MEMORY_GROWTH) + MEMORY_NOISE;
  return [
    compare('processor ns an instruction', ({ cpuSeconds, instructions }) => (1e9 * cpuSeconds) / instructions, slower),
    compare(
      'clock ns an instruction',
      ({ seconds, instructions }) => (1e9 * seconds) / instructions,
      () => Number.POSITIVE_INFINITY,
    ),
    compare('resident bytes', ({ rssBytes }) => rssBytes, larger),
    compare('heap bytes', ({ heapBytes }) => heapBytes, larger),
    compare(
      'regions',
      ({ regions }) => regions,
      (start) => start + TABLE_NOISE,
    ),
    compare(
      'places of the table',
      ({ tableUsed }) => tableUsed,
      (start) => start + TABLE_NOISE,
    ),
    compare(
      'code cache bytes',
      ({ codeCacheBytes }) => codeCacheBytes,
      () => Number.POSITIVE_INFINITY,
    ),
  ];
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

export function soakLines({
  guest,
  instructions,
  exits,
  tapeBytes,
  findings,
}: Omit<SoakResult, 'samples'>): readonly string[] {
  const figure = (what: string, value: number): string =>
    !Number.isFinite(value)
      ? ''
      : what.endsWith('bytes')
        ? byteSize(value)
        : value < 1000
          ? value.toFixed(2)
          : shortCount(value);
  const rows = findings.map(({ what, start, end, limit, broken }) => [
    ...[what, figure(what, start), figure(what, end), figure(what, limit), broken ? 'BROKEN' : ''],
  ]);
  return [
    `${guest}: ${shortCount(instructions)} instructions, ${shortCount(exits)} exits, tape ${byteSize(tapeBytes)}`,
    ...table([['', 'start', 'end', 'at most', ''], ...rows], ['left', 'right', 'right', 'right'], '  '),
    '',
  ];
}

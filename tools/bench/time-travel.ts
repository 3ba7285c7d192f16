/**
 * `npm run bench -- time-travel`: what checkpoints cost while recording, and how soon one is anywhere in a recording, one step
 * before it, and there again. Beside it, where gdb and qemu-img are installed, QEMU's own reverse-stepi.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { type Position, sqliteStore } from '../../src/journal/index.js';
import { DEFAULT_CONFIG, R } from '../../src/machine/index.js';
import { Recorder, Timeline } from '../../src/replay/index.js';
import { parseCount } from '../cli/arguments.js';
import { byteSize, grouped, table } from '../cli/format.js';
import { parseWords } from '../cli/tool.js';
import { PACKAGE_FOLDER, VMTAPE_VERSION } from '../version.js';
import { qemuReverseSteps } from './qemu-reverse.js';
import { type Guest, parseScale, parseSubjects, SUBJECTS, scaledOptions } from './subjects.js';

/** Numbers that do not compress, memory of a real program, the same a level deeper, world switches. */
const USUAL_GUESTS = 'compute,pointers,tenant,nested';
const RAM_BYTES = 128 * 1024 * 1024;
/** Steps back, one after the other, at each place. */
const REPEATED_STEPS = 10;

export const TIME_TRAVEL_USAGE = `usage: npm run bench -- time-travel [options]
  --guests A,B some of: ${SUBJECTS.map(({ name }) => name).join(', ')} (${USUAL_GUESTS})
  --scale F    the multiple of their length, 2 thousand million instructions or a million events (1)
  --places N   random places in each recording (40)
  --seed N     of the places (1)
  --no-qemu    vmtape alone
  --json       one document to stdout`;

interface Recording {
  readonly instructions: number;
  readonly events: number;
  readonly seconds: number;
  readonly checkpoints: number;
  /** Milliseconds in which the machine waited for each checkpoint. */
  readonly stalls: Quantiles;
  readonly stallShare: number;
  readonly dirtiedBytes: number;
  /** What checkpoints take on the tape, pages included. */
  readonly checkpointBytes: number;
  readonly tapeBytes: number;
}

interface Travel {
  readonly open: number;
  readonly seek: Quantiles;
  readonly stepBack: Quantiles;
  readonly stepBackAgain: Quantiles;
}

interface Quantiles {
  readonly median: number;
  readonly p95: number;
  readonly most: number;
}

export function timeTravelBench(args: string[]): number {
  const { values } = parseWords({
    args,
    options: {
      json: { type: 'boolean', default: false },
      guests: { type: 'string', default: USUAL_GUESTS },
      scale: { type: 'string', default: '1' },
      places: { type: 'string', default: '40' },
      seed: { type: 'string', default: '1' },
      'no-qemu': { type: 'boolean', default: false },
    },
  });
  const places = parseCount(values.places, '--places', 1);
  const scale = parseScale(values.scale);
  const guests = parseSubjects(values.guests, '--guests').map(
    ({ name, image, long }): Guest => ({ name, image, options: scaledOptions(long, scale) }),
  );
  const seed = parseCount(values.seed, '--seed', 0);
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-bench-'));
  try {
    const host = { cpu: cpus()[0]?.model ?? 'unknown', node: process.version };
    if (!values.json) process.stdout.write(`${host.cpu}, Node ${host.node}, ${places} places\n`);
    const results = guests.map((guest) => {
      const tape = join(folder, `${guest.name}.vmtape`);
      const recording = record(guest, tape);
      const travel = wander(tape, places, seed);
      const last = lastInstruction(tape);
      rmSync(tape);
      const qemu = values['no-qemu'] ? undefined : qemuReverseSteps(guest, last, folder);
      const result = {
        guest: `${guest.name} ${guest.options}`,
        ...{ recording, travel },
        qemuReverseStepSeconds: qemu ?? null,
      };
      if (!values.json) print(result);
      return result;
    });
    if (values.json)
      process.stdout.write(`${JSON.stringify({ vmtape: VMTAPE_VERSION, host, places, seed, results }, null, 2)}\n`);
    return 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function record({ image, options }: Guest, tape: string): Recording {
  const stalls: number[] = [];
  let dirtiedBytes = 0;
  let from = 0;
  const recorder = Recorder.boot(sqliteStore(tape), {
    config: { ...DEFAULT_CONFIG, ramBytes: RAM_BYTES },
    image: readFileSync(join(PACKAGE_FOLDER, 'test/guests/images', image)),
    commandLine: `${image} ${options}`,
    unixSeconds: 1_767_225_600,
    entropySeed: 1n,
    vmtapeVersion: VMTAPE_VERSION,
    checkpointEvery: 'adaptive',
    beforeCheckpoint: () => {
      from = performance.now();
    },
    onCheckpoint: (pageBytes) => {
      stalls.push(performance.now() - from);
      dirtiedBytes += pageBytes;
    },
  });
  const start = performance.now();
  recorder.endInput();
  while (recorder.step() === 'running');
  recorder.finish();
  const seconds = (performance.now() - start) / 1000;
  const { instructions, events, checkpoints } = recorder.stats;
  return {
    ...{ instructions, events: Number(events), seconds, checkpoints },
    ...{ stalls: quantiles(stalls), stallShare: stalls.reduce((sum, each) => sum + each, 0) / 1000 / seconds },
    ...{ dirtiedBytes, checkpointBytes: checkpointBytes(tape), tapeBytes: statSync(tape).size },
  };
}

function checkpointBytes(tape: string): number {
  const database = new Database(tape, { readonly: true });
  const sum = (sql: string): number => database.prepare(sql).pluck().get() as number;
  const bytes =
    sum('SELECT sum(length(digests) + length(seal) + length(data)) FROM pages') +
    sum('SELECT sum(length(seal) + length(state) + length(map)) FROM checkpoints');
  database.close();
  return bytes;
}

/** Goes to random places, and back from each. */
function wander(tape: string, places: number, seed: number): Travel {
  const reader = sqliteStore(tape).read();
  const times = { seek: [] as number[], stepBack: [] as number[], stepBackAgain: [] as number[] };
  const timed = (into: number[], work: () => void): void => {
    const start = performance.now();
    work();
    into.push(performance.now() - start);
  };
  const start = performance.now();
  const timeline = new Timeline(reader);
  const open = performance.now() - start;
  for (const icount of randomPlaces(reader.end, places, seed)) {
    timed(times.seek, () => timeline.seekInstruction(icount));
    timed(times.stepBack, () => timeline.stepBack());
    for (let step = 0; step < REPEATED_STEPS; step++) timed(times.stepBackAgain, () => timeline.stepBack());
  }
  timeline.close();
  reader.close();
  return {
    open,
    seek: quantiles(times.seek),
    stepBack: quantiles(times.stepBack),
    stepBackAgain: quantiles(times.stepBackAgain),
  };
}

/** RIP of the instruction that the recording ended in. */
function lastInstruction(tape: string): bigint {
  const reader = sqliteStore(tape).read();
  const timeline = new Timeline(reader);
  timeline.seek(timeline.end);
  timeline.stepBack();
  const rip = timeline.machine.registers[R.rip] as bigint;
  timeline.close();
  reader.close();
  return rip;
}

/** The same for the same seed. */
function* randomPlaces({ icount }: Position, places: number, seed: number): Generator<bigint, void, void> {
  let state = BigInt(seed);
  for (let place = 0; place < places; place++) {
    state = BigInt.asUintN(64, state * 6_364_136_223_846_793_005n + 1_442_695_040_888_963_407n);
    yield (icount * (state >> 32n)) >> 32n;
  }
}

function quantiles(values: readonly number[]): Quantiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
  return { median: at(0.5), p95: at(0.95), most: sorted.at(-1) ?? 0 };
}

interface Result {
  readonly guest: string;
  readonly recording: Recording;
  readonly travel: Travel;
  readonly qemuReverseStepSeconds: readonly number[] | string | null;
}

function print({ guest, recording, travel, qemuReverseStepSeconds: qemu }: Result): void {
  const row = (name: string, { median, p95, most }: Quantiles): readonly string[] => [
    name,
    ...[median, p95, most].map((value) => `${value.toFixed(1)} ms`),
  ];
  const lines = [
    '',
    `${guest}: ${grouped(recording.instructions)} instructions, ${grouped(recording.events)} events in ${recording.seconds.toFixed(2)} s`,
    `  ${recording.checkpoints} checkpoints took ${(100 * recording.stallShare).toFixed(1)} % of the time, and ` +
      `${byteSize(recording.checkpointBytes)} for ${byteSize(recording.dirtiedBytes)} of pages ` +
      `(${((100 * recording.checkpointBytes) / recording.dirtiedBytes).toFixed(0)} %) of a tape of ${byteSize(recording.tapeBytes)}`,
    ...table(
      [
        ['', 'median', 'p95', 'most'],
        row('checkpoint while recording', recording.stalls),
        row('seek to a random place', travel.seek),
        row('step back there', travel.stepBack),
        row('step back again', travel.stepBackAgain),
      ],
      ['left', 'right', 'right', 'right'],
      '  ',
    ),
    ...(qemu === null
      ? []
      : [
          `  QEMU reverse-stepi at the end: ${typeof qemu === 'string' ? qemu : qemu.map((each) => `${each.toFixed(2)} s`).join(', ')}`,
        ]),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

/**
 * `npm run bench -- moving`: how long snapshots of a large guest take and how large they are, and for how long a session
 * stands still when it moves between two processes over loopback.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type JournalReader, memoryStore } from '../../src/journal/index.js';
import { DEFAULT_CONFIG, type Machine, PAGE_BYTES, sPA } from '../../src/machine/index.js';
import { LiveSession, Recorder, Timeline, takeSnapshot } from '../../src/replay/index.js';
import { parseCount } from '../cli/arguments.js';
import { byteSize, table } from '../cli/format.js';
import { readSnapshot, writeSnapshot } from '../cli/snapshot-io.js';
import { parseWords } from '../cli/tool.js';
import { moveBetweenProcesses } from '../moves/between-processes.js';
import { PACKAGE_FOLDER, VMTAPE_VERSION } from '../version.js';

const RAM_BYTES = 256 * 1024 * 1024;
const TOUCHED_BYTES = 64 * 1024 * 1024;
/** Where pages are touched: behind what the guest uses. */
const FIRST_TOUCHED = 32 * 1024 * 1024;
const IMAGE = join(PACKAGE_FOLDER, 'test/guests/images/nested.elf');

export const MOVING_USAGE = `usage: npm run bench -- moving [options]
  --moves N    between processes (20)
  --post-copy  the rest of RAM follows
  --rounds N   snapshots (5)
  --json       one document to stdout`;

interface SnapshotFigures {
  readonly takeSeconds: number;
  readonly resumeSeconds: number;
  readonly bytes: number;
  readonly share: number;
}

export async function movingBench(args: string[]): Promise<number> {
  const { values } = parseWords({
    args,
    options: {
      moves: { type: 'string', default: '20' },
      'post-copy': { type: 'boolean', default: false },
      rounds: { type: 'string', default: '5' },
      json: { type: 'boolean', default: false },
    },
  });
  const snapshots = await snapshotBench(parseCount(values.rounds, '--rounds', 1));
  const downtimes = await migrationBench(
    parseCount(values.moves, '--moves', 1),
    values['post-copy'] ? ['--post-copy'] : [],
  );
  const sorted = downtimes.toSorted((a, b) => a - b);
  const quantile = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0;
  const downtime = { median: quantile(0.5), p95: quantile(0.95), most: quantile(1) };
  if (values.json) {
    process.stdout.write(
      `${JSON.stringify({ processors: cpus().length, snapshots, downtime, moves: sorted.length })}\n`,
    );
    return 0;
  }
  const milliseconds = (value: number): string => `${value.toFixed(1)} ms`;
  process.stdout.write(
    `${[
      `${byteSize(TOUCHED_BYTES)} touched of ${byteSize(RAM_BYTES)}, best of ${values.rounds}; ${cpus().length} processors`,
      ...table([
        ['snapshot taken and written', `${(snapshots.takeSeconds * 1000).toFixed(0)} ms`],
        ['read and resumed', `${(snapshots.resumeSeconds * 1000).toFixed(0)} ms`],
        ['size', `${byteSize(snapshots.bytes)}, ${(snapshots.share * 100).toFixed(0)} % of what was touched`],
      ]),
      '',
      `${sorted.length} moves${values['post-copy'] ? ' with post-copy' : ''} between two processes, ` +
        `${byteSize(RAM_BYTES)} of RAM, while nested.elf runs its guest`,
      ...table([
        ['stood still, median', milliseconds(downtime.median)],
        ['p95', milliseconds(downtime.p95)],
        ['most', milliseconds(downtime.most)],
      ]),
    ].join('\n')}\n`,
  );
  return 0;
}

function nestedSession(): { readonly reader: JournalReader; readonly machine: Machine } {
  const store = memoryStore();
  const recorder = Recorder.boot(store, {
    config: { ...DEFAULT_CONFIG, ramBytes: RAM_BYTES },
    image: readFileSync(IMAGE),
    commandLine: 'nested.elf rounds=1',
    unixSeconds: 0,
    entropySeed: 1n,
    vmtapeVersion: VMTAPE_VERSION,
  });
  recorder.endInput();
  while (recorder.step(100_000) === 'running');
  recorder.finish();
  const reader = store.read();
  const timeline = new Timeline(reader);
  timeline.seek(reader.end);
  return { reader, machine: timeline.machine };
}

/** The machine of a nested session with pages of a program in its RAM, those of the Node that runs this. */
async function snapshotBench(rounds: number): Promise<SnapshotFigures> {
  const { reader, machine } = nestedSession();
  const program = readFileSync(process.execPath).subarray(0, TOUCHED_BYTES);
  for (let at = 0; at < TOUCHED_BYTES; at += PAGE_BYTES) {
    machine.memory.copyIn(sPA(FIRST_TOUCHED + at), program.subarray(at, at + PAGE_BYTES));
  }
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-bench-'));
  const file = join(folder, 'guest.vmsnap');
  let [takeSeconds, resumeSeconds] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  try {
    for (let round = 0; round < rounds; round++) {
      rmSync(file, { force: true });
      const taken = await seconds(() => writeSnapshot(file, file, takeSnapshot(machine, reader, reader.end)));
      const resumed = await seconds(async () => LiveSession.resume(await readSnapshot(file), {}, () => {}));
      takeSeconds = Math.min(takeSeconds, taken);
      resumeSeconds = Math.min(resumeSeconds, resumed);
    }
    const bytes = statSync(file).size;
    return { takeSeconds, resumeSeconds, bytes, share: bytes / TOUCHED_BYTES };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

async function migrationBench(moves: number, flags: readonly string[]): Promise<readonly number[]> {
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-bench-'));
  const downtimes: number[] = [];
  try {
    for (let move = 0; move < moves; move++) {
      const [here, there] = [join(folder, `here-${move}.vmtape`), join(folder, `there-${move}.vmtape`)];
      downtimes.push(await oneMove(here, there, move, flags));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  return downtimes;
}

/** @returns milliseconds for which the session stood still. */
const oneMove = (here: string, there: string, move: number, flags: readonly string[]): Promise<number> =>
  moveBetweenProcesses({
    source: [
      ...[IMAGE, '--append', 'rounds=100000', '--memory', String(RAM_BYTES)],
      ...['--at', String(1_000_000 + 137_000 * move), ...flags],
    ],
    receiver: ['--max-instructions', '1'],
    ...{ here, there },
  });

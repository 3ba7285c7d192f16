/**
 * `npm run bench [-- --json] [--guests a,b] [--rounds N] [--no-qemu]`: what recording costs, on the sample guests, each in a process of
 * its own as a user starts it; and, where QEMU is installed, the same guests there in the same minute.
 *
 * Rounds are interleaved and the best of each counts: what else the host does then spoils all alike. QEMU's own start,
 * firmware included, is measured with a guest that does nothing, and taken off.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseCount } from '../cli/arguments.js';
import { tuneV8 } from '../cli/engine.js';
import { byteSize, grouped, table } from '../cli/format.js';
import { parseWords, runTool } from '../cli/tool.js';
import { VMTAPE_VERSION } from '../version.js';
import { BISECT_USAGE, bisectBench } from './bisecting.js';
import { MOVING_USAGE, movingBench } from './moving.js';
import { SOAK_USAGE, soakBench } from './soak.js';
import { SPEED_USAGE, speedBench } from './speed.js';
import {
  type Guest,
  parseSubjects,
  type QemuMode,
  qemuVersion,
  runQemu,
  runVmtape,
  SUBJECTS,
  type Subject,
  type VmtapeRun,
} from './subjects.js';
import { TIME_TRAVEL_USAGE, timeTravelBench } from './time-travel.js';

tuneV8();

const NOTHING: Guest = { name: 'hello64', image: 'hello64.elf', options: '' };
const QEMU_MODES: readonly QemuMode[] = ['plain', 'rr=record'];

interface Bench {
  readonly guest: string;
  readonly instructions: number;
  readonly exits: number;
  readonly run: Measured;
  readonly record: Measured;
  readonly replay: Measured;
  readonly replayToRecord: number;
  readonly tapeBytes: number;
  readonly bytesPerExit: number | null;
  readonly peakRssBytes: number;
  readonly qemu: readonly QemuResult[];
}

interface Measured {
  readonly seconds: number;
  readonly mips: number;
  readonly roundTripsPerSecond: number | null;
}

interface QemuResult extends Measured {
  readonly mode: QemuMode;
  /** Time of vmtape, recording, by QEMU's: below 1 vmtape is faster. */
  readonly recordToQemu: number;
}

const USAGE = `usage: npm run bench -- [options]
  --guests A,B some of: ${SUBJECTS.map(({ name }) => name).join(', ')} (all)
  --rounds N   the best of N (3)
  --no-qemu    vmtape alone
  --json       one document to stdout

${TIME_TRAVEL_USAGE}

${MOVING_USAGE}

${BISECT_USAGE}

${SPEED_USAGE}

${SOAK_USAGE}`;

async function main(args: string[]): Promise<number> {
  if (args[0] === 'time-travel') return timeTravelBench(args.slice(1));
  if (args[0] === 'bisect') return bisectBench(args.slice(1));
  if (args[0] === 'soak') return await soakBench(args.slice(1));
  if (args[0] === 'speed') return await speedBench(args.slice(1));
  if (args[0] === 'moving') return await movingBench(args.slice(1));
  const { values } = parseWords({
    args,
    options: {
      json: { type: 'boolean', default: false },
      guests: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      'no-qemu': { type: 'boolean', default: false },
    },
  });
  const rounds = parseCount(values.rounds, '--rounds', 1);
  const subjects = values.guests === undefined ? SUBJECTS : parseSubjects(values.guests, '--guests');
  const qemu = values['no-qemu'] ? undefined : qemuVersion();
  const folder = mkdtempSync(join(tmpdir(), 'vmtape-bench-'));
  try {
    const benches = subjects.map((subject) => bench(subject, rounds, folder, qemu !== undefined));
    const host = { cpu: cpus()[0]?.model ?? 'unknown', node: process.version, qemu: qemu ?? null };
    if (values.json)
      process.stdout.write(`${JSON.stringify({ vmtape: VMTAPE_VERSION, host, rounds, benches }, null, 2)}\n`);
    else print(benches, `${host.cpu}, Node ${host.node}, best of ${rounds}${qemu === undefined ? '' : `, ${qemu}`}`);
    return 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The shortest of several times. */
class Best {
  seconds = Number.POSITIVE_INFINITY;

  take(seconds: number): void {
    this.seconds = Math.min(this.seconds, seconds);
  }
}

function bench(subject: Subject, rounds: number, folder: string, withQemu: boolean): Bench {
  const { name, image, short: options, roundTrips } = subject;
  const guest: Guest = { name, image, options };
  const times = { run: new Best(), record: new Best(), replay: new Best() };
  const qemuTimes = QEMU_MODES.map((mode) => ({ mode, nothing: new Best(), guest: new Best() }));
  let last: VmtapeRun | undefined;
  for (let round = 0; round < rounds; round++) {
    const tape = join(folder, `${guest.name}-${round}.vmtape`);
    times.run.take(runVmtape(['run'], guest).seconds);
    last = runVmtape(['record', '-o', tape], guest);
    times.record.take(last.seconds);
    times.replay.take(runVmtape(['replay', tape], undefined).seconds);
    rmSync(tape);
    if (!withQemu) continue;
    for (const { mode, nothing, guest: time } of qemuTimes) {
      nothing.take(runQemu(NOTHING, mode, folder));
      time.take(runQemu(guest, mode, folder));
    }
  }
  if (last === undefined) throw new RangeError('no round was run');
  const { instructions, exits, tapeBytes, peakRssBytes } = last;
  const measured = (seconds: number): Measured => ({
    seconds,
    mips: instructions / seconds / 1e6,
    roundTripsPerSecond: roundTrips === undefined ? null : roundTrips / seconds,
  });
  return {
    ...{ guest: `${guest.name} ${guest.options}`, instructions, exits },
    ...{
      run: measured(times.run.seconds),
      record: measured(times.record.seconds),
      replay: measured(times.replay.seconds),
    },
    replayToRecord: times.replay.seconds / times.record.seconds,
    ...{ tapeBytes, bytesPerExit: exits === 0 ? null : tapeBytes / exits, peakRssBytes },
    qemu: !withQemu
      ? []
      : qemuTimes.map(({ mode, nothing, guest: time }) => {
          const seconds = Math.max(time.seconds - nothing.seconds, 1e-3);
          return { mode, ...measured(seconds), recordToQemu: times.record.seconds / seconds };
        }),
  };
}

function print(benches: readonly Bench[], host: string): void {
  process.stdout.write(`${host}\n`);
  for (const each of benches) {
    const row = (name: string, { seconds, mips, roundTripsPerSecond }: Measured, note = ''): readonly string[] => [
      name,
      `${seconds.toFixed(3)} s`,
      `${mips.toFixed(1)} MIPS`,
      roundTripsPerSecond === null ? '' : `${grouped(Math.round(roundTripsPerSecond))} round trips/s`,
      note,
    ];
    const perExit = each.bytesPerExit === null ? '' : `, ${each.bytesPerExit.toFixed(1)} bytes per exit`;
    const lines = [
      '',
      `${each.guest}: ${grouped(each.instructions)} instructions, ${grouped(each.exits)} exits`,
      ...table(
        [
          row('vmtape run', each.run),
          row('vmtape record', each.record),
          row('vmtape replay', each.replay, `${each.replayToRecord.toFixed(2)} times the recording`),
          ...each.qemu.map((result) =>
            row(`QEMU ${result.mode}`, result, `vmtape record takes ${result.recordToQemu.toFixed(2)} times as long`),
          ),
        ],
        ['left', 'right', 'right', 'right'],
        '  ',
      ),
      `  tape ${byteSize(each.tapeBytes)}${perExit}; peak memory of the recording process ${byteSize(each.peakRssBytes)}`,
    ];
    process.stdout.write(`${lines.join('\n')}\n`);
  }
  const summary = table(
    [
      ['', 'instructions', 'recorded in', 'at', 'tape'],
      ...benches.map(({ guest, instructions, record, tapeBytes }) => [
        guest,
        grouped(instructions),
        `${record.seconds.toFixed(3)} s`,
        `${record.mips.toFixed(1)} MIPS`,
        byteSize(tapeBytes),
      ]),
    ],
    ['left', 'right', 'right', 'right', 'right'],
  );
  process.stdout.write(`\n${summary.join('\n')}\n`);
}

await runTool(USAGE, main);

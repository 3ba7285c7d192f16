/** What the benches measure: vmtape and QEMU on the same guest images, each run a process of its own. */
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { Stopwatch } from '../cli/drive.js';
import { UsageError } from '../cli/failure.js';
import { PACKAGE_FOLDER } from '../version.js';

export interface Guest {
  readonly name: string;
  readonly image: string;
  /** The guest's own command line. */
  readonly options: string;
}

/** A guest as the benches run it. What it does stands in test/guests/README.md. */
export interface Subject {
  readonly name: string;
  readonly image: string;
  /** Options that give seconds of work. */
  readonly short: string;
  /** Options that give 2 thousand million instructions, or a million events: what time travel is measured on. */
  readonly long: string;
  /** Options that give 2.5 thousand million instructions, or 200,000 exits: what speed is measured on. */
  readonly full: string;
  /** Instructions that one more of its option takes, about: everything that the guest does, once. */
  readonly turn: number;
  /** World switches and back that `short` makes: the rate of its bench. */
  readonly roundTrips?: number;
}

export const SUBJECTS: readonly Subject[] = [
  { name: 'compute', image: 'compute.elf', short: 'scale=10', long: 'scale=46', full: 'scale=55', turn: 45_674_000 },
  { name: 'pointers', image: 'pointers.elf', short: 'scale=8', long: 'scale=35', full: 'scale=42', turn: 60_236_000 },
  { name: 'strings', image: 'strings.elf', short: 'scale=8', long: 'scale=36', full: 'scale=44', turn: 57_452_000 },
  { name: 'crypto32', image: 'crypto32.elf', short: 'scale=8', long: 'scale=34', full: 'scale=40', turn: 62_330_000 },
  { name: 'paging', image: 'paging.elf', short: 'scale=1', long: 'scale=36', full: 'scale=43', turn: 58_317_000 },
  { name: 'selfmod', image: 'selfmod.elf', short: 'scale=1', long: 'scale=36', full: 'scale=43', turn: 57_715_000 },
  { name: 'blocks', image: 'blocks.elf', short: 'scale=1', long: 'scale=54', full: 'scale=65', turn: 38_432_000 },
  {
    name: 'exits',
    image: 'exits.elf',
    short: 'n=200000',
    long: 'n=400000',
    full: 'n=200000',
    turn: 14,
    roundTrips: 200_000,
  },
  { name: 'tenant', image: 'tenant.elf', short: 'scale=8', long: 'scale=35', full: 'scale=42', turn: 59_190_000 },
  { name: 'nested', image: 'nested.elf', short: 'rounds=2000', long: 'rounds=4000', full: 'rounds=7700', turn: 5_354 },
];

/** @returns the number above 0 that `--scale` gives. @throws UsageError */
export function parseScale(text: string): number {
  const scale = Number(text);
  if (scale > 0 && Number.isFinite(scale)) return scale;
  throw new UsageError(`--scale ${JSON.stringify(text)} is no part. Give a number above 0, such as 0.1.`);
}

/** A guest's option, such as `full`, for a part of that length or a multiple. */
export function scaledOptions(options: string, scale: number): string {
  const [name, count] = options.split('=');
  return `${name}=${Math.max(1, Math.round(scale * Number(count)))}`;
}

/** Names between commas, as subjects in the order of the table. @throws UsageError naming one that is none. */
export function parseSubjects(text: string, what: string): readonly Subject[] {
  const names = text.split(',');
  const stranger = names.find((name) => SUBJECTS.every((subject) => subject.name !== name));
  if (stranger !== undefined) {
    const known = SUBJECTS.map(({ name }) => name).join(', ');
    throw new UsageError(
      `${what} names ${JSON.stringify(stranger)}, which is no guest of the benches. There are ${known}.`,
    );
  }
  return SUBJECTS.filter(({ name }) => names.includes(name));
}

export interface VmtapeRun {
  readonly instructions: number;
  /** From the first instruction to the end; with a tape, until all of it is stored. */
  readonly seconds: number;
  readonly exits: number;
  readonly tapeBytes: number;
  readonly peakRssBytes: number;
}

const RAM = '128M';
/** Seconds: QEMU comes to no end of some replays. */
export const PATIENCE = 180;
const QEMU = 'qemu-system-x86_64';
const COMMAND_LINE = join(PACKAGE_FOLDER, 'dist/bundle/vmtape.js');
export const imagePath = ({ image }: Guest): string => join(PACKAGE_FOLDER, 'test/guests/images', image);

/** Runs a command with `--stats`. @param guest undefined for commands on tapes. */
export function runVmtape(command: readonly string[], guest: Guest | undefined): VmtapeRun {
  const flags = ['--memory', RAM, '--serial', 'null', '--seed', '1', '--clock', '2026-01-01', '--append'];
  const machine = guest === undefined ? [] : [imagePath(guest), ...flags, guest.options];
  const args = [COMMAND_LINE, ...command, ...machine, '--stats', '--quiet'];
  const { status, stderr } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (status !== 0) throw new Error(`vmtape ${command.join(' ')} ended with status ${status}: ${stderr}`);
  const figures = JSON.parse(stderr.trim().split('\n').at(-1) ?? '') as VmtapeRun;
  const tape = command[command.indexOf('-o') + 1];
  // SQLite's own count leaves out what is still in the log; the file that stays is what a tape costs.
  return command[0] === 'record' && tape !== undefined ? { ...figures, tapeBytes: statSync(tape).size } : figures;
}

/** What a guest says on its serial line, which is the same on every machine. */
export function serialOutput(guest: Guest): string {
  const known = SAID.get(guest.options + guest.image);
  if (known !== undefined) return known;
  const args = [COMMAND_LINE, 'run', imagePath(guest), '--memory', RAM, '--append', guest.options, '--quiet'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'latin1' });
  if (status !== 0) throw new Error(`vmtape run ended with status ${status}: ${stderr}`);
  SAID.set(guest.options + guest.image, stdout);
  return stdout;
}
const SAID = new Map<string, string>();

/** `rr=replay` replays what `rr=record` has left in the folder. */
export type QemuMode = 'plain' | 'rr=record' | 'rr=replay';

/** The version line, or undefined when QEMU is not installed. */
export function qemuVersion(): string | undefined {
  const { status, stdout } = spawnSync(QEMU, ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n')[0] : undefined;
}

/** @param patience seconds after which it is ended. @returns seconds of the whole process. */
export function runQemu(guest: Guest, mode: QemuMode, folder: string, patience = PATIENCE): number {
  const args = [
    ...['-machine', 'pc', '-accel', 'tcg', '-cpu', 'max,+svm', '-m', RAM, '-display', 'none', '-net', 'none'],
    ...['-serial', 'null', '-monitor', 'none', '-no-reboot', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4'],
    ...(mode === 'plain' ? [] : ['-icount', `shift=1,${mode},rrfile=${join(folder, `${guest.name}.rr`)}`]),
    ...['-kernel', imagePath(guest), '-append', guest.options],
  ];
  const watch = new Stopwatch();
  const { status, signal, stderr } = spawnSync(QEMU, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: patience * 1000,
    // Where it makes no headway it does not heed SIGTERM either.
    killSignal: 'SIGKILL',
  });
  if (signal !== null) throw new Error(`QEMU did not end within ${patience} seconds on ${guest.name}`);
  // The guests end with status 0 through isa-debug-exit, which QEMU makes 1.
  if (status !== 1) throw new Error(`QEMU ended with status ${status} on ${guest.name}: ${stderr}`);
  return watch.seconds;
}

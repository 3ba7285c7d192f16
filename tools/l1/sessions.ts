/** The sessions of `npm run test:l1`, each recorded, then replayed, by the command line as a user has it. */
import { spawn } from 'node:child_process';
import { createWriteStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_FOLDER } from '../version.js';
import type { L1Images } from './images.js';

export interface L1Session {
  readonly name: string;
  readonly kernel: 'vmlinux' | 'bzImage';
  /** More of the command line. */
  readonly flags: readonly string[];
  /** More of the kernel's command line. */
  readonly append?: string;
}

/** Both boots, both tiers, both kinds of paging of L2, one and four vCPUs, with and without L0's clock. */
export const L1_SESSIONS: readonly L1Session[] = [
  { name: 'pvh', kernel: 'vmlinux', flags: [] },
  { name: 'bzimage', kernel: 'bzImage', flags: [] },
  { name: 'linux64', kernel: 'vmlinux', flags: ['--boot', 'linux'] },
  { name: 'no-acpi', kernel: 'vmlinux', flags: [], append: 'acpi=off' },
  { name: 'no-npt', kernel: 'vmlinux', flags: [], append: 'kvm_amd.npt=0' },
  { name: 'no-np', kernel: 'bzImage', flags: ['--cpu', 'zen-2,-np'] },
  { name: 'smp', kernel: 'vmlinux', flags: ['--smp', '4'] },
  { name: 'kvmclock', kernel: 'bzImage', flags: ['--paravirt', 'kvm'] },
  {
    name: 'smp-kvmclock-no-npt',
    kernel: 'vmlinux',
    flags: ['--smp', '4', '--paravirt', 'kvm'],
    append: 'kvm_amd.npt=0',
  },
  { name: 'interpreter', kernel: 'vmlinux', flags: ['--engine', 'interpreter'] },
];

/** Lines that must come, in this order. The checksum is that of every processor that does as the manual says. */
export const EXPECTED = ['L1-UP', 'KVM-OK api=12', 'L2-SUM 698b2168', 'L2-TMR ticks=8', 'DONE'];

/**
 * Makes a boot short: no self tests of the crypto modules (870 M instructions), no loop to find out about delays, no probing
 * of serial ports that are not there; and its end a reset.
 */
const APPEND =
  'console=ttyS0 nokaslr mitigations=off reboot=t panic=-1 cryptomgr.notests tsc=reliable no_timer_check lpj=4000000 8250.nr_uarts=1';
const FIXED = ['--memory', '256M', '--clock', '2026-01-01T00:00:00Z', '--seed', '1', '--stats'];
const MOST_INSTRUCTIONS = 4_000_000_000;

export interface Outcome {
  readonly instructions: number;
  readonly events: number;
  readonly recordSeconds: number;
  readonly replaySeconds: number;
  /** What is wrong; undefined when nothing is. */
  readonly failure: string | undefined;
}

const MAIN = join(PACKAGE_FOLDER, 'dist/tools/cli/main.js');

interface Ended {
  readonly status: number | null;
  readonly stderr: string;
  readonly seconds: number;
}

/** @param output takes stdout. */
function vmtape(args: readonly string[], output: string): Promise<Ended> {
  const started = process.hrtime.bigint();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (data: Buffer) => {
      stderr += data.toString();
    });
    child.stdout.pipe(createWriteStream(output));
    child.on('error', reject);
    child.on('close', (status) => {
      resolve({ status, stderr, seconds: Number(process.hrtime.bigint() - started) / 1e9 });
    });
  });
}

/** @returns the first expected line that is not there, after those before it. */
export function missingLine(console: string): string | undefined {
  const lines = console.split(/\r?\n/);
  let at = 0;
  return EXPECTED.find((line) => {
    const found = lines.indexOf(line, at);
    at = found + 1;
    return found < 0;
  });
}

/** @param folder for the tape and the console's text. */
export async function runSession(session: L1Session, images: L1Images, folder: string): Promise<Outcome> {
  const { name, kernel, flags, append } = session;
  const tape = join(folder, `${name}.vmtape`);
  const console = join(folder, `${name}.txt`);
  const line = append === undefined ? APPEND : `${APPEND} ${append}`;
  const boot = [images[kernel], '--initrd', images.initrd, '--append', line, ...flags, ...FIXED];
  const limit = ['--max-instructions', String(MOST_INSTRUCTIONS)];
  const recorded = await vmtape(['record', '-q', ...boot, ...limit, '-o', tape], console);
  const stats = /^\{"instructions".*$/m.exec(recorded.stderr)?.[0];
  const { instructions = 0, events = 0 } = stats === undefined ? {} : JSON.parse(stats);
  const outcome = { instructions, events, recordSeconds: recorded.seconds, replaySeconds: 0 };
  if (recorded.status !== 0) return { ...outcome, failure: `recording: ${recorded.stderr.trim()}` };
  const missing = missingLine(readFileSync(console, 'latin1'));
  if (missing !== undefined) return { ...outcome, failure: `no line ${missing}; its console is ${console}` };
  const replayed = await vmtape(['replay', tape], join(folder, `${name}.replay.txt`));
  const failure = replayed.status === 0 ? undefined : `replay: ${replayed.stderr.trim()}`;
  return { ...outcome, replaySeconds: replayed.seconds, failure };
}

/** The sessions of `npm run test:l1`, each recorded, then replayed, by the command line as a user has it. */
import { spawn } from 'node:child_process';
import { createWriteStream, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_FOLDER } from '../version.js';
import { GUEST_PROGRAMS, HYPERVISORS, type LinuxImages, type XenImages } from './images.js';
import { virtioDevices } from './virtio.js';

export interface LinuxSession {
  readonly name: string;
  readonly kernel: 'vmlinux' | 'bzImage';
  /** More of the command line. */
  readonly flags: readonly string[];
  /** More of the kernel's command line. */
  readonly append?: string;
  /** What it does besides: uses a virtio disk and console, or runs guests that are hypervisors. */
  readonly also?: 'virtio' | 'hypervisors';
}

/** Both boots, both tiers, both kinds of paging of L2, one and four vCPUs, with and without L0's clock; virtio devices, a level more. */
export const LINUX_SESSIONS: readonly LinuxSession[] = [
  { name: 'pvh', kernel: 'vmlinux', flags: [] },
  { name: 'bzimage', kernel: 'bzImage', flags: [] },
  { name: 'linux64', kernel: 'vmlinux', flags: ['--boot', 'linux'] },
  { name: 'no-acpi', kernel: 'vmlinux', flags: [], append: 'acpi=off' },
  { name: 'no-acpi-tables', kernel: 'vmlinux', flags: ['--acpi', 'off'] },
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
  { name: 'virtio', kernel: 'vmlinux', flags: [], also: 'virtio' },
  // With a filter of PAUSEs KVM loses the intercept of its guest hypervisor.
  { name: 'third-level', kernel: 'vmlinux', flags: [], append: 'kvm_amd.pause_filter_count=0', also: 'hypervisors' },
];

/** A whole line, or what one has in it. */
export type Line = string | RegExp;

/** Lines that must come, in this order. The checksums are those of every processor that does as the manual says. */
export const EXPECTED: readonly string[] = [
  'L1-UP',
  'KVM-OK api=12',
  'L2-SUM 698b2168',
  'L2-SEEN b00df32e',
  'L2-TMR ticks=8',
  'DONE',
];

/**
 * Makes a boot short: no self tests of the crypto modules (870 M instructions), no loop to find out about delays, no probing
 * of serial ports that are not there; and its end a reset.
 */
const APPEND =
  'console=ttyS0 nokaslr mitigations=off reboot=t panic=-1 cryptomgr.notests tsc=reliable no_timer_check lpj=4000000 8250.nr_uarts=1';
const FIXED = ['--clock', '2026-01-01T00:00:00Z', '--seed', '1', '--stats'];
const MOST_INSTRUCTIONS = 4_000_000_000;

/** What is recorded. */
export interface L1Session {
  readonly name: string;
  /** The image and the flags of vmtape. */
  readonly boot: readonly string[];
  readonly expected: readonly Line[];
  /** Looks at what else the recording left. @returns what is wrong with it. */
  readonly check?: () => string | undefined;
}

/** @param folder for what the session's devices have. */
export const linuxSession = (session: LinuxSession, images: LinuxImages, folder: string): L1Session => {
  const { name, kernel, flags, append, also } = session;
  const words = [APPEND, ...(append === undefined ? [] : [append])];
  const boot = [images[kernel], '--memory', '256M', ...flags];
  const [up = '', ...rest] = EXPECTED;
  if (also === 'virtio') {
    const { flags: devices, expected, check } = virtioDevices(folder);
    const more = ['--initrd', images.virtioInitrd, '--append', words.join(' '), ...devices];
    return { name, boot: [...boot, ...more], expected: [up, ...expected, ...rest], check };
  }
  if (also === 'hypervisors') {
    words.push(...HYPERVISORS.map((each) => `hypervisor=${each}`));
    const more = ['--initrd', images.hypervisorsInitrd, '--append', words.join(' ')];
    return { name, boot: [...boot, ...more], expected: [...EXPECTED.slice(0, -1), ...hypervisorLines(), 'DONE'] };
  }
  return { name, boot: [...boot, '--initrd', images.initrd, '--append', words.join(' ')], expected: EXPECTED };
};

/** What each says without L1 and KVM below, each line behind its name; and that it was content. */
const hypervisorLines = (): readonly string[] =>
  HYPERVISORS.flatMap((name) => {
    const said = readFileSync(join(GUEST_PROGRAMS, `${name}.expected`), 'latin1')
      .trimEnd()
      .split('\n');
    return [...said.map((line) => `${name}: ${line}`), `${name} ends with 0`];
  });

/**
 * Xen with a dom0 that is a hardware-virtualised guest: Linux is L2, up to its init. Xen waits on clocks for most of its boot,
 * so time runs fast.
 */
export const XEN_SESSION = 'xen-pvh-dom0';
const XEN_APPEND = 'console=com1 com1=115200,8n1 no-real-mode dom0=pvh dom0-iommu=none dom0_mem=192M';
const DOM0_APPEND =
  'console=hvc0 nokaslr mitigations=off cryptomgr.notests tsc=reliable lpj=4000000 panic=-1 guests=none';
const XEN_FLAGS = ['--memory', '512M', '--cpu', 'zen-2', '--time-per-instruction', '50'];

export const xenSession = ({ xen, vmlinux, initrd }: XenImages): L1Session => ({
  name: XEN_SESSION,
  boot: [xen, '--append', XEN_APPEND, '--module', `${vmlinux},${DOM0_APPEND}`, '--module', initrd, ...XEN_FLAGS],
  expected: ['(XEN) HVM: SVM enabled', '(XEN) HVM: Hardware Assisted Paging (HAP) detected', 'L1-UP', 'DONE'],
});

/**
 * Linux with the means to read MP tables, which Debian's cloud kernel lacks, has its processors and interrupts from there:
 * `no_timer_check` is not given, so that it looks whether its timer comes.
 */
export const MP_SESSION = 'mp-tables';
const MP_APPEND = `${APPEND.replace('no_timer_check ', '')} guests=none`;
const MP_FLAGS = ['--memory', '256M', '--smp', '4', '--acpi', 'off'];

export const mpSession = ({ vmlinux, initrd }: XenImages): L1Session => ({
  name: MP_SESSION,
  boot: [vmlinux, '--initrd', initrd, '--append', MP_APPEND, ...MP_FLAGS],
  expected: [/found SMP MP-table at /, /smpboot: Total of 4 processors activated/, 'L1-UP', 'DONE'],
});

export interface Outcome {
  readonly instructions: number;
  readonly events: number;
  readonly recordSeconds: number;
  readonly replaySeconds: number;
  /** What is wrong; undefined when nothing is. */
  readonly failure: string | undefined;
}

const MAIN = join(PACKAGE_FOLDER, 'dist/bundle/vmtape.js');

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
export function missingLine(expected: readonly Line[], console: string): Line | undefined {
  const lines = console.split(/\r*\n/);
  let at = 0;
  return expected.find((line) => {
    const found = lines.findIndex(
      (each, index) => index >= at && (line instanceof RegExp ? line.test(each) : line === each),
    );
    at = found + 1;
    return found < 0;
  });
}

/** @param folder for the tape and the console's text. */
export async function runSession({ name, boot, expected, check }: L1Session, folder: string): Promise<Outcome> {
  const tape = join(folder, `${name}.vmtape`);
  const console = join(folder, `${name}.txt`);
  rmSync(tape, { force: true });
  const limit = ['--max-instructions', String(MOST_INSTRUCTIONS)];
  const recorded = await vmtape(['record', '-q', ...boot, ...FIXED, ...limit, '-o', tape], console);
  const stats = /^\{"instructions".*$/m.exec(recorded.stderr)?.[0];
  const { instructions = 0, events = 0 } = stats === undefined ? {} : JSON.parse(stats);
  const outcome = { instructions, events, recordSeconds: recorded.seconds, replaySeconds: 0 };
  if (recorded.status !== 0) return { ...outcome, failure: `recording: ${recorded.stderr.trim()}` };
  const missing = missingLine(expected, readFileSync(console, 'latin1'));
  if (missing !== undefined) return { ...outcome, failure: `no line ${missing}; its console is ${console}` };
  const wrong = check?.();
  if (wrong !== undefined) return { ...outcome, failure: wrong };
  const replayed = await vmtape(['replay', tape], join(folder, `${name}.replay.txt`));
  const failure = replayed.status === 0 ? undefined : `replay: ${replayed.stderr.trim()}`;
  return { ...outcome, replaySeconds: replayed.seconds, failure };
}

/**
 * Bochs beside vmtape. It boots no kernel by itself, so that GRUB does it from a disc made for each run; and it has no
 * isa-debug-exit, so that a guest has ended when it halts with interrupts off, which Bochs says in its log. Whether it came
 * to the right end its serial output tells.
 */
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Stopwatch } from '../cli/drive.js';
import { type Guest, imagePath, PATIENCE, serialOutput } from './subjects.js';

const BOCHS = 'bochs';
const GRUB = 'grub-mkrescue';
/** The last of them that Bochs knows, and that has SVM. */
const CPU = 'ryzen';
/** What it says when a program halts for good, and when it gives up. */
const HALTED = /HLT instruction with IF=0/;
const GAVE_UP = />>PANIC<< (.*)|quit_sim called/;
/**
 * Runs what follows the log and the number of this process. Nobody hears of its end while waiting for the log, so that the
 * log shall tell; and where this process is gone, all of the group shall be.
 */
const WATCHED = '(while kill -0 "$1"; do sleep 1; done; kill -9 0) & shift; "$@"; echo quit_sim called >>"$0"';
/** How often the log is looked at: about what a run is measured to. */
const LOOK_MILLISECONDS = 10;
/** Without a window, in the order in which they are tried: not every build has each. */
const DISPLAYS = ['nogui', 'rfb, options="timeout=0"'] as const;

export interface Bochs {
  readonly version: string;
  /** Seconds from its start until the guest has ended. @throws when it does not come to its end, or to another one. */
  run(guest: Guest, folder: string, patience?: number): number;
}

/** @returns undefined where Bochs or GRUB's tools are not installed. @param nothing a guest that ends at once. */
export function findBochs(nothing: Guest, folder: string): Bochs | undefined {
  const help = spawnSync(BOCHS, ['--help'], { encoding: 'utf8' });
  if (help.error !== undefined || spawnSync(GRUB, ['--version']).status !== 0) return undefined;
  const said = `${help.stdout}${help.stderr}`;
  const version = /Bochs x86 Emulator [\d.]+/.exec(said)?.[0] ?? 'Bochs';
  // A build with the debugger waits for its commands.
  const commands = said.includes('-rc ') ? ['-rc', join(folder, 'bochs.commands')] : [];
  writeFileSync(join(folder, 'bochs.commands'), 'c\n');
  for (const display of DISPLAYS) {
    const bochs = new BochsRunner(version, display, commands);
    try {
      bochs.run(nothing, folder, 30);
      return bochs;
    } catch {
      // The next one, if there is one.
    }
  }
  return undefined;
}

class BochsRunner implements Bochs {
  constructor(
    readonly version: string,
    private readonly display: string,
    private readonly commands: readonly string[],
  ) {}

  run(guest: Guest, folder: string, patience = PATIENCE): number {
    const [log, serial] = ['log', 'serial'].map((name) => join(folder, `bochs.${name}`)) as [string, string];
    for (const file of [log, serial]) writeFileSync(file, '');
    const configuration = join(folder, 'bochs.rc');
    writeFileSync(configuration, this.configuration(makeDisc(guest, folder), log, serial));
    const watch = new Stopwatch();
    const command = [BOCHS, '-q', '-unlock', '-f', configuration, ...this.commands];
    const child = spawn('sh', ['-c', WATCHED, log, String(process.pid), ...command], {
      stdio: 'ignore',
      detached: true,
    });
    try {
      waitFor(log, guest, watch, patience);
    } finally {
      // Debian's is a script with a program: the group has them all.
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    }
    const { seconds } = watch;
    if (readFileSync(serial, 'latin1') !== serialOutput(guest))
      throw new Error(`Bochs found other results on ${guest.name}`);
    return seconds;
  }

  private configuration(disc: string, log: string, serial: string): string {
    return [
      'megs: 128',
      `cpu: model=${CPU}, count=1, ips=100000000, reset_on_triple_fault=0`,
      'romimage: file=$BXSHARE/BIOS-bochs-latest',
      'vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest',
      `ata0-master: type=cdrom, path=${disc}, status=inserted`,
      'boot: cdrom',
      `com1: enabled=1, mode=file, dev=${serial}`,
      `log: ${log}`,
      'panic: action=fatal',
      'clock: sync=none',
      `display_library: ${this.display}`,
      '',
    ].join('\n');
  }
}

/** The benches take turns, and so nothing else waits meanwhile. */
function waitFor(log: string, { name }: Guest, watch: Stopwatch, patience: number): void {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    const said = readFileSync(log, 'latin1');
    if (HALTED.test(said)) return;
    const gaveUp = GAVE_UP.exec(said);
    if (gaveUp !== null) throw new Error(`Bochs gave up on ${name}${gaveUp[1] === undefined ? '' : `: ${gaveUp[1]}`}`);
    if (watch.seconds > patience) throw new Error(`Bochs did not end within ${patience} seconds on ${name}`);
    Atomics.wait(sleeper, 0, 0, LOOK_MILLISECONDS);
  }
}

/** A disc that boots the guest by GRUB. */
function makeDisc(guest: Guest, folder: string): string {
  const [tree, disc] = [join(folder, 'disc'), join(folder, 'disc.iso')];
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(join(tree, 'boot/grub'), { recursive: true });
  copyFileSync(imagePath(guest), join(tree, 'boot/guest.elf'));
  writeFileSync(join(tree, 'boot/grub/grub.cfg'), `set timeout=0\nmultiboot /boot/guest.elf ${guest.options}\nboot\n`);
  const { status, stderr } = spawnSync(GRUB, ['-o', disc, tree], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${GRUB} ended with status ${status}: ${stderr}`);
  return disc;
}

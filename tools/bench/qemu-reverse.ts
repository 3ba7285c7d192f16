/** QEMU's reverse debugging on the same guest: recorded, replayed under gdb to its last instruction, and stepped back there. */
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { PACKAGE_FOLDER } from '../version.js';
import type { Guest } from './subjects.js';

const STEPS = 2;
const PORT = 41_234;
const PATIENCE_MINUTES = 5;
const PATIENCE_MILLISECONDS = PATIENCE_MINUTES * 60 * 1000;
/** Marks a line of gdb's with the time. */
const STAMP = 'python import time; print("stamp", time.monotonic(), flush=True)';

const isThere = (program: string): boolean => spawnSync(program, ['--version']).status === 0;

/**
 * @param last where the guest's last instruction stands; it must be executed once.
 * @returns seconds of each reverse-stepi, or why there are none; undefined where QEMU, qemu-img or gdb are not installed.
 */
export function qemuReverseSteps(
  { image, options }: Guest,
  last: bigint,
  folder: string,
): readonly number[] | string | undefined {
  if (!['qemu-system-x86_64', 'qemu-img', 'gdb'].every(isThere)) return undefined;
  const disk = join(folder, 'snapshots.qcow2');
  const replayFile = join(folder, 'reverse.rr');
  spawnSync('qemu-img', ['create', '-f', 'qcow2', disk, '1G']);
  const args = (mode: string): string[] => [
    ...['-machine', 'pc', '-accel', 'tcg', '-cpu', 'max,+svm', '-m', '128M', '-display', 'none', '-net', 'none'],
    ...['-serial', 'null', '-monitor', 'none', '-no-reboot', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4'],
    ...['-icount', `shift=1,rr=${mode},rrfile=${replayFile},rrsnapshot=init`],
    ...['-drive', `file=${disk},if=none,id=rr`],
    ...['-kernel', join(PACKAGE_FOLDER, 'test/guests/images', image), '-append', options],
  ];
  spawnSync('qemu-system-x86_64', args('record'), { stdio: 'ignore', timeout: PATIENCE_MILLISECONDS });
  const qemu = spawn('qemu-system-x86_64', [...args('replay'), '-S', '-gdb', `tcp:127.0.0.1:${PORT}`], {
    stdio: 'ignore',
  });
  try {
    const commands = [
      ...['set pagination off', 'set tcp auto-retry on', `target remote 127.0.0.1:${PORT}`],
      ...[`hbreak *0x${last.toString(16)}`, 'continue', STAMP],
      ...Array.from({ length: STEPS }, () => ['reverse-stepi', STAMP]).flat(),
    ];
    const { stdout } = spawnSync('gdb', ['-batch', '-nx', ...commands.flatMap((each) => ['-ex', each])], {
      encoding: 'utf8',
      timeout: PATIENCE_MILLISECONDS,
    });
    if (!/^Breakpoint 1, /m.test(stdout)) return `its replay is not there within ${PATIENCE_MINUTES} minutes`;
    const stamps = [...stdout.matchAll(/^stamp ([\d.]+)$/gm)].map(([, seconds]) => Number(seconds));
    const steps = stamps.slice(1).map((stamp, index) => stamp - (stamps[index] as number));
    return steps.length === STEPS ? steps : `they take longer than ${PATIENCE_MINUTES} minutes`;
  } finally {
    qemu.kill('SIGKILL');
  }
}

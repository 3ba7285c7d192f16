/**
 * Makes what L1 boots: Debian's cloud kernel, unmodified, as its package has it and as the ELF file within; and an initial
 * RAM disk with its KVM modules, unmodified, and our init, built from test/guests/l1. Packages come by apt and are unpacked
 * into a folder; nothing is installed.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { OperatingError } from '../cli/failure.js';
import { PACKAGE_FOLDER } from '../version.js';
import { cpioArchive, Mode } from './cpio.js';
import { vmlinuxOf } from './vmlinux.js';

export interface L1Images {
  readonly bzImage: string;
  readonly vmlinux: string;
  readonly initrd: string;
  /** The package, with its version. */
  readonly kernel: string;
}

/** Depends on the newest kernel of its kind. */
const META_PACKAGE = 'linux-image-cloud-amd64';
const MODULES = ['virt/lib/irqbypass.ko', 'arch/x86/kvm/kvm.ko', 'arch/x86/kvm/kvm-amd.ko'];
const GUESTS = join(PACKAGE_FOLDER, 'test/guests/l1');
const TOOLS = ['apt-get', 'apt-cache', 'dpkg-deb', 'gcc', 'as', 'ld'];
/** Programs without a C library, for any x86-64, with the guests within. */
const COMPILE = [
  ...['-Os', '-static', '-nostdlib', '-ffreestanding', '-fno-pic', '-no-pie', '-fno-stack-protector', '-s'],
  ...['-fno-asynchronous-unwind-tables', '-fcf-protection=none', '-mgeneral-regs-only'],
  ...['-fno-tree-loop-distribute-patterns', '-Wall', '-Wextra', '-Wl,--build-id=none,-z,noexecstack'],
];

/** @throws OperatingError naming what is missing on this host. */
export function requireTools(): void {
  const missing = TOOLS.filter((tool) => spawnSync('which', [tool]).status !== 0);
  if (missing.length > 0) throw new OperatingError(`${missing.join(', ')} not found. This needs a Debian host.`);
}

function run(program: string, args: readonly string[], folder: string): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: folder, encoding: 'utf8' });
  if (status === 0) return stdout;
  const said = (error?.message ?? stderr).trim().split('\n').slice(-3).join(' ');
  throw new OperatingError(`${program} ${args[0] ?? ''} failed: ${said}`);
}

/** Fetches and unpacks a package. @returns its file's name. @throws OperatingError when it cannot be fetched. */
export function fetchPackage(name: string, folder: string, unpacked: string): string {
  const isIt = (file: string): boolean => file.startsWith(`${name}_`) && file.endsWith('.deb');
  mkdirSync(folder, { recursive: true });
  if (!readdirSync(folder).some(isIt)) run('apt-get', ['download', name], folder);
  const file = readdirSync(folder).find(isIt);
  if (file === undefined) throw new OperatingError(`apt-get download ${name} left no package.`);
  run('dpkg-deb', ['-x', join(folder, file), unpacked], folder);
  return file;
}

/** The package with the kernel itself: the one that the meta package depends on, or `given`. */
function kernelPackage(given: string | undefined, folder: string): string {
  if (given !== undefined) return given;
  const name = /Depends: (linux-image-\S+-cloud-amd64)\n/.exec(
    run('apt-cache', ['depends', META_PACKAGE], folder),
  )?.[1];
  if (name !== undefined) return name;
  throw new OperatingError(`apt knows no ${META_PACKAGE}. Run apt-get update, or name a package with --kernel.`);
}

function onlyFile(folder: string, start: string): string {
  const file = readdirSync(folder).find((name) => name.startsWith(start));
  if (file === undefined) throw new OperatingError(`${folder} has no ${start}… in it. Name another package.`);
  return join(folder, file);
}

function buildInit(work: string): Uint8Array {
  for (const guest of ['probe', 'ticker']) {
    run('as', ['--64', '-I', GUESTS, '-o', `${guest}.o`, join(GUESTS, `${guest}.S`)], work);
    const link = ['-m', 'elf_x86_64', '-Ttext', '0x1000', '-e', '_start', '--oformat', 'binary'];
    run('ld', [...link, '-o', `${guest}.bin`, `${guest}.o`], work);
  }
  // The assembler takes the guests' bytes from the folder that it runs in.
  run('gcc', [...COMPILE, '-I', GUESTS, '-o', 'init', join(GUESTS, 'init.c'), join(GUESTS, 'l2.c')], work);
  return readFileSync(join(work, 'init'));
}

/**
 * @param folder keeps packages and images.
 * @param kernel name of a package instead of Debian's newest cloud kernel.
 * @throws OperatingError when something cannot be fetched or built.
 */
export function makeImages(folder: string, kernel?: string): L1Images {
  const work = join(folder, 'work');
  mkdirSync(work, { recursive: true });
  const unpacked = join(work, 'kernel');
  const file = fetchPackage(kernelPackage(kernel, folder), join(folder, 'packages'), unpacked);
  const bzImage = readFileSync(onlyFile(join(unpacked, 'boot'), 'vmlinuz-'));
  // Newer packages have everything under /usr.
  const libraries = ['usr/lib/modules', 'lib/modules'].map((path) => join(unpacked, path));
  const modules = libraries.flatMap((path) => {
    try {
      return readdirSync(path).map((version) => join(path, version, 'kernel'));
    } catch {
      return [];
    }
  })[0];
  if (modules === undefined) throw new OperatingError(`${file} has no modules. Name another package.`);
  const initrd = cpioArchive([
    { name: 'dev', mode: Mode.FOLDER },
    { name: 'init', mode: Mode.PROGRAM, contents: buildInit(work) },
    ...MODULES.map((path) => ({
      name: path.slice(path.lastIndexOf('/') + 1),
      mode: Mode.FILE,
      contents: readFileSync(join(modules, path)),
    })),
    { name: 'proc', mode: Mode.FOLDER },
  ]);
  const write = (name: string, bytes: Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return path;
  };
  return {
    bzImage: write('vmlinuz', bzImage),
    vmlinux: write('vmlinux', vmlinuxOf(bzImage)),
    initrd: write('initrd', initrd),
    kernel: file,
  };
}

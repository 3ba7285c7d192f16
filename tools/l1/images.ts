/**
 * Makes what L1 boots. Linux: Debian's cloud kernel, unmodified, as its package has it and as the ELF file within; and an
 * initial RAM disk with its KVM modules, unmodified, and our init, built from test/guests/l1. Xen: Debian's, unmodified, with
 * Debian's kernel for its dom0. Packages come by apt and are unpacked into a folder; nothing is installed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { OperatingError } from '../cli/failure.js';
import { PACKAGE_FOLDER } from '../version.js';
import { cpioArchive, Mode } from './cpio.js';
import { vmlinuxOf } from './vmlinux.js';

/** Files of Linux as L1. */
export interface LinuxImages {
  readonly bzImage: string;
  readonly vmlinux: string;
  readonly initrd: string;
  /** With the modules of virtio devices, and an init that uses these. */
  readonly virtioInitrd: string;
  /** With guests that are hypervisors, and an init that runs these. */
  readonly hypervisorsInitrd: string;
  /** The package, with its version. */
  readonly package: string;
}

/** Files of Xen as L1, and of its dom0. */
export interface XenImages {
  readonly xen: string;
  readonly vmlinux: string;
  readonly initrd: string;
  readonly package: string;
}

/** These depend on the newest kernel of their kind; only the second can be a dom0. */
const CLOUD_KERNEL = 'linux-image-cloud-amd64';
const WHOLE_KERNEL = 'linux-image-amd64';
const XEN_PACKAGE = 'xen-hypervisor-4.17-amd64';
const KVM_MODULES = ['virt/lib/irqbypass.ko', 'arch/x86/kvm/kvm.ko', 'arch/x86/kvm/kvm-amd.ko'];
const VIRTIO_MODULES = [
  ...['drivers/virtio/virtio_ring.ko', 'drivers/virtio/virtio.ko', 'drivers/virtio/virtio_mmio.ko'],
  ...['drivers/block/virtio_blk.ko', 'drivers/char/virtio_console.ko'],
];
/** Sources of the init, and flags for them. */
interface Program {
  readonly sources: readonly string[];
  readonly flags: readonly string[];
}
const INIT: Program = { sources: ['init.c', 'l2.c'], flags: [] };
/** Images of test/guests that a guest hypervisor runs: they run guests themselves. */
export const HYPERVISORS = ['exits', 'nested', 'nested-timer'];
const HYPERVISORS_INIT: Program = { sources: [...INIT.sources, 'hypervisors.c'], flags: ['-DHYPERVISORS'] };
const VIRTIO_INIT: Program = { sources: [...INIT.sources, 'virtio.c'], flags: ['-DVIRTIO'] };
export const GUEST_PROGRAMS = join(PACKAGE_FOLDER, 'test/guests');
const GUESTS = join(GUEST_PROGRAMS, 'l1');
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
function fetchPackage(name: string, folder: string, unpacked: string): string {
  const isIt = (file: string): boolean => file.startsWith(`${name}_`) && file.endsWith('.deb');
  mkdirSync(folder, { recursive: true });
  if (!readdirSync(folder).some(isIt)) run('apt-get', ['download', name], folder);
  const file = readdirSync(folder).find(isIt);
  if (file === undefined) throw new OperatingError(`apt-get download ${name} left no package.`);
  run('dpkg-deb', ['-x', join(folder, file), unpacked], folder);
  return file;
}

/** The package with the kernel itself: the one that a meta package depends on. */
function kernelPackage(meta: string, folder: string): string {
  const name = /Depends: (linux-image-\d\S+-amd64)\n/.exec(run('apt-cache', ['depends', meta], folder))?.[1];
  if (name !== undefined) return name;
  throw new OperatingError(`apt knows no ${meta}. Run apt-get update, or name a package with --kernel.`);
}

function onlyFile(folder: string, start: string): string {
  const file = readdirSync(folder).find((name) => name.startsWith(start));
  if (file === undefined) throw new OperatingError(`${folder} has no ${start}… in it. Name another package.`);
  return join(folder, file);
}

function buildInit(work: string, { sources, flags }: Program): Uint8Array {
  for (const guest of ['probe', 'ticker']) {
    run('as', ['--64', '-I', GUESTS, '-o', `${guest}.o`, join(GUESTS, `${guest}.S`)], work);
    const link = ['-m', 'elf_x86_64', '-Ttext', '0x1000', '-e', '_start', '--oformat', 'binary'];
    run('ld', [...link, '-o', `${guest}.bin`, `${guest}.o`], work);
  }
  // The assembler takes the guests' bytes from the folder that it runs in.
  const paths = sources.map((source) => join(GUESTS, source));
  run('gcc', [...COMPILE, ...flags, '-I', GUESTS, '-o', 'init', ...paths], work);
  return readFileSync(join(work, 'init'));
}

/** Our init, and files as they came, at the root. @param paths theirs on this host. */
function initrdOf(work: string, program: Program, paths: readonly string[] = []): Uint8Array {
  return cpioArchive([
    { name: 'dev', mode: Mode.FOLDER },
    { name: 'init', mode: Mode.PROGRAM, contents: buildInit(work, program) },
    ...paths.map((path) => ({ name: basename(path), mode: Mode.FILE, contents: readFileSync(path) })),
    { name: 'proc', mode: Mode.FOLDER },
  ]);
}

/** The folder of an unpacked kernel's modules; newer packages have everything under /usr. */
function modulesIn(unpacked: string): string | undefined {
  const folders = ['usr/lib/modules', 'lib/modules']
    .map((path) => join(unpacked, path))
    .filter((path) => existsSync(path));
  return folders.flatMap((path) => readdirSync(path).map((version) => join(path, version, 'kernel')))[0];
}

function keep(folder: string, name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/**
 * @param folder keeps packages and images.
 * @param kernel name of a package instead of Debian's newest cloud kernel.
 * @throws OperatingError when something cannot be fetched or built.
 */
export function makeLinux(folder: string, kernel?: string): LinuxImages {
  const work = join(folder, 'linux');
  mkdirSync(work, { recursive: true });
  const unpacked = join(work, 'kernel');
  const file = fetchPackage(kernel ?? kernelPackage(CLOUD_KERNEL, folder), join(folder, 'packages'), unpacked);
  const bzImage = readFileSync(onlyFile(join(unpacked, 'boot'), 'vmlinuz-'));
  const modules = modulesIn(unpacked);
  if (modules === undefined) throw new OperatingError(`${file} has no modules. Name another package.`);
  const under = (paths: readonly string[]): string[] => paths.map((path) => join(modules, path));
  const kvm = under(KVM_MODULES);
  const hypervisors = HYPERVISORS.map((name) => join(GUEST_PROGRAMS, 'images', `${name}.elf`));
  const initrd = (name: string, program: Program, paths: readonly string[]): string =>
    keep(work, name, initrdOf(work, program, paths));
  return {
    bzImage: keep(work, 'vmlinuz', bzImage),
    vmlinux: keep(work, 'vmlinux', vmlinuxOf(bzImage)),
    initrd: initrd('initrd', INIT, kvm),
    virtioInitrd: initrd('initrd-virtio', VIRTIO_INIT, [...kvm, ...under(VIRTIO_MODULES)]),
    hypervisorsInitrd: initrd('initrd-hypervisors', HYPERVISORS_INIT, [...kvm, ...hypervisors]),
    package: file,
  };
}

/** @throws OperatingError when something cannot be fetched or built. */
export function makeXen(folder: string): XenImages {
  const work = join(folder, 'xen');
  mkdirSync(work, { recursive: true });
  const packages = join(folder, 'packages');
  const [hypervisor, kernel] = [join(work, 'hypervisor'), join(work, 'kernel')];
  const file = fetchPackage(XEN_PACKAGE, packages, hypervisor);
  fetchPackage(kernelPackage(WHOLE_KERNEL, folder), packages, kernel);
  const compressed = readdirSync(join(hypervisor, 'boot')).find((name) => /^xen-.*\.gz$/.test(name));
  if (compressed === undefined) throw new OperatingError(`${file} has no hypervisor in it.`);
  return {
    xen: keep(work, 'xen', gunzipSync(readFileSync(join(hypervisor, 'boot', compressed)))),
    vmlinux: keep(work, 'vmlinux', vmlinuxOf(readFileSync(onlyFile(join(kernel, 'boot'), 'vmlinuz-')))),
    initrd: keep(work, 'initrd', initrdOf(work, INIT)),
    package: file,
  };
}

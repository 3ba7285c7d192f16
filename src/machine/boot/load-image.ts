/**
 * From a boot image to RAM and registers: the protocol follows from what the image says of itself, unless one was chosen.
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import { PAGE_BYTES, sPA } from '../units.js';
import type { Board } from './board.js';
import { type BootPackage, type BootProtocol, checkTexts, unpackBoot } from './boot-package.js';
import { elfNotes, isElf } from './elf.js';
import type { EntryRegisters } from './entry.js';
import { ImageReader, refuseImage } from './image-reader.js';
import { bootLinux } from './linux.js';
import { isBzImage } from './linux-header.js';
import { bootMultiboot } from './multiboot.js';
import { findHeader, hasHeader } from './multiboot-header.js';
import { bootMultiboot2, findHeader2 } from './multiboot2.js';
import type { BootTarget } from './placement.js';
import { bootPvh, pvhEntry } from './pvh.js';
import { bootFlat, bootRealMode, isBootSector } from './raw-image.js';

/** The owner of notes in every `vmlinux`. */
const LINUX = 'Linux';

const LOADERS: Readonly<Record<BootProtocol, (target: BootTarget, image: ImageReader) => EntryRegisters>> = {
  multiboot: bootMultiboot,
  multiboot2: bootMultiboot2,
  pvh: bootPvh,
  linux: bootLinux,
  flat: bootFlat,
  real: bootRealMode,
};

/** Protocols by which a command line begins with the name of the image's file, by custom; others have parameters alone. */
const NAMED: ReadonlySet<BootProtocol> = new Set(['multiboot', 'multiboot2', 'flat']);

export const namesImage = (protocol: BootProtocol): boolean => NAMED.has(protocol);

/**
 * Loads what `bytes` holds (`boot-package.ts`).
 * @returns the registers that differ from what RESET and the firmware left.
 * @throws InputError naming what is wrong with the image, where, and what to do.
 */
export function loadBootImage(
  memory: PhysicalMemory,
  board: Board,
  bytes: Uint8Array,
  commandLine: string,
): EntryRegisters {
  const { image, protocol, modules } = unpackBoot(bytes);
  checkTexts(commandLine, modules);
  const reader = new ImageReader(image);
  return LOADERS[protocol ?? protocolOf(reader)]({ memory, board, commandLine, modules }, reader);
}

/**
 * Puts the disk of a package where the machine keeps its medium, behind RAM. Whoever boots again finds it as it is.
 * @throws InputError when the package has another one than the machine.
 */
export function loadDisk(memory: PhysicalMemory, diskBytes: number, bytes: Uint8Array): void {
  const { disk } = unpackBoot(bytes);
  if (disk.length !== diskBytes) {
    const problem = `the boot package has ${disk.length} bytes of it, and the machine ${diskBytes}`;
    refuseImage('disk', problem, 'Record the session again.');
  }
  for (let at = 0; at < disk.length; at += PAGE_BYTES) {
    const page = disk.subarray(at, at + PAGE_BYTES);
    if (page.some((byte) => byte !== 0)) memory.copyIn(sPA(memory.ramBytes + at), page);
  }
}

/** The protocol by which a package will be loaded. @throws InputError for an image that says of none. */
export const bootProtocol = ({ image, protocol }: Pick<BootPackage, 'image' | 'protocol'>): BootProtocol =>
  protocol ?? protocolOf(new ImageReader(image));

/** Where several fit: Multiboot, for other entries of such an image lead elsewhere; then PVH, which needs the least. */
function protocolOf(image: ImageReader): BootProtocol {
  if (hasHeader(image)) return 'multiboot';
  if (findHeader2(image) !== undefined) return 'multiboot2';
  if (isBzImage(image)) return 'linux';
  if (isElf(image)) {
    if (pvhEntry(image) !== undefined) return 'pvh';
    if (elfNotes(image).some(({ owner }) => owner === LINUX)) return 'linux';
  }
  if (isBootSector(image)) return 'real';
  findHeader(image); // which says what is wrong
  return 'multiboot';
}

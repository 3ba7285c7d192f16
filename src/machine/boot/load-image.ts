/**
 * From a boot image to RAM and registers: the protocol follows from what the image says of itself, unless one was chosen.
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import type { Board } from './board.js';
import { type BootPackage, type BootProtocol, checkTexts, unpackBoot } from './boot-package.js';
import { elfNotes, isElf } from './elf.js';
import type { EntryRegisters } from './entry.js';
import { ImageReader } from './image-reader.js';
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

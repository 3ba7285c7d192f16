/**
 * Images without a header that says how to load them. A *flat* one stands at 1 MiB and is entered at its first byte, in
 * every other way as a Multiboot image. A *real-mode* one is a boot sector and whatever follows it: the BIOS loads it at
 * 0000:7C00 and jumps there, with the number of the first disk in DL. No BIOS functions stand behind it: INT n returns.
 * Source: IBM PC AT Technical Reference, ROM BIOS, bootstrap loader (INT 19h).
 */
import { packSegment } from '../cpu/descriptors.js';
import { CR0, R } from '../layout/cpu-state.js';
import type { EntryRegisters } from './entry.js';
import { type ImageReader, refuseImage } from './image-reader.js';
import { enterMultiboot } from './multiboot.js';
import { type BootTarget, Loading } from './placement.js';
import { HIGH_MEMORY, type LoadPlan } from './segments.js';

const BOOT_SECTOR = 0x7c00;
const SECTOR_BYTES = 512;
const SIGNATURE = 0xaa55;
const FIRST_DISK = 0x80n;
const REAL_MODE_CODE = packSegment(0, 0x9b, 0xffff);

/** Whether its first sector ends with the signature that a BIOS looks for. */
export const isBootSector = (image: ImageReader): boolean =>
  image.has(0, SECTOR_BYTES) && image.u16(SECTOR_BYTES - 2) === SIGNATURE;

const planAt = ({ bytes }: ImageReader, address: number): LoadPlan => ({
  segments: [{ name: 'the image', address, data: bytes, memoryBytes: bytes.length }],
  entry: address,
});

/** @throws InputError */
export const bootFlat = (target: BootTarget, image: ImageReader): EntryRegisters =>
  enterMultiboot(target, planAt(image, HIGH_MEMORY));

/** @returns the registers that differ from RESET; the stack grows down from the boot sector. @throws InputError */
export function bootRealMode(target: BootTarget, image: ImageReader): EntryRegisters {
  if (target.modules.length > 0) {
    refuseImage('', 'a real-mode image finds no modules', 'Leave out --initrd and --module.');
  }
  new Loading(target, planAt(image, BOOT_SECTOR)).fill();
  return [
    [R.rip, BigInt(BOOT_SECTOR)],
    [R.cr0, CR0.ET],
    [R.cs, REAL_MODE_CODE],
    [R.csBase, 0n],
    [R.rdx, FIRST_DISK],
    [R.rsp, BigInt(BOOT_SECTOR)],
  ];
}

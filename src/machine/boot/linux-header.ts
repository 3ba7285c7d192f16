/**
 * The setup header of a Linux kernel image, a bzImage: what the boot loader must know of it, and how the kernel wants to be
 * loaded. The kernel unpacks itself, so all of the protected-mode part is one segment.
 * Source: Linux, Documentation/arch/x86/boot.rst, The Real-Mode Kernel Header and Details of Header Fields.
 */
import { hexadecimal, type ImageReader, refuseImage } from './image-reader.js';
import { HIGH_MEMORY, type LoadPlan } from './segments.js';

const MAGIC_AT = 0x202;
const MAGIC = 0x5372_6448; // "HdrS"
const SECTOR_BYTES = 512;
/** What setup_sects means when it is 0. */
const OLD_SETUP_SECTORS = 4;
/** The header ends where the jump at its start leads; what it may fill of the zero page ends here. */
export const HEADER_START = 0x1f1;
const HEADER_END = 0x290;
const JUMP_AT = 0x201;
/** Bytes up to the last field that is read here. */
const READ_BYTES = 0x268;

const Version = {
  LOADED_HIGH: 0x200,
  INITRD_MAX: 0x203,
  COMMAND_LINE: 0x206,
  PREFERRED: 0x20a,
  LOADFLAGS: 0x20c,
} as const;
const LOADED_HIGH = 1;
/** Bits of xloadflags: the entry of 64-bit mode is there; ramdisk and command line may stand anywhere below 4 GiB and above. */
const KERNEL_64 = 1 << 0;
const ABOVE_4G = 1 << 1;
const ENTRY_64 = 0x200;
/** Before a kernel said so. */
const OLD_INITRD_MAX = 0x37ff_ffff;
const OLD_COMMAND_LINE_BYTES = 255;
const COPY_AGAIN = 'Copy or build the kernel again.';

export interface LinuxKernel {
  readonly plan: LoadPlan;
  /** Whether the entry is that of 64-bit mode. */
  readonly long: boolean;
  /** The setup header, for the zero page. */
  readonly header: Uint8Array;
  /** The address that the RAM disk must end at or below. */
  readonly initrdLimit: number;
  /** Without the zero byte. */
  readonly commandLineBytes: number;
}

export const isBzImage = (image: ImageReader): boolean => image.has(MAGIC_AT, 4) && image.u32(MAGIC_AT) === MAGIC;

/** @param image a bzImage. @throws InputError */
export function readBzImage(image: ImageReader): LinuxKernel {
  if (!image.has(0, READ_BYTES)) {
    refuseImage('setup header', `the file ends after ${image.length} bytes, amid the header`, COPY_AGAIN);
  }
  const version = image.u16(0x206);
  if (version < Version.LOADED_HIGH || (image.u8(0x211) & LOADED_HIGH) === 0) {
    const problem = `it is a zImage, or its boot protocol ${hexadecimal(version)} is too old`;
    refuseImage('setup header', `${problem} to be loaded at 1 MiB`, 'Build a bzImage.');
  }
  const setup = ((image.u8(HEADER_START) || OLD_SETUP_SECTORS) + 1) * SECTOR_BYTES;
  const kernelBytes = image.u32(0x1f4) * 16;
  if (!image.has(setup, Math.max(kernelBytes, 1))) {
    const end = hexadecimal(setup + kernelBytes);
    refuseImage('setup header', `the kernel ends at file offset ${end}, past the end of the file`, COPY_AGAIN);
  }
  const flags = version >= Version.LOADFLAGS ? image.u16(0x236) : 0;
  const long = (flags & KERNEL_64) !== 0;
  const data = image.bytes.subarray(setup);
  const { address, room } = placeOf(image, version);
  const memoryBytes = Math.max(room, data.length);
  const header = image.bytes.subarray(HEADER_START, Math.min(MAGIC_AT + image.u8(JUMP_AT), HEADER_END));
  const initrdMax = version >= Version.INITRD_MAX ? image.u32(0x22c) : OLD_INITRD_MAX;
  return {
    plan: {
      segments: [{ name: 'the kernel', address, data, memoryBytes }],
      entry: long ? address + ENTRY_64 : address,
    },
    long,
    header,
    initrdLimit: (flags & ABOVE_4G) === 0 ? initrdMax + 1 : Number.POSITIVE_INFINITY,
    commandLineBytes: version >= Version.COMMAND_LINE ? image.u32(0x238) : OLD_COMMAND_LINE_BYTES,
  };
}

/** Where the kernel runs without moving itself, and how much it needs there to unpack itself. */
function placeOf(image: ImageReader, version: number): { readonly address: number; readonly room: number } {
  if (version < Version.PREFERRED) return { address: HIGH_MEMORY, room: 0 };
  return { address: image.u64(0x258), room: image.u32(0x260) };
}

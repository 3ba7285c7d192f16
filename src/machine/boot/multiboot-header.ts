/**
 * The Multiboot header of an image: found, checked, and for images without another description of themselves (the
 * "a.out kludge") read as a load plan.
 * Source: Multiboot Specification 0.6.96, §3.1 OS image format.
 */
import { hexadecimal, type ImageReader, refuseImage } from './image-reader.js';
import type { LoadPlan, Segment } from './segments.js';

const MAGIC = 0x1bad_b002;
/** The whole header lies in so many bytes, 4-byte aligned. */
const SEARCH_BYTES = 8192;
const BASIC_BYTES = 12;
const ADDRESS_BYTES = 32;

/** Bits of `flags`: 15:0 must be refused when unknown, 31:16 may be ignored. */
const Flag = {
  /** Modules on page boundaries: they always are. */
  PAGE_ALIGN: 1 << 0,
  MEMORY_INFO: 1 << 1,
  /** A preferred video mode: there is no video, and the information structure says so by saying nothing. */
  VIDEO_MODE: 1 << 2,
  /** The address fields are valid. */
  ADDRESSES: 1 << 16,
} as const;
const SUPPORTED = Flag.PAGE_ALIGN | Flag.MEMORY_INFO | Flag.VIDEO_MODE;

const NEEDS_HEADER = `Give a Multiboot image, whose header must stand in the first ${SEARCH_BYTES} bytes, or a Linux kernel; or say with --boot how to load it.`;

export interface MultibootHeader {
  /** File offset. */
  readonly offset: number;
  /** The image describes its own loading by the address fields. */
  readonly hasAddresses: boolean;
}

/** Whether there is a header whose checksum is right. */
export const hasHeader = (image: ImageReader): boolean => typeof headerAt(image) === 'object';

/** @throws InputError */
export function findHeader(image: ImageReader): MultibootHeader {
  if (image.length === 0) refuseImage('', 'the file is empty', 'Build or copy the image again.');
  const found = headerAt(image);
  if (typeof found === 'object') return checkedHeader(image, found.offset, image.u32(found.offset + 4));
  if (found !== undefined) {
    const sum = 'magic number, flags and checksum do not add up to 0';
    refuseImage(`Multiboot header at file offset ${hexadecimal(found)}`, sum, 'Build the image again.');
  }
  return refuseImage('', 'it has no Multiboot header, and is nothing else that this version knows', NEEDS_HEADER);
}

/**
 * A chance match of the magic number goes on; its checksum tells.
 * @returns where the header is; else the file offset of the first with a wrong checksum, if there is one.
 */
function headerAt(image: ImageReader): { readonly offset: number } | number | undefined {
  let corrupt: number | undefined;
  for (let offset = 0; offset + BASIC_BYTES <= Math.min(image.length, SEARCH_BYTES); offset += 4) {
    if (image.u32(offset) !== MAGIC) continue;
    if ((MAGIC + image.u32(offset + 4) + image.u32(offset + 8)) % 2 ** 32 === 0) return { offset };
    corrupt ??= offset;
  }
  return corrupt;
}

function checkedHeader(image: ImageReader, offset: number, flags: number): MultibootHeader {
  const name = `Multiboot header at file offset ${hexadecimal(offset)}`;
  const unknown = flags & 0xffff & ~SUPPORTED;
  if (unknown !== 0) {
    refuseImage(name, `it asks for features (flags ${hexadecimal(unknown)}) that are not there`, 'Build it without.');
  }
  const hasAddresses = (flags & Flag.ADDRESSES) !== 0;
  if (hasAddresses && (!image.has(offset, ADDRESS_BYTES) || offset + ADDRESS_BYTES > SEARCH_BYTES)) {
    refuseImage(name, 'its address fields are cut off', 'Build or copy the image again.');
  }
  return { offset, hasAddresses };
}

/** Where an image says that it is to be loaded, by the address of its header. */
export interface LoadAddresses {
  readonly headerAddress: number;
  readonly loadAddress: number;
  /** Zero: to the end of the file. */
  readonly loadEnd: number;
  /** Zero: there is none. */
  readonly bssEnd: number;
  readonly entry: number;
}

/** The load plan in the header's address fields. @throws InputError */
export function planByHeader(image: ImageReader, { offset }: MultibootHeader): LoadPlan {
  const [headerAddress = 0, loadAddress = 0, loadEnd = 0, bssEnd = 0, entry = 0] = [12, 16, 20, 24, 28].map((field) =>
    image.u32(offset + field),
  );
  const name = `Multiboot header at file offset ${hexadecimal(offset)}`;
  return planByAddresses(image, name, offset, { headerAddress, loadAddress, loadEnd, bssEnd, entry });
}

/** @param name of the header, for messages. @param offset of the header in the file. @throws InputError */
export function planByAddresses(
  image: ImageReader,
  name: string,
  offset: number,
  { headerAddress, loadAddress, loadEnd, bssEnd, entry }: LoadAddresses,
): LoadPlan {
  const start = offset - (headerAddress - loadAddress);
  if (headerAddress < loadAddress || start < 0) {
    const addresses = `header_addr ${hexadecimal(headerAddress)} and load_addr ${hexadecimal(loadAddress)}`;
    refuseImage(name, `${addresses} put the start of the image outside of the file`, 'Build the image again.');
  }
  const fileBytes = loadEnd === 0 ? image.length - start : loadEnd - loadAddress;
  if (fileBytes <= 0) {
    refuseImage(name, `load_end_addr ${hexadecimal(loadEnd)} lies before load_addr`, 'Build the image again.');
  }
  if (!image.has(start, fileBytes)) {
    const end = hexadecimal(start + fileBytes);
    refuseImage(name, `the image ends at file offset ${end}, past the end of the file`, 'Copy or build it again.');
  }
  const loaded = loadAddress + fileBytes;
  if (bssEnd !== 0 && bssEnd < loaded) {
    refuseImage(name, `bss_end_addr ${hexadecimal(bssEnd)} lies before the end of the data`, 'Build the image again.');
  }
  const memoryBytes = bssEnd === 0 ? fileBytes : bssEnd - loadAddress;
  const data = image.bytes.subarray(start, start + fileBytes);
  const segment: Segment = { name, address: loadAddress, data, memoryBytes };
  return { segments: [segment], entry };
}

/**
 * The loadable segments of an ELF executable, 32-bit or 64-bit, for x86.
 *
 * Segments go to their physical addresses. The entry point is a linear address by the ELF specification; where it lies
 * in a segment by that segment's virtual address it is translated, as GRUB does, else it is taken for a physical one.
 * Notes are what the image says of itself: where else it can be entered, and what it is.
 * Source: Tool Interface Standard ELF Specification 1.2, book I (Note Section); System V ABI AMD64 supplement, §4 Object
 * Files.
 */
import { hexadecimal, type ImageReader, refuseImage } from './image-reader.js';
import type { LoadPlan, Segment } from './segments.js';

const ELF_MAGIC = 0x464c_457f; // 7Fh, "ELF"
const CLASS_32 = 1;
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const EXECUTABLE = 2;
const MACHINE_386 = 3;
const MACHINE_X86_64 = 62;
const LOADABLE = 1;
const NOTES = 4;
/** Bytes ahead of a note's name: lengths of name and content, and the type. */
const NOTE_HEAD_BYTES = 12;

/** Bytes that tell ELF files apart from others, and their class. */
const IDENT_BYTES = 16;
const REBUILD = 'Link it as a static x86 executable, or convert it with objcopy.';
const TRUNCATED = 'Copy or build the image again.';

interface ProgramHeader {
  readonly type: number;
  readonly offset: number;
  readonly virtual: number;
  readonly physical: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
}

/** What differs between the two classes: where fields stand. */
interface ElfClass {
  readonly headerBytes: number;
  readonly programHeaderBytes: number;
  entry(image: ImageReader): number;
  /** File offset of the program headers. */
  tableOffset(image: ImageReader): number;
  entrySizeAt: number;
  entryCountAt: number;
  programHeader(image: ImageReader, at: number): ProgramHeader;
}

const ELF32: ElfClass = {
  headerBytes: 52,
  programHeaderBytes: 32,
  entry: (image) => image.u32(24),
  tableOffset: (image) => image.u32(28),
  entrySizeAt: 42,
  entryCountAt: 44,
  programHeader: (image, at) => ({
    type: image.u32(at),
    offset: image.u32(at + 4),
    virtual: image.u32(at + 8),
    physical: image.u32(at + 12),
    fileBytes: image.u32(at + 16),
    memoryBytes: image.u32(at + 20),
  }),
};

const ELF64: ElfClass = {
  headerBytes: 64,
  programHeaderBytes: 56,
  entry: (image) => image.u64(24),
  tableOffset: (image) => image.u64(32),
  entrySizeAt: 54,
  entryCountAt: 56,
  programHeader: (image, at) => ({
    type: image.u32(at),
    offset: image.u64(at + 8),
    virtual: image.u64(at + 16),
    physical: image.u64(at + 24),
    fileBytes: image.u64(at + 32),
    memoryBytes: image.u64(at + 40),
  }),
};

export const isElf = (image: ImageReader): boolean => image.has(0, IDENT_BYTES) && image.u32(0) === ELF_MAGIC;

/** What an owner says of the image. */
export interface ElfNote {
  readonly owner: string;
  readonly type: number;
  readonly content: Uint8Array;
}

/** @param physical where the image is entered instead of at its entry point. @throws InputError */
export function planElf(image: ImageReader, physical?: number): LoadPlan {
  const { elf, headers } = tableOf(image);
  const segments = headers.flatMap((header, index) => segmentOf(image, header, index));
  if (segments.length === 0) refuseImage('ELF header', 'no program header is loadable', REBUILD);
  return { segments, entry: physical ?? physicalEntry(elf.entry(image), headers) };
}

/** Whether it is an ELF64 for x86-64. @throws InputError */
export const isElf64 = (image: ImageReader): boolean => tableOf(image).elf === ELF64;

/** All notes, in the order of the file. @throws InputError */
export const elfNotes = (image: ImageReader): readonly ElfNote[] =>
  tableOf(image).headers.flatMap((header, index) => (header.type === NOTES ? notesOf(image, header, index) : []));

function tableOf(image: ImageReader): { readonly elf: ElfClass; readonly headers: readonly ProgramHeader[] } {
  const elf = classOf(image);
  if (!image.has(0, elf.headerBytes)) {
    refuseImage('ELF header', `the file ends after ${image.length} of ${elf.headerBytes} bytes`, TRUNCATED);
  }
  const type = image.u16(16);
  const machine = image.u16(18);
  if (machine !== MACHINE_386 && machine !== MACHINE_X86_64) {
    refuseImage('ELF header', `it is for machine type ${machine}, not x86`, 'Build it for x86.');
  }
  if (type !== EXECUTABLE) refuseImage('ELF header', `the file is of type ${type}, not an executable (2)`, REBUILD);
  return { elf, headers: programHeaders(image, elf) };
}

function classOf(image: ImageReader): ElfClass {
  const fileClass = image.bytes[4];
  if (image.bytes[5] !== LITTLE_ENDIAN) refuseImage('ELF header', 'it is not little-endian', 'Build it for x86.');
  if (fileClass === CLASS_32) return ELF32;
  if (fileClass === CLASS_64) return ELF64;
  return refuseImage('ELF header', `its class is ${fileClass}, neither 32-bit (1) nor 64-bit (2)`, TRUNCATED);
}

function programHeaders(image: ImageReader, elf: ElfClass): readonly ProgramHeader[] {
  const offset = elf.tableOffset(image);
  const size = image.u16(elf.entrySizeAt);
  const count = image.u16(elf.entryCountAt);
  if (count === 0) refuseImage('ELF header', 'there are no program headers', REBUILD);
  if (size < elf.programHeaderBytes) {
    refuseImage('ELF header', `program headers of ${size} bytes are too short`, TRUNCATED);
  }
  if (!image.has(offset, size * count)) {
    const end = hexadecimal(offset + size * count);
    refuseImage('program headers', `they end at file offset ${end}, past the end of the file`, TRUNCATED);
  }
  return Array.from({ length: count }, (_, index) => elf.programHeader(image, offset + index * size));
}

function segmentOf(image: ImageReader, header: ProgramHeader, index: number): Segment[] {
  const { type, offset, physical, fileBytes, memoryBytes } = header;
  if (type !== LOADABLE || memoryBytes === 0) return [];
  const name = `program header ${index}`;
  if (fileBytes > memoryBytes) {
    const sizes = `${hexadecimal(fileBytes)} bytes in the file, ${hexadecimal(memoryBytes)} in memory`;
    refuseImage(name, `the segment has ${sizes}`, REBUILD);
  }
  if (!image.has(offset, fileBytes)) {
    const end = hexadecimal(offset + fileBytes);
    refuseImage(name, `the segment ends at file offset ${end}, past the end of the file`, TRUNCATED);
  }
  return [{ name, address: physical, data: image.bytes.subarray(offset, offset + fileBytes), memoryBytes }];
}

const aligned4 = (length: number): number => Math.ceil(length / 4) * 4;

/** Name and content are padded to 4 bytes each. */
function notesOf(image: ImageReader, { offset, fileBytes }: ProgramHeader, index: number): ElfNote[] {
  const end = offset + fileBytes;
  const name = `program header ${index}`;
  if (!image.has(offset, fileBytes)) {
    refuseImage(name, `its notes end at file offset ${hexadecimal(end)}, past the end of the file`, TRUNCATED);
  }
  const notes: ElfNote[] = [];
  for (let at = offset; at + NOTE_HEAD_BYTES <= end; ) {
    const nameAt = at + NOTE_HEAD_BYTES;
    const contentAt = nameAt + aligned4(image.u32(at));
    const contentEnd = contentAt + image.u32(at + 4);
    if (contentEnd > end) refuseImage(name, `the note at file offset ${hexadecimal(at)} is cut off`, TRUNCATED);
    const owner = new TextDecoder('latin1').decode(image.bytes.subarray(nameAt, nameAt + image.u32(at)));
    const content = image.bytes.subarray(contentAt, contentEnd);
    notes.push({ owner: owner.replace(/\0.*$/s, ''), type: image.u32(at + 8), content });
    at = aligned4(contentEnd - offset) + offset;
  }
  return notes;
}

function physicalEntry(entry: number, headers: readonly ProgramHeader[]): number {
  const home = headers.find(
    ({ type, virtual, memoryBytes }) => type === LOADABLE && entry >= virtual && entry < virtual + memoryBytes,
  );
  return home === undefined ? entry : entry - home.virtual + home.physical;
}

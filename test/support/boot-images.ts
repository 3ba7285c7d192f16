/** Boot images built byte by byte, good ones and broken ones. */

const MULTIBOOT_MAGIC = 0x1bad_b002;

export interface HeaderFields {
  readonly flags?: number;
  /** Added to the right checksum. */
  readonly checksumError?: number;
  /** header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr. */
  readonly addresses?: readonly number[];
}

/** A Multiboot header, with its address fields when they are given. */
export function multibootHeader({ flags = 0, checksumError = 0, addresses }: HeaderFields = {}): Uint8Array {
  const allFlags = addresses === undefined ? flags : flags | 0x1_0000;
  const fields = [MULTIBOOT_MAGIC, allFlags, -(MULTIBOOT_MAGIC + allFlags) + checksumError, ...(addresses ?? [])];
  const bytes = new Uint8Array(fields.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [index, field] of fields.entries()) view.setUint32(index * 4, field >>> 0, true);
  return bytes;
}

export interface ElfSegment {
  readonly physical: number;
  readonly virtual?: number;
  readonly data: Uint8Array;
  readonly memoryBytes?: number;
  /** PT_LOAD when absent. */
  readonly type?: number;
  /** What the program header says instead of the truth. */
  readonly offset?: number;
  readonly fileBytes?: number;
}

export interface ElfFields {
  readonly bits?: 32 | 64;
  readonly entry?: number;
  readonly type?: number;
  readonly machine?: number;
  readonly encoding?: number;
  readonly fileClass?: number;
  readonly programHeaderBytes?: number;
  readonly programHeaderOffset?: number;
}

/** An ELF executable; segments stand in the file one after the other, behind the program headers. */
export function elfImage(segments: readonly ElfSegment[], fields: ElfFields = {}): Uint8Array {
  const { bits = 32, entry = segments[0]?.physical ?? 0, type = 2, encoding = 1 } = fields;
  const wide = bits === 64;
  const headerBytes = wide ? 64 : 52;
  const entryBytes = wide ? 56 : 32;
  const dataStart = headerBytes + segments.length * entryBytes;
  const bytes = new Uint8Array(dataStart + segments.reduce((sum, { data }) => sum + data.length, 0));
  const view = new DataView(bytes.buffer);
  const word = (at: number, value: number): void =>
    wide ? view.setBigUint64(at, BigInt(value), true) : view.setUint32(at, value, true);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, fields.fileClass ?? (wide ? 2 : 1), encoding, 1]);
  view.setUint16(16, type, true);
  view.setUint16(18, fields.machine ?? (wide ? 62 : 3), true);
  word(24, entry);
  word(wide ? 32 : 28, fields.programHeaderOffset ?? headerBytes);
  view.setUint16(wide ? 54 : 42, fields.programHeaderBytes ?? entryBytes, true);
  view.setUint16(wide ? 56 : 44, segments.length, true);
  let at = dataStart;
  for (const [index, segment] of segments.entries()) {
    const { physical, virtual = physical, data } = segment;
    const header = headerBytes + index * entryBytes;
    const fileBytes = segment.fileBytes ?? data.length;
    const values = [segment.offset ?? at, virtual, physical, fileBytes, segment.memoryBytes ?? data.length];
    view.setUint32(header, segment.type ?? 1, true);
    for (const [place, value] of values.entries()) word(header + (wide ? 8 * (place + 1) : 4 * (place + 1)), value);
    bytes.set(data, at);
    at += data.length;
  }
  return bytes;
}

/** `length` bytes that tell where they stand. */
export const pattern = (length: number, salt = 0): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => index * 7 + salt);

/** Bytes one after the other. */
export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

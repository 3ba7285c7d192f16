/**
 * What a session boots when it is more than an image alone: the image, the files beside it, and the protocol when it was
 * chosen. It is one run of bytes, so that tapes, snapshots and migrations carry it as they carry a plain image, by its
 * digest.
 *
 * Layout: a magic number of 16 bytes; the length of a directory, u32; the directory, JSON in UTF-8; the image; the files
 * in the order of the directory, then the contents of the disk, without gaps.
 */
import { ImageReader, refuseImage } from './image-reader.js';

/** By which rules an image is loaded and entered. */
export const BOOT_PROTOCOLS = ['multiboot', 'multiboot2', 'pvh', 'linux', 'flat', 'real'] as const;
export type BootProtocol = (typeof BOOT_PROTOCOLS)[number];

/** A file that is handed to the image beside it. */
export interface BootModule {
  readonly bytes: Uint8Array;
  /** Its name and arguments, as the image finds them. */
  readonly commandLine: string;
}

export interface BootPackage {
  readonly image: Uint8Array;
  /** undefined: as the image says. */
  readonly protocol: BootProtocol | undefined;
  readonly modules: readonly BootModule[];
  /** What the virtio block device has at power-on; empty for none. */
  readonly disk: Uint8Array;
}

interface Directory {
  readonly protocol: BootProtocol | null;
  readonly imageBytes: number;
  readonly modules: readonly { readonly bytes: number; readonly commandLine: string }[];
  /** Only where there is a disk. */
  readonly diskBytes?: number;
}

const MAGIC = 'vmtape boot pack';
const HEAD_BYTES = MAGIC.length + 4;
const DAMAGED = 'Record the session again.';

const NO_BYTES = new Uint8Array(0);

/** @returns the image itself when there is nothing beside it. */
export function packBoot(contents: Omit<BootPackage, 'disk'> & Partial<Pick<BootPackage, 'disk'>>): Uint8Array {
  const { image, protocol, modules, disk = NO_BYTES } = contents;
  if (protocol === undefined && modules.length === 0 && disk.length === 0) return image;
  const directory: Directory = {
    protocol: protocol ?? null,
    imageBytes: image.length,
    modules: modules.map(({ bytes, commandLine }) => ({ bytes: bytes.length, commandLine })),
    ...(disk.length === 0 ? {} : { diskBytes: disk.length }),
  };
  const json = new TextEncoder().encode(JSON.stringify(directory));
  const parts = [image, ...modules.map(({ bytes }) => bytes), disk];
  const packed = new Uint8Array(HEAD_BYTES + json.length + parts.reduce((sum, { length }) => sum + length, 0));
  packed.set(new TextEncoder().encode(MAGIC));
  new DataView(packed.buffer).setUint32(MAGIC.length, json.length, true);
  packed.set(json, HEAD_BYTES);
  let at = HEAD_BYTES + json.length;
  for (const bytes of parts) {
    packed.set(bytes, at);
    at += bytes.length;
  }
  return packed;
}

/** @returns views into `bytes`. @throws InputError for a package that is damaged. */
export function unpackBoot(bytes: Uint8Array): BootPackage {
  const reader = new ImageReader(bytes);
  if (!reader.has(0, HEAD_BYTES) || textOf(bytes.subarray(0, MAGIC.length)) !== MAGIC) {
    return { image: bytes, protocol: undefined, modules: [], disk: NO_BYTES };
  }
  const start = HEAD_BYTES + reader.u32(MAGIC.length);
  const directory = directoryOf(bytes.subarray(HEAD_BYTES, start));
  if (directory === undefined) return refusePackage('its directory cannot be read');
  const { diskBytes = 0 } = directory;
  const lengths = [directory.imageBytes, ...directory.modules.map((module) => module.bytes), diskBytes];
  if (start + lengths.reduce((sum, length) => sum + length, 0) !== bytes.length) {
    return refusePackage(`its directory does not account for its ${bytes.length} bytes`);
  }
  let at = start;
  const take = (length: number): Uint8Array => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  const image = take(directory.imageBytes);
  const modules = directory.modules.map((module) => ({
    bytes: take(module.bytes),
    commandLine: module.commandLine,
  }));
  return { image, protocol: directory.protocol ?? undefined, modules, disk: take(diskBytes) };
}

const textOf = (bytes: Uint8Array): string => new TextDecoder('latin1').decode(bytes);

const refusePackage = (problem: string): never => refuseImage('package of image and modules', problem, DAMAGED);

/** @returns undefined for what is no directory. */
function directoryOf(json: Uint8Array): Directory | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch {
    return undefined;
  }
  return isDirectory(value) ? value : undefined;
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null;
const isLength = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function isDirectory(value: unknown): value is Directory {
  if (!isRecord(value)) return false;
  const { protocol, imageBytes, modules, diskBytes } = value;
  return (
    (diskBytes === undefined || isLength(diskBytes)) &&
    (protocol === null || BOOT_PROTOCOLS.some((name) => name === protocol)) &&
    isLength(imageBytes) &&
    Array.isArray(modules) &&
    modules.every(
      (module: unknown) => isRecord(module) && isLength(module.bytes) && typeof module.commandLine === 'string',
    )
  );
}

/** @throws InputError: no protocol has room for a zero byte in a text. */
export function checkTexts(commandLine: string, modules: readonly BootModule[]): void {
  for (const text of [commandLine, ...modules.map((module) => module.commandLine)]) {
    if (text.includes('\0')) refuseImage('command line', 'it contains a zero byte', 'Leave it out.');
  }
}

/**
 * The ELF kernel that a bzImage carries, for the entries that only it has. The payload's place stands in the setup header,
 * and the last four bytes of the payload are the size of what it unpacks to.
 * Source: Linux, Documentation/arch/x86/boot.rst, fields payload_offset and payload_length.
 */
import { spawnSync } from 'node:child_process';
import { UsageError } from '../cli/failure.js';
import { LEGACY_MAGIC, Lz4Error, unpackLz4 } from './lz4.js';

const XZ_MAGIC = 0x587a_37fd; // FDh, "7zX"
const MOST_BYTES = 2 ** 30;

const SETUP_SECTORS = 0x1f1;
const SETUP_MAGIC_AT = 0x202;
const SETUP_MAGIC = 0x5372_6448; // "HdrS"
const PAYLOAD = 0x248;
const SECTOR_BYTES = 512;

/** XZ is the host's: its stream ends before the payload does. */
function unpackXz(packed: Uint8Array): Uint8Array {
  const { status, stdout } = spawnSync('xz', ['-dc', '--single-stream'], { input: packed, maxBuffer: MOST_BYTES });
  if (status === 0) return stdout;
  throw new UsageError('The kernel cannot be unpacked by xz. Install xz, or fetch the kernel again.');
}

/** @throws UsageError for what is no bzImage, or is compressed in another way than LZ4 and XZ. */
export function vmlinuxOf(image: Uint8Array): Uint8Array {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  if (image.length < PAYLOAD + 8 || view.getUint32(SETUP_MAGIC_AT, true) !== SETUP_MAGIC) {
    throw new UsageError('The kernel is no bzImage. Give a package of a kernel for x86-64.');
  }
  const start = (view.getUint8(SETUP_SECTORS) + 1) * SECTOR_BYTES + view.getUint32(PAYLOAD, true);
  const end = start + view.getUint32(PAYLOAD + 4, true);
  if (end > image.length || end - start < 8) throw new UsageError('The kernel is cut off. Fetch it again.');
  const magic = view.getUint32(start, true);
  if (magic === XZ_MAGIC) return unpackXz(image.subarray(start, end - 4));
  if (magic !== LEGACY_MAGIC) {
    throw new UsageError('The kernel is compressed with neither LZ4 nor XZ. Give another package.');
  }
  try {
    return unpackLz4(image.subarray(start, end - 4), view.getUint32(end - 4, true));
  } catch (error) {
    if (error instanceof Lz4Error)
      throw new UsageError(`The kernel cannot be unpacked: ${error.message}. Fetch it again.`);
    throw error;
  }
}

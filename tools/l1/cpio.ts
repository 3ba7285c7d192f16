/**
 * Archives that a kernel unpacks as its first file system: the "new ASCII" format of cpio, in which every number is eight
 * hexadecimal digits. The same files give the same bytes: no times, owners or numbers of inodes of the host go in.
 * Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst; cpio(5).
 */

export interface ArchiveFile {
  /** Path without a leading slash. */
  readonly name: string;
  readonly mode: number;
  /** undefined for a folder. */
  readonly contents?: Uint8Array;
}

export const Mode = { FOLDER: 0o040755, PROGRAM: 0o100755, FILE: 0o100644 } as const;

const MAGIC = '070701';
const TRAILER = 'TRAILER!!!';
const FIELDS = 13;

const aligned = (length: number): number => Math.ceil(length / 4) * 4;

function entry(inode: number, { name, mode, contents = new Uint8Array(0) }: ArchiveFile): Buffer {
  const links = contents.length === 0 && mode === Mode.FOLDER ? 2 : 1;
  // Inode, mode, user, group, links, time, size, the device's and the special file's numbers, the name's length, checksum.
  const fields = [inode, mode, 0, 0, links, 0, contents.length, 0, 0, 0, 0, name.length + 1, 0];
  const head = MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join('');
  const dataAt = aligned(MAGIC.length + 8 * FIELDS + name.length + 1);
  const bytes = Buffer.alloc(dataAt + aligned(contents.length));
  bytes.write(`${head}${name}\0`, 'latin1');
  bytes.set(contents, dataAt);
  return bytes;
}

/** @param files folders before what is in them. */
export function cpioArchive(files: readonly ArchiveFile[]): Buffer {
  const entries = files.map((file, index) => entry(index + 1, file));
  return Buffer.concat([...entries, entry(0, { name: TRAILER, mode: 0 })]);
}

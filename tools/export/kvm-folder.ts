/**
 * A folder of KVM's structures on disk: written whole or not at all, read file by file. RAM is one sparse file, byte n of it
 * is physical address n.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { PAGE_BYTES } from '../../src/machine/index.js';
import type { GivenRam, KvmExport, RamContents } from '../../src/replay/index.js';
import { OperatingError, UsageError } from '../cli/failure.js';

export const MANIFEST = 'manifest.json';

/** @param ram goes to the file that the manifest names. @throws UsageError when there is such a folder already. */
export function writeFolder(folder: string, { manifest, files }: KvmExport, ram: RamContents): void {
  if (existsSync(folder))
    throw new UsageError(`${folder}: there is such a file already. Give another name, or move it away.`);
  const target = resolve(folder);
  const making = join(dirname(target), `.${basename(target)}.${process.pid}.partial`);
  rmSync(making, { recursive: true, force: true });
  try {
    for (const [name, bytes] of files) {
      mkdirSync(dirname(join(making, name)), { recursive: true });
      writeFileSync(join(making, name), bytes);
    }
    if (manifest.ram !== undefined) writeRam(join(making, manifest.ram.file), ram, manifest.ram.bytes / PAGE_BYTES);
    writeFileSync(join(making, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`);
    renameSync(making, target);
  } catch (cause) {
    rmSync(making, { recursive: true, force: true });
    const problem = `${folder}: ${(cause as Error).message}. Nothing was made. Make room, or choose another place.`;
    throw new OperatingError(problem, { cause });
  }
}

/** @param count pages of RAM; a disk stands behind them. */
function writeRam(path: string, { pages, contents }: RamContents, count: number): void {
  const descriptor = openSync(path, 'wx');
  try {
    for (const [page, number] of pages.subarray(0, count).entries()) {
      const content = contents[number - 1];
      if (content === undefined) continue;
      for (let at = 0; at < PAGE_BYTES; ) {
        at += writeSync(descriptor, content, at, PAGE_BYTES - at, page * PAGE_BYTES + at);
      }
    }
    ftruncateSync(descriptor, count * PAGE_BYTES);
  } finally {
    closeSync(descriptor);
  }
}

/** @throws UsageError naming the file. */
export function readFolderFile(folder: string, name: string): Uint8Array {
  try {
    return readFileSync(join(folder, name));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const problem = code === 'ENOENT' || code === 'ENOTDIR' ? 'there is no such file' : `cannot be read (${code})`;
    throw new UsageError(`${join(folder, name)}: ${problem}. The folder must be as vmtape export --kvm makes it.`, {
      cause,
    });
  }
}

const CHUNK_BYTES = 1 << 20;

/** The RAM of a folder, read piece by piece. @throws UsageError naming the file. */
export function folderRam(folder: string, name: string): GivenRam & { close(): void } {
  const path = join(folder, name);
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (cause) {
    throw new UsageError(`${path}: there is no such file. Leave ram out of the manifest, or give it back.`, { cause });
  }
  return {
    bytes: fstatSync(descriptor).size,
    *pages() {
      const chunk = Buffer.alloc(CHUNK_BYTES);
      for (let at = 0; ; ) {
        const read = readSync(descriptor, chunk, 0, CHUNK_BYTES, at);
        for (let within = 0; within < read; within += PAGE_BYTES) {
          const content = chunk.subarray(within, within + PAGE_BYTES);
          if (content.some((byte) => byte !== 0)) yield [(at + within) / PAGE_BYTES, new Uint8Array(content)];
        }
        at += read;
        if (read === 0) return;
      }
    },
    close: () => closeSync(descriptor),
  };
}

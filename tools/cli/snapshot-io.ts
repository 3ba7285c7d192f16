/** Snapshots as files: their pages are compressed and unpacked by several threads at a time. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import { brotliCompress, brotliDecompress, constants } from 'node:zlib';
import {
  encodeSnapshot,
  MOST_GROUP_BYTES,
  PAGE_COMPRESSION,
  pageGroups,
  type Snapshot,
  SnapshotDecoder,
  type UnpackedGroup,
  unpackedGroup,
} from '../../src/replay/index.js';
import { OperatingError } from './failure.js';
import { readInputFile } from './machine-flags.js';

/** A group comes out of its thread in few pieces: each costs a turn of the main one. */
const CHUNK_BYTES = MOST_GROUP_BYTES / 2;

const compressed = promisify(brotliCompress);
const decompressed = promisify(brotliDecompress);

/** @param path where it is made. @param name what the user calls it. @throws OperatingError */
export async function writeSnapshot(path: string, name: string, snapshot: Snapshot): Promise<void> {
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: PAGE_COMPRESSION.quality,
    [constants.BROTLI_PARAM_LGWIN]: PAGE_COMPRESSION.window,
  };
  const groups = await Promise.all(
    [...pageGroups(snapshot.ram)].map((group) => compressed(group, { params, chunkSize: CHUNK_BYTES })),
  );
  const pieces = encodeSnapshot(snapshot, {}, groups);
  try {
    const descriptor = openSync(path, 'wx');
    try {
      for (const piece of pieces) {
        for (let at = 0; at < piece.length; ) at += writeSync(descriptor, piece, at);
      }
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    const problem = `${name}: ${(cause as Error).message}. Nothing was made. Make room, or choose another place.`;
    throw new OperatingError(problem, { cause });
  }
}

/** @throws UsageError when there is no such file; InputError, SnapshotDamagedError. */
export async function readSnapshot(file: string): Promise<Snapshot> {
  return await unpackSnapshot(readInputFile(file, 'the snapshot'), file);
}

/** @param bytes those of the file. */
export async function unpackSnapshot(bytes: Uint8Array, file: string): Promise<Snapshot> {
  const decoder = new SnapshotDecoder(bytes, file);
  const groups = decoder.packedGroups.map((group) => unpacked(group));
  decoder.readRest();
  const whole = (await Promise.all(groups)).filter((group) => group !== undefined);
  return decoder.finish(whole.length === groups.length ? whole : undefined);
}

/** @returns undefined for what cannot be unpacked: the decoder names it. */
async function unpacked(group: Uint8Array): Promise<UnpackedGroup | undefined> {
  try {
    return unpackedGroup(await decompressed(group, { maxOutputLength: MOST_GROUP_BYTES, chunkSize: MOST_GROUP_BYTES }));
  } catch {
    return undefined;
  }
}

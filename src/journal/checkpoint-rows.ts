/** Rows of checkpoints and pages → what they hold, once they are found to be as they were written. */
import {
  type Checkpoint,
  type CheckpointRow,
  checkpointSeal,
  decodePageMap,
  PAGE_BYTES,
  type PageGroupRow,
  pageGroupSeal,
} from './checkpoint.js';
import { decompress } from './chunk.js';
import { sameBytes } from './digest.js';
import { TapeDamagedError } from './errors.js';
import { DIGEST_BYTES, pageDigest } from './page-tree.js';
import type { Position } from './record.js';
import { mistypedColumn } from './tape-schema.js';

/** What checking rows needs of the tape. */
export interface TapeOfRows {
  readonly file: string;
  /** Digest of its header. */
  readonly genesis: Uint8Array;
  /** How far it can be read whatever the row holds. */
  readonly readableTo: Position;
}

const REBUILD = 'Checkpoints are derived: `vmtape checkpoint` can drop them and make them again';

/** @throws TapeDamagedError when the row is not as it was written. */
export function checkpointFromRow({ file, genesis, readableTo }: TapeOfRows, row: CheckpointRow): Checkpoint {
  const place = { table: 'checkpoints', row: String(row.id), readableTo } as const;
  if (mistypedColumn('checkpoints', row) !== undefined || !sameBytes(checkpointSeal(genesis, row), row.seal)) {
    throw new TapeDamagedError(file, `the checkpoint does not match its seal. ${REBUILD}`, place);
  }
  try {
    return {
      id: Number(row.id),
      position: { icount: row.icount, seq: row.seq },
      bytes: row.state.length + row.map.length,
      state: decompress(row.state, Number(row.state_length)),
      pages: decodePageMap(decompress(row.map, Number(row.map_length)), Number(row.ram_pages)),
    };
  } catch (cause) {
    throw new TapeDamagedError(file, `the checkpoint cannot be unpacked. ${REBUILD}`, place, { cause });
  }
}

/** The contents of a group, one after the other. @throws TapeDamagedError when the row is not as it was written. */
export function contentsOfGroup({ file, genesis, readableTo }: TapeOfRows, row: PageGroupRow): Uint8Array {
  const place = { table: 'pages', row: String(row.id), readableTo } as const;
  if (mistypedColumn('pages', row) !== undefined || !sameBytes(pageGroupSeal(genesis, row), row.seal)) {
    throw new TapeDamagedError(file, `the pages do not match their seal. ${REBUILD}`, place);
  }
  const bytes = (row.digests.length / DIGEST_BYTES) * PAGE_BYTES;
  const contents = decompress(row.data, bytes);
  if (contents.length === bytes) return contents;
  throw new TapeDamagedError(file, `${contents.length} bytes of pages are there instead of ${bytes}`, place);
}

/** Whether each page of a group has the digest that the group says. */
export function matchesDigests(row: PageGroupRow, contents: Uint8Array): boolean {
  for (let page = 0; page * PAGE_BYTES < contents.length; page++) {
    const digest = pageDigest(contents.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
    const expected = row.digests.subarray(page * DIGEST_BYTES, (page + 1) * DIGEST_BYTES);
    if (digest === undefined || !sameBytes(digest, expected)) return false;
  }
  return true;
}

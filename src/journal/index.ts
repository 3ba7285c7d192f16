/**
 * The journal's front door: what other folders may use.
 */
export { joined } from './bytes.js';
export {
  type Checkpoint,
  type CheckpointEntry,
  type CheckpointInput,
  decodePageMap,
  encodePageMap,
} from './checkpoint.js';
export { type Chunk, ChunkEncoder, compress, decompress } from './chunk.js';
export type { ChunkScan } from './chunk-scan.js';
export { EncodingError, EventEncoder, type EventTable, encodeEvent } from './codec.js';
export { DerivedDataFile } from './derived-data-file.js';
export { containsBytes, fromHex, sameBytes, toHex } from './digest.js';
export { JournalError, TapeDamagedError } from './errors.js';
export { Fork } from './forked-reader.js';
export { giveWay } from './give-way.js';
export { memoryStore } from './memory-store.js';
export { PageIndex } from './page-index.js';
export { DIGEST_BYTES, PageTree, pageDigest } from './page-tree.js';
export {
  payloadJson,
  type RecordFilter,
  RecordSource,
  selectRecords,
} from './query.js';
export {
  boundaryAfter,
  comparePositions,
  formatPosition,
  type JournalRecord,
  type Position,
  parsePosition,
  START,
} from './record.js';
export { sqliteStore } from './sqlite-store.js';
export {
  isRecordOf,
  type JournalReader,
  type JournalStore,
  type JournalWriter,
  type StateDigest,
  type TapeDescription,
  type TapeHeader,
  type TapeOrigin,
  type TapeState,
} from './store.js';
export { verifyTape } from './verify.js';
export type { WriteStretch } from './write-stretch.js';

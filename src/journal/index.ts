/**
 * The journal's front door: what other folders may use.
 */
export { type Chunk, ChunkEncoder } from './chunk.js';
export { EncodingError, type EventTable, encodeEvent, type FieldValue } from './codec.js';
export { sameBytes } from './digest.js';
export {
  type DamagePlace,
  JournalError,
  TapeDamagedError,
  TapeInputError,
  TapeReadError,
  TapeWriteError,
} from './errors.js';
export { memoryStore } from './memory-store.js';
export {
  globMatcher,
  openViews,
  payloadJson,
  type RecordFilter,
  selectRecords,
  VIEW_COLUMNS,
  type VmcbWrite,
  vmcbWrites,
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
export { type SqliteStoreOptions, sqliteStore } from './sqlite-store.js';
export {
  isRecordOf,
  type JournalReader,
  type JournalStore,
  type JournalWriter,
  type Json,
  type StateDigest,
  type TapeDescription,
  type TapeHeader,
  type TapeState,
} from './store.js';
export { type VerifyReport, verifyTape } from './verify.js';

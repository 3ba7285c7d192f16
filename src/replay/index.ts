/**
 * The front door of replay: what other folders may use.
 */

export type { Found } from './armed-follower.js';
export { type Bisection, type BisectOptions, bisect, type Divergence } from './bisect/bisection.js';
export type { Cause } from './bisect/causes.js';
export type { InterceptDecision, RowThere } from './bisect/decision.js';
export { firstDifference } from './bisect/first-difference.js';
export { firstWhere, type Predicate, type Sight } from './bisect/first-where.js';
export { CHAOS_DECISIONS, OPEN_KINDS, type OpenKind } from './bisect/open-differences.js';
export { runOtherModel } from './bisect/other-model.js';
export type { Pair } from './bisect/pair.js';
export { type PolicySearch, searchPolicies } from './bisect/policy-search.js';
export type { RamDifference } from './bisect/ram-difference.js';
export { Side } from './bisect/side.js';
export type { Transition } from './bisect/transition.js';
export { leaveUndefined, STATUS_FLAGS } from './bisect/undefined-flags.js';
export type { WriterAnswer } from './bisect/writers.js';
export { type Perturbation, type Plan, randomPlan } from './chaos.js';
export { type Finding, searchChaos, type TriedSession, tryPlan, type Verdict } from './chaos-search.js';
export { type CheckpointInterval, CheckpointTaker } from './checkpoint-taker.js';
export { type CodePlace, type DisassembledInstruction, disassemble } from './disassemble.js';
export { Diversion } from './diversion/diversion.js';
export { checkpointBefore } from './enter-checkpoint.js';
export { nextEvent, previousEvent } from './event-search.js';
export { eventText, INJECTED_KINDS, recordText } from './event-text.js';
export { imageOf } from './feed-input.js';
export { FoldChecker, FoldMismatch, foldHistory, foldTape, type StateDifference, stateDifferences } from './fold.js';
export { type RecordedGuest, recordedGuests } from './guests.js';
export { type CoreHead, elfCoreHead } from './interchange/elf-core.js';
export { exportKvm, type KvmExport, type KvmManifest } from './interchange/kvm-folder.js';
export { FolderDamagedError, type GivenRam, importKvm, parseManifest } from './interchange/kvm-import.js';
export {
  decodeStruct,
  KVM_SREGS,
  KVM_SREGS2,
  KVM_VCPU_EVENTS,
  type Struct,
  type StructValues,
} from './interchange/kvm-structs.js';
export { lintNestedState, type NestedLint } from './interchange/lint-nested-state.js';
export { goingBackToChange } from './last-change.js';
export {
  LiveSession,
  type Sampler,
  type ScheduledInput,
  type SessionOptions,
  type SessionStatus,
  sha256Hex,
} from './live-session.js';
export { type Arrival, IncomingMigration, type Terms } from './migration/destination.js';
export { ProtocolError } from './migration/messages.js';
export { type Channel, Peer, PeerGone, Refused } from './migration/peer.js';
export { DEFAULT_SETTINGS, OutgoingMigration } from './migration/source.js';
export { type Interval, IntervalPlan } from './parallel/interval-plan.js';
export {
  type IntervalOutcome,
  IntervalReplayer,
  type IntervalStart,
  type Joint,
  type ReplaySums,
} from './parallel/interval-replayer.js';
export { boundaryBefore, eventPattern, resolvePosition } from './position-pattern.js';
export { Recorder, type RecorderOptions, type TapeOptions } from './recorder.js';
export { Replayer, type ReplayOutcome } from './replayer.js';
export { runCost } from './run-cost.js';
export { describeSession, sessionConfig } from './session.js';
export { COMPONENT_FORMATS } from './snapshot/component-formats.js';
export { componentFields } from './snapshot/components.js';
export { withProfile } from './snapshot/other-profile.js';
export { type RamContents, type Snapshot, snapshotWithoutRam, takeSnapshot } from './snapshot/snapshot.js';
export {
  decodeSnapshot,
  decodeSnapshotHeader,
  encodeSnapshot,
  isSnapshot,
  MOST_GROUP_BYTES,
  PAGE_COMPRESSION,
  pageGroups,
  SnapshotDecoder,
  type SnapshotHeader,
  type UnpackedGroup,
  unpackedGroup,
} from './snapshot/snapshot-file.js';
export { RamDigester, stateDigests } from './state-digest.js';
export { FollowingError } from './tape-follower.js';
export { thinned } from './thinning.js';
export { Timeline } from './timeline.js';
export { type ApartCase, resumeApart } from './torture/apart.js';
export { type OrderChoice, parseOrders } from './torture/orders.js';
export { parsePlaces, placesIn, sampled } from './torture/places.js';
export { Torture, type TortureFailure } from './torture/torture.js';
export type { WindowSize } from './torture/windows.js';
export { type MemoryWrite, type TracedInstruction, Tracer, type TraceStep } from './tracer.js';
export type { Change } from './value-watch.js';
export {
  deviceValue,
  partOf,
  ramValue,
  registerValue,
  storedMsrValue,
  WATCHED_DEVICES,
  type WatchedValue,
} from './watched-value.js';
export { lastWriter, type WriteStep } from './who-wrote.js';
export { Cancelled, type Control, finish, type Work } from './work.js';
export { covers, indexWrites } from './write-index.js';

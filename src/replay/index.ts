/**
 * The front door of replay: what other folders may use.
 */
export { type CodePlace, codeModeOf, type DisassembledInstruction, disassemble, instructionText } from './disassemble.js';
export { type Difference, type DivergenceCause, ReplayDivergence } from './divergence.js';
export { eventText, recordText } from './event-text.js';
export {
  FoldChecker,
  type FoldedState,
  FoldMismatch,
  foldHistory,
  foldTape,
  type StateDifference,
  stateDifferences,
} from './fold.js';
export { LiveSession, type SessionOptions, type SessionStatus } from './live-session.js';
export { resolvePosition } from './position-pattern.js';
export { Recorder, type RecorderOptions, type RecorderStats } from './recorder.js';
export { endOfSession, Replayer, type ReplayerOptions, type ReplayOutcome } from './replayer.js';
export { requireSameModel, type SessionConfig, SLICE_INSTRUCTIONS, sessionConfig } from './session.js';
export { type DigestedMachine, STATE_PARTS, type StatePart, stateDigests } from './state-digest.js';

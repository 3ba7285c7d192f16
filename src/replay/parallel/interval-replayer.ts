/**
 * Replays intervals of a tape, each from the checkpoint at its start to the one at its end, in any order.
 *
 * An interval alone proves that the tape follows from its checkpoint. That the checkpoint follows from the tape is what the
 * interval before proves: there the machine is taken apart, and so it is where the next one begins. Equal digests of both mean
 * that a replay of one piece would have gone on as the next interval did. docs/adr/0038 has the argument in full.
 */
import { createHash } from 'node:crypto';
import { comparePositions, formatPosition, type JournalReader, type Position, toHex } from '../../journal/index.js';
import { InputError, type Machine } from '../../machine/index.js';
import type { ReplayDivergence } from '../divergence.js';
import { Replayer, type ReplayOutcome } from '../replayer.js';
import { canonicalBytes, STATE_PARTS } from '../state-digest.js';
import type { Work } from '../work.js';

/** A place where a replay can begin: the start, or a checkpoint. */
export interface IntervalStart {
  readonly position: Position;
  /** Undefined for the start of the tape. */
  readonly checkpoint: number | undefined;
  /** Whether an interval ends there. */
  readonly isJoint: boolean;
}

/** Digests of all that a machine goes on from, in hex by part: what the state's digests cover, and what its loop knows. */
export type Joint = Readonly<Record<string, string>>;

export interface ReplaySums {
  readonly instructions: number;
  readonly events: number;
  /** State digests of the tape that were compared. */
  readonly digests: number;
}

export type IntervalOutcome =
  | (ReplaySums & {
      readonly kind: 'same';
      /** The machine where the interval began; undefined when it was there already, from the interval before. */
      readonly entered: Joint | undefined;
      readonly reached: Joint;
      /** What the whole replay comes to, at its end. */
      readonly last: Exclude<ReplayOutcome, { readonly kind: 'diverged' }> | undefined;
    })
  | (ReplaySums & {
      readonly kind: 'diverged';
      readonly entered: Joint | undefined;
      readonly divergence: ReplayDivergence;
    })
  /** The checkpoint is not the machine that the tape's digests tell of. */
  | { readonly kind: 'other-start'; readonly parts: readonly string[] };

export class IntervalReplayer {
  private replayer: Replayer | undefined;

  /** @param to where the replay ends; undefined for the end of the tape. */
  constructor(
    private readonly reader: JournalReader,
    private readonly to: Position | undefined,
  ) {}

  /** @param to undefined for where the replay ends. @throws the journal's errors when the tape is damaged. */
  *replaying(from: IntervalStart, to: Position | undefined): Work<IntervalOutcome> {
    const stands = this.replayer !== undefined && comparePositions(this.replayer.position, from.position) === 0;
    const replayer = stands ? (this.replayer as Replayer) : this.enter(from);
    const before = { instructions: replayer.machine.retired, events: replayer.compared };
    const entered = stands ? undefined : jointOf(replayer);
    if (from.isJoint && !stands) {
      const other = replayer.compareDigests();
      // Those of the place itself belong to the interval before.
      replayer.digests = 0;
      if (other !== undefined) return { kind: 'other-start', parts: partsOf(other) };
    }
    const digests = stands ? replayer.digests : 0;
    const outcome = yield* replayer.replayingTo(to);
    const instructions = replayer.machine.retired - before.instructions;
    const events = replayer.compared - before.events;
    if (outcome !== undefined) this.replayer = undefined;
    const sums = { instructions, events, digests: replayer.digests - digests };
    if (outcome?.kind === 'diverged') return { kind: 'diverged', ...sums, entered, divergence: outcome.divergence };
    return { kind: 'same', ...sums, entered, reached: jointOf(replayer), last: outcome };
  }

  close(): void {
    this.replayer?.close();
  }

  private enter({ position, checkpoint: id }: IntervalStart): Replayer {
    const { reader, to } = this;
    if (id === undefined || this.replayer === undefined) {
      this.close();
      this.replayer = new Replayer(reader, { from: id === undefined ? undefined : position, to });
    } else {
      const checkpoint = reader.checkpoint(id);
      if (checkpoint !== undefined) this.replayer.enter(checkpoint);
    }
    if (comparePositions(this.replayer.position, position) === 0) return this.replayer;
    throw new InputError(
      'tape',
      `its checkpoint at ${formatPosition(position)} is gone`,
      'Drop none while a tape is replayed from them.',
    );
  }
}

const partsOf = (outcome: ReplayOutcome): readonly string[] =>
  outcome.kind === 'diverged' && outcome.divergence.cause.kind === 'digest' ? outcome.divergence.cause.parts : [];

function jointOf({ machine, stateDigests }: Replayer): Joint {
  const parts = STATE_PARTS.map((part) => [part, toHex(stateDigests[part])]);
  return { ...Object.fromEntries(parts), loop: loopDigest(machine) };
}

/** Of all that a point has beside the parts of the state that have digests of their own. */
function loopDigest(machine: Machine): string {
  const { state, shadow, ...loop } = machine.capture();
  const { vcpus: _, vmcbs: __, devices: ___, ...rest } = state;
  const registers = shadow && new Uint8Array(shadow.buffer, shadow.byteOffset, shadow.byteLength);
  return createHash('sha256')
    .update(canonicalBytes({ ...loop, ...rest, registers }))
    .digest('hex');
}

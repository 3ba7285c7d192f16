/**
 * A recorded session on another machine: it gets the same inputs at the same places, and goes the same way, up to the first event
 * that it states otherwise and some way on. What comes out is a tape, which is then held against the recorded one.
 */
import { Fork, type JournalReader, type Position, type TapeHeader } from '../../journal/index.js';
import {
  apicFeatures,
  InputError,
  InvariantError,
  instructionCount,
  isInput,
  Machine,
  type MachineConfig,
  machineProfile,
  type StatedEvent,
  UnsupportedError,
} from '../../machine/index.js';
import { enterCheckpoint } from '../enter-checkpoint.js';
import { EventComparer } from '../event-comparer.js';
import { feedInput } from '../feed-input.js';
import { decodePoint, encodePoint } from '../point-codec.js';
import { requireSameModel, type SessionConfig, sessionConfig, sliceEnd } from '../session.js';
import { TapeCursor } from '../tape-cursor.js';
import type { Control } from '../work.js';

export interface OtherModel {
  /** The session of the other machine, as far as it was run; undefined when it is the recorded one to its end. */
  readonly tape: JournalReader | undefined;
  /** Why the other machine could not go on, if so. */
  readonly failure: string | undefined;
}

/** How far a session is run after it has taken its own way. */
const MORE_EVENTS = 64;
const MORE_INSTRUCTIONS = 200_000;

/** @throws InputError when no machine can be made of this, or it cannot take the tape's inputs; the journal's errors. */
export function runOtherModel(reader: JournalReader, config: MachineConfig, control: Control = {}): OtherModel {
  return new OtherRun(reader, config).run(control);
}

/** A header that says of the session what the other machine is. */
function headerOf({ header }: JournalReader, config: MachineConfig): TapeHeader {
  const machine = { ...(header.configuration.machine as object), ...config, deviations: [...config.deviations] };
  return { ...header, configuration: { ...header.configuration, machine } };
}

class OtherRun {
  private readonly machine: Machine;
  private readonly session: SessionConfig;
  private readonly cursor: TapeCursor;
  private readonly comparer: EventComparer;
  private readonly endIcount: number;
  private fork: Fork | undefined;
  private ownEvents = 0;
  private forkedAt = 0;
  private failure: string | undefined;
  private ended = false;

  constructor(
    private readonly reader: JournalReader,
    private readonly config: MachineConfig,
  ) {
    requireSameModel(reader.header);
    this.session = sessionConfig(reader.header);
    const { ramBytes, vcpus } = this.session.machine;
    if (config.ramBytes !== ramBytes || config.vcpus !== vcpus) {
      throw new InputError('the other machine', 'its RAM or vCPUs are not those of the tape', 'Change something else.');
    }
    this.cursor = new TapeCursor(reader, reader.start.seq);
    this.comparer = new EventComparer(this.cursor, reader, reader.start);
    this.endIcount = Number(reader.end.icount);
    this.machine = new Machine(config, (stated) => this.take(stated));
    const origin = reader.origin();
    if (origin !== undefined) {
      enterCheckpoint(this.machine, reader, { ...origin, state: this.stateOf(origin.state) });
    }
  }

  /** What a processor reports of its local APIC is part of the APIC's state. */
  private readonly stateOf = (bytes: Uint8Array): Uint8Array => {
    const profile = machineProfile(this.config);
    if (profile === undefined || this.config.cpu === this.session.machine.cpu) return bytes;
    const point = decodePoint(bytes);
    for (const apic of point.state.devices.localApics) apic.features = apicFeatures(profile);
    return encodePoint(point);
  };

  run({ tick }: Control): OtherModel {
    try {
      while (!this.isOver) {
        this.advance();
        if (tick?.(this.position) === true) break;
      }
    } catch (error) {
      if (!(error instanceof InvariantError) && !(error instanceof UnsupportedError)) throw error;
      this.failure = error.message;
      if (Number(this.position.seq) < Number(this.reader.end.seq)) this.fork ??= new Fork(this.reader, this.position);
    } finally {
      this.cursor.close();
    }
    const tape = this.fork?.read(headerOf(this.reader, this.config), this.stateOf);
    return { tape, failure: this.failure };
  }

  private get position(): Position {
    return { icount: BigInt(this.machine.retired), seq: BigInt(this.comparer.compared + this.ownEvents) };
  }

  private get isOver(): boolean {
    if (this.ended) return true;
    if (this.fork === undefined) {
      return this.comparer.compared >= Number(this.reader.end.seq) && this.machine.retired >= this.endIcount;
    }
    return this.ownEvents >= MORE_EVENTS || this.machine.retired >= this.forkedAt + MORE_INSTRUCTIONS;
  }

  private advance(): void {
    const { machine } = this;
    if (this.feedDueInput()) return;
    const stop = machine.advance(instructionCount(this.nextStop()));
    if (stop === 'ended') this.ended = true;
    // Without an input that will come, waiting is the end; the tape says whether the recorded machine waited so long.
    if (stop === 'idle' && !this.feedDueInput()) {
      machine.endIdle();
      this.ended = true;
    }
  }

  /** Inputs come where they came; on its own way, when the machine is there. */
  private feedDueInput(): boolean {
    const { machine, cursor, comparer } = this;
    const input = cursor.inputUpTo(BigInt(machine.retired));
    if (input === undefined) return false;
    if (this.fork === undefined && input.position.seq !== BigInt(comparer.compared)) return false;
    cursor.inputFed();
    feedInput(machine, this.reader, input);
    return true;
  }

  private nextStop(): number {
    const retired: number = this.machine.retired;
    const slice = sliceEnd(this.session, retired);
    const input = this.cursor.inputUpTo(BigInt(slice))?.position.icount;
    // On its own way it does not come back where the recorder of the other one did.
    const places = this.fork === undefined ? [input, this.nextDigestAfter(retired), this.reader.end.icount] : [input];
    return places.reduce<number>((stop, place) => {
      const icount = Number(place ?? 0n);
      return icount > retired && icount < stop ? icount : stop;
    }, slice);
  }

  /** Where the recorder came back for a checkpoint, a run ended. */
  private nextDigestAfter(retired: number): bigint | undefined {
    const { cursor } = this;
    while (cursor.nextDigest !== undefined && Number(cursor.nextDigest.position.icount) <= retired)
      cursor.takeDigests();
    return cursor.nextDigest?.position.icount;
  }

  private take(stated: StatedEvent): void {
    const { fork, comparer, machine, reader } = this;
    if (fork !== undefined) {
      this.ownEvents++;
      fork.append(stated);
      return;
    }
    if (comparer.compared >= Number(reader.end.seq)) {
      // The tape ends amid what the machine does at one instruction.
      this.ended = true;
      return;
    }
    const boundary = { icount: BigInt(machine.retired - stated.retired), seq: BigInt(comparer.compared) };
    if (comparer.accept(stated)) return;
    this.fork = new Fork(reader, boundary);
    this.forkedAt = machine.retired;
    this.ownEvents++;
    this.fork.append(stated);
    // Where the tape would have it come back is nothing to it any more.
    machine.pause();
    // An input that the tape has here is not this machine's to state.
    if (isInput(stated.event)) this.ended = true;
  }
}

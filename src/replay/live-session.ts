/**
 * A machine that runs for the first time: boots it, feeds its serial port, and runs it slice by slice.
 *
 * Bytes for the serial port wait in a queue. They are delivered when the receiver has room, at the end of a slice or
 * when the machine waits for input: places that depend on instructions alone. So a session whose input is known from the
 * start is the same however often, and under whatever load, it runs.
 */
import { createHash } from 'node:crypto';
import {
  type AdvanceStop,
  checkHostInput,
  type EventSink,
  type HostInput,
  instructionCount,
  Machine,
  type MachineConfig,
} from '../machine/index.js';
import { Chaos, type Perturbation, type Plan } from './chaos.js';
import { type SessionConfig, SLICE_INSTRUCTIONS, sessionConfig, sliceEnd } from './session.js';
import { enterSnapshot, type Snapshot } from './snapshot/snapshot.js';

/** What the host does to a session, but the bytes that its serial port receives. */
export interface HostOptions {
  /** What the host does to the guest, each once so many instructions have retired. */
  readonly hostInputs?: readonly ScheduledInput[];
  /** What chaos does to it. */
  readonly chaos?: Plan | undefined;
}

/** All that determines a session from its beginning, but the bytes that its serial port and its console receive. */
export interface SessionOptions extends HostOptions {
  readonly config: MachineConfig;
  /** Contents of the boot image. */
  readonly image: Uint8Array;
  /** The whole command line; by custom it begins with the image's name. */
  readonly commandLine: string;
  /** Wall-clock time at power-on: seconds since 1970-01-01T00:00:00Z. */
  readonly unixSeconds: number;
  /** Seed of the machine's random numbers, 64 bits. */
  readonly entropySeed: bigint;
  /** Instructions in a slice; for tests. */
  readonly sliceInstructions?: number;
}

export interface ScheduledInput {
  readonly instruction: number;
  readonly input: HostInput;
}

/** Looks at a machine while it runs. What it does must leave the machine alone. */
export interface Sampler {
  /** How many instructions have retired when it wants to look next; no end of a slice. */
  readonly next: number;
  take(machine: Machine): void;
}

/**
 * - `running`: go on;
 * - `limit`: the limit that was asked for is reached;
 * - `waiting`: every vCPU is halted until a byte arrives at the serial port: `feed` it, or `endInput`;
 * - `ended`: the session is over, `machine.state.ended` says how.
 */
export type SessionStatus = 'running' | 'limit' | 'waiting' | 'ended';

const NO_BYTES = new Uint8Array(0);

export class LiveSession {
  sampler: Sampler | undefined;
  private readonly chaos: Chaos | undefined;
  private queue: Uint8Array = NO_BYTES;
  private consoleQueue: Uint8Array = NO_BYTES;
  private inputEnds = false;
  /** What is still to come, in order. */
  private scheduled: readonly ScheduledInput[];

  private constructor(
    readonly machine: Machine,
    readonly session: SessionConfig,
    { hostInputs = [], chaos }: HostOptions,
  ) {
    for (const { input } of hostInputs) checkHostInput(session.machine, input);
    const later = hostInputs.filter(({ instruction }) => machine.retired === 0 || instruction > machine.retired);
    this.scheduled = later.sort((a, b) => a.instruction - b.instruction);
    this.chaos = chaos === undefined ? undefined : new Chaos(chaos, machine);
  }

  /** Makes the machine and boots it; nothing has run yet. @throws InputError for an image or a configuration. */
  static boot(options: SessionOptions, sink: EventSink): LiveSession {
    const { config, image, commandLine, unixSeconds, entropySeed, sliceInstructions = SLICE_INSTRUCTIONS } = options;
    const machine = new Machine(config, sink);
    machine.deliver({ type: 'input.clock', unixSeconds });
    machine.deliver({ type: 'input.entropy', seed: BigInt.asUintN(64, entropySeed) });
    machine.boot({ bytes: image, digest: sha256Hex(image), commandLine });
    return new LiveSession(machine, { machine: config, sliceInstructions }, options);
  }

  /** Goes on from a snapshot. @throws InputError when this vmtape does not carry all of its state. */
  static resume(snapshot: Snapshot, options: HostOptions, sink: EventSink): LiveSession {
    const session = sessionConfig(snapshot.description);
    const machine = new Machine(session.machine, sink);
    enterSnapshot(machine, snapshot);
    return new LiveSession(machine, session, options);
  }

  /** Goes on with a machine that stands between two steps. */
  static adopt(machine: Machine, session: SessionConfig, options: HostOptions): LiveSession {
    return new LiveSession(machine, session, options);
  }

  /** Queues bytes for the serial port. */
  feed(data: Uint8Array): void {
    this.queue = joined(this.queue, data);
  }

  /** Queues bytes for the virtio console. */
  feedConsole(data: Uint8Array): void {
    this.consoleQueue = joined(this.consoleQueue, data);
  }

  /** No more bytes will come: a machine that waits for one ends. */
  endInput(): void {
    this.inputEnds = true;
  }

  /** What chaos has done. */
  get perturbations(): readonly Perturbation[] {
    return this.chaos?.done ?? [];
  }

  /** Bytes that wait for room in the receiver. */
  get queuedInput(): Uint8Array {
    return this.queue;
  }

  /** Runs to the end of the slice, or to `limit` instructions in all. */
  step(limit: number = Number.POSITIVE_INFINITY): SessionStatus {
    const { machine } = this;
    if (machine.state.ended !== null) return 'ended';
    this.deliverScheduled();
    if (machine.retired > 0 && machine.retired % this.session.sliceInstructions === 0) this.deliverInput();
    this.chaos?.perturb();
    const target = Math.min(
      limit,
      sliceEnd(this.session, machine.retired),
      this.scheduled[0]?.instruction ?? Number.POSITIVE_INFINITY,
      this.chaos?.nextStop ?? Number.POSITIVE_INFINITY,
    );
    const stop = this.advance(target);
    if (stop === 'ended') return 'ended';
    if (stop === 'limit') return target === limit ? 'limit' : 'running';
    if (stop === 'waiting') return 'running';
    if (this.deliverInput()) return 'running';
    if (!this.inputEnds) return 'waiting';
    machine.endIdle();
    return 'ended';
  }

  /** Where the sampler looks shows in no event: a run goes on there. */
  private advance(target: number): AdvanceStop {
    const { machine, sampler } = this;
    while (sampler !== undefined && sampler.next < target) {
      const stop = machine.run(instructionCount(Math.max(sampler.next, machine.retired)));
      if (stop !== 'limit') {
        machine.flushRun();
        return stop;
      }
      sampler.take(machine);
    }
    return machine.advance(instructionCount(target));
  }

  private deliverScheduled(): void {
    const { machine } = this;
    for (;;) {
      const [next, ...later] = this.scheduled;
      if (next === undefined || next.instruction > machine.retired) return;
      machine.deliver(next.input);
      this.scheduled = later;
    }
  }

  /** @returns whether any byte was delivered. */
  private deliverInput(): boolean {
    const room = this.machine.inputRoom;
    const serial = this.queue.subarray(0, Math.max(0, room.serial)).slice();
    const console = this.consoleQueue.subarray(0, room.console).slice();
    this.queue = this.queue.subarray(serial.length);
    this.consoleQueue = this.consoleQueue.subarray(console.length);
    if (serial.length > 0) this.machine.deliver({ type: 'input.serial', data: serial });
    if (console.length > 0) this.machine.deliver({ type: 'input.console', data: console });
    return serial.length + console.length > 0;
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

export const sha256Hex = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex');

/**
 * Wires memory, vCPU, SVM and devices: the machine's loop, and everything that states an event.
 *
 * `advance` runs until a limit, the end or the lack of anything to wait for; `deliver` takes inputs. Each event is
 * applied by the reducer and then handed to the sink. The machine never reads the host's clock, randomness or
 * environment: a session is a function of configuration, boot image and inputs (laws 1 and 2).
 */
import { bootMultiboot } from './boot/multiboot.js';
import { checkConfig, type MachineConfig } from './config.js';
import type { CpuProfile } from './cpu/cpuid.js';
import { Processor } from './cpu/processor.js';
import type { ExecutionWatcher, ProcessorHost, Tier } from './cpu/processor-host.js';
import { cpuProfile } from './cpu/profiles.js';
import {
  type CpuSignal,
  cpuInterruptPending,
  type Decision,
  type DeviceEvent,
  decideAcknowledge,
  decideCR8Write,
  decideDeadline,
  decideInit,
  decideMmioRead,
  decideMmioWrite,
  decideMsrWrite,
  decidePortRead,
  decidePortWrite,
  decideSerialInput,
  decideTscMoved,
  nextDeadline,
  nmiRouted,
  readCR8,
  readMsr,
  serialRoom,
  settle,
} from './devices/devices.js';
import { invariant } from './errors.js';
import type { EndReason, EventSink, Level, MachineEvent } from './events.js';
import { INSTRUCTIONS } from './isa/instructions.js';
import {
  Boundary,
  DELTA_ENTRY_BYTES,
  encodeDelta,
  R,
  type RegisterDelta,
  SLOT_COUNT,
  type Slot,
  SvmMode,
} from './layout/cpu-state.js';
import type { VmcbWords } from './layout/vmcb.js';
import { PhysicalMemory } from './mmu/memory.js';
import { pagingFeatures } from './mmu/page-walk.js';
import { entropyValue, initialState, type MachineState, reduce } from './reduce.js';
import { type InstructionCount, instructionCount, type Nanoseconds, nanoseconds, type SPA, u64 } from './units.js';
import { Engine } from './wasm/engine.js';

/** Why `advance` came back. */
export type AdvanceStop =
  /** The limit is reached, exactly. */
  | 'limit'
  /** The session is over; `state.ended` says how. */
  | 'ended'
  /** Every vCPU waits, and time has passed from deadline to deadline for a while: call again, or give up. */
  | 'waiting'
  /** Every vCPU waits and no device will ever wake one: only an input can. */
  | 'idle';

export interface BootImage {
  readonly bytes: Uint8Array;
  /** Content digest, as the tape names the image. */
  readonly digest: string;
  readonly commandLine: string;
}

/** What the machine takes from outside; each is on the tape before the machine sees it. */
export type MachineInput =
  | { readonly type: 'input.serial'; readonly data: Uint8Array }
  | { readonly type: 'input.clock'; readonly unixSeconds: number }
  | { readonly type: 'input.entropy'; readonly seed: bigint };

const NEVER = Number.POSITIVE_INFINITY;
/** How often `advance` lets time pass while nothing runs before it returns, so that its caller can stop. */
const MOST_SKIPS = 1000;

export class Machine implements ProcessorHost {
  readonly memory: PhysicalMemory;
  readonly state: MachineState;
  readonly profile: CpuProfile;
  readonly engine: Engine;
  private readonly processor: Processor;
  private instructions = 0;
  /** Instructions retired since the last event. */
  private unstated = 0;
  /** Until which no device acts by itself; undefined when an event may have changed that. */
  private deadline: number | undefined;
  /** A device has asked for the end: it comes once the instruction that did so is complete. */
  private ending: Decision['end'] = null;

  /** @param tier 'evaluator' leaves nothing to the engine: slow, and the same events. @throws InputError */
  constructor(
    readonly config: MachineConfig,
    private readonly sink: EventSink,
    private readonly tier: Tier = 'engine',
  ) {
    checkConfig(config);
    const profile = cpuProfile(config.cpu);
    invariant(profile !== undefined, 'checkConfig let an unknown CPU profile pass');
    this.profile = profile;
    this.memory = new PhysicalMemory(config.ramBytes);
    this.engine = new Engine(this.memory, INSTRUCTIONS, { instructions: profile.features, ...pagingFeatures(profile) });
    const initial = initialState(config);
    this.state = { ...initial, vcpus: [{ registers: this.engine.registers, msrs: {} }] };
    for (let slot = 0; slot < SLOT_COUNT; slot++) {
      this.engine.registers[slot as Slot] = initial.vcpus[0]?.registers[slot as Slot] as bigint;
      this.engine.syncShadow(slot as Slot);
    }
    this.processor = new Processor(this);
  }

  /** Instructions retired so far. */
  get retired(): InstructionCount {
    return instructionCount(this.instructions);
  }

  /** Virtual time. */
  get now(): Nanoseconds {
    return nanoseconds(this.instructions * this.config.nanosecondsPerInstruction + this.state.skippedNanoseconds);
  }

  /** The level that runs. */
  get level(): Level {
    return ((this.registers[R.svmMode] as bigint) & SvmMode.GUEST) !== 0n ? 2 : 1;
  }

  get registers() {
    return this.engine.registers;
  }

  /** Tells a watcher of what the engine does not execute, or, on the evaluator, of everything. */
  watch(watcher: ExecutionWatcher): void {
    this.processor.watcher = watcher;
  }

  // Inputs

  /** Loads the image and sets the registers that the boot protocol prescribes. @throws InputError */
  boot(image: BootImage): void {
    const entry = bootMultiboot(this.memory, image.bytes, image.commandLine);
    this.state1({
      type: 'input.boot',
      imageDigest: image.digest,
      commandLine: image.commandLine,
      registers: encodeDelta(entry),
    });
  }

  deliver(input: MachineInput): void {
    this.flushRun();
    this.state1(input);
    if (input.type === 'input.serial') this.apply(decideSerialInput(this.state.devices, [...input.data]));
  }

  /** Bytes that `input.serial` may bring without overrunning the receiver. */
  get serialRoom(): number {
    return serialRoom(this.state.devices);
  }

  /** Ends a session that waits for an input which will never come. */
  endIdle(): void {
    this.end('halted-forever', 0);
  }

  // The loop

  /** Runs until `limit` instructions have retired in all, the end, or idleness. A pending run is stated before it returns. */
  advance(limit: InstructionCount): AdvanceStop {
    const stop = this.loop(limit);
    this.flushRun();
    return stop;
  }

  private loop(limit: InstructionCount): AdvanceStop {
    let skips = 0;
    for (;;) {
      const deadline = this.runDeadlines();
      if (this.ending !== null) this.end(this.ending.reason, this.ending.status);
      if (this.state.ended !== null) return 'ended';
      if (this.processor.takeDueEvent()) continue;
      if (this.instructions >= limit) return 'limit';
      if (!this.processor.isRunning) {
        if (deadline === NEVER || (this.processor.isDeaf && !nmiRouted(this.state.devices))) return 'idle';
        if (skips === MOST_SKIPS) return 'waiting';
        skips++;
        this.skipTo(deadline);
        continue;
      }
      skips = 0;
      this.runUntil(Math.min(limit, this.instructionAt(deadline)));
    }
  }

  /** Lets devices act whose time has come. @returns the next deadline. */
  private runDeadlines(): number {
    while (this.state.ended === null && this.ending === null) {
      this.deadline ??= nextDeadline(this.state.devices) ?? NEVER;
      if (this.deadline > this.now) return this.deadline;
      this.flushRun();
      this.apply(decideDeadline(this.state.devices, this.now));
    }
    return NEVER;
  }

  /** The first instruction count at which virtual time has reached `deadline`. */
  private instructionAt(deadline: number): number {
    if (deadline === NEVER) return NEVER;
    const { nanosecondsPerInstruction } = this.config;
    return Math.ceil((deadline - this.state.skippedNanoseconds) / nanosecondsPerInstruction);
  }

  private skipTo(deadline: number): void {
    this.flushRun();
    this.state1({ type: 'time.skipped', nanoseconds: deadline - this.now });
  }

  private runUntil(target: number): void {
    if (this.processor.mustStep || this.tier === 'evaluator') {
      this.processor.step(undefined);
      return;
    }
    const { stop, retired } = this.engine.run(target - this.instructions);
    this.instructions += retired;
    this.unstated += retired;
    if (stop === 'assist') this.processor.step(this.engine.assisted());
  }

  // Events

  /** States what ran since the last event. */
  flushRun(): void {
    const registers = this.engine.takeDelta();
    if (this.unstated === 0 && registers.length === 0) return;
    const retired = this.unstated;
    this.unstated = 0;
    // The engine was the reducer of this one: its registers are the machine's.
    this.sink({ retired, vcpu: 0, level: this.level, event: { type: 'cpu.ran', registers } });
  }

  /** Applies and states an event that stands between runs. */
  stateEvent(event: MachineEvent, retired: 0 | 1): void {
    this.flushRun();
    this.state1(event, retired);
  }

  private state1(event: MachineEvent, retired: 0 | 1 = 0): void {
    const { level } = this;
    reduce(this.state, event, 0);
    // An event of registers is none of a device's.
    if (!('registers' in event)) this.deadline = undefined;
    this.instructions += retired;
    if ('registers' in event) this.registersChanged(event.registers);
    this.sink({ retired, vcpu: 0, level, event });
  }

  private registersChanged(delta: RegisterDelta): void {
    for (let at = 0; at < delta.length; at += DELTA_ENTRY_BYTES) this.engine.syncShadow(delta[at] as Slot);
    if (delta.length > 0) this.engine.stateChanged();
  }

  /** A plain instruction was evaluated: it belongs to the run. */
  countPlain(): void {
    this.instructions++;
    this.unstated++;
  }

  /** Applies a device decision: events, signals, the end; then lets interrupt lines settle. */
  private apply(decision: Decision): void {
    let left = decision;
    for (;;) {
      if (left.events.length === 0 && left.signals.length === 0) break;
      this.flushRun();
      for (const event of left.events) this.state1(event satisfies DeviceEvent);
      for (const signal of left.signals) this.signal(signal);
      this.ending ??= left.end;
      left = settle(this.state.devices, this.now);
    }
  }

  private signal({ kind }: CpuSignal): void {
    const bits = { nmi: Boundary.NMI_PENDING, smi: Boundary.SMI_PENDING, init: Boundary.INIT_PENDING };
    if (kind === 'sipi') return; // The one vCPU runs; a start-up interrupt is ignored (APM vol.2 §16.5).
    const boundary = (this.registers[R.boundary] as bigint) | bits[kind];
    this.state1({ type: 'cpu.pended', what: kind, registers: encodeDelta([[R.boundary, boundary]]) });
  }

  end(reason: EndReason, status: number): void {
    if (this.state.ended !== null) return;
    this.flushRun();
    this.state1({ type: 'machine.ended', reason, status });
  }

  // What the processor asks for

  get externalPending(): boolean {
    return cpuInterruptPending(this.state.devices, 0) !== undefined;
  }

  acknowledge(): number {
    const { vector, events } = decideAcknowledge(this.state.devices, 0);
    this.apply({ events, signals: [], end: null });
    return vector;
  }

  resetDevicesOfVcpu(): void {
    this.apply(decideInit(this.state.devices, 0));
  }

  readDevice(address: SPA, size: number): bigint {
    if (size > 4) return this.readDevice(address, 4) | (this.readDevice((address + 4) as SPA, size - 4) << 32n);
    const read = decideMmioRead(this.state.devices, 0, address, size, this.now);
    if (read === undefined) {
      const value = (1n << BigInt(8 * size)) - 1n;
      this.stateEvent({ type: 'bus.unclaimed', space: 'memory', address, size, write: false, value }, 0);
      return value;
    }
    this.apply({ events: read.events, signals: [], end: null });
    return BigInt(read.value);
  }

  writeDevice(address: SPA, size: number, value: bigint): void {
    if (size > 4) {
      this.writeDevice(address, 4, value & 0xffff_ffffn);
      this.writeDevice((address + 4) as SPA, size - 4, value >> 32n);
      return;
    }
    const decision = decideMmioWrite(this.state.devices, 0, address, Number(value), size, this.now);
    if (decision === undefined) {
      this.stateEvent({ type: 'bus.unclaimed', space: 'memory', address, size, write: true, value }, 0);
    } else this.apply(decision);
  }

  readPort(port: number, size: number): bigint {
    const read = decidePortRead(this.state.devices, port, size, this.now);
    if (read === undefined) {
      const value = (1n << BigInt(8 * size)) - 1n;
      this.stateEvent({ type: 'bus.unclaimed', space: 'port', address: port, size, write: false, value }, 0);
      return value;
    }
    this.apply({ events: read.events, signals: [], end: null });
    return BigInt(read.value);
  }

  writePort(port: number, size: number, value: bigint): void {
    const decision = decidePortWrite(this.state.devices, port, Number(value), size, this.now);
    if (decision === undefined) {
      this.stateEvent({ type: 'bus.unclaimed', space: 'port', address: port, size, write: true, value }, 0);
    } else this.apply(decision);
  }

  readDeviceMsr(msr: number): bigint | 'fault' | undefined {
    return readMsr(this.state.devices, 0, msr, this.now);
  }

  /** @returns false for #GP, undefined when no device has the MSR. */
  writeDeviceMsr(msr: number, value: bigint): boolean | undefined {
    const decision = decideMsrWrite(this.state.devices, 0, msr, value, this.now, {
      tscOffset: this.registers[R.tscBase] as bigint,
      physicalAddressBits: this.profile.physicalAddressBits,
    });
    if (decision === undefined) return undefined;
    if (decision === 'fault') return false;
    this.apply(decision);
    return true;
  }

  readTaskPriority(): bigint {
    return BigInt(readCR8(this.state.devices, 0));
  }

  writeTaskPriority(value: bigint): void {
    this.apply(decideCR8Write(this.state.devices, 0, Number(value)));
  }

  /** TSC = virtual nanoseconds + tscBase. */
  readTsc(): bigint {
    return u64(BigInt(this.now) + (this.registers[R.tscBase] as bigint));
  }

  tscMoved(base: bigint): void {
    this.apply(decideTscMoved(this.state.devices, 0, base, this.now));
  }

  storedMsr(msr: number): bigint {
    return this.state.vcpus[0]?.msrs[msr] ?? 0n;
  }

  drawEntropy(): bigint {
    const value = entropyValue(this.state.entropy);
    this.stateEvent({ type: 'entropy.drawn', value }, 0);
    return value;
  }

  knownWords(vmcb: number): VmcbWords | undefined {
    return this.state.vmcbs[vmcb];
  }
}

/**
 * A processor without the machine around it: memory, engine and control plane, to execute single instructions from any
 * state. For checking the instruction set against recorded results and the tiers against each other.
 *
 * There are no devices, ports read as ones, time stands still. Events are applied as the machine would; the caller sees
 * the last exception.
 */
import { BASE_PROFILE, type CpuProfile } from './cpu/cpuid.js';
import type { NestedVirtualization } from './cpu/nested-virtualization.js';
import { Processor } from './cpu/processor.js';
import type { ProcessorBus, ProcessorHost, Tier } from './cpu/processor-host.js';
import { invariant } from './errors.js';
import type { MachineEvent } from './events.js';
import type { Feature } from './isa/instruction.js';
import { INSTRUCTIONS } from './isa/instructions.js';
import { decodeDelta, R, type RegisterDelta, type RegisterFile } from './layout/cpu-state.js';
import { PhysicalMemory } from './mmu/memory.js';
import { virtualizationOf } from './svm/nested-svm.js';
import { type Nanoseconds, nanoseconds } from './units.js';
import { Engine } from './wasm/engine.js';

/** More than the longest repetition of a vector. */
const RUN_INSTRUCTIONS = 100_000;

export interface RaisedException {
  readonly vector: number;
  readonly errorCode: number | null;
}

export class Workbench implements ProcessorHost {
  readonly memory: PhysicalMemory;
  readonly engine: Engine;
  readonly profile: CpuProfile;
  readonly nested: NestedVirtualization;
  readonly now: Nanoseconds = nanoseconds(0);
  readonly resetAt = 0;
  readonly externalPending = false;
  readonly ferr = false;
  readonly ignne = false;
  readonly paravirt = undefined;
  readonly interruptsHeld = false;
  readonly takesLanes = false;
  readonly vcpu = 0;
  readonly processors = 1;
  /** The exception that the last step delivered. */
  exception: RaisedException | undefined;
  /** True when the last step ended in shutdown. */
  isShutDown = false;
  private readonly processor: Processor;

  /** @param features instruction sets beyond those of the base profile. */
  constructor(ramBytes: number, features: Iterable<Feature>) {
    this.profile = { ...BASE_PROFILE, features: new Set([...BASE_PROFILE.features, ...features]) };
    this.nested = virtualizationOf(this.profile);
    this.memory = new PhysicalMemory(ramBytes);
    this.engine = new Engine(this.memory, INSTRUCTIONS, {
      instructions: this.profile.features,
      physicalAddressBits: this.profile.physicalAddressBits,
      gigabytePages: this.profile.system.has('page1gb'),
      latchesInterruptMasks: false,
    });
    this.processor = new Processor(this);
  }

  get registers(): RegisterFile {
    return this.engine.registers;
  }

  /** After registers were written directly. */
  stateChanged(): void {
    this.engine.stateChanged();
    this.exception = undefined;
    this.isShutDown = false;
  }

  /** Executes the instruction at RIP, or one iteration of a repeated one, or delivers its exception. */
  step(tier: Tier): void {
    this.exception = undefined;
    if (tier === 'evaluator') {
      this.processor.step(undefined);
      return;
    }
    const { stop, retired } = this.engine.run(1);
    invariant(
      retired === (stop === 'budget' ? 1 : 0),
      'the engine runs one instruction, or none when it asks for help',
    );
    if (stop === 'assist') this.processor.step(this.engine.assisted(), this.engine.fault);
  }

  /** As `step` on the engine, but amid a run that goes on to the first instruction that the engine leaves alone. */
  runOn(): void {
    this.exception = undefined;
    const { stop, retired } = this.engine.run(RUN_INSTRUCTIONS);
    if (stop === 'assist' && retired === 0) this.processor.step(this.engine.assisted(), this.engine.fault);
  }

  /** False when the bytes are an encoding that no instruction has. */
  isDescribed(bytes: Uint8Array): boolean {
    return this.engine.decoder.decode(bytes, { bits: 64, real: false }) !== 'invalid';
  }

  // ProcessorHost

  stateEvent(event: MachineEvent, _retired: 0 | 1 = 0): void {
    if ('registers' in event) {
      for (const [slot, value] of decodeDelta(event.registers)) {
        this.registers[slot] = value;
        this.engine.syncShadow(slot);
      }
      this.engine.stateChanged();
    }
    if (event.type === 'cpu.exception') this.exception = { vector: event.vector, errorCode: event.errorCode };
    if (event.type === 'cpu.shutdown') this.isShutDown = true;
  }
  stateRegisters(event: MachineEvent, _: RegisterDelta, retired: 0 | 1): void {
    this.stateEvent(event, retired);
  }
  stateDirect(event: MachineEvent, retired: 0 | 1): void {
    this.stateEvent(event, retired);
  }
  flushRun(): void {}
  countPlain(): void {}
  stalls(): void {}
  shutDown(): void {
    this.isShutDown = true;
  }
  acknowledge(): number {
    return 0;
  }
  driveFerr(): void {}
  resetDevicesOfVcpu(): void {}
  atResetVector(): void {}
  ringDoorbell(): void {}
  /** Nobody answers. */
  readonly bus: ProcessorBus = {
    read: (_, size) => (1n << BigInt(8 * size)) - 1n,
    write: () => {},
    readPort: (_, size) => (1n << BigInt(8 * size)) - 1n,
    writePort: () => {},
    readMsr: () => undefined,
    writeMsr: () => undefined,
    readTaskPriority: () => 0n,
    writeTaskPriority: () => {},
  };
  readTsc(): bigint {
    return this.registers[R.tscBase] as bigint;
  }
  tscMoved(): void {}
  storedMsr(): bigint {
    return 0n;
  }
  drawEntropy(): bigint {
    return 0n;
  }
  knownWords(): undefined {
    return undefined;
  }
}

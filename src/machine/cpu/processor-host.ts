/** What the processor needs of the machine around it: the machine itself, or a workbench. */
import type { DecodedInstruction } from '../decode/decoded.js';
import type { Level, MachineEvent, RegisterEvent } from '../events.js';
import type { RegisterDelta, RegisterFile } from '../layout/cpu-state.js';
import type { VmcbWords } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { Paravirt } from '../paravirt/interface.js';
import type { Nanoseconds, SPA } from '../units.js';
import type { Engine } from '../wasm/engine.js';
import type { CpuProfile } from './cpuid.js';
import type { NestedVirtualization, VmcbShadow } from './nested-virtualization.js';

/** Which implementation executes: the reference over bigints, or the engine with what it leaves to the reference. */
export type Tier = 'evaluator' | 'engine';

/** Told of each instruction that the evaluator or the control plane executes: what a test has covered. */
export interface ExecutionWatcher {
  /** It was fetched and decoded, and no intercept came first. */
  begins(insn: DecodedInstruction): void;
  /** It is about to retire: nothing can stop it any more. */
  completes(insn: DecodedInstruction): void;
  /** It has retired as part of a run, and its effects are there. What is no part of a run retires with its event. */
  retired?(insn: DecodedInstruction): void;
}

/** How a processor reaches devices, side effects included. */
export interface ProcessorBus {
  read(address: SPA, size: number): bigint;
  write(address: SPA, size: number, value: bigint): void;
  readPort(port: number, size: number): bigint;
  writePort(port: number, size: number, value: bigint): void;
  readMsr(msr: number): bigint | 'fault' | undefined;
  /** @returns false for #GP, undefined when no device has the MSR. */
  writeMsr(msr: number, value: bigint): boolean | undefined;
  readTaskPriority(): bigint;
  writeTaskPriority(value: bigint): void;
}

export interface ProcessorHost extends VmcbShadow {
  readonly bus: ProcessorBus;
  readonly memory: PhysicalMemory;
  readonly engine: Engine;
  readonly profile: CpuProfile;
  readonly nested: NestedVirtualization;
  readonly registers: RegisterFile;
  readonly now: Nanoseconds;
  /** Virtual time of the last RESET. */
  readonly resetAt: number;
  readonly externalPending: boolean;
  /** The wires of the coprocessor: what the processor drives, and what it receives. Only the bootstrap processor has them. */
  readonly ferr: boolean;
  readonly ignne: boolean;
  readonly paravirt: Paravirt | undefined;
  /** Whether usual ways may be shortened (docs/adr/0044, 0049): nobody watches each step. */
  readonly takesLanes: boolean;
  /** Chaos delays interrupts and NMIs of this vCPU. */
  readonly interruptsHeld: boolean;
  /** The vCPU whose registers these are, and how many there are. */
  readonly vcpu: number;
  readonly processors: number;
  stateEvent(event: MachineEvent, retired: 0 | 1): void;
  /** As `stateEvent`. @param registers those of the event. */
  stateRegisters(event: RegisterEvent, registers: RegisterDelta, retired: 0 | 1): void;
  /** As `stateEvent`, of an event whose registers `engine.directRegisters` has written. @param level that of the vCPU before it. */
  stateDirect(event: RegisterEvent, retired: 0 | 1, level: Level): void;
  /** States what ran since the last event. */
  flushRun(): void;
  countPlain(): void;
  /** The vCPU hangs: it will do the same for ever, and no time passes on it. */
  stalls(): void;
  /** The vCPU has shut down, or its host has. */
  shutDown(): void;
  /** Acknowledges the pending external interrupt. @returns its vector. */
  acknowledge(): number;
  driveFerr(asserted: boolean): void;
  resetDevicesOfVcpu(): void;
  /** The bootstrap processor, initialised, is about to fetch its first instruction (APM vol.2 §14.1.5). */
  atResetVector(): void;
  /** AVIC's signal to the processor with a physical APIC ID, if there is one. */
  ringDoorbell(apicId: number): void;
  readTsc(): bigint;
  tscMoved(base: bigint): void;
  drawEntropy(): bigint;
  storedMsr(msr: number): bigint;
  knownWords(vmcb: number): VmcbWords | undefined;
}

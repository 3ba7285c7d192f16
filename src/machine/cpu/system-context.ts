/**
 * What a control-plane instruction sees of the machine: its transaction, its operands, the intercept table of a running
 * guest, and the few services that are not registers or memory. Nothing it does is visible before the machine commits.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import type { GuestFault } from '../faults.js';
import type { InstructionSpec, Ops, Semantics, SystemInstruction } from '../isa/instruction.js';
import type { Paravirt } from '../paravirt/interface.js';
import type { InterceptName, InterceptStage } from '../svm/intercepts.js';
import type { PortAccess } from '../svm/permission-maps.js';
import type { Nanoseconds } from '../units.js';
import type { CpuidLeaf, CpuProfile } from './cpuid.js';
import type { NestedVirtualization, SwitchContext } from './nested-virtualization.js';

export interface SystemContext extends SwitchContext {
  readonly insn: DecodedInstruction;
  /** The evaluator, for operands and flags of this instruction. */
  readonly ops: Ops<bigint, boolean, bigint>;
  readonly profile: CpuProfile;
  /** Virtual time at this instruction. */
  readonly now: Nanoseconds;
  /** The vCPU's index; its initial APIC id. */
  readonly vcpu: number;
  readonly nested: NestedVirtualization;
  /** What L0 offers beyond hardware; undefined when that is nothing. */
  readonly paravirt?: Paravirt | undefined;
  cpuidLeaf(leaf: number, subleaf: number): CpuidLeaf;

  /**
   * Exits to L1 when a guest runs and `name` is intercepted at this stage; otherwise does nothing. Descriptions call it
   * where the table `svm/intercepts.ts` says that the check stands, and with `stage` wherever a deviation moves it to.
   * @throws VmExit
   */
  intercept(
    name: InterceptName,
    info?: { readonly info1?: bigint; readonly info2?: bigint },
    stage?: InterceptStage,
  ): void;
  /** As `intercept`, without the cost of an exception. @returns true when it exits: the description has nothing more to do then. */
  exits(
    name: InterceptName,
    info?: { readonly info1?: bigint; readonly info2?: bigint },
    stage?: InterceptStage,
  ): boolean;
  /** The exit of a write trap follows when the instruction is complete. @param value what was written. */
  writeTrap(name: InterceptName, value: bigint): void;
  /** As `exits('MSR_PROT')`, by the MSR permission map. */
  exitsByMsr(msr: number, write: boolean): boolean;
  /**
   * sPA of a page that a guest names by its guest-physical address, for an access of its processor.
   * @throws NestedPageFault
   */
  nestedAddress(gPA: number, write: boolean): number;
  /** As `exits('IOIO_PROT')`, by the I/O permission map. */
  exitsByPort(access: PortAccess): boolean;

  /** The instruction is plain: its effect belongs to the run it stands in. */
  plain(): void;
  /** The program spins: other vCPUs may run first. */
  pause(): void;
  /** The program wants nothing for so many nanoseconds. @param masked whether an interrupt ends that which IF holds back. */
  nap(nanoseconds: bigint, masked: boolean): void;
  /** The instruction stands, and `fault` is delivered after it: in the task that it switched to. */
  faultAfter(fault: GuestFault): void;

  /** Ports, devices' side effects included; `size` 1, 2 or 4. */
  readPort(port: number, size: number): bigint;
  writePort(port: number, size: number, value: bigint): void;
  /** Local APIC registers as x2APIC MSRs (800h..8ffh) and CR8; undefined when there is none at that number. */
  readApicRegister(register: number): bigint | undefined;
  writeApicRegister(register: number, value: bigint): boolean;
  readApicBase(): bigint;
  /** @returns false when the transition is illegal (#GP). */
  writeApicBase(value: bigint): boolean;
  /** Task priority as CR8 sees it, 0..15. */
  readTaskPriority(): bigint;
  writeTaskPriority(value: bigint): void;
  /** AVIC's signal to the processor with a physical APIC ID, if there is one. */
  ringDoorbell(apicId: number): void;
  /** What was written to an MSR that only stores (`stored-msrs.ts`). */
  storedMsr(msr: number): bigint;
  /** The next value of the machine's random numbers. */
  drawEntropy(): bigint;
  /** Time-stamp counter at this instruction, before any guest offset. */
  /** Virtual time of the last RESET, where the time-stamp counter began at zero. */
  readonly resetTime: bigint;
  readTsc(): bigint;
  writeTsc(value: bigint): void;
  /** The local APIC timer's deadline; zero while it is disarmed. */
  readTscDeadline(): bigint;
  writeTscDeadline(value: bigint): void;
}

/** A control-plane instruction, with its context by name. */
export interface SystemDescription extends InstructionSpec {
  readonly interceptedFirst?: InterceptName;
  readonly semantics?: Semantics;
  system(context: SystemContext): void;
}

/** Declares a control-plane instruction. */
export const systemInstruction = (description: SystemDescription): SystemInstruction => description;

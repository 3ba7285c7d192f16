/**
 * The virtualization extension as the rest of the processor sees it: the operations of Xen's nested-HVM design (its names
 * in brackets), of which the processor's own half is generic and `svm/nested-svm.ts` the one of SVM. This machine is
 * processor and L0 at once, so it has no control block of its own for L1: the one that L1 wrote is interpreted as hardware
 * does (docs/nested-virtualization.md).
 */
import type { MachineEvent, RegisterEvent, VmcbDelta } from '../events.js';
import type { HalvesWriter, LowReader, Slot } from '../layout/cpu-state.js';
import type { VmcbWords } from '../layout/vmcb.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import type { TlbFlush } from '../mmu/tlb.js';
import type { InterceptName } from '../svm/intercepts.js';
import type { PortAccess } from '../svm/permission-maps.js';
import type { RegisterImage } from '../svm/register-image.js';
import type { VmExit } from '../svm/vmexit-request.js';
import type { CpuidLeaf } from './cpuid.js';
import type { SlotReader } from './mode.js';
import type { Transaction } from './transaction.js';

/** The machine's copies of the VMCBs that the processor has touched, each as it was when it last did. */
export interface VmcbShadow {
  /** @param vmcb its sPA. @returns undefined when the processor never saw it. Not to be changed: reducers do that. */
  knownWords(vmcb: number): VmcbWords | undefined;
}

/** Registers written at once, for an event that is stated next. */
export interface DirectWriter extends HalvesWriter {
  /** Nothing else may be built in the slab from here on. */
  begin(): void;
}

/** What a world switch sees of the processor. */
export interface SwitchContext {
  readonly tx: Transaction;
  readonly vmcbShadow: VmcbShadow;
  /** Where registers are written: the transaction, or their places at once. Asked for when nothing can fail any more. */
  target(): HalvesWriter;
  /** The instruction is a transition with an event of its own; without a call it is `cpu.system`. @param event without registers. */
  outcome(event: RegisterEvent): void;
  /** States an event that stands before the outcome, at once (an input was drawn, an MSR is unknown). */
  state(event: MachineEvent): void;
  flushTlb(flush: TlbFlush): void;
}

export type RegisterValues = readonly (readonly [slot: Slot, value: bigint])[];

/** What can wait at an instruction boundary for the extension to let it pass. */
export type BlockableEvent = 'smi' | 'init' | 'nmi' | 'intr';

/** Why an event waits. */
export type InterruptBlock =
  /** The global interrupt flag is clear. */
  | 'gif'
  /** System-management mode holds it. */
  | 'smm'
  /** The shadow of STI, MOV SS or VMRUN. */
  | 'shadow'
  /** An NMI is being handled. */
  | 'nmi'
  /** RFLAGS.IF is clear. */
  | 'if'
  /** V_INTR_MASKING, and the host had its IF clear. */
  | 'host-if';

/** Accesses that the control block's bit alone does not decide: a map has the last word. */
export type MappedAccess =
  | { readonly kind: 'msr'; readonly msr: number; readonly write: boolean }
  | { readonly kind: 'port'; readonly access: PortAccess; readonly nextRip: bigint };

/** The control block that a VMRUN works with, read once: what software changes meanwhile is not seen. */
export interface GuestBlock {
  /** As 32-bit words, from index `at` on: RAM itself, or what the processor had cached. */
  readonly words: Uint32Array;
  readonly at: number;
  readonly asid: number;
  /** How the machine's copy of the block changes. */
  readonly changes: VmcbDelta;
  /** A consistency check fails: there will be no guest. */
  readonly refused: boolean;
}

/** What of the exit the caller knows and the request does not. */
export interface VmexitSite {
  readonly vmcbShadow: VmcbShadow;
  /** RIP behind the intercepted instruction, or zero where none is to be reported. */
  readonly nextRip: bigint;
  /** What could be fetched at CS:RIP, at most 15 bytes; looked at when the request wants it. */
  readonly bytes: Uint8Array | undefined;
}

/** The exit as the event tells it, but for the registers: those the transaction knows when it is complete. */
export interface VmexitOutcome {
  readonly vmcb: number;
  readonly code: bigint;
  readonly info1: bigint;
  readonly info2: bigint;
  readonly intInfo: bigint;
  readonly words: VmcbDelta;
  /** The reloaded host state is illegal: the vCPU shuts down, `activity` says so. */
  readonly hostShutdown: boolean;
}

export interface NestedVirtualization {
  /** Registers of the extension after RESET [vcpu_initialise, vcpu_reset]. */
  initialise(): RegisterValues;
  /** What is to be forgotten of a guest that ends without #VMEXIT, by INIT [vcpu_destroy]. */
  destroy(): RegisterValues;
  /** CPUID Fn8000_000A: what the extension offers to L1 [vcpu_features]. */
  features(): CpuidLeaf;

  /** Keeps the host's state behind the guest [hostsave]. */
  hostSave(image: RegisterImage): void;
  /** Brings the host's state back [hostrestore]. @returns false when it is illegal, and the host cannot go on. */
  hostRestore(image: RegisterImage, memory: PhysicalMemory): boolean;
  /** The state that the world switch leaves alone [vmload]. @param vmcb sPA of a page in RAM. */
  vmload(context: SwitchContext, vmcb: number): void;
  /** [vmsave] */
  vmsave(context: SwitchContext, vmcb: number): void;

  /** Reads and checks the guest's control block [prepare4vmrun]. @param vmcb sPA of a page in RAM, aligned. */
  prepareForVmrun(context: SwitchContext, vmcb: number): GuestBlock;
  /** VMRUN past its exceptions and its intercept: check, save, load, inject [vmrun]. @param block as it was prepared, when it was. */
  vmrun(context: SwitchContext, vmcb: number, block?: GuestBlock): void;
  /** Writes the reason and the guest's state into its block [prepare4vmexit]. @returns how the machine's copy changes. */
  prepareForVmexit(image: RegisterImage, tx: Transaction, exit: VmExit, site: VmexitSite): VmcbDelta;
  /**
   * The world switch to the host [vmexit].
   * @param tx holds the guest's state as the exit shall report it: of an intercepted instruction nothing (abort first), of
   * an interrupted delivery `exitIntInfo`. The host's state is in it afterwards, and the block's writes.
   * @param direct gets the host's state instead, when the transaction holds no register.
   */
  vmexit(tx: Transaction, exit: VmExit, site: VmexitSite, direct?: DirectWriter): VmexitOutcome;

  /** Whether a guest runs and its control block asks for the intercept [vmcx_guest_intercepts_event, check_intercepts]. */
  isIntercepted(low: LowReader, name: InterceptName): boolean;
  /** The exit of an access that a map decides on, or undefined [special intercepts]. */
  specialIntercept(cpu: SlotReader, memory: PhysicalMemory, access: MappedAccess): VmExit | undefined;
  /** Why an event that is pending waits; undefined when it is taken, or exits, now [intr_blocked]. */
  interruptBlocked(cpu: SlotReader, event: BlockableEvent): InterruptBlock | undefined;
  /** The virtual event that the guest's control block holds and that is due now, physical ones aside. */
  virtualEventDue(cpu: SlotReader): 'virtual-nmi' | 'virtual' | undefined;
  /** Matches of breakpoint registers are ignored and discarded now. */
  breakpointsDiscarded(cpu: SlotReader): boolean;
}

/**
 * What the engine leaves: single instructions by the evaluator or the control plane, and events at instruction boundaries.
 * Everything happens on one transaction that is committed or dropped as a whole; how it ends in an event: transitions.ts.
 *
 * What counts as retired: an instruction that completed, each iteration of a repeated string instruction, INT n and
 * VMRUN. Not: an instruction that faulted or was intercepted, the delivery of an event (docs/adr/0005).
 */

import type { DecodedInstruction } from '../decode/decoded.js';
import { invariant } from '../errors.js';
import type { MachineEvent, RegisterEvent } from '../events.js';
import { GuestFault, Vector } from '../faults.js';
import { Evaluator } from '../isa/evaluate.js';
import type { SystemPart } from '../isa/instruction.js';
import { Status } from '../isa/x87-unit.js';
import {
  Activity,
  Boundary,
  CR4,
  EMPTY_DELTA,
  Flag,
  type HalvesWriter,
  R,
  type Slot,
  SvmMode,
} from '../layout/cpu-state.js';
import { IntControl } from '../layout/vmcb.js';
import type { TlbFlush } from '../mmu/tlb.js';
import { isHypervisorLeaf } from '../paravirt/interface.js';
import { missContext } from '../paravirt/miss-context.js';
import { stagesUnder } from '../policy/catalogue.js';
import { acknowledgeVirtualApic, hasVirtualApic } from '../svm/avic.js';
import { ExitCode, exceptionExit } from '../svm/exit-code.js';
import {
  hasVirtualNmis,
  pendingInjection,
  virtualInterruptVector,
  withoutVirtualInterrupt,
  withVirtualNmiTaken,
} from '../svm/injection.js';
import { INTERCEPTS, type InterceptName, type InterceptStage } from '../svm/intercepts.js';
import type { PortAccess } from '../svm/permission-maps.js';
import { NestedPageFault, VmExit } from '../svm/vmexit-request.js';
import { vmrunRules } from '../svm/vmrun-rules.js';
import type { AccessFault } from './access-fault.js';
import { crossesLine, locksMemory } from './bus-lock.js';
import { type CpuidLeaf, cpuidLeaf } from './cpuid.js';
import { DEBUG_CTL, DR7 } from './debug.js';
import { eventOfFault, SoftwareEvent } from './exceptions.js';
import { codeOffset, InstructionFetch } from './instruction-fetch.js';
import { type Due, decideBoundary, eventOfInjection } from './interrupts.js';
import type { MappedAccess } from './nested-virtualization.js';
import { FerrFreeze } from './numeric-error.js';
import type { ExecutionWatcher, ProcessorHost } from './processor-host.js';
import { BOOTSTRAP_VCPU, initRegisters, startupRegisters } from './reset.js';
import { Shutdown } from './shutdown.js';
import { enterSmm, hasHandler } from './smm.js';
import type { SystemContext } from './system-context.js';
import { AbsentPage, Access } from './transaction.js';
import { Transitions } from './transitions.js';
import { mayTrapAfter, trapAfter } from './trap-after.js';

/** Boundary bits that hold for one instruction. */
const TRANSIENT =
  Boundary.INTERRUPT_SHADOW |
  Boundary.DEBUG_SHADOW |
  Boundary.SINGLE_STEP |
  Boundary.BUS_LOCK |
  (0xfn << Boundary.BREAKPOINTS_SHIFT);
const HELD_BREAKPOINTS = 0xfn << Boundary.BREAKPOINTS_SHIFT;
const TRANSIENT_BITS = Number(TRANSIENT);
const BOUNDARY: readonly Slot[] = [R.boundary];
const SHADOWS = Boundary.INTERRUPT_SHADOW | Boundary.DEBUG_SHADOW;
const STEPPING_FLAGS = Number(Flag.TF | Flag.RF);
const DR7_ENABLES = Number(DR7.ENABLES);
const INTERRUPT_FLAG = Number(Flag.IF);
const HOST_IF = Number(SvmMode.HOST_IF);
const V_INTR_MASKING = Number(IntControl.V_INTR_MASKING);
const VIRTUAL_EVENTS = Number(IntControl.V_IRQ | IntControl.V_NMI);
const LBR = Number(DEBUG_CTL.LBR);
const BLCKDB = Number(DEBUG_CTL.BLCKDB);
/** SMISRC: every SMI here comes from a device, between two instructions (APM vol.2 §15.13.3 SMI Intercept). */
const SMI_EXTERNAL = 1n;
const TRANSLATING_FLAGS = Number(Flag.AC | Flag.VM);
const NO_INFO = {};
const X87_SUMMARY = Number(Status.SUMMARY);

export class Processor extends Transitions implements SystemContext {
  readonly ops: Evaluator;
  private readonly instructions: InstructionFetch;
  /** What the instruction says that it is; undefined for `cpu.system`. */
  private ownEvent: RegisterEvent | 'plain' | undefined;
  /** What is to be delivered once the instruction is committed. */
  private pendingFault: GuestFault | undefined;
  /** The exit that takes the instruction's place. */
  private instead: VmExit | undefined;
  /** How long the program that just executed MWAITX wants to wait, and whether a masked interrupt ends that. */
  napping: { readonly nanoseconds: number; readonly masked: boolean } | undefined;
  /** The instruction took a bus lock that traps. */
  private busLocked = false;

  watcher: ExecutionWatcher | undefined;
  private readonly stages: Readonly<Record<InterceptName, InterceptStage>>;
  private readonly decodeAssists: boolean;

  constructor(machine: ProcessorHost) {
    super(machine);
    const { deviations } = machine.profile;
    this.stages = stagesUnder(deviations);
    this.decodeAssists = vmrunRules(machine.profile).decodeAssists;
    this.ops = new Evaluator(this.tx);
    this.instructions = new InstructionFetch(machine.memory, machine.engine.decoder);
  }

  // State

  get isRunning(): boolean {
    return this.word(R.activity) === Number(Activity.RUNNING);
  }

  /** False when no interrupt can be taken whatever is pending: the IF that counts is clear (`physicalInterruptsAllowed`). */
  private get mayTakeInterrupts(): boolean {
    const ownIf = (this.word(R.rflags) & INTERRUPT_FLAG) !== 0;
    if (!this.runsGuest) return ownIf;
    return (this.word(R.intControl) & V_INTR_MASKING) !== 0
      ? (this.word(R.svmMode) & HOST_IF) !== 0 || (this.rules.intrLatched && ownIf)
      : ownIf || this.rules.intrExitsAnyway;
  }

  /** True when the next instruction must go alone: single step, RF, breakpoints, an interrupt shadow, branch recording. */
  get mustStep(): boolean {
    return (
      (this.word(R.rflags) & STEPPING_FLAGS) !== 0 ||
      (this.word(R.boundary) & TRANSIENT_BITS) !== 0 ||
      ((this.word(R.dr7) & DR7_ENABLES) | (this.word(R.debugCtl) & LBR)) !== 0
    );
  }

  // Boundaries

  /** Takes what is due before the next instruction. @returns false when nothing is. */
  takeDueEvent(): boolean {
    const nothing =
      (this.word(R.boundary) | this.word(R.eventInjection)) === 0 &&
      ((this.word(R.intControl) & VIRTUAL_EVENTS) | (this.word(R.dr7) & DR7_ENABLES)) === 0 &&
      !(this.mayTakeInterrupts && this.machine.externalPending);
    if (nothing) return false;
    const due = decideBoundary(this.liveRegisters, {
      externalPending: this.machine.externalPending,
      held: this.machine.interruptsHeld,
      nested: this.nested,
      intercepted: (name) => this.isIntercepted(name),
    });
    if (due === undefined) return false;
    this.tx.abort();
    this.current = undefined;
    this.fetching = false;
    this.take(due);
    this.exitWhenTrapped();
    return true;
  }

  private take(due: Due): void {
    switch (due.kind) {
      case 'injection':
        this.inject();
        return;
      case 'exit':
        this.exit(new VmExit(INTERCEPTS[due.intercept].exitCode, due.intercept === 'SMI' ? SMI_EXTERNAL : 0n));
        return;
      case 'debug':
        this.deliver({ type: 'exception', vector: Vector.DB, dr6: due.dr6 }, 0);
        return;
      case 'nmi':
        this.tx.set(R.boundary, this.tx.get(R.boundary) & ~Boundary.NMI_PENDING);
        this.deliver({ type: 'nmi', vector: Vector.NMI }, 0, undefined, [R.boundary]);
        return;
      case 'external': {
        const vector = this.machine.acknowledge();
        this.deliver({ type: 'external', vector }, 0);
        return;
      }
      case 'virtual-nmi':
        this.tx.set(R.intControl, withVirtualNmiTaken(this.tx.get(R.intControl)));
        this.deliver({ type: 'nmi', vector: Vector.NMI, unblocking: true }, 0, 'virtual', [R.intControl]);
        return;
      case 'virtual': {
        if (hasVirtualApic(this.tx)) {
          this.takeFromVirtualApic();
          return;
        }
        const vector = virtualInterruptVector(this.tx);
        this.tx.set(R.intControl, withoutVirtualInterrupt(this.tx.get(R.intControl)));
        this.deliver({ type: 'external', vector }, 0, 'virtual', [R.intControl]);
        return;
      }
      case 'redirected-init':
        this.tx.set(R.boundary, this.tx.get(R.boundary) & ~Boundary.INIT_PENDING);
        // #SX with the code for a redirected INIT (APM vol.2 §15.30.1 VM_CR MSR).
        this.deliver({ type: 'exception', vector: Vector.SX, errorCode: 1 }, 0, undefined, [R.boundary]);
        return;
      case 'init': {
        const waits = this.vcpu !== BOOTSTRAP_VCPU;
        for (const [slot, value] of initRegisters(this.tx, this.machine.profile, waits)) this.tx.set(slot, value);
        this.commit({ type: 'cpu.system', mnemonic: 'INIT', registers: EMPTY_DELTA }, 0);
        this.machine.resetDevicesOfVcpu();
        this.machine.engine.flush();
        if (!waits) this.machine.atResetVector();
        return;
      }
      case 'startup':
        for (const [slot, value] of startupRegisters(this.tx)) this.tx.set(slot, value);
        this.commit({ type: 'cpu.system', mnemonic: 'SIPI', registers: EMPTY_DELTA }, 0);
        return;
      case 'smi':
        // Without a handler in SMRAM it is one that only returns (RSM). The event says that it ran.
        this.tx.set(R.boundary, this.tx.get(R.boundary) & ~Boundary.SMI_PENDING);
        if (hasHandler(this.tx)) {
          enterSmm(this.tx);
          this.machine.engine.flush();
        }
        this.commit({ type: 'cpu.system', mnemonic: 'SMI', registers: EMPTY_DELTA }, 0);
        return;
    }
  }

  /** AVIC's interrupt is acknowledged before its delivery, as a local APIC's is. */
  private takeFromVirtualApic(): void {
    const vector = acknowledgeVirtualApic(this.virtualApic);
    if (vector !== undefined) this.deliver({ type: 'external', vector }, 0, 'virtual');
  }

  /** Delivers what VMRUN took from EVENTINJ, past every intercept of the event itself. */
  private inject(): void {
    const injection = pendingInjection(this.tx);
    invariant(injection !== undefined, 'nothing is to be injected');
    const event = eventOfInjection(injection, this.get(R.rip));
    const { tx } = this;
    const cleared: readonly Slot[] = [R.eventInjection, R.eventNextRip];
    for (const slot of cleared) tx.set(slot, 0n);
    if (event.type !== 'nmi' || !hasVirtualNmis(tx)) this.deliver(event, 0, 'injected', cleared);
    else {
      // It masks virtual NMIs as a virtual one would (APM vol.2 §15.21.10 NMI Virtualization).
      tx.set(R.intControl, tx.get(R.intControl) | IntControl.V_NMI_MASK);
      this.deliver(event, 0, 'injected', [...cleared, R.intControl]);
    }
  }

  /** A signal came by the instruction under way: where that ends a shadow, it shall not end the signal with it. */
  keepPending(bits: bigint): void {
    if (this.tx.changesAny(BOUNDARY)) this.tx.set(R.boundary, this.tx.get(R.boundary) | bits);
  }

  // Instructions

  /**
   * Executes the instruction at RIP. @param known as the engine decoded it, when it did.
   * @param fault in which it ends, when compiled code met with it: a watcher hears of the instruction nonetheless.
   */
  step(known: DecodedInstruction | undefined, fault?: AccessFault): void {
    const { tx } = this;
    tx.abort();
    this.ownEvent = undefined;
    this.pendingFault = undefined;
    this.trap = undefined;
    this.instead = undefined;
    this.paused = false;
    this.napping = undefined;
    this.busLocked = false;
    this.current = known;
    if (fault !== undefined && known !== undefined && this.watcher === undefined) {
      this.fetching = false;
      this.interrupted(fault);
      this.exitWhenTrapped();
      return;
    }
    try {
      this.fetching = known === undefined;
      const insn = known ?? this.instructions.fetch(tx, this.machine.engine.codeMode);
      this.fetching = false;
      this.current = insn;
      if ((tx.low(R.boundary) & TRANSIENT_BITS) !== 0) this.endTransients();
      this.ops.watch((this.word(R.dr7) & DR7_ENABLES) !== 0);
      const { system } = insn;
      if (system !== undefined) {
        if (this.exitsFirst(system)) return;
        this.watcher?.begins(insn);
        this.ops.begin(insn);
        system.system(this);
        if (this.instead !== undefined) {
          this.exitInstead(this.instead);
          return;
        }
      } else {
        this.watcher?.begins(insn);
        this.ops.execute(insn);
        this.ownEvent = 'plain';
        if (locksMemory(insn) && this.watchesBusLocks) this.takeBusLock();
      }
      if (this.ops.watchHits !== 0n || this.busLocked || mayTrapAfter(tx, this.liveWord)) {
        trapAfter(tx, insn, this.liveRegisters, this.ops.watchHits, this.busLocked);
      }
      this.complete(insn);
      if (this.pendingFault !== undefined) this.deliver(eventOfFault(this.pendingFault), 0);
    } catch (reason) {
      this.interrupted(reason);
    }
    this.exitWhenTrapped();
  }

  /** What holds for one instruction holds for this one. */
  private endTransients(): void {
    const boundary = this.tx.get(R.boundary);
    // Data breakpoints that MOV SS hit wait in its shadow for the end of this instruction.
    const waiting = (boundary & Boundary.DEBUG_SHADOW) === 0n ? 0n : boundary & HELD_BREAKPOINTS;
    this.tx.set(R.boundary, (boundary & ~TRANSIENT) | waiting);
  }

  protected exitAfter(exit: VmExit | undefined): void {
    this.trap = exit ?? this.trap;
  }

  private exitWhenTrapped(): void {
    const { trap } = this;
    if (trap === undefined) return;
    this.trap = undefined;
    this.tx.abort();
    this.exit(trap);
  }

  /** Takes the intercept that comes before everything else of the instruction, without the cost of an exception. */
  private exitsFirst({ interceptedFirst }: SystemPart): boolean {
    if (interceptedFirst === undefined || !this.isIntercepted(interceptedFirst)) return false;
    if (this.stages[interceptedFirst] !== 'before-exceptions') return false;
    this.tx.abort();
    this.exit(new VmExit(INTERCEPTS[interceptedFirst].exitCode, 0n, 0n, true));
    return true;
  }

  /** The instruction under way has found its intercept: nothing of it happens. */
  private exitInstead(exit: VmExit): void {
    this.trap = undefined;
    this.tx.abort();
    this.exit(exit);
  }

  private get trapsBusLocks(): boolean {
    return (this.word(R.debugCtl) & BLCKDB) !== 0 && this.word(R.cpl) !== 0 && this.profile.system.has('bus-lock-trap');
  }
  private get watchesBusLocks(): boolean {
    return this.isIntercepted('BUSLOCK_THRESHOLD') || this.trapsBusLocks;
  }

  /** The instruction has locked memory, in the transaction. @throws VmExit when the guest's bus locks are used up. */
  private takeBusLock(): void {
    const { tx } = this;
    const { linear, bytes } = this.ops.lastStore;
    const access = Access.WRITE | (this.word(R.cpl) === 3 ? Access.USER : 0);
    if (!crossesLine(linear, bytes) && this.machine.engine.isWriteBack(linear, bytes, access)) return;
    this.busLocked = this.trapsBusLocks;
    if (!this.isIntercepted('BUSLOCK_THRESHOLD')) return;
    const left = tx.get(R.busLocks);
    if (left === 0n) throw new VmExit(ExitCode.BUSLOCK);
    tx.set(R.busLocks, left - 1n);
  }

  private complete(insn: DecodedInstruction): void {
    const { machine, tx } = this;
    this.watcher?.completes(insn);
    this.relatch();
    const outcome = this.ownEvent;
    if (outcome === 'plain') {
      const rflags = this.word(R.rflags);
      tx.commitMemory();
      tx.commitRegisters();
      if (((rflags ^ this.word(R.rflags)) & TRANSLATING_FLAGS) !== 0) machine.engine.stateChanged();
      machine.countPlain();
      this.watcher?.retired?.(insn);
    } else {
      this.commit(outcome ?? { type: 'cpu.system', mnemonic: insn.mnemonic, registers: EMPTY_DELTA }, 1);
    }
    if (machine.ferr && (this.word(R.fsw) & X87_SUMMARY) === 0) machine.driveFerr(false);
  }

  /** An instruction did not complete: a fault, a software interrupt, an intercept. */
  private interrupted(reason: unknown): void {
    const { tx } = this;
    this.trap = undefined;
    if (reason instanceof GuestFault) {
      tx.abort();
      this.deliver(eventOfFault(reason), 0);
    } else if (reason instanceof SoftwareEvent) {
      tx.abort();
      this.watcher?.completes(this.insn);
      this.deliver(reason.event, 1);
    } else if (reason instanceof VmExit) {
      tx.abort();
      this.exit(reason);
    } else if (reason instanceof NestedPageFault) {
      tx.abort();
      this.exit(this.nestedExit(reason));
    } else if (reason instanceof FerrFreeze) {
      tx.abort();
      this.freeze();
    } else if (reason instanceof AbsentPage) {
      tx.abort();
      this.miss(reason);
    } else if (reason instanceof Shutdown) {
      tx.abort();
      this.shutdown(reason.whose);
    } else throw reason;
  }

  /** FERR# goes out, and the processor waits in front of the instruction: for an interrupt, whatever shadow it lies in. */
  private freeze(): void {
    const { tx } = this;
    this.machine.driveFerr(true);
    if (this.isIntercepted('FERR_FREEZE')) {
      this.exit(new VmExit(ExitCode.FERR_FREEZE));
      return;
    }
    tx.set(R.boundary, tx.get(R.boundary) & ~SHADOWS);
    tx.set(R.activity, Activity.FERR_FREEZE);
    this.commit({ type: 'cpu.halted', registers: EMPTY_DELTA }, 0);
  }

  /** An instruction needs a page that is not there. */
  private miss({ page }: AbsentPage): void {
    const { tx, paravirt } = this;
    invariant(paravirt !== undefined, 'only a host that the guest knows of takes pages away');
    const context = missContext(this.liveRegisters, this.nested);
    const outcome = paravirt.missPage(this.vcpu, page, context);
    if (outcome === 'wait') {
      tx.set(R.activity, Activity.PAGE_WAIT);
      this.commit({ type: 'cpu.halted', registers: EMPTY_DELTA }, 0);
      return;
    }
    const linear = BigInt(outcome.token);
    // L1 need not intercept #PF: it has asked for these exits.
    if (context.guest) this.exit(new VmExit(exceptionExit(Vector.PF), 0n, linear));
    else this.deliver({ type: 'exception', vector: Vector.PF, errorCode: 0, linear }, 0);
  }

  // SystemContext

  get insn(): DecodedInstruction {
    invariant(this.current !== undefined, 'no instruction is executing');
    return this.current;
  }
  cpuidLeaf(leaf: number, subleaf: number): CpuidLeaf {
    if (this.paravirt !== undefined && isHypervisorLeaf(leaf)) return this.paravirt.cpuidLeaf(leaf);
    return cpuidLeaf(this.machine.profile, leaf, subleaf, {
      apicId: this.vcpu,
      processors: this.machine.processors,
      apicEnabled: (this.readApicBase() & 0x800n) !== 0n,
      osxsave: (this.tx.get(R.cr4) & CR4.OSXSAVE) !== 0n,
      xcr0: this.tx.get(R.xcr0),
      virtualization: this.nested.features(),
      hypervisor: this.paravirt !== undefined,
    });
  }

  intercept(
    name: InterceptName,
    info: { readonly info1?: bigint; readonly info2?: bigint } = NO_INFO,
    stage?: InterceptStage,
  ): void {
    const exit = this.interception(name, info, stage);
    if (exit !== undefined) throw exit;
  }

  exits(
    name: InterceptName,
    info: { readonly info1?: bigint; readonly info2?: bigint } = NO_INFO,
    stage?: InterceptStage,
  ): boolean {
    this.instead = this.interception(name, info, stage);
    return this.instead !== undefined;
  }

  private interception(
    name: InterceptName,
    info: { readonly info1?: bigint; readonly info2?: bigint },
    stage: InterceptStage | undefined,
  ): VmExit | undefined {
    if (!this.isIntercepted(name)) return undefined;
    const { exitCode, assisted, stage: usual } = INTERCEPTS[name];
    if (this.stages[name] !== (stage ?? usual)) return undefined;
    const told = assisted !== true || this.decodeAssists;
    return new VmExit(exitCode, told ? (info.info1 ?? 0n) : 0n, info.info2 ?? 0n, true);
  }

  exitsByMsr(msr: number, write: boolean): boolean {
    return this.isIntercepted('MSR_PROT') && this.exitsByMap({ kind: 'msr', msr, write });
  }

  private exitsByMap(access: MappedAccess): boolean {
    this.instead = this.nested.specialIntercept(this.liveRegisters, this.memory, access);
    return this.instead !== undefined;
  }

  writeTrap(name: InterceptName, value: bigint): void {
    if (this.isIntercepted(name)) this.trap = new VmExit(INTERCEPTS[name].exitCode, value);
  }

  exitsByPort(access: PortAccess): boolean {
    if (!this.isIntercepted('IOIO_PROT')) return false;
    const nextRip = codeOffset(this.tx, this.get(R.rip) + BigInt(this.insn.length));
    return this.exitsByMap({ kind: 'port', access, nextRip });
  }

  target(): HalvesWriter {
    return this.tx;
  }
  outcome(event: RegisterEvent): void {
    this.ownEvent = event;
  }
  plain(): void {
    this.ownEvent = 'plain';
  }
  nap(nanoseconds: bigint, masked: boolean): void {
    this.napping = { nanoseconds: Number(nanoseconds), masked };
  }

  pause(): void {
    this.paused = true;
  }
  faultAfter(fault: GuestFault): void {
    this.pendingFault = fault;
  }
  state(event: MachineEvent): void {
    this.machine.stateEvent(event, 0);
  }
  /** Translations follow their tables (docs/adr/0021): what asks for some of them to be dropped, or all, needs none to be. */
  flushTlb(_: TlbFlush): void {}
}

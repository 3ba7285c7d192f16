/**
 * How a transition ends in its event: what an instruction did is committed, an event is delivered with whatever its delivery
 * raises, a guest exits to its hypervisor. All of it stands in one transaction, which becomes one event.
 */
import type { DecodedInstruction } from '../decode/decoded.js';
import { type RegisterEvent, withRegisters } from '../events.js';
import { Vector } from '../faults.js';
import { Activity, EMPTY_DELTA, R, type Slot, SvmMode } from '../layout/cpu-state.js';
import type { Paravirt } from '../paravirt/interface.js';
import { ExitCode } from '../svm/exit-code.js';
import { instructionBytes } from '../svm/instruction-bytes.js';
import { exceptionIntercept, INTERCEPTS, type InterceptName } from '../svm/intercepts.js';
import { type InterruptRules, interruptRules, latchesMasks, relatch } from '../svm/interrupt-rules.js';
import { nestedExit } from '../svm/nested-exit.js';
import { vmexitEvent } from '../svm/nested-svm.js';
import { NestedPageFault, VmExit } from '../svm/vmexit-request.js';
import { DEBUG_CTL } from './debug.js';
import { deliveredEvent } from './delivered-event.js';
import { DeliveryLane } from './delivery-lane.js';
import { deliverEvent, eventOfFault, type GuestEvent } from './exceptions.js';
import { codeOffset } from './instruction-fetch.js';
import { recordEvent } from './last-branch.js';
import { MachineAccess } from './machine-access.js';
import type { VmexitOutcome, VmexitSite } from './nested-virtualization.js';
import type { ProcessorHost } from './processor-host.js';
import type { Shutdown } from './shutdown.js';
import type { TaskSwitched } from './task-switch.js';
import { AbsentPage, Transaction } from './transaction.js';
import { VectoringInfo } from './vectoring.js';

const GUEST_MODE = Number(SvmMode.GUEST);
const LBR = Number(DEBUG_CTL.LBR);
/** The level of whoever exits. */
const GUEST = 2;

export abstract class Transitions extends MachineAccess {
  readonly tx: Transaction;
  readonly paravirt: Paravirt | undefined;
  protected current: DecodedInstruction | undefined;
  /** The instruction's bytes are on their way: a page fault is that of the fetch. */
  protected fetching = false;
  /** The last instruction was PAUSE: whoever spins lets others run. */
  paused = false;
  /** The exit that follows the instruction, or the delivery: a write trap, or what AVIC does not do by itself. */
  protected trap: VmExit | undefined;
  /** The event whose delivery is under way, for EXITINTINFO. */
  protected vectoring: GuestEvent | undefined;
  protected readonly words: Uint32Array;
  /** What deviations make of the boundary between two instructions. */
  protected readonly rules: InterruptRules;
  protected readonly vectoringInfo: VectoringInfo;
  private readonly lane: DeliveryLane;
  /** Deviations have a guest remember what was delivered to it. */
  private readonly keepsDeliveries: boolean;

  constructor(machine: ProcessorHost) {
    super(machine);
    this.paravirt = machine.paravirt;
    const { buffer, byteOffset, length } = machine.registers;
    this.words = new Uint32Array(buffer, byteOffset, 2 * length);
    this.rules = interruptRules(machine.profile);
    this.vectoringInfo = new VectoringInfo(machine.profile.deviations);
    this.tx = new Transaction(this);
    this.lane = new DeliveryLane(machine);
    this.keepsDeliveries = latchesMasks(this.rules) || this.vectoringInfo.keepsLast;
  }

  /** The low half of a slot: what the loop asks of it at every turn, without making bigints. */
  protected word(slot: Slot): number {
    return this.words[2 * slot] as number;
  }
  protected readonly liveRegisters = { get: (slot: Slot): bigint => this.get(slot) };
  protected readonly liveWord = (slot: Slot): number => this.word(slot);

  /** Whether the running guest's VMCB asks for an intercept. */
  isIntercepted(name: InterceptName): boolean {
    return this.runsGuest && this.nested.isIntercepted(this.liveWord, name);
  }

  /** Between VMRUN and #VMEXIT. */
  get runsGuest(): boolean {
    return (this.word(R.svmMode) & GUEST_MODE) !== 0;
  }

  /** Masks of interrupts that are latches follow IF while a guest runs. */
  protected relatch(): void {
    const { tx, rules } = this;
    if (!rules.intrLatched && !rules.virqLatched) return;
    const stays = this.runsGuest && (tx.get(R.svmMode) & SvmMode.GUEST) !== 0n;
    if (stays) relatch(tx, this.get(R.rflags));
  }

  /** Commits the transaction as one event. @param event without registers. */
  protected commit(event: RegisterEvent, retired: 0 | 1): void {
    const registers = this.tx.delta();
    this.tx.commitMemory();
    this.machine.stateRegisters(withRegisters(event, registers), registers, retired);
    this.tx.abort();
  }

  // Delivery

  /**
   * Delivers an event and whatever its delivery raises.
   * @param retired 1 for the end of INT n and its like.
   * @param kept slots already written in the transaction that outlive a fault of the delivery.
   */
  protected deliver(
    event: GuestEvent,
    retired: 0 | 1,
    origin: 'virtual' | 'injected' | undefined = undefined,
    kept: readonly Slot[] = [],
    after?: GuestEvent,
  ): void {
    const { tx } = this;
    const before = kept.map((slot): readonly [Slot, bigint] => [slot, tx.get(slot)]);
    let first = true;
    this.vectoring = undefined;
    this.vectoringInfo.injected = origin === 'injected' ? event : undefined;
    if (origin !== 'injected' && after === undefined && event.dr6 === undefined) {
      const exit = this.exceptionExit(event, undefined);
      if (exit !== undefined) {
        this.exit(exit);
        return;
      }
      if (origin === undefined && retired === 0 && this.takesLane(event)) return;
    }
    try {
      const recognise = (next: GuestEvent, during: GuestEvent | undefined): void => {
        for (const [slot, value] of before) tx.set(slot, value);
        this.vectoring = next;
        const exit = first && origin === 'injected' ? undefined : this.exceptionExit(next, during);
        if (exit !== undefined) throw exit;
        first = false;
      };
      const delivered = deliverEvent(tx, event, recognise, after);
      if (delivered === 'shutdown') this.shutdown();
      else if (delivered === 'endless') {
        this.paused = true;
        this.machine.stalls();
      } else {
        // INT n and its like retire when they reach their handler; a fault on the way there does not.
        const counted = delivered.event === event ? retired : 0;
        this.relatch();
        this.vectoringInfo.delivered(tx, delivered.event);
        if ((this.word(R.debugCtl) & LBR) !== 0) recordEvent(tx, delivered.event, this.get(R.rip));
        this.commit(deliveredEvent(delivered, event, origin), counted);
        if (delivered.task !== undefined) this.beginTask(delivered.task, delivered.event);
      }
    } catch (reason) {
      if (reason instanceof NestedPageFault || (reason instanceof VmExit && reason.code === ExitCode.TASK_SWITCH)) {
        const { vectoring } = this;
        tx.abort();
        for (const [slot, value] of before) tx.set(slot, value);
        if (vectoring !== undefined) this.vectoringInfo.record(tx, vectoring);
        this.exit(reason instanceof VmExit ? reason : this.nestedExit(reason));
      } else if (reason instanceof VmExit) this.exit(reason);
      else if (reason instanceof AbsentPage) {
        // What is half delivered cannot be put off: the vCPU waits, and it is delivered from the start.
        tx.abort();
        this.paravirt?.waitForPage(this.vcpu, reason.page);
        for (const [slot, value] of before) tx.set(slot, value);
        this.deliver(event, retired, origin, kept, after);
      } else throw reason;
    }
  }

  /** Whether an event that nothing else goes with was delivered past all checks. */
  private takesLane(event: GuestEvent): boolean {
    const { machine, tx, runsGuest } = this;
    if (!machine.takesLanes || !tx.isUntouched || (runsGuest && this.keepsDeliveries)) return false;
    return this.lane.deliver(event, runsGuest);
  }

  /** An event came to a task, which may begin with a fault. */
  protected beginTask({ fault }: TaskSwitched, event: GuestEvent): void {
    if (fault !== undefined) this.deliver(eventOfFault(fault), 0, undefined, [], event);
  }

  /** The exit of an exception that L1 intercepts. @param during whose delivery it cut short. */
  protected exceptionExit(event: GuestEvent, during: GuestEvent | undefined): VmExit | undefined {
    if (event.type !== 'exception' || event.vector > 31) return undefined;
    if (!this.isIntercepted(exceptionIntercept(event.vector))) return undefined;
    const { deviations } = this.profile;
    const forgets = event.vector === Vector.DF && deviations.has('double-fault-exit-forgets-event');
    if (during !== undefined && !forgets) this.vectoringInfo.record(this.tx, during);
    const code = INTERCEPTS[exceptionIntercept(event.vector)].exitCode;
    const isPageFault = event.vector === Vector.PF;
    const hidesCode = event.vector === Vector.TS && deviations.has('ts-error-code-missing');
    return new VmExit(
      code,
      event.errorCode === undefined || hidesCode ? 0n : BigInt(event.errorCode),
      isPageFault ? (event.linear ?? 0n) : 0n,
      // INT3, INTO and BOUND (APM vol.2 §15.7.1 State Saved on Exit).
      event.nextRip !== undefined || event.vector === Vector.BR,
      isPageFault,
    );
  }

  /** @param whose that of the program that runs, which a hypervisor may intercept, or its host's. */
  protected shutdown(whose: Shutdown['whose'] = 'own'): void {
    if (whose === 'own' && this.isIntercepted('SHUTDOWN')) {
      this.exit(new VmExit(ExitCode.SHUTDOWN));
      return;
    }
    this.tx.set(R.activity, Activity.SHUTDOWN);
    this.commit({ type: 'cpu.shutdown', registers: EMPTY_DELTA }, 0);
    this.machine.shutDown();
  }

  /** The world switch to L1. The transaction holds what the guest's state shall be. */
  protected exit(exit: VmExit): void {
    const { tx, machine } = this;
    const nextRip = this.nextRipOf(exit);
    const bytes =
      exit.withBytes && !this.fetching
        ? instructionBytes(this.liveRegisters, this.memory, machine.engine.pagingContext)
        : undefined;
    const site = { vmcbShadow: machine, nextRip, bytes };
    this.current = undefined;
    const outcome = tx.isUntouched ? this.exitDirectly(exit, site) : this.exitInTransaction(exit, site);
    if (outcome.hostShutdown) machine.shutDown();
  }

  private exitInTransaction(exit: VmExit, site: VmexitSite): VmexitOutcome {
    const outcome = this.nested.vmexit(this.tx, exit, site);
    this.commit(vmexitEvent(outcome, EMPTY_DELTA), 0);
    return outcome;
  }

  /** Nothing is held back of the registers: those of the host come to their places at once. */
  private exitDirectly(exit: VmExit, site: VmexitSite): VmexitOutcome {
    const { tx, machine } = this;
    const { directRegisters } = machine.engine;
    machine.flushRun();
    const outcome = this.nested.vmexit(tx, exit, site, directRegisters);
    tx.commitMemory();
    machine.stateDirect(vmexitEvent(outcome, directRegisters.finish()), 0, GUEST);
    tx.abort();
    return outcome;
  }

  /** What nRIP tells: for instructions the address behind them, else nothing (APM vol.2 §15.7.1 State Saved on Exit). */
  protected nextRipOf({ nextRip }: VmExit): bigint {
    const { current } = this;
    if (!nextRip && !this.profile.deviations.has('next-rip-always')) return 0n;
    const length = current === undefined ? 0 : current.length;
    return nextRip && current === undefined ? 0n : codeOffset(this.tx, this.tx.get(R.rip) + BigInt(length));
  }

  protected nestedExit(fault: NestedPageFault): VmExit {
    return nestedExit(fault, this.profile.deviations, this.current?.mnemonic);
  }
}

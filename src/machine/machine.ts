/**
 * Wires memory, vCPUs, SVM and devices: the machine's loop, and everything that states an event.
 *
 * `advance` runs until a limit, the end or the lack of anything to wait for; `deliver` takes inputs. Each event is
 * applied by the reducer and then handed to the sink. The machine never reads the host's clock, randomness or
 * environment: a session is a function of configuration, boot image and inputs (laws 1 and 2).
 */
import { type Board, boardOf } from './boot/board.js';
import { loadBootImage, loadDisk } from './boot/load-image.js';
import { checkConfig, keptBytes, type MachineConfig, machineProfile } from './config.js';
import type { AccessFault } from './cpu/access-fault.js';
import type { CpuProfile } from './cpu/cpuid.js';
import type { NestedVirtualization } from './cpu/nested-virtualization.js';
import { Processor } from './cpu/processor.js';
import type { ExecutionWatcher, ProcessorHost, Tier } from './cpu/processor-host.js';
import { BOOTSTRAP_VCPU, withStartup } from './cpu/reset.js';
import { followRegisters, isDebuggerInput, putInMemory } from './debugger-input.js';
import type { DecodedInstruction } from './decode/decoded.js';
import { DeviceBus } from './device-bus.js';
import {
  type CpuSignal,
  cpuInterruptPending,
  type Decision,
  type DeviceEvent,
  decideAcknowledge,
  decideDeadline,
  decideInit,
  decideInput,
  decideNumericError,
  decideService,
  decideTscMoved,
  inputRoom,
  nextDeadline,
  settle,
  signalsRouted,
} from './devices/devices.js';
import { invariant } from './errors.js';
import type { EndReason, EventSink, Level, MachineEvent, RegisterEvent } from './events.js';
import { INSTRUCTIONS } from './isa/instructions.js';
import { Activity, Boundary, encodeDelta, R, type RegisterDelta, type Slot } from './layout/cpu-state.js';
import type { VmcbWords } from './layout/vmcb.js';
import type { AdvanceStop, MachineInput } from './machine-input.js';
import { capturePoint, type MachinePoint, restoreState } from './machine-point.js';
import { PhysicalMemory } from './mmu/memory.js';
import { pagingFeatures } from './mmu/page-walk.js';
import { checkHostInput, isHostInput } from './paravirt/host-input.js';
import { KvmInterface } from './paravirt/kvm.js';
import { entropyValue, initialState, type MachineState, reduce, reduceBesideRegisters } from './reduce.js';
import { type BootImage, Restart, type RestartHost } from './restart.js';
import { type Hit, isNothing, NO_HITS, type StopPoints, StopWatch } from './stop-points.js';
import { interruptRules, latchesMasks } from './svm/interrupt-rules.js';
import { virtualizationOf } from './svm/nested-svm.js';
import { type LaneOutcome, WorldSwitchLane } from './svm/world-switch-lane.js';
import { type InstructionCount, instructionCount, type Nanoseconds, nanoseconds, u64 } from './units.js';
import { Vcpus } from './vcpus.js';
import type { DirectRegisters } from './wasm/direct-registers.js';
import { Engine, type EngineStop } from './wasm/engine.js';

const NEVER = Number.POSITIVE_INFINITY;
/** Events without an instruction among them after which `advance` returns, so that its caller can stop. */
const MOST_BARREN_EVENTS = 250;

export class Machine implements ProcessorHost, RestartHost {
  readonly memory: PhysicalMemory;
  readonly state: MachineState;
  readonly profile: CpuProfile;
  readonly nested: NestedVirtualization;
  readonly engine: Engine;
  readonly paravirt: KvmInterface | undefined;
  readonly bus: DeviceBus;
  private readonly processor: Processor;
  private readonly vcpus: Vcpus;
  private readonly restart: Restart;
  private readonly lane: WorldSwitchLane;
  private instructions = 0;
  /** Instructions retired since the last event. */
  private unstated = 0;
  /** Until which no device acts by itself; undefined when an event may have changed that. */
  private deadline: number | undefined;
  /** Until which no vCPU that chaos holds may take interrupts again; undefined when that may have changed. */
  private release: number | undefined;
  /** A device has asked for the end or for a reset: it comes once the instruction that did so is complete. */
  private request: Decision['request'] = null;
  /** Events since an instruction retired. */
  private barrenEvents = 0;
  /** Another vCPU that should run next: its local APIC has just changed, and most likely it has an interrupt now. */
  private interrupted: number | undefined;
  private pausing = false;
  private stopWatch: StopWatch | undefined;
  /** The next instruction is not stopped before: whoever runs has just stopped there. */
  private setsOut = false;

  /** @param tier 'evaluator' leaves nothing to the engine: slow, and the same events. @param memory its RAM. @throws InputError */
  constructor(
    readonly config: MachineConfig,
    private readonly sink: EventSink,
    private tier: Tier = 'engine',
    memory?: PhysicalMemory,
  ) {
    checkConfig(config);
    const profile = machineProfile(config);
    invariant(profile !== undefined, 'checkConfig let an unknown CPU profile pass');
    this.profile = profile;
    this.nested = virtualizationOf(profile);
    this.memory = memory ?? new PhysicalMemory(config.ramBytes, keptBytes(config));
    const latchesInterruptMasks = latchesMasks(interruptRules(profile));
    const features = { instructions: profile.features, latchesInterruptMasks, ...pagingFeatures(profile) };
    this.engine = new Engine(this.memory, INSTRUCTIONS, features, config.vcpus);
    this.state = initialState(config);
    this.vcpus = new Vcpus(this.state, this.engine, this.memory, this.nested, () => this.now);
    this.vcpus.load(this.state.vcpus);
    this.paravirt = this.state.paravirt === null ? undefined : new KvmInterface(this);
    this.bus = new DeviceBus(this);
    this.processor = new Processor(this);
    this.engine.surroundings = this;
    this.restart = new Restart(this);
    this.lane = new WorldSwitchLane(this, this.processor.tx);
  }

  /** Instructions retired so far. */
  get retired(): InstructionCount {
    return instructionCount(this.instructions);
  }

  /** Virtual time. */
  get now(): Nanoseconds {
    return this.timeAfter(0);
  }

  /** @param instructions that have run since those that are counted. */
  timeAfter(instructions: number): Nanoseconds {
    const counted = this.instructions + instructions;
    return nanoseconds(counted * this.config.nanosecondsPerInstruction + this.state.skippedNanoseconds);
  }

  /** The level that runs. */
  get level(): Level {
    return this.processor.runsGuest ? 2 : 1;
  }

  /** Those of the vCPU whose turn it is. */
  get registers() {
    return this.engine.registers;
  }
  get directRegisters(): DirectRegisters {
    return this.engine.directRegisters;
  }

  /** Tells a watcher of what the engine does not execute, or, on the evaluator, of everything. @param tier from now on. */
  watch(watcher: ExecutionWatcher | undefined, tier: Tier = this.tier): void {
    this.processor.watcher = watcher;
    this.tier = tier;
    // What the engine does of the control plane by itself is for the watcher, too.
    this.engine.surroundings = watcher === undefined ? this : undefined;
  }

  get vcpu(): number {
    return this.vcpus.current;
  }

  get resetAt(): number {
    return this.state.resetAt;
  }

  get processors(): number {
    return this.config.vcpus;
  }

  get board(): Board {
    return boardOf(this.config, this.state.devices);
  }

  // Inputs

  /** Loads the image and sets the registers that the boot protocol prescribes. @throws InputError */
  boot(image: BootImage): void {
    const entry = loadBootImage(this.memory, this.board, image.bytes, image.commandLine);
    loadDisk(this.memory, this.config.diskBytes, image.bytes);
    this.state1({
      type: 'input.boot',
      imageDigest: image.digest,
      commandLine: image.commandLine,
      registers: encodeDelta(entry),
    });
    this.restart.keepImage(image);
  }

  /**
   * Gives a machine whose state came from elsewhere the image that it booted: it loads it again when the guest resets it.
   * @param image the one that `state.boot` names.
   */
  keepImage(image: BootImage): void {
    this.restart.keepImage(image);
  }

  /** @throws InputError for what this machine cannot take. */
  deliver(input: MachineInput): void {
    if (isHostInput(input)) checkHostInput(this.config, input);
    this.flushRun();
    if (isDebuggerInput(input)) putInMemory(this.memory, input);
    // Inputs are the machine's: whoever looks for them on a tape need not know whose turn it was.
    this.state1(input, 0, BOOTSTRAP_VCPU);
    this.apply(decideInput(this.state.devices, input, this.now));
    if (isHostInput(input)) this.paravirt?.hostActed(input);
    if (input.type === 'input.turn') this.followTurn();
    if (input.type === 'input.hold') this.release = undefined;
    if (input.type === 'input.skew') this.skewed(input.target);
    if (isDebuggerInput(input)) followRegisters(this.engine, this.vcpu, input);
  }

  /** Whose turn it is has changed. */
  private followTurn(): void {
    const { vcpu } = this.state.schedule;
    if (vcpu === this.vcpu) return;
    this.paravirt?.leaves(this.vcpu);
    this.vcpus.follow();
    this.paravirt?.enters(vcpu);
  }

  private skewed(vcpu: number): void {
    if (vcpu === this.vcpu) this.engine.syncShadow(R.tscBase);
    this.tscMoved(this.vcpus.reader(vcpu).get(R.tscBase), vcpu);
  }

  /** Whether a vCPU could have the turn now. */
  canRun(vcpu: number): boolean {
    return this.vcpus.canRun(vcpu);
  }

  /** Bytes that `input.serial` and `input.console` may bring without overrunning a receiver. */
  get inputRoom(): { readonly serial: number; readonly console: number } {
    return inputRoom(this.state.devices);
  }

  /** Ends a session that waits for an input which will never come. */
  endIdle(): void {
    this.end('halted-forever', 0);
  }

  // The loop

  /** Runs until `limit` instructions have retired in all, the end, or idleness. A pending run is stated before it returns. */
  advance(limit: InstructionCount): AdvanceStop {
    const stop = this.run(limit);
    this.flushRun();
    return stop;
  }

  /** As `advance`, but where it comes back shows in no event: a pending run goes on. */
  run(limit: InstructionCount): AdvanceStop {
    this.pausing = false;
    return this.loop(limit, false);
  }

  /** As `run`, but comes back before what is due where it stops: at the limit, or when it is paused. */
  runUpTo(limit: InstructionCount): AdvanceStop {
    this.pausing = false;
    return this.loop(limit, true);
  }

  /** Where `run` comes back from now on; `takeHits` then says at which. */
  stopAt(points: StopPoints): void {
    const kept = this.stopWatch?.watchesCode === true;
    this.stopWatch?.release();
    this.stopWatch = isNothing(points) ? undefined : new StopWatch(points, this.memory, () => this.pause());
    if (kept || points.code.size > 0) this.engine.keepFrom(this.stopWatch?.offsets ?? new Set());
    this.setsOut = false;
  }

  /** The next `run` does not stop before the instruction at which it starts. */
  setOut(): void {
    this.setsOut = true;
  }

  takeHits(): readonly Hit[] {
    return this.stopWatch?.takeHits() ?? NO_HITS;
  }

  /** From within the sink: `run` comes back as soon as what it is about is done, at a place that `capture` can hold. */
  pause(): void {
    this.pausing = true;
    this.engine.leave();
  }

  /** Takes what runs, RAM apart. The machine must be between two calls of `run` or `advance`. */
  capture(): MachinePoint {
    const { instructions: retired, unstated, interrupted } = this;
    return capturePoint(this.state, this.engine.shadow, { retired, unstated, interrupted });
  }

  /**
   * Goes to where `point` was taken, by this machine or one of the same configuration. RAM must be as it was there already.
   */
  restore(point: MachinePoint): void {
    restoreState(this.state, point);
    this.vcpus.load(this.state.vcpus);
    this.instructions = point.retired;
    this.unstated = point.unstated;
    if (point.shadow !== undefined) this.engine.shadow.set(point.shadow);
    this.engine.flush();
    this.deadline = undefined;
    this.release = undefined;
    this.request = null;
    this.setsOut = false;
    this.interrupted = point.interrupted;
    this.paravirt?.restored();
  }

  /** @param early whether what is due at the limit stays undone. */
  private loop(limit: InstructionCount, early: boolean): AdvanceStop {
    this.barrenEvents = 0;
    for (;;) {
      if (this.request !== null) this.grantRequest(this.request);
      if (this.barrenEvents > MOST_BARREN_EVENTS) return 'waiting';
      if (early && (this.pausing || this.instructions >= limit) && this.state.ended === null) return 'limit';
      if (this.interrupted !== undefined && this.state.ended === null) this.followInterrupt();
      const deadline = this.runDeadlines();
      if (this.request !== null) continue;
      if (this.state.ended !== null) return 'ended';
      if (this.pausing) return 'paused';
      this.paravirt?.attend(this.vcpu);
      if (this.processor.takeDueEvent()) continue;
      if (this.instructions >= limit) return 'limit';
      if (this.processors > 1 && this.changesTurn()) continue;
      if (!this.processor.isRunning) {
        if (deadline === NEVER || (this.vcpus.areDeaf && !signalsRouted(this.state.devices))) return 'idle';
        this.skipTo(deadline);
        continue;
      }
      const turnEnd = this.vcpus.turnEnd(this.instructions, this.config.quantumInstructions);
      this.runUntil(Math.min(limit, this.instructionAt(deadline), turnEnd));
    }
  }

  private grantRequest(request: NonNullable<Decision['request']>): void {
    this.request = null;
    this.restart.grant(request);
  }

  // Turns

  /** Wakes the current vCPU, or lets the next one that can run have its turn when this one waits or has had its time. */
  private changesTurn(): boolean {
    if (this.vcpus.isWoken) {
      const woken = encodeDelta([
        [R.activity, Activity.RUNNING],
        [R.monitorAddress, 0n],
      ]);
      this.stateEvent({ type: 'cpu.woke', registers: woken }, 0);
      return true;
    }
    const overtime = this.instructions - this.state.schedule.until;
    const waits = !this.processor.isRunning;
    if (overtime < 0 && !waits) return false;
    return this.passTurn(this.vcpus.next(waits || overtime % this.config.quantumInstructions === 0));
  }

  /** Another vCPU should run soon. */
  favour(vcpu: number): void {
    if (vcpu !== this.vcpu) this.interrupted = vcpu;
  }

  /** Interrupts are taken soon: the vCPU that just got one runs next. */
  private followInterrupt(): void {
    const { interrupted } = this;
    this.interrupted = undefined;
    if (interrupted !== undefined && this.vcpus.canRun(interrupted)) this.passTurn(interrupted);
  }

  /** Lets a vCPU run, whatever it does now. */
  giveTurn(vcpu: number): void {
    if (vcpu !== this.vcpu) this.passTurn(vcpu);
  }

  /** @returns false when nobody else can run. */
  private passTurn(next = this.vcpus.next(true)): boolean {
    this.interrupted = undefined;
    if (next === undefined) return false;
    this.flushRun();
    this.state1({ type: 'vcpu.scheduled', until: this.instructions + this.config.quantumInstructions }, 0, next);
    this.followTurn();
    return true;
  }

  /** Lets devices act whose time has come. @returns the next deadline. */
  private runDeadlines(): number {
    while (this.state.ended === null && this.request === null) {
      const deadline = this.nextDeadline;
      if (deadline > this.now) return Math.min(deadline, this.nextRelease);
      this.flushRun();
      this.apply(decideDeadline(this.state.devices, this.now));
      this.apply(decideService(this.state.devices, this.memory, this.now));
      this.paravirt?.pages.arriveDue();
      this.followInterrupt();
    }
    return NEVER;
  }

  /** When a device acts by itself, or a page arrives. */
  private get nextDeadline(): number {
    this.deadline ??= Math.min(nextDeadline(this.state.devices) ?? NEVER, this.paravirt?.pages.nextArrival ?? NEVER);
    return this.deadline;
  }

  private get nextRelease(): number {
    if (this.release === undefined || this.release <= this.now) this.release = this.vcpus.nextRelease;
    return this.release;
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
    if (this.processor.mustStep || this.tier === 'evaluator') this.step(undefined);
    else {
      while (this.runEngine(target) === 'assist') {
        const outcome = this.switchesWorlds();
        if (outcome === 'declined') this.step(this.engine.assisted(), this.engine.fault);
        if (outcome !== 'goes-on' || this.pausing || this.instructions >= target) return;
      }
    }
  }

  private runEngine(target: number): EngineStop {
    const { stop, retired } = this.engine.run(target - this.instructions);
    this.instructions += retired;
    this.unstated += retired;
    if (retired > 0) {
      this.barrenEvents = 0;
      this.setsOut = false;
    }
    return stop;
  }

  /** Executes the instruction at which the engine stopped, if it is one of the lane and nobody watches. */
  private switchesWorlds(): LaneOutcome {
    const { engine } = this;
    const insn = engine.assisted();
    if (insn === undefined || engine.fault !== undefined || !this.takesLanes) return 'declined';
    if (this.processor.mustStep || this.ferr) return 'declined';
    return this.lane.execute(insn);
  }

  /** The linear address of the instruction that comes next. */
  get nextInstruction(): bigint {
    return this.engine.nextInstruction;
  }

  /** A vCPU that spins passes its turn on, and one that interrupts another does so to that one. */
  private step(known: DecodedInstruction | undefined, fault?: AccessFault): void {
    if (this.stopWatch?.watchesCode === true && !this.setsOut && this.stopWatch.stopsBefore(this.nextInstruction)) {
      this.pausing = true;
      this.setsOut = true;
      return;
    }
    this.setsOut = false;
    this.processor.step(known, fault);
    if (this.processor.napping !== undefined) this.nap(this.processor.napping);
    if (this.processors === 1) return;
    if (this.processor.paused) this.passTurn();
    else this.followInterrupt();
  }

  /** A wait with a timer: another vCPU may run first; where none can, time jumps to its end or to what may end it sooner. */
  private nap({ nanoseconds, masked }: NonNullable<Processor['napping']>): void {
    if (this.passTurn() || this.vcpus.hasDueEvent(this.vcpu) || (masked && this.externalPending)) return;
    const end = Math.min(this.now + nanoseconds, this.nextDeadline, this.nextRelease);
    if (end > this.now) this.skipTo(end);
  }

  // Events

  /** Whether something ran since the last event. */
  get hasPendingRun(): boolean {
    if (this.unstated > 0) return true;
    const { registers, shadow } = this.engine;
    return shadow.some((value, slot) => value !== registers[slot as Slot]);
  }

  /** States what ran since the last event. */
  flushRun(): void {
    // Whatever changes registers without an event retires.
    if (this.unstated === 0) return;
    const registers = this.engine.takeDelta();
    const retired = this.unstated;
    this.unstated = 0;
    // The engine was the reducer of this one: its registers are the machine's.
    this.sink({ retired, vcpu: this.vcpu, level: this.level, event: { type: 'cpu.ran', registers } });
  }

  /** Applies and states an event that stands between runs. @param vcpu which one's it is, when not the current one's. */
  stateEvent(event: MachineEvent, retired: 0 | 1, vcpu = this.vcpu): void {
    this.flushRun();
    this.state1(event, retired, vcpu);
  }

  /** As `stateEvent`, of the current vCPU. @param registers those of the event: who made it need not ask for them. */
  stateRegisters(event: RegisterEvent, registers: RegisterDelta, retired: 0 | 1): void {
    this.flushRun();
    const { vcpu, level } = this;
    this.engine.applyDelta(registers);
    reduceBesideRegisters(this.state, event, vcpu);
    this.stated(event, retired, vcpu, level);
  }

  /** States an event of the current vCPU whose registers are written already. @param level that of the vCPU before it. */
  stateDirect(event: RegisterEvent, retired: 0 | 1, level: Level): void {
    const { vcpu, engine } = this;
    engine.registersChanged(engine.directRegisters.derived);
    reduceBesideRegisters(this.state, event, vcpu);
    this.stated(event, retired, vcpu, level);
  }

  private state1(event: MachineEvent, retired: 0 | 1 = 0, vcpu = this.vcpu): void {
    const level = vcpu === this.vcpu ? this.level : this.vcpus.levelOf(vcpu);
    if (!('registers' in event)) {
      // An event of registers is none of a device's, nor is whose turn it is.
      if (event.type !== 'vcpu.scheduled') this.deadline = undefined;
      reduce(this.state, event, vcpu);
    } else if (vcpu !== this.vcpu) reduce(this.state, event, vcpu);
    else {
      this.engine.applyDelta(event.registers);
      reduceBesideRegisters(this.state, event, vcpu);
    }
    this.stated(event, retired, vcpu, level);
  }

  private stated(event: MachineEvent, retired: 0 | 1, vcpu: number, level: Level): void {
    this.instructions += retired;
    this.barrenEvents = retired === 0 ? this.barrenEvents + 1 : 0;
    this.setsOut = false;
    this.sink({ retired, vcpu, level, event });
  }

  /** A plain instruction was evaluated: it belongs to the run. */
  countPlain(): void {
    this.instructions++;
    this.unstated++;
    this.barrenEvents = 0;
  }

  stalls(): void {
    this.barrenEvents = MOST_BARREN_EVENTS + 1;
  }

  /** Applies a device decision: events, signals, the end; then lets interrupt lines settle. */
  apply(decision: Decision): void {
    let left = decision;
    for (;;) {
      if (left.events.length === 0 && left.signals.length === 0) break;
      this.flushRun();
      for (const event of left.events) {
        this.state1(event satisfies DeviceEvent);
        if ('apic' in event) this.favour(event.apic);
      }
      for (const signal of left.signals) {
        this.signal(signal);
        this.favour(signal.vcpu);
      }
      this.request ??= left.request;
      this.paravirt?.interruptsArrived();
      left = settle(this.state.devices, this.now);
    }
  }

  private signal({ kind, vcpu, vector }: CpuSignal): void {
    const bits = { nmi: Boundary.NMI_PENDING, smi: Boundary.SMI_PENDING, init: Boundary.INIT_PENDING };
    const cpu = this.vcpus.reader(vcpu);
    const boundary = kind === 'sipi' ? withStartup(cpu, vector) : cpu.get(R.boundary) | bits[kind];
    if (boundary === undefined) return;
    const came = boundary & ~cpu.get(R.boundary);
    this.state1({ type: 'cpu.pended', what: kind, registers: encodeDelta([[R.boundary, boundary]]) }, 0, vcpu);
    if (vcpu === this.vcpu) this.processor.keepPending(came);
  }

  end(reason: EndReason, status: number): void {
    if (this.state.ended !== null) return;
    this.flushRun();
    this.state1({ type: 'machine.ended', reason, status });
  }

  // What the processor asks for

  get externalPending(): boolean {
    return !this.interruptsHeld && cpuInterruptPending(this.state.devices, this.vcpu) !== undefined;
  }

  get takesLanes(): boolean {
    return this.tier === 'engine' && this.stopWatch === undefined && this.processor.watcher === undefined;
  }

  get interruptsHeld(): boolean {
    return this.nextRelease !== NEVER && this.vcpus.isHeld(this.vcpu);
  }

  acknowledge(): number {
    const { vector, events } = decideAcknowledge(this.state.devices, this.vcpu);
    this.apply({ events, signals: [], request: null });
    if (events.some(({ type }) => type === 'lapic.acknowledged')) this.paravirt?.interruptTaken(this.vcpu);
    return vector;
  }

  get ferr(): boolean {
    return this.vcpu === 0 && this.state.devices.coprocessor.ferr;
  }
  get ignne(): boolean {
    return this.vcpu === 0 && this.state.devices.coprocessor.ignne;
  }
  driveFerr(asserted: boolean): void {
    if (this.vcpu === 0) this.apply(decideNumericError(this.state.devices, asserted));
  }

  ringDoorbell(apicId: number): void {
    for (const { vcpu, registers } of this.vcpus.answerDoorbell(apicId)) {
      this.stateEvent({ type: 'avic.doorbell', registers }, 0, vcpu);
      this.favour(vcpu);
    }
  }

  resetDevicesOfVcpu(): void {
    this.paravirt?.settleEoi(this.vcpu);
    this.paravirt?.reset(this.vcpu);
    this.apply(decideInit(this.state.devices, this.vcpu));
  }
  atResetVector(): void {
    this.restart.atResetVector();
  }
  shutDown(): void {
    this.restart.shutDown();
  }

  /** TSC = virtual nanoseconds + tscBase. */
  readTsc(instructions = 0): bigint {
    return u64(BigInt(this.timeAfter(instructions)) + (this.registers[R.tscBase] as bigint));
  }

  tscMoved(base: bigint, vcpu = this.vcpu): void {
    this.apply(decideTscMoved(this.state.devices, vcpu, base, this.now));
    this.paravirt?.tscMoved(vcpu, base);
  }

  storedMsr(msr: number): bigint {
    return this.state.vcpus[this.vcpu]?.msrs[msr] ?? 0n;
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

/**
 * The vCPUs of the machine: one has its registers in the register file that the engine runs on, the others are parked.
 * They take turns of a quantum of instructions each; whoever waits, or spins on PAUSE, passes its turn on.
 *
 * Whose turn it is and until when stands in `MachineState.schedule`, and each change is an event (`vcpu.scheduled`), so
 * that a session can be entered anywhere. When a turn is over and nobody else can run, the vCPU just goes on.
 */
import { decideBoundary } from './cpu/interrupts.js';
import type { SlotReader } from './cpu/mode.js';
import { monitorHit } from './cpu/monitor.js';
import type { NestedVirtualization } from './cpu/nested-virtualization.js';
import { cpuInterruptPending, physicalID } from './devices/devices.js';
import type { Level } from './events.js';
import {
  Activity,
  R,
  type RegisterDelta,
  type RegisterFile,
  SLOT_COUNT,
  type Slot,
  SvmMode,
} from './layout/cpu-state.js';
import type { PhysicalMemory } from './mmu/memory.js';
import type { MachineState, VcpuState } from './reduce.js';
import { answerDoorbell } from './svm/avic.js';
import type { Engine } from './wasm/engine.js';

const NEVER = Number.POSITIVE_INFINITY;

export class Vcpus {
  private readonly parked: readonly BigUint64Array[];
  private readonly readers: readonly SlotReader[];
  /** The one whose registers the engine has. */
  current = 0;

  constructor(
    private readonly state: MachineState,
    private readonly engine: Engine,
    private readonly memory: PhysicalMemory,
    private readonly nested: NestedVirtualization,
    private readonly now: () => number,
  ) {
    this.parked = state.vcpus.map(() => new BigUint64Array(SLOT_COUNT));
    this.readers = state.vcpus.map((_, vcpu) => ({ get: (slot) => this.registersOf(vcpu)[slot] as bigint }));
  }

  /** Takes over registers as an array has them: those of power-on, or of a boundary that was folded. */
  load(vcpus: readonly VcpuState[]): void {
    this.current = this.state.schedule.vcpu;
    vcpus.forEach(({ registers, msrs }, vcpu) => {
      const file = vcpu === this.current ? this.engine.registers : this.fileOf(vcpu);
      for (let slot = 0; slot < SLOT_COUNT; slot++) file[slot as Slot] = registers[slot as Slot] as bigint;
      this.state.vcpus[vcpu] = { registers: file, msrs };
    });
    this.engine.switchTo(this.current);
  }

  private fileOf(vcpu: number): RegisterFile {
    return this.parked[vcpu] as unknown as RegisterFile;
  }

  private registersOf(vcpu: number): VcpuState['registers'] {
    return (this.state.vcpus[vcpu] as VcpuState).registers;
  }

  reader(vcpu: number): SlotReader {
    return this.readers[vcpu] as SlotReader;
  }

  /** The level that the vCPU runs, or is to run. */
  levelOf(vcpu: number): Level {
    return (this.reader(vcpu).get(R.svmMode) & SvmMode.GUEST) !== 0n ? 2 : 1;
  }

  /** Brings the registers of the scheduled vCPU into the engine. The run of the one before is stated already. */
  follow(): void {
    const { vcpu } = this.state.schedule;
    if (vcpu === this.current) return;
    const live = this.engine.registers as unknown as BigUint64Array;
    const leaving = this.parked[this.current] as BigUint64Array;
    leaving.set(live);
    live.set(this.parked[vcpu] as BigUint64Array);
    const place = (index: number, registers: RegisterFile): void => {
      const { msrs } = this.state.vcpus[index] as VcpuState;
      this.state.vcpus[index] = { registers, msrs };
    };
    place(this.current, this.fileOf(this.current));
    place(vcpu, this.engine.registers);
    this.current = vcpu;
    this.engine.switchTo(vcpu);
  }

  /**
   * The next one after the current that can do anything; undefined when there is none.
   * @param monitors whether lines that MWAIT watches are looked at: they change between events, so only where every run
   * of the session looks.
   */
  next(monitors: boolean): number | undefined {
    const count = this.state.vcpus.length;
    for (let step = 1; step < count; step++) {
      const vcpu = (this.current + step) % count;
      if (this.canRun(vcpu) || (monitors && monitorHit(this.reader(vcpu), this.memory))) return vcpu;
    }
    return undefined;
  }

  /** What AVIC's signal to a physical APIC ID changes, and where: at most one guest hears it. */
  answerDoorbell(apicId: number): readonly { readonly vcpu: number; readonly registers: RegisterDelta }[] {
    const vcpu = this.state.devices.localApics.findIndex((apic) => physicalID(apic) === apicId);
    const registers = vcpu < 0 ? undefined : answerDoorbell(this.reader(vcpu), this.memory);
    return registers === undefined ? [] : [{ vcpu, registers }];
  }

  /** It runs, or an event of its own is due. */
  canRun(vcpu: number): boolean {
    return this.reader(vcpu).get(R.activity) === Activity.RUNNING || this.hasDueEvent(vcpu);
  }

  /** An event of its own is due: an interrupt, a trap. */
  hasDueEvent(vcpu: number): boolean {
    const cpu = this.reader(vcpu);
    const held = this.isHeld(vcpu);
    const externalPending = !held && cpuInterruptPending(this.state.devices, vcpu) !== undefined;
    return decideBoundary(cpu, { externalPending, held, nested: this.nested }) !== undefined;
  }

  /** Chaos keeps interrupts from it for a while. */
  isHeld(vcpu: number): boolean {
    return (this.state.holds[vcpu] as number) > this.now();
  }

  /** When the next vCPU may take interrupts again; infinite when none is held. */
  get nextRelease(): number {
    const now = this.now();
    return this.state.holds.reduce((next, until) => (until > now ? Math.min(next, until) : next), NEVER);
  }

  /** Until when the current one may run before it is asked again whether others can. @param instructions retired so far. */
  turnEnd(instructions: number, quantum: number): number {
    if (this.state.vcpus.length === 1) return NEVER;
    const { until } = this.state.schedule;
    if (until > instructions) return until;
    return until + quantum * (Math.floor((instructions - until) / quantum) + 1);
  }

  /** None will ever take what a device may raise. */
  get areDeaf(): boolean {
    return this.state.vcpus.every((_, vcpu) => this.isDeaf(vcpu));
  }

  /**
   * It waits and no interrupt that a device may raise will ever be taken; an NMI could still wake it. A page that it waits
   * for will come.
   */
  private isDeaf(vcpu: number): boolean {
    const cpu = this.reader(vcpu);
    const activity = cpu.get(R.activity);
    if (activity === Activity.RUNNING || activity === Activity.PAGE_WAIT) return false;
    return this.nested.interruptBlocked(cpu, 'intr') !== undefined;
  }

  /** The current vCPU's MWAIT is over because of a write. */
  get isWoken(): boolean {
    return monitorHit(this.reader(this.current), this.memory);
  }
}

/**
 * A stretch of a tape expanded to what the tape leaves out: each instruction that retired, with its registers and memory
 * writes, and the events between. The evaluator executes it, step by step, and every event
 * is compared with the tape's.
 *
 * Memory writes are all that happen to RAM, in order: stores, accessed and dirty bits, VMCBs, what L0 tells the guest. Those
 * of an event's delivery stand with the event, and so does the image with the event that loads it.
 */
import type { JournalReader, Position } from '../journal/index.js';
import {
  type DecodedInstruction,
  type ExecutionWatcher,
  type Level,
  type Machine,
  type MemoryWatcher,
  R,
  REGISTER_NAMES,
  type Slot,
  type StatedEvent,
  sPA,
} from '../machine/index.js';
import { instructionText } from './disassemble.js';
import { Timeline } from './timeline.js';
import type { Control } from './work.js';

export interface MemoryWrite {
  /** Undefined for what the processor writes without paging: page tables, VMCBs. */
  readonly linear: bigint | undefined;
  readonly physical: number;
  readonly bytes: Uint8Array;
  /** It went to a device, not to RAM. */
  readonly device: boolean;
}

export interface RegisterChange {
  readonly register: string;
  readonly value: bigint;
}

export interface TracedInstruction {
  readonly kind: 'instruction';
  /** The place before it: a boundary, or amid a run. */
  readonly position: Position;
  readonly vcpu: number;
  /** The level that executed it. */
  readonly level: Level;
  readonly rip: bigint;
  readonly bytes: Uint8Array;
  readonly text: string;
  /** All that changed, RIP too. */
  readonly registers: readonly RegisterChange[];
  readonly writes: readonly MemoryWrite[];
  /** The event that it is, when it is no part of a run. */
  readonly event: StatedEvent | undefined;
}

export interface TracedEvent {
  readonly kind: 'event';
  /** The boundary before it. */
  readonly position: Position;
  readonly event: StatedEvent;
  readonly writes: readonly MemoryWrite[];
}

export type TraceStep = TracedInstruction | TracedEvent;

/** The instruction that executes. */
interface Begun {
  readonly insn: DecodedInstruction;
  readonly vcpu: number;
  readonly level: Level;
  readonly rip: bigint;
}

export class Tracer implements ExecutionWatcher, MemoryWatcher {
  private readonly before = new BigUint64Array(REGISTER_NAMES.length);
  private begun: Begun | undefined;
  private writes: MemoryWrite[] = [];

  /**
   * @param tell is given each step from `from` to `to`, which may be boundaries or lie amid runs, in order.
   * @param timeline to go there with; nobody else may use it before `release`.
   */
  constructor(
    reader: JournalReader,
    private readonly from: Position,
    private readonly to: Position,
    private readonly tell: (step: TraceStep) => void,
    private readonly timeline: Timeline = new Timeline(reader),
  ) {}

  private get machine(): Machine {
    return this.timeline.machine;
  }

  /** Goes to where the trace begins. */
  seek(control: Control = {}): void {
    this.timeline.seek(this.from, control);
    this.timeline.observe((stated) => this.observed(stated));
    this.machine.watch(this, 'evaluator');
    this.machine.memory.watch(this);
  }

  /**
   * Goes on by so many steps of the machine at most. @returns false when the trace is complete.
   * @throws FollowingError when the machine does not do what the tape says.
   */
  advance(steps: number): boolean {
    for (let left = steps; left > 0; left--) {
      if (this.isThere || !this.timeline.step()) return false;
    }
    return true;
  }

  /** A run that ends at `to` may not have been stated yet; the tape may end with it, so nothing may be executed for that. */
  private get isThere(): boolean {
    const { to, machine } = this;
    const { icount, seq } = this.timeline.position;
    return icount >= to.icount && seq + (machine.hasPendingRun ? 1n : 0n) >= to.seq;
  }

  close(): void {
    this.timeline.close();
  }

  /** Gives the timeline back, which stands where the trace was. */
  release(): void {
    this.machine.watch(undefined, 'engine');
    this.machine.memory.watch(undefined);
    this.timeline.observe(() => {});
  }

  // ExecutionWatcher

  begins(insn: DecodedInstruction): void {
    const { machine } = this;
    const rip = machine.registers[R.rip] as bigint;
    this.before.set(machine.registers as unknown as ArrayLike<bigint>);
    this.begun = { insn, vcpu: machine.vcpu, level: machine.level, rip };
  }

  completes(): void {}

  retired(): void {
    this.instruction(undefined);
  }

  // MemoryWatcher: the evaluator executes everything, and tells of all pages

  readonly writtenPages: ReadonlySet<number> = new Set();
  readonly readPages: ReadonlySet<number> = new Set();
  loaded(): void {}

  stored(address: number, length: number, linear: bigint | undefined): void {
    const bytes = this.machine.memory.window(sPA(address), length).slice();
    this.keep({ linear, physical: address, bytes, device: false });
  }

  sent(address: number, size: number, value: bigint, linear: bigint | undefined): void {
    const bytes = Uint8Array.from({ length: size }, (_, index) => Number((value >> BigInt(8 * index)) & 0xffn));
    this.keep({ linear, physical: address, bytes, device: true });
  }

  /** A wide store comes in pieces. */
  private keep(write: MemoryWrite): void {
    const last = this.writes.at(-1);
    const goesOn =
      last !== undefined &&
      last.device === write.device &&
      last.linear !== undefined &&
      last.linear + BigInt(last.bytes.length) === write.linear &&
      last.physical + last.bytes.length === write.physical;
    if (!goesOn) this.writes.push(write);
    else this.writes[this.writes.length - 1] = { ...last, bytes: Uint8Array.of(...last.bytes, ...write.bytes) };
  }

  // Steps

  /** The place before what has just happened: an event, or an instruction of the run that goes on. */
  private placeBefore(event: StatedEvent | undefined): Position {
    const retired = event?.retired ?? 1;
    const events = event === undefined ? 0 : 1;
    return { icount: BigInt(this.machine.retired - retired), seq: this.timeline.position.seq - BigInt(events) };
  }

  /** The machine has stated what the tape says. */
  private observed(event: StatedEvent): void {
    if (event.event.type === 'cpu.ran') return;
    if (event.retired > 0) this.instruction(event);
    else this.step({ kind: 'event', position: this.placeBefore(event), event, writes: this.takeWrites() });
  }

  private instruction(event: StatedEvent | undefined): void {
    const { begun, before, machine } = this;
    if (begun === undefined) return;
    this.begun = undefined;
    const { insn, rip, ...place } = begun;
    const registers: RegisterChange[] = [];
    for (let slot = 0; slot < before.length; slot++) {
      const value = machine.registers[slot as Slot] as bigint;
      if (value !== before[slot]) registers.push({ register: REGISTER_NAMES[slot] ?? `slot ${slot}`, value });
    }
    const text = instructionText(insn, rip);
    const position = this.placeBefore(event);
    const writes = this.takeWrites();
    this.step({ kind: 'instruction', position, ...place, rip, bytes: insn.bytes, text, registers, writes, event });
  }

  private takeWrites(): readonly MemoryWrite[] {
    const { writes } = this;
    this.writes = [];
    return writes;
  }

  private step(step: TraceStep): void {
    const { from, to } = this;
    const { icount, seq } = step.position;
    const begins = icount >= from.icount && seq >= from.seq;
    const ends = icount >= to.icount && seq >= to.seq;
    if (begins && !ends) this.tell(step);
  }
}

/**
 * One machine that runs fuzz programs, on the engine or on the evaluator alone, and keeps what it states. Between programs
 * it is as at power-on: devices, time, registers and RAM; but what the engine has compiled and decoded stays, and must do no
 * harm.
 */
import {
  Boundary,
  DEFAULT_CONFIG,
  initialState,
  instructionCount,
  Machine,
  R,
  SLOT_COUNT,
  type Slot,
  type StatedEvent,
  sPA,
  type Tier,
  UnsupportedError,
} from '../../src/machine/index.js';
import { RAM_BYTES } from './memory-map.js';
import type { Hop, Script, Stretch } from './program.js';
import type { State } from './state.js';

/** Most states that the fuzzer sets in one program, however few instructions it retires. */
const MOST_HOPS = 600;
/** A program that has broken its tables for good is given up after so many states in a row in which nothing retired. */
const MOST_BARREN_HOPS = 12;
/** FSW.ES, and B, which is the same. */
const X87_SUMMARY = 0x8080n;
const ENTROPY_SEED = 0x0123_4567_89ab_cdefn;

const PENDING: Readonly<Record<Stretch['ending'], bigint>> = {
  nothing: 0n,
  nmi: Boundary.NMI_PENDING,
  smi: Boundary.SMI_PENDING,
  init: Boundary.INIT_PENDING,
};

const PAGING = [R.cr0, R.cr3, R.cr4, R.efer, R.pdpte0, R.pdpte1, R.pdpte2, R.pdpte3];

export interface Outcome {
  readonly retired: number;
  /** States that were set. */
  readonly hops: number;
  /** Why the machine refused to go on; the text of an error that is no `UnsupportedError` is a bug. */
  readonly error: Error | undefined;
  /** The machine can run nothing more: a device has ended it. */
  readonly spent: boolean;
}

export class Subject {
  readonly machine: Machine;
  readonly stated: StatedEvent[] = [];
  /** The registers as 32-bit words. */
  private readonly words: Uint32Array;

  constructor(cpu: string, tier: Tier) {
    const config = { ...DEFAULT_CONFIG, ramBytes: RAM_BYTES, cpu };
    this.machine = new Machine(config, (event) => this.stated.push(event), tier);
    const { buffer, byteOffset, length } = this.machine.registers;
    this.words = new Uint32Array(buffer, byteOffset, 2 * length);
  }

  get ram(): Uint8Array {
    return this.machine.memory.window(0, RAM_BYTES);
  }

  /** Runs a program for at most `limit` instructions, or up to the state behind `mostHops` others. */
  run(script: Script, limit: number, mostHops = MOST_HOPS): Outcome {
    this.restart(script.image);
    const { machine } = this;
    const start = machine.retired;
    const end = start + limit;
    let error: Error | undefined;
    let hops = 0;
    try {
      let barren = 0;
      while (machine.retired < end && hops < mostHops && barren < MOST_BARREN_HOPS) {
        const hop = script.hop(hops);
        if (hop === undefined) break;
        hops++;
        const before = machine.retired;
        if (!this.runHop(hop, end)) break;
        barren = machine.retired === before ? barren + 1 : 0;
      }
    } catch (reason) {
      if (!(reason instanceof Error)) throw reason;
      error = reason;
    }
    return { retired: machine.retired - start, hops, error, spent: isOver(machine) };
  }

  /** @returns false when the machine has ended for good. */
  private runHop(hop: Hop, end: number): boolean {
    const { machine } = this;
    machine.state.ended = null;
    for (const { address, bytes } of hop.memory) machine.memory.copyIn(sPA(address), bytes);
    this.set(hop.state);
    for (const { instructions, ending } of hop.stretches) {
      const limit = Math.min(end, machine.retired + instructions);
      if (machine.advance(instructionCount(limit)) !== 'limit') break;
      if (machine.retired >= end) break;
      if (ending !== 'nothing') this.pend(PENDING[ending]);
    }
    return !isOver(machine);
  }

  private restart(image: Uint8Array): void {
    const { machine } = this;
    machine.memory.copyIn(sPA(0), image);
    const { devices, vcpus } = initialState(machine.config);
    const skippedNanoseconds = -machine.retired * machine.config.nanosecondsPerInstruction;
    Object.assign(machine.state, { devices, vmcbs: {}, skippedNanoseconds, ended: null });
    Object.assign(machine.state.vcpus[0] ?? {}, { msrs: {} });
    for (let slot = 0; slot < SLOT_COUNT; slot++) this.setSlot(slot as Slot, vcpus[0]?.registers[slot as Slot] ?? 0n);
    machine.engine.flush();
    machine.deliver({ type: 'input.entropy', seed: ENTROPY_SEED });
    this.stated.length = 0;
  }

  /** Sets registers from outside. Translations go when they depend on what changes, as a load of CR3 would have it. */
  private set(state: State): void {
    const { engine } = this.machine;
    const translates = PAGING.some((slot) => state.changes(slot, this.words));
    state.copyTo(this.words);
    for (const slot of state.slots) engine.syncShadow(slot);
    if (translates) engine.flush();
    engine.stateChanged();
    this.releaseFerr();
  }

  /** A state without the x87 error that FERR# tells of: the processor lets go of it behind the instruction that ends it. */
  private releaseFerr(): void {
    const { machine } = this;
    if (machine.ferr && ((machine.registers[R.fsw] as bigint) & X87_SUMMARY) === 0n) machine.driveFerr(false);
  }

  private pend(bit: bigint): void {
    this.setSlot(R.boundary, (this.machine.registers[R.boundary] as bigint) | bit);
    this.machine.engine.stateChanged();
  }

  private setSlot(slot: Slot, value: bigint): void {
    const { engine } = this.machine;
    engine.registers[slot] = value;
    engine.syncShadow(slot);
  }
}

/** A device has ended the machine; out of shutdown it comes with its next state. */
function isOver({ state: { ended } }: Machine): boolean {
  return ended !== null && ended.reason !== 'shutdown';
}

/** What the machine does not do, and says so; every other error is a bug. */
export const isRefusal = (error: Error): boolean => error instanceof UnsupportedError;

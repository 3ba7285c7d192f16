/**
 * A bench that runs whole programs: on the engine as the machine's loop does, or on the evaluator alone, which is the
 * reference. Programs are bytes with their assembly behind `#`, and end with HLT.
 */
import { expect } from 'vitest';
import { Processor } from '../../src/machine/cpu/processor.js';
import type { Tier } from '../../src/machine/cpu/processor-host.js';
import type { MachineEvent } from '../../src/machine/events.js';
import type { Feature } from '../../src/machine/isa/instruction.js';
import {
  Activity,
  CR0,
  CR4,
  EFER,
  R,
  REGISTER_NAMES,
  type RegisterName,
  Segment,
  SLOT_COUNT,
  type Slot,
  SvmMode,
  segmentSlot,
} from '../../src/machine/layout/cpu-state.js';
import { sPA } from '../../src/machine/units.js';
import { Workbench } from '../../src/machine/workbench.js';

export const CODE = 0x1_0000;
export const DATA = 0x4_0000;
export const STACK_TOP = 0x9000;
const TABLES = { PML4: 0x1000, PDPT: 0x2000, PD: 0x3000, PT: 0x4000 };
const RAM_BYTES = 0x6_0000;
/** Accessed and dirty already: the tests that care about these bits clear them. */
const PRESENT = 0x67n;
/** Room for every block that the tests make: most instructions that a run may take. */
export const FOREVER = 20_000;

/** Bytes written as hexadecimal, with comments behind `#`. */
export const hex = (text: string): Uint8Array =>
  Uint8Array.from(text.replace(/#.*/g, '').trim().split(/\s+/), (byte) => Number.parseInt(byte, 16));

export type Bits = 16 | 32 | 64;
export type Values = Partial<Record<RegisterName, bigint>>;

export class EngineBench extends Workbench {
  retired = 0;
  /** Instructions that the engine left to the evaluator. */
  helped = 0;
  private readonly control = new Processor(this);

  constructor(
    readonly tier: Tier,
    features: readonly Feature[] = [],
  ) {
    super(RAM_BYTES, features);
  }

  override stateEvent(event: MachineEvent, retired: 0 | 1 = 0): void {
    this.retired += retired;
    super.stateEvent(event);
  }
  override countPlain(): void {
    this.retired++;
  }

  get(name: RegisterName): bigint {
    return this.registers[R[name]] as bigint;
  }
  set(values: Values): this {
    for (const [name, value] of Object.entries(values)) this.registers[R[name as RegisterName]] = value;
    this.stateChanged();
    return this;
  }
  write(address: number, size: number, value: bigint): this {
    this.memory.write(sPA(address), size, value);
    return this;
  }
  read(address: number, size: number): bigint {
    return this.memory.read(sPA(address), size);
  }
  /** Puts bytes into RAM, as a write of the machine's own. */
  put(address: number, bytes: Uint8Array): this {
    this.memory.copyIn(sPA(address), bytes);
    return this;
  }

  /** All of RAM zero, nothing translated. */
  clear(): this {
    this.put(0, new Uint8Array(RAM_BYTES));
    this.engine.flush();
    this.retired = 0;
    this.isShutDown = false;
    return this;
  }

  /** CPL 0 with flat segments, RIP at `CODE`; 64-bit mode through tables that map the lowest 2 MiB onto themselves. */
  mode(bits: Bits, values: Values = {}): this {
    for (let slot = 0; slot < SLOT_COUNT; slot++) this.registers[slot as Slot] = 0n;
    const segment = (number: number, attributes: bigint): void => {
      this.registers[segmentSlot(number)] = 0x10n | (attributes << 16n) | (0xffff_ffffn << 32n);
    };
    segment(Segment.CS, bits === 64 ? 0xa9bn : bits === 32 ? 0xc9bn : 0x89bn);
    for (const number of [Segment.ES, Segment.SS, Segment.DS, Segment.FS, Segment.GS]) {
      segment(number, bits === 16 ? 0x893n : 0xc93n);
    }
    if (this.read(TABLES.PML4, 8) === 0n) this.identity();
    const long = bits === 64;
    return this.set({
      rip: BigInt(bits === 16 ? 0x7000 : CODE),
      rsp: BigInt(STACK_TOP),
      rflags: 2n,
      mxcsr: 0x1f80n,
      cr0: CR0.PE | CR0.ET | CR0.NE | (long ? CR0.PG : 0n),
      cr3: BigInt(TABLES.PML4),
      cr4: CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.OSXSAVE | (long ? CR4.PAE : 0n),
      xcr0: 7n,
      efer: long ? EFER.LME | EFER.LMA : 0n,
      dr6: 0xffff_0ff0n,
      dr7: 0x400n,
      svmMode: SvmMode.GIF,
      ...values,
    });
  }

  private identity(): void {
    this.write(TABLES.PML4, 8, BigInt(TABLES.PDPT) | PRESENT);
    this.write(TABLES.PDPT, 8, BigInt(TABLES.PD) | PRESENT);
    this.write(TABLES.PD, 8, BigInt(TABLES.PT) | PRESENT);
    for (let page = 0; page < 512; page++) this.map(page, page);
  }

  /** Maps linear page `page` (of the lowest 2 MiB) to physical page `target`; undefined takes it away. */
  map(page: number, target: number | undefined, bits = PRESENT): this {
    return this.write(TABLES.PT + 8 * page, 8, target === undefined ? 0n : BigInt(target * 4096) | bits);
  }

  /** True until HLT, shutdown, or an exception without a handler. */
  get isRunning(): boolean {
    return !this.isShutDown && this.get('activity') === Activity.RUNNING;
  }

  /** Runs until `count` more instructions have retired, or nothing runs any more. */
  run(count: number): this {
    const end = this.retired + count;
    while (this.isRunning && this.retired < end) {
      if (this.control.takeDueEvent()) continue;
      if (this.tier === 'evaluator' || this.control.mustStep) this.control.step(undefined);
      else this.runEngine(end - this.retired);
    }
    return this;
  }

  private runEngine(budget: number): void {
    const { stop, retired } = this.engine.run(budget);
    this.retired += retired;
    if (stop === 'budget') return;
    this.helped++;
    this.control.step(this.engine.assisted(), this.engine.fault);
  }
}

/** What differs between two benches, by name; empty when they are the same to the guest. */
export function differences(expected: EngineBench, found: EngineBench): string[] {
  const all = REGISTER_NAMES.flatMap((name) => {
    const [a, b] = [expected.get(name), found.get(name)];
    return a === b ? [] : [`${name}: ${a.toString(16)} and ${b.toString(16)}`];
  });
  if (expected.retired !== found.retired) all.push(`retired: ${expected.retired} and ${found.retired}`);
  const [a, b] = [expected.memory.window(0, RAM_BYTES), found.memory.window(0, RAM_BYTES)];
  if (Buffer.compare(a, b) !== 0) {
    const at = a.findIndex((byte, index) => byte !== b[index]);
    all.push(`memory at ${at.toString(16)}: ${a[at]?.toString(16)} and ${b[at]?.toString(16)}`);
  }
  return all;
}

/** The benches of `tiers`, made once: compiling an engine takes its time. */
const shared = { evaluator: new EngineBench('evaluator'), engine: new EngineBench('engine') };

/** Both tiers, prepared alike; the same two benches each time. */
export function tiers(prepare: (bench: EngineBench) => void): typeof shared {
  for (const bench of Object.values(shared)) prepare(bench.clear());
  return shared;
}

/** Runs a program on both tiers to its HLT and expects them to agree. @returns the engine's bench. */
export function runBoth(prepare: (bench: EngineBench) => void, count = FOREVER): EngineBench {
  const { evaluator, engine } = tiers(prepare);
  evaluator.run(count);
  engine.run(count);
  expect(differences(evaluator, engine)).toEqual([]);
  return engine;
}

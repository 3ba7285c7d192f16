/**
 * Where guest instructions go: looks at the machine after numbers of instructions that are drawn by a fixed seed, so that no
 * loop keeps step with them, and that grow as the session does. Equal sessions have equal samples.
 */
import type { Level, Machine } from '../../src/machine/index.js';
import type { Sampler } from '../../src/replay/index.js';

export interface Sample {
  readonly level: Level;
  /** Linear address of an instruction. */
  readonly address: bigint;
  /** Instructions that it stands for: those since the sample before. */
  instructions: number;
}

/** Instructions between the first samples, about. */
const FIRST_DISTANCE = 1000;
/** Samples after which distances double. */
const DOUBLING = 4096;

export class InstructionSampler implements Sampler {
  next: number;
  count = 0;
  /** Instructions whose samples stood in regions. */
  inRegions = 0;
  private readonly byLevel: Readonly<Record<Level, Map<bigint, Sample>>> = { 1: new Map(), 2: new Map() };
  private last: number;
  private random = 1;

  /** @param first instructions that have retired already. */
  constructor(first: number) {
    this.last = first;
    this.next = this.after(first);
  }

  take(machine: Machine): void {
    const { retired, level, nextInstruction: address } = machine;
    const instructions = retired - this.last;
    this.count++;
    if (machine.engine.isInRegion) this.inRegions += instructions;
    const samples = this.byLevel[level];
    const known = samples.get(address);
    if (known === undefined) samples.set(address, { level, address, instructions });
    else known.instructions += instructions;
    this.last = retired;
    this.next = this.after(retired);
  }

  get samples(): readonly Sample[] {
    return [...this.byLevel[1].values(), ...this.byLevel[2].values()];
  }

  /** An odd number: slices end at even ones, and what is to happen there must not be looked at before. */
  private after(retired: number): number {
    const distance = FIRST_DISTANCE * 2 ** Math.floor(this.count / DOUBLING);
    // Lehmer's generator, as Park and Miller have it.
    this.random = (this.random * 48_271) % 0x7fff_ffff;
    const next = retired + Math.ceil(distance * (0.5 + this.random / 0x7fff_ffff));
    return next % 2 === 0 ? next + 1 : next;
  }
}

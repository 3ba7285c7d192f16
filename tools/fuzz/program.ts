/**
 * A fuzz program: memory with tables, handlers and random code, and a list of *hops*, states to which the fuzzer sets the
 * processor whenever the program has halted, or has run for long enough. All of it follows from a seed, the CPU profile
 * and the tables of the decoder.
 */
import type { CpuProfile, Decoder } from '../../src/machine/index.js';
import { type CodeStyle, PIECE_BYTES, PIECES, type Repertoire, randomStyle, writeCode } from './code.js';
import { type ApicMode, writeHandlers, writeRecords } from './handlers.js';
import {
  At,
  DATA_BYTES,
  Image,
  STACK_BYTES,
  writeNestedTables,
  writePageTables,
  writeSegments,
  writeTasks,
} from './memory-map.js';
import { addressingOf, type Environment, MODES, type Mode, randomEnvironment, type World } from './modes.js';
import { type HypervisorStyle, hypervisorCode, randomVmcb, VMCB_LIST, writePermissionMaps } from './nested.js';
import { prologueCode } from './prologue.js';
import { Random } from './random.js';
import type { State } from './state.js';
import { floatingRegisters, generalRegisters, systemState } from './states.js';
import { word } from './values.js';

/** Instructions that run, at most, and what then happens to the processor from outside. */
export interface Stretch {
  readonly instructions: number;
  readonly ending: 'nothing' | 'nmi' | 'smi' | 'init';
}

export interface Hop {
  readonly state: State;
  readonly memory: readonly { readonly address: number; readonly bytes: Uint8Array }[];
  readonly stretches: readonly Stretch[];
}

/** What a machine runs: memory, and states that follow each other, as many as there are. */
export interface Script {
  readonly image: Uint8Array;
  hop(index: number): Hop | undefined;
}

/** What all programs on one CPU profile share. */
export interface Workshop {
  readonly profile: CpuProfile;
  readonly decoder: Decoder;
  readonly repertoire: Repertoire;
}

/** Longest run without anything from outside: no loop and no repeated string instruction takes all of a program. */
const LONGEST_STRETCH = 150;
const MOST_STRETCHES = 4;
const PROLOGUE_INSTRUCTIONS = 200;

export class Program implements Script {
  private readonly memory = new Image();
  private readonly random: Random;
  private readonly environment: Environment;
  private readonly modes: readonly Mode[];
  private readonly hypervisor: HypervisorStyle | undefined;
  private readonly apic: ApicMode;
  private readonly hasPrologue: boolean;
  private readonly hops: Hop[] = [];

  constructor(
    seed: bigint,
    private readonly workshop: Workshop,
  ) {
    const random = new Random(seed);
    this.random = random;
    const { profile, repertoire } = workshop;
    this.environment = randomEnvironment(profile, random);
    this.modes = Array.from({ length: 1 + random.below(3) }, () => random.weighted(MODES));
    this.apic = profile.system.has('x2apic') && random.oneIn(2) ? 'x2apic' : 'xapic';
    this.hasPrologue = random.oneIn(3);
    this.hypervisor =
      profile.features.has('svm') && random.oneIn(3)
        ? {
            bits: random.oneIn(4) ? 32 : 64,
            loads: !random.oneIn(8),
            saves: random.oneIn(3),
            opens: random.oneIn(2),
          }
        : undefined;
    this.writeMemory(randomStyle(repertoire, random));
  }

  get image(): Uint8Array {
    return this.memory.bytes;
  }

  /** The state after `index` others. */
  hop(index: number): Hop {
    while (this.hops.length <= index) this.hops.push(this.hops.length === 0 ? this.firstHop() : this.nextHop());
    return this.hops[index] as Hop;
  }

  // Memory

  private writeMemory(style: CodeStyle): void {
    const { memory: image, random, environment, modes } = this;
    const oddity = random.pick([0, 0, 6, 3]);
    writePageTables(image, random, oddity);
    writeNestedTables(image, random, random.pick([0, 0, 6, 3]));
    writeSegments(image, random);
    writeTasks(image, random, environment.legacyPaging === 'pae' ? At.PAE_POINTERS : At.LEGACY_DIRECTORY);
    writeHandlers(image, { halting: random.pick([1, 1, 2, 4]), apic: this.apic }, random);
    writeRecords(
      image,
      environment,
      (mode) => this.placeOf(mode),
      (world) => this.modesOf(world),
      random,
    );
    writePermissionMaps((address, value) => image.write8(address, value), random);
    if (this.hypervisor !== undefined) image.put(At.HYPERVISOR, hypervisorCode(this.hypervisor));
    if (this.hasPrologue) image.put(At.PROLOGUE, prologueCode(this.apic, random));
    if (random.oneIn(2)) this.writeSmmHandler();
    this.writeData();
    const { decoder, repertoire } = this.workshop;
    writeCode(image, decoder, { repertoire, style, random }, (piece) => (modes[piece % modes.length] as Mode).bits);
  }

  /** A few bytes of anything, then RSM. */
  private writeSmmHandler(): void {
    const { memory: image, random } = this;
    const at = At.SMM + 0x8000;
    image.put(at, random.pick(['90', '66b8 34120000', '40 41', 'f7f1', '0f0b', '8ed8 89c3']));
    image.put(at + 12, '0faa');
    for (let hole = at; hole < at + 12; hole++) if (image.bytes[hole] === 0) image.write8(hole, 0x90);
  }

  private writeData(): void {
    const { memory: image, random } = this;
    const addressing = addressingOf(random.pick(this.modes), this.environment);
    for (let at = At.DATA; at < At.DATA + DATA_BYTES; at += 4) image.write32(at, random.next32());
    for (let count = 0; count < 400; count++) {
      image.write64(At.DATA + random.below(DATA_BYTES - 8), word(random, addressing));
    }
    for (let at = At.STACK; at < At.STACK + STACK_BYTES; at += 8) image.write64(at, word(random, addressing));
  }

  // Places

  private modesOf(world: World): readonly Mode[] {
    const chosen = this.modes.filter((mode) => mode.world === world);
    return chosen.length > 0 ? chosen : MODES.map(([, mode]) => mode).filter((mode) => mode.world === world);
  }

  /** The start of a piece of the mode's code, amid one, or, rarely, anywhere. */
  private placeOf({ bits }: Mode): number {
    const { random, modes } = this;
    let piece = random.below(PIECES);
    if (!random.oneIn(24)) {
      for (let tries = 0; tries < modes.length; tries++) {
        if (modes[piece % modes.length]?.bits === bits) break;
        piece = (piece + 1) % PIECES;
      }
    }
    return piece * PIECE_BYTES + (random.oneIn(3) ? random.below(PIECE_BYTES) : 0);
  }

  // Hops

  private firstHop(): Hop {
    const { random } = this;
    if (!this.hasPrologue) {
      const hop = this.nextHop();
      floatingRegisters(hop.state, random);
      return hop;
    }
    const [, kernel] = MODES[0] as readonly [number, Mode];
    const state = systemState(kernel, { ...this.environment, debugged: false }, 0, random);
    floatingRegisters(state, random);
    state.with({ rip: BigInt(At.PROLOGUE), rflags: 2n });
    return { state, memory: [], stretches: [{ instructions: PROLOGUE_INSTRUCTIONS, ending: 'nothing' }] };
  }

  private nextHop(): Hop {
    const { random, hypervisor } = this;
    if (hypervisor !== undefined && !random.oneIn(8)) return this.worldSwitch(hypervisor);
    return { state: this.stateOf(random.pick(this.modes)), memory: [], stretches: this.stretches() };
  }

  private stateOf(mode: Mode): State {
    const { random, environment } = this;
    const state = systemState(mode, environment, this.placeOf(mode), random);
    generalRegisters(state, mode, addressingOf(mode, environment), random);
    if (random.oneIn(6)) floatingRegisters(state, random);
    return state;
  }

  /** L1 stands at its VMRUN, with a new VMCB. */
  private worldSwitch({ bits }: HypervisorStyle): Hop {
    const { random, environment } = this;
    const guest = random.pick(this.modes);
    const [, kernel64] = MODES[0] as readonly [number, Mode];
    const kernel = bits === 64 ? kernel64 : KERNEL_32;
    const hostPaging = bits === 64 ? 'long' : environment.legacyPaging;
    const address = random.pick(VMCB_LIST);
    const host = this.stateOf(kernel);
    const rflags = 2n | (random.oneIn(2) ? 0x200n : 0n);
    return {
      state: host.with({ rip: BigInt(At.HYPERVISOR), rax: BigInt(address), rflags }),
      memory: [{ address, bytes: randomVmcb(this.stateOf(guest), { mode: guest, hostPaging }, random) }],
      stretches: this.stretches(),
    };
  }

  private stretches(): readonly Stretch[] {
    const { random } = this;
    return Array.from({ length: 1 + random.below(MOST_STRETCHES) }, () => ({
      instructions: 1 + random.below(LONGEST_STRETCH),
      ending: random.weighted([
        [8, 'nothing'],
        [8, 'nmi'],
        [2, 'smi'],
        [1, 'init'],
      ] as const),
    }));
  }
}

const KERNEL_32 = MODES.map(([, mode]) => mode).find(
  ({ world, bits, cpl }) => world === 'protected' && bits === 32 && cpl === 0,
) as Mode;

/**
 * What boot loaders do alike: find room for modules and for the information that the image gets, and fill RAM.
 * A protocol decides where each may stand and what the information says.
 */
import type { PhysicalMemory } from '../mmu/memory.js';
import { type SPA, sPA } from '../units.js';
import type { Board } from './board.js';
import type { BootModule } from './boot-package.js';
import { installFirmware } from './firmware.js';
import { refuseImage } from './image-reader.js';
import { CONVENTIONAL_END, checkPlan, FreeMemory, HIGH_MEMORY, type LoadPlan, loadSegments } from './segments.js';

/** The machine that boots, and what it boots. */
export interface BootTarget {
  readonly memory: PhysicalMemory;
  readonly board: Board;
  readonly commandLine: string;
  readonly modules: readonly BootModule[];
}

/** Loaders put their information here, where QEMU has it too, or above 1 MiB when the image is in the way. */
const INFORMATION_FROM = 0x9000;
const MORE_RAM = 'Give the machine more --memory.';

/** Loads an image and what goes with it: made of a plan, filled when all has found its place. */
export class Loading {
  private readonly free: FreeMemory;
  private readonly pieces: (readonly [SPA, Uint8Array])[] = [];

  /** @throws InputError for a plan that does not fit. */
  constructor(
    private readonly target: BootTarget,
    private readonly plan: LoadPlan,
  ) {
    const { ramBytes } = target.memory;
    checkPlan(plan, ramBytes);
    this.free = new FreeMemory(plan.segments, ramBytes);
  }

  /** Modules on page boundaries above the image, one after the other. */
  placeModulesAbove(): readonly SPA[] {
    const ends = this.plan.segments.map(({ address, memoryBytes }) => address + memoryBytes);
    const from = Math.max(HIGH_MEMORY, ...ends);
    return this.target.modules.map((module) => this.keep(module, this.free.take(roomOf(module), from)));
  }

  /** Modules on page boundaries as high as there is room below `limit`: kernels unpack themselves upwards. */
  placeModulesHigh(limit: number = this.target.memory.ramBytes): readonly SPA[] {
    return this.target.modules.map((module) => this.keep(module, this.free.takeHigh(roomOf(module), limit)));
  }

  /**
   * Finds room for what the image is told.
   * @param build makes it for the address where it will stand; its length is the same for each.
   */
  placeInformation(build: (address: number) => Uint8Array): SPA {
    const { length } = build(0);
    const { free } = this;
    const at = free.take(length, INFORMATION_FROM, CONVENTIONAL_END) ?? free.take(length, HIGH_MEMORY);
    if (at === undefined) return refuseImage('', `no room in RAM for ${length} bytes of boot information`, MORE_RAM);
    this.pieces.push([at, build(at)]);
    return at;
  }

  /** Fills RAM, which is expected to be as at power-on, or as a session before left it. */
  fill(): void {
    const { memory, board } = this.target;
    installFirmware(memory, board);
    loadSegments(memory, this.plan.segments);
    for (const [address, bytes] of this.pieces) memory.copyIn(sPA(address), bytes);
  }

  private keep({ bytes, commandLine }: BootModule, place: SPA | undefined): SPA {
    if (place === undefined) {
      const name = JSON.stringify(commandLine);
      return refuseImage(`module ${name}`, `no room in RAM for its ${bytes.length} bytes`, MORE_RAM);
    }
    this.pieces.push([place, bytes]);
    return place;
  }
}

/** An empty file has an address, too. */
const roomOf = ({ bytes }: BootModule): number => Math.max(bytes.length, 1);

/** Strings one after the other, each with its zero byte. */
export class StringTable {
  private readonly encoded: (readonly [at: number, text: Uint8Array])[] = [];

  constructor(public end: number) {}

  /** @returns the offset of the string. */
  add(text: string): number {
    const at = this.end;
    const bytes = new TextEncoder().encode(text);
    this.encoded.push([at, bytes]);
    this.end = at + bytes.length + 1;
    return at;
  }

  copyTo(target: Uint8Array): void {
    for (const [at, bytes] of this.encoded) target.set(bytes, at);
  }
}

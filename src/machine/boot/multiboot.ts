/**
 * Boots a Multiboot 1 image straight, without firmware: loads it, writes the information structure that it finds by
 * EBX, and says which registers it enters with. ELF32, ELF64 and images with load addresses in their header are known.
 *
 * The structure stands in conventional memory from 9000h on, where QEMU has it too, or above 1 MiB when the image is in
 * the way; modules stand on page boundaries above the image. RAM is expected to be as at power-on: all zeros.
 * Source: Multiboot Specification 0.6.96, §3.2 Machine state, §3.3 Boot information format.
 */

import { packSegment } from '../cpu/descriptors.js';
import { FCW_INIT } from '../cpu/xstate.js';
import { CR0, R, Segment as SegmentNumber, type Slot, segmentSlot } from '../layout/cpu-state.js';
import type { PhysicalMemory } from '../mmu/memory.js';
import { type SPA, sPA } from '../units.js';
import type { Board } from './board.js';
import { isElf, planElf } from './elf.js';
import { installFirmware } from './firmware.js';
import { ImageReader, refuseImage } from './image-reader.js';
import { findHeader, planByHeader } from './multiboot-header.js';
import { CONVENTIONAL_END, checkPlan, FreeMemory, HIGH_MEMORY, loadSegments } from './segments.js';

/** A file that is handed to the image beside it. */
export interface BootModule {
  readonly bytes: Uint8Array;
  /** Its name and arguments, as the image finds them. */
  readonly commandLine: string;
}

/** What EAX holds at entry. */
const BOOT_MAGIC = 0x2bad_b002n;
const BOOT_LOADER_NAME = 'vmtape';

/** Bits of the information structure's `flags`. */
const Info = {
  MEMORY: 1 << 0,
  COMMAND_LINE: 1 << 2,
  MODULES: 1 << 3,
  MEMORY_MAP: 1 << 6,
  LOADER_NAME: 1 << 9,
} as const;
const INFO_BYTES = 116;
const INFO_FROM = 0x9000;
const MODULE_ENTRY_BYTES = 16;
const MAP_ENTRY_BYTES = 24;
const MapType = { AVAILABLE: 1, RESERVED: 2 } as const;

/** Flat segments of 4 GiB, as packed words: accessed, 32-bit, page-granular. */
const CODE32 = packSegment(0x08, 0xc9b, 0xffff_ffff);
const DATA32 = packSegment(0x10, 0xc93, 0xffff_ffff);

/** Words of the BIOS data area: segment of the extended BIOS data area, KiB of conventional memory. */
const BDA_EBDA_SEGMENT = 0x40e;
const BDA_MEMORY_KIB = 0x413;

/**
 * @param commandLine the whole of it: by custom the image's name comes first.
 * @returns the registers that differ from RESET.
 * @throws InputError naming what is wrong with the image, where, and what to do.
 */
export function bootMultiboot(
  memory: PhysicalMemory,
  board: Board,
  image: Uint8Array,
  commandLine: string,
  modules: readonly BootModule[] = [],
): readonly (readonly [Slot, bigint])[] {
  const reader = new ImageReader(image);
  const header = findHeader(reader);
  const plan = header.hasAddresses || !isElf(reader) ? planWithoutElf(reader, header) : planElf(reader);
  checkPlan(plan, memory.ramBytes);
  const strings = [commandLine, ...modules.map((module) => module.commandLine)];
  for (const text of strings) {
    if (text.includes('\0')) refuseImage('command line', 'it contains a zero byte', 'Leave it out.');
  }

  const free = new FreeMemory(plan.segments, memory.ramBytes);
  const imageEnd = Math.max(HIGH_MEMORY, ...plan.segments.map(({ address, memoryBytes }) => address + memoryBytes));
  const places = modules.map((module) => placeModule(free, module, imageEnd));
  const info = informationAt(memory.ramBytes, commandLine, modules, places);
  const { length } = info(0);
  const infoAt = free.take(length, INFO_FROM, CONVENTIONAL_END) ?? free.take(length, HIGH_MEMORY);
  if (infoAt === undefined) {
    refuseImage('', `no room in RAM for ${length} bytes of boot information`, 'Give the machine more --memory.');
  }

  installFirmware(memory, board);
  loadSegments(memory, plan.segments);
  for (const [index, module] of modules.entries()) memory.copyIn(places[index] as SPA, module.bytes);
  memory.copyIn(infoAt, info(infoAt));
  memory.write(sPA(BDA_EBDA_SEGMENT), 2, BigInt(CONVENTIONAL_END >> 4));
  memory.write(sPA(BDA_MEMORY_KIB), 2, BigInt(CONVENTIONAL_END >> 10));
  return entryRegisters(plan.entry, infoAt);
}

function planWithoutElf(reader: ImageReader, header: ReturnType<typeof findHeader>) {
  if (header.hasAddresses) return planByHeader(reader, header);
  return refuseImage(
    '',
    'it is no ELF file, and its Multiboot header has no load addresses',
    'Set bit 16 of its flags.',
  );
}

function placeModule(free: FreeMemory, { bytes, commandLine }: BootModule, from: number): SPA {
  const place = free.take(Math.max(bytes.length, 1), from);
  if (place !== undefined) return place;
  const name = JSON.stringify(commandLine);
  return refuseImage(
    `module ${name}`,
    `no room in RAM for its ${bytes.length} bytes`,
    'Give the machine more --memory.',
  );
}

/** The address lines above 20 are open, paging and interrupts are off, x87 is as FNINIT leaves it; all else is as RESET does. */
function entryRegisters(entry: number, infoAt: SPA): readonly (readonly [Slot, bigint])[] {
  const { ES, CS, SS, DS, FS, GS } = SegmentNumber;
  return [
    [R.rax, BOOT_MAGIC],
    [R.rbx, BigInt(infoAt)],
    [R.rip, BigInt(entry)],
    [R.cr0, CR0.PE | CR0.ET],
    [segmentSlot(CS), CODE32],
    [(segmentSlot(CS) + 1) as Slot, 0n],
    ...[ES, SS, DS, FS, GS].map((number) => [segmentSlot(number), DATA32] as const),
    [R.fcw, FCW_INIT],
    [R.ftw, 0n],
  ];
}

/** Range of the memory map; empty ones are left out. */
function memoryMap(ramBytes: number): readonly (readonly [start: number, end: number, type: number])[] {
  return (
    [
      [0, CONVENTIONAL_END, MapType.AVAILABLE],
      [CONVENTIONAL_END, 0xa_0000, MapType.RESERVED],
      [0xf_0000, HIGH_MEMORY, MapType.RESERVED],
      [HIGH_MEMORY, ramBytes, MapType.AVAILABLE],
    ] as const
  ).filter(([start, end]) => end > start);
}

/** @returns what makes the structure, and all that it points to, for the address where it will stand. */
function informationAt(
  ramBytes: number,
  commandLine: string,
  modules: readonly BootModule[],
  places: readonly SPA[],
): (address: number) => Uint8Array {
  const map = memoryMap(ramBytes);
  const mapAt = INFO_BYTES;
  const modulesAt = mapAt + map.length * MAP_ENTRY_BYTES;
  const stringsAt = modulesAt + modules.length * MODULE_ENTRY_BYTES;
  const texts = new StringTable(stringsAt);
  const commandLineAt = texts.add(commandLine);
  const nameAt = texts.add(BOOT_LOADER_NAME);
  const moduleTexts = modules.map((module) => texts.add(module.commandLine));

  return (address) => {
    const bytes = new Uint8Array(texts.end);
    const view = new DataView(bytes.buffer);
    const set = (at: number, value: number): void => view.setUint32(at, value, true);
    set(0, Info.MEMORY | Info.COMMAND_LINE | Info.MODULES | Info.MEMORY_MAP | Info.LOADER_NAME);
    set(4, CONVENTIONAL_END >> 10);
    set(8, (ramBytes - HIGH_MEMORY) / 1024);
    set(16, address + commandLineAt);
    set(20, modules.length);
    set(24, address + modulesAt);
    set(44, map.length * MAP_ENTRY_BYTES);
    set(48, address + mapAt);
    set(64, address + nameAt);
    for (const [index, [start, end, type]] of map.entries()) {
      const at = mapAt + index * MAP_ENTRY_BYTES;
      set(at, MAP_ENTRY_BYTES - 4); // the size does not count itself
      view.setBigUint64(at + 4, BigInt(start), true);
      view.setBigUint64(at + 12, BigInt(end - start), true);
      set(at + 20, type);
    }
    for (const [index, module] of modules.entries()) {
      const at = modulesAt + index * MODULE_ENTRY_BYTES;
      const start = places[index] as SPA;
      set(at, start);
      set(at + 4, start + module.bytes.length);
      set(at + 8, address + (moduleTexts[index] as number));
    }
    texts.copyTo(bytes);
    return bytes;
  };
}

/** Strings one after the other, each with its zero byte. */
class StringTable {
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

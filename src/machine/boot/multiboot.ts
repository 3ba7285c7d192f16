/**
 * Boots a Multiboot 1 image straight, without firmware: loads it, writes the information structure that it finds by
 * EBX, and says which registers it enters with. ELF32, ELF64 and images with load addresses in their header are known.
 * Source: Multiboot Specification 0.6.96, §3.2 Machine state, §3.3 Boot information format.
 */
import { R } from '../layout/cpu-state.js';
import type { SPA } from '../units.js';
import { isElf, planElf } from './elf.js';
import { type EntryRegisters, protectedMode } from './entry.js';
import { type ImageReader, refuseImage } from './image-reader.js';
import { memoryMap } from './memory-map.js';
import { findHeader, planByHeader } from './multiboot-header.js';
import { type BootTarget, Loading, StringTable } from './placement.js';
import { CONVENTIONAL_END, HIGH_MEMORY, type LoadPlan } from './segments.js';

/** What EAX holds at entry. */
const BOOT_MAGIC = 0x2bad_b002n;
export const BOOT_LOADER_NAME = 'vmtape';

/** Bits of the information structure's `flags`. */
const Info = {
  MEMORY: 1 << 0,
  COMMAND_LINE: 1 << 2,
  MODULES: 1 << 3,
  MEMORY_MAP: 1 << 6,
  LOADER_NAME: 1 << 9,
} as const;
const INFO_BYTES = 116;
const MODULE_ENTRY_BYTES = 16;
const MAP_ENTRY_BYTES = 24;

/**
 * Modules stand on page boundaries above the image. By custom a command line begins with the name of its file.
 * @returns the registers that differ from RESET.
 * @throws InputError naming what is wrong with the image, where, and what to do.
 */
export function bootMultiboot(target: BootTarget, image: ImageReader): EntryRegisters {
  const header = findHeader(image);
  const plan = header.hasAddresses || !isElf(image) ? planWithoutElf(image, header) : planElf(image);
  return enterMultiboot(target, plan);
}

/** Loads what `plan` says, with the information structure, and enters it as a Multiboot image. @throws InputError */
export function enterMultiboot(target: BootTarget, plan: LoadPlan): EntryRegisters {
  const loading = new Loading(target, plan);
  const places = loading.placeModulesAbove();
  const infoAt = loading.placeInformation(informationAt(target, places));
  loading.fill();
  return [[R.rax, BOOT_MAGIC], [R.rbx, BigInt(infoAt)], ...protectedMode(plan.entry)];
}

function planWithoutElf(image: ImageReader, header: ReturnType<typeof findHeader>): LoadPlan {
  if (header.hasAddresses) return planByHeader(image, header);
  return refuseImage(
    '',
    'it is no ELF file, and its Multiboot header has no load addresses',
    'Set bit 16 of its flags.',
  );
}

/** @returns what makes the structure, and all that it points to, for the address where it will stand. */
function informationAt(
  { memory: { ramBytes }, commandLine, modules }: BootTarget,
  places: readonly SPA[],
): (address: number) => Uint8Array {
  const map = memoryMap(ramBytes);
  const mapAt = INFO_BYTES;
  const modulesAt = mapAt + map.length * MAP_ENTRY_BYTES;
  const texts = new StringTable(modulesAt + modules.length * MODULE_ENTRY_BYTES);
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
    for (const [index, { start, end, type }] of map.entries()) {
      const at = mapAt + index * MAP_ENTRY_BYTES;
      set(at, MAP_ENTRY_BYTES - 4); // the size does not count itself
      view.setBigUint64(at + 4, BigInt(start), true);
      view.setBigUint64(at + 12, BigInt(end - start), true);
      set(at + 20, type);
    }
    for (const [index, { bytes: content }] of modules.entries()) {
      const at = modulesAt + index * MODULE_ENTRY_BYTES;
      const start = places[index] as SPA;
      set(at, start);
      set(at + 4, start + content.length);
      set(at + 8, address + (moduleTexts[index] as number));
    }
    texts.copyTo(bytes);
    return bytes;
  };
}

/**
 * Boots an ELF kernel by PVH, the entry that Xen and other hypervisors use for guests without firmware: a note of Xen's
 * names a 32-bit entry point, and EBX points to a start-info structure with the command line, modules and the memory map.
 * The first module is the initial RAM disk of a Linux kernel. The command line holds parameters alone.
 * Source: Xen, docs/misc/pvh.pandoc (PVH Specification, x86/HVM direct boot ABI) and
 * public/arch-x86/hvm/start_info.h (version 1); public/elfnote.h (XEN_ELFNOTE_PHYS32_ENTRY).
 */
import { R } from '../layout/cpu-state.js';
import type { SPA } from '../units.js';
import { elfNotes, isElf, planElf } from './elf.js';
import { type EntryRegisters, protectedMode, TASK_REGISTER } from './entry.js';
import { rsdpOf } from './firmware.js';
import { type ImageReader, refuseImage } from './image-reader.js';
import { memoryMap } from './memory-map.js';
import { type BootTarget, Loading, StringTable } from './placement.js';

const NOTE_OWNER = 'Xen';
const PHYS32_ENTRY = 18;

const MAGIC = 0x336e_c578;
/** The first with a memory map. */
const VERSION = 1;
const INFO_BYTES = 56;
const MODULE_ENTRY_BYTES = 32;
const MAP_ENTRY_BYTES = 24;

/** @returns undefined for an image that has no such entry. @throws InputError for a damaged ELF file. */
export function pvhEntry(image: ImageReader): number | undefined {
  if (!isElf(image)) return undefined;
  const note = elfNotes(image).find(({ owner, type }) => owner === NOTE_OWNER && type === PHYS32_ENTRY);
  if (note === undefined) return undefined;
  // 32-bit images have a word there, 64-bit ones a word or a quadword.
  const { content } = note;
  if (content.length < 4) refuseImage('Xen note 18', `its entry point has ${content.length} bytes`, 'Build it again.');
  return new DataView(content.buffer, content.byteOffset).getUint32(0, true);
}

/** @returns the registers that differ from RESET. @throws InputError */
export function bootPvh(target: BootTarget, image: ImageReader): EntryRegisters {
  const entry = pvhEntry(image);
  if (entry === undefined) {
    const problem = isElf(image) ? 'it has no Xen note 18 with a PVH entry' : 'it is no ELF file, which PVH needs';
    return refuseImage('', problem, 'Build the kernel with CONFIG_PVH, or boot it another way.');
  }
  const plan = planElf(image, entry);
  const loading = new Loading(target, plan);
  const places = loading.placeModulesHigh();
  const infoAt = loading.placeInformation(startInfoAt(target, places));
  loading.fill();
  return [[R.rbx, BigInt(infoAt)], ...protectedMode(entry), ...TASK_REGISTER];
}

/** @returns what makes the structure, and all that it points to, for the address where it will stand. */
function startInfoAt(
  { memory: { ramBytes }, board, commandLine, modules }: BootTarget,
  places: readonly SPA[],
): (address: number) => Uint8Array {
  const map = memoryMap(ramBytes);
  const mapAt = INFO_BYTES;
  const modulesAt = mapAt + map.length * MAP_ENTRY_BYTES;
  const texts = new StringTable(modulesAt + modules.length * MODULE_ENTRY_BYTES);
  const commandLineAt = texts.add(commandLine);
  const moduleTexts = modules.map((module) => texts.add(module.commandLine));

  return (address) => {
    const bytes = new Uint8Array(texts.end);
    const view = new DataView(bytes.buffer);
    const set32 = (at: number, value: number): void => view.setUint32(at, value, true);
    const set64 = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
    set32(0, MAGIC);
    set32(4, VERSION);
    set32(12, modules.length);
    set64(16, modules.length === 0 ? 0 : address + modulesAt);
    set64(24, address + commandLineAt);
    set64(32, rsdpOf(board)?.address ?? 0);
    set64(40, address + mapAt);
    set32(48, map.length);
    for (const [index, { start, end, type }] of map.entries()) {
      const at = mapAt + index * MAP_ENTRY_BYTES;
      set64(at, start);
      set64(at + 8, end - start);
      set32(at + 16, type);
    }
    for (const [index, module] of modules.entries()) {
      const at = modulesAt + index * MODULE_ENTRY_BYTES;
      set64(at, places[index] as SPA);
      set64(at + 8, module.bytes.length);
      set64(at + 16, address + (moduleTexts[index] as number));
    }
    texts.copyTo(bytes);
    return bytes;
  };
}

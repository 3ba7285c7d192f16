/**
 * Boots a Multiboot 2 image: reads the tags of its header, loads it, and writes the boot information, a list of tags
 * that it finds by EBX. It is entered in the 32-bit state of an i386 machine; entries for EFI are not used.
 * Source: Multiboot2 Specification 2.0, §3.1 OS image format, §3.3 I386 machine state, §3.6 Boot information format.
 */
import { R } from '../layout/cpu-state.js';
import type { SPA } from '../units.js';
import type { Board } from './board.js';
import { isElf, planElf } from './elf.js';
import { type EntryRegisters, protectedMode } from './entry.js';
import { rsdpOf } from './firmware.js';
import { hexadecimal, type ImageReader, refuseImage } from './image-reader.js';
import { memoryMap } from './memory-map.js';
import { BOOT_LOADER_NAME } from './multiboot.js';
import { planByAddresses } from './multiboot-header.js';
import { type BootTarget, Loading } from './placement.js';
import { CONVENTIONAL_END, HIGH_MEMORY, type LoadPlan } from './segments.js';
import { TableWriter } from './table-writer.js';

const HEADER_MAGIC = 0xe852_50d6;
/** What EAX holds at entry. */
const BOOT_MAGIC = 0x36d7_6289n;
/** The whole header lies in so many bytes, 8-byte aligned. */
const SEARCH_BYTES = 32_768;
const FIXED_BYTES = 16;
const TAG_BYTES = 8;
const I386 = 0;
const BUILD_AGAIN = 'Build the image again.';

/** Tags of the header. */
const Wants = {
  END: 0,
  INFORMATION: 1,
  ADDRESSES: 2,
  ENTRY: 3,
  CONSOLE: 4,
  FRAMEBUFFER: 5,
  MODULE_ALIGN: 6,
  EFI_SERVICES: 7,
  EFI_ENTRY_32: 8,
  EFI_ENTRY_64: 9,
  RELOCATABLE: 10,
} as const;
/** A flag of each: the image can do without. */
const OPTIONAL = 1;
/** Met by what is always done, or only for EFI, or about video, of which there is none. */
const IGNORED: ReadonlySet<number> = new Set([
  Wants.FRAMEBUFFER,
  Wants.MODULE_ALIGN,
  Wants.EFI_ENTRY_32,
  Wants.EFI_ENTRY_64,
  Wants.RELOCATABLE,
]);
const CONSOLE_REQUIRED = 1;

/** Tags of the boot information. */
const Info = {
  END: 0,
  COMMAND_LINE: 1,
  LOADER_NAME: 2,
  MODULE: 3,
  MEMORY: 4,
  MEMORY_MAP: 6,
  ACPI_2: 15,
} as const;
const TOLD: readonly number[] = Object.values(Info);
const MAP_ENTRY_BYTES = 24;

interface HeaderTag {
  readonly type: number;
  readonly optional: boolean;
  /** File offset of what follows type, flags and size. */
  readonly at: number;
  readonly words: number;
}

/** @returns the file offset of the header, undefined when there is none. */
export function findHeader2(image: ImageReader): number | undefined {
  for (let offset = 0; offset + FIXED_BYTES <= Math.min(image.length, SEARCH_BYTES); offset += 8) {
    if (image.u32(offset) !== HEADER_MAGIC) continue;
    const sum = HEADER_MAGIC + image.u32(offset + 4) + image.u32(offset + 8) + image.u32(offset + 12);
    if (sum % 2 ** 32 === 0) return offset;
  }
  return undefined;
}

/** @returns the registers that differ from RESET. @throws InputError */
export function bootMultiboot2(target: BootTarget, image: ImageReader): EntryRegisters {
  const header = findHeader2(image);
  if (header === undefined) {
    const problem = `it has no Multiboot 2 header in its first ${SEARCH_BYTES} bytes`;
    return refuseImage('', problem, 'Build it with one, or boot it another way.');
  }
  const plan = planOf(image, header, target.board);
  const loading = new Loading(target, plan);
  const places = loading.placeModulesAbove();
  const infoAt = loading.placeInformation(() => informationOf(target, places));
  loading.fill();
  return [[R.rax, BOOT_MAGIC], [R.rbx, BigInt(infoAt)], ...protectedMode(plan.entry)];
}

function planOf(image: ImageReader, header: number, board: Board): LoadPlan {
  const name = `Multiboot 2 header at file offset ${hexadecimal(header)}`;
  const architecture = image.u32(header + 4);
  if (architecture !== I386)
    refuseImage(name, `it is for architecture ${architecture}, not i386 (0)`, 'Build it for x86.');
  const tags = headerTags(image, header, name);
  const told = new Set<number>(TOLD);
  if (!board.acpiTables) told.delete(Info.ACPI_2);
  for (const tag of tags) checkTag(image, tag, name, told);
  const addresses = tags.find(({ type }) => type === Wants.ADDRESSES);
  const entry = tags.find(({ type }) => type === Wants.ENTRY);
  const entryAddress = entry === undefined ? undefined : image.u32(entry.at);
  if (addresses === undefined) {
    if (isElf(image)) return planElf(image, entryAddress);
    return refuseImage('', 'it is no ELF file, and its Multiboot 2 header has no address tag', 'Add one.');
  }
  if (entryAddress === undefined) return refuseImage(name, 'it has an address tag without an entry tag', 'Add one.');
  const [headerAddress = 0, loadAddress = 0, loadEnd = 0, bssEnd = 0] = [0, 4, 8, 12].map((offset) =>
    image.u32(addresses.at + offset),
  );
  return planByAddresses(image, name, header, { headerAddress, loadAddress, loadEnd, bssEnd, entry: entryAddress });
}

/** Words that a tag has at least behind type, flags and size. */
const LEAST_WORDS: Readonly<Record<number, number>> = { [Wants.ADDRESSES]: 4, [Wants.ENTRY]: 1, [Wants.CONSOLE]: 1 };

/** Up to the end tag, each on an 8-byte boundary. */
function headerTags(image: ImageReader, header: number, name: string): readonly HeaderTag[] {
  const end = header + image.u32(header + 8);
  const cut = (): never => refuseImage(name, 'its tags are cut off, or lack the last one', BUILD_AGAIN);
  if (end > SEARCH_BYTES || !image.has(header, end - header)) return cut();
  const tags: HeaderTag[] = [];
  for (let at = header + FIXED_BYTES; ; ) {
    if (at + TAG_BYTES > end) return cut();
    const type = image.u16(at);
    const size = image.u32(at + 4);
    const words = (size - TAG_BYTES) / 4;
    if (words < (LEAST_WORDS[type] ?? 0) || at + size > end) return cut();
    if (type === Wants.END) return tags;
    tags.push({ type, optional: (image.u16(at + 2) & OPTIONAL) !== 0, at: at + TAG_BYTES, words });
    at += Math.ceil(size / 8) * 8;
  }
}

/** @param told types of information that there are. @throws InputError for what the image cannot do without, and is not there. */
function checkTag(
  image: ImageReader,
  { type, optional, at, words }: HeaderTag,
  name: string,
  told: ReadonlySet<number>,
): void {
  if (optional || IGNORED.has(type) || type === Wants.ADDRESSES || type === Wants.ENTRY) return;
  const lacks = (what: string): never =>
    refuseImage(name, `it asks for ${what}, which is not there`, 'Build it without.');
  if (type === Wants.INFORMATION) {
    for (let index = 0; index < words; index++) {
      const wanted = image.u32(at + 4 * index);
      if (!told.has(wanted)) lacks(`boot information of type ${wanted}`);
    }
  } else if (type === Wants.CONSOLE) {
    if ((image.u32(at) & CONSOLE_REQUIRED) !== 0) lacks('a console with text or graphics');
  } else lacks(type === Wants.EFI_SERVICES ? 'EFI boot services' : `a feature by tag ${type}`);
}

/** It holds no address of its own, so it is the same wherever it stands. */
function informationOf(
  { memory: { ramBytes }, board, commandLine, modules }: BootTarget,
  places: readonly SPA[],
): Uint8Array {
  const writer = new TableWriter().number(4, 0).number(4, 0);
  const tag = (type: number, body: (writer: TableWriter) => void): void => {
    const start = writer.length;
    writer.number(4, type).number(4, 0);
    body(writer);
    writer.set(start + 4, 4, writer.length - start);
    writer.zeros(-writer.length & 7);
  };
  const text = (value: string): Uint8Array => new TextEncoder().encode(`${value}\0`);
  tag(Info.COMMAND_LINE, (body) => body.raw(text(commandLine)));
  tag(Info.LOADER_NAME, (body) => body.raw(text(BOOT_LOADER_NAME)));
  for (const [index, module] of modules.entries()) {
    const start = places[index] as SPA;
    tag(Info.MODULE, (body) =>
      body
        .number(4, start)
        .number(4, start + module.bytes.length)
        .raw(text(module.commandLine)),
    );
  }
  tag(Info.MEMORY, (body) => body.number(4, CONVENTIONAL_END >> 10).number(4, (ramBytes - HIGH_MEMORY) / 1024));
  tag(Info.MEMORY_MAP, (body) => {
    body.number(4, MAP_ENTRY_BYTES).number(4, 0);
    for (const { start, end, type } of memoryMap(ramBytes)) {
      body
        .number(8, start)
        .number(8, end - start)
        .number(4, type)
        .number(4, 0);
    }
  });
  const rsdp = rsdpOf(board);
  if (rsdp !== undefined) tag(Info.ACPI_2, (body) => body.raw(rsdp.bytes));
  tag(Info.END, () => undefined);
  return writer.set(0, 4, writer.length).finish();
}

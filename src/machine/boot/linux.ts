/**
 * Boots a Linux kernel by its own protocol: a bzImage at its 64-bit entry, or at its 32-bit one when it has no other, and
 * a `vmlinux`, the ELF file within, at its entry point. The kernel finds the zero page (`struct boot_params`) by RSI: the
 * setup header, memory map, command line, RAM disk and where the ACPI tables are.
 *
 * In 64-bit mode the first 4 GiB are mapped to themselves, by pages of 2 MiB.
 * Source: Linux, Documentation/arch/x86/boot.rst, 32-bit Boot Protocol and 64-bit Boot Protocol; zero-page.rst.
 */
import { R } from '../layout/cpu-state.js';
import type { SPA } from '../units.js';
import { isElf, isElf64, planElf } from './elf.js';
import { ATTRIBUTES, type EntryRegisters, longMode, protectedMode } from './entry.js';
import { rsdpOf } from './firmware.js';
import { type ImageReader, refuseImage } from './image-reader.js';
import { HEADER_START, isBzImage, type LinuxKernel, readBzImage } from './linux-header.js';
import { memoryMap } from './memory-map.js';
import { type BootTarget, Loading } from './placement.js';

const PAGE_BYTES = 4096;
/** Offsets in the zero page. */
const ACPI_RSDP = 0x070;
const E820_ENTRIES = 0x1e8;
const BOOT_FLAG = 0x1fe;
const HEADER_MAGIC = 0x202;
const PROTOCOL_VERSION = 0x206;
const LOADER_TYPE = 0x210;
const CODE32_START = 0x214;
const RAMDISK = 0x218;
const COMMAND_LINE = 0x228;
const E820_TABLE = 0x2d0;
const E820_ENTRY_BYTES = 20;
/** A loader without a number of its own. */
const UNDEFINED_LOADER = 0xff;

/** Selectors that the protocol names, and the GDT that has them. */
const BOOT_CS = 0x10;
const BOOT_DS = 0x18;
const GDT_BYTES = 32;

const GIGABYTES = 4;
const TABLE_PAGES = 2 + GIGABYTES;
const LARGE_PAGE = 0x20_0000;
const PRESENT_WRITABLE = 0x3;
const PAGE_SIZE_BIT = 0x80;

/** Where each part of the information stands in it: page tables come first, for they want page boundaries. */
const ZERO_PAGE_AT = TABLE_PAGES * PAGE_BYTES;
const GDT_AT = ZERO_PAGE_AT + PAGE_BYTES;
const TEXT_AT = GDT_AT + GDT_BYTES;

/** @returns the registers that differ from RESET. @throws InputError */
export function bootLinux(target: BootTarget, image: ImageReader): EntryRegisters {
  const kernel = kernelOf(image);
  const text = new TextEncoder().encode(target.commandLine);
  if (text.length > kernel.commandLineBytes) {
    const problem = `it has ${text.length} bytes, and the kernel takes ${kernel.commandLineBytes}`;
    refuseImage('command line', problem, 'Shorten --append.');
  }
  if (target.modules.length > 1) {
    refuseImage('', 'a Linux kernel takes one RAM disk and no modules', 'Leave out --module.');
  }
  const loading = new Loading(target, kernel.plan);
  const [ramdisk] = loading.placeModulesHigh(kernel.initrdLimit);
  const at = loading.placeInformation((address) => informationOf(target, kernel, text, ramdisk, address));
  loading.fill();
  const { entry } = kernel.plan;
  return [
    ...(kernel.long ? longMode(entry, at, BOOT_CS, BOOT_DS) : protectedMode(entry, BOOT_CS, BOOT_DS)),
    [R.rsi, BigInt(at + ZERO_PAGE_AT)],
    [R.gdtrBase, BigInt(at + GDT_AT)],
    [R.gdtrLimit, BigInt(GDT_BYTES - 1)],
    [R.rdx, 0n],
  ];
}

function kernelOf(image: ImageReader): LinuxKernel {
  if (isBzImage(image)) return readBzImage(image);
  if (!isElf(image)) {
    return refuseImage('', 'it is neither a bzImage nor an ELF file, so it is no Linux kernel', 'Check its name.');
  }
  return {
    plan: planElf(image),
    long: isElf64(image),
    header: elfHeader(),
    initrdLimit: Number.POSITIVE_INFINITY,
    commandLineBytes: Number.POSITIVE_INFINITY,
  };
}

/** A `vmlinux` has no setup header: this is what a kernel looks at. */
function elfHeader(): Uint8Array {
  const header = new Uint8Array(PROTOCOL_VERSION + 2 - HEADER_START);
  const view = new DataView(header.buffer);
  view.setUint16(BOOT_FLAG - HEADER_START, 0xaa55, true);
  view.setUint32(HEADER_MAGIC - HEADER_START, 0x5372_6448, true);
  view.setUint16(PROTOCOL_VERSION - HEADER_START, 0x20f, true);
  return header;
}

/** Page tables, zero page, GDT and command line, for the address where they will stand. */
function informationOf(
  { memory: { ramBytes }, board, modules }: BootTarget,
  { header, plan, long }: LinuxKernel,
  text: Uint8Array,
  ramdisk: SPA | undefined,
  address: number,
): Uint8Array {
  const bytes = new Uint8Array(TEXT_AT + text.length + 1);
  const view = new DataView(bytes.buffer);
  const set32 = (at: number, value: number): void => view.setUint32(at, value, true);
  const set64 = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
  writeIdentityMap(set64, address);

  bytes.set(header, ZERO_PAGE_AT + HEADER_START);
  set64(ZERO_PAGE_AT + ACPI_RSDP, rsdpOf(board)?.address ?? 0);
  bytes[ZERO_PAGE_AT + LOADER_TYPE] = UNDEFINED_LOADER;
  set32(ZERO_PAGE_AT + CODE32_START, plan.segments[0]?.address as number);
  set32(ZERO_PAGE_AT + RAMDISK, ramdisk ?? 0);
  set32(ZERO_PAGE_AT + RAMDISK + 4, modules[0]?.bytes.length ?? 0);
  set32(ZERO_PAGE_AT + COMMAND_LINE, address + TEXT_AT);
  const map = memoryMap(ramBytes);
  bytes[ZERO_PAGE_AT + E820_ENTRIES] = map.length;
  for (const [index, { start, end, type }] of map.entries()) {
    const at = ZERO_PAGE_AT + E820_TABLE + index * E820_ENTRY_BYTES;
    set64(at, start);
    set64(at + 8, end - start);
    set32(at + 16, type);
  }
  writeDescriptor(view, GDT_AT + BOOT_CS, long ? ATTRIBUTES.CODE64 : ATTRIBUTES.CODE32);
  writeDescriptor(view, GDT_AT + BOOT_DS, ATTRIBUTES.DATA);
  bytes.set(text, TEXT_AT);
  return bytes;
}

/** The top table, the one below it, and one for each GiB. */
function writeIdentityMap(set64: (at: number, value: number) => void, address: number): void {
  set64(0, address + PAGE_BYTES + PRESENT_WRITABLE);
  for (let gigabyte = 0; gigabyte < GIGABYTES; gigabyte++) {
    set64(PAGE_BYTES + 8 * gigabyte, address + (2 + gigabyte) * PAGE_BYTES + PRESENT_WRITABLE);
  }
  for (let page = 0; page < GIGABYTES * 512; page++) {
    set64(2 * PAGE_BYTES + 8 * page, page * LARGE_PAGE + PAGE_SIZE_BIT + PRESENT_WRITABLE);
  }
}

/** A flat descriptor of 4 GiB. @param attributes as segment registers hold them. */
function writeDescriptor(view: DataView, at: number, attributes: number): void {
  view.setUint32(at, 0x0000_ffff, true);
  view.setUint32(at + 4, (((attributes & 0xf00) << 12) | ((attributes & 0xff) << 8) | 0x000f_0000) >>> 0, true);
}

/**
 * Symbols of ELF files: read from the symbol table of a kernel or program, and written as a file that has nothing else, for
 * debuggers. Source: Tool Interface Standard ELF Specification 1.2, book I (Sections, Symbol Table); System V ABI AMD64
 * supplement, §4 Object Files.
 */
import { UsageError } from '../cli/failure.js';
import { type GuestSymbol, isCode, type SymbolTable } from './symbol-table.js';

const MAGIC = 0x7f45_4c46;
const HEADER_BYTES = 64;
const SECTION_BYTES = 64;
const SYMBOL_BYTES = 24;
const RELOCATABLE = 1;
const EXECUTABLE = 2;
const X86_64 = 62;

const SectionType = { PROGBITS: 1, SYMTAB: 2, STRTAB: 3, NOBITS: 8 } as const;
const SectionFlag = { WRITE: 1, ALLOC: 2, EXECUTE: 4 } as const;
const SymbolType = { NONE: 0, OBJECT: 1, FUNCTION: 2, SECTION: 3, FILE: 4 } as const;
const GLOBAL = 1;
const WEAK = 2;
const RESERVED_SECTIONS = 0xff00;

export const isElfFile = (bytes: Uint8Array): boolean => bytes.length >= 16 && viewOf(bytes).getUint32(0) === MAGIC;

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

interface Section {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly bytes: number;
  readonly link: number;
}

/** Where fields stand in the two classes. */
interface ElfClass {
  readonly sectionTable: (view: DataView) => number;
  readonly sectionCountAt: number;
  readonly sectionBytes: number;
  readonly section: (view: DataView, at: number) => Section;
  readonly symbolBytes: number;
  /** Name, value, size, info, section. */
  readonly symbol: (view: DataView, at: number) => readonly [number, bigint, number, number, number];
}

const u64 = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));
const u32 = (view: DataView, at: number): number => view.getUint32(at, true);
const u16 = (view: DataView, at: number): number => view.getUint16(at, true);

const ELF64: ElfClass = {
  sectionTable: (view) => u64(view, 40),
  sectionCountAt: 60,
  sectionBytes: SECTION_BYTES,
  section: (view, at) => ({
    ...{ type: u32(view, at + 4), flags: u64(view, at + 8), offset: u64(view, at + 24), bytes: u64(view, at + 32) },
    link: u32(view, at + 40),
  }),
  symbolBytes: SYMBOL_BYTES,
  symbol: (view, at) => [
    ...([u32(view, at), view.getBigUint64(at + 8, true), u64(view, at + 16)] as const),
    ...([view.getUint8(at + 4), u16(view, at + 6)] as const),
  ],
};

const ELF32: ElfClass = {
  sectionTable: (view) => u32(view, 32),
  sectionCountAt: 48,
  sectionBytes: 40,
  section: (view, at) => ({
    ...{ type: u32(view, at + 4), flags: u32(view, at + 8), offset: u32(view, at + 16), bytes: u32(view, at + 20) },
    link: u32(view, at + 24),
  }),
  symbolBytes: 16,
  symbol: (view, at) => [
    ...([u32(view, at), BigInt(u32(view, at + 4)), u32(view, at + 8)] as const),
    ...([view.getUint8(at + 12), u16(view, at + 14)] as const),
  ],
};

/**
 * The functions, variables and labels that a symbol table names.
 * @throws UsageError for a file that is cut off, has none, or whose addresses are not fixed yet.
 */
export function parseElfSymbols(bytes: Uint8Array, file: string): readonly GuestSymbol[] {
  try {
    return symbolsOf(viewOf(bytes), bytes, file);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new UsageError(`${file}: the ELF file is cut off. Copy or build it again.`, { cause: error });
  }
}

function symbolsOf(view: DataView, bytes: Uint8Array, file: string): readonly GuestSymbol[] {
  const elf = bytes[4] === 1 ? ELF32 : ELF64;
  if (u16(view, 16) === RELOCATABLE) {
    const remedy = 'Its addresses are known once it is loaded: give ram, or lines of /proc/kallsyms.';
    throw new UsageError(`${file}: it is an object file, such as a kernel module. ${remedy}`);
  }
  const table = elf.sectionTable(view);
  const count = u16(view, elf.sectionCountAt);
  const sections = Array.from({ length: table === 0 ? 0 : count }, (_, index) =>
    elf.section(view, table + index * elf.sectionBytes),
  );
  const symtab = sections.find(({ type }) => type === SectionType.SYMTAB);
  const strings = sections[symtab?.link ?? -1];
  if (symtab === undefined || strings === undefined) {
    throw new UsageError(`${file}: it has no symbol table. Give the file as it was before strip.`);
  }
  const symbols: GuestSymbol[] = [];
  for (let at = symtab.offset; at + elf.symbolBytes <= symtab.offset + symtab.bytes; at += elf.symbolBytes) {
    const [name, address, size, info, index] = elf.symbol(view, at);
    const type = info & 0xf;
    if (name === 0 || index === 0 || index >= RESERVED_SECTIONS) continue;
    if (type === SymbolType.SECTION || type === SymbolType.FILE) continue;
    const letter = letterOf(sections[index]);
    symbols.push({
      ...{ address, name: textAt(bytes, strings.offset + name), bytes: size },
      type: info >> 4 === GLOBAL || info >> 4 === WEAK ? letter.toUpperCase() : letter,
    });
  }
  if (symbols.length === 0)
    throw new UsageError(`${file}: its symbol table is empty. Give the file as it was before strip.`);
  return symbols;
}

function letterOf(section: Section | undefined): string {
  if (section === undefined) return '?';
  if ((section.flags & SectionFlag.EXECUTE) !== 0) return 't';
  if (section.type === SectionType.NOBITS) return 'b';
  return (section.flags & SectionFlag.WRITE) === 0 ? 'r' : 'd';
}

/** The text up to its NUL. @throws RangeError outside of the file. */
export function textAt(bytes: Uint8Array, at: number): string {
  const end = bytes.indexOf(0, at);
  if (at < 0 || end < 0) throw new RangeError('a name outside of the file');
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, end - at).toString('latin1');
}

// Written for debuggers

/** A stretch of symbols of one kind; debuggers tell functions and variables apart by it. */
interface Stretch {
  readonly code: boolean;
  readonly module: string | undefined;
  readonly symbols: GuestSymbol[];
}

const LAST_BYTES = 0x1000;

function stretchesOf({ symbols }: SymbolTable): readonly Stretch[] {
  const stretches: Stretch[] = [];
  for (const symbol of symbols) {
    const last = stretches.at(-1);
    const code = isCode(symbol);
    if (last !== undefined && last.code === code && last.module === symbol.module) last.symbols.push(symbol);
    else stretches.push({ code, module: symbol.module, symbols: [symbol] });
  }
  return stretches;
}

/** Names one after the other, each once. */
class Names {
  private readonly places = new Map<string, number>();
  private readonly pieces: Buffer[] = [Buffer.from([0])];
  private length = 1;

  add(name: string): number {
    const known = this.places.get(name);
    if (known !== undefined) return known;
    const at = this.length;
    const piece = Buffer.from(`${name}\0`, 'latin1');
    this.places.set(name, at);
    this.pieces.push(piece);
    this.length += piece.length;
    return at;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.pieces);
  }
}

/**
 * An executable that holds nothing but a symbol table: gdb's `symbol-file` takes it. The contents of its sections are the
 * guest's memory.
 */
export function elfOfSymbols(table: SymbolTable): Uint8Array {
  const stretches = stretchesOf(table);
  const names = new Names();
  const entries: Buffer[] = [Buffer.alloc(SYMBOL_BYTES)];
  const heads: Buffer[] = [Buffer.alloc(SECTION_BYTES)];
  stretches.forEach(({ code, module, symbols }, index) => {
    const first = symbols[0] as GuestSymbol;
    const end = endOf(symbols, stretches[index + 1]?.symbols[0]);
    heads.push(
      sectionHead({
        name: names.add(`${code ? '.text' : '.data'}${module === undefined ? '' : `.${module}`}`),
        type: SectionType.NOBITS,
        flags: SectionFlag.ALLOC | (code ? SectionFlag.EXECUTE : SectionFlag.WRITE),
        address: first.address,
        offset: 0,
        bytes: end - first.address,
      }),
    );
    symbols.forEach((symbol, at) => {
      const next = symbols[at + 1]?.address ?? end;
      const entry = Buffer.alloc(SYMBOL_BYTES);
      entry.writeUInt32LE(names.add(symbol.name), 0);
      entry.writeUInt8((GLOBAL << 4) | (code ? SymbolType.FUNCTION : SymbolType.OBJECT), 4);
      entry.writeUInt16LE(index + 1, 6);
      entry.writeBigUInt64LE(symbol.address, 8);
      entry.writeBigUInt64LE(symbol.bytes === undefined ? next - symbol.address : BigInt(symbol.bytes), 16);
      entries.push(entry);
    });
  });
  const symtab = Buffer.concat(entries);
  const [symtabName, stringsName] = [names.add('.symtab'), names.add('.strtab')];
  const strings = names.bytes;
  const symtabAt = HEADER_BYTES;
  const stringsAt = symtabAt + symtab.length;
  heads.push(
    sectionHead({
      ...{ name: symtabName, type: SectionType.SYMTAB, offset: symtabAt, bytes: BigInt(symtab.length) },
      ...{ link: heads.length + 1, info: 1, entryBytes: SYMBOL_BYTES },
    }),
    sectionHead({ name: stringsName, type: SectionType.STRTAB, offset: stringsAt, bytes: BigInt(strings.length) }),
  );
  return Buffer.concat([fileHead(stringsAt + strings.length, heads.length), symtab, strings, ...heads]);
}

function endOf(symbols: readonly GuestSymbol[], next: GuestSymbol | undefined): bigint {
  const last = symbols.at(-1) as GuestSymbol;
  const end = last.address + BigInt(last.bytes === undefined || last.bytes === 0 ? LAST_BYTES : last.bytes);
  const wrapped = BigInt.asUintN(64, end) < last.address ? (1n << 64n) - 1n : end;
  return next !== undefined && next.address < wrapped ? next.address : wrapped;
}

interface SectionHead {
  readonly name: number;
  readonly type: number;
  readonly flags?: number;
  readonly address?: bigint;
  readonly offset: number;
  readonly bytes: bigint;
  readonly link?: number;
  readonly info?: number;
  readonly entryBytes?: number;
}

function sectionHead(head: SectionHead): Buffer {
  const { name, type, flags = 0, address = 0n, offset, bytes, link = 0, info = 0, entryBytes = 0 } = head;
  const buffer = Buffer.alloc(SECTION_BYTES);
  buffer.writeUInt32LE(name, 0);
  buffer.writeUInt32LE(type, 4);
  buffer.writeBigUInt64LE(BigInt(flags), 8);
  buffer.writeBigUInt64LE(address, 16);
  buffer.writeBigUInt64LE(BigInt(offset), 24);
  buffer.writeBigUInt64LE(bytes, 32);
  buffer.writeUInt32LE(link, 40);
  buffer.writeUInt32LE(info, 44);
  buffer.writeBigUInt64LE(1n, 48);
  buffer.writeBigUInt64LE(BigInt(entryBytes), 56);
  return buffer;
}

function fileHead(sectionTable: number, sections: number): Buffer {
  const buffer = Buffer.alloc(HEADER_BYTES);
  buffer.writeUInt32BE(MAGIC, 0);
  buffer.set([2, 1, 1], 4); // 64-bit, little-endian, version 1
  buffer.writeUInt16LE(EXECUTABLE, 16);
  buffer.writeUInt16LE(X86_64, 18);
  buffer.writeUInt32LE(1, 20);
  buffer.writeBigUInt64LE(BigInt(sectionTable), 40);
  buffer.writeUInt16LE(HEADER_BYTES, 52);
  buffer.writeUInt16LE(SECTION_BYTES, 58);
  buffer.writeUInt16LE(sections, 60);
  buffer.writeUInt16LE(sections - 1, 62);
  return buffer;
}

/** Names of functions by address, from the symbol tables of ELF files. Source: System V ABI, chapter 4, Object Files. */
import type { Level } from '../../src/machine/index.js';
import { UsageError } from '../cli/failure.js';

/** A function, and where its code stands. */
export interface FunctionSymbol {
  readonly name: string;
  readonly address: bigint;
  /** Where it ends, or the next one begins. */
  readonly end: bigint;
}

const SYMBOL_TABLE = 2;
/** Types of symbols that stand for code: what assembly defines often has none. */
const NO_TYPE = 0;
const FUNCTION = 2;
const UNDEFINED_SECTION = 0;
/** Indexes from there on are no sections: absolute values, commons. */
const RESERVED_SECTIONS = 0xff00;

export const isElf = (bytes: Uint8Array): boolean =>
  bytes.length >= 52 && bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;

/** Where fields stand, for files of 32 and of 64 bits: the header's, a section's, a symbol's. */
const FORMS = {
  32: {
    sections: 0x20,
    entrySize: 0x2e,
    count: 0x30,
    offset: 0x10,
    size: 0x14,
    link: 0x18,
    symbol: 16,
    info: 12,
    index: 14,
    value: 4,
    length: 8,
  },
  64: {
    sections: 0x28,
    entrySize: 0x3a,
    count: 0x3c,
    offset: 0x18,
    size: 0x20,
    link: 0x28,
    symbol: 24,
    info: 4,
    index: 6,
    value: 8,
    length: 16,
  },
} as const;

/** @returns functions by address; none when the file was stripped. @throws UsageError when it is no ELF file, or a damaged one. */
export function elfSymbols(bytes: Uint8Array, file: string): readonly FunctionSymbol[] {
  if (!isElf(bytes))
    throw new UsageError(`${file}: is no ELF file, and so has no symbols. Give the one that was linked.`);
  try {
    return symbolsIn(bytes);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new UsageError(`${file}: its symbol table lies outside of the file. Is it whole?`, { cause });
  }
}

function symbolsIn(bytes: Uint8Array): readonly FunctionSymbol[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const bits = bytes[4] === 2 ? 64 : 32;
  const form = FORMS[bits];
  const word = (at: number): bigint => (bits === 64 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true)));
  const sections = Number(word(form.sections));
  const sectionAt = (index: number): number => sections + index * view.getUint16(form.entrySize, true);
  const found: FunctionSymbol[] = [];
  if (sectionAt(view.getUint16(form.count, true)) > bytes.length)
    throw new RangeError('the file ends before its sections');
  for (let index = 0; index < view.getUint16(form.count, true); index++) {
    const section = sectionAt(index);
    if (view.getUint32(section + 4, true) !== SYMBOL_TABLE) continue;
    const [start, length] = [Number(word(section + form.offset)), Number(word(section + form.size))];
    const names = Number(word(sectionAt(view.getUint32(section + form.link, true)) + form.offset));
    for (let at = start; at + form.symbol <= start + length; at += form.symbol) {
      const type = view.getUint8(at + form.info) & 0xf;
      const inSection = view.getUint16(at + form.index, true);
      const name = textAt(bytes, names + view.getUint32(at, true));
      const isCode = type === FUNCTION || (type === NO_TYPE && !name.startsWith('.L'));
      if (!isCode || name === '' || inSection === UNDEFINED_SECTION || inSection >= RESERVED_SECTIONS) continue;
      const address = word(at + form.value);
      found.push({ name, address, end: address + word(at + form.length) });
    }
  }
  return withEnds(found);
}

function textAt(bytes: Uint8Array, start: number): string {
  const end = bytes.indexOf(0, start);
  if (start >= bytes.length || end < 0) throw new RangeError('a name lies outside of the file');
  return new TextDecoder().decode(bytes.subarray(start, end));
}

/** One symbol for each address, the larger one; those without a size end where the next one begins. */
function withEnds(symbols: readonly FunctionSymbol[]): readonly FunctionSymbol[] {
  const ordered = symbols.toSorted((a, b) =>
    a.address !== b.address ? (a.address < b.address ? -1 : 1) : a.end > b.end ? -1 : a.end < b.end ? 1 : 0,
  );
  const first = ordered.filter((symbol, index) => symbol.address !== ordered[index - 1]?.address);
  return first.map((symbol, index) => {
    if (symbol.end > symbol.address) return symbol;
    return { ...symbol, end: first[index + 1]?.address ?? symbol.address + 1n };
  });
}

/** Finds functions; each level may have files of its own. */
export class Symbols {
  private readonly byLevel: Readonly<Record<Level, (readonly FunctionSymbol[])[]>> = { 1: [], 2: [] };

  /** @param levels whose code the file has. */
  add(symbols: readonly FunctionSymbol[], levels: readonly Level[]): void {
    if (symbols.length === 0) return;
    for (const level of levels) this.byLevel[level].push(symbols);
  }

  at(address: bigint, level: Level): FunctionSymbol | undefined {
    for (const symbols of this.byLevel[level]) {
      let [from, to] = [0, symbols.length];
      while (from < to) {
        const middle = (from + to) >> 1;
        if ((symbols[middle] as FunctionSymbol).address <= address) from = middle + 1;
        else to = middle;
      }
      const symbol = symbols[from - 1];
      if (symbol !== undefined && address < symbol.end) return symbol;
    }
    return undefined;
  }
}

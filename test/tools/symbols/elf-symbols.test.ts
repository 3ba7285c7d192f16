/** Symbols from ELF files, of both sizes, whole and damaged. */
import { describe, expect, it } from 'vitest';
import { parseElfSymbols } from '../../../tools/symbols/elf-symbols.js';
import { SymbolTable } from '../../../tools/symbols/symbol-table.js';

interface Given {
  readonly name: string;
  readonly value: number;
  readonly size: number;
  /** 0 none, 1 data, 2 function, 3 section. */
  readonly type?: number;
  readonly section?: number;
}

/** An ELF file of sections alone: none, names, symbols. */
function elf(bits: 32 | 64, symbols: readonly Given[]): Uint8Array {
  const wide = bits === 64;
  const [header, entry, symbol] = wide ? [64, 64, 24] : [52, 40, 16];
  const names = new TextEncoder().encode(`\0${symbols.map(({ name }) => `${name}\0`).join('')}`);
  const symbolsAt = header + names.length;
  const sectionsAt = symbolsAt + symbols.length * symbol;
  const bytes = new Uint8Array(sectionsAt + 3 * entry);
  const view = new DataView(bytes.buffer);
  const word = (at: number, value: number): void =>
    wide ? view.setBigUint64(at, BigInt(value), true) : view.setUint32(at, value, true);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1]);
  word(wide ? 0x28 : 0x20, sectionsAt);
  view.setUint16(wide ? 0x3a : 0x2e, entry, true);
  view.setUint16(wide ? 0x3c : 0x30, 3, true);
  bytes.set(names, header);
  let nameAt = 1;
  for (const [index, { name, value, size, type = 2, section = 1 }] of symbols.entries()) {
    const at = symbolsAt + index * symbol;
    view.setUint32(at, nameAt, true);
    nameAt += name.length + 1;
    view.setUint8(at + (wide ? 4 : 12), type);
    view.setUint16(at + (wide ? 6 : 14), section, true);
    word(at + (wide ? 8 : 4), value);
    word(at + (wide ? 16 : 8), size);
  }
  const section = (index: number, type: number, start: number, length: number, link: number): void => {
    const at = sectionsAt + index * entry;
    view.setUint32(at + 4, type, true);
    word(at + (wide ? 0x18 : 0x10), start);
    word(at + (wide ? 0x20 : 0x14), length);
    view.setUint32(at + (wide ? 0x28 : 0x18), link, true);
  };
  section(1, 3, header, names.length, 0);
  section(2, 2, symbolsAt, symbols.length * symbol, 1);
  return bytes;
}

const GIVEN: readonly Given[] = [
  { name: 'later', value: 0x2000, size: 0x10 },
  { name: 'entry', value: 0x1000, size: 0, type: 0 },
  { name: 'table', value: 0x1004, size: 8, type: 1 },
  { name: 'first', value: 0x1020, size: 0x40 },
  { name: 'alias', value: 0x1020, size: 0x8 },
  { name: 'elsewhere', value: 0x1800, size: 8, section: 0 },
  { name: 'absolute', value: 0x1900, size: 8, section: 0xfff1 },
  { name: '.L7', value: 0x1030, size: 0, type: 0 },
];

describe.each([32, 64] as const)('symbols of an ELF file of %i bits', (bits) => {
  const file = elf(bits, GIVEN);

  it('are those that stand in a section, by address', () => {
    const table = new SymbolTable(parseElfSymbols(file, 'a.elf'));
    const names = [0xfffn, 0x1000n, 0x1003n, 0x1004n, 0x1020n, 0x105fn, 0x200fn, 0x2010n].map(
      (address) => table.at(address)?.symbol.name,
    );
    expect(names.slice(0, 4)).toEqual([undefined, 'entry', 'entry', 'table']);
    expect(['first', 'alias']).toContain(names[4]);
    expect(names.slice(6)).toEqual(['later', undefined]);
    expect(table.find('absolute')).toBeUndefined();
  });

  it('are refused where there are none', () => {
    expect(() => parseElfSymbols(elf(bits, []), 'a.elf')).toThrow('a.elf: its symbol table is empty');
  });

  it('are refused where the table lies outside of the file', () => {
    for (let length = 64; length < file.length - 40; length += 7) {
      expect(() => parseElfSymbols(file.slice(0, length), 'a.elf'), `${length} bytes`).toThrow(/^a\.elf: /);
    }
  });
});

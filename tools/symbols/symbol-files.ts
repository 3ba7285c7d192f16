/** Files of symbols: read whatever form they have, and written for debuggers. */
import { writeFileSync } from 'node:fs';
import { OperatingError } from '../cli/failure.js';
import { readInputFile } from '../cli/machine-flags.js';
import { elfOfSymbols, isElfFile, parseElfSymbols } from './elf-symbols.js';
import { parseMap } from './map-file.js';
import { SymbolTable } from './symbol-table.js';

/** ELF files with a symbol table, and text as System.map. @throws UsageError when it has no symbols. */
export function readSymbols(path: string): SymbolTable {
  const bytes = readInputFile(path, 'the file with symbols');
  return new SymbolTable(
    isElfFile(bytes) ? parseElfSymbols(bytes, path) : parseMap(Buffer.from(bytes).toString('latin1'), path),
  );
}

/** Makes an ELF file for gdb. @returns what was done, in words. @throws OperatingError when it cannot be written. */
export function writeSymbols(table: SymbolTable, path: string): string {
  try {
    writeFileSync(path, elfOfSymbols(table));
  } catch (cause) {
    const problem = `${path}: ${(cause as Error).message}. Choose another place for the symbols.`;
    throw new OperatingError(problem, { cause });
  }
  return `${table.summary(path)}; gdb takes it by symbol-file`;
}

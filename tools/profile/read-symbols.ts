/** Which files name the code of a session: those of `--symbols`, and the image itself. */
import { readFileSync } from 'node:fs';
import { UsageError } from '../cli/failure.js';
import { isElfFile } from '../symbols/elf-symbols.js';
import { LevelSymbols } from '../symbols/level-symbols.js';
import type { SymbolSource } from '../symbols/source.js';
import { readSymbols } from '../symbols/symbol-files.js';

/** @param image what is booted, if anything is: its code may run at both levels. @throws UsageError */
export function symbolsOfSession(given: readonly SymbolSource[], image: string | undefined): LevelSymbols {
  const symbols = new LevelSymbols();
  for (const source of given) {
    if (source.kind === 'ram') {
      throw new UsageError('--symbols ram needs a tape. Record one, and give what vmtape symbols -o makes of it.');
    }
    symbols.add(source.level, readSymbols(source.path));
  }
  if (image === undefined || !isElfFile(readFileSync(image))) return symbols;
  try {
    const own = readSymbols(image);
    symbols.add(1, own);
    symbols.add(2, own);
  } catch (error) {
    // It was stripped: its code is told by pages.
    if (!(error instanceof UsageError)) throw error;
  }
  return symbols;
}

/** Which files name the code of a session: those of `--symbols`, and the image itself. */
import { readFileSync } from 'node:fs';
import type { Level } from '../../src/machine/index.js';
import { readInputFile } from '../cli/machine-flags.js';
import { elfSymbols, isElf, Symbols } from './symbols.js';

const BOTH: readonly Level[] = [1, 2];

/** @param given `FILE`, `L1:FILE` or `L2:FILE`. @param image what is booted, if anything is. @throws UsageError */
export function readSymbols(given: readonly string[], image: string | undefined): Symbols {
  const symbols = new Symbols();
  for (const text of given) {
    const [, level, file = text] = /^L([12]):(.+)$/.exec(text) ?? [];
    const levels: readonly Level[] = level === undefined ? BOTH : [level === '1' ? 1 : 2];
    symbols.add(elfSymbols(readInputFile(file, 'the file with symbols'), file), levels);
  }
  const bytes = image === undefined ? undefined : readFileSync(image);
  if (image !== undefined && bytes !== undefined && isElf(bytes)) symbols.add(elfSymbols(bytes, image), BOTH);
  return symbols;
}

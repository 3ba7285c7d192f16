/** Symbols as text, a line each: `System.map` of a kernel's build, `/proc/kallsyms`, what `nm` prints. */

import { UsageError } from '../cli/failure.js';
import { hex } from '../cli/format.js';
import type { GuestSymbol } from './symbol-table.js';

const LINE = /^([0-9a-f]{1,16}) ([A-Za-z?]) (\S+)(?:\s+\[([^\]\s]+)\])?$/;
const SHOWN = 60;

/** Undefined symbols of `nm` have no address, and are left out. @throws UsageError naming the file and the line. */
export function parseMap(text: string, file: string): readonly GuestSymbol[] {
  const symbols: GuestSymbol[] = [];
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trimEnd();
    if (line === '' || /^\s+[Uwv] \S+$/.test(line)) continue;
    const match = LINE.exec(line);
    if (match === null) {
      const problem = `line ${index + 1} is no symbol: ${JSON.stringify(line.slice(0, SHOWN))}`;
      throw new UsageError(`${file}: ${problem}. Give an ELF file with symbols, or lines of address, type and name.`);
    }
    const [, address, type, name, module] = match as unknown as [string, string, string, string, string | undefined];
    symbols.push({ address: BigInt(`0x${address}`), type, name, ...(module === undefined ? {} : { module }) });
  }
  if (symbols.every(({ address }) => address === 0n)) {
    const why =
      symbols.length === 0 ? 'it has no symbols' : 'all its addresses are zero, as /proc/kallsyms shows them to users';
    throw new UsageError(`${file}: ${why}. Give another file, or ram for the symbols that the guest itself holds.`);
  }
  return symbols;
}

export const mapLine = ({ address, type, name, module }: GuestSymbol): string =>
  `${hex(address, 16)} ${type} ${name}${module === undefined ? '' : `\t[${module}]`}`;

/** Where names come from, as `--symbols` gives it. */
import { UsageError } from '../cli/failure.js';
import type { Level } from './level-symbols.js';

export type SymbolSource = { readonly level: Level } & (
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'ram'; readonly at: string }
);

const DEFAULT_PLACE = 'end';

/** @throws UsageError */
export function parseSource(text: string): SymbolSource {
  const [, prefix = 'L1:', rest = ''] = /^(L[12]:)?(.*)$/s.exec(text) ?? [];
  const level = prefix === 'L2:' ? 2 : 1;
  const ram = /^ram(?:@(.+))?$/.exec(rest);
  if (ram !== null) return { level, kind: 'ram', at: ram[1] ?? DEFAULT_PLACE };
  if (rest === '') throw new UsageError(`--symbols ${JSON.stringify(text)} names no file. Give one, or ram.`);
  return { level, kind: 'file', path: rest };
}

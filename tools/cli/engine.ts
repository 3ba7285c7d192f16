/** `--engine`: which code is compiled, and how the host's compiler is told what it needs. It shows nowhere but in speed. */
import { setFlagsFromString } from 'node:v8';
import { compileRegions, type RegionPolicy } from '../../src/machine/index.js';
import { quote } from './arguments.js';
import { UsageError } from './failure.js';

const POLICIES: Readonly<Record<string, RegionPolicy>> = { interpreter: 'never', auto: 'hot', jit: 'always' };

/** For all machines that the process makes from now on. @throws UsageError */
export function useEngine(tier: string): string {
  const policy = POLICIES[tier];
  if (policy === undefined) throw new UsageError(`--engine ${quote(tier)} is none. Use interpreter, auto or jit.`);
  compileRegions(policy);
  return tier;
}

/** V8 12 and older read branch hints only when asked to; newer ones do so by themselves. Before anything is compiled. */
export function readBranchHints(): void {
  if (Number.parseInt(process.versions.v8, 10) < 13) setFlagsFromString('--experimental-wasm-branch-hinting');
}

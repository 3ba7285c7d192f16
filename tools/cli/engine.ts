/** `--engine`: which code is compiled, and how the host's compiler is told what it needs. It shows nowhere but in speed. */
import { existsSync, readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { giveWay } from '../../src/journal/index.js';
import { compileRegions, type RegionPolicy } from '../../src/machine/index.js';
import { quote } from './arguments.js';
import { UsageError } from './failure.js';

const POLICIES: Readonly<Record<string, RegionPolicy>> = { interpreter: 'never', auto: 'hot', jit: 'always' };

/** For all machines that the process makes from now on. @throws UsageError */
export const useEngine = (tier: string): string => use(tier, '--engine');

function use(tier: string, where: string): string {
  const policy = POLICIES[tier];
  if (policy === undefined) throw new UsageError(`${where} ${quote(tier)} is none. Use interpreter, auto or jit.`);
  compileRegions(policy);
  return tier;
}

/** What `--engine` is without the flag: for who wants all of a test run on one tier. @throws UsageError */
export function useUsualEngine(): string {
  const { VMTAPE_ENGINE: tier = '' } = process.env;
  return use(tier === '' ? 'auto' : tier, 'VMTAPE_ENGINE');
}

/** How V8 is to compile and collect. Before anything else is compiled. */
export function tuneV8(): void {
  // V8 12 and older read branch hints only when asked to; newer ones do so by themselves.
  if (Number.parseInt(process.versions.v8, 10) < 13) setFlagsFromString('--experimental-wasm-branch-hinting');
  // Whether decoded instructions are taken for long-lived is a matter of luck, and keeps alive what they lead to (docs/adr/0035).
  setFlagsFromString('--no-allocation-site-pretenuring');
  // A session is short for a compiler that inlines all it can: half of the usual limits costs no speed, and compiles in less time.
  setFlagsFromString('--max-inlined-bytecode-size=230');
  setFlagsFromString('--max-inlined-bytecode-size-cumulative=460');
  for (const thread of otherThreads()) giveWay(thread);
}

const THREADS = '/proc/self/task';

/** Numbers of the process's threads beside the first one: those in which V8 compiles and collects. Known on Linux alone. */
function otherThreads(): readonly number[] {
  if (!existsSync(THREADS)) return [];
  return readdirSync(THREADS)
    .map(Number)
    .filter((thread) => thread !== process.pid);
}

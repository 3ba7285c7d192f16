/**
 * When code is compiled as regions. It shows nowhere but in speed, and so is no part of a machine's configuration: it holds for
 * all machines of the process that are made from then on.
 */
export type RegionPolicy = (typeof REGION_POLICIES)[number];

export const REGION_POLICIES = [
  'never',
  /** What runs much. */
  'hot',
  /** Whatever is seen to run, at once: for tests, and for who wants to know what regions cost. */
  'always',
  /** What every run begins with, before it does: for tests of single instructions. */
  'at-once',
] as const;

let current: RegionPolicy = 'hot';

export const regionPolicy = (): RegionPolicy => current;

/** @returns what held before. */
export function compileRegions(policy: RegionPolicy): RegionPolicy {
  const before = current;
  current = policy;
  return before;
}

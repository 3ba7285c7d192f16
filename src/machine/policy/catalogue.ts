/** All deviations by name, and what a set of them makes of the table of intercepts. */
import { INTERCEPTS, type Intercept, type InterceptName, type InterceptStage } from '../svm/intercepts.js';
import { DELIVERY } from './delivery.js';
import type { Deviation } from './deviation.js';
import { ENTRY } from './entry.js';
import { EXIT } from './exit.js';
import { GUEST } from './guest.js';
import { INSTRUCTION_DEVIATIONS } from './instructions.js';
import { ORDER } from './order.js';

const TABLES = { ...ORDER, ...INSTRUCTION_DEVIATIONS, ...DELIVERY, ...ENTRY, ...EXIT, ...GUEST } as const;

export type DeviationName = keyof typeof TABLES;

export const DEVIATIONS: Readonly<Record<DeviationName, Deviation>> = TABLES;

/** In the order of the tables, which is also that of every list of deviations. */
export const DEVIATION_NAMES = Object.keys(DEVIATIONS) as readonly DeviationName[];

export const isDeviationName = (name: string): name is DeviationName => Object.hasOwn(DEVIATIONS, name);

export type DeviationSet = ReadonlySet<DeviationName>;

/** Nothing deviates: the machine does as the manual says. */
export const NO_DEVIATIONS: DeviationSet = new Set();

/** Where each intercept stands under `deviations`. */
export function stagesUnder(deviations: DeviationSet): Readonly<Record<InterceptName, InterceptStage>> {
  const stages = Object.entries(INTERCEPTS).map(([name, { stage }]) => [name, stage] as const);
  const changed = [...deviations].flatMap((name) => Object.entries(DEVIATIONS[name].stages ?? {}));
  return Object.fromEntries([...stages, ...changed]) as Record<InterceptName, InterceptStage>;
}

/** For each of the six control words of the VMCB, in order, the bits that are looked at. */
export function interceptMasks(deviations: DeviationSet): readonly number[] {
  const masks = [-1, -1, -1, -1, -1, -1];
  for (const name of [...deviations].flatMap((deviation) => DEVIATIONS[deviation].never ?? [])) {
    const { offset, bit }: Intercept = INTERCEPTS[name];
    masks[offset / 4] = (masks[offset / 4] as number) & ~(1 << bit);
  }
  return masks;
}

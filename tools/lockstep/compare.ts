/**
 * What of two machines' registers is compared after a step, and which differences are no fault of either: flags that an
 * instruction leaves undefined, and results that come from outside the processor or tell what it is.
 */
import { REGISTER_NAMES, SEGMENT_NAMES, type Slot } from '../../src/machine/index.js';
import { leaveUndefined, STATUS_FLAGS, type TraceStep } from '../../src/replay/index.js';
import type { RegisterTexts } from './protocol.js';

export interface FieldDifference {
  readonly register: string;
  readonly first: bigint;
  readonly second: bigint;
}

/** RFLAGS without RF, which a debugger's steps set and clear (APM vol.2 §13.1.1.4 Debug-Status Register). */
const COMPARED_FLAGS = 0x3e_7fd7n;
const MASKS: Readonly<Record<string, bigint>> = { rflags: COMPARED_FLAGS };

/** Registers by their names in the interface: those of the table, and selectors without what segment registers hide. */
const SLOTS = new Map<string, Slot>([
  ...REGISTER_NAMES.map((name, slot) => [name, slot as Slot] as const),
  ...SEGMENT_NAMES.map((name) => [`${name}Selector`, REGISTER_NAMES.indexOf(name) as Slot] as const),
]);
const SELECTOR = 0xffffn;
const ALL = 0xffff_ffff_ffff_ffffn;

/** Registers that are private to this machine, and no part of an instruction's result. */
const PRIVATE =
  /^(?:activity|boundary|svmKey|host[A-Z]\w*|monitorDigest|lastPause|busLocks|tscBase|avic\w+|monitorAddress|eventNextRip)$/;

/** Those that both have. */
export const comparedSlots = (theirs: ReadonlySet<string>): readonly (readonly [string, Slot])[] =>
  [...SLOTS].filter(([name]) => theirs.has(name) && !PRIVATE.test(name));

/** A register by its name in the interface. */
export const registerNamed = (name: string, slot: Slot, registers: BigUint64Array): bigint =>
  (registers[slot] as bigint) & (name.endsWith('Selector') ? SELECTOR : ALL);

export function differencesOf(
  slots: readonly (readonly [string, Slot])[],
  first: BigUint64Array,
  texts: RegisterTexts,
): readonly FieldDifference[] {
  const found: FieldDifference[] = [];
  for (const [register, slot] of slots) {
    const text = texts[register];
    if (text === undefined) continue;
    const mask = MASKS[register] ?? ALL;
    const [mine, second] = [registerNamed(register, slot, first), BigInt(text)];
    if (((mine ^ second) & mask) !== 0n) found.push({ register, first: mine, second });
  }
  return found;
}

/** Whether RFLAGS alone differ, in status flags that the last instructions leave undefined. @param latest the last one first. */
export function isUndefinedFlags(
  fields: readonly FieldDifference[],
  latest: Iterable<Extract<TraceStep, { readonly kind: 'instruction' }>>,
): boolean {
  const [only, more] = fields;
  if (only?.register !== 'rflags' || more !== undefined) return false;
  const flags = (only.first ^ only.second) & COMPARED_FLAGS;
  return (flags & ~STATUS_FLAGS) === 0n && leaveUndefined(latest, flags);
}

/** Instructions whose result comes from outside, or tells what the processor is. */
const BY_NATURE: readonly (readonly [RegExp, string])[] = [
  [/^(?:rdtsc|rdtscp|rdpmc|mperf|rdpru)\b/, 'time: the machines have clocks of their own'],
  [/^(?:rdrand|rdseed)\b/, 'random numbers'],
  [/^cpuid\b/, 'CPUID: the processors are not the same'],
  [/^(?:rep[a-z]* )?ins?(?:b|w|d)?\b/, 'device registers: no timer runs in the other machine'],
  [/^rdmsr\b/, 'MSRs: what the platform has in them'],
];

/** Why an instruction's result may be another; undefined for one that is the processor's own. */
export const byNature = (text: string): string | undefined => BY_NATURE.find(([pattern]) => pattern.test(text))?.[1];

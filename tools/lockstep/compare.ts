/**
 * What of two machines' registers is compared after a step, and which differences are no fault of either: flags that an
 * instruction leaves undefined, and results that come from outside the processor or tell what it is.
 */
import { gprSlot, REGISTER_NAMES, SEGMENT_NAMES, type Slot } from '../../src/machine/index.js';
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

/** A register by its name, and what of it is compared. */
export interface Compared {
  readonly name: string;
  readonly slot: Slot;
  readonly mask: bigint;
}

/** Those that both have. */
export const comparedRegisters = (theirs: ReadonlySet<string>): readonly Compared[] =>
  [...SLOTS]
    .filter(([name]) => theirs.has(name) && !PRIVATE.test(name))
    .map(([name, slot]) => ({ name, slot, mask: name.endsWith('Selector') ? SELECTOR : (MASKS[name] ?? ALL) }));

const ONLY_IN_64_BIT_MODE = /^(?:r\d+|[xy]mm(?:8|9|1\d)(?:High)?)$/;
const LAST_LEGACY_GPR = gprSlot(7);
const LOW_HALF = 0xffff_ffffn;

/** What a debugger is shown of them outside 64-bit mode: eight of each, of 32 bits. */
export const inLegacyMode = (registers: readonly Compared[]): readonly Compared[] =>
  registers
    .filter(({ name }) => !ONLY_IN_64_BIT_MODE.test(name))
    .map((each) => (each.slot <= LAST_LEGACY_GPR ? { ...each, mask: LOW_HALF } : each));

export function differencesOf(
  compared: readonly Compared[],
  registers: BigUint64Array,
  texts: RegisterTexts,
): readonly FieldDifference[] {
  const found: FieldDifference[] = [];
  for (const { name, slot, mask } of compared) {
    const text = texts[name];
    if (text === undefined) continue;
    const [first, second] = [(registers[slot] as bigint) & mask, BigInt(text) & mask];
    if (first !== second) found.push({ register: name, first, second });
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

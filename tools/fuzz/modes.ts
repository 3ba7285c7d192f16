/**
 * The modes that programs run in: 64-bit and compatibility mode, legacy protected mode with and without paging,
 * virtual-8086 mode, real mode; privilege levels 0 and 3; and what the modes of one program have in common.
 * Source: APM vol.2 §1.3 Operating Modes, §3.1 System-Control Registers.
 */
import { type CpuProfile, CR0, CR4, cr4Mask, EFER, Flag } from '../../src/machine/index.js';
import type { Bits } from './encode.js';
import { ALIASES_LEGACY, ALIASES_LONG, At, Sel } from './memory-map.js';
import type { Random } from './random.js';
import type { Addressing } from './values.js';

/** Which tables and handlers a mode uses. */
export type World = 'long' | 'protected' | 'real';
/** How legacy protected mode translates. */
export type LegacyPaging = 'none' | '32-bit' | 'pae';

export interface Mode {
  readonly name: string;
  readonly world: World;
  readonly bits: Bits;
  readonly cpl: 0 | 3;
  readonly virtual8086: boolean;
}

const mode = (name: string, world: World, bits: Bits, cpl: 0 | 3, virtual8086 = false): Mode => ({
  name,
  world,
  bits,
  cpl,
  virtual8086,
});

/** With how often a program chooses them. */
export const MODES: readonly (readonly [weight: number, mode: Mode])[] = [
  [10, mode('64-bit, CPL 0', 'long', 64, 0)],
  [8, mode('64-bit, CPL 3', 'long', 64, 3)],
  [2, mode('compatibility, 32-bit, CPL 0', 'long', 32, 0)],
  [3, mode('compatibility, 32-bit, CPL 3', 'long', 32, 3)],
  [1, mode('compatibility, 16-bit, CPL 0', 'long', 16, 0)],
  [1, mode('compatibility, 16-bit, CPL 3', 'long', 16, 3)],
  [4, mode('protected, 32-bit, CPL 0', 'protected', 32, 0)],
  [4, mode('protected, 32-bit, CPL 3', 'protected', 32, 3)],
  [2, mode('protected, 16-bit, CPL 0', 'protected', 16, 0)],
  [2, mode('protected, 16-bit, CPL 3', 'protected', 16, 3)],
  [3, mode('virtual-8086', 'protected', 16, 3, true)],
  [3, mode('real', 'real', 16, 0)],
];

/** What the modes of one program have in common. */
export interface Environment {
  readonly profile: CpuProfile;
  readonly legacyPaging: LegacyPaging;
  /** CR4 bits that all states have. */
  readonly cr4: bigint;
  readonly cr0: bigint;
  readonly efer: bigint;
  readonly xcr0: bigint;
  /** Programs run under breakpoints, single step and branch recording. */
  readonly debugged: boolean;
}

export function randomEnvironment(profile: CpuProfile, random: Random): Environment {
  const some = (bit: bigint, times: number): bigint => (random.oneIn(times) ? bit : 0n);
  const most = (bit: bigint, times: number): bigint => (random.oneIn(times) ? 0n : bit);
  const cr4 =
    most(CR4.OSFXSR, 12) |
    most(CR4.OSXMMEXCPT, 6) |
    most(CR4.OSXSAVE, 4) |
    some(CR4.FSGSBASE, 2) |
    some(CR4.DE, 2) |
    some(CR4.VME, 3) |
    some(CR4.PVI, 3) |
    some(CR4.TSD, 8) |
    some(CR4.PSE, 2) |
    some(CR4.PGE, 3) |
    some(CR4.PCE, 3) |
    some(CR4.UMIP, 6) |
    some(CR4.SMEP, 24) |
    some(CR4.SMAP, 12) |
    some(CR4.PCIDE, 6);
  return {
    profile,
    legacyPaging: random.pick(['none', '32-bit', '32-bit', 'pae', 'pae']),
    cr4: cr4 & cr4Mask(profile),
    cr0: CR0.ET | CR0.NE | most(CR0.WP, 4) | some(CR0.AM, 3) | some(CR0.MP, 2) | some(CR0.TS, 20) | some(CR0.EM, 24),
    efer: EFER.SCE | some(EFER.NXE, 2) | (profile.features.has('svm') ? most(EFER.SVME, 6) : 0n),
    xcr0: !profile.features.has('avx') ? random.pick([1n, 3n]) : random.pick([7n, 7n, 7n, 3n, 1n]),
    debugged: random.oneIn(8),
  };
}

/** How a program in this mode addresses memory: 16-bit segments begin at code, data and stack. */
export function addressingOf({ world, bits }: Mode, { legacyPaging }: Environment): Addressing {
  const segmented = bits === 16;
  if (world === 'long' && bits === 64) return { segmented, bases: [0n, 0n, 0n, 0n, ...ALIASES_LONG] };
  const aliased = world === 'protected' && legacyPaging === '32-bit';
  return { segmented, bases: aliased ? [0n, 0n, 0n, 0n, ...ALIASES_LEGACY] : [0n] };
}

/** RIP of a place in the code, 0 to CODE_BYTES - 1. */
export function ripOf(of: Mode, addressing: Addressing, place: number, random: Random): bigint {
  if (addressing.segmented) return BigInt(place);
  const base = of.bits === 64 && random.oneIn(4) ? random.pick(addressing.bases) : 0n;
  return base + BigInt(At.CODE + place);
}

/** Selectors of code and stack, as IRET takes them. */
export function selectorsOf({ world, bits, cpl, virtual8086 }: Mode): { readonly cs: number; readonly ss: number } {
  if (world === 'real' || virtual8086) return { cs: At.CODE >> 4, ss: At.STACK >> 4 };
  if (bits === 16) return cpl === 0 ? { cs: Sel.CODE16, ss: Sel.DATA } : { cs: Sel.USER_CODE16, ss: Sel.USER_DATA };
  if (cpl === 0) return { cs: bits === 64 ? Sel.CODE64 : Sel.CODE32, ss: Sel.DATA };
  return { cs: bits === 64 ? Sel.USER_CODE64 : Sel.USER_CODE32, ss: Sel.USER_DATA };
}

export function randomFlags(of: Mode, { debugged }: Environment, random: Random): bigint {
  const some = (bit: bigint, times: number): bigint => (random.oneIn(times) ? bit : 0n);
  let flags = Flag.ONE | (BigInt(random.next32()) & (Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.OF));
  flags |= some(Flag.DF, 4) | some(Flag.IF, 3) | some(Flag.AC, 6) | some(Flag.NT, 24) | some(Flag.ID, 4);
  flags |= some(Flag.TF, debugged ? 3 : 24) | some(Flag.RF, 24) | some(Flag.VIF, 16) | some(Flag.VIP, 32);
  flags |= BigInt(random.oneIn(2) ? 3 : random.below(4)) << 12n;
  return of.virtual8086 ? flags | Flag.VM : flags & ~Flag.VM;
}

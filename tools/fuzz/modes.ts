/**
 * The modes that programs run in, and random processor states for each: 64-bit and compatibility mode, legacy protected
 * mode with and without paging, virtual-8086 mode, real mode; privilege levels 0 and 3.
 * Source: APM vol.2 §1.3 Operating Modes, §3.1 System-Control Registers, §14.7 Initializing Long Mode.
 */
import { type CpuProfile, CR0, CR4, cr4Mask, EFER, Flag, REGISTER_NAMES, SvmMode } from '../../src/machine/index.js';
import type { Bits } from './encode.js';
import { ALIASES_LEGACY, ALIASES_LONG, At, CODE_BYTES, DATA_BYTES, GDT_LIMIT, Sel, STACK_BYTES } from './memory-map.js';
import type { Random } from './random.js';
import {
  type Addressing,
  codePointer,
  dataPointer,
  extendedValue,
  registerValue,
  stackPlace,
  stackPointer,
  vectorHalf,
} from './values.js';

export type RegisterName = (typeof REGISTER_NAMES)[number];
export type Values = Partial<Record<RegisterName, bigint>>;

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

/** A segment register: selector, attributes, limit. */
const segment = (selector: number, attributes: number, limit: number): bigint =>
  BigInt(selector) | (BigInt(attributes) << 16n) | (BigInt(limit) << 32n);
const FLAT = 0xffff_ffff;

/** Selectors of code and stack, as IRET takes them. */
export function selectorsOf({ world, bits, cpl, virtual8086 }: Mode): { readonly cs: number; readonly ss: number } {
  if (world === 'real' || virtual8086) return { cs: At.CODE >> 4, ss: At.STACK >> 4 };
  if (bits === 16) return cpl === 0 ? { cs: Sel.CODE16, ss: Sel.DATA } : { cs: Sel.USER_CODE16, ss: Sel.USER_DATA };
  if (cpl === 0) return { cs: bits === 64 ? Sel.CODE64 : Sel.CODE32, ss: Sel.DATA };
  return { cs: bits === 64 ? Sel.USER_CODE64 : Sel.USER_CODE32, ss: Sel.USER_DATA };
}

function codeAndStack(of: Mode): Values {
  const { world, bits, cpl, virtual8086 } = of;
  const { cs, ss } = selectorsOf(of);
  if (world === 'real' || virtual8086) {
    const attributes = virtual8086 ? 0xf3 : 0x93;
    return {
      ...{ cs: segment(cs, attributes, 0xffff), csBase: BigInt(At.CODE) },
      ...{ ss: segment(ss, attributes, 0xffff), ssBase: BigInt(At.STACK) },
    };
  }
  const level = cpl === 3 ? 0x60 : 0;
  const size = bits === 64 ? 0xa00 : bits === 32 ? 0xc00 : 0;
  const narrow = bits === 16;
  return {
    cs: segment(cs, 0x9b | level | size, narrow ? 0xffff : FLAT),
    csBase: narrow ? BigInt(At.CODE) : 0n,
    ss: segment(ss, 0x93 | level | (narrow ? 0 : 0xc00), narrow ? 0xffff : FLAT),
    ssBase: narrow ? BigInt(At.STACK) : 0n,
  };
}

/** DS, ES, FS and GS: mostly plain, sometimes small, read-only, expand-down, absent or null. */
function dataSegments({ world, bits, cpl, virtual8086 }: Mode, random: Random): Values {
  const values: Values = {};
  for (const name of ['ds', 'es', 'fs', 'gs'] as const) {
    if (world === 'real' || virtual8086) {
      const paragraph = (At.DATA >> 4) + (random.oneIn(3) ? random.below(64) : 0);
      values[name] = segment(paragraph, virtual8086 ? 0xf3 : 0x93, world === 'real' && random.oneIn(8) ? FLAT : 0xffff);
      values[`${name}Base`] = BigInt(paragraph) << 4n;
      continue;
    }
    const narrow = bits === 16;
    const odd = bits !== 64 && random.oneIn(4);
    const level = cpl === 3 ? 0x60 : 0;
    const type = odd ? random.pick([0x91, 0x97, 0x95, 0x9b, 0x99, 0x13, 0x93]) : 0x93;
    const limit = narrow ? 0xffff : FLAT;
    const selector = cpl === 3 ? Sel.USER_DATA : Sel.DATA;
    const size = narrow && !random.oneIn(4) ? 0 : 0xc00;
    values[name] = segment(
      selector,
      type | level | size,
      odd ? random.pick([limit, DATA_BYTES - 1, At.DATA + 0xfff]) : limit,
    );
    const base = narrow ? At.DATA : 0;
    const shifted = (bits === 64 && (name === 'fs' || name === 'gs')) || random.oneIn(8);
    values[`${name}Base`] = BigInt(base + (shifted ? random.below(256) : 0));
  }
  return values;
}

function controls(of: Mode, environment: Environment, random: Random): Values {
  const { cr4, cr0, efer, legacyPaging } = environment;
  const legacy = cr4 & ~CR4.PCIDE;
  if (of.world === 'real') return { cr0, cr4: legacy & ~CR4.PAE, efer, cr3: BigInt(At.PML4) };
  if (of.world === 'long') {
    const translations = { cr3: BigInt(At.PML4), efer: efer | EFER.LME | EFER.LMA };
    return { cr0: cr0 | CR0.PE | CR0.PG, cr4: cr4 | CR4.PAE, ...translations };
  }
  switch (legacyPaging) {
    case 'none':
      return { cr0: cr0 | CR0.PE, cr4: legacy, cr3: random.next64() & 0xffff_f000n, efer };
    case '32-bit':
      return { cr0: cr0 | CR0.PE | CR0.PG, cr4: legacy & ~CR4.PAE, cr3: BigInt(At.LEGACY_DIRECTORY), efer };
    case 'pae':
      return {
        ...{ cr0: cr0 | CR0.PE | CR0.PG, cr4: legacy | CR4.PAE, cr3: BigInt(At.PAE_POINTERS), efer },
        ...{ pdpte0: BigInt(At.DIRECTORY | 1), pdpte1: BigInt(At.DIRECTORY | 1) },
        ...{ pdpte2: 0n, pdpte3: BigInt(At.DEVICE_DIRECTORY | 1) },
      };
  }
}

function tables({ world }: Mode, random: Random): Values {
  const long = world === 'long';
  const task = long ? Sel.TSS64 : Sel.TSS32;
  const hasLdt = random.oneIn(2);
  return {
    ...{ gdtrBase: BigInt(At.GDT), gdtrLimit: GDT_LIMIT },
    idtrBase: BigInt(world === 'real' ? At.IVT : long ? At.IDT64 : At.IDT32),
    idtrLimit: world === 'real' ? 0x3ffn : long ? 0xfffn : 0x7ffn,
    ...{ tr: segment(task, 0x8b, 0x1ff), trBase: BigInt(long ? At.TSS64 : At.TSS32) },
    ldtr: hasLdt ? segment(Sel.LDT, 0x82, 0x3f) : 0n,
    ldtrBase: hasLdt ? BigInt(At.LDT) : 0n,
  };
}

export function randomFlags(of: Mode, { debugged }: Environment, random: Random): bigint {
  const some = (bit: bigint, times: number): bigint => (random.oneIn(times) ? bit : 0n);
  let flags = Flag.ONE | (BigInt(random.next32()) & (Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.OF));
  flags |= some(Flag.DF, 4) | some(Flag.IF, 3) | some(Flag.AC, 6) | some(Flag.NT, 24) | some(Flag.ID, 4);
  flags |= some(Flag.TF, debugged ? 3 : 24) | some(Flag.RF, 24) | some(Flag.VIF, 16) | some(Flag.VIP, 32);
  flags |= BigInt(random.oneIn(2) ? 3 : random.below(4)) << 12n;
  return of.virtual8086 ? flags | Flag.VM : flags & ~Flag.VM;
}

function debugRegisters({ debugged }: Environment, addressing: Addressing, random: Random): Values {
  const values: Values = { dr6: 0xffff_0ff0n, dr7: 0x400n, debugCtl: 0n };
  if (!debugged) return values;
  for (const name of ['dr0', 'dr1', 'dr2', 'dr3'] as const) {
    const base = addressing.segmented ? { code: At.CODE, data: At.DATA } : { code: 0, data: 0 };
    values[name] = random.oneIn(2)
      ? BigInt(base.code) + codePointer(random, addressing)
      : BigInt(base.data) + dataPointer(random, addressing);
  }
  if (random.oneIn(2)) values.dr7 = 0x400n | BigInt(random.next32() & 0xffff_00ff) | (random.oneIn(4) ? 0x2000n : 0n);
  values.dr7 = BigInt.asUintN(32, values.dr7 as bigint);
  if (random.oneIn(2)) values.debugCtl = BigInt(random.below(4));
  return values;
}

/** General-purpose registers. */
export function generalRegisters(of: Mode, addressing: Addressing, random: Random): Values {
  const values: Values = {};
  const count = of.bits === 64 ? 16 : 8;
  REGISTER_NAMES.slice(0, count).forEach((name, number) => {
    const value = registerValue(random, addressing, number);
    values[name] = of.bits === 64 ? value : BigInt.asUintN(32, value);
  });
  if (!random.oneIn(12)) {
    values.rsp = addressing.segmented ? BigInt(stackPlace(random)) : stackPointer(random, addressing);
  }
  return values;
}

/** Vector and x87 registers with their control words. */
export function floatingRegisters(random: Random): Values {
  const values: Values = {};
  for (let number = 0; number < 16; number++) {
    for (const bank of ['xmm', 'ymm'] as const) {
      values[`${bank}${number}` as RegisterName] = vectorHalf(random);
      values[`${bank}${number}High` as RegisterName] = vectorHalf(random);
    }
  }
  const masks = random.oneIn(3) ? random.below(64) : 0x3f;
  const flags = random.oneIn(3) ? random.below(64) : 0;
  values.mxcsr = BigInt(
    (masks << 7) | flags | (random.below(4) << 13) | (random.oneIn(4) ? 0x8000 : 0) | (random.oneIn(4) ? 0x40 : 0),
  );
  for (let number = 0; number < 8; number++) {
    const [significand, high] = extendedValue(random);
    values[`fpr${number}` as RegisterName] = significand;
    values[`fpr${number}High` as RegisterName] = high;
  }
  const x87Masks = random.oneIn(3) ? random.below(64) : 0x3f;
  const x87Flags = random.oneIn(3) ? random.below(128) : 0;
  const summary = (x87Flags & ~x87Masks & 0x3f) === 0 ? 0 : 0x8080;
  values.fcw = BigInt(0x40 | x87Masks | (random.pick([3, 3, 2, 0]) << 8) | (random.below(4) << 10));
  values.fsw = BigInt(x87Flags | summary | (random.next32() & 0x7f00));
  values.ftw = BigInt(random.oneIn(2) ? random.below(256) : random.pick([0, 0xff]));
  return values;
}

/** What programs are called by, and where hidden state lies. */
function modelSpecific(addressing: Addressing, random: Random): Values {
  return {
    star: (BigInt(Sel.USER_CODE32) << 48n) | (BigInt(Sel.CODE64) << 32n) | BigInt(At.CODE + random.below(CODE_BYTES)),
    lstar: BigInt(At.CODE + random.below(CODE_BYTES)),
    cstar: BigInt(At.CODE + random.below(CODE_BYTES)),
    sfmask: random.pick([0x700n, 0n, 0x4_7fd5n]),
    kernelGsBase: dataPointer(random, addressing),
    sysenterCs: BigInt(random.pick([Sel.CODE64, Sel.CODE32, Sel.CODE32, 0])),
    sysenterEsp: BigInt(At.STACK + random.below(STACK_BYTES)),
    sysenterEip: BigInt(At.CODE + random.below(CODE_BYTES)),
    vmHsavePA: BigInt(At.HOST_SAVE),
    smBase: BigInt(At.SMM),
  };
}

/** Nothing is pending and no guest runs. */
const AT_REST: Values = {
  ...{ activity: 0n, boundary: 0n, monitorAddress: 0n, svmMode: SvmMode.GIF, vmcb: 0n },
  ...{ interceptCr: 0n, interceptDr: 0n, interceptExceptions: 0n, intercept3: 0n, intercept4: 0n, intercept5: 0n },
  ...{ pauseFilter: 0n, iopmBase: 0n, msrpmBase: 0n, tscOffset: 0n, guestAsid: 0n, intControl: 0n },
  ...{ nestedControl: 0n, nestedCr3: 0n, virtExt: 0n, exitIntInfo: 0n, eventInjection: 0n, eventNextRip: 0n },
  ...{ vmCr: 0n, hwcr: 0x100_0000n, cr2: 0n },
};

/** A whole state in this mode, general-purpose and floating-point registers aside. */
export function systemRegisters(of: Mode, environment: Environment, place: number, random: Random): Values {
  const addressing = addressingOf(of, environment);
  return {
    ...AT_REST,
    cpl: BigInt(of.cpl),
    rip: ripOf(of, addressing, place, random),
    rflags: randomFlags(of, environment, random),
    xcr0: environment.xcr0,
    ...controls(of, environment, random),
    ...codeAndStack(of),
    ...dataSegments(of, random),
    ...tables(of, random),
    ...debugRegisters(environment, addressing, random),
    ...modelSpecific(addressing, random),
  };
}

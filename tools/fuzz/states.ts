/**
 * Random processor states for each mode: segments mostly plain and sometimes odd, control registers that fit, registers
 * that point somewhere, special values of floating-point formats.
 * Source: APM vol.2 §3.1 System-Control Registers, §4.5 Segment Registers, §14.7 Initializing Long Mode; APM vol.1 §6.2.
 */
import {
  CR0,
  CR4,
  EFER,
  fprSlot,
  gprSlot,
  R,
  Segment,
  type Slot,
  SvmMode,
  segmentSlot,
} from '../../src/machine/index.js';
import { At, CODE_BYTES, DATA_BYTES, GDT_LIMIT, Sel, STACK_BYTES } from './memory-map.js';
import { addressingOf, type Environment, type Mode, randomFlags, ripOf, selectorsOf } from './modes.js';
import type { Random } from './random.js';
import { State } from './state.js';
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

const FLAT = 0xffff_ffff;
const { ES, CS, SS, DS, FS, GS } = Segment;

function putSegment(
  state: State,
  number: number,
  of: { readonly selector: number; readonly attributes: number; readonly limit: number; readonly base: number },
): void {
  const { selector, attributes, limit, base } = of;
  state.put(segmentSlot(number), BigInt(selector) | (BigInt(attributes) << 16n) | (BigInt(limit) << 32n));
  state.put((segmentSlot(number) + 1) as Slot, BigInt(base));
}

const next = (slot: Slot, by: number): Slot => (slot + by) as Slot;

function codeAndStack(state: State, of: Mode): void {
  const { world, bits, cpl, virtual8086 } = of;
  const { cs, ss } = selectorsOf(of);
  if (world === 'real' || virtual8086) {
    const attributes = virtual8086 ? 0xf3 : 0x93;
    putSegment(state, CS, { selector: cs, attributes, limit: 0xffff, base: At.CODE });
    putSegment(state, SS, { selector: ss, attributes, limit: 0xffff, base: At.STACK });
    return;
  }
  const level = cpl === 3 ? 0x60 : 0;
  const size = bits === 64 ? 0xa00 : bits === 32 ? 0xc00 : 0;
  const narrow = bits === 16;
  const limit = narrow ? 0xffff : FLAT;
  putSegment(state, CS, { selector: cs, attributes: 0x9b | level | size, limit, base: narrow ? At.CODE : 0 });
  const attributes = 0x93 | level | (narrow ? 0 : 0xc00);
  putSegment(state, SS, { selector: ss, attributes, limit, base: narrow ? At.STACK : 0 });
}

/** DS, ES, FS and GS: mostly plain, sometimes small, read-only, expand-down, absent or shifted. */
function dataSegments(state: State, { world, bits, cpl, virtual8086 }: Mode, random: Random): void {
  for (const number of [DS, ES, FS, GS]) {
    if (world === 'real' || virtual8086) {
      const selector = (At.DATA >> 4) + (random.oneIn(3) ? random.below(64) : 0);
      const limit = world === 'real' && random.oneIn(8) ? FLAT : 0xffff;
      putSegment(state, number, { selector, attributes: virtual8086 ? 0xf3 : 0x93, limit, base: selector << 4 });
      continue;
    }
    const narrow = bits === 16;
    const odd = bits !== 64 && random.oneIn(4);
    const type = odd ? random.pick([0x91, 0x97, 0x95, 0x9b, 0x99, 0x13, 0x93]) : 0x93;
    const limit = narrow ? 0xffff : FLAT;
    const shifted = (bits === 64 && number >= FS) || random.oneIn(8);
    putSegment(state, number, {
      selector: cpl === 3 ? Sel.USER_DATA : Sel.DATA,
      attributes: type | (cpl === 3 ? 0x60 : 0) | (narrow && !random.oneIn(4) ? 0 : 0xc00),
      limit: odd ? random.pick([limit, DATA_BYTES - 1, At.DATA + 0xfff]) : limit,
      base: (narrow ? At.DATA : 0) + (shifted ? random.below(256) : 0),
    });
  }
}

function controls(state: State, of: Mode, environment: Environment, random: Random): void {
  const { cr4, cr0, efer, legacyPaging } = environment;
  const legacy = cr4 & ~(CR4.PCIDE | CR4.PAE);
  const paged = cr0 | CR0.PE | CR0.PG;
  if (of.world === 'real') state.with({ cr0, cr4: legacy, efer, cr3: BigInt(At.PML4) });
  else if (of.world === 'long') {
    state.with({ cr0: paged, cr4: cr4 | CR4.PAE, cr3: BigInt(At.PML4), efer: efer | EFER.LME | EFER.LMA });
  } else if (legacyPaging === 'none') {
    state.with({ cr0: cr0 | CR0.PE, cr4: legacy, cr3: random.next64() & 0xffff_f000n, efer });
  } else if (legacyPaging === '32-bit') {
    state.with({ cr0: paged, cr4: legacy, cr3: BigInt(At.LEGACY_DIRECTORY), efer });
  } else {
    state.with({ cr0: paged, cr4: legacy | CR4.PAE, cr3: BigInt(At.PAE_POINTERS), efer });
    const directory = BigInt(At.DIRECTORY | 1);
    state.with({ pdpte0: directory, pdpte1: directory, pdpte2: 0n, pdpte3: BigInt(At.DEVICE_DIRECTORY | 1) });
  }
}

function tables(state: State, { world }: Mode, random: Random): void {
  const long = world === 'long';
  const hasLdt = random.oneIn(2);
  state.with({
    ...{ gdtrBase: BigInt(At.GDT), gdtrLimit: GDT_LIMIT },
    idtrBase: BigInt(world === 'real' ? At.IVT : long ? At.IDT64 : At.IDT32),
    idtrLimit: world === 'real' ? 0x3ffn : long ? 0xfffn : 0x7ffn,
  });
  const [task, base] = long ? [Sel.TSS64, At.TSS64] : [Sel.TSS32, At.TSS32];
  putSegment(state, Segment.TR, { selector: task, attributes: 0x8b, limit: 0x1ff, base });
  const ldt = { selector: Sel.LDT, attributes: 0x82, limit: 0x3f, base: At.LDT };
  putSegment(state, Segment.LDTR, hasLdt ? ldt : { selector: 0, attributes: 0, limit: 0, base: 0 });
}

function debugRegisters(state: State, { debugged }: Environment, addressing: Addressing, random: Random): void {
  state.with({ dr6: 0xffff_0ff0n, dr7: 0x400n, debugCtl: 0n });
  if (!debugged) return;
  const base = addressing.segmented ? { code: At.CODE, data: At.DATA } : { code: 0, data: 0 };
  for (let number = 0; number < 4; number++) {
    const address = random.oneIn(2)
      ? BigInt(base.code) + codePointer(random, addressing)
      : BigInt(base.data) + dataPointer(random, addressing);
    state.put(next(R.dr0, number), address);
  }
  const generalDetect = random.oneIn(4) ? 0x2000 : 0;
  if (random.oneIn(2)) state.put(R.dr7, BigInt(((random.next32() & 0xffff_00ff) | 0x400 | generalDetect) >>> 0));
  if (random.oneIn(2)) state.put(R.debugCtl, BigInt(random.below(4)));
}

/** General-purpose registers. */
export function generalRegisters(state: State, of: Mode, addressing: Addressing, random: Random): void {
  const wide = of.bits === 64;
  for (let number = 0; number < (wide ? 16 : 8); number++) {
    const value = registerValue(random, addressing, number);
    state.put(gprSlot(number), wide ? value : BigInt.asUintN(32, value));
  }
  if (random.oneIn(12)) return;
  state.put(R.rsp, addressing.segmented ? BigInt(stackPlace(random)) : stackPointer(random, addressing));
}

/** Vector and x87 registers with their control words. */
export function floatingRegisters(state: State, random: Random): void {
  for (let half = 0; half < 32; half++) {
    state.put(next(R.xmm0, half), vectorHalf(random));
    state.put(next(R.ymm0, half), vectorHalf(random));
  }
  for (let number = 0; number < 8; number++) {
    const [significand, high] = extendedValue(random);
    state.put(fprSlot(number), significand);
    state.put(next(fprSlot(number), 1), high);
  }
  const some = (bits: number, times: number): number => (random.oneIn(times) ? bits : 0);
  const masks = random.oneIn(3) ? random.below(64) : 0x3f;
  const flags = random.oneIn(3) ? random.below(64) : 0;
  state.put(R.mxcsr, BigInt((masks << 7) | flags | (random.below(4) << 13) | some(0x8000, 4) | some(0x40, 4)));
  const x87Masks = random.oneIn(3) ? random.below(64) : 0x3f;
  const x87Flags = random.oneIn(3) ? random.below(128) : 0;
  const summary = (x87Flags & ~x87Masks & 0x3f) === 0 ? 0 : 0x8080;
  state.put(R.fcw, BigInt(0x40 | x87Masks | (random.pick([3, 3, 2, 0]) << 8) | (random.below(4) << 10)));
  state.put(R.fsw, BigInt(x87Flags | summary | (random.next32() & 0x7f00)));
  state.put(R.ftw, BigInt(random.oneIn(2) ? random.below(256) : random.pick([0, 0xff])));
}

/** What programs are called by, and where hidden state lies. */
function modelSpecific(state: State, addressing: Addressing, random: Random): void {
  const entry = (): bigint => BigInt(At.CODE + random.below(CODE_BYTES));
  state.with({
    star: (BigInt(Sel.USER_CODE32) << 48n) | (BigInt(Sel.CODE64) << 32n) | entry(),
    ...{ lstar: entry(), cstar: entry(), sfmask: random.pick([0x700n, 0n, 0x4_7fd5n]) },
    kernelGsBase: dataPointer(random, addressing),
    sysenterCs: BigInt(random.pick([Sel.CODE64, Sel.CODE32, Sel.CODE32, 0])),
    ...{ sysenterEsp: BigInt(At.STACK + random.below(STACK_BYTES)), sysenterEip: entry() },
    ...{ vmHsavePA: BigInt(At.HOST_SAVE), smBase: BigInt(At.SMM) },
  });
}

/** Nothing is pending and no guest runs. */
const AT_REST: readonly (readonly [Slot, bigint])[] = [
  ...[R.activity, R.boundary, R.monitorAddress, R.vmcb, R.vmCr, R.cr2].map((slot) => [slot, 0n] as const),
  ...[R.interceptCr, R.interceptDr, R.interceptExceptions].map((slot) => [slot, 0n] as const),
  ...[R.intercept3, R.intercept4, R.intercept5, R.pauseFilter].map((slot) => [slot, 0n] as const),
  ...[R.iopmBase, R.msrpmBase, R.tscOffset, R.guestAsid, R.intControl].map((slot) => [slot, 0n] as const),
  ...[R.nestedControl, R.nestedCr3, R.virtExt, R.exitIntInfo].map((slot) => [slot, 0n] as const),
  ...[R.eventInjection, R.eventNextRip].map((slot) => [slot, 0n] as const),
  [R.svmMode, SvmMode.GIF],
  [R.hwcr, 0x100_0000n],
];

/** A whole state in this mode, general-purpose and floating-point registers aside. @param place in the code. */
export function systemState(of: Mode, environment: Environment, place: number, random: Random): State {
  const state = new State();
  const addressing = addressingOf(of, environment);
  for (const [slot, value] of AT_REST) state.put(slot, value);
  state.put(R.cpl, BigInt(of.cpl));
  state.put(R.rip, ripOf(of, addressing, place, random));
  state.put(R.rflags, randomFlags(of, environment, random));
  state.put(R.xcr0, environment.xcr0);
  controls(state, of, environment, random);
  codeAndStack(state, of);
  dataSegments(state, of, random);
  tables(state, of, random);
  debugRegisters(state, environment, addressing, random);
  modelSpecific(state, addressing, random);
  return state;
}

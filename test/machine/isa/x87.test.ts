/** The x87 unit: stack, exceptions and their delivery, pointers, images in memory. APM vol.1 §6, APM vol.5. */
import { describe, expect, it } from 'vitest';
import { FerrFreeze } from '../../../src/machine/cpu/numeric-error.js';
import { CR0, fprSlot, R, type Slot } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, DATA, faultOf } from '../../support/cpu-machine.js';

const ONE = 0x3fff_8000_0000_0000_0000n;
const TWO = 0x4000_8000_0000_0000_0000n;
const PI = 0x4000_c90f_daa2_2168_c235n;
const INDEFINITE = 0xffff_c000_0000_0000_0000n;
const SNAN = 0x7fff_a000_0000_0000_0000n;
const CODE = 0x1_0000n;

/** FCW with all masked but these exceptions. */
const unmasking = (...bits: readonly number[]): bigint => bits.reduce((fcw, bit) => fcw & ~(1n << BigInt(bit)), 0x37fn);
const [IM, , ZM, OM, UM] = [0, 1, 2, 3, 4] as const;

function physical(cpu: CpuMachine, number: number): bigint {
  const slot = fprSlot(number);
  return (cpu.registers[slot] as bigint) | ((cpu.registers[(slot + 1) as Slot] as bigint) << 64n);
}

const top = (cpu: CpuMachine): number => Number((cpu.get('fsw') >> 11n) & 7n);
const st = (cpu: CpuMachine, index: number): bigint => physical(cpu, (top(cpu) + index) & 7);

/** The stack with these values, ST(0) first. */
function loaded(cpu: CpuMachine, ...values: readonly bigint[]): CpuMachine {
  let ftw = 0n;
  const first = 8 - values.length;
  values.forEach((bits, index) => {
    const slot = fprSlot(first + index);
    cpu.registers[slot] = BigInt.asUintN(64, bits);
    cpu.registers[(slot + 1) as Slot] = bits >> 64n;
    ftw |= 1n << BigInt(first + index);
  });
  return cpu.set({ fcw: 0x37fn, fsw: BigInt(first & 7) << 11n, ftw, rbx: BigInt(DATA) });
}

const legacy = (): CpuMachine => new CpuMachine().protectedMode();
const long = (): CpuMachine => new CpuMachine().longMode();

describe('x87 stack (APM vol.1 §6.2.1 x87 Data Registers, §6.2.4 x87 Tag Word Register)', () => {
  it('a load pushes, FSTP pops', () => {
    const cpu = loaded(legacy());
    cpu.run(0xd9, 0xe8);
    cpu.run(0xd9, 0xeb);
    expect([top(cpu), st(cpu, 0), st(cpu, 1), cpu.get('ftw')]).toEqual([6, PI, ONE, 0xc0n]);
    cpu.run(0xdb, 0x3b);
    expect([top(cpu), cpu.get('ftw')]).toEqual([7, 0x80n]);
    expect([cpu.read(DATA, 8), cpu.read(DATA + 8, 2)]).toEqual([0xc90f_daa2_2168_c235n, 0x4000n]);
  });

  it('a ninth value overflows: C1, IE, SF and the indefinite value when masked', () => {
    const cpu = loaded(legacy(), ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE);
    cpu.run(0xd9, 0xee);
    expect([st(cpu, 0), cpu.get('fsw')]).toEqual([INDEFINITE, 0x3a41n]);
  });

  it('an empty register underflows with C1 clear', () => {
    const cpu = loaded(legacy());
    cpu.run(0xd8, 0xc1);
    expect([st(cpu, 0), cpu.get('fsw'), cpu.get('ftw')]).toEqual([INDEFINITE, 0x41n, 1n]);
  });

  it.each([
    ['FADDP', [0xde, 0xc1]],
    ['FSTP m64', [0xdd, 0x1b]],
    ['FCOMP', [0xd8, 0xd9]],
    ['FYL2X', [0xd9, 0xf1]],
    ['FXTRACT', [0xd9, 0xf4]],
  ] as const)('%s changes nothing when a stack fault is unmasked', (_name, bytes) => {
    const cpu = loaded(legacy()).set({ fcw: unmasking(IM) });
    cpu.write(DATA, 8, 0x1234n).run(...bytes);
    expect([top(cpu), cpu.get('ftw'), cpu.read(DATA, 8)]).toEqual([0, 0n, 0x1234n]);
    expect(cpu.get('fsw') & 0x80ffn).toBe(0x80c1n);
  });

  it('FFREEP frees and pops, FDECSTP and FINCSTP only turn', () => {
    const cpu = loaded(legacy(), TWO, ONE);
    cpu.run(0xdf, 0xc0);
    expect([top(cpu), cpu.get('ftw')]).toEqual([7, 0x80n]);
    cpu.run(0xd9, 0xf6);
    expect([top(cpu), cpu.get('ftw')]).toEqual([6, 0x80n]);
    cpu.run(0xd9, 0xf7);
    expect([top(cpu), cpu.get('ftw')]).toEqual([7, 0x80n]);
  });
});

describe('x87 exceptions (APM vol.1 §6.8 x87 Floating-Point Exceptions; vol.2 §8.2.16 #MF)', () => {
  const dividedByZero = (cpu: CpuMachine): CpuMachine => {
    loaded(cpu, ONE, 0n).set({ fcw: unmasking(ZM) });
    cpu.run(0xd8, 0xf1);
    return cpu;
  };

  it('an unmasked exception is noted, and leaves the stack alone', () => {
    const cpu = dividedByZero(legacy());
    expect([cpu.get('fsw'), st(cpu, 0)]).toEqual([0xb084n, ONE]);
  });

  it.each([
    ['FLD1', [0xd9, 0xe8]],
    ['FNOP', [0xd9, 0xd0]],
    ['FWAIT', [0x9b]],
    ['FLDCW', [0xd9, 0x2b]],
    ['FLDENV', [0xd9, 0x23]],
    ['FRSTOR', [0xdd, 0x23]],
    ['FSIN', [0xd9, 0xfe]],
    ['EMMS', [0x0f, 0x77]],
    ['PADDB mm0, mm1', [0x0f, 0xfc, 0xc1]],
  ] as const)('%s waits and raises #MF', (_name, bytes) => {
    expect(faultOf(dividedByZero(legacy()).run(...bytes))).toBe('#MF');
  });

  it.each([
    ['FNSTSW', [0xdf, 0xe0]],
    ['FNSTCW', [0xd9, 0x3b]],
    ['FNCLEX', [0xdb, 0xe2]],
    ['FNINIT', [0xdb, 0xe3]],
    ['FNSTENV', [0xd9, 0x33]],
    ['FNSAVE', [0xdd, 0x33]],
    ['FXSAVE', [0x0f, 0xae, 0x03]],
  ] as const)('%s does not wait', (_name, bytes) => {
    expect(faultOf(dividedByZero(legacy()).run(...bytes))).toBe('none');
  });

  it('without CR0.NE the processor freezes in front of it', () => {
    const cpu = dividedByZero(legacy());
    cpu.set({ cr0: CR0.PE | CR0.ET });
    expect(() => cpu.run(0xd9, 0xe8)).toThrow(FerrFreeze);
  });

  it.each([CR0.EM, CR0.TS])('CR0 bit %o makes every x87 instruction raise #NM (vol.2 §8.2.7)', (bit) => {
    const cpu = loaded(legacy(), ONE).set({ cr0: CR0.PE | CR0.ET | CR0.NE | bit });
    expect(faultOf(cpu.run(0xd9, 0xfa))).toBe('#NM');
    expect(faultOf(cpu.run(0xdf, 0xe0))).toBe('#NM');
  });

  it('unmasked overflow wraps the exponent in a register, and keeps memory and stack', () => {
    const huge = 0x7ffe_8000_0000_0000_0000n;
    const cpu = loaded(legacy(), huge).set({ fcw: unmasking(OM) });
    cpu.run(0xd8, 0xc0);
    expect([st(cpu, 0), cpu.get('fsw')]).toEqual([((0x7fffn - 24576n) << 64n) | (1n << 63n), 0xb888n]);

    loaded(cpu, huge)
      .set({ fcw: unmasking(OM) })
      .write(DATA, 4, 0x1234n);
    cpu.run(0xd9, 0x1b);
    expect([cpu.read(DATA, 4), top(cpu), cpu.get('fsw')]).toEqual([0x1234n, 7, 0xb888n]);
  });

  it('unmasked underflow wraps the other way, exact or not', () => {
    const cpu = loaded(legacy(), (1n << 64n) | (1n << 63n), 0x3ffe_8000_0000_0000_0000n).set({ fcw: unmasking(UM) });
    cpu.run(0xd8, 0xc9);
    expect([st(cpu, 0), cpu.get('fsw')]).toEqual([(24576n << 64n) | (1n << 63n), 0xb090n]);
  });

  it('FNCLEX clears the exceptions, FNSTENV masks them', () => {
    const cpu = dividedByZero(legacy());
    cpu.run(0xd9, 0x33);
    expect([cpu.get('fcw'), cpu.get('fsw')]).toEqual([0x37fn, 0x3004n]);
    cpu.run(0xdb, 0xe2);
    expect(cpu.get('fsw')).toBe(0x3000n);
  });
});

describe('x87 results', () => {
  it('precision control cuts the significand, not the range (APM vol.1 §6.2.3)', () => {
    const cpu = loaded(legacy(), 0x4000_8000_0000_0000_0000n, ONE + 1n).set({ fcw: 0x07fn });
    cpu.run(0xd8, 0xc9);
    expect([st(cpu, 0), cpu.get('fsw')]).toEqual([TWO, 0x3020n]);
  });

  it('of two NaNs the quiet one wins (APM vol.1 table 6-7)', () => {
    const cpu = loaded(legacy(), SNAN | 7n, INDEFINITE);
    cpu.run(0xd8, 0xc1);
    expect([st(cpu, 0), cpu.get('fsw')]).toEqual([INDEFINITE, 0x3001n]);
  });

  it('FCOMI sets RFLAGS and keeps C1, FCOM sets the condition codes (APM vol.1 §6.4.5)', () => {
    const cpu = loaded(legacy(), ONE, TWO).set({ rflags: 0x8d6n });
    cpu.set({ fsw: cpu.get('fsw') | 0x200n }).run(0xdb, 0xf1);
    expect([cpu.get('rflags'), cpu.get('fsw')]).toEqual([0x3n, 0x3200n]);
    cpu.run(0xd8, 0xd1);
    expect(cpu.get('fsw')).toBe(0x3100n);
  });

  it('FSINCOS pushes the cosine; an angle that is too large sets C2 and stays (APM vol.5, FSINCOS)', () => {
    const cpu = loaded(legacy(), 0n);
    cpu.run(0xd9, 0xfb);
    expect([st(cpu, 0), st(cpu, 1), cpu.get('fsw') & 0x400n]).toEqual([ONE, 0n, 0n]);
    loaded(cpu, ONE + (63n << 64n)).run(0xd9, 0xfb);
    expect([st(cpu, 0), cpu.get('fsw')]).toEqual([ONE + (63n << 64n), 0x3c00n]);
  });

  it('FPTAN pushes one, FYL2X pops', () => {
    const cpu = loaded(legacy(), ONE, TWO);
    cpu.run(0xd9, 0xf2);
    expect([top(cpu), st(cpu, 0), st(cpu, 2)]).toEqual([5, ONE, TWO]);
    loaded(cpu, TWO, ONE).run(0xd9, 0xf1);
    expect([top(cpu), st(cpu, 0), cpu.get('ftw')]).toEqual([7, ONE, 0x80n]);
  });

  it.each([
    ['FCOM st1 as DC /2', [0xdc, 0xd1], 6],
    ['FCOMP st1 as DC /3', [0xdc, 0xd9], 7],
    ['FCOMP st1 as DE /2', [0xde, 0xd1], 7],
    ['FSTP st1 as DF /2', [0xdf, 0xd1], 7],
    ['FSTP st1 as DF /3', [0xdf, 0xd9], 7],
    ['FSTPNCE st1', [0xd9, 0xd9], 7],
    ['FXCH st1 as DD /1', [0xdd, 0xc9], 6],
    ['FENI', [0xdb, 0xe0], 6],
  ] as const)('the reserved encoding %s is executed', (_name, bytes, expectedTop) => {
    const cpu = loaded(legacy(), TWO, ONE);
    expect(faultOf(cpu.run(...bytes))).toBe('none');
    expect(top(cpu)).toBe(expectedTop);
  });

  it.each([
    [0xd9, 0xd1],
    [0xd9, 0xef],
    [0xda, 0xe8],
    [0xdb, 0xe5],
    [0xdd, 0xf0],
    [0xde, 0xd8],
    [0xdf, 0xe1],
    [0xdf, 0xf8],
  ])('%i %i is no instruction', (...bytes) => {
    expect(faultOf(legacy().run(...bytes))).toBe('#UD');
  });
});

describe('error pointers (APM vol.1 §6.2.5 Pointers and Opcode State)', () => {
  it('name the last instruction and its operand; registers leave FDP, control instructions all', () => {
    const cpu = loaded(long(), ONE);
    const start = cpu.get('rip');
    cpu.run(0xdc, 0x43, 0x08);
    expect([cpu.get('fop'), cpu.get('fip') & 0xffff_ffffn, cpu.get('fdp') & 0xffff_ffffn]).toEqual([
      0x443n,
      start,
      BigInt(DATA + 8),
    ]);
    cpu.run(0xd9, 0xe1);
    expect([cpu.get('fop'), cpu.get('fdp') & 0xffff_ffffn]).toEqual([0x1e1n, BigInt(DATA + 8)]);
    cpu.run(0xd9, 0x3b);
    expect(cpu.get('fop')).toBe(0x1e1n);
    cpu.run(0xdb, 0xe3);
    expect([cpu.get('fop'), cpu.get('fip'), cpu.get('fdp')]).toEqual([0n, 0n, 0n]);
  });
});

describe('FNSAVE and FRSTOR (APM vol.2 §11.4.2, figures 11-1 to 11-4)', () => {
  const filled = (cpu: CpuMachine): CpuMachine => {
    loaded(cpu, PI, 0n, INDEFINITE, ONE);
    return cpu.set({ fop: 0x5a1n });
  };
  /** Saves, clears, restores; everything must be back. @returns the image's words of 16 bits before the registers. */
  function roundTrip(cpu: CpuMachine, prefix: readonly number[], words: number): readonly number[] {
    const slots = Array.from({ length: R.fpr7High - R.fcw + 1 }, (_, index) => (R.fcw + index) as Slot);
    const state = (): readonly bigint[] =>
      slots.filter((slot) => slot !== R.mxcsr).map((slot) => cpu.registers[slot] as bigint);
    const before = state();
    expect(faultOf(cpu.run(...prefix, 0xdd, 0x33))).toBe('none');
    const image = Array.from({ length: words }, (_, index) => Number(cpu.read(DATA + 2 * index, 2)));
    expect([cpu.get('fcw'), cpu.get('fsw'), cpu.get('ftw')]).toEqual([0x37fn, 0n, 0n]);
    for (const slot of slots) if (slot !== R.mxcsr) cpu.registers[slot] = 0n;
    expect(faultOf(cpu.run(...prefix, 0xdd, 0x23))).toBe('none');
    expect(state()).toEqual(before);
    return image;
  }
  /** Valid, zero, special, valid above four empty registers, from register 4 on: PI is register 4. */
  const TAGS = 0b00_10_01_00_11111111;

  it('32 bits, protected mode', () => {
    const cpu = filled(legacy()).set({ fdp: (0x10n << 48n) | 0x5_4321n });
    cpu.set({ fip: (8n << 48n) | 0x1_2345n });
    expect(roundTrip(cpu, [], 14)).toEqual([
      0x37f,
      0xffff,
      0x2000,
      0xffff,
      TAGS,
      0xffff,
      0x2345,
      1,
      8,
      0x5a1,
      0x4321,
      5,
      0x10,
      0xffff,
    ]);
  });

  it('16 bits, protected mode: no opcode', () => {
    const cpu = filled(legacy()).set({ fop: 0n, fip: (8n << 48n) | 0x2345n, fdp: (0x10n << 48n) | 0x4321n });
    expect(roundTrip(cpu, [0x66], 7)).toEqual([0x37f, 0x2000, TAGS, 0x2345, 8, 0x4321, 0x10]);
  });

  const real = (): CpuMachine =>
    filled(new CpuMachine().set({ cr0: CR0.ET | CR0.NE })).set({ dsBase: BigInt(DATA), rbx: 0n });

  it('32 bits, real mode: linear addresses', () => {
    const cpu = real().set({ fip: 0x1234_5678n, fdp: 0x8765_4321n });
    expect(roundTrip(cpu, [0x66, 0x67], 14)).toEqual([
      0x37f,
      0xffff,
      0x2000,
      0xffff,
      TAGS,
      0xffff,
      0x5678,
      0xffff,
      0x45a1,
      0x123,
      0x4321,
      0xffff,
      0x5000,
      0x876,
    ]);
  });

  it('16 bits, real mode: linear addresses of 20 bits', () => {
    const cpu = real().set({ fip: 0x4_5678n, fdp: 0x5_4321n });
    expect(roundTrip(cpu, [0x67], 7)).toEqual([0x37f, 0x2000, TAGS, 0x5678, 0x45a1, 0x4321, 0x5000]);
  });

  it('in real mode a pointer is the selector times 16 plus the offset', () => {
    const cpu = real().set({ cs: 0x9b_1000n | (0xffffn << 32n), csBase: CODE, rip: 0x20n });
    cpu.run(0xd9, 0xe1);
    cpu.run(0x67, 0xd9, 0x33);
    expect([cpu.read(DATA + 6, 2), cpu.read(DATA + 8, 2)]).toEqual([0x20n, 0x11e1n]);
  });
});

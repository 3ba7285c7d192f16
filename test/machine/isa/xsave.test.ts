/** The save area as APM vol.2 §11.5 lays it out, and what its header may say. */

import { describe, expect, it } from 'vitest';
import { BASE_PROFILE, type CpuProfile } from '../../../src/machine/cpu/cpuid.js';
import { CR0, CR4, type RegisterName } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, DATA, faultOf } from '../../support/cpu-machine.js';
import { leafOf } from '../../support/cpuid.js';

const [X87, SSE, AVX] = [1n, 2n, 4n];
const ALL = X87 | SSE | AVX;
const COMPACTED = 1n << 63n;
const GARBAGE = 0xcccc_cccc_cccc_ccccn;

// With [rdi], 64-bit forms.
const CODE = {
  xsave: [0x48, 0x0f, 0xae, 0x27],
  xsaveopt: [0x48, 0x0f, 0xae, 0x37],
  xsavec: [0x48, 0x0f, 0xc7, 0x27],
  xsaves: [0x48, 0x0f, 0xc7, 0x2f],
  xrstor: [0x48, 0x0f, 0xae, 0x2f],
  xrstors: [0x48, 0x0f, 0xc7, 0x1f],
} as const;
type Name = keyof typeof CODE;
const SAVES = ['xsave', 'xsaveopt', 'xsavec', 'xsaves'] as const;
const RESTORES = ['xrstor', 'xrstors'] as const;

/** A processor whose states are all initial, and an area full of garbage with an empty header at RDI. */
function machine(registers: Partial<Record<RegisterName, bigint>> = {}, requested = ALL): CpuMachine {
  const cpu = new CpuMachine().longMode();
  cpu.set({ cr4: CR4.PAE | CR4.OSXSAVE | CR4.OSFXSR, xcr0: ALL, rdi: BigInt(DATA), rax: requested, rdx: 0n });
  cpu.set({ fcw: 0x37fn, fsw: 0n, ftw: 0n, mxcsr: 0x1f80n });
  for (let at = 0; at < 1024; at += 8) cpu.write(DATA + at, 8, at >= 512 && at < 576 ? 0n : GARBAGE);
  return cpu.set(registers);
}
const header = (cpu: CpuMachine): readonly bigint[] => [512, 520, 528].map((at) => cpu.read(DATA + at, 8));
const done = (cpu: CpuMachine, name: Name): CpuMachine => {
  expect(faultOf(cpu.run(...CODE[name]))).toBe('none');
  return cpu;
};

describe('saving', () => {
  const YMM3 = { ymm3: 0x1111n, ymm3High: 0x2222n };

  it('XSAVE stores every requested state, XSAVEOPT and XSAVEC only those in use', () => {
    const stored = (name: Name): readonly boolean[] => {
      const cpu = done(machine(YMM3), name);
      return [0, 160, 576].map((at) => cpu.read(DATA + at, 8) !== GARBAGE);
    };
    expect(stored('xsave')).toEqual([true, true, true]);
    expect(stored('xsaveopt')).toEqual([false, false, true]);
    expect(stored('xsavec')).toEqual([false, false, true]);
  });

  it.each(SAVES)('%s puts the upper halves of YMM n at 576 + 16n', (name) => {
    const cpu = done(machine(YMM3), name);
    expect([cpu.read(DATA + 624, 8), cpu.read(DATA + 632, 8)]).toEqual([0x1111n, 0x2222n]);
  });

  it('XSAVE changes in XSTATE_BV the requested bits only, and nothing else of the header', () => {
    const cpu = machine(YMM3, SSE | AVX);
    cpu.write(DATA + 512, 8, 0x83n).write(DATA + 520, 8, GARBAGE);
    expect(header(done(cpu, 'xsave'))).toEqual([0x85n, GARBAGE, 0n]);
  });

  it('XSAVEC writes XSTATE_BV and XCOMP_BV as a whole', () => {
    const cpu = machine(YMM3, SSE | AVX);
    cpu
      .write(DATA + 512, 8, GARBAGE)
      .write(DATA + 520, 8, GARBAGE)
      .write(DATA + 528, 8, GARBAGE);
    expect(header(done(cpu, 'xsavec'))).toEqual([AVX, COMPACTED | SSE | AVX, GARBAGE]);
  });

  it.each([
    ['xsave', SSE, 0n, true],
    ['xsaveopt', SSE, 0n, true],
    ['xsaveopt', AVX, 0n, true],
    ['xsaveopt', X87, 0n, false],
    ['xsavec', SSE, SSE, true],
    ['xsavec', AVX, 0n, false],
  ] as const)('%s of %i with a changed MXCSR gives XSTATE_BV %i; MXCSR stored: %s', (name, requested, bv, stored) => {
    const cpu = done(machine({ mxcsr: 0x1fa0n }, requested), name);
    expect(cpu.read(DATA + 512, 8)).toBe(bv);
    expect(cpu.read(DATA + 24, 4)).toBe(stored ? 0x1fa0n : 0xcccc_ccccn);
  });

  it('states that XCR0 does not enable are not saved', () => {
    const cpu = done(machine({ ...YMM3, xcr0: X87 | SSE }), 'xsavec');
    expect(header(cpu)).toEqual([0n, COMPACTED | X87 | SSE, 0n]);
  });

  it('outside 64-bit mode there are eight vector registers', () => {
    const cpu = machine().protectedMode();
    cpu.set({ cr4: CR4.OSXSAVE, efer: 0n, rdi: BigInt(DATA), ymm8: 1n, xmm8: 1n });
    expect(faultOf(cpu.run(0x0f, 0xae, 0x27))).toBe('none');
    expect(cpu.read(DATA + 512, 8)).toBe(0n);
    expect(cpu.read(DATA + 576 + 128, 8)).toBe(GARBAGE);
  });
});

describe('restoring', () => {
  const LIVE = { xmm3: 0x33n, ymm3: 0x44n, mxcsr: 0x1fa0n, fcw: 0x27fn } as const;

  function saved(stateBv: bigint, compBv: bigint, requested = ALL): CpuMachine {
    const cpu = machine(LIVE, requested);
    cpu.write(DATA, 8, 0x37fn).write(DATA + 24, 4, 0x1fc0n);
    return cpu.write(DATA + 512, 8, stateBv).write(DATA + 520, 8, compBv);
  }
  const state = (cpu: CpuMachine): readonly bigint[] =>
    (['xmm3', 'ymm3', 'mxcsr', 'fcw'] as const).map((name) => cpu.get(name));

  it.each([
    [0n, ALL, [0n, 0n, 0x1fc0n, 0x37fn]],
    [ALL, ALL, [GARBAGE, GARBAGE, 0x1fc0n, 0x37fn]],
    [SSE, AVX, [0x33n, 0n, 0x1fc0n, 0x27fn]],
    [AVX, SSE, [0n, 0x44n, 0x1fc0n, 0x27fn]],
    [AVX, X87, [0x33n, 0x44n, 0x1fa0n, 0x37fn]],
    [ALL, 0n, [0x33n, 0x44n, 0x1fa0n, 0x27fn]],
  ])('standard format: XSTATE_BV %i, requested %i', (stateBv, requested, expected) => {
    expect(state(done(saved(stateBv, 0n, requested), 'xrstor'))).toEqual(expected);
  });

  it.each([
    [0n, ALL, [0n, 0n, 0x1f80n, 0x37fn]],
    [ALL, ALL, [GARBAGE, GARBAGE, 0x1fc0n, 0x37fn]],
    [SSE, AVX, [0x33n, 0n, 0x1fa0n, 0x27fn]],
    [AVX, SSE, [0n, 0x44n, 0x1f80n, 0x27fn]],
  ])('compacted format: XSTATE_BV %i, requested %i', (stateBv, requested, expected) => {
    for (const name of RESTORES) {
      expect(state(done(saved(stateBv, COMPACTED | ALL, requested), name))).toEqual(expected);
    }
  });

  it.each([
    ['a state that XCR0 does not enable', 8n, 0n, 528, 'xrstor'],
    ['XCOMP_BV without its top bit', 3n, 1n, 528, 'xrstor'],
    ['a reserved byte of the standard header', 3n, 0n, 535, 'xrstor'],
    ['a state that the compacted area lacks', 7n, COMPACTED | 3n, 528, 'xrstor'],
    ['a compacted state that is not enabled', 3n, COMPACTED | 11n, 528, 'xrstor'],
    ['a reserved byte of the compacted header', 3n, COMPACTED | 3n, 575, 'xrstor'],
    ['the standard format', 3n, 0n, 528, 'xrstors'],
  ] as const)('#GP for %s, even when nothing is requested', (what, stateBv, compBv, reserved, name) => {
    const cpu = saved(stateBv, compBv, 0n);
    if (what.includes('byte')) cpu.write(DATA + reserved, 1, 1n);
    expect(faultOf(cpu.run(...CODE[name]))).toBe('#GP(0)');
  });

  it('the standard header has no rules beyond byte 23', () => {
    done(saved(3n, 0n).write(DATA + 536, 8, GARBAGE), 'xrstor');
  });

  it('reserved bits of MXCSR are #GP where MXCSR is loaded', () => {
    const attempt = (stateBv: bigint, compBv: bigint, requested: bigint): string =>
      faultOf(
        saved(stateBv, compBv, requested)
          .write(DATA + 24, 4, 0x1_0000n)
          .run(...CODE.xrstor),
      );
    expect([attempt(0n, 0n, AVX), attempt(0n, 0n, X87)]).toEqual(['#GP(0)', 'none']);
    expect([attempt(SSE, COMPACTED | SSE, SSE), attempt(0n, COMPACTED | SSE, SSE)]).toEqual(['#GP(0)', 'none']);
  });

  it.each(SAVES)('what %s saved comes back', (name) => {
    // An unmasked exception is pending: without one the error pointers are saved as zeros.
    const pending = { fcw: 0x37en, fsw: 0x8081n, fip: 0x1_0000_0000n };
    const registers = { ...LIVE, xmm15High: 5n, ymm15High: 6n, fpr2: 7n, ftw: 4n, ...pending };
    const cpu = done(machine(registers), name);
    cpu.set({ xmm3: 1n, ymm3: 1n, ymm4: 1n, mxcsr: 0x1f80n, fcw: 0x37fn, xmm15High: 0n, ymm15High: 0n, fpr2: 0n });
    cpu.set({ ftw: 0xffn, fip: 0n, fsw: 0n });
    done(cpu, name === 'xsaves' ? 'xrstors' : 'xrstor');
    for (const [register, value] of Object.entries({ ...registers, ymm4: 0n })) {
      expect([register, cpu.get(register as RegisterName)]).toEqual([register, value]);
    }
  });
});

describe('faults', () => {
  const all = Object.keys(CODE) as Name[];

  it.each(all)('%s: #UD without CR4.OSXSAVE, #NM with CR0.TS, #GP when not aligned to 64 bytes', (name) => {
    const attempt = (change: (cpu: CpuMachine) => CpuMachine): string => faultOf(change(machine()).run(...CODE[name]));
    expect(attempt((cpu) => cpu.set({ cr4: CR4.PAE, cr0: cpu.get('cr0') | CR0.TS }))).toBe('#UD');
    expect(attempt((cpu) => cpu.set({ cr0: cpu.get('cr0') | CR0.TS, rdi: 1n }))).toBe('#NM');
    expect(attempt((cpu) => cpu.set({ rdi: BigInt(DATA + 16) }))).toBe('#GP(0)');
    expect(faultOf(machine().run(0xf0, ...CODE[name]))).toBe('#UD');
  });

  it('the supervisor forms are #GP above CPL 0, the others are not', () => {
    const attempt = (name: Name): string =>
      faultOf(
        machine()
          .atUserLevel()
          .run(...CODE[name]),
      );
    expect([...SAVES].map(attempt)).toEqual(['none', 'none', 'none', '#GP(0)']);
    expect(attempt('xrstors')).toBe('#GP(0)');
  });

  it('a page fault leaves the registers and memory alone', () => {
    const cpu = machine({ xmm3: 9n, ymm3: 9n });
    cpu.missingPages.add((DATA + 0x1000) >> 12);
    cpu.set({ rdi: BigInt(DATA + 0x1000 - 576) });
    expect(faultOf(cpu.run(...CODE.xsavec))).toBe('#PF(2)');
    expect(cpu.read(DATA + 0x1000 - 64, 8)).toBe(0n);
  });
});

describe('XCR0 and XGETBV (APM vol.3, XGETBV, XSETBV)', () => {
  const XGETBV = [0x0f, 0x01, 0xd0];
  const XSETBV = [0x0f, 0x01, 0xd1];

  it('XGETBV with ECX = 1 gives the states in use', () => {
    const cpu = machine({ rcx: 1n, rax: 0n, mxcsr: 0x1fa0n, ymm0: 1n, xcr0: X87 | SSE | AVX });
    expect([faultOf(cpu.run(...XGETBV)), cpu.get('rax'), cpu.get('rdx')]).toEqual(['none', SSE | AVX, 0n]);
    expect(faultOf(machine({ rcx: 2n }).run(...XGETBV))).toBe('#GP(0)');
  });

  it.each([
    [1n, 'none'],
    [3n, 'none'],
    [7n, 'none'],
    [2n, '#GP(0)'],
    [5n, '#GP(0)'],
    [15n, '#GP(0)'],
  ])('XSETBV of %i: %s', (value, fault) => {
    expect(faultOf(machine({ rcx: 0n, rax: value, rdx: 0n }).run(...XSETBV))).toBe(fault);
  });

  it('XSETBV exits before its #GP and after its #UD', () => {
    const attempt = (cr4: bigint): string =>
      faultOf(
        machine({ rax: 0n, cr4 })
          .intercepting('XSETBV')
          .run(...XSETBV),
      );
    expect(attempt(CR4.PAE | CR4.OSXSAVE)).toBe('exit 8d');
    expect(attempt(CR4.PAE)).toBe('#UD');
  });
});

describe('CPUID Fn0000_000D', () => {
  const leaf = (subleaf: number, xcr0: bigint, profile = BASE_PROFILE) => {
    const { eax, ebx, ecx, edx } = leafOf(profile, 0xd, subleaf, { osxsave: true, xcr0 });
    return [eax, ebx, ecx, edx];
  };

  it('gives the size of what is enabled and of what could be', () => {
    expect([leaf(0, 3n), leaf(0, 7n)]).toEqual([
      [7, 576, 832, 0],
      [7, 832, 832, 0],
    ]);
    expect([leaf(1, 3n), leaf(1, 7n)]).toEqual([
      [15, 576, 0, 0],
      [15, 832, 0, 0],
    ]);
    expect([leaf(2, 7n), leaf(3, 7n)]).toEqual([
      [256, 576, 0, 0],
      [0, 0, 0, 0],
    ]);
  });

  it('says nothing of what a profile lacks', () => {
    const without = (...lacking: readonly string[]): CpuProfile => ({
      ...BASE_PROFILE,
      features: new Set([...BASE_PROFILE.features].filter((feature) => !lacking.includes(feature))),
    });
    expect(leaf(0, 3n, without('avx'))).toEqual([3, 576, 576, 0]);
    expect(leaf(2, 3n, without('avx'))).toEqual([0, 0, 0, 0]);
    expect(leaf(0, 1n, without('xsave'))).toEqual([0, 0, 0, 0]);
  });
});

/** MMX registers over the x87 unit, and what the captured vectors leave out. APM vol.1 §5, APM vol.5. */
import { describe, expect, it } from 'vitest';
import { BASE_PROFILE, type CpuProfile } from '../../../src/machine/cpu/cpuid.js';
import { CR0, CR4, fprSlot, R, type Slot } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, DATA, faultOf } from '../../support/cpu-machine.js';

const legacy = (): CpuMachine => new CpuMachine().protectedMode().set({ fcw: 0x37fn, ftw: 0n, rbx: BigInt(DATA) });
const withSse = (): CpuMachine => legacy().set({ cr4: CR4.OSFXSR, mxcsr: 0x1f80n });

const mm = (cpu: CpuMachine, number: number): bigint => cpu.registers[fprSlot(number)] as bigint;
const high = (cpu: CpuMachine, number: number): bigint => cpu.registers[(fprSlot(number) + 1) as Slot] as bigint;
function setMm(cpu: CpuMachine, number: number, value: bigint): CpuMachine {
  cpu.registers[fprSlot(number)] = value;
  return cpu;
}

describe('MMX and x87 registers are the same (APM vol.1 §5.12 Actions Taken on Executing 64-Bit Media Instructions)', () => {
  it('an instruction clears TOP, fills all tags, and sets sign and exponent of what it writes', () => {
    const cpu = setMm(legacy().set({ fsw: 0x3900n, ftw: 0x80n }), 2, 0x1122_3344_5566_7788n);
    expect(faultOf(cpu.run(0x0f, 0x6f, 0xca))).toBe('none');
    expect([cpu.get('fsw'), cpu.get('ftw'), mm(cpu, 1), high(cpu, 1), high(cpu, 2)]).toEqual([
      0x100n,
      0xffn,
      0x1122_3344_5566_7788n,
      0xffffn,
      0n,
    ]);
  });

  it('the registers are physical ones: MM7 is ST(0) when TOP is 7', () => {
    const cpu = legacy();
    cpu.run(0xd9, 0xeb);
    cpu.run(0x0f, 0x7f, 0x3b);
    expect(cpu.read(DATA, 8)).toBe(0xc90f_daa2_2168_c235n);
  });

  it('x87 code finds NaNs and no room until EMMS empties the registers', () => {
    const cpu = legacy();
    cpu.run(0x0f, 0xef, 0xc0);
    cpu.run(0xd9, 0xe8);
    expect(cpu.get('fsw') & 0x41n).toBe(0x41n);
    cpu.run(0x0f, 0x77);
    expect([cpu.get('ftw'), cpu.get('fsw') & 0x3800n]).toEqual([0n, 0n]);
  });

  it('the error pointers stay', () => {
    const cpu = legacy().set({ fop: 0x123n, fip: 4n, fdp: 5n });
    cpu.run(0x0f, 0x6f, 0x03);
    expect([cpu.get('fop'), cpu.get('fip'), cpu.get('fdp')]).toEqual([0x123n, 4n, 5n]);
  });
});

describe('exceptions of MMX instructions (APM vol.1 §5.11 Exceptions)', () => {
  it.each([
    ['CR0.EM', { cr0: CR0.PE | CR0.EM }, '#UD'],
    ['CR0.TS', { cr0: CR0.PE | CR0.TS }, '#NM'],
    ['a pending x87 exception', { fsw: 0x8084n }, '#MF'],
  ] as const)('%s', (_name, state, expected) => {
    for (const bytes of [
      [0x0f, 0xfc, 0xc1],
      [0x0f, 0x77],
      [0x0f, 0x71, 0xd1, 1],
      [0x0f, 0xd7, 0xc1],
    ]) {
      expect(
        faultOf(
          legacy()
            .set(state)
            .run(...bytes),
        ),
      ).toBe(expected);
    }
  });

  it('SSSE3 forms are no instructions without the feature', () => {
    expect(faultOf(legacy().run(0x0f, 0x38, 0x00, 0xc1))).toBe('none');
    const features = new Set([...BASE_PROFILE.features].filter((feature) => feature !== 'ssse3'));
    const without: CpuProfile = { ...BASE_PROFILE, features };
    expect(faultOf(new CpuMachine(without).protectedMode().run(0x0f, 0x38, 0x00, 0xc1))).toBe('#UD');
  });
});

describe('conversions (APM vol.5, CVTPI2PS and its kin)', () => {
  it('from a register takes the registers over for MMX', () => {
    const cpu = setMm(withSse().set({ fsw: 0x3800n }), 1, 0xffff_ffff_0000_0003n);
    cpu.run(0x0f, 0x2a, 0xc1);
    expect([cpu.get('xmm0'), cpu.get('ftw'), cpu.get('fsw')]).toEqual([0xbf80_0000_4040_0000n, 0xffn, 0n]);
  });

  it.each([
    ['CVTPI2PS', [0x0f, 0x2a, 0x03]],
    ['CVTPI2PD', [0x66, 0x0f, 0x2a, 0x03]],
  ])('%s from memory leaves the x87 unit alone, pending exceptions too', (_name, bytes) => {
    const cpu = withSse().set({ fsw: 0xb884n, ftw: 0x80n }).write(DATA, 8, 2n);
    expect(faultOf(cpu.run(...bytes))).toBe('none');
    expect([cpu.get('fsw'), cpu.get('ftw')]).toEqual([0xb884n, 0x80n]);
  });

  it('needs SSE to be enabled', () => {
    expect(faultOf(legacy().run(0x0f, 0x2a, 0xc1))).toBe('#UD');
  });

  it('an unmasked exception of SSE keeps the MMX registers as they were', () => {
    const cpu = setMm(withSse().set({ mxcsr: 0x1f00n, cr4: CR4.OSFXSR | CR4.OSXMMEXCPT }), 0, 7n);
    cpu.set({ xmm1: 0x7f80_0000n }).set({ mxcsr: 0x1f00n });
    const ended = cpu.run(0x0f, 0x2d, 0xc1);
    expect(ended).toMatchObject({ kind: 'fault', vector: 19 });
    expect([mm(cpu, 0), cpu.get('ftw')]).toEqual([7n, 0n]);
  });
});

describe('MASKMOVQ (APM vol.5, MASKMOVQ)', () => {
  it('stores the chosen bytes at DS:rDI', () => {
    const cpu = legacy()
      .set({ rdi: BigInt(DATA) })
      .write(DATA, 8, 0n);
    setMm(setMm(cpu, 0, 0x8877_6655_4433_2211n), 1, 0x8000_0000_0080_0080n);
    cpu.run(0x0f, 0xf7, 0xc1);
    expect(cpu.read(DATA, 8)).toBe(0x8800_0000_0033_0011n);
    expect(cpu.registers[R.ftw]).toBe(0xffn);
  });
});

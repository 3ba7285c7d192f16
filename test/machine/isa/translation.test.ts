/** INVLPGB and TLBSYNC: operands, privilege, and what a hypervisor lets its guest do. */
import { describe, expect, it } from 'vitest';
import { cpuProfile } from '../../../src/machine/cpu/profiles.js';
import { CR4, type RegisterName, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { NestedControl } from '../../../src/machine/layout/vmcb.js';
import { ExitCode } from '../../../src/machine/svm/exit-code.js';
import { CpuMachine, faultOf } from '../../support/cpu-machine.js';
import { GUEST_CODE, NestedMachine } from '../../support/nested-machine.js';

const INVLPGB = [0x0f, 0x01, 0xfe] as const;
const TLBSYNC = [0x0f, 0x01, 0xff] as const;
const [VA, PCID, ASID, GLOBAL, FINAL, NESTED] = [1n, 2n, 4n, 8n, 16n, 32n];
type Values = Partial<Record<RegisterName, bigint>>;

const long = (values: Values = {}): CpuMachine => new CpuMachine().longMode().set({ rcx: 0n, rdx: 0n, ...values });
/** In a guest with address space 5 whose VMCB allows both instructions. */
const inGuest = (values: Values = {}): CpuMachine =>
  long({ svmMode: SvmMode.GUEST | SvmMode.GIF, guestAsid: 5n, nestedControl: NestedControl.INVLPGB_ENABLE, ...values });

describe('INVLPGB (APM vol.3, INVLPGB)', () => {
  const everywhere = (asid: number) => [{ scope: 'everywhere', asid }];

  it.each<[string, Values, unknown[]]>([
    ['no component: everything', { rax: GLOBAL }, [{ scope: 'all' }]],
    ['an address alone: on all address spaces', { rax: VA | 0x7000n }, [{ scope: 'all' }]],
    ['an address space', { rax: ASID | GLOBAL, rdx: 7n }, everywhere(7)],
    ['large pages of one', { rax: VA | ASID | FINAL | 0x7000n, rcx: 0x8000_0007n, rdx: 1n }, everywhere(1)],
    ['nested translations as well', { rax: ASID | NESTED, rdx: 1n }, everywhere(1)],
  ])('drops by %s', (_what, values, flushes) => {
    const cpu = long(values);
    expect(cpu.run(...INVLPGB)).toMatchObject({ event: { type: 'cpu.system', mnemonic: 'INVLPGB' } });
    expect(cpu.flushes).toEqual(flushes);
  });

  it.each<[string, Values]>([
    ['a reserved bit of rAX', { rax: 0x40n }],
    ['a reserved bit of ECX', { rcx: 0x1_0000n }],
    ['a reserved bit of EDX', { rdx: 0x1000_0000n }],
    ['more pages than CPUID says', { rax: VA, rcx: 8n }],
    ['an address space that does not exist', { rax: ASID, rdx: 64n }],
    ['a process context without CR4.PCIDE', { rax: PCID, rdx: 0x1_0000n }],
  ])('refuses %s', (_what, values) => {
    expect(faultOf(long({ rax: 0n, ...values }).run(...INVLPGB))).toBe('#GP(0)');
    expect(
      faultOf(
        inGuest({ rax: 0n, ...values })
          .intercepting('INVLPGB_ILLEGAL')
          .run(...INVLPGB),
      ),
    ).toBe('exit a1');
  });

  it('takes process contexts under CR4.PCIDE', () => {
    const cpu = long({ rax: PCID | ASID, rdx: 0x5_0000n, cr4: CR4.PAE | CR4.PCIDE });
    expect(faultOf(cpu.run(...INVLPGB))).toBe('none');
  });

  it('reports itself and how many pages it takes (CPUID Fn8000_0008)', () => {
    const report = (name: string): [bigint, bigint] => {
      const cpu = new CpuMachine(cpuProfile(name)).longMode().set({ rax: 0x8000_0008n, rcx: 0n });
      cpu.run(0x0f, 0xa2);
      return [cpu.get('rbx') & 0x20_0008n, cpu.get('rdx') & 0xffffn];
    };
    expect(['vmtape-base', 'zen-2', 'zen-4', 'kvm-nested'].map(report)).toEqual([
      [0x20_0008n, 7n],
      [0n, 0n],
      [0x20_0008n, 7n],
      [0n, 0n],
    ]);
  });

  it.each([
    ['INVLPGB', INVLPGB],
    ['TLBSYNC', TLBSYNC],
  ] as const)('%s is #UD on a processor without it, and #GP above privilege level 0', (_name, bytes) => {
    expect(faultOf(new CpuMachine(cpuProfile('zen-2')).longMode().run(...bytes))).toBe('#UD');
    expect(
      faultOf(
        long()
          .atUserLevel()
          .run(...bytes),
      ),
    ).toBe('#GP(0)');
  });
});

describe('in a guest (APM vol.2 appendix B, offset 090h; §15.9 Instruction Intercepts, table 15-7)', () => {
  it.each([
    ['INVLPGB', INVLPGB, 'exit a0'],
    ['TLBSYNC', TLBSYNC, 'exit a4'],
  ] as const)('%s: #UD unless the VMCB allows it, then privilege, then the intercept', (name, bytes, exit) => {
    const guest = (values: Values = {}) => inGuest({ rax: 0n, ...values }).intercepting(name);
    expect(faultOf(guest({ nestedControl: 0n }).run(...bytes))).toBe('#UD');
    expect(
      faultOf(
        guest()
          .atUserLevel()
          .run(...bytes),
      ),
    ).toBe('#GP(0)');
    expect(faultOf(guest().run(...bytes))).toBe(exit);
    expect(faultOf(inGuest({ rax: 0n }).run(...bytes))).toBe('none');
  });

  it('the intercept of INVLPGB wins against its exceptions', () => {
    expect(
      faultOf(
        inGuest({ rax: 0x40n })
          .intercepting('INVLPGB')
          .run(...INVLPGB),
      ),
    ).toBe('exit a0');
  });

  it('only its own address space is concerned', () => {
    const cpu = inGuest({ rax: VA | ASID | 0x7000n, rdx: 9n });
    cpu.run(...INVLPGB);
    expect(cpu.flushes).toEqual([{ scope: 'everywhere', asid: 5 }]);
    cpu.set({ rax: 0n });
    cpu.run(...INVLPGB);
    expect(cpu.flushes).toEqual([{ scope: 'everywhere', asid: 5 }]);
  });

  const run = (cpu: string, intercepts: readonly ('TLBSYNC' | 'INVLPGB')[], enable: bigint, code: string) => {
    const live = new NestedMachine(code, {}, cpu).intercept(...intercepts);
    live.vmcb.nestedControl = enable;
    return [live.exit().code, live.vectors, live.vmcb.rip - BigInt(GUEST_CODE)];
  };

  it('VMRUN takes the enable bit without nested paging, too', () => {
    const code = '31c0 31c9 31d2 0f01fe 0f01ff';
    expect(run('vmtape-base', [], NestedControl.INVLPGB_ENABLE, code)).toEqual([ExitCode.HLT, [], 12n]);
    expect(run('vmtape-base', [], 0n, code).slice(0, 2)).toEqual([ExitCode.HLT, [6]]);
    expect(run('zen-4', ['TLBSYNC'], NestedControl.INVLPGB_ENABLE, code)).toEqual([ExitCode.TLBSYNC, [], 9n]);
  });

  it('a processor without TlbiCtl has neither the enable bit nor the intercept of TLBSYNC', () => {
    expect(run('zen-4,-tlbi-ctl', ['TLBSYNC'], 0n, '0f01ff')).toEqual([ExitCode.HLT, [], 3n]);
  });
});

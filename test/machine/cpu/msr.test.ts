import { describe, expect, it } from 'vitest';
import { BASE_PROFILE } from '../../../src/machine/cpu/cpuid.js';
import { MSR_ROWS } from '../../../src/machine/cpu/msr.js';
import { cpuProfile } from '../../../src/machine/cpu/profiles.js';
import { resetRegisters } from '../../../src/machine/cpu/reset.js';
import { Boundary, EFER, R, type RegisterName, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, faultOf } from '../../support/cpu-machine.js';
import { NestedMachine } from '../../support/nested-machine.js';

const set = (cpu: CpuMachine, msr: number, value: bigint) =>
  cpu.set({ rcx: BigInt(msr), rax: value & 0xffff_ffffn, rdx: value >> 32n }).run(0x0f, 0x30);
const wrmsr = (cpu: CpuMachine, msr: number, value: bigint) => faultOf(set(cpu, msr, value));
function rdmsr(cpu: CpuMachine, msr: number): bigint | string {
  const ended = cpu.set({ rcx: BigInt(msr) }).run(0x0f, 0x32);
  return ended.kind === 'done' ? (cpu.get('rdx') << 32n) | cpu.get('rax') : faultOf(ended);
}
const long = () => new CpuMachine().longMode();
const NON_CANONICAL = 0x9000_0000_0000n;

describe('values that WRMSR refuses (APM vol.2 appendix A)', () => {
  const cases: readonly (readonly [string, number, bigint, string])[] = [
    ['FS.Base, not canonical', 0xc000_0100, NON_CANONICAL, '#GP(0)'],
    ['GS.Base, not canonical', 0xc000_0101, NON_CANONICAL, '#GP(0)'],
    ['KernelGSbase, not canonical', 0xc000_0102, NON_CANONICAL, '#GP(0)'],
    ['LSTAR, not canonical', 0xc000_0082, NON_CANONICAL, '#GP(0)'],
    ['CSTAR, not canonical', 0xc000_0083, NON_CANONICAL, '#GP(0)'],
    ['LSTAR, canonical', 0xc000_0082, 0xffff_8000_0000_0000n, 'none'],
    ['STAR, anything', 0xc000_0081, 0xffff_ffff_ffff_ffffn, 'none'],
    ['PAT with a reserved type', 0x277, 0x0007_0406_0007_0402n, '#GP(0)'],
    ['PAT with a type above 7', 0x277, 0x0807_0406_0007_0406n, '#GP(0)'],
    ['PAT', 0x277, 0x0007_0105_0007_0406n, 'none'],
    ['MTRRphysBase above the physical width', 0x200, 1n << 40n, '#GP(0)'],
    ['MTRRphysBase with a reserved type', 0x200, 2n, '#GP(0)'],
    ['MTRRphysBase with reserved bits', 0x20e, 0x106n, '#GP(0)'],
    ['MTRRphysMask with reserved bits', 0x201, 0x1n, '#GP(0)'],
    ['MTRRphysMask', 0x20f, 0xff_8000_0800n, 'none'],
    ['MTRRfix with a reserved type', 0x250, 0x0606_0606_0606_0602n, '#GP(0)'],
    ['MTRRfix with DRAM bits that are not enabled', 0x26f, 0x1e1e_1e1e_1e1e_1e1en, '#GP(0)'],
    ['MTRRdefType with reserved bits', 0x2ff, 0x1000n, '#GP(0)'],
    ['MTRRdefType', 0x2ff, 0xc06n, 'none'],
    ['MTRRcap', 0xfe, 0n, '#GP(0)'],
    ['VM_HSAVE_PA, not aligned (§15.30.4)', 0xc001_0117, 0x1008n, '#GP(0)'],
    ['VM_HSAVE_PA above the physical width', 0xc001_0117, 1n << 40n, '#GP(0)'],
    ['VM_HSAVE_PA', 0xc001_0117, 0x1000n, 'none'],
    ['VM_CR with reserved bits', 0xc001_0114, 0x20n, '#GP(0)'],
    ['TSC_RATIO with reserved bits', 0xc000_0104, 1n << 40n, '#GP(0)'],
    ['TSC_RATIO', 0xc000_0104, 0xff_ffff_ffffn, 'none'],
    ['EFER with reserved bits', 0xc000_0080, EFER.LME | EFER.LMA | 2n, '#GP(0)'],
    ['EFER.FFXSR, which the profile lacks', 0xc000_0080, EFER.LME | EFER.LMA | EFER.FFXSR, '#GP(0)'],
    ['EFER.LME cleared while paging', 0xc000_0080, EFER.SCE, '#GP(0)'],
    ['EFER.SVME', 0xc000_0080, EFER.LME | EFER.LMA | EFER.SVME, 'none'],
    ['DebugCtl with reserved bits', 0x1d9, 0x40n, '#GP(0)'],
    ['MCG_STATUS with reserved bits', 0x17a, 8n, '#GP(0)'],
    ['the patch level', 0x8b, 0n, '#GP(0)'],
    ['an Intel register', 0x3a, 0n, '#GP(0)'],
    ['TOP_MEM, not a multiple of 8 MiB', 0xc001_001a, 0x10_0000n, '#GP(0)'],
    ['TOP_MEM2 above the physical width', 0xc001_001d, 1n << 40n, '#GP(0)'],
    ['IORRBase with reserved bits', 0xc001_0016, 0x1001n, '#GP(0)'],
    ['IORRBase with RdMem and WrMem', 0xc001_0018, 0x1018n, 'none'],
    ['IORRMask, valid', 0xc001_0017, 0xff_ffff_f800n, 'none'],
    ['IORRMask with RdMem', 0xc001_0019, 0x10n, '#GP(0)'],
    ['P-state control with reserved bits', 0xc001_0062, 8n, '#GP(0)'],
    ['the P-state status', 0xc001_0063, 0n, '#GP(0)'],
    ['a P-state', 0xc001_0064, 0n, '#GP(0)'],
    ['SMM_CTL with reserved bits', 0xc001_0116, 0x20n, '#GP(0)'],
  ];
  it.each(cases)('%s', (_name, msr, value, expected) => {
    expect(wrmsr(long(), msr, value)).toBe(expected);
  });
});

describe('registers that hold what was written', () => {
  const cases: readonly (readonly [number, RegisterName, bigint])[] = [
    [0x174, 'sysenterCs', 0x10n],
    [0x175, 'sysenterEsp', 0xffff_8000_0000_1000n],
    [0x176, 'sysenterEip', 0xffff_8000_0000_2000n],
    [0x1d9, 'debugCtl', 3n],
    [0x20f, 'mtrrMask7', 0xff_0000_0800n],
    [0x26f, 'mtrrFix4K7', 0x0505_0505_0505_0505n],
    [0x2ff, 'mtrrDefType', 0xc06n],
    [0xc000_0100, 'fsBase', 0x7fff_0000_0000n],
    [0xc000_0101, 'gsBase', 0xffff_8880_0000_0000n],
    [0xc000_0102, 'kernelGsBase', 1n],
    [0xc000_0103, 'tscAux', 0x1234n],
    [0xc001_0010, 'syscfg', 0x74_0000n],
    [0xc001_0117, 'vmHsavePA', 0x5000n],
  ];
  it.each(cases)('MSR %i is %s', (msr, name, value) => {
    const cpu = long();
    expect(set(cpu, msr, value)).toMatchObject({ event: { type: 'cpu.msr', msr, value } });
    expect(cpu.get(name)).toBe(value);
    expect(rdmsr(cpu, msr)).toBe(value);
  });

  it('cuts registers of 32 bits', () => {
    const cpu = long();
    wrmsr(cpu, 0xc000_0084, 0xffff_ffff_0000_0200n);
    expect(rdmsr(cpu, 0xc000_0084)).toBe(0x200n);
  });
});

describe('EFER and VM_CR (APM vol.2 §3.1.7, §15.4 Enabling SVM, §15.30.1)', () => {
  it('keeps LMA as it is, whatever is written', () => {
    const cpu = long();
    wrmsr(cpu, 0xc000_0080, EFER.LME | EFER.SCE);
    expect(cpu.get('efer')).toBe(EFER.LME | EFER.LMA | EFER.SCE);
  });

  it('refuses SVME under SVMDIS, and SVMDIS under SVME', () => {
    const disabled = long();
    expect(wrmsr(disabled, 0xc001_0114, 0x10n)).toBe('none');
    expect(wrmsr(disabled, 0xc000_0080, EFER.LME | EFER.LMA | EFER.SVME)).toBe('#GP(0)');
    const enabled = long().set({ efer: EFER.LME | EFER.LMA | EFER.SVME });
    expect(wrmsr(enabled, 0xc001_0114, 0x10n)).toBe('#GP(0)');
  });

  it('refuses SVMDIS under SVME even while LOCK would drop it', () => {
    const cpu = long().set({ efer: EFER.LME | EFER.LMA | EFER.SVME, vmCr: 0x08n });
    expect(wrmsr(cpu, 0xc001_0114, 0x10n)).toBe('#GP(0)');
    expect(wrmsr(cpu, 0xc001_0114, 0x02n)).toBe('none');
    expect(rdmsr(cpu, 0xc001_0114)).toBe(0x0an);
  });

  it('SVM_KEY takes LOCK back for whoever knows the key (§15.31.1 SVM_KEY MSR)', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_0118, 0x1234n);
    expect(rdmsr(cpu, 0xc001_0118)).toBe(0n);
    wrmsr(cpu, 0xc001_0114, 0x18n);
    wrmsr(cpu, 0xc001_0118, 0x1235n);
    expect(rdmsr(cpu, 0xc001_0114)).toBe(0x18n);
    wrmsr(cpu, 0xc001_0118, 0x1234n);
    expect(rdmsr(cpu, 0xc001_0114)).toBe(0x10n);
  });

  it('a key of zero opens nothing', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_0114, 0x18n);
    wrmsr(cpu, 0xc001_0118, 0n);
    expect(rdmsr(cpu, 0xc001_0114)).toBe(0x18n);
  });

  it('HWCR.SmmLock stays set (§15.32.1 SmmLock Bit)', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_0015, 1n);
    wrmsr(cpu, 0xc001_0015, 0n);
    expect(rdmsr(cpu, 0xc001_0015)).toBe(1n);
  });

  it('SMM_KEY takes SmmLock back for whoever knows the key (§15.32.2 SMM_KEY MSR)', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_0119, 0x1234n);
    expect(rdmsr(cpu, 0xc001_0119)).toBe(0n);
    wrmsr(cpu, 0xc001_0015, 1n);
    wrmsr(cpu, 0xc001_0119, 0x1235n);
    wrmsr(cpu, 0xc001_0119, 0n);
    expect(rdmsr(cpu, 0xc001_0015)).toBe(1n);
    wrmsr(cpu, 0xc001_0119, 0x1234n);
    expect(rdmsr(cpu, 0xc001_0015)).toBe(0n);
  });

  it('a wrong SMM_KEY does not become the key', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_0015, 1n);
    wrmsr(cpu, 0xc001_0119, 0x1234n);
    wrmsr(cpu, 0xc001_0119, 0x1234n);
    expect(rdmsr(cpu, 0xc001_0015)).toBe(1n);
  });

  describe('SMM_CTL (§15.30.3 SMM_CTL MSR)', () => {
    const [DISMISS, ENTER, EXIT] = [1n, 2n, 8n];
    const { SMI_PENDING, IN_SMM, NMI_BLOCKED } = Boundary;

    it('ENTER masks SMIs and NMIs, EXIT brings the mask of NMIs back', () => {
      for (const before of [0n, NMI_BLOCKED]) {
        const cpu = long().set({ boundary: before });
        wrmsr(cpu, 0xc001_0116, ENTER);
        expect(cpu.get('boundary') & (IN_SMM | NMI_BLOCKED)).toBe(IN_SMM | NMI_BLOCKED);
        wrmsr(cpu, 0xc001_0116, EXIT | 0x10n);
        expect(cpu.get('boundary')).toBe(before);
      }
    });

    it('lasts through a guest, as a hypervisor needs that runs the handler in one (§15.22.3)', () => {
      const live = new NestedMachine('90', { boundary: IN_SMM | NMI_BLOCKED });
      live.exit();
      expect(live.get('boundary')).toBe(IN_SMM | NMI_BLOCKED);
    });

    it('DISMISS forgets a pending SMI', () => {
      const cpu = long().set({ boundary: SMI_PENDING });
      wrmsr(cpu, 0xc001_0116, DISMISS | ENTER | 4n);
      expect(cpu.get('boundary') & (SMI_PENDING | IN_SMM)).toBe(IN_SMM);
    });

    it('can only be written, and not under HWCR.SmmLock', () => {
      expect(rdmsr(long(), 0xc001_0116)).toBe('#GP(0)');
      expect(wrmsr(long().set({ hwcr: 1n }), 0xc001_0116, ENTER)).toBe('#GP(0)');
    });

    it('is not there where CPUID says so (Fn8000_0021 EAX[NoSmmCtlMSR])', () => {
      const cpu = new CpuMachine(cpuProfile('zen-4')).longMode();
      expect(wrmsr(cpu, 0xc001_0116, ENTER)).toBe('#GP(0)');
      cpu.set({ rax: 0x8000_0021n, rcx: 0n }).run(0x0f, 0xa2);
      expect(cpu.get('rax') & 0x200n).toBe(0x200n);
    });
  });

  it('TSC_RATIO is 1.0 after RESET (§15.30.5 TSC Ratio MSR)', () => {
    expect(resetRegisters(BASE_PROFILE).get(R.tscRatio)).toBe(1n << 32n);
  });

  it('ignores LOCK and SVMDIS once LOCK is set', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_0114, 0x18n);
    wrmsr(cpu, 0xc001_0114, 0x02n);
    expect(cpu.get('vmCr')).toBe(0x1an);
  });

  it('drops translations when NXE changes', () => {
    const cpu = long();
    wrmsr(cpu, 0xc000_0080, EFER.LME);
    expect(cpu.flushes).toEqual([{ scope: 'asid', asid: 0 }]);
  });
});

describe('registers with a meaning of their own', () => {
  it('an unknown MSR is #GP and an event (law 8)', () => {
    const cpu = long();
    expect(rdmsr(cpu, 0x3a)).toBe('#GP(0)');
    expect(wrmsr(cpu, 0x1234, 5n)).toBe('#GP(0)');
    expect(cpu.events).toEqual([
      { type: 'cpu.msr-unknown', msr: 0x3a, write: false, value: 0n },
      { type: 'cpu.msr-unknown', msr: 0x1234, write: true, value: 5n },
    ]);
  });

  it('performance counters hold 48 bits, and RDPMC reads them (§13.2.1)', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_0005, 0xffff_1234_5678_9abcn);
    wrmsr(cpu, 0xc001_0001, 0x53_0076n);
    expect([rdmsr(cpu, 0xc001_0005), rdmsr(cpu, 0xc001_0001)]).toEqual([0x1234_5678_9abcn, 0x53_0076n]);
    cpu.set({ rcx: 1n }).run(0x0f, 0x33);
    expect([cpu.get('rdx'), cpu.get('rax')]).toEqual([0x1234n, 0x5678_9abcn]);
    expect(faultOf(cpu.set({ rcx: 4n }).run(0x0f, 0x33))).toBe('#GP(0)');
  });

  it('machine-check banks are as many as MCG_CAP says (§9.3.2)', () => {
    const cpu = long();
    const banks = Number((rdmsr(cpu, 0x179) as bigint) & 0xffn);
    const last = 0x400 + 4 * (banks - 1);
    for (const [register, value] of [0xffff_ffff_ffff_ffffn, 0n, 5n, NON_CANONICAL].entries()) {
      expect(wrmsr(cpu, last + register, value)).toBe('none');
      expect(rdmsr(cpu, last + register)).toBe(value);
    }
    expect([wrmsr(cpu, last + 4, 0n), rdmsr(cpu, last + 4)]).toEqual(['#GP(0)', '#GP(0)']);
    expect([wrmsr(cpu, 0xc001_0044, 5n), rdmsr(cpu, 0xc001_0044)]).toEqual(['none', 5n]);
  });

  it('MCi_CTL takes all or none, and MCi_STATUS only zero without HWCR.McStatusWrEn (§9.3.2.1, §9.3.2.2)', () => {
    const cpu = long();
    expect([wrmsr(cpu, 0x400, 5n), wrmsr(cpu, 0x401, 1n)]).toEqual(['#GP(0)', '#GP(0)']);
    cpu.registers[R.hwcr] = 1n << 18n;
    expect([wrmsr(cpu, 0x401, 1n), rdmsr(cpu, 0x401)]).toEqual(['none', 1n]);
  });

  it.each([
    ['LS_CFG', 0xc001_1020],
    ['BU_CFG', 0xc001_1023],
    ['FP_CFG', 0xc001_1028],
    ['BP_CFG', 0xc001_102e],
    ['NB_CFG', 0xc001_001f],
    ['IntPend', 0xc001_0055],
    ['OSVW_Status', 0xc001_0141],
  ])('%s holds what is written', (_name, msr) => {
    const cpu = long();
    expect(rdmsr(cpu, msr)).toBe(0n);
    wrmsr(cpu, msr, NON_CANONICAL);
    expect(rdmsr(cpu, msr)).toBe(NON_CANONICAL);
  });

  it('DE_CFG says that LFENCE serializes, whatever is written', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_1029, 0x200n);
    expect(rdmsr(cpu, 0xc001_1029)).toBe(0x202n);
  });

  it('has one P-state, at the rate of the time-stamp counter (§17.1 P-State Control)', () => {
    const cpu = long();
    const zero = rdmsr(cpu, 0xc001_0064) as bigint;
    const megahertz = (Number(zero & 0xffn) / Number((zero >> 8n) & 0x3fn)) * 200;
    expect([zero >> 63n, megahertz]).toEqual([1n, 1000]);
    expect([rdmsr(cpu, 0xc001_0065), rdmsr(cpu, 0xc001_0061), rdmsr(cpu, 0xc001_0063)]).toEqual([0n, 0n, 0n]);
  });

  it('the eighth generation has neither P-states nor OSVW', () => {
    const cpu = new CpuMachine(cpuProfile('k8-f')).longMode();
    expect([rdmsr(cpu, 0xc001_0064), rdmsr(cpu, 0xc001_0140)]).toEqual(['#GP(0)', '#GP(0)']);
  });

  it('SMM_ADDR and SMM_MASK hold their ranges until HWCR.SmmLock (§10.2.5)', () => {
    const cpu = long();
    wrmsr(cpu, 0xc001_0112, 0x7fff_ffffn);
    wrmsr(cpu, 0xc001_0113, 0xfff_ff80_0003n);
    expect([rdmsr(cpu, 0xc001_0112), rdmsr(cpu, 0xc001_0113)]).toEqual([0x7ffe_0000n, 0xfff_ff80_0003n]);
    cpu.registers[R.hwcr] = 1n;
    expect(wrmsr(cpu, 0xc001_0112, 0n)).toBe('#GP(0)');
  });

  it("a guest's time-stamp counter has its offset, the counter itself not (§15.5.1)", () => {
    const cpu = long().set({ tscOffset: 5n });
    expect(rdmsr(cpu, 0x10)).toBe(1_000_000n);
    cpu.set({ svmMode: SvmMode.GUEST | SvmMode.GIF });
    expect(rdmsr(cpu, 0x10)).toBe(1_000_005n);
    cpu.run(0x0f, 0x31);
    expect(cpu.get('rax')).toBe(1_000_005n);
  });

  it('a guest under nested paging has its own PAT (§15.25.8)', () => {
    const cpu = long().set({ svmMode: SvmMode.GUEST | SvmMode.GIF, nestedControl: 1n });
    wrmsr(cpu, 0x277, 0n);
    expect([cpu.get('guestPat'), cpu.get('pat')]).toEqual([0n, 0x0007_0406_0007_0406n]);
  });

  it('DRAM bits of fixed ranges are hidden without SYSCFG.MtrrFixDramModEn (§7.9.1)', () => {
    const cpu = long();
    cpu.registers[R.syscfg] = 1n << 19n;
    expect(wrmsr(cpu, 0x250, 0x1e1e_1e1e_1e1e_1e1en)).toBe('none');
    cpu.registers[R.syscfg] = 0n;
    expect(rdmsr(cpu, 0x250)).toBe(0x0606_0606_0606_0606n);
  });

  it('checks privilege, then the map, then the register (§15.11)', () => {
    const cpu = long().intercepting('MSR_PROT');
    expect(wrmsr(cpu, 0x3a, 0n)).toBe('exit 7c');
    expect(wrmsr(cpu.atUserLevel(), 0x3a, 0n)).toBe('#GP(0)');
  });

  it('has each number in one row, and a source for each', () => {
    const numbers = MSR_ROWS.flatMap(({ msr, count }) => Array.from({ length: count ?? 1 }, (_, index) => msr + index));
    expect(new Set(numbers).size).toBe(numbers.length);
    for (const { source } of MSR_ROWS) expect(source).not.toBe('');
  });
});

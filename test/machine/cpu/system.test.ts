import { describe, expect, it } from 'vitest';
import { BASE_PROFILE } from '../../../src/machine/cpu/cpuid.js';
import { Activity, Boundary, CR0, CR4, Flag, R, type Slot, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { IntControl } from '../../../src/machine/layout/vmcb.js';
import type { InterceptName } from '../../../src/machine/svm/intercepts.js';
import { CpuMachine, DATA, descriptor, faultOf, gate, Sel, STACK_TOP, TSS } from '../../support/cpu-machine.js';

const { SPARE } = Sel;
const long = () => new CpuMachine().longMode();

describe('port I/O (APM vol.2 §12.2.4 I/O-Permission Bitmap)', () => {
  const IN_AL_80 = [0xe4, 0x80];
  const user = (iopl: number) => {
    const cpu = long()
      .atUserLevel()
      .write(TSS + 0x66, 2, 0x68n);
    return cpu.set({ rflags: 2n | (BigInt(iopl) << 12n) });
  };

  it('is free up to IOPL, and elsewhere by the bitmap', () => {
    expect(faultOf(user(3).run(...IN_AL_80))).toBe('none');
    expect(faultOf(user(0).run(...IN_AL_80))).toBe('none');
    expect(
      faultOf(
        user(0)
          .write(TSS + 0x68 + 0x10, 1, 1n)
          .run(...IN_AL_80),
      ),
    ).toBe('#GP(0)');
    expect(
      faultOf(
        user(0)
          .write(TSS + 0x68 + 0x10, 1, 2n)
          .run(...IN_AL_80),
      ),
    ).toBe('none');
  });

  it('tests the bits of every byte, across two bytes of the map', () => {
    const cpu = user(0).write(TSS + 0x68 + 0x11, 1, 1n);
    expect(faultOf(cpu.run(0xe5, 0x85))).toBe('#GP(0)');
    expect(faultOf(cpu.run(0x66, 0xe5, 0x86))).toBe('none');
  });

  it('needs the whole pair of bytes inside the TSS', () => {
    const limit = (bytes: number) => user(0).set({ tr: (BigInt(bytes) << 32n) | 0x8b_0028n });
    expect(faultOf(limit(0x68 + 0x11).run(...IN_AL_80))).toBe('none');
    expect(faultOf(limit(0x68 + 0x10).run(...IN_AL_80))).toBe('#GP(0)');
    expect(faultOf(limit(0x66).run(...IN_AL_80))).toBe('#GP(0)');
  });

  it('always goes by the bitmap in virtual-8086 mode', () => {
    const cpu = new CpuMachine()
      .virtual8086(3)
      .write(TSS + 0x66, 2, 0x68n)
      .write(TSS + 0x78, 1, 1n);
    expect(faultOf(cpu.run(...IN_AL_80))).toBe('#GP(0)');
  });

  it('zero-extends 32 bits and merges smaller operands', () => {
    const cpu = long().set({ rax: ~0n, rdx: 0x3f8n });
    cpu.portInput.push(0x12n, 0x3456n, 0x789a_bcden);
    cpu.run(0xec);
    expect(cpu.get('rax')).toBe(0xffff_ffff_ffff_ff12n);
    cpu.run(0x66, 0xed);
    expect(cpu.get('rax')).toBe(0xffff_ffff_ffff_3456n);
    cpu.run(0xed);
    expect(cpu.get('rax')).toBe(0x789a_bcden);
    cpu.run(0xe6, 0x80);
    cpu.run(0xef);
    expect(cpu.ports).toEqual(['in 3f8.1', 'in 3f8.2', 'in 3f8.4', 'out 80.1=de', 'out 3f8.4=789abcde']);
  });

  it('repeats string forms one iteration at a time', () => {
    const cpu = long().set({ rcx: 2n, rdi: BigInt(DATA), rdx: 0x60n, rip: 0x500n });
    cpu.portInput.push(0xaan, 0xbbn);
    cpu.run(0xf3, 0x6c);
    expect([cpu.get('rip'), cpu.get('rcx'), cpu.get('rdi')]).toEqual([0x500n, 1n, BigInt(DATA + 1)]);
    cpu.run(0xf3, 0x6c);
    expect([cpu.get('rip'), cpu.get('rcx'), cpu.read(DATA, 2)]).toEqual([0x502n, 0n, 0xbbaan]);
    cpu.set({ rflags: Flag.DF | 2n }).run(0xf3, 0x6c);
    expect([cpu.get('rip'), cpu.ports.length]).toEqual([0x504n, 2]);
  });

  it('does not read the port when memory is missing', () => {
    const cpu = long().set({ rdi: BigInt(DATA), rdx: 0x60n });
    cpu.missingPages.add(DATA >> 12);
    expect(faultOf(cpu.run(0x6c))).toBe('#PF(2)');
    expect(cpu.ports).toEqual([]);
  });

  it('reads OUTS through its segment', () => {
    const cpu = long()
      .set({ rsi: 0x10n, gsBase: BigInt(DATA), rdx: 0x60n, rflags: Flag.DF | 2n })
      .write(DATA + 0x10, 4, 0x1234n);
    cpu.run(0x65, 0x66, 0x6f);
    expect([cpu.ports[0], cpu.get('rsi')]).toEqual(['out 60.2=1234', 0xen]);
  });

  it('reports kind, size, address size, segment and port, after the permission check (§15.10.2, §15.10.3)', () => {
    const info = (cpu: CpuMachine, ...bytes: number[]) => {
      const ended = cpu.intercepting('IOIO_PROT').run(...bytes);
      return ended.kind === 'exit' ? ended.exit.info1.toString(16) : faultOf(ended);
    };
    expect(info(long(), 0xe4, 0x80)).toBe('800211');
    expect(info(long().set({ rdx: 0x3f8n }), 0xef)).toBe('3f80240');
    expect(info(long().set({ rdx: 0x3f8n, rcx: 1n }), 0xf3, 0x6c)).toBe('3f8021d');
    expect(info(long().set({ rdx: 0x3f8n, rcx: 1n }), 0x65, 0xf3, 0x67, 0x66, 0x6f)).toBe('3f8152c');
    expect(info(user(0).write(TSS + 0x78, 1, 1n), 0xe4, 0x80)).toBe('#GP(0)');
  });

  it('notes breakpoints on ports for the boundary', () => {
    const cpu = long().set({ dr3: 0x80n, dr7: (1n << 7n) | (2n << 28n), cr4: CR4.PAE | CR4.DE });
    cpu.run(0xe6, 0x80);
    expect(cpu.get('boundary')).toBe(8n << Boundary.BREAKPOINTS_SHIFT);
  });
});

describe('alignment checks of what no plain operand is (APM vol.2 §8.2.18 #AC, table 8-7)', () => {
  const checked = (rflags = 0n) => {
    const cpu = new CpuMachine().protectedMode().atUserLevel();
    return cpu.set({ cr0: cpu.get('cr0') | CR0.AM, rflags: Flag.AC | Flag.IOPL | 2n | rflags });
  };
  const LES = [0xc4, 0x03];
  const cases: readonly (readonly [string, (cpu: CpuMachine) => unknown, readonly number[]])[] = [
    ['a far pointer', (cpu) => cpu.set({ rbx: 0x3_0002n }), LES],
    ['INS', (cpu) => cpu.set({ rdi: 0x3_0001n, rcx: 1n }), [0x6d]],
    ['OUTS', (cpu) => cpu.set({ rsi: 0x3_0001n }), [0x6f]],
    ['RETF', (cpu) => cpu.set({ rsp: 0x1_fff2n }), [0xcb]],
    ['PUSH of a segment register', (cpu) => cpu.set({ rsp: 0x1_fff2n }), [0x1e]],
  ];
  it.each(cases)('%s', (_name, prepare, code) => {
    const cpu = checked();
    prepare(cpu);
    expect(faultOf(cpu.run(...code))).toBe('#AC(0)');
    expect(cpu.ports).toEqual([]);
    expect(faultOf(cpu.set({ rflags: Flag.IOPL | 2n }).run(...code))).not.toBe('#AC(0)');
  });

  it('do not look at the stack of an inner level', () => {
    const cpu = checked().write(TSS + 4, 4, 0x2_7ffen);
    cpu.describe(Sel.SPARE, gate(Sel.CODE, 0x700, 0xec));
    expect(faultOf(cpu.run(0x9a, 0, 0, 0, 0, Sel.SPARE | 3, 0))).toBe('none');
  });
});

describe('interrupt flag and flags as a whole (APM vol.3 CLI, STI, PUSHF, POPF)', () => {
  it('CLI and STI need CPL up to IOPL', () => {
    const cpu = long().atUserLevel();
    expect(faultOf(cpu.run(0xfa))).toBe('#GP(0)');
    expect(faultOf(cpu.set({ rflags: 0x3202n }).run(0xfa))).toBe('none');
    expect(cpu.get('rflags')).toBe(0x3002n);
  });

  it('STI opens a shadow only when IF was clear', () => {
    const cpu = long();
    expect(cpu.run(0xfb)).toMatchObject({ event: 'plain' });
    expect([cpu.get('rflags'), cpu.get('boundary')]).toEqual([0x202n, Boundary.INTERRUPT_SHADOW]);
    cpu.set({ boundary: 0n });
    expect(cpu.run(0xfb)).toMatchObject({ event: 'plain' });
    expect(cpu.get('boundary')).toBe(0n);
  });

  it('STI and POPF that let interrupts into a guest are events where a virtual one waits', () => {
    const cpu = long().set({ svmMode: SvmMode.GUEST });
    expect(cpu.run(0xfb)).toMatchObject({ event: 'plain' });
    cpu.set({ intControl: IntControl.V_IRQ, boundary: 0n });
    expect(cpu.run(0xfa)).toMatchObject({ event: 'plain' });
    expect(cpu.run(0xfb)).toMatchObject({ event: { type: 'cpu.system', mnemonic: 'STI' } });
    expect(cpu.run(0xfa)).toMatchObject({ event: 'plain' });
    cpu.write(STACK_TOP - 8, 8, 0x202n).set({ rsp: BigInt(STACK_TOP - 8), boundary: 0n });
    expect(cpu.run(0x9d)).toMatchObject({ event: { type: 'cpu.system', mnemonic: 'POPF' } });
    expect(cpu.run(0xfb)).toMatchObject({ event: 'plain' });
    cpu.run(0xfa);
    cpu.set({ intControl: IntControl.V_NMI_ENABLE | IntControl.V_NMI });
    expect(cpu.run(0xfb)).toMatchObject({ event: { type: 'cpu.system', mnemonic: 'STI' } });
  });

  it('PUSHF shows neither VM nor RF', () => {
    const cpu = long().set({ rflags: 0x1_0246n });
    cpu.run(0x9c);
    expect(cpu.read(STACK_TOP - 8, 8)).toBe(0x246n);
  });

  const popf = (cpu: CpuMachine, value: bigint, ...bytes: number[]) => {
    cpu.write(STACK_TOP - 8, 8, value).set({ rsp: BigInt(STACK_TOP - 8) });
    return faultOf(cpu.run(...bytes, 0x9d));
  };
  const ALL = 0xffff_ffffn;

  it('POPF changes IOPL at CPL 0 only, and IF up to IOPL; never VM, VIF, VIP and RF', () => {
    const kernel = long();
    popf(kernel, ALL);
    expect(kernel.get('rflags')).toBe(0x24_7fd7n);
    const program = long().atUserLevel();
    popf(program, ALL);
    expect(program.get('rflags')).toBe(0x24_4dd7n);
    const trusted = long().atUserLevel().set({ rflags: 0x3002n });
    popf(trusted, ALL & ~0x3000n);
    expect(trusted.get('rflags')).toBe(0x24_7fd7n);
  });

  it('POPF of 16 bits keeps the others', () => {
    const cpu = long().set({ rflags: 0x24_0002n });
    popf(cpu, 0n, 0x66);
    expect(cpu.get('rflags')).toBe(0x24_0002n);
  });

  it('needs IOPL 3 in virtual-8086 mode, after the intercept', () => {
    expect(faultOf(new CpuMachine().virtual8086(2).run(0x9c))).toBe('#GP(0)');
    expect(faultOf(new CpuMachine().virtual8086(2).run(0x9d))).toBe('#GP(0)');
    expect(faultOf(new CpuMachine().virtual8086(2).intercepting('PUSHF').run(0x9c))).toBe('exit 70');
    expect(faultOf(new CpuMachine().virtual8086(2).intercepting('POPF').run(0x9d))).toBe('exit 71');
  });
});

describe('stages of intercepts (APM vol.2 §15.9, table 15-7)', () => {
  const cases: readonly (readonly [string, InterceptName, readonly number[], string, string])[] = [
    ['CPUID', 'CPUID', [0x0f, 0xa2], 'exit 72', 'exit 72'],
    ['HLT', 'HLT', [0xf4], 'exit 78', '#GP(0)'],
    ['INVD', 'INVD', [0x0f, 0x08], 'exit 76', '#GP(0)'],
    ['WBINVD', 'WBINVD', [0x0f, 0x09], 'exit 89', '#GP(0)'],
    ['PAUSE', 'PAUSE', [0xf3, 0x90], 'exit 77', 'exit 77'],
    ['RSM', 'RSM', [0x0f, 0xaa], 'exit 73', 'exit 73'],
    ['RDTSC', 'RDTSC', [0x0f, 0x31], 'exit 6e', '#GP(0)'],
    ['RDTSCP', 'RDTSCP', [0x0f, 0x01, 0xf9], 'exit 87', '#GP(0)'],
    ['RDPMC', 'RDPMC', [0x0f, 0x33], 'exit 6f', '#GP(0)'],
    ['XSETBV without OSXSAVE', 'XSETBV', [0x0f, 0x01, 0xd1], '#UD', '#UD'],
  ];
  it.each(cases)('%s', (_name, intercept, bytes, kernel, program) => {
    const cpu = () =>
      long()
        .set({ cr4: CR4.PAE | CR4.TSD })
        .intercepting(intercept);
    expect(faultOf(cpu().run(...bytes))).toBe(kernel);
    expect(
      faultOf(
        cpu()
          .atUserLevel()
          .run(...bytes),
      ),
    ).toBe(program);
  });
});

describe('CPUID (APM vol.3 appendix E)', () => {
  const cpuid = (leaf: number, subleaf = 0) => {
    const cpu = long().set({ rax: BigInt(leaf), rcx: BigInt(subleaf) });
    cpu.run(0x0f, 0xa2);
    return {
      eax: Number(cpu.get('rax')),
      ebx: Number(cpu.get('rbx')),
      ecx: Number(cpu.get('rcx')),
      edx: Number(cpu.get('rdx')),
    };
  };
  const text = (...words: readonly number[]) =>
    words.flatMap((word) => [0, 8, 16, 24].map((shift) => String.fromCharCode((word >>> shift) & 0xff))).join('');

  it('names vendor, brand and family', () => {
    const { ebx, ecx, edx } = cpuid(0);
    expect(text(ebx, edx, ecx)).toBe('AuthenticAMD');
    expect(cpuid(0x8000_0000).ebx).toBe(ebx);
    expect(cpuid(1).eax).toBe(0x0080_0f12);
    const brand = [2, 3, 4].map((leaf) => cpuid(0x8000_0000 + leaf));
    expect(text(...brand.flatMap(({ eax, ebx: b, ecx: c, edx: d }) => [eax, b, c, d])).replace(/\0+$/, '')).toBe(
      BASE_PROFILE.brand,
    );
  });

  it('reports what the machine has, and nothing that it lacks', () => {
    expect(cpuid(1)).toEqual({ eax: 0x0080_0f12, ebx: 0x800, ecx: 0x77fa_320b, edx: 0x078b_fbff });
    expect(cpuid(7)).toEqual({ eax: 0, ebx: 0x219c_05ab, ecx: 0x40_0004, edx: 0 });
    expect(cpuid(7, 1)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
    expect(cpuid(0x8000_0001)).toMatchObject({ ecx: 0x2000_0375, edx: 0x2dd3_fbff });
    expect(cpuid(0x8000_0008).eax).toBe(0x3028);
    expect(cpuid(0x8000_000a)).toEqual({ eax: 1, ebx: 64, ecx: 0, edx: 0x6303_b4ff });
    expect(cpuid(0x8000_0007).edx).toBe(0x180);
  });

  it('is silent about unknown leaves, and about those of hypervisors (APM vol.2 §15.2.2 Guest Mode)', () => {
    expect(cpuid(0x4000_0000)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
    expect(cpuid(0xe)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
  });
});

describe('waiting and random numbers', () => {
  it('HLT stops the vCPU with an event of its own', () => {
    const cpu = long();
    expect(cpu.run(0xf4)).toMatchObject({ event: { type: 'cpu.halted' } });
    expect(cpu.get('activity')).toBe(Activity.HALTED);
  });

  it('MWAIT stops only after MONITOR, which faults as a read', () => {
    const MONITOR = [0x0f, 0x01, 0xc8];
    const MWAIT = [0x0f, 0x01, 0xc9];
    const cpu = long().set({ rax: BigInt(DATA) });
    cpu.run(...MWAIT);
    expect(cpu.get('activity')).toBe(Activity.RUNNING);
    expect(faultOf(cpu.run(...MONITOR))).toBe('none');
    expect(cpu.run(...MWAIT)).toMatchObject({ event: { type: 'cpu.halted' } });
    expect(cpu.get('activity')).toBe(Activity.MWAIT);
    cpu.missingPages.add(DATA >> 12);
    expect(faultOf(cpu.run(...MONITOR))).toBe('#PF(0)');
    expect(faultOf(cpu.set({ rcx: 1n }).run(...MONITOR))).toBe('#GP(0)');
    expect(faultOf(cpu.atUserLevel().run(...MONITOR))).toBe('#UD');
  });

  it('MONITOR exits after its memory access, MWAIT by whether the monitor is armed (§15.9)', () => {
    const cpu = long()
      .set({ rax: BigInt(DATA) })
      .intercepting('MONITOR', 'MWAIT', 'MWAIT_ARMED');
    expect(faultOf(cpu.run(0x0f, 0x01, 0xc8))).toBe('exit 8a');
    expect(faultOf(cpu.run(0x0f, 0x01, 0xc9))).toBe('exit 8b');
    expect(faultOf(cpu.set({ monitorAddress: 1n }).run(0x0f, 0x01, 0xc9))).toBe('exit 8c');
    cpu.missingPages.add(DATA >> 12);
    expect(faultOf(cpu.run(0x0f, 0x01, 0xc8))).toBe('#PF(0)');
  });

  it('RDRAND sets CF and clears the other flags', () => {
    const cpu = long().set({ rflags: 0x8d7n });
    cpu.run(0x48, 0x0f, 0xc7, 0xf0);
    expect([cpu.get('rax'), cpu.get('rflags')]).toEqual([0x0123_4567_89ab_cdefn, 3n]);
  });

  it('RDTSCP reads the counter and TSC_AUX', () => {
    const cpu = long().set({ tscAux: 7n });
    cpu.tsc = 0x12_3456_789an;
    cpu.run(0x0f, 0x01, 0xf9);
    expect([cpu.get('rax'), cpu.get('rdx'), cpu.get('rcx')]).toEqual([0x3456_789an, 0x12n, 7n]);
  });

  it('STAC and CLAC change RFLAGS.AC at CPL 0 only', () => {
    const cpu = long();
    cpu.run(0x0f, 0x01, 0xcb);
    expect(cpu.get('rflags')).toBe(0x4_0002n);
    cpu.run(0x0f, 0x01, 0xca);
    expect(cpu.get('rflags')).toBe(2n);
    expect(faultOf(cpu.atUserLevel().run(0x0f, 0x01, 0xcb))).toBe('#UD');
  });

  it('SWAPGS needs 64-bit mode and CPL 0', () => {
    const cpu = long().set({ gsBase: 1n, kernelGsBase: 2n });
    cpu.run(0x0f, 0x01, 0xf8);
    expect([cpu.get('gsBase'), cpu.get('kernelGsBase')]).toEqual([2n, 1n]);
    expect(faultOf(cpu.atUserLevel().run(0x0f, 0x01, 0xf8))).toBe('#GP(0)');
    expect(faultOf(new CpuMachine().protectedMode().run(0x0f, 0x01, 0xf8))).toBe('#UD');
  });

  it('barriers do nothing, CLFLUSH faults as a read', () => {
    const cpu = long().set({ rbx: BigInt(DATA) });
    for (const modrm of [0xe8, 0xf0, 0xf8]) expect(faultOf(cpu.run(0x0f, 0xae, modrm))).toBe('none');
    expect(faultOf(cpu.run(0x0f, 0xae, 0x3b))).toBe('none');
    cpu.missingPages.add(DATA >> 12);
    expect(faultOf(cpu.run(0x0f, 0xae, 0x3b))).toBe('#PF(0)');
  });
});

describe('x87 and SSE control (APM vol.2 §8.2.7 #NM, §8.2.16 #MF, §11.4.4)', () => {
  const PAGED = CR0.PE | CR0.PG | CR0.ET | CR0.NE;
  const cases: readonly (readonly [string, readonly number[], bigint, bigint, bigint, string])[] = [
    ['FNINIT with TS', [0xdb, 0xe3], CR0.TS, 0n, 0n, '#NM'],
    ['FNINIT with EM', [0xdb, 0xe3], CR0.EM, 0n, 0n, '#NM'],
    ['FWAIT with TS alone', [0x9b], CR0.TS, 0n, 0n, 'none'],
    ['FWAIT with TS and MP', [0x9b], CR0.TS | CR0.MP, 0n, 0n, '#NM'],
    ['FWAIT with a pending exception', [0x9b], 0n, 0n, 0x8081n, '#MF'],
    ['FNCLEX with a pending exception', [0xdb, 0xe2], 0n, 0n, 0x8081n, 'none'],
    ['EMMS with EM', [0x0f, 0x77], CR0.EM, 0n, 0n, '#UD'],
    ['LDMXCSR without OSFXSR', [0x0f, 0xae, 0x13], 0n, 0n, 0n, '#UD'],
    ['LDMXCSR with TS', [0x0f, 0xae, 0x13], CR0.TS, CR4.OSFXSR, 0n, '#NM'],
    ['FXSAVE with TS', [0x0f, 0xae, 0x03], CR0.TS, CR4.OSFXSR, 0n, '#NM'],
  ];
  it.each(cases)('%s', (_name, bytes, cr0, cr4, fsw, expected) => {
    const cpu = long().set({ cr0: PAGED | cr0, cr4: CR4.PAE | cr4, fsw, rbx: BigInt(DATA) });
    expect(faultOf(cpu.run(...bytes))).toBe(expected);
  });

  it('FNINIT empties the registers; FLDCW unmasks what is pending', () => {
    const cpu = long().set({ fsw: 0x3801n, ftw: 0xffn, rbx: BigInt(DATA) });
    cpu.run(0xdb, 0xe3);
    expect([cpu.get('fcw'), cpu.get('fsw'), cpu.get('ftw')]).toEqual([0x37fn, 0n, 0n]);
    cpu.set({ fsw: 4n }).write(DATA, 2, 0x37bn).run(0xd9, 0x2b);
    expect([cpu.get('fcw'), cpu.get('fsw')]).toEqual([0x37bn, 0x8084n]);
  });

  it('LDMXCSR refuses reserved bits', () => {
    const cpu = long()
      .set({ cr4: CR4.PAE | CR4.OSFXSR, rbx: BigInt(DATA) })
      .write(DATA, 4, 0x1_1f80n);
    expect(faultOf(cpu.run(0x0f, 0xae, 0x13))).toBe('#GP(0)');
    expect(faultOf(cpu.write(DATA, 4, 0x9fc0n).run(0x0f, 0xae, 0x13))).toBe('none');
    expect(cpu.get('mxcsr')).toBe(0x9fc0n);
  });

  it('FXSAVE and FXRSTOR carry everything, ST registers by stack order', () => {
    const cpu = long().set({
      rbx: BigInt(DATA),
      fsw: 0xb884n,
      ftw: 0x80n,
      fop: 0x123n,
      fip: 0x1_2345_6789n,
      fcw: 0x37bn,
    });
    const vectors: Slot[] = [];
    for (let slot = R.fpr0 as number; slot < R.xmm0; slot += 2) {
      cpu.registers[slot as Slot] = 0x1000n + BigInt(slot);
      cpu.registers[(slot + 1) as Slot] = 0x4000n + BigInt(slot);
    }
    for (let slot = R.xmm0 as number; slot <= R.xmm15High; slot++) vectors.push(slot as Slot);
    for (const slot of vectors) cpu.registers[slot] = BigInt(slot) << 32n;
    const before = [...(cpu.registers as BigUint64Array)];
    expect(faultOf(cpu.run(0x48, 0x0f, 0xae, 0x03))).toBe('none');
    expect(cpu.read(DATA + 32, 8)).toBe(0x1000n + BigInt(R.fpr7));
    expect([cpu.read(DATA + 4, 1), cpu.read(DATA + 8, 8), cpu.read(DATA + 28, 4)]).toEqual([
      0x80n,
      0x1_2345_6789n,
      0xffffn,
    ]);
    for (let slot = R.fcw as number; slot <= R.xmm15High; slot++) cpu.registers[slot as Slot] = 0n;
    expect(faultOf(cpu.run(0x48, 0x0f, 0xae, 0x0b))).toBe('none');
    expect([...(cpu.registers as BigUint64Array)].slice(R.fcw)).toEqual(before.slice(R.fcw));
  });

  it('FXSAVE writes zeros for the error pointers while no exception is pending (CPUID RstrFpErrPtrs)', () => {
    const cpu = long().set({ rbx: BigInt(DATA), fcw: 0x37fn, fsw: 4n, fop: 0x123n, fip: 5n, fdp: 6n });
    cpu
      .write(DATA + 6, 2, 0xffffn)
      .write(DATA + 8, 8, ~0n)
      .write(DATA + 16, 8, ~0n);
    cpu.run(0x48, 0x0f, 0xae, 0x03);
    expect([cpu.read(DATA + 6, 2), cpu.read(DATA + 8, 8), cpu.read(DATA + 16, 8)]).toEqual([0n, 0n, 0n]);
  });

  it('without REX.W the image has 32-bit pointers with selectors', () => {
    const cpu = long().set({ rbx: BigInt(DATA), fcw: 0x37bn, fsw: 0x8084n, fip: 0x0033_1234_5678_9abcn });
    cpu.run(0x0f, 0xae, 0x03);
    expect(cpu.read(DATA + 8, 8)).toBe(0x33_5678_9abcn);
    cpu.run(0x0f, 0xae, 0x0b);
    expect(cpu.get('fip')).toBe(0x0033_0000_5678_9abcn);
  });

  it('need an image aligned to 16 bytes, and a valid MXCSR in it', () => {
    const cpu = long().set({ rbx: BigInt(DATA + 8) });
    expect(faultOf(cpu.run(0x0f, 0xae, 0x03))).toBe('#GP(0)');
    cpu.set({ rbx: BigInt(DATA) }).write(DATA + 24, 4, 0x1_0000n);
    expect(faultOf(cpu.run(0x0f, 0xae, 0x0b))).toBe('#GP(0)');
  });
});

describe('segments and modes in the reset state (APM vol.2 §14.1, table 14-1)', () => {
  it('has the reset values of a real processor', () => {
    const cpu = new CpuMachine();
    expect([cpu.get('cr0'), cpu.get('rflags'), cpu.get('dr6'), cpu.get('dr7')]).toEqual([
      0x6000_0010n,
      2n,
      0xffff_0ff0n,
      0x400n,
    ]);
    expect([cpu.get('pat'), cpu.get('mxcsr'), cpu.get('idtrLimit')]).toEqual([
      0x0007_0406_0007_0406n,
      0x1f80n,
      0xffffn,
    ]);
    expect(cpu.get('rdx')).toBe(0x0080_0f12n);
  });

  it('keeps descriptors out of real mode', () => {
    const cpu = new CpuMachine().describe(SPARE, descriptor(0, 1, 0x92, 0));
    expect(faultOf(cpu.run(0x0f, 0x02, 0xc3))).toBe('#UD');
    expect(faultOf(cpu.run(0x0f, 0x00, 0xd8))).toBe('#UD');
  });
});

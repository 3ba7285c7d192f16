import { describe, expect, it } from 'vitest';
import { Boundary, CR0, EFER, Flag, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { IntControl } from '../../../src/machine/layout/vmcb.js';
import {
  CpuMachine,
  DATA,
  descriptor,
  faultOf,
  GDT,
  gate,
  INNER_STACK_TOP,
  Sel,
  STACK_TOP,
  TSS,
} from '../../support/cpu-machine.js';

const { SPARE } = Sel;
const little = (value: number, bytes: number) =>
  Array.from({ length: bytes }, (_, at) => (value / 2 ** (8 * at)) & 0xff);
const jump = (selector: number, offset: number) => [0xea, ...little(offset, 4), ...little(selector, 2)];
const call = (selector: number, offset: number) => [0x9a, ...little(offset, 4), ...little(selector, 2)];
const RETF = [0xcb];
const IRET = [0xcf];
const IRETQ = [0x48, 0xcf];
const TARGET = 0x1_4000;
const words = (cpu: CpuMachine, at: number, count: number, size: number) =>
  Array.from({ length: count }, (_, index) => cpu.read(at + size * index, size));
/** Puts items on the stack, the top first, and moves rSP to them. */
function stacked(cpu: CpuMachine, size: number, ...items: readonly (number | bigint)[]): CpuMachine {
  const base = Number(cpu.get('ssBase'));
  const top = STACK_TOP - size * items.length;
  for (const [index, item] of items.entries())
    cpu.write(top + size * index, size, BigInt.asUintN(8 * size, BigInt(item)));
  return cpu.set({ rsp: BigInt(top - base) });
}

describe('far JMP and CALL to code (APM vol.2 §4.11.1 Direct Control Transfers)', () => {
  const cases: readonly (readonly [string, number, bigint, 0 | 3, string])[] = [
    ['code of its own level', Sel.CODE, 0n, 0, 'none'],
    ['null', 0, 0n, 0, '#GP(0)'],
    ['data', Sel.DATA, 0n, 0, '#GP(10)'],
    ['code of an outer level', Sel.USER_CODE, 0n, 0, '#GP(18)'],
    ['conforming code of an inner level', Sel.CONFORMING | 3, 0n, 3, 'none'],
    ['code of an inner level', Sel.CODE, 0n, 3, '#GP(8)'],
    ['an RPL above CPL', Sel.CODE | 3, 0n, 0, '#GP(8)'],
    ['code that is not present', SPARE, descriptor(0, 0xf_ffff, 0x1b, 0xc), 0, '#NP(58)'],
    ['an offset past the limit', SPARE, descriptor(0, 0xfff, 0x9b, 4), 0, '#GP(0)'],
    ['an LDT', SPARE, descriptor(0, 0xfff, 0x82, 0), 0, '#GP(58)'],
    ['a selector beyond the GDT', 0x7f8, 0n, 0, '#GP(7f8)'],
  ];
  it.each(cases)('%s', (_name, selector, raw, cpl, expected) => {
    const cpu = new CpuMachine().protectedMode().describe(SPARE, raw);
    if (cpl === 3) cpu.atUserLevel();
    expect(faultOf(cpu.run(...jump(selector, TARGET)))).toBe(expected);
    expect(faultOf(cpu.run(...call(selector, TARGET)))).toBe(expected);
  });

  it('keeps CPL as RPL of CS', () => {
    const cpu = new CpuMachine().protectedMode().atUserLevel();
    cpu.run(...jump(Sel.CONFORMING, TARGET));
    expect([cpu.get('cs') & 0xffffn, cpu.get('cpl'), cpu.get('rip')]).toEqual([0x4bn, 3n, BigInt(TARGET)]);
  });

  it('enters compatibility mode and comes back to 64-bit mode', () => {
    const cpu = new CpuMachine()
      .longMode()
      .write(DATA, 4, BigInt(TARGET))
      .write(DATA + 4, 2, BigInt(Sel.CODE));
    cpu.set({ rbx: BigInt(DATA) });
    expect(faultOf(cpu.run(0xff, 0x2b))).toBe('none');
    expect(cpu.get('cs') & 0x0400_0000n).not.toBe(0n);
    expect(faultOf(cpu.run(...jump(Sel.CODE64, 0x1234)))).toBe('none');
    expect(cpu.get('rip')).toBe(0x1234n);
  });

  it('refuses code with L and D in long mode', () => {
    const cpu = new CpuMachine().longMode().describe(SPARE, descriptor(0, 0xf_ffff, 0x9b, 0xe));
    cpu
      .write(DATA, 4, 0n)
      .write(DATA + 4, 2, BigInt(SPARE))
      .set({ rbx: BigInt(DATA) });
    expect(faultOf(cpu.run(0xff, 0x2b))).toBe('#GP(58)');
  });

  it('jumps to paragraphs in real mode, inside the limit', () => {
    const cpu = new CpuMachine();
    expect(faultOf(cpu.run(0xea, 0x34, 0x12, 0x00, 0x20))).toBe('none');
    expect([cpu.get('csBase'), cpu.get('rip')]).toEqual([0x2_0000n, 0x1234n]);
    expect(faultOf(cpu.run(0x66, 0xea, 0, 0, 1, 0, 0, 0x20))).toBe('#GP(0)');
  });
});

describe('call gates (APM vol.2 §4.11.2 Control Transfers Through Call Gates)', () => {
  it('switches stacks and copies parameters to an inner level, and RETF comes back', () => {
    const cpu = new CpuMachine()
      .protectedMode()
      .atUserLevel()
      .describe(SPARE, gate(Sel.CODE, TARGET, 0xec, 2));
    stacked(cpu, 4, 0x1111, 0x2222).set({ rip: 0x500n });
    expect(faultOf(cpu.run(...call(SPARE | 3, 0)))).toBe('none');
    const frame = words(cpu, INNER_STACK_TOP - 24, 6, 4);
    expect(frame).toEqual([
      0x507n,
      BigInt(Sel.USER_CODE),
      0x1111n,
      0x2222n,
      BigInt(STACK_TOP - 8),
      BigInt(Sel.USER_DATA),
    ]);
    expect([cpu.get('cpl'), cpu.get('rip'), cpu.get('rsp')]).toEqual([
      0n,
      BigInt(TARGET),
      BigInt(INNER_STACK_TOP - 24),
    ]);
    expect(faultOf(cpu.run(0xca, 8, 0))).toBe('none');
    expect([cpu.get('cpl'), cpu.get('rip'), cpu.get('rsp')]).toEqual([3n, 0x507n, BigInt(STACK_TOP)]);
  });

  it('makes SS null in long mode, with RSP from the TSS', () => {
    const cpu = new CpuMachine().longMode().atUserLevel();
    cpu.describe(SPARE, gate(Sel.CODE64, TARGET, 0xec)).describe(SPARE + 8, 0n);
    cpu
      .write(DATA, 4, 0n)
      .write(DATA + 4, 2, BigInt(SPARE | 3))
      .set({ rbx: BigInt(DATA), rip: 0x500n });
    expect(faultOf(cpu.run(0xff, 0x1b))).toBe('none');
    expect([cpu.get('ss'), cpu.get('cpl'), cpu.get('rsp')]).toEqual([0n, 0n, BigInt(INNER_STACK_TOP - 32)]);
    expect(words(cpu, INNER_STACK_TOP - 32, 2, 8)).toEqual([0x502n, BigInt(Sel.USER_CODE64)]);
  });

  const cases: readonly (readonly [string, bigint, 0 | 3, string])[] = [
    ['a gate of an inner level', gate(Sel.CODE, TARGET, 0x8c), 3, '#GP(58)'],
    ['a gate that is not present', gate(Sel.CODE, TARGET, 0x6c), 3, '#NP(58)'],
    ['a gate to null', gate(0, TARGET, 0xec), 3, '#GP(0)'],
    ['a gate to data', gate(Sel.DATA, TARGET, 0xec), 3, '#GP(10)'],
    ['a gate to an outer level', gate(Sel.USER_CODE, TARGET, 0xec), 0, '#GP(18)'],
  ];
  it.each(cases)('%s', (_name, raw, cpl, expected) => {
    const cpu = new CpuMachine().protectedMode().describe(SPARE, raw);
    if (cpl === 3) cpu.atUserLevel();
    expect(faultOf(cpu.run(...call(SPARE | cpl, 0)))).toBe(expected);
  });

  it('does not let JMP change the level', () => {
    const cpu = new CpuMachine()
      .protectedMode()
      .atUserLevel()
      .describe(SPARE, gate(Sel.CODE, TARGET, 0xec));
    expect(faultOf(cpu.run(...jump(SPARE | 3, 0)))).toBe('#GP(8)');
  });
});

describe('RETF (APM vol.3 RET (Far))', () => {
  it('returns to an outer level and drops segments that it may not use', () => {
    const cpu = stacked(new CpuMachine().protectedMode(), 4, 0x700, Sel.USER_CODE, 0x1_8000, Sel.USER_DATA);
    cpu.set({ es: cpu.get('es') | 0x60_0000n });
    expect(faultOf(cpu.run(...RETF))).toBe('none');
    expect([cpu.get('cpl'), cpu.get('rip'), cpu.get('rsp')]).toEqual([3n, 0x700n, 0x1_8000n]);
    expect([cpu.get('ds'), cpu.get('es') === 0n]).toEqual([0n, false]);
  });

  const cases: readonly (readonly [string, number, number, string])[] = [
    ['null', 0, Sel.USER_DATA, '#GP(0)'],
    ['data', Sel.DATA, Sel.USER_DATA, '#GP(10)'],
    ['code whose RPL does not fit', Sel.CODE | 3, Sel.USER_DATA, '#GP(8)'],
    ['an outer level with a stack of the inner one', Sel.USER_CODE, Sel.DATA, '#GP(10)'],
    ['an outer level with a null stack', Sel.USER_CODE, 0, '#GP(0)'],
    ['beyond the GDT', 0x7f8, Sel.USER_DATA, '#GP(7f8)'],
  ];
  it.each(cases)('%s', (_name, selector, stack, expected) => {
    const cpu = stacked(new CpuMachine().protectedMode(), 4, 0x700, selector, 0x1_8000, stack);
    expect(faultOf(cpu.run(...RETF))).toBe(expected);
  });

  it('refuses an inner level', () => {
    const cpu = stacked(new CpuMachine().protectedMode().atUserLevel(), 4, 0x700, Sel.CODE, 0, 0);
    expect(faultOf(cpu.run(...RETF))).toBe('#GP(8)');
  });
});

describe('IRET (APM vol.3 IRET; APM vol.2 §8.9.5)', () => {
  it('returns within real mode', () => {
    const cpu = stacked(new CpuMachine().set({ ssBase: 0x1_8000n }), 2, 0x123, 0x2000, 0x7202);
    expect(faultOf(cpu.run(...IRET))).toBe('none');
    expect([cpu.get('csBase'), cpu.get('rip'), cpu.get('rflags')]).toEqual([0x2_0000n, 0x123n, 0x7202n]);
  });

  it('needs IOPL 3 in virtual-8086 mode, and keeps IOPL', () => {
    const machine = (iopl: number) =>
      stacked(new CpuMachine().virtual8086(iopl).set({ ssBase: 0x1_8000n }), 2, 0x123, 0x1000, 0x0202);
    expect(faultOf(machine(0).run(...IRET))).toBe('#GP(0)');
    const cpu = machine(3);
    expect(faultOf(cpu.run(...IRET))).toBe('none');
    expect(cpu.get('rflags')).toBe(0x2_3202n);
  });

  it('enters virtual-8086 mode from CPL 0', () => {
    const items = [0x123, 0x1000, 0x2_3202, 0x8000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000];
    const cpu = stacked(new CpuMachine().protectedMode(), 4, ...items);
    expect(faultOf(cpu.run(...IRET))).toBe('none');
    expect([cpu.get('cpl'), cpu.get('rflags'), cpu.get('rsp')]).toEqual([3n, 0x2_3202n, 0x8000n]);
    expect([cpu.get('csBase'), cpu.get('ssBase'), cpu.get('gsBase')]).toEqual([0x1_0000n, 0x2_0000n, 0x6_0000n]);
    expect(cpu.get('ds')).toBe(0xffff_00f3_4000n);
  });

  it('returns to an outer level in 32-bit mode, with IF and IOPL at CPL 0', () => {
    const cpu = stacked(new CpuMachine().protectedMode(), 4, 0x700, Sel.USER_CODE, 0x3202, 0x1_8000, Sel.USER_DATA);
    expect(faultOf(cpu.run(...IRET))).toBe('none');
    expect([cpu.get('cpl'), cpu.get('rflags'), cpu.get('rsp')]).toEqual([3n, 0x3202n, 0x1_8000n]);
  });

  it('pops three items at the same level in 32-bit mode', () => {
    const cpu = stacked(new CpuMachine().protectedMode(), 4, 0x700, Sel.CODE, 0x2);
    expect(faultOf(cpu.run(...IRET))).toBe('none');
    expect(cpu.get('rsp')).toBe(BigInt(STACK_TOP));
  });

  it('always pops SS:RSP in 64-bit mode, null below CPL 3', () => {
    const cpu = stacked(new CpuMachine().longMode(), 8, 0x700, Sel.CODE64, 0x1_0246, 0x1234, 0);
    expect(faultOf(cpu.run(...IRETQ))).toBe('none');
    expect([cpu.get('rsp'), cpu.get('ss'), cpu.get('rflags')]).toEqual([0x1234n, 0n, 0x1_0246n]);
  });

  it('returns from 64-bit mode to 64-bit and compatibility code at CPL 3', () => {
    for (const code of [Sel.USER_CODE64, Sel.USER_CODE]) {
      const cpu = stacked(new CpuMachine().longMode(), 8, 0x700, code, 0x202, 0x1_8000, Sel.USER_DATA);
      expect(faultOf(cpu.run(...IRETQ))).toBe('none');
      expect([cpu.get('cpl'), cpu.get('cs') & 0xffffn, cpu.get('rsp')]).toEqual([3n, BigInt(code), 0x1_8000n]);
    }
  });

  const long: readonly (readonly [string, readonly (number | bigint)[], string])[] = [
    ['null', [0x700, 0, 2, 0, 0], '#GP(0)'],
    ['beyond the GDT', [0x700, 0x7f8, 2, 0, 0], '#GP(7f8)'],
    ['a RIP that is not canonical', [0x9000_0000_0000n, Sel.CODE64, 2, 0, 0], '#GP(0)'],
    ['a null stack at CPL 3', [0x700, Sel.USER_CODE64, 2, 0x1_8000, 3], '#GP(0)'],
    ['a null stack into compatibility mode', [0x700, Sel.CODE, 2, 0x1_8000, 0], '#GP(0)'],
    ['a stack of another level', [0x700, Sel.USER_CODE64, 2, 0x1_8000, Sel.DATA], '#GP(10)'],
  ];
  it.each(long)('refuses %s in 64-bit mode', (_name, items, expected) => {
    expect(faultOf(stacked(new CpuMachine().longMode(), 8, ...items).run(...IRETQ))).toBe(expected);
  });

  it('refuses NT in long mode', () => {
    const cpu = new CpuMachine().longMode().set({ rflags: Flag.NT | 2n });
    expect(faultOf(cpu.run(...IRETQ))).toBe('#GP(0)');
  });

  it('keeps IOPL and IF at CPL 3', () => {
    const cpu = new CpuMachine().longMode().atUserLevel();
    stacked(cpu, 8, 0x700, Sel.USER_CODE64, 0x3202, 0x1_8000, Sel.USER_DATA).run(...IRETQ);
    expect(cpu.get('rflags')).toBe(2n);
  });

  it('unblocks NMIs when it completes, and not when it faults (§8.2.3)', () => {
    const cpu = stacked(new CpuMachine().longMode(), 8, 0x700, Sel.CODE64, 2, 0, 0).set({
      boundary: Boundary.NMI_BLOCKED,
    });
    cpu.run(...IRETQ);
    expect(cpu.get('boundary')).toBe(0n);
    const faulting = stacked(new CpuMachine().longMode(), 8, 0x700, 0, 2, 0, 0).set({ boundary: Boundary.NMI_BLOCKED });
    faulting.run(...IRETQ);
    expect(faulting.get('boundary')).toBe(Boundary.NMI_BLOCKED);
  });

  it('is plain where it changes neither segments nor privilege nor what is held back, and no virtual event waits', () => {
    const back = (values: Parameters<CpuMachine['set']>[0] = {}, cs: number = Sel.CODE64, ss: number = Sel.DATA) => {
      const cpu = stacked(new CpuMachine().longMode(), 8, 0x700, cs, 0x202, 0x1_8000, ss);
      return cpu.set({ cs: 0xffff_ffff_0a9b_0000n | BigInt(Sel.CODE64), ...values }).run(...IRETQ);
    };
    const event = { event: { type: 'cpu.system', mnemonic: 'IRET' } };
    expect(back()).toMatchObject({ event: 'plain' });
    expect(back({}, Sel.USER_CODE64, Sel.USER_DATA)).toMatchObject(event);
    expect(back({}, Sel.CODE64, 0)).toMatchObject(event);
    expect(back({ boundary: Boundary.NMI_BLOCKED })).toMatchObject(event);
    expect(back({ svmMode: SvmMode.GUEST })).toMatchObject({ event: 'plain' });
    expect(back({ svmMode: SvmMode.GUEST, intControl: IntControl.V_IRQ })).toMatchObject(event);
  });

  it('exits before every exception when intercepted (§15.9)', () => {
    const cpu = new CpuMachine()
      .longMode()
      .set({ rflags: Flag.NT | 2n })
      .intercepting('IRET');
    expect(faultOf(cpu.run(...IRETQ))).toBe('exit 74');
  });
});

describe('software interrupts (APM vol.3 INT, INT 3, INTO)', () => {
  it('become events that save the next RIP', () => {
    const cpu = new CpuMachine().protectedMode().set({ rip: 0x500n, rflags: 0x802n });
    expect(cpu.run(0xcd, 0x80)).toMatchObject({ event: { type: 'software', vector: 0x80, nextRip: 0x502n } });
    expect(cpu.run(0xcc)).toMatchObject({ event: { type: 'exception', vector: 3, nextRip: 0x501n } });
    expect(cpu.run(0xce)).toMatchObject({ event: { type: 'exception', vector: 4, nextRip: 0x501n } });
    expect(cpu.run(0xf1)).toMatchObject({ event: { type: 'icebp', vector: 1, nextRip: 0x501n } });
    expect(faultOf(cpu.set({ rflags: 2n }).run(0xce))).toBe('none');
  });

  it('need IOPL 3 in virtual-8086 mode, but INT3 does not', () => {
    const cpu = new CpuMachine().virtual8086(0);
    expect(faultOf(cpu.run(0xcd, 0x80))).toBe('#GP(0)');
    expect(faultOf(cpu.run(0xcc))).toBe('exception 3');
    expect(faultOf(cpu.intercepting('INTn').run(0xcd, 0x80))).toBe('exit 75');
  });

  it('are told apart by their intercepts (APM vol.2 §15.8.2 INTn Intercepts, §15.9)', () => {
    const cpu = new CpuMachine().longMode().intercepting('INTn', 'ICEBP');
    expect(cpu.run(0xcd, 0x21)).toMatchObject({ exit: { code: 0x75n, info1: 0x21n, nextRip: true } });
    expect(faultOf(cpu.run(0xf1))).toBe('exit 88');
    expect(faultOf(cpu.run(0xcc))).toBe('exception 3');
  });
});

describe('fast system calls (APM vol.2 §6.1)', () => {
  const SYSCALL = [0x0f, 0x05];
  const SYSRETQ = [0x48, 0x0f, 0x07];
  const SYSRETL = [0x0f, 0x07];
  const star = (BigInt(Sel.USER_CODE - 3) << 48n) | (BigInt(Sel.CODE) << 32n) | 0x1234n;

  it('SYSCALL saves RIP and RFLAGS, masks flags and makes flat segments', () => {
    const cpu = new CpuMachine().longMode().atUserLevel();
    cpu.set({ star, lstar: 0xffff_8000_0000_0000n, cstar: 0x5000n, sfmask: 0x200n, rip: 0x500n, rflags: 0x1_0202n });
    expect(faultOf(cpu.run(...SYSCALL))).toBe('none');
    expect([cpu.get('rcx'), cpu.get('r11'), cpu.get('rflags')]).toEqual([0x502n, 0x202n, 2n]);
    expect([cpu.get('cpl'), cpu.get('rip')]).toEqual([0n, 0xffff_8000_0000_0000n]);
    expect([cpu.get('cs'), cpu.get('ss')]).toEqual([0xffff_ffff_0a9b_0008n, 0xffff_ffff_0c93_0010n]);
  });

  it('SYSCALL from compatibility mode goes to CSTAR', () => {
    const cpu = new CpuMachine().longMode().atUserLevel();
    cpu.set({ star, cstar: 0x5000n, cs: 0xffff_ffff_0cfb_001bn }).run(...SYSCALL);
    expect([cpu.get('rip'), (cpu.get('cs') >> 25n) & 1n]).toEqual([0x5000n, 1n]);
  });

  it('SYSCALL in legacy mode goes to STAR and clears IF', () => {
    const cpu = new CpuMachine()
      .protectedMode()
      .atUserLevel()
      .set({ star, efer: EFER.SCE, rflags: 0x202n, rip: 0x500n });
    expect(faultOf(cpu.run(...SYSCALL))).toBe('none');
    expect([cpu.get('rip'), cpu.get('rcx'), cpu.get('rflags')]).toEqual([0x1234n, 0x502n, 2n]);
  });

  it('SYSRET changes only the selector of SS, and takes any RIP', () => {
    const cpu = new CpuMachine().longMode().set({ star, rcx: 0x9000_0000_0000n, r11: 0x1_3202n, ss: 0n });
    expect(faultOf(cpu.run(...SYSRETQ))).toBe('none');
    expect([cpu.get('cs'), cpu.get('ss')]).toEqual([0xffff_ffff_0afb_002bn, 0x20n]);
    expect([cpu.get('rip'), cpu.get('rflags'), cpu.get('cpl')]).toEqual([0x9000_0000_0000n, 0x3202n, 3n]);
    const narrow = new CpuMachine().longMode().set({ star, rcx: 0xff_0000_1234n, r11: 2n });
    narrow.run(...SYSRETL);
    expect([narrow.get('cs'), narrow.get('rip')]).toEqual([0xffff_ffff_0cfb_001bn, 0x1234n]);
  });

  it('need EFER.SCE, protected mode and CPL 0', () => {
    const cpu = new CpuMachine().longMode();
    expect(faultOf(cpu.set({ efer: EFER.LME | EFER.LMA }).run(...SYSCALL))).toBe('#UD');
    expect(faultOf(cpu.run(...SYSRETQ))).toBe('#UD');
    expect(faultOf(new CpuMachine().set({ efer: EFER.SCE }).run(...SYSCALL))).toBe('#UD');
    expect(
      faultOf(
        new CpuMachine()
          .longMode()
          .atUserLevel()
          .run(...SYSRETQ),
      ),
    ).toBe('#GP(0)');
  });

  it('SYSENTER and SYSEXIT exist in legacy mode only', () => {
    const cpu = new CpuMachine().protectedMode().atUserLevel();
    cpu.set({ sysenterCs: BigInt(Sel.CODE), sysenterEip: 0x5000n, sysenterEsp: 0x6000n, rflags: 0x202n });
    expect(faultOf(cpu.run(0x0f, 0x34))).toBe('none');
    expect([cpu.get('cpl'), cpu.get('rip'), cpu.get('rsp'), cpu.get('rflags')]).toEqual([0n, 0x5000n, 0x6000n, 2n]);
    expect(faultOf(cpu.set({ rdx: 0x700n, rcx: 0x1_8000n }).run(0x0f, 0x35))).toBe('none');
    expect([cpu.get('cs') & 0xffffn, cpu.get('ss') & 0xffffn]).toEqual([BigInt(Sel.USER_CODE), BigInt(Sel.USER_DATA)]);
    expect(faultOf(new CpuMachine().longMode().run(0x0f, 0x34))).toBe('#UD');
    expect(faultOf(new CpuMachine().protectedMode().run(0x0f, 0x34))).toBe('#GP(0)');
    expect(faultOf(new CpuMachine().set({ cr0: CR0.ET, sysenterCs: 8n }).run(0x0f, 0x34))).toBe('#GP(0)');
  });
});

describe('precise faults', () => {
  it('leave stack, segments and memory as they were when a push faults', () => {
    const cpu = new CpuMachine()
      .protectedMode()
      .atUserLevel()
      .describe(SPARE, gate(Sel.CODE, TARGET, 0xec));
    cpu.missingPages.add((INNER_STACK_TOP - 4) >> 12);
    const before = [cpu.get('rsp'), cpu.get('cs'), cpu.get('rip'), cpu.read(GDT + Sel.CODE, 8), cpu.read(TSS, 8)];
    expect(faultOf(cpu.run(...call(SPARE | 3, 0)))).toBe('#PF(2)');
    expect([cpu.get('rsp'), cpu.get('cs'), cpu.get('rip'), cpu.read(GDT + Sel.CODE, 8), cpu.read(TSS, 8)]).toEqual(
      before,
    );
  });
});

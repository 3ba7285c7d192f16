import { describe, expect, it } from 'vitest';
import { CR4, Flag } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, faultOf, TSS } from '../../support/cpu-machine.js';

const [CLI, STI, PUSHF, POPF, IRET] = [0xfa, 0xfb, 0x9c, 0x9d, 0xcf];
const INT = (vector: number) => [0xcd, vector];
const WIDE = 0x66;
/** SS is at 1000h. */
const STACK = 0x1_8000;
const BITMAP = 0x100;

/** Virtual-8086 mode with CR4.VME and an empty interrupt-redirection bitmap. */
function machine(iopl: number, rflags = 0n): CpuMachine {
  const cpu = new CpuMachine().virtual8086(iopl).write(TSS + 0x66, 2, BigInt(BITMAP + 32));
  return cpu.set({ cr4: CR4.VME, rflags: cpu.get('rflags') | rflags });
}
const flags = (cpu: CpuMachine) => cpu.get('rflags') & (Flag.IF | Flag.VIF | Flag.VIP);

describe('CLI and STI below IOPL 3 (APM vol.2 §8.10.1 Virtual-8086 Mode Extensions)', () => {
  it('act on VIF', () => {
    const cpu = machine(0);
    expect(faultOf(cpu.run(STI))).toBe('none');
    expect(flags(cpu)).toBe(Flag.VIF);
    cpu.run(CLI);
    expect(flags(cpu)).toBe(0n);
  });

  it('STI is #GP while a virtual interrupt is pending', () => {
    expect(faultOf(machine(0, Flag.VIP).run(STI))).toBe('#GP(0)');
    expect(faultOf(machine(0, Flag.VIP).run(CLI))).toBe('none');
  });

  it('act on IF at IOPL 3', () => {
    const cpu = machine(3);
    cpu.run(STI);
    expect(flags(cpu)).toBe(Flag.IF);
  });

  it('are #GP without CR4.VME', () => {
    expect(faultOf(machine(0).set({ cr4: CR4.PVI }).run(STI))).toBe('#GP(0)');
  });
});

describe('CLI and STI with CR4.PVI (APM vol.2 §8.10.2 Protected Mode Virtual Interrupts)', () => {
  const user = (cr4: bigint) => new CpuMachine().protectedMode().atUserLevel().set({ cr4 });

  it('act on VIF at CPL 3', () => {
    const cpu = user(CR4.PVI);
    cpu.run(STI);
    expect(flags(cpu)).toBe(Flag.VIF);
    expect(faultOf(cpu.set({ rflags: Flag.VIP | 2n }).run(STI))).toBe('#GP(0)');
  });

  it('are #GP without it, and at CPL 1', () => {
    expect(faultOf(user(CR4.VME).run(CLI))).toBe('#GP(0)');
    expect(faultOf(user(CR4.PVI).set({ cpl: 1n }).run(CLI))).toBe('#GP(0)');
  });
});

describe('the flags as a whole below IOPL 3 (APM vol.3 PUSHF, POPF, IRET)', () => {
  it('PUSHF shows VIF as IF, and IOPL 3', () => {
    const cpu = machine(1, Flag.VIF);
    cpu.run(PUSHF);
    expect(cpu.read(STACK - 2, 2)).toBe(0x3202n);
  });

  it('POPF moves IF to VIF and leaves IF and IOPL', () => {
    const cpu = machine(1).write(STACK, 2, 0x0203n);
    cpu.run(POPF);
    expect(cpu.get('rflags')).toBe(Flag.VM | Flag.VIF | 0x1003n);
    cpu.write(STACK + 2, 2, 0x3002n).run(POPF);
    expect(cpu.get('rflags')).toBe(Flag.VM | 0x1002n);
  });

  it('IRET does the same', () => {
    const cpu = machine(0)
      .write(STACK, 2, 0x123n)
      .write(STACK + 2, 2, 0x1000n)
      .write(STACK + 4, 2, 0x0202n);
    cpu.run(IRET);
    expect([cpu.get('rip'), cpu.get('rflags'), cpu.get('rsp')]).toEqual([0x123n, Flag.VM | Flag.VIF | 2n, 0x8006n]);
  });

  const refused: readonly (readonly [string, bigint, bigint, readonly number[]])[] = [
    ['POPF of IF while a virtual interrupt is pending', Flag.VIP, 0x0202n, [POPF]],
    ['POPF of TF', 0n, 0x0102n, [POPF]],
    ['POPF with 32 bits', 0n, 2n, [WIDE, POPF]],
    ['PUSHF with 32 bits', 0n, 2n, [WIDE, PUSHF]],
    ['IRET with 32 bits', 0n, 2n, [WIDE, IRET]],
  ];
  it.each(refused)('refuses %s', (_name, rflags, popped, code) => {
    const cpu = machine(0, rflags).write(STACK, 2, popped);
    expect(faultOf(cpu.run(...code))).toBe('#GP(0)');
  });

  it('lets IRET at CPL 0 load VIF and VIP', () => {
    const cpu = new CpuMachine().protectedMode();
    for (const [index, item] of [0x700n, 8n, Flag.VIF | Flag.VIP | 2n].entries())
      cpu.write(0x2_0000 + 4 * index, 4, item);
    cpu.run(IRET);
    expect(cpu.get('rflags')).toBe(Flag.VIF | Flag.VIP | 2n);
  });
});

describe('INT n (APM vol.2 §8.10.1, Interrupt Redirection of Software Interrupts)', () => {
  const redirecting = (iopl: number, rflags = 0n) => machine(iopl, rflags).write(4 * 0x21, 4, 0x2000_0456n);

  it('stays in virtual-8086 mode where its bit is clear', () => {
    const cpu = redirecting(3, Flag.IF | Flag.TF);
    expect(cpu.run(...INT(0x21))).toMatchObject({ kind: 'done', event: { type: 'cpu.system', mnemonic: 'INT' } });
    expect([2, 1, 0].map((item) => cpu.read(STACK - 6 + 2 * item, 2))).toEqual([0x3302n, 0x1000n, 2n]);
    expect([cpu.get('csBase'), cpu.get('rip'), cpu.get('rsp')]).toEqual([0x2_0000n, 0x456n, 0x7ffan]);
    expect(cpu.get('rflags')).toBe(Flag.VM | 0x3002n);
  });

  it('below IOPL 3 shows VIF as IF and clears it', () => {
    const cpu = redirecting(0, Flag.VIF | Flag.IF);
    cpu.run(...INT(0x21));
    expect(cpu.read(STACK - 2, 2)).toBe(0x3202n);
    expect(flags(cpu)).toBe(Flag.IF);
  });

  it('goes through the IDT where its bit is set, and at IOPL 3 only', () => {
    const marked = (iopl: number) => redirecting(iopl).write(TSS + BITMAP + (0x21 >> 3), 1, 2n);
    expect(faultOf(marked(3).run(...INT(0x21)))).toBe('software 33');
    expect(faultOf(marked(2).run(...INT(0x21)))).toBe('#GP(0)');
    expect(faultOf(marked(2).run(...INT(0x20)))).toBe('none');
  });

  it('without CR4.VME does not look at the bitmap', () => {
    expect(
      faultOf(
        redirecting(3)
          .set({ cr4: 0n })
          .run(...INT(0x21)),
      ),
    ).toBe('software 33');
    expect(
      faultOf(
        redirecting(0)
          .set({ cr4: 0n })
          .run(...INT(0x21)),
      ),
    ).toBe('#GP(0)');
  });

  it('is #GP when the bitmap lies outside the TSS', () => {
    expect(
      faultOf(
        redirecting(3)
          .write(TSS + 0x66, 2, 0xf000n)
          .run(...INT(0x21)),
      ),
    ).toBe('#GP(0)');
    expect(
      faultOf(
        redirecting(3)
          .write(TSS + 0x66, 2, 4n)
          .run(...INT(0x00)),
      ),
    ).toBe('#GP(0)');
  });

  it('leaves INT3 to the IDT', () => {
    expect(faultOf(redirecting(0).run(0xcc))).toBe('exception 3');
  });
});

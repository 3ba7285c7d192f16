import { describe, expect, it } from 'vitest';
import { CR0, CR4, EFER, R, SvmMode } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, DATA, faultOf } from '../../support/cpu-machine.js';

/** MOV CRn, RAX and MOV RAX, CRn. */
const toCr = (n: number) => (n === 8 ? [0x44, 0x0f, 0x22, 0xc0] : [0x0f, 0x22, 0xc0 | (n << 3)]);
const fromCr = (n: number) => (n === 8 ? [0x44, 0x0f, 0x20, 0xc0] : [0x0f, 0x20, 0xc0 | (n << 3)]);
const toDr = (n: number) => [0x0f, 0x23, 0xc0 | (n << 3)];
const fromDr = (n: number) => [0x0f, 0x21, 0xc0 | (n << 3)];
const PAGED = CR0.PE | CR0.PG | CR0.ET | CR0.NE | CR0.WP;

describe('MOV to control registers: what is refused (APM vol.2 §3.1 System-Control Registers)', () => {
  const cases: readonly (readonly [string, 'long' | 'legacy', number, bigint, string])[] = [
    ['CR0 bits 63:32', 'long', 0, PAGED | (1n << 32n), '#GP(0)'],
    ['CR0.PG without PE', 'legacy', 0, CR0.PG, '#GP(0)'],
    ['CR0.NW without CD', 'long', 0, PAGED | CR0.NW, '#GP(0)'],
    ['CR0.CD with NW', 'long', 0, PAGED | CR0.NW | CR0.CD, 'none'],
    ['CR0.PG cleared in 64-bit mode', 'long', 0, CR0.PE, '#GP(0)'],
    ['undefined low bits of CR0', 'long', 0, PAGED | 0x0800_ff00n, 'none'],
    ['CR3 above the physical width', 'long', 3, 1n << 40n, '#GP(0)'],
    ['CR3 low bits', 'long', 3, 0x1fffn, 'none'],
    ['CR4.PAE cleared in long mode', 'long', 4, 0n, '#GP(0)'],
    ['CR4.PCIDE in legacy mode', 'legacy', 4, CR4.PCIDE, '#GP(0)'],
    ['CR4.LA57', 'long', 4, CR4.PAE | CR4.LA57, '#GP(0)'],
    ['CR4.PKE without protection keys', 'long', 4, CR4.PAE | CR4.PKE, '#GP(0)'],
    ['CR4 with a reserved bit', 'long', 4, CR4.PAE | (1n << 15n), '#GP(0)'],
    ['CR4 of all that the profile has', 'long', 4, 0x30_0ffcn, 'none'],
    ['CR8 above 15', 'long', 8, 16n, '#GP(0)'],
    ['CR1', 'long', 1, 0n, '#UD'],
    ['CR5', 'long', 5, 0n, '#UD'],
  ];
  it.each(cases)('%s (%s mode)', (_name, mode, register, value, expected) => {
    const cpu = new CpuMachine();
    if (mode === 'long') cpu.longMode();
    else cpu.protectedMode();
    expect(faultOf(cpu.set({ rax: value }).run(...toCr(register)))).toBe(expected);
  });

  it('needs CPL 0, after #UD', () => {
    const cpu = new CpuMachine().longMode().atUserLevel();
    expect(faultOf(cpu.run(...fromCr(0)))).toBe('#GP(0)');
    expect(faultOf(cpu.run(...toCr(3)))).toBe('#GP(0)');
    expect(faultOf(cpu.run(...fromCr(1)))).toBe('#UD');
  });
});

describe('activating long mode (APM vol.2 §14.6)', () => {
  const legacy = () =>
    new CpuMachine().protectedMode().set({ efer: EFER.LME, cr4: CR4.PAE, rax: PAGED, cr3: BigInt(DATA) });

  it('sets LMA with PG under LME, and loads no page-directory pointers', () => {
    const cpu = legacy().write(DATA, 8, 0x1e7n);
    expect(faultOf(cpu.run(...toCr(0)))).toBe('none');
    expect([cpu.get('efer'), cpu.get('pdpte0')]).toEqual([EFER.LME | EFER.LMA, 0n]);
  });

  it('needs CR4.PAE and a code segment without L', () => {
    expect(
      faultOf(
        legacy()
          .set({ cr4: 0n })
          .run(...toCr(0)),
      ),
    ).toBe('#GP(0)');
    const cpu = legacy();
    expect(faultOf(cpu.set({ cs: cpu.get('cs') | (1n << 25n) }).run(...toCr(0)))).toBe('#GP(0)');
  });

  it('leaves with PG cleared in compatibility mode', () => {
    const cpu = new CpuMachine().longMode().set({ cs: 0xffff_ffff_0c9b_0008n, rax: CR0.PE });
    expect(faultOf(cpu.run(...toCr(0)))).toBe('none');
    expect(cpu.get('efer') & EFER.LMA).toBe(0n);
  });
});

describe('PAE page-directory pointers (APM vol.2 §5.2.4 PAE Paging)', () => {
  const pae = () => new CpuMachine().protectedMode().set({ cr0: PAGED, cr4: CR4.PAE, rax: BigInt(DATA) });

  it('are loaded with CR3, and refused with reserved bits when present', () => {
    const cpu = pae()
      .write(DATA, 8, 0x5001n)
      .write(DATA + 24, 8, 0x1e0n);
    expect(faultOf(cpu.run(...toCr(3)))).toBe('none');
    expect([cpu.get('pdpte0'), cpu.get('pdpte3')]).toEqual([0x5001n, 0x1e0n]);
    cpu.write(DATA + 8, 8, 0x5003n);
    expect(faultOf(cpu.run(...toCr(3)))).toBe('#GP(0)');
    expect(cpu.get('cr3')).toBe(BigInt(DATA));
  });

  it('are left to the walk under nested paging (§15.25.10)', () => {
    const cpu = pae().write(DATA, 8, 0x1e7n).intercepting();
    cpu.registers[R.nestedControl] = 1n;
    expect(faultOf(cpu.run(...toCr(3)))).toBe('none');
    expect(cpu.get('pdpte0')).toBe(0n);
  });
});

describe('translations that a write drops (APM vol.2 §5.5.3 TLB Management)', () => {
  it('CR3 drops all but global ones of the address space in use', () => {
    const cpu = new CpuMachine().longMode().set({ rax: 0x5000n });
    cpu.run(...toCr(3));
    expect(cpu.flushes).toEqual([{ scope: 'non-global', asid: 0 }]);
    cpu.set({ svmMode: SvmMode.GUEST | SvmMode.GIF, guestAsid: 7n }).run(...toCr(3));
    expect(cpu.flushes).toEqual([{ scope: 'non-global', asid: 7 }]);
  });

  it('CR4.PGE, PAE, PSE, SMEP, SMAP and CR0.WP, PG drop all', () => {
    const cpu = new CpuMachine().longMode();
    for (const bit of [CR4.PGE, CR4.PSE, CR4.SMEP, CR4.SMAP]) {
      cpu.set({ rax: CR4.PAE | bit, cr4: CR4.PAE }).run(...toCr(4));
      expect(cpu.flushes).toEqual([{ scope: 'asid', asid: 0 }]);
    }
    cpu.set({ rax: CR4.PAE | CR4.TSD, cr4: CR4.PAE }).run(...toCr(4));
    expect(cpu.flushes).toEqual([]);
    cpu.set({ rax: PAGED & ~CR0.WP }).run(...toCr(0));
    expect(cpu.flushes).toEqual([{ scope: 'asid', asid: 0 }]);
  });

  it('INVLPG drops one page and reports its linear address when intercepted (§15.8.3)', () => {
    const cpu = new CpuMachine().longMode().set({ rax: 0x10n, gsBase: 0xffff_8000_0000_0000n });
    cpu.run(0x65, 0x0f, 0x01, 0x38);
    expect(cpu.flushes).toEqual([{ scope: 'page', asid: 0, linear: 0xffff_8000_0000_0010n }]);
    cpu.intercepting('INVLPG');
    expect(cpu.run(0x65, 0x0f, 0x01, 0x38)).toMatchObject({ exit: { code: 0x79n, info1: 0xffff_8000_0000_0010n } });
  });
});

describe('intercepts of control registers (APM vol.2 §15.9, table 15-7)', () => {
  it('report the general-purpose register, after exceptions', () => {
    const cpu = new CpuMachine().longMode().intercepting('CR4_WRITE', 'CR3_READ');
    expect(cpu.set({ rax: CR4.PAE }).run(...toCr(4))).toMatchObject({ exit: { code: 0x14n, info1: 1n << 63n } });
    expect(faultOf(cpu.set({ rax: CR4.LA57 }).run(...toCr(4)))).toBe('#GP(0)');
    expect(cpu.run(0x0f, 0x20, 0xd9)).toMatchObject({ exit: { code: 3n, info1: (1n << 63n) | 1n } });
  });

  it('selective CR0 writes pass TS and MP, and stop every LMSW before its operand', () => {
    const cpu = new CpuMachine().longMode().intercepting('CR0_SEL_WRITE');
    expect(faultOf(cpu.set({ rax: PAGED | CR0.TS | CR0.MP }).run(...toCr(0)))).toBe('none');
    expect(faultOf(cpu.set({ rax: PAGED | CR0.AM }).run(...toCr(0)))).toBe('exit 65');
    cpu.missingPages.add(5);
    expect(faultOf(cpu.set({ rbx: 0x5000n }).run(0x0f, 0x01, 0x33))).toBe('exit 65');
    expect(faultOf(cpu.run(0x0f, 0x06))).toBe('none');
  });

  it('the plain CR0 intercept wins over the selective one, and takes CLTS and LMSW', () => {
    const cpu = new CpuMachine().longMode().intercepting('CR0_SEL_WRITE', 'CR0_WRITE');
    expect(faultOf(cpu.set({ rax: PAGED | CR0.AM }).run(...toCr(0)))).toBe('exit 10');
    expect(cpu.run(0x0f, 0x06)).toMatchObject({ exit: { code: 0x10n, info1: 0n } });
    expect(faultOf(cpu.run(0x0f, 0x01, 0xf0))).toBe('exit 10');
  });

  it('SMSW is a read of CR0', () => {
    expect(faultOf(new CpuMachine().longMode().intercepting('CR0_READ').run(0x0f, 0x01, 0xe0))).toBe('exit 0');
  });
});

describe('LMSW, SMSW, CLTS (APM vol.3)', () => {
  it('LMSW sets PE, MP, EM, TS and cannot clear PE', () => {
    const cpu = new CpuMachine().set({ rax: 0xffff_fff1n });
    cpu.run(0x0f, 0x01, 0xf0);
    expect(cpu.get('cr0') & 0xfn).toBe(1n);
    cpu.set({ rax: 0xen }).run(0x0f, 0x01, 0xf0);
    expect(cpu.get('cr0') & 0xfn).toBe(0xfn);
  });

  it('CLTS clears TS and says so in its event', () => {
    const cpu = new CpuMachine().longMode().set({ cr0: PAGED | CR0.TS });
    expect(cpu.run(0x0f, 0x06)).toMatchObject({ event: { type: 'cpu.control', register: 'cr0', value: PAGED } });
  });

  it('SMSW gives 16 bits to memory and as many as the operand has to a register', () => {
    const cpu = new CpuMachine()
      .longMode()
      .write(DATA, 4, 0xffff_ffffn)
      .set({ rbx: BigInt(DATA), rax: ~0n & 0xffn });
    cpu.run(0x0f, 0x01, 0x23);
    expect(cpu.read(DATA, 4)).toBe(0xffff_0000n | (PAGED & 0xffffn));
    cpu.run(0x0f, 0x01, 0xe0);
    expect(cpu.get('rax')).toBe(PAGED);
  });
});

describe('CR8 (APM vol.2 §15.21.2 Virtualizing APIC.TPR)', () => {
  it('is the task priority of the local APIC', () => {
    const cpu = new CpuMachine().longMode().set({ rax: 9n });
    cpu.run(...toCr(8));
    expect(cpu.taskPriority).toBe(9n);
    cpu.run(...fromCr(8));
    expect(cpu.get('rax')).toBe(9n);
  });

  it('is V_TPR for a guest with V_INTR_MASKING', () => {
    const cpu = new CpuMachine()
      .longMode()
      .set({ rax: 9n, intControl: 1n << 24n })
      .intercepting();
    cpu.run(...toCr(8));
    expect([cpu.taskPriority, cpu.get('intControl')]).toEqual([0n, (1n << 24n) | 9n]);
    cpu.set({ rax: 0n }).run(...fromCr(8));
    expect(cpu.get('rax')).toBe(9n);
  });
});

describe('MOV DRn (APM vol.2 §13.1.1 Debug Registers)', () => {
  it('DR4 and DR5 are DR6 and DR7, but for CR4.DE', () => {
    const cpu = new CpuMachine().longMode();
    cpu.run(...fromDr(4));
    expect(cpu.get('rax')).toBe(0xffff_0ff0n);
    expect(faultOf(cpu.set({ cr4: CR4.PAE | CR4.DE }).run(...fromDr(4)))).toBe('#UD');
    expect(faultOf(cpu.run(...toDr(5)))).toBe('#UD');
  });

  it('refuses the upper halves of DR6 and DR7, and fixes their constant bits', () => {
    const cpu = new CpuMachine().longMode().set({ rax: 1n << 32n });
    expect(faultOf(cpu.run(...toDr(6)))).toBe('#GP(0)');
    expect(faultOf(cpu.run(...toDr(7)))).toBe('#GP(0)');
    expect(faultOf(cpu.run(...toDr(0)))).toBe('none');
    cpu.set({ rax: 0n }).run(...toDr(7));
    cpu.run(...toDr(6));
    expect([cpu.get('dr0'), cpu.get('dr7'), cpu.get('dr6')]).toEqual([1n << 32n, 0x400n, 0xffff_0ff0n]);
    cpu.set({ rax: 0xffff_ffffn }).run(...toDr(7));
    expect(cpu.get('dr7')).toBe(0xffff_27ffn);
  });

  it('faults under general detect before the intercept, after the privilege check (§13.1.1.3)', () => {
    const cpu = new CpuMachine().longMode().set({ dr7: 0x2400n }).intercepting('DR0_READ');
    expect(cpu.run(...fromDr(0))).toMatchObject({ kind: 'fault', vector: 1, fault: { dr6: 0x2000n } });
    expect(faultOf(cpu.atUserLevel().run(...fromDr(0)))).toBe('#GP(0)');
    cpu.longMode().set({ dr7: 0x400n });
    expect(cpu.run(0x0f, 0x21, 0xc3)).toMatchObject({ exit: { code: 0x20n, info1: 3n } });
  });
});

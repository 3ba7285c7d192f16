import { describe, expect, it } from 'vitest';
import { checkSegment } from '../../../src/machine/cpu/segments.js';
import { Access } from '../../../src/machine/cpu/transaction.js';
import { GuestFault } from '../../../src/machine/faults.js';
import { Boundary, CR4, R, type RegisterName, Segment } from '../../../src/machine/layout/cpu-state.js';
import { CpuMachine, DATA, descriptor, faultOf, GDT, gate, Sel } from '../../support/cpu-machine.js';

const { SPARE } = Sel;
/** MOV Sreg, AX. */
const MOV = { es: [0x8e, 0xc0], ss: [0x8e, 0xd0], ds: [0x8e, 0xd8], fs: [0x8e, 0xe0], gs: [0x8e, 0xe8] } as const;
const DATA_DPL = (dpl: number, present = 0x80) => descriptor(0x1234, 0xfff, 0x12 | present | (dpl << 5), 4);

describe('loads of segment registers in protected mode (APM vol.2 §4.10 Data-Access Privilege Checks)', () => {
  const cases: readonly (readonly [string, 'es' | 'ss', number, bigint, 0 | 3, string])[] = [
    ['data at its own level', 'es', SPARE, DATA_DPL(0), 0, 'none'],
    ['data of an inner level', 'es', SPARE | 3, DATA_DPL(0), 3, '#GP(58)'],
    ['data through an RPL that is too high', 'es', SPARE | 3, DATA_DPL(0), 0, '#GP(58)'],
    ['data of an outer level', 'es', SPARE, DATA_DPL(3), 0, 'none'],
    ['data that is not present', 'es', SPARE, DATA_DPL(0, 0), 0, '#NP(58)'],
    ['readable code', 'es', SPARE, descriptor(0, 0xfff, 0x9a, 4), 0, 'none'],
    ['execute-only code', 'es', SPARE, descriptor(0, 0xfff, 0x98, 4), 0, '#GP(58)'],
    ['readable conforming code of an inner level', 'es', SPARE | 3, descriptor(0, 0xfff, 0x9e, 4), 3, 'none'],
    ['a system segment', 'es', SPARE, descriptor(0, 0xfff, 0x82, 0), 0, '#GP(58)'],
    ['a selector beyond the GDT', 'es', 0x7f8, 0n, 0, '#GP(7f8)'],
    ['a selector of an LDT that is null', 'es', 0x0f, 0n, 0, '#GP(c)'],
    ['null', 'es', 3, 0n, 0, 'none'],
    ['a stack', 'ss', SPARE, DATA_DPL(0), 0, 'none'],
    ['a stack that is not present', 'ss', SPARE, DATA_DPL(0, 0), 0, '#SS(58)'],
    ['a stack of another level', 'ss', SPARE | 3, DATA_DPL(3), 0, '#GP(58)'],
    ['a stack that is read-only', 'ss', SPARE, descriptor(0, 0xfff, 0x90, 4), 0, '#GP(58)'],
    ['code as a stack', 'ss', SPARE, descriptor(0, 0xfff, 0x9a, 4), 0, '#GP(58)'],
    ['a null stack', 'ss', 0, 0n, 0, '#GP(0)'],
  ];
  it.each(cases)('%s into %s: selector %i', (_name, register, selector, raw, cpl, expected) => {
    const cpu = new CpuMachine().protectedMode();
    if (cpl === 3) cpu.atUserLevel();
    cpu.describe(SPARE, raw).set({ rax: BigInt(selector) });
    expect(faultOf(cpu.run(...MOV[register]))).toBe(expected);
  });

  it('loads base, limit and attributes, and sets the accessed bit in memory (§4.7.2)', () => {
    const cpu = new CpuMachine().protectedMode().describe(SPARE, descriptor(0x1234_5678, 0x12345, 0x92, 0xc));
    cpu.set({ rax: BigInt(SPARE) }).run(...MOV.es);
    expect(cpu.get('es')).toBe(0x1234_5fff_0c93_0000n | BigInt(SPARE));
    expect(cpu.get('esBase')).toBe(0x1234_5678n);
    expect(cpu.read(GDT + SPARE + 5, 1)).toBe(0x93n);
  });

  it('makes a register null without attributes; FS and GS keep their bases in long mode', () => {
    const cpu = new CpuMachine().protectedMode().set({ rax: 2n, esBase: 0x5000n });
    cpu.run(...MOV.es);
    expect([cpu.get('es'), cpu.get('esBase')]).toEqual([2n, 0n]);
    const long = new CpuMachine().longMode().set({ rax: 0n, fsBase: 0x7fff_0000_1000n });
    long.run(...MOV.fs);
    expect([long.get('fs'), long.get('fsBase')]).toEqual([0n, 0x7fff_0000_1000n]);
  });

  it('holds interrupts and debug traps for one instruction after MOV SS (§8.5)', () => {
    const cpu = new CpuMachine().protectedMode().set({ rax: BigInt(Sel.DATA) });
    cpu.run(...MOV.ss);
    expect(cpu.get('boundary')).toBe(Boundary.INTERRUPT_SHADOW | Boundary.DEBUG_SHADOW);
  });

  it('takes a null SS in 64-bit mode below CPL 3 with RPL = CPL (§4.8.4)', () => {
    const cpu = new CpuMachine().longMode().set({ rax: 0n });
    expect(faultOf(cpu.run(...MOV.ss))).toBe('none');
    expect(faultOf(cpu.set({ rax: 3n }).run(...MOV.ss))).toBe('#GP(0)');
    expect(
      faultOf(
        cpu
          .atUserLevel()
          .set({ rax: 3n })
          .run(...MOV.ss),
      ),
    ).toBe('#GP(0)');
  });

  it('refuses MOV CS', () => {
    expect(faultOf(new CpuMachine().protectedMode().run(0x8e, 0xc8))).toBe('#UD');
  });

  it('changes selector and base only in real mode, so that limits of protected mode stay (§4.6.3)', () => {
    const cpu = new CpuMachine().set({ rax: 0x1234n, es: 0xffff_ffff_0c93_0010n });
    cpu.run(...MOV.es);
    expect([cpu.get('es'), cpu.get('esBase')]).toEqual([0xffff_ffff_0c93_1234n, 0x12340n]);
  });

  it('pops SS with the width of the old stack, and the shadow follows', () => {
    const cpu = new CpuMachine().protectedMode();
    cpu.write(Number(cpu.get('rsp')), 4, BigInt(Sel.DATA));
    const top = cpu.get('rsp');
    expect(faultOf(cpu.run(0x17))).toBe('none');
    expect(cpu.get('rsp')).toBe(top + 4n);
    expect(cpu.get('boundary') & Boundary.INTERRUPT_SHADOW).not.toBe(0n);
  });

  it('loads SS and ESP from a far pointer (APM vol.3 LSS)', () => {
    const cpu = new CpuMachine()
      .protectedMode()
      .write(DATA, 4, 0x1_8000n)
      .write(DATA + 4, 2, BigInt(Sel.DATA));
    expect(faultOf(cpu.run(0x0f, 0xb2, 0x25, 0, 0, 3, 0))).toBe('none');
    expect(cpu.get('rsp')).toBe(0x1_8000n);
  });
});

describe('LLDT and LTR (APM vol.3; APM vol.2 §4.8.3 System Descriptors)', () => {
  const lldt = [0x0f, 0x00, 0xd0];
  const ltr = [0x0f, 0x00, 0xd8];
  const cases: readonly (readonly [string, readonly number[], number, bigint, bigint, string])[] = [
    ['LLDT of an LDT', lldt, SPARE, descriptor(0x5000, 0xff, 0x82, 0), 0n, 'none'],
    ['LLDT of data', lldt, SPARE, DATA_DPL(0), 0n, '#GP(58)'],
    ['LLDT not present', lldt, SPARE, descriptor(0x5000, 0xff, 0x02, 0), 0n, '#NP(58)'],
    ['LLDT through the LDT', lldt, SPARE | 4, 0n, 0n, '#GP(5c)'],
    ['LLDT with a base that is not canonical', lldt, SPARE, descriptor(0, 0xff, 0x82, 0), 0x9000n, '#GP(58)'],
    ['LLDT with a type in the upper half', lldt, SPARE, descriptor(0, 0xff, 0x82, 0), 1n << 40n, '#GP(58)'],
    ['LTR of an available TSS', ltr, SPARE, descriptor(0x6000, 0x67, 0x89, 0), 0n, 'none'],
    ['LTR of a busy TSS', ltr, SPARE, descriptor(0x6000, 0x67, 0x8b, 0), 0n, '#GP(58)'],
    ['LTR of a 16-bit TSS in long mode', ltr, SPARE, descriptor(0x6000, 0x67, 0x81, 0), 0n, '#GP(58)'],
    ['LTR of null', ltr, 0, 0n, 0n, '#GP(0)'],
  ];
  it.each(cases)('%s', (_name, bytes, selector, low, high, expected) => {
    const cpu = new CpuMachine()
      .longMode()
      .describe(SPARE, low)
      .describe(SPARE + 8, high);
    expect(faultOf(cpu.set({ rax: BigInt(selector) }).run(...bytes))).toBe(expected);
  });

  it('takes a base of 64 bits in long mode, and makes the TSS busy in memory', () => {
    const cpu = new CpuMachine().longMode().describe(SPARE, descriptor(0x6000, 0x67, 0x89, 0));
    cpu
      .describe(SPARE + 8, 0xffff_8000n)
      .set({ rax: BigInt(SPARE) })
      .run(...ltr);
    expect(cpu.get('trBase')).toBe(0xffff_8000_0000_6000n);
    expect(cpu.get('tr')).toBe(0x67_008b_0000n | BigInt(SPARE));
    expect(cpu.read(GDT + SPARE + 5, 1)).toBe(0x8bn);
  });

  it('reads a selector of the LDT once there is one', () => {
    const cpu = new CpuMachine().protectedMode().describe(SPARE, descriptor(DATA, 0x0f, 0x82, 0));
    cpu
      .write(DATA + 8, 8, DATA_DPL(0))
      .set({ rax: BigInt(SPARE) })
      .run(...lldt);
    expect(faultOf(cpu.set({ rax: 0x0cn }).run(...MOV.es))).toBe('none');
    expect(cpu.get('esBase')).toBe(0x1234n);
    expect(faultOf(cpu.set({ rax: 0x14n }).run(...MOV.es))).toBe('#GP(14)');
  });
});

describe('checkSegment (APM vol.2 §4.12 Segment-Limit and Type Checks, §4.13 Long-Mode Segment Checks)', () => {
  const check = (cpu: CpuMachine, segment: number, offset: bigint, size: number, access: number = Access.READ) => {
    try {
      return checkSegment(cpu.reader, segment, offset, size, access).toString(16);
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault;
      return `#${fault.vector === 12 ? 'SS' : 'GP'}(${fault.errorCode})`;
    }
  };
  const small = 0xfff_0493_0058n;
  const cases: readonly (readonly [string, bigint, number, bigint, number, number, string])[] = [
    ['the last bytes', small, Segment.ES, 0xffcn, 4, Access.READ, '51fc'],
    ['one byte past the limit', small, Segment.ES, 0xffdn, 4, Access.READ, '#GP(0)'],
    ['a wrap past 4 GiB', 0xffff_ffff_0c93_0058n, Segment.ES, 0xffff_fffen, 4, Access.READ, '#GP(0)'],
    ['a write to read-only data', 0xfff_0491_0058n, Segment.ES, 0n, 1, Access.WRITE, '#GP(0)'],
    ['a read of execute-only code', 0xfff_0499_0058n, Segment.CS, 0n, 1, Access.READ, '#GP(0)'],
    ['a fetch of execute-only code', 0xfff_0499_0058n, Segment.CS, 0n, 1, Access.FETCH, '4200'],
    ['a write to code', 0xfff_049b_0058n, Segment.CS, 0n, 1, Access.WRITE, '#GP(0)'],
    ['an access through null', 0n, Segment.DS, 0n, 1, Access.READ, '#GP(0)'],
    ['a stack past its limit', small, Segment.SS, 0x1000n, 1, Access.WRITE, '#SS(0)'],
    ['below an expand-down segment', 0xfff_0497_0058n, Segment.ES, 0xfffn, 1, Access.READ, '#GP(0)'],
    ['inside an expand-down segment', 0xfff_0497_0058n, Segment.ES, 0x1000n, 1, Access.READ, '5200'],
    ['above a 16-bit expand-down segment', 0xfff_0097_0058n, Segment.ES, 0xffffn, 2, Access.READ, '#GP(0)'],
  ];
  it.each(cases)('%s', (_name, word, segment, offset, size, access, expected) => {
    const names = ['es', 'cs', 'ss', 'ds'] as const;
    const name = names[segment] as 'es';
    const cpu = new CpuMachine().protectedMode().set({ [name]: word, [`${name}Base` as RegisterName]: 0x4200n });
    // 16-bit cases keep their code segment of 32 bits where it is not the one under test
    expect(check(cpu, segment, offset, size, access)).toBe(expected);
  });

  it('adds only the bases of FS and GS in 64-bit mode, and checks the canonical form', () => {
    const cpu = new CpuMachine().longMode().set({ fsBase: 0xffff_8000_0000_0000n, esBase: 0x7000n });
    expect(check(cpu, Segment.ES, 0x10n, 8)).toBe('10');
    expect(check(cpu, Segment.FS, 0x10n, 8)).toBe('ffff800000000010');
    expect(check(cpu, Segment.FS, 0x8000_0000_0000n, 1)).toBe('0');
    expect(check(cpu, Segment.DS, 0x8000_0000_0000n, 1)).toBe('#GP(0)');
    expect(check(cpu, Segment.DS, 0x7fff_ffff_fffcn, 8)).toBe('#GP(0)');
    expect(check(cpu, Segment.SS, 0x8000_0000_0000n, 1)).toBe('#SS(0)');
  });

  it('does not look at types in real mode, but at limits (§4.6.3)', () => {
    const cpu = new CpuMachine().set({ csBase: 0x100n });
    expect(check(cpu, Segment.CS, 0x10n, 2, Access.WRITE)).toBe('110');
    expect(check(cpu, Segment.CS, 0xffffn, 2, Access.WRITE)).toBe('#GP(0)');
  });
});

describe('looks at descriptors without a load (APM vol.3 LAR, LSL, VERR, VERW, ARPL)', () => {
  const LAR = [0x0f, 0x02, 0xc3];
  const LSL = [0x0f, 0x03, 0xc3];
  const VERR = [0x0f, 0x00, 0xe3];
  const VERW = [0x0f, 0x00, 0xeb];
  const ZF = 0x40n;
  const cases: readonly (readonly [string, readonly number[], bigint, 'long' | 'legacy', bigint | undefined])[] = [
    ['LAR of data', LAR, descriptor(0, 0xf_ffff, 0x92, 0xc), 'long', 0xcf_9200n],
    ['LAR of a 32-bit TSS', LAR, descriptor(0, 0x67, 0x89, 0), 'long', 0x8900n],
    ['LAR of a 16-bit TSS in legacy mode', LAR, descriptor(0, 0x67, 0x81, 0), 'legacy', 0x8100n],
    ['LAR of a 16-bit TSS in long mode', LAR, descriptor(0, 0x67, 0x81, 0), 'long', undefined],
    ['LAR of an interrupt gate', LAR, gate(8, 0, 0x8e), 'legacy', undefined],
    ['LSL with G', LSL, descriptor(0, 0x1, 0x92, 0xc), 'long', 0x1fffn],
    ['LSL of a call gate', LSL, gate(8, 0, 0x8c), 'legacy', undefined],
  ];
  it.each(cases)('%s', (_name, bytes, raw, mode, expected) => {
    const cpu = new CpuMachine();
    if (mode === 'long') cpu.longMode();
    else cpu.protectedMode();
    cpu.describe(SPARE, raw).set({ rax: 0x77n, rbx: BigInt(SPARE) });
    expect(faultOf(cpu.run(...bytes))).toBe('none');
    expect(cpu.get('rax')).toBe(expected ?? 0x77n);
    expect((cpu.get('rflags') & ZF) !== 0n).toBe(expected !== undefined);
  });

  it('clears ZF for null and for what lies outside the table', () => {
    for (const selector of [0n, 3n, 0x7f8n]) {
      const cpu = new CpuMachine().protectedMode().set({ rbx: selector, rflags: 0x42n });
      cpu.run(...LAR);
      expect(cpu.get('rflags') & ZF).toBe(0n);
    }
  });

  it('verifies reads and writes at the current privilege', () => {
    const zf = (bytes: readonly number[], raw: bigint, user: boolean) => {
      const cpu = new CpuMachine()
        .protectedMode()
        .describe(SPARE, raw)
        .set({ rbx: BigInt(SPARE) });
      if (user) cpu.atUserLevel();
      cpu.run(...bytes);
      return (cpu.get('rflags') & ZF) !== 0n;
    };
    expect(zf(VERR, DATA_DPL(0), false)).toBe(true);
    expect(zf(VERR, DATA_DPL(0), true)).toBe(false);
    expect(zf(VERR, descriptor(0, 1, 0x98, 4), false)).toBe(false);
    expect(zf(VERW, DATA_DPL(3), true)).toBe(true);
    expect(zf(VERW, descriptor(0, 1, 0x9a, 4), false)).toBe(false);
  });

  it('raises the RPL with ARPL', () => {
    const cpu = new CpuMachine().protectedMode().set({ rax: 0xfffcn, rbx: 3n });
    cpu.run(0x63, 0xd8);
    expect([cpu.get('rax'), cpu.get('rflags') & ZF]).toEqual([0xffffn, ZF]);
    cpu.run(0x63, 0xd8);
    expect(cpu.get('rflags') & ZF).toBe(0n);
  });
});

describe('descriptor-table registers', () => {
  it('loads ten bytes in 64-bit mode and refuses a base that is not canonical (APM vol.3 LGDT)', () => {
    const cpu = new CpuMachine()
      .longMode()
      .write(DATA, 2, 0x1234n)
      .write(DATA + 2, 8, 0xffff_8000_0000_1000n);
    cpu.set({ rbx: BigInt(DATA) });
    expect(faultOf(cpu.run(0x0f, 0x01, 0x13))).toBe('none');
    expect([cpu.get('gdtrLimit'), cpu.get('gdtrBase')]).toEqual([0x1234n, 0xffff_8000_0000_1000n]);
    cpu.write(DATA + 2, 8, 0x9000_0000_0000n);
    expect(faultOf(cpu.run(0x0f, 0x01, 0x13))).toBe('#GP(0)');
  });

  it('takes 24 bits of the base with 16-bit operands', () => {
    const cpu = new CpuMachine()
      .protectedMode()
      .write(DATA, 8, 0xaabb_ccdd_0010n)
      .set({ rbx: BigInt(DATA) });
    cpu.run(0x66, 0x0f, 0x01, 0x1b);
    expect([cpu.get('idtrLimit'), cpu.get('idtrBase')]).toEqual([0x10n, 0xbb_ccddn]);
  });

  it('hides SGDT, SIDT, SLDT, STR and SMSW from programs under CR4.UMIP', () => {
    const stores = [
      [0x0f, 0x01, 0x03],
      [0x0f, 0x01, 0x0b],
      [0x0f, 0x00, 0xc0],
      [0x0f, 0x00, 0xc8],
      [0x0f, 0x01, 0xe0],
    ];
    for (const bytes of stores) {
      const cpu = new CpuMachine()
        .longMode()
        .atUserLevel()
        .set({ rbx: BigInt(DATA) });
      expect(faultOf(cpu.run(...bytes))).toBe('none');
      cpu.registers[R.cr4] = CR4.PAE | CR4.UMIP;
      expect(faultOf(cpu.run(...bytes))).toBe('#GP(0)');
    }
  });

  it('intercepts before the memory operand and before descriptor checks (§15.9, table 15-7)', () => {
    const cpu = new CpuMachine().longMode().set({ rbx: 0x9000_0000_0000n, rax: 0x7f8n });
    cpu.intercepting('GDTR_WRITE', 'TR_WRITE');
    expect(faultOf(cpu.run(0x0f, 0x01, 0x13))).toBe('exit 6b');
    expect(faultOf(cpu.run(0x0f, 0x00, 0xd8))).toBe('exit 6d');
    cpu.atUserLevel();
    expect(faultOf(cpu.run(0x0f, 0x00, 0xd8))).toBe('#GP(0)');
  });
});
